"""How a solver chooses its steps, as a value."""

import numpy as np
import pytest
import torch

from nodecore.evidence.runs import Run
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.steps import FixedSteps, Tolerance, choose_steps


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedSteps("rk45", 2), "solver = 'rk45' is unknown; choose one of euler"),
        (lambda: FixedSteps("euler", 0), "n_steps = 0: give a whole number of steps >= 1"),
        (lambda: FixedSteps("euler", True), "n_steps = True: give a whole number"),
        (lambda: Tolerance("dopri5", -1e-3), "rtol = -0.001: give a finite number > 0"),
        (lambda: Tolerance("dopri5", True), "rtol = True: give a finite number > 0"),
        (lambda: Tolerance("rk4", 1e-3), "'rk4' has no embedded method"),
        (lambda: choose_steps("euler"), "n_steps = None, rtol = None: give exactly one"),
        (lambda: choose_steps("dopri5", 2, 1e-3), "n_steps = 2, rtol = 0.001: give exactly one"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_of_numpy_are_taken_as_pythons():
    steps, tolerance = FixedSteps("euler", np.int64(8)), Tolerance("dopri5", np.float64(1e-3))
    assert (steps, tolerance) == (FixedSteps("euler", 8), Tolerance("dopri5", 1e-3))
    assert (type(steps.n_steps), type(tolerance.rtol)) == (int, float)
    run = Run("spheres2", steps, seeds=(np.int64(3), 0))
    assert run.seeds == (0, 3) and {type(seed) for seed in run.seeds} == {int}
    z0, few = torch.ones(1, 1, 2), np.uint8(200)  # 4 * 200 does not fit into one
    for n_steps in (few, 200):  # the second finds what was kept of the first
        assert solve_fixed(lambda t, z: z, z0, "rk4", n_steps=n_steps).nfe == 800


def test_steps_say_what_they_are():
    assert str(FixedSteps("euler", 1)) == "euler, 1 step"
    assert str(choose_steps("rk4", n_steps=8)) == "rk4, 8 steps"
    assert str(choose_steps("dopri5", rtol=1e-6)) == "dopri5, tolerance 1e-06"
    assert FixedSteps("euler", 4) == FixedSteps("euler", 4) != FixedSteps("euler", 8)
    assert FixedSteps("euler", 4).rtol is None and Tolerance("dopri5", 1e-3).n_steps is None
