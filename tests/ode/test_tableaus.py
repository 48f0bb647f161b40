"""Tableaus: their order, seen on a problem that no wrong coefficient survives, and their checks."""

import math
from dataclasses import replace

import pytest
import torch

from nodecore.ode.fixed import solve_fixed
from nodecore.ode.tableaus import (
    BOSH3,
    DOPRI5,
    EULER,
    FEHLBERG21,
    HEUN,
    MIDPOINT,
    RK4,
    RK4_38,
    TABLEAUS,
    ButcherTableau,
    get_tableau,
)

SPAN = 2.0


def error(tableau, n_steps):
    """Largest one along y' = cos(t) y^2, y(0) = 1/2, whose solution is y = 1 / (2 - sin t)."""
    y0 = torch.tensor([0.5], dtype=torch.float64)
    solution = solve_fixed(
        lambda t, y: math.cos(t) * y**2, y0, tableau, n_steps=n_steps, t=(0.0, SPAN), path=True
    )
    exact = 1 / (2 - torch.sin(torch.linspace(0.0, SPAN, n_steps + 1, dtype=torch.float64)))
    return float((solution.path[:, 0] - exact).abs().max())


def assert_has_order(tableau, order, finest=128):
    observed = math.log2(error(tableau, finest // 2) / error(tableau, finest))
    assert abs(observed - order) < 0.25, f"{tableau.name}: order {observed:.2f}, not {order}"


def unchecked(tableau, **changes):
    """The tableau with entries that its constructor would refuse."""
    wrong = replace(tableau, name=f"wrong {tableau.name}")
    for name, value in changes.items():
        object.__setattr__(wrong, name, value)
    return wrong


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_the_solution_converges_with_its_order(tableau):
    assert_has_order(tableau, tableau.order)


@pytest.mark.parametrize(
    ("tableau", "finest"),
    # Fehlberg's first-order weights almost fulfil the second-order condition: fine steps tell.
    [(BOSH3, 128), (FEHLBERG21, 2048), (DOPRI5, 128)],
    ids=["bosh3", "fehlberg21", "dopri5"],
)
def test_the_embedded_solution_converges_with_its_order(tableau, finest):
    lower = replace(tableau, b=tableau.b_embedded, b_embedded=None, embedded_order=None)
    assert_has_order(lower, tableau.embedded_order, finest)


WRONG = {
    "c of rk4": (unchecked(RK4, c=(0.0, 0.4, 0.5, 1.0)), 4),
    "last c of dopri5": (unchecked(DOPRI5, c=(*DOPRI5.c[:4], 0.9, 1.0, 1.0)), 5),
    # sum b = 1 and sum b c = 1/2 still hold, sum b c^2 = 1/3 does not
    "third-order condition on c": (
        replace(BOSH3, b=tuple(x + 0.1 * y for x, y in zip(BOSH3.b, (1, -3, 2, 0), strict=True))),
        3,
    ),
    # all conditions on b and c hold, sum b a c = 1/6 does not
    "third-order condition on a": (
        replace(RK4, a=((), (1 / 2,), (1 / 4, 1 / 4), (0.0, 0.0, 1.0))),
        4,
    ),
}


@pytest.mark.parametrize(("tableau", "order"), WRONG.values(), ids=WRONG)
def test_a_wrong_tableau_is_found_out(tableau, order):
    with pytest.raises(AssertionError, match=r"order -?\d"):
        assert_has_order(tableau, order)


def test_every_tableau_is_found_by_its_name():
    ours = {EULER, MIDPOINT, HEUN, RK4, RK4_38, BOSH3, FEHLBERG21, DOPRI5}
    assert ours <= set(TABLEAUS.values())
    for name, tableau in TABLEAUS.items():
        assert name == tableau.name
        assert get_tableau(name) is get_tableau(tableau) is tableau


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'rk45' is unknown; choose one of euler, .*dopri5"):
        get_tableau("rk45")


def test_error_weights_and_first_same_as_last():
    assert EULER.b_error is None
    assert sum(DOPRI5.b_error) == pytest.approx(0, abs=1e-15)
    assert [t.name for t in TABLEAUS.values() if t.first_same_as_last] == ["bosh3", "dopri5"]


def test_a_last_stage_at_the_end_of_a_step_need_not_be_the_first_of_the_next():
    """It has the weights b of the step only in bosh3; here k3 = f(z + h (2 k2 - k1))."""
    other = ButcherTableau("other", a=((), (0.5,), (-1.0, 2.0)), b=(0.0, 1.0, 0.0),
                           c=(0.0, 0.5, 1.0), order=2)  # fmt: skip
    assert not other.first_same_as_last
    assert replace(other, a=((), (0.5,), (0.0, 1.0))).first_same_as_last


GOOD = {"name": "x", "a": ((), (0.5,)), "b": (0.0, 1.0), "c": (0.0, 0.5), "order": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c": (0.0, 0.4)}, r"'x': row 1 of a sums to 0.5, but c\[1\] = 0.4"),
        ({"c": (0.1, 0.5)}, r"row 0 of a sums to 0, but c\[0\] = 0.1"),
        ({"b": (0.1, 1.0)}, "b sums to 1.1 instead of 1"),
        ({"a": ((), (0.5, 0.0))}, "row 1 of a has 2 entries; an explicit method has 1"),
        ({"a": ((),)}, "a has 1 rows, b 2 and c 2 entries"),
        ({"b_embedded": (1.0, 0.0)}, "b_embedded needs embedded_order"),
        ({"b_embedded": (1.0,), "embedded_order": 1}, "b_embedded has 1 entries for 2 stages"),
        ({"b_embedded": (1.0, 0.5), "embedded_order": 1}, "b_embedded sums to 1.5 instead of 1"),
        ({"b": (float("nan"), 1.0)}, "b sums to nan"),
    ],
)
def test_inconsistent_coefficients_are_refused(changes, message):
    with pytest.raises(ValueError, match=message + ".*; correct the coefficients"):
        ButcherTableau(**GOOD | changes)
