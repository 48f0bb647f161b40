"""Solve the samples under a setting: in parts, and one by one where a part cannot be solved."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nodecore.analysis.evaluate import FLOAT32_RTOL
from nodecore.check.inputs import Samples, Tree, is_finite, map_tensors, tensors_of
from nodecore.check.model import Field, FlowModel, guarded
from nodecore.check.settings import OwnSolve, TimeGrid, count_nfe
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.dense import Dense, of_torchdiffeq
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.runge_kutta import rk_step
from nodecore.ode.solution import SolveError
from nodecore.ode.steps import FixedSteps, Steps
from nodecore.ode.tableaus import get_tableau

T = TypeVar("T")

PART_NUMBERS, LEAST_PART = 50_000, 32  # entries of the states, and samples, that a cache holds
LONG, SHORT = 3000, 1000  # steps between two times of a mesh, in float64 and in float32
ALONE, HOPELESS = 16, 3  # samples that fail before whole parts are given up; if none succeeded
# Of a step: how far before its end a field is asked in place of at it, where the end is 0 or so
# near to it that the next number would bring out a pole there.
INSIDE = {torch.float64: 1e-9, torch.float32: 1e-7}


@dataclass(frozen=True)
class Part:
    """One part solved.

    Attributes:
        z: End states (m, ...).
        ts: Times of the steps, where they are known.
        path: States at these times along a new first axis, where asked for.
        other: End states by a second method, where there is one.
        nfe: Evaluations of the field.
    """

    z: Tensor
    ts: Tensor | None = None
    path: Tensor | None = None
    other: Tensor | None = None
    nfe: int = 0


@dataclass(frozen=True)
class Solved:
    """Samples under a setting.

    Attributes:
        index: Which samples, (m,).
        outputs: Their outputs (m, ...), NaN where a sample cannot be solved.
        z: Their end states (m, ...), likewise.
        other: End states by a second method (m, ...), or z where there is none.
        nfe: The most evaluations of a part.
        failures: What the solvers said of samples that cannot be solved.
    """

    index: Tensor
    outputs: Tensor
    z: Tensor
    other: Tensor
    nfe: int
    failures: tuple[str, ...] = ()

    @property
    def known(self) -> Tensor:
        """Samples whose end states and outputs are finite, (m,) bool."""
        return is_finite(self.outputs) & is_finite(self.z)


# --- one part -------------------------------------------------------------------------------------


def solve_part(
    model: FlowModel, samples: Samples, setting: Steps, path: bool = False, double: bool = False
) -> Part:
    """Solve a batch once; may raise SolveError.

    double: whether in float64, if the model can; a tolerance below FLOAT32_RTOL always is.
    """
    if isinstance(setting, OwnSolve):
        return _solve_by_own(model, samples, setting)
    if setting.rtol is not None:
        return _solve_by_tolerance(model, samples, setting, path, double)
    wanted = model.output_times
    part = _solve_to_the_end(model, samples, setting, path or bool(wanted), double)
    part = replace(part, z=part.z.to(samples.z))
    if not wanted:
        return part
    assert part.path is not None and part.ts is not None
    at_wanted = at_times(part.path, part.ts, wanted).to(samples.z)
    return replace(part, z=at_wanted, path=part.path if path else None)


def _solve_to_the_end(
    model: FlowModel, samples: Samples, setting: Steps, path: bool, double: bool
) -> Part:
    f, z = model.exact_field(samples, double)
    if isinstance(setting, TimeGrid):
        states = walk_times(f, z, setting.times, setting.solver)
        ts = torch.tensor(setting.times, dtype=torch.float64)
        return Part(states[-1], ts, torch.stack(states) if path else None, nfe=count_nfe(setting))
    assert isinstance(setting, FixedSteps)
    shared = {"t": model.t, "path": path, "backend": "torch"}
    solution = solve_fixed(f, z, setting.solver, n_steps=setting.n_steps, **shared)
    return Part(solution.z, solution.ts.cpu(), solution.path, nfe=int(solution.nfe))


def _solve_by_tolerance(
    model: FlowModel, samples: Samples, setting: Steps, path: bool, double: bool
) -> Part:
    """Solve as torchdiffeq does, with its error estimate, past the end and interpolated."""
    assert setting.rtol is not None
    f, z = model.exact_field(samples, double or setting.rtol < FLOAT32_RTOL)
    dense = Dense(model.output_times or model.t)
    solution = solve_adaptive(
        f,
        z,
        of_torchdiffeq(setting.solver),
        rtol=setting.rtol,
        atol=getattr(setting, "atol", setting.rtol),
        t=model.t,
        parts=model.packing.sizes,
        path=path,
        dense=dense,
        backend="torch",
    )
    states = torch.stack(dense.states, 1) if model.output_times else solution.z
    return Part(states.to(samples.z), solution.ts.cpu(), solution.path, nfe=int(solution.nfe))


def at_times(path: Tensor, ts: Tensor, wanted: Sequence[float]) -> Tensor:
    """Return trajectories (n, times, ...) from states at ts, (len(ts), n, ...)."""
    distances = (ts[:, None] - torch.tensor(wanted, dtype=ts.dtype)).abs()
    return path[distances.argmin(0).to(path.device)].transpose(0, 1)


def walk_adaptively(
    f: Field,
    z: Tensor,
    mesh: Sequence[float],
    solver: str,
    rtol: float,
    wanted: Sequence[float] = (),
    parts: tuple[int, ...] = (),
) -> Part:
    """Carry states z (n, ...) along a mesh, adaptive between its times. May raise SolveError.

    Args:
        f: Vector field.
        z: States at the first time.
        mesh: Times where a solve ends and the next one begins, ascending.
        solver: Name of an embedded method.
        rtol: Tolerance, relative and absolute.
        wanted: Times of the mesh whose states are kept, as trajectories; the end's where none are.
        parts: Numbers of the parts of a state that is a tuple.
    """
    nfe, last, path = 0, None, [z]
    steps = [torch.tensor([mesh[0]], dtype=torch.float64)]
    for a, b in pairwise(mesh):
        solution = solve_adaptive(
            from_inside(f, a, b, z.dtype),
            z,
            solver,
            rtol=rtol,
            atol=rtol,
            t=(a, b),
            parts=parts,
            max_steps=LONG if z.dtype == torch.float64 else SHORT,
            first_step=None if last is None else min(last, b - a),
            backend="torch",
        )
        z, ts = solution.z, solution.ts.cpu()
        last = 2 * float(ts.diff()[-2:].max())
        nfe += int(solution.nfe)
        steps.append(ts[1:])
        path = [*path, z] if wanted else [z]
    if wanted:
        z = at_times(torch.stack(path), torch.tensor(list(mesh), dtype=torch.float64), wanted)
    return Part(z, ts=torch.cat(steps), nfe=nfe)


def walk_times(
    f: Field, z: Tensor, times: Sequence[float], solver: str, inside: bool = False
) -> list[Tensor]:
    """Walk through ascending times, a step of the solver from each to the next.

    Args:
        f: Vector field.
        z: States (n, ...) at the first time.
        times: Where the steps begin and end.
        solver: Name of a method.
        inside: Whether the field is never asked at the very end of a step, where the next one may
            have another field (see `from_inside`).

    Returns:
        The states (n, ...) at each time.
    """
    states, tableau = [z], get_tableau(solver)
    for a, b in pairwise(times):
        step_f = from_inside(f, a, b, z.dtype) if inside else f
        states.append(rk_step(step_f, a, states[-1], b - a, tableau))
    return states


def from_inside(f: Field, start: float, end: float, dtype: torch.dtype) -> Field:
    """Return the field of a step, asked just before its end in place of at it: its left limit."""
    limit = torch.tensor(end, dtype=dtype)
    next_number = float(torch.nextafter(limit, limit - 1))
    last = min(next_number, end - INSIDE[dtype] * (end - start))
    return lambda t, z: f(min(float(t), last), z)


def _solve_by_own(model: FlowModel, samples: Samples, setting: OwnSolve) -> Part:
    """Solve with the user's own solve, in the user's time and states."""
    packing, calls = model.packing, []

    def field(t: Any, z: Any) -> Any:
        times = model.sign * torch.as_tensor(t).detach().double().cpu().reshape(-1)
        times = times[:1] if bool((times == times[:1]).all()) else times
        if len(times) not in (1, len(samples)):
            raise ValueError(
                f"solve calls its field with {len(times)} times for {len(samples)} samples: give "
                "one time, or one for each sample, (n,)"
            )
        calls.append(times)
        return packing.unpack(model.sign * _slopes(model, samples, times, packing.pack(z)))

    z0 = packing.unpack(samples.z)
    wanted = model.output_times
    asked = wanted or model.t
    ends = model.sign * torch.tensor(asked, dtype=samples.z.dtype, device=samples.z.device)
    try:
        found = setting.solve(_Callable(field), z0, ends)
    except SolveError:  # of the field
        raise
    except (ArithmeticError, AssertionError) as error:  # such as torchdiffeq's underflow in dt
        failed = torch.ones(len(samples), dtype=torch.bool)
        raise SolveError(f"solve raised {type(error).__name__}: {error}", failed) from error
    states = map_tensors(
        lambda p: p.detach().transpose(0, 1) if wanted else p.detach(),
        _of_states(found, z0, len(wanted)),
    )
    z = packing.pack(states, 2 if wanted else 1).to(samples.z)
    start, end = model.t
    between = torch.cat(calls).unique() if calls else torch.empty(0, dtype=torch.float64)
    seen = [start, *(t for t in between.tolist() if start < t < end), end]
    return Part(z, torch.tensor(seen, dtype=torch.float64), nfe=len(calls))


class _Callable(nn.Module):
    """A field as a module without parameters, which torchdiffeq's odeint_adjoint asks for."""

    def __init__(self, field: Callable[[Any, Any], Any]):
        super().__init__()
        self.field = field

    def forward(self, t: Any, z: Any) -> Any:
        return self.field(t, z)


