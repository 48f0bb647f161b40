"""What rounding decides is not blamed on the steps of the training."""

import pytest
import torch
from checks import normal, quiet
from torch import nn
from torchdiffeq import odeint

from nodecore.check.verdict import CANNOT_TELL, FLOW, NOT_A_FLOW


class Blocks(nn.Module):
    """A residual network as a field: in each of K equal times it is another block."""

    def __init__(self, k, end=1.0):
        super().__init__()
        self.k, self.end = k, end
        generator = torch.Generator().manual_seed(0)
        self.weights = 2 * torch.randn(k, 2, 2, generator=generator)

    def forward(self, t, z):
        block = min(int(t * (self.k / self.end)), self.k - 1)
        return self.k / self.end * torch.tanh(z @ self.weights[block])


def by_torchdiffeq(k):
    options = {"step_size": 1 / k}
    return lambda f, z, t: odeint(f, z, t, method="euler", options=options)[-1]


def test_steps_that_fall_to_either_side_of_a_jump_allow_no_verdict():
    x, k = normal(100, 2), 55
    report = quiet(Blocks(k), None, x, solver="euler", step_size=1 / k)
    assert report.verdict == CANNOT_TELL and report.sensitivity is None
    assert "the rounding of the time decides which side of the jump a step sees" in report.reason
    # The two ways of computing the times are two models.
    times = torch.tensor([0.0, 1.0])
    theirs = by_torchdiffeq(k)(Blocks(k), x, times)
    ours = quiet(Blocks(k), None, x, solve=by_torchdiffeq(k))
    assert ours.verdict == NOT_A_FLOW  # the user's own solve is no matter of rounding
    in_numbers = Blocks(k, end=float(k))
    report = quiet(in_numbers, None, x, solver="euler", n_steps=k, t=(0.0, float(k)))
    assert report.verdict == NOT_A_FLOW
    z = x
    for weight in in_numbers.weights:
        z = z + torch.tanh(z @ weight)
    assert not torch.allclose(z, theirs, atol=0.1)


@pytest.mark.parametrize("k", [4, 8])
def test_steps_that_are_computed_exactly_are_no_matter_of_rounding(k):
    report = quiet(Blocks(k), None, normal(100, 2), solver="euler", n_steps=k)
    assert report.verdict == NOT_A_FLOW


class Coarse(nn.Module):
    """dz/dt = -z, which float32 rounds to nothing."""

    def forward(self, t, z):
        return -((z + 1e6) - 1e6)


@pytest.mark.parametrize(
    ("n_steps", "double", "verdict"), [(64, False, CANNOT_TELL), (64, True, FLOW), (1, False, None)]
)
def test_what_float32_loses_is_told_from_what_the_steps_lose(n_steps, double, verdict):
    x = 0.03 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    x = x.double() if double else x
    report = quiet(Coarse(), None, x, solver="euler", n_steps=n_steps)
    if verdict is None:  # one step of Euler's method lands at 0, in float64 too
        assert report.verdict == NOT_A_FLOW
        return
    assert report.verdict == verdict
    assert ("rounding, not the steps" in report.reason) == (verdict == CANNOT_TELL)
