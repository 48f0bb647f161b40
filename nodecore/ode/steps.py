"""How many steps fill a time span, and the checks of what a caller asks for."""

import math

import torch
from torch import Tensor

from nodecore.ode.tableaus import ButcherTableau, get_tableau


def count_steps(step_size: Tensor, span: float) -> Tensor:
    """Steps of `step_size` that fill `span`, the last one perhaps shorter: int64, same shape."""
    # A step that divides the span must not leave a sliver behind through rounding.
    return torch.ceil(span / step_size * (1 - 1e-12)).to(torch.int64).clamp(min=1)


def check_embedded(solver: str | ButcherTableau) -> None:
    """ValueError unless the solver has an embedded method, which a tolerance needs."""
    tableau = get_tableau(solver)
    if tableau.b_embedded is None:
        raise ValueError(
            f"solver = {tableau.name!r} has no embedded method to estimate the error; "
            "use bosh3, fehlberg21 or dopri5, or fixed steps"
        )


def check_n_steps(n_steps: int) -> int:
    """ValueError unless n_steps is a whole number >= 1."""
    if not isinstance(n_steps, int) or isinstance(n_steps, bool) or n_steps < 1:
        raise ValueError(f"n_steps = {n_steps!r}: give a whole number of steps >= 1")
    return n_steps


def check_tolerance(name: str, value: float) -> float:
    """ValueError unless value is a finite number > 0."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} = {value!r}: give a tolerance > 0, such as 1e-3")
    return value


def check_per_sample(per_sample: bool, rtol: float | None) -> None:
    """ValueError for steps of each sample's own where there is no tolerance to choose them by."""
    if per_sample and rtol is None:
        raise ValueError("per_sample = True needs the steps that a tolerance chooses: give rtol")


def time_span(t):
    t0, t1 = t
    if not (math.isfinite(t0) and math.isfinite(t1) and t1 > t0):
        raise ValueError(f"t = {tuple(t)}: give finite times (start, end) with end > start")
    return float(t1 - t0)
