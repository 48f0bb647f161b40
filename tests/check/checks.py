"""What the tests of check_flow share."""

import numpy as np
import torch

from nodecore import check_flow
from nodecore.check.report import FlowReport


def quiet(*args, **options) -> FlowReport:
    return check_flow(*args, verbose=False, **options)


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def decay(t, z):
    return -z
