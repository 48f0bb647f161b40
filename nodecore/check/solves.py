"""The samples solved under a setting: in parts, and one by one where a part cannot be solved."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from nodecore.analysis.evaluate import FLOAT32_RTOL
from nodecore.check.inputs import Samples, map_tensors, tensors_of
from nodecore.check.model import FlowModel
from nodecore.check.settings import OwnSolve, TimeGrid
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.runge_kutta import rk_step
from nodecore.ode.solution import SolveError, VectorField
from nodecore.ode.steps import FixedSteps, Steps
from nodecore.ode.tableaus import get_tableau

PART_NUMBERS, LEAST_PART = 50_000, 32  # entries of the states, and samples, that a cache holds
ALONE, HOPELESS = 16, 3  # samples that fail before whole parts are given up; if none succeeded


@dataclass(frozen=True)
class Part:
    """One part solved: end states z (m, ...), other ends besides, times of the steps, nfe."""

    z: Tensor
    others: tuple[Tensor, ...] = ()
    ts: Tensor | None = None
    path: Tensor | None = None
    nfe: int = 0


@dataclass(frozen=True)
class Solved:
    """Samples `index` (m,) under a setting: outputs (m, ...), end states z (m, ...), others like
    z; `known` (m,) bool, where the outputs are finite; nfe: the most evaluations of a part."""

    index: Tensor
    outputs: Tensor
    z: Tensor
    others: tuple[Tensor, ...]
    nfe: int
    failures: tuple[str, ...] = ()

    @property
    def known(self) -> Tensor:
        return is_finite(self.outputs) & is_finite(self.z)


def is_finite(values: Tensor) -> Tensor:
    """(n,) bool: which rows of (n, ...) are finite."""
    return values.reshape(len(values), -1).isfinite().all(1)


# --- one part -------------------------------------------------------------------------------------


def solve_part(model: FlowModel, samples: Samples, setting: Steps, path: bool = False) -> Part:
    """One solve of a batch. A tolerance below FLOAT32_RTOL in float64. May raise SolveError."""
    if isinstance(setting, OwnSolve):
        return _solve_by_own(model, samples, setting)
    if isinstance(setting, TimeGrid):
        f, tableau = model.field(samples.args), get_tableau(setting.solver)
        states = walk_times(f, samples.z, setting.times, setting.solver)
        nfe = (len(setting.times) - 1) * tableau.n_solution_stages
        ts = torch.tensor(setting.times, dtype=torch.float64)
        return Part(states[-1], ts=ts, path=torch.stack(states) if path else None, nfe=nfe)
    shared = {"t": model.t, "path": path, "backend": "torch"}
    if isinstance(setting, FixedSteps):
        f = model.field(samples.args)
        solution = solve_fixed(f, samples.z, setting.solver, n_steps=setting.n_steps, **shared)
        return Part(solution.z, ts=solution.ts, path=solution.path, nfe=int(solution.nfe))
    assert setting.rtol is not None
    fine = setting.rtol < FLOAT32_RTOL and model.in_float64
    dtype = torch.float64 if fine else samples.z.dtype
    f, start = model.field(samples.args, dtype), samples.z.to(dtype)
    tolerances = {"rtol": setting.rtol, "atol": getattr(setting, "atol", setting.rtol)}
    solution = solve_adaptive(f, start, setting.solver, **tolerances, **shared)
    return Part(solution.z.to(samples.z), (), solution.ts, solution.path, int(solution.nfe))


def walk_times(
    f: VectorField, z: Tensor, times: Sequence[float], solver: str, inside: bool = False
) -> list[Tensor]:
    """The states (n, ...) at ascending times, a step of the solver from each to the next.

    inside: the field is never asked at the very end of a step, where the next one may have another
    field (see `from_inside`).
    """
    states, tableau = [z], get_tableau(solver)
    for a, b in pairwise(times):
        step_f = from_inside(f, b, z.dtype) if inside else f
        states.append(rk_step(step_f, a, states[-1], b - a, tableau))
    return states


def from_inside(f: VectorField, end: float, dtype: torch.dtype) -> VectorField:
    """The field, asked just before `end` in place of at it or after: its limit from the left."""
    limit = torch.tensor(end, dtype=dtype)
    last = float(torch.nextafter(limit, limit - 1))

    def g(t: Any, z: Tensor) -> Tensor:
        return f(min(float(t), last), z)

    return g


def _solve_by_own(model: FlowModel, samples: Samples, setting: OwnSolve) -> Part:
    """The user's own solve, in the user's time and states; its evaluations are counted."""
    inner, times = model.field(samples.args), []
    sign = -1.0 if model.backwards else 1.0

    def field(t: Any, z: Any) -> Any:
        time = sign * float(torch.as_tensor(t).reshape(-1)[0])
        times.append(time)
        return map_tensors(lambda part: sign * part, model.packing.unpack(
            inner(time, model.packing.pack(z))
        ))  # fmt: skip

    z0 = model.packing.unpack(samples.z)
    ends = sign * torch.tensor(model.t, dtype=samples.z.dtype, device=samples.z.device)
    found = setting.solve(field, z0, ends)
    shapes = [[tuple(p.shape) for p in tensors_of(tree)] for tree in (found, z0)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"solve returned {shapes[0]} for states {shapes[1]}: give the states at the end alone, "
            "z(T), such as odeint(field, z0, t, ...)[-1]"
        )
    z = model.packing.pack(map_tensors(lambda part: part.detach(), found)).to(samples.z)
    start, end = model.t
    seen = sorted({start, *(t for t in times if start < t < end), end})
    return Part(z, ts=torch.tensor(seen, dtype=torch.float64), nfe=max(1, len(times)))


# --- all of them ----------------------------------------------------------------------------------


def solve_samples(
    model: FlowModel,
    samples: Samples,
    index: Tensor,
    solve: Callable[[Samples], Part],
    at_once: int,
    n_others: int = 0,
    calm: Tensor | None = None,
) -> Solved:
    """The samples of `index` in parts of `at_once`. What cannot be solved is NaN, each alone.

    calm: (n,) bool on the CPU, of all samples; the others are parts of their own, as they may fail.
    """
    isolation = _Isolation(solve, n_others)
    groups = [index] if calm is None else [index[calm[index]], index[~calm[index]]]
    parts = [isolation.solved(p) for rows in groups for p in samples[rows].split(at_once)]
    back = torch.cat(groups).argsort()[index.argsort().argsort()]
    z = torch.cat([part.z for part in parts])[back]
    columns = zip(*(part.others for part in parts), strict=True)
    others = tuple(torch.cat(rows)[back] for rows in columns)
    outputs = torch.cat([model.outputs(part.z) for part in parts])[back]
    nfe = max(part.nfe for part in parts)
    return Solved(index, outputs, z, others, nfe, tuple(dict.fromkeys(isolation.failures)))


class _Isolation:
    """Solves parts; one that fails is solved in halves, down to the samples that are at fault."""

    def __init__(self, solve: Callable[[Samples], Part], n_others: int):
        self.solve, self.n_others, self.alone, self.good = solve, n_others, 0, 0
        self.failures: list[str] = []

    def solved(self, part: Samples) -> Part:
        """The part, with NaN for the samples that cannot be solved."""
        try:
            found = self.solve(part)
            self.good += len(part)
            return found
        except SolveError as error:
            if len(part) == 1 or self.alone >= (ALONE if self.good else HOPELESS):
                return self._given_up(part, error)
        half = (len(part) + 1) // 2
        first, second = self.solved(part[:half]), self.solved(part[half:])
        pairs = zip(first.others, second.others, strict=True)
        others = tuple(torch.cat(pair) for pair in pairs)
        return Part(torch.cat([first.z, second.z]), others, nfe=max(first.nfe, second.nfe))

    def _given_up(self, part: Samples, error: SolveError) -> Part:
        self.alone += len(part)
        self.failures.append(str(error))
        lost = torch.full_like(part.z, math.nan)
        return Part(lost, (lost,) * self.n_others)


def samples_at_once(size: int, rows: int) -> int:
    """Samples of a part: small parts are faster. size: numbers of one state."""
    return min(rows, max(LEAST_PART, PART_NUMBERS // size))
