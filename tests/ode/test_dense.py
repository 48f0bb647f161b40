"""Steps past the end and states interpolated within them, against torchdiffeq's own."""

from dataclasses import replace

import pytest
import torch
from torchdiffeq import odeint

from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.dense import HALF_WAY, Dense, of_torchdiffeq
from nodecore.ode.solution import SolveError

ENDS = (0.0, 1.0)
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


@pytest.mark.parametrize("span", [(0.1, 0.4), (0.3, 1.0), (1.1, 3.3), (-0.7, 0.1)])
def test_the_end_is_taken_whatever_its_rounding(span):
    dense, how = Dense(span), {"rtol": 1e-3, "atol": 1e-3}
    found = solve_adaptive(Driven(), START, "dopri5", t=span, dense=dense, **how)
    assert len(dense.states) == 2 and torch.equal(found.z, dense.states[-1])


def test_a_method_without_such_weights_is_interpolated_by_a_cubic():
    """On z' = 3 t^2 - 1 the states are a cubic, which the ends and slopes of any step determine."""
    own = replace(of_torchdiffeq("bosh3"), name="own")
    times = torch.linspace(0, 1.5, 7, dtype=torch.float64)
    dense = Dense(times.tolist())
    start = torch.zeros(1, dtype=torch.float64)
    how = {"rtol": 1.0, "atol": 1.0, "t": (0.0, 1.5)}
    solve_adaptive(lambda t, z: (3 * t**2 - 1).expand(1), start, own, dense=dense, **how)
    torch.testing.assert_close(torch.cat(dense.states), times**3 - times)


def test_a_step_whose_error_is_infinite_is_tried_shorter():
    """In float32 the squares of errors overflow long before the states do."""

    def turning(t, z):
        speed = 3 + z.square().sum(1, keepdim=True)
        return speed * torch.stack([-z[:, 1], z[:, 0]], 1)

    start = torch.randn(80, 2, generator=torch.Generator().manual_seed(1))
    how = {"rtol": 0.1, "atol": 0.1}
    found = solve_adaptive(turning, start, of_torchdiffeq("dopri5"), dense=Dense(ENDS), **how)
    expected = odeint(turning, start, torch.tensor(ENDS), method="dopri5", **how)[-1]
    torch.testing.assert_close(found.z, expected, rtol=1e-3, atol=1e-3)
    for times, axes in (((0.0, 0.9), 0), (ENDS, 1)):
        with pytest.raises(ValueError, match=r"dense ends at .* let it end at t"):
            solve_adaptive(turning, start, "dopri5", dense=Dense(times), instance_axes=axes, **how)
    with pytest.raises(SolveError, match="not finite"):
        solve_adaptive(turning, start, of_torchdiffeq("dopri5"), **how)
