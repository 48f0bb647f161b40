"""Steps that a controller adapts: what they are called, and what cannot be."""

import pytest

from nodecore.ode.steps import FixedSteps, Tolerance
from nodecore.training.adapted import FIRST_RTOL, STARTS, Adapted, columns_of, steps_of
from nodecore.training.controllers import AUTO, Algorithm1, get_controller


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rk45", "auto"), "solver = 'rk45' is unknown; choose one of euler"),
        (("euler", "pid"), "controller = 'pid' is unknown; choose one of auto, algorithm1"),
        (("euler", "auto", None, 1e-3), "first_rtol = 0.001: .* with an embedded method"),
        (("dopri5", Algorithm1(), None, 1e-7), "first_rtol = 1e-07: give one from 1e-05 to 10"),
        (
            ("dopri5", "auto", "hairer"),
            "start = 'hairer': it is where the adaption of steps begins",
        ),
        (("euler", "auto", "textbook"), "start = 'textbook' is unknown; choose one of euclidean"),
        (
            ("dopri5", Algorithm1(test_solver="midpoint")),
            "test_solver = 'midpoint': .* leave it out",
        ),
        (("rk4", Algorithm1(test_solver="midpoint")), "is not better than the training solver"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adapted(*arguments)


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        (Adapted("euler", "algorithm1"), "euler-algorithm1"),
        (Adapted("euler", "algorithm1", "hairer"), "euler-algorithm1-hairer"),
        (Adapted("euler", "auto"), f"euler-{AUTO}"),
        (Adapted("dopri5", "algorithm1"), f"dopri5-algorithm1-from{FIRST_RTOL!r}"),
        (Adapted("dopri5", "algorithm1", first_rtol=1e-2), "dopri5-algorithm1-from0.01"),
        (FixedSteps("rk4", 8), "rk4-K8"),
        (Tolerance("dopri5", 10.0), "dopri5-tol10"),
        (Tolerance("dopri5", 1e-3, per_sample=True), "dopri5-tol0.001"),
    ],
)
def test_steps_name_files_and_are_found_in_their_records(steps, name):
    assert steps.name == name
    assert steps_of(columns_of(steps)) == steps


def test_constants_are_the_controllers_and_those_of_the_start():
    usual, scaled = (Adapted("euler", "algorithm1", start) for start in (None, "hairer"))
    assert usual.start == "euclidean" and set(usual.constants) == {"controller"}
    assert scaled.constants == usual.constants | {"start": STARTS["hairer"]}
    assert usual.rule == get_controller("algorithm1") == Adapted("euler", usual.rule).rule
