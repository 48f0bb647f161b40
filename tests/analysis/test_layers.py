"""How much the layers of a residual network differ from one another."""

import pytest
import torch

from nodecore.analysis.layers import layer_changes
from nodecore.data.seeding import make_generator
from nodecore.ode.fields import MLPField, PiecewiseField


def make_field(seed):
    return MLPField(
        2, 8, generators=[make_generator(s, "initialisation") for s in (seed, seed + 1)]
    )


Z = torch.randn(2, 30, 2, generator=torch.Generator().manual_seed(0))


def test_equal_layers_do_not_change():
    changes = layer_changes(PiecewiseField([make_field(0)] * 4), Z)
    assert changes.shape == (3, 2, 30)
    assert (changes == 0).all()


def test_changes_are_those_of_the_states_that_the_layers_see():
    one, two, three = make_field(0), make_field(2), make_field(4)
    changes = layer_changes(PiecewiseField([one, two, three], T=1.5), Z)
    z = Z + 0.5 * one(0.0, Z)
    a, b = two(0.0, z), three(0.0, z)
    wanted = 2 * (a - b).norm(dim=-1) / (a.norm(dim=-1) + b.norm(dim=-1))
    torch.testing.assert_close(changes[1], wanted)


def test_samples_of_a_smooth_function_of_depth_change_as_the_inverse_of_their_number():
    def sample(depth):
        pieces = []
        for layer in range(depth):
            pieces.append(make_field(0))
            for parameter in pieces[-1].parameters():
                parameter.data *= 1 + layer / depth
        return PiecewiseField(pieces)

    medians = [float(layer_changes(sample(depth), Z / 10).median()) for depth in (16, 32)]
    assert medians[0] / medians[1] == pytest.approx(2, rel=0.15)
