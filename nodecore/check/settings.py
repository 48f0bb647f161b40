"""Name the solver that a model was trained with, and the settings it is compared with."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from nodecore.analysis.evaluate import better_setting
from nodecore.check.inputs import positive, whole
from nodecore.ode.steps import FixedSteps, Steps, Tolerance
from nodecore.ode.tableaus import TABLEAUS, get_tableau, next_better

SEARCH = 4  # times the training's steps: the finest of the search
LOOSER = (1e3, 1e2, 10.0, 1.0, 0.1)  # times the training's tolerance: the search
ALIASES = {
    "heun2": "heun",
    "fehlberg2": "fehlberg21",
    "rk45": "dopri5",
    "ode45": "dopri5",
    "rk23": "bosh3",
    "forward_euler": "euler",
}
OTHERS = {"heun3", "dopri8", "adaptive_heun"}  # methods of torchdiffeq that are not here
CLASSICAL = {
    "rk4": 'rk4 is the classical method here; torchdiffeq\'s "rk4" is the 3/8 rule, "rk4_38"',
    "rk4_38": 'rk4_38 is the 3/8 rule, torchdiffeq\'s "rk4"; the classical one is "rk4" here',
}

Solve = Callable[[Callable[[Any, Any], Any], Any, Tensor], Any]


def divided(times: tuple[float, ...], parts: int) -> tuple[float, ...]:
    """Return ascending times with each interval in so many equal parts."""
    inner = [a + (b - a) * i / parts for a, b in pairwise(times) for i in range(parts)]
    return (*inner, times[-1])


@dataclass(frozen=True)
class TimeGrid(Steps):
    """Steps of a solver from time to time; `times` ascend (as seen by the solver)."""

    solver: str
    times: tuple[float, ...]

    def __str__(self) -> str:
        n = len(self.times) - 1
        return f"{self.solver}, {n} step{'s' * (n != 1)} of a grid"

    def halved(self) -> "TimeGrid":
        """Return twice as many steps: each one in two equal parts."""
        return replace(self, times=divided(self.times, 2))


@dataclass(frozen=True)
class TwoTolerances(Tolerance):
    """A tolerance whose absolute part differs from the relative one."""

    atol: float = 1e-6

    def __str__(self) -> str:
        return f"{self.solver}, rtol {self.rtol:.3g}, atol {self.atol:.3g}"


@dataclass(frozen=True)
class OwnSolve(Steps):
    """The training's own solver, a function (field, z0, t) -> z(T)."""

    solver: str
    solve: Solve = field(compare=False)

    def __post_init__(self) -> None:
        """Look up no tableau: it has none."""

    def __str__(self) -> str:
        return self.solver


# --- what is given --------------------------------------------------------------------------------


def read_training(
    t: tuple[float, float],
    *,
    solver: Any = None,
    n_steps: Any = None,
    rtol: Any = None,
    atol: Any = None,
    step_size: Any = None,
    grid: Any = None,
    solve: Any = None,
) -> tuple[Steps, list[str]]:
    """Return the training's setting, and notes on how it was read.

    See `check_flow` for the arguments; t ascends, as the time is solved.

    Raises:
        ValueError: No solver of that name, or not exactly one way of choosing its steps.
    """
    given = {"n_steps": n_steps, "rtol": rtol, "step_size": step_size, "grid": grid}
    chosen = {key: value for key, value in given.items() if value is not None}
    if solve is not None:
        return _own_solve(solver, solve, [*chosen, *(["atol"] if atol is not None else [])]), []
    name, notes = _read_name(solver)
    if len(chosen) != 1:
        values = ", ".join(f"{key} = {given[key]}" for key in chosen or ("n_steps", "rtol"))
        raise ValueError(f"{values}: give exactly one of {', '.join(given)}")
    if atol is not None and rtol is None:
        raise ValueError(f"atol = {atol}: it belongs to rtol=; give both, or leave it out")
    if rtol is not None:
        rtol = positive("rtol", rtol)
        if atol is None:
            notes = [*notes, "atol is set to rtol; torchdiffeq's own default is 1e-9"]
        atol = rtol if atol is None else positive("atol", atol)
        return Tolerance(name, rtol) if atol == rtol else TwoTolerances(
            name, rtol, False, atol
        ), notes
    if n_steps is not None:
        return FixedSteps(name, whole("n_steps", n_steps)), notes
    times = _steps_of(step_size, t) if grid is None else read_grid("grid", grid, t)
    return TimeGrid(name, times), notes


def _read_name(solver: Any) -> tuple[str, list[str]]:
    """Return the name here of a solver, and a note where it was given another one."""
    if not isinstance(solver, str):
        raise ValueError(
            f"solver = {solver!r}: name the training's, one of {', '.join(TABLEAUS)}, or give "
            "solve=, a function (field, z0, t) -> z(T)"
        )
    plain = solver.lower().replace("-", "_")
    name = ALIASES.get(plain, plain)
    if name not in TABLEAUS:
        near = [] if name in OTHERS else difflib.get_close_matches(name, TABLEAUS, 1)
        hint = f" (is it {near[0]!r}?)" if near else ""
        raise ValueError(
            f"solver = {solver!r} is unknown; choose one of {', '.join(TABLEAUS)}{hint}, or give "
            "the training's own as solve=, a function (field, z0, t) -> z(T)"
        )
    return name, [] if name == solver else [f"solver = {solver!r} is called {name!r} here"]


