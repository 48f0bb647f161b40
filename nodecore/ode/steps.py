"""The ways in which a solver chooses its steps: a number of equal ones, or a tolerance."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nodecore.ode.checks import check_count, check_positive
from nodecore.ode.tableaus import TABLEAUS, ButcherTableau, get_tableau


def count_steps(step_size: Tensor, span: float) -> Tensor:
    """Count the steps of each size > 0 that fill `span`, the last one perhaps shorter: int64."""
    # A step that divides the span must not leave a sliver behind through rounding.
    return torch.ceil(span / step_size * (1 - 1e-12)).to(torch.int64).clamp(min=1)


class Steps:
    """A solver and how it chooses its steps.

    Subclasses are FixedSteps, Tolerance, Adapted in training, and those of nodecore.check.settings.
    Each checks its values when it is made, so that functions which take one need not check again.
    An attribute that a subclass does not have is None, as in the columns of a record.
    """

    # No dataclass: its fields would come first in every kind, those that a kind does not have, too.
    solver: str
    n_steps: int | None = None
    rtol: float | None = None
    per_sample: bool = False
    controller: object | None = None  # a name, or what has one
    start: str | None = None
    first_rtol: float | None = None

    def __post_init__(self):
        get_tableau(self.solver)

    @property
    def name(self) -> str:
        """Stem of file names, such as `euler-K8` or `dopri5-tol0.001`."""
        raise NotImplementedError


@dataclass(frozen=True)
class FixedSteps(Steps):
    """`n_steps` equal steps of a solver. Raises ValueError."""

    solver: str
    n_steps: int

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "n_steps", check_n_steps(self.n_steps))

    def __str__(self):
        return f"{self.solver}, {self.n_steps} step{'s' * (self.n_steps != 1)}"

    @property
    def name(self) -> str:
        return f"{self.solver}-K{self.n_steps}"


@dataclass(frozen=True)
class Tolerance(Steps):
    """Steps that an embedded method chooses by a tolerance, rtol = atol. Raises ValueError.

    per_sample: each sample has an error norm and steps of its own, instead of each member's batch.
    """

    solver: str
    rtol: float
    per_sample: bool = False

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "rtol", check_positive("rtol", self.rtol))
        check_embedded(self.solver)

    def __str__(self):
        return f"{self.solver}, tolerance {self.rtol:.3g}"

    @property
    def name(self) -> str:
        return f"{self.solver}-tol{self.rtol!r}".removesuffix(".0")


Setting = FixedSteps | Tolerance  # what a model can be solved under, and is tested under


def choose_steps(solver: str, n_steps: int | None = None, rtol: float | None = None) -> Setting:
    """Return fixed steps or a tolerance, whichever of `n_steps` and `rtol` is given.

    Raises:
        ValueError: Not exactly one is given, or it cannot work.
    """
    if n_steps is not None and rtol is None:
        return FixedSteps(solver, n_steps)
    if rtol is not None and n_steps is None:
        return Tolerance(solver, rtol)
    raise ValueError(f"n_steps = {n_steps}, rtol = {rtol}: give exactly one")


def check_embedded(solver: str | ButcherTableau) -> int:
    """Return the order of the solver's embedded method, which a tolerance needs.

    Raises:
        ValueError: It has none.
    """
    tableau = get_tableau(solver)
    if tableau.b_embedded is None or tableau.embedded_order is None:
        embedded = [name for name, other in TABLEAUS.items() if other.b_embedded is not None]
        raise ValueError(
            f"solver = {tableau.name!r} has no embedded method to estimate the error; "
            f"use one of {', '.join(embedded)}, or fixed steps"
        )
    return tableau.embedded_order


def check_n_steps(n_steps: Any, name: str = "n_steps") -> int:
    """Return n_steps as an int; raise ValueError unless it is a whole number >= 1."""
    return check_count(name, n_steps, what="number of steps")


def time_span(t: tuple[float, float]) -> float:
    """Return the length of t = (start, end); raise ValueError unless it is finite and > 0."""
    t0, t1 = t
    if not (math.isfinite(t0) and math.isfinite(t1) and t1 > t0):
        raise ValueError(f"t = {tuple(t)}: give finite times (start, end) with end > start")
    return float(t1 - t0)
