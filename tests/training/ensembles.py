"""What tests of trainings share; needs torch alone, as test_cuda.py does."""

import math

import torch

from nodecore.training.checkpoint import Checkpoint
from nodecore.training.ensemble import make_model


class Killed(BaseException):
    """What ends a training in these tests as kill -9 does: nothing catches it."""


class Deadly(Checkpoint):
    """Saves after every iteration, and dies once it has saved `after` of them."""

    def __init__(self, path, after):
        super().__init__(path, every=0.0)
        self.after = after

    def save(self, *state):
        super().save(*state)
        self.after -= 1
        if self.after == 0:
            raise Killed


def parameters(trained):
    return [*trained.field.parameters(), *trained.head.parameters()]


def poison(monkeypatch, value=math.nan, member=1):
    """Give one member of every ensemble that is made from now on weights of this value."""

    def make_poisoned(protocol, seeds):
        field, head = make_model(protocol, seeds)
        with torch.no_grad():
            field.third[0][member] = value
        return field, head

    monkeypatch.setattr("nodecore.training.ensemble.make_model", make_poisoned)