def _slopes(model: FlowModel, samples: Samples, times: Tensor, z: Tensor) -> Tensor:
    """Return the slopes (n, ...) of states at one time (1,), or at one for each sample (n,)."""
    if len(times) == 1 or model.convention.time_axes:
        return _slope_in(guarded(model.field(samples.args)), times, z, samples.z)
    slopes = torch.empty_like(z)  # the field takes one time: it is asked at one after the other
    for time in times.unique():
        index = (times == time).nonzero()[:, 0]
        f = guarded(model.field(samples[index].args))
        slopes[index.to(z.device)] = _slope_in(f, time, z[index.to(z.device)], samples.z)
    return slopes


def _slope_in(f: Field, times: Tensor, z: Tensor, like: Tensor) -> Tensor:
    """Return a slope in the type of z, of a field that may be defined in the type of others alone.

    SciPy's solvers hand a field in float32 states in float64.
    """
    try:
        return f(times, z)
    except RuntimeError:
        if z.dtype == like.dtype:
            raise
        return f(times, z.to(like)).to(z)


def _of_states(found: Any, z0: Tree, n_times: int) -> Any:
    """Return what a solve gave; ValueError unless it is states like z0, or their trajectories."""
    shapes = [[tuple(p.shape) for p in tensors_of(tree)] for tree in (found, z0)]
    leading = (n_times,) if n_times else ()
    alike = isinstance(found, Tensor) == isinstance(z0, Tensor)
    if alike and shapes[0] == [(*leading, *shape) for shape in shapes[1]]:
        return found
    end = "odeint(field, z0, t, ...)[-1]"
    if not isinstance(z0, Tensor):
        end = "tuple(p[-1] for p in odeint(field, z0, t, ...))"
    advice = (
        f"give the states at all {n_times} times of t, times first, as odeint(field, z0, t, ...) "
        "does"
        if n_times
        else f"give the states at the end alone, z(T), such as {end}"
    )
    if isinstance(z0, Tensor) and not isinstance(found, Tensor):
        advice = "give a tensor, as z0 is"
    kind = type(found).__name__
    raise ValueError(f"solve returned a {kind} {shapes[0]} for states {shapes[1]}: {advice}")


