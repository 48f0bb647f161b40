"""Steps past the end and states interpolated within them, against torchdiffeq's own."""

import pytest
import torch
from torchdiffeq import odeint

from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.dense import HALF_WAY, Dense, of_torchdiffeq

METHODS = {"dopri5": "dopri5", "bosh3": "bosh3", "fehlberg21": "fehlberg2"}
DRAW = torch.Generator().manual_seed(0)
WEIGHTS, START = (torch.randn(n, 5, generator=DRAW, dtype=torch.float64) for n in (5, 7))


class Driven:
    """A field that depends on time, and counts how often it was asked, and how late."""

    def __init__(self):
        self.times = []

    def __call__(self, t, z):
        self.times.append(float(t))
        return 2 * torch.tanh(z @ WEIGHTS) + torch.sin(3 * torch.as_tensor(t, dtype=z.dtype))


@pytest.mark.parametrize("solver", METHODS)
@pytest.mark.parametrize("tolerance", [1.0, 0.1, 1e-2, 1e-4])
@pytest.mark.parametrize("n_times", [2, 23])
def test_states_are_those_of_torchdiffeq(solver, tolerance, n_times):
    times = torch.linspace(0, 2, n_times, dtype=torch.float64)
    ours, theirs, dense = Driven(), Driven(), Dense(times.tolist())
    how = {"rtol": tolerance, "atol": tolerance}
    found = solve_adaptive(
        ours, START, of_torchdiffeq(solver), t=(0.0, 2.0), dense=dense, path=True, **how
    )
    expected = odeint(theirs, START, times, method=METHODS[solver], **how)
    torch.testing.assert_close(torch.stack(dense.states), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(found.z, dense.states[-1]) and torch.equal(found.states[-1], found.z)
    assert found.nfe == len(ours.times) == len(theirs.times)
    assert found.ts[-1] == 2.0 and max(ours.times) == pytest.approx(max(theirs.times))
    assert max(ours.times) > 2.0  # no step is cut to land on the end


def test_the_states_half_way_are_of_third_order_at_least():
    """On z' = t^2, whose states are cubes, the weights must give the middle exactly."""
    for name, weights in HALF_WAY.items():
        tableau = of_torchdiffeq(name)
        assert len(weights) == len(tableau.b)
        assert sum(weights) == pytest.approx(0.5, abs=1e-9)
        square = sum(w * c**2 for w, c in zip(weights, tableau.c, strict=True))
        if name == "dopri5":
            assert square == pytest.approx(0.5**3 / 3, abs=1e-9)