def _own_solve(solver: Any, solve: Any, others: list[str]) -> OwnSolve:
    if not callable(solve):
        raise ValueError(f"solve = {solve!r}: give a function (field, z0, t) -> z(T)")
    if others:
        raise ValueError(f"solve holds its own steps: leave out {', '.join(others)}")
    return OwnSolve(solver if isinstance(solver, str) else "own solver", solve)


def _steps_of(step_size: Any, t: tuple[float, float]) -> tuple[float, ...]:
    """Return times of steps of one size, the last one shortened to land on the end."""
    h, (start, end) = positive("step_size", step_size), t
    if h > (end - start) * (1 + 1e-9):
        raise ValueError(f"step_size = {h}: give a size in (0, T] with T = {end - start}")
    return (*(start + k * h for k in range(count_given_steps(h, end - start))), end)


def count_given_steps(h: float, span: float) -> int:
    """Count the steps of a size that a user gave; rounding of theirs must not leave a sliver."""
    return math.ceil(span / h * (1 - 1e-9))


def read_grid(name: str, grid: Any, t: tuple[float, float]) -> tuple[float, ...]:
    """Return times from start to end, given in the user's direction, ascending as solved."""
    try:
        values = grid.tolist() if isinstance(grid, Tensor | np.ndarray) else list(grid)
        times = [float(value) for value in values]
    except (TypeError, ValueError):
        raise ValueError(f"{name} = {grid!r}: give a list of times") from None
    if len(times) > 1 and times[0] > times[-1]:
        times = [-time for time in times]  # time runs backwards: solved as -t
    close = 1e-6 * (t[1] - t[0])
    if len(times) < 2 or not all(a < b for a, b in pairwise(times)):
        raise ValueError(
            f"{name} has {len(times)} times: give at least 2, in the order of the solve"
        )
    if abs(times[0] - t[0]) > close or abs(times[-1] - t[1]) > close:
        raise ValueError(
            f"{name} goes from {values[0]} to {values[-1]}: begin and end where t does, or give "
            f"t=({values[0]}, {values[-1]})"
        )
    return (t[0], *times[1:-1], t[1])


def times_of(setting: Steps, t: tuple[float, float]) -> tuple[float, ...]:
    """Return the times of fixed steps, ascending from t[0] to t[1]; none where they are chosen."""
    if isinstance(setting, TimeGrid):
        return setting.times
    n, (start, end) = setting.n_steps or 0, t
    return (*(start + (end - start) * k / n for k in range(n)), end) if n else ()


def steps_past(setting: Steps, t: tuple[float, float], wanted: tuple[float, ...]) -> float | None:
    """Return the first wanted time at which no fixed step of a setting ends, or None."""
    times, close = times_of(setting, t), 1e-6 * (t[1] - t[0])
    if not times:
        return None
    return next((w for w in wanted if min(abs(w - time) for time in times) > close), None)


# --- what it is compared with ---------------------------------------------------------------------


def finer_rows(trained: Steps) -> list[Steps]:
    """List the training solver in twice and four times its steps, where it has fixed ones."""
    if isinstance(trained, TimeGrid):
        return [trained.halved(), trained.halved().halved()]
    if isinstance(trained, FixedSteps):
        return [FixedSteps(trained.solver, factor * trained.n_steps) for factor in (2, 4)]
    return []


def better_settings(trained: Steps) -> list[Steps]:
    """List finer steps and methods of higher order, or a tighter tolerance, than a training's."""
    solver = trained.solver
    if isinstance(trained, Tolerance):
        return [_scaled(trained, 0.1)]
    if isinstance(trained, OwnSolve):
        return [Tolerance("dopri5", 1e-3)]
    assert isinstance(trained, FixedSteps | TimeGrid)
    others = [name for name in (better_setting(solver, 1).solver, next_better(solver)) if name]
    higher = [s for s in others if get_tableau(s).order > get_tableau(solver).order]
    return [*finer_rows(trained), *(replace(trained, solver=s) for s in dict.fromkeys(higher))]


def searched_settings(trained: Steps) -> list[Steps]:
    """List settings of the training solver, coarse to fine, the training's among them."""
    if isinstance(trained, OwnSolve):
        return []
    if isinstance(trained, Tolerance):
        return [trained if factor == 1 else _scaled(trained, factor) for factor in LOOSER]
    if isinstance(trained, TimeGrid):
        return [trained, *finer_rows(trained)]
    assert trained.n_steps is not None
    k = trained.n_steps
    steps = {k, 2 * k, SEARCH * k, *(2**i for i in range((SEARCH * k).bit_length()))}
    return [FixedSteps(trained.solver, s) for s in sorted(steps)]


def _scaled(trained: Tolerance, factor: float) -> Tolerance:
    """Return the setting with all its tolerances times a factor."""
    names = [name for name in ("rtol", "atol") if hasattr(trained, name)]
    return replace(trained, **{n: without_rounding(factor * getattr(trained, n)) for n in names})


def without_rounding(tolerance: float) -> float:
    """Return a product of tolerances as one writes it: 9e-07, not 9.000000000000001e-07."""
    return float(f"{tolerance:.12g}")


def count_nfe(setting: Steps) -> int:
    """Count the evaluations of one solve in fixed steps; 0 where they are not known."""
    n = len(setting.times) - 1 if isinstance(setting, TimeGrid) else setting.n_steps
    return n * get_tableau(setting.solver).n_solution_stages if n else 0