# --- all of them ----------------------------------------------------------------------------------

STOPPED = "stopped by Ctrl-C"


class Patience:
    """Computes until the user presses Ctrl-C; from then on there is nothing more."""

    def __init__(self) -> None:
        self.ended = False

    def for_(self, compute: Callable[[], T]) -> T | None:
        """Return what is computed, or None where patience has ended, now or before."""
        if self.ended:
            return None
        try:
            found = compute()
        except KeyboardInterrupt:
            self.ended = True
        return None if self.ended else found


def solve_samples(
    model: FlowModel,
    samples: Samples,
    index: Tensor,
    solve: Callable[[Samples], Part],
    at_once: int,
    calm: Tensor | None = None,
    patience: Patience | None = None,
) -> Solved:
    """Solve samples in parts; those that cannot be solved are NaN, each alone.

    Args:
        model: The model.
        samples: All samples.
        index: Which of them to solve, (m,).
        solve: Solves a part; may raise SolveError.
        at_once: Largest number of samples of a part.
        calm: (n,) bool on the CPU, of all samples; the others are parts of their own, as they may
            fail.
        patience: Where it ends, the samples that are still open are NaN; without one, Ctrl-C is an
            exception as everywhere.
    """
    isolation = _Isolation(model, solve, patience)
    groups = [index] if calm is None else [index[calm[index]], index[~calm[index]]]
    parts = [isolation.solved(p) for rows in groups for p in samples[rows].split(at_once)]
    back = torch.cat(groups).argsort()[index.argsort().argsort()]
    z = torch.cat([part.z for part in parts])[back]
    other = torch.cat([part.z if part.other is None else part.other for part in parts])[back]
    outputs = torch.cat([model.outputs(part.z) for part in parts])[back]
    nfe = max(part.nfe for part in parts)
    return Solved(index, outputs, z, other, nfe, tuple(dict.fromkeys(isolation.failures)))


class _Isolation:
    """Solves parts; one that fails is solved in halves, down to the samples that are at fault.

    Those that had moved farthest when it failed go into one half, which is solved last: few
    samples that blow up then take few others with them.
    """

    def __init__(
        self, model: FlowModel, solve: Callable[[Samples], Part], patience: Patience | None
    ):
        self.model, self.solve, self.patience = model, solve, patience
        self.alone, self.good = 0, 0
        self.failures: list[str] = []

    def solved(self, part: Samples) -> Part:
        """Solve a part, with NaN for the samples that cannot be solved."""
        patience = self.patience
        try:
            found = (
                self.solve(part) if patience is None else patience.for_(lambda: self.solve(part))
            )
            if found is None:
                return self._lost(part, STOPPED)
            self.good += len(part)
            return found
        except SolveError as error:
            if len(part) == 1 or self.alone >= (ALONE if self.good else HOPELESS):
                self.alone += len(part)
                what = error.said(self.model.sign).partition("; ")[0]  # without the remedy
                return self._lost(part, what)
            order = _by_travel(part.z, error.z)
        half = (len(part) + 1) // 2
        both = self.solved(part[order[:half]]), self.solved(part[order[half:]])
        other = torch.cat([p.z if p.other is None else p.other for p in both])
        z, back = torch.cat([p.z for p in both]), order.argsort().to(other.device)
        return Part(z[back], other=other[back], nfe=max(p.nfe for p in both))

    def _lost(self, part: Samples, why: str) -> Part:
        self.failures.append(why)
        return Part(torch.full_like(self.model.still(part.z), math.nan))


def _by_travel(start: Tensor, z: Tensor | None) -> Tensor:
    """Order samples (n, ...) by how far they had moved to states z, (n,) on the CPU; infinity last.

    Without such z they stay in their order.
    """
    if z is None or z.shape != start.shape:
        return torch.arange(len(start))
    moved = (z.double() - start.double()).reshape(len(start), -1).norm(dim=1)
    return moved.nan_to_num(math.inf).cpu().argsort(stable=True)


def samples_at_once(size: int, rows: int) -> int:
    """Return the number of samples of a part: small parts are faster. size: of one state."""
    return min(rows, max(LEAST_PART, PART_NUMBERS // size))
