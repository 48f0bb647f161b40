"""Explicit Runge-Kutta solvers: one step, a walk of fixed steps, and an adaptive walk.

A state `z` is a tensor of any shape; a vector field is a callable `f(t, z)` that returns dz/dt in
the shape of `z`. The first axis is called *members* where each entry takes steps of its own.
Everything is differentiable through the steps; step sizes are constants to the gradient.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nodecore import kernels
from nodecore.tableaus import ButcherTableau, get_tableau

VectorField = Callable[[Tensor, Tensor], Tensor]
BACKENDS = ("auto", "fused", "torch")
# Of an adaptive step on the one before: safety * error^(-1/(q+1)), and the least and the most.
SAFETY, MIN_FACTOR, MAX_FACTOR = 0.9, 0.2, 10.0
MAX_STEPS = 10_000  # tried in an adaptive solve


@dataclass(frozen=True)
class Solution:
    """What a solve returns.

    z: final state. ts: times of the accepted steps, (n_steps + 1,) float64, or a row for each
    instance. path: the states at `ts` along a new first axis, where asked for.
    nfe, n_accepted, n_rejected: evaluations of f and steps, int, or a tensor with the shape of the
    instances that step by themselves. backend: "torch" or "fused".
    """

    z: Tensor
    ts: Tensor
    nfe: int | Tensor
    n_accepted: int | Tensor
    n_rejected: int | Tensor = 0
    path: Tensor | None = None
    backend: str = "torch"


class SolveError(ArithmeticError):
    """A solve that cannot go on. `failed` marks the instances at fault (bool tensor)."""

    def __init__(self, message: str, failed: Tensor):
        super().__init__(message)
        self.failed = failed

    @property
    def members(self) -> Tensor:
        """Those with an instance at fault, (members,) bool; for at least one axis of instances."""
        return self.failed.reshape(len(self.failed), -1).any(1)


# --- one step -----------------------------------------------------------------------------------


def rk_stages(
    f: VectorField,
    t,
    z: Tensor,
    h,
    tableau: ButcherTableau,
    k1: Tensor | None = None,
    n_stages=None,
) -> list[Tensor]:
    """The stages k_i = f(t + c_i h, z + h sum_j a_ij k_j), each in the shape of z.

    k1 saves its evaluation where it is known; n_stages leaves out the last ones.
    """
    stages = [f(t, z) if k1 is None else k1]
    for a, c in list(zip(tableau.a, tableau.c, strict=True))[1:n_stages]:
        stages.append(f(t + c * h, z + h * _weighted_sum(a, stages)))
    return stages


def rk_step(
    f: VectorField, t, z: Tensor, h, tableau: ButcherTableau, k1: Tensor | None = None
) -> Tensor:
    """One explicit Runge-Kutta step z + h sum_i b_i k_i, in the shape of z."""
    stages = rk_stages(f, t, z, h, tableau, k1, tableau.n_solution_stages)
    return z + h * _weighted_sum(tableau.b, stages)


def _weighted_sum(weights, stages):
    terms = [w * k for w, k in zip(weights, stages, strict=False) if w != 0.0]
    return sum(terms[1:], start=terms[0]) if terms else torch.zeros_like(stages[0])


# --- fixed steps --------------------------------------------------------------------------------


def solve_fixed(
    f: VectorField,
    z0: Tensor,
    solver: str | ButcherTableau,
    *,
    n_steps: int | None = None,
    step_size: float | Tensor | None = None,
    t: tuple[float, float] = (0.0, 1.0),
    path: bool = False,
    backend: str = "auto",
) -> Solution:
    """Walk from t[0] to t[1] in equal steps, the last one shortened to land on t[1].

    Give `n_steps`, or `step_size`: a float, or a tensor (members,) of one step size for each entry
    of z0's first axis. backend: "auto" takes the fused kernel where it serves (a field that has
    `block_layers`, float32 on the CPU, no path) and torch otherwise; the environment variable
    NODECORE_KERNEL sets what "auto" means. A state that overflows is returned as it is.

    Raises ValueError for a bad argument.
    """
    tableau = get_tableau(solver)
    check_state(z0)
    schedule = _plan_steps(n_steps, step_size, t, z0)
    walk = _walk_fused if choose_backend(f, z0, path, backend) == "fused" else _walk
    z, states = walk(f, z0, tableau, schedule, path)
    return Solution(
        z,
        ts=schedule.ts[:, 0].clone() if schedule.shared else schedule.ts.T,
        nfe=_shaped(schedule.n_steps * tableau.n_solution_stages, schedule.shared),
        n_accepted=_shaped(schedule.n_steps, schedule.shared),
        path=torch.stack(states) if path else None,
        backend="fused" if walk is _walk_fused else "torch",
    )


class _Schedule(NamedTuple):
    """The steps of a walk, for each instance, or for one that stands for all where `shared`.

    n_steps (instances,) int64; hs (n, instances) float64 every step, 0 where an instance has
    arrived; ts (n + 1, instances) the times.
    """

    n_steps: Tensor
    hs: Tensor
    ts: Tensor
    shared: bool


def _schedule(n_steps, step_size, t0, span, shared):
    last = span - (n_steps - 1) * step_size
    k = torch.arange(int(n_steps.max()))[:, None]
    hs = torch.where(k < n_steps - 1, step_size, torch.where(k == n_steps - 1, last, 0.0))
    ts = t0 + torch.cat([torch.zeros_like(hs[:1]), hs.cumsum(0)])
    return _Schedule(n_steps, hs, ts, shared)


@lru_cache(maxsize=64)
def _equal_steps(step_size: float, n_steps: int, t0: float, span: float) -> _Schedule:
    """Every iteration of a training asks for the same one again."""
    size = torch.tensor([step_size], dtype=torch.float64)
    return _schedule(torch.tensor([n_steps]), size, t0, span, shared=True)


def _plan_steps(n_steps, step_size, t, z0):
    span = _time_span(t)
    if (n_steps is None) == (step_size is None):
        raise ValueError(f"n_steps = {n_steps} and step_size = {step_size}: give exactly one")
    if n_steps is not None:
        return _equal_steps(span / check_n_steps(n_steps), n_steps, t[0], span)
    return _chosen_steps(step_size, t[0], span, z0)


def _chosen_steps(step_size, t0, span, z0):
    sizes = torch.as_tensor(step_size, dtype=torch.float64, device="cpu").detach()
    shared = sizes.dim() == 0
    sizes = sizes.reshape(-1)
    _check_step_sizes(sizes, span, z0, not shared)
    n_steps = count_steps(sizes, span)
    if shared:
        return _equal_steps(float(sizes), int(n_steps), t0, span)
    return _schedule(n_steps, sizes, t0, span, shared=False)


def count_steps(step_size: Tensor, span: float) -> Tensor:
    """Steps of `step_size` that fill `span`, the last one perhaps shorter: int64, same shape."""
    # A step that divides the span must not leave a sliver behind through rounding.
    return torch.ceil(span / step_size * (1 - 1e-12)).to(torch.int64).clamp(min=1)


def _walk(f, z0, tableau, schedule, path):
    """The torch path: all members step together; one that has arrived takes steps of size 0."""
    f, hs, ts = _for_solve(f, z0), schedule.hs, schedule.ts
    # A shared step is a plain number: on a GPU nothing has to be copied for it.
    h_rows = hs[:, 0].tolist() if schedule.shared else hs.to(z0)
    t_rows = ts[:, 0].tolist() if schedule.shared else ts.to(z0)
    going = [None] * len(hs) if schedule.shared else (hs > 0).tolist()
    z, states = z0, [z0]
    for t, h, members in zip(t_rows, h_rows, going, strict=False):
        step_f = partial(f, going=members)
        z = rk_step(step_f, _per_instance(t, z), z, _per_instance(h, z), tableau)
        if path:
            states.append(z)
    return z, states


def _for_solve(f, z0):
    """The field as a function of (t, z, going) for one solve from z0: one that can, leaves out the
    members that have arrived, and prepares for its many evaluations."""
    return f.for_solve(z0) if hasattr(f, "for_solve") else lambda t, z, going=None: f(t, z)


def _walk_fused(f, z0, tableau, schedule, path):
    steps = _fused_steps(schedule, z0)
    z0 = z0.contiguous()
    return kernels.solve_fused(z0, f.block_layers(), *tableau_arrays(tableau), *steps), None


def _fused_steps(schedule, z0):
    """What the kernel asks for: number and sizes of the steps, for every member."""
    members = z0.shape[0]
    sizes = schedule.hs.T.expand(members, -1)
    return schedule.n_steps.expand(members).contiguous(), sizes.contiguous()


def prepare_fused(
    f: VectorField,
    z0: Tensor,
    solver: str | ButcherTableau,
    *,
    n_steps: int | None = None,
    step_size: float | Tensor | None = None,
    rtol: float | Tensor | None = None,
    per_sample: bool = False,
    t: tuple[float, float] = (0.0, 1.0),
) -> kernels.FusedSolve:
    """The fused kernel set up for many solves of states like z0.

    What a training loop repeats without checking it anew. Give `n_steps`, `step_size`, or `rtol`
    (atol is the same; with `per_sample` each sample steps by itself). Steps and errors as in
    solve_fixed and solve_adaptive.
    """
    tableau = get_tableau(solver)
    layers, arrays = f.block_layers(), tableau_arrays(tableau)
    if rtol is not None:
        _check_adaptive(tableau, rtol, rtol, z0, 1, None, MAX_STEPS)
        control = _step_control(tableau, rtol, rtol, t, per_sample=per_sample)
        return kernels.FusedAdaptive(z0, layers, *arrays, control)
    steps = _fused_steps(_plan_steps(n_steps, step_size, t, z0), z0)
    return kernels.FusedSolve(z0, layers, *arrays, *steps)


@cache
def tableau_arrays(tableau: ButcherTableau):
    """The stages of a fixed step as float64 arrays a (s, s) and b (s,), s solution stages."""
    s = tableau.n_solution_stages
    a = torch.zeros(s, s, dtype=torch.float64)
    for i, row in enumerate(tableau.a[:s]):
        a[i, :i] = torch.tensor(row, dtype=torch.float64)
    return a.numpy(), torch.tensor(tableau.b[:s], dtype=torch.float64).numpy()


FINER_SOLVERS = {1: "midpoint", 2: "rk4", 3: "rk4", 4: "dopri5"}  # by the order to be exceeded


def finer_solver(solver: str | ButcherTableau) -> str:
    """The next solver of smaller error at the same step. ValueError where there is none."""
    tableau = get_tableau(solver)
    if tableau.order not in FINER_SOLVERS:
        raise ValueError(
            f"solver = {tableau.name!r}: no solver here is of higher order; use one of order <= 4"
        )
    return FINER_SOLVERS[tableau.order]


def check_finer(solver: str | ButcherTableau, test_solver: str | ButcherTableau) -> None:
    """ValueError unless test_solver is of higher order than solver: of smaller error."""
    tableau, better = get_tableau(solver), get_tableau(test_solver)
    if better.order <= tableau.order:
        raise ValueError(
            f"test_solver = {better.name!r} (order {better.order}) is not finer than the training "
            f"solver {tableau.name!r} (order {tableau.order}); use {finer_solver(tableau)}"
        )


def resolve_backend(backend: str = "auto") -> str:
    """ "auto" resolved by NODECORE_KERNEL. ValueError for an unknown name."""
    if backend == "auto":
        backend = os.environ.get("NODECORE_KERNEL", "auto")
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    return backend


def choose_backend(f: VectorField, z0: Tensor, path: bool = False, backend: str = "auto") -> str:
    """ "fused" or "torch": which one a fixed-step solve of z0 takes.

    ValueError where "fused" is asked for and cannot serve.
    """
    backend = resolve_backend(backend)
    if backend == "torch":
        return "torch"
    serves = not path and z0.device.type == "cpu" and z0.dtype == torch.float32
    serves = serves and _has_kernel_layers(f, z0.dim())
    if backend == "fused" and not serves:
        raise ValueError(
            "backend = 'fused' serves dense fields and convolutions of one channel on float32 CPU "
            f"states, (members, batch, dim) or (members, batch, 1, height, width), without path; "
            f"got {type(f).__name__} on {z0.dtype} {z0.device} {tuple(z0.shape)}, path={path}; "
            "use backend='torch'"
        )
    if not serves:
        return "torch"
    status = kernels.status()
    if not status.available and backend == "fused":
        raise ValueError(f"backend = 'fused' is not available: {status.reason}")
    return "fused" if status.available else "torch"


def _has_kernel_layers(f, axes):
    """Whether f has layers that the kernel knows, for states of so many axes."""
    layers = f.block_layers() if hasattr(f, "block_layers") else None
    return layers is not None and axes == (5 if layers[1].taps == 9 else 3)


# --- adaptive steps -----------------------------------------------------------------------------


def solve_adaptive(
    f: VectorField,
    z0: Tensor,
    solver: str | ButcherTableau,
    *,
    rtol: float | Tensor,
    atol: float | Tensor,
    t: tuple[float, float] = (0.0, 1.0),
    instance_axes: int = 0,
    first_step: float | None = None,
    max_steps: int = MAX_STEPS,
    path: bool = False,
    backend: str = "auto",
) -> Solution:
    """Walk from t[0] to t[1] with steps that keep the embedded error within the tolerances.

    The error of a step is the root mean square of error / (atol + rtol max(abs z, abs z_new)); a
    step is accepted where it is <= 1, and the next one is 0.9 error^(-1/(q+1)) times as long, but
    0.2 to 10 times, q the order of the embedded method (Hairer, Norsett, Wanner 1993, p. 168).

    instance_axes: how many leading axes index instances that step by themselves. 0: one step for
    the whole tensor, as torchdiffeq does; 1 on (members, batch, dim): one for each member's batch;
    2: one for each sample. Times, counts and errors then have the shape of these axes. rtol and
    atol may then be tensors (members,), a tolerance for each entry of z0's first axis.

    backend: as for `solve_fixed`; the fused kernel serves instance_axes = 1 and 2.

    Raises ValueError for a bad argument, SolveError when a step underflows, the state is not finite
    or max_steps are not enough.
    """
    tableau = get_tableau(solver)
    check_state(z0)
    _check_adaptive(tableau, rtol, atol, z0, instance_axes, first_step, max_steps)
    control = _step_control(tableau, rtol, atol, t, first_step, max_steps, instance_axes == 2)
    if choose_adaptive_backend(f, z0, tableau, instance_axes, path, backend) == "fused":
        return _adapt_fused(f, z0, tableau, control)
    return _adapt(f, z0, tableau, control, instance_axes, path)


def _step_control(tableau, rtol, atol, t, first_step=None, max_steps=MAX_STEPS, per_sample=False):
    return kernels.StepControl(
        b_error=np.array(tableau.b_error),
        same_as_last=tableau.first_same_as_last,
        exponent=-1.0 / (tableau.embedded_order + 1),
        rtol=rtol,
        atol=atol,
        t0=float(t[0]),
        t1=t[0] + _time_span(t),
        first_step=first_step or 0.0,
        safety=SAFETY,
        min_factor=MIN_FACTOR,
        max_factor=MAX_FACTOR,
        max_steps=max_steps,
        per_sample=per_sample,
    )


def _adapt(f, z0, tableau, control, instance_axes, path):
    """The torch path: all instances try steps together, and each accepts or rejects its own."""
    rtol, atol = (
        _per_instance(v.to(z0) if isinstance(v, Tensor) else v, z0)
        for v in (control.rtol, control.atol)
    )
    t0, t1 = control.t0, control.t1
    axes = z0.shape[:instance_axes]

    def error_norm(error, scale):
        return _rms(error / scale, instance_axes)

    f = _for_solve(f, z0)
    time = torch.full(axes, t0, dtype=torch.float64, device=z0.device)
    z, k1 = z0, f(_per_instance(time.to(z0), z0), z0)
    nfe = torch.ones(axes, dtype=torch.int64, device=z0.device)
    accepted, rejected = torch.zeros_like(nfe), torch.zeros_like(nfe)
    if control.first_step:
        h = torch.full(axes, control.first_step, dtype=torch.float64, device=z0.device)
    else:
        scale = atol + rtol * z0.detach().abs()
        order = tableau.embedded_order
        h = initial_step_size(f, t0, z0, order, lambda v: error_norm(v, scale), k1)
        nfe += 1
    times, states = [time], [z0]
    active = time < t1
    while any(going := _members(active)):
        step_f = partial(f, going=going if axes else None)
        h = torch.where(active, torch.minimum(h, t1 - time), 0.0)
        _check_progress(time, h, active, accepted + rejected, control.max_steps)
        hz = _per_instance(h.to(z0), z0)
        stages = rk_stages(step_f, _per_instance(time.to(z0), z0), z, hz, tableau, k1)
        z_new = z + hz * _weighted_sum(tableau.b, stages)
        with torch.no_grad():
            scale = atol + rtol * torch.maximum(z.abs(), z_new.abs())
            error = error_norm(hz * _weighted_sum(tableau.b_error, stages), scale).to(h)
            _check_finite(error, active, time, h)
            accept = active & (error <= 1.0)
            # The last step lands on t1 exactly, whatever the rounding of the sum.
            arrived = accept & (h >= t1 - time)
            time = torch.where(arrived, t1, torch.where(accept, time + h, time))
        nfe += active * (len(stages) - 1)
        accepted, rejected = accepted + accept, rejected + (active & ~accept)
        take = _per_instance(accept, z0)
        z = torch.where(take, z_new, z)
        active = time < t1
        if tableau.first_same_as_last:
            k1 = torch.where(take, stages[-1], k1)
        elif bool((accept & active).any()):
            k1 = torch.where(take, step_f(_per_instance(time.to(z0), z0), z), k1)
            nfe += accept & active
        if bool(accept.any()):
            times.append(time)
            if path:
                states.append(z)
        factor = control.safety * error.clamp(min=1e-10) ** control.exponent
        # An accepted step is never followed by a shorter one (as in torchdiffeq).
        floor = torch.where(accept, 1.0, control.min_factor)
        h = torch.where(active, h * torch.maximum(factor, floor).clamp(max=control.max_factor), h)
    single = instance_axes == 0
    return Solution(
        z,
        ts=torch.stack(times, dim=-1),
        nfe=_shaped(nfe, single),
        n_accepted=_shaped(accepted, single),
        n_rejected=_shaped(rejected, single),
        path=torch.stack(states) if path else None,
    )


def choose_adaptive_backend(
    f: VectorField,
    z0: Tensor,
    tableau: ButcherTableau,
    instance_axes: int = 1,
    path: bool = False,
    backend: str = "auto",
) -> str:
    """ "fused" or "torch": which one an adaptive solve of z0 takes; ValueError as there."""
    backend = resolve_backend(backend)
    if backend == "torch":
        return "torch"
    if instance_axes not in (1, 2) or not _kernel_estimates(tableau):
        if backend == "fused":
            raise ValueError(
                "backend = 'fused' serves steps of each member's own or of each sample's "
                f"(instance_axes = 1 or 2; got {instance_axes}) and methods whose error estimate "
                "needs no stage of its own; use backend='torch'"
            )
        return "torch"
    return choose_backend(f, z0, path, backend)


def _kernel_estimates(tableau):
    """Whether the error estimate needs the stages of the solution alone, or the next first one."""
    return len(tableau.b) == tableau.n_solution_stages + tableau.first_same_as_last


def _adapt_fused(f, z0, tableau, control):
    layers, arrays = f.block_layers(), tableau_arrays(tableau)
    z, walk = kernels.solve_fused_adaptive(z0.contiguous(), layers, *arrays, control)
    check_walk(walk)
    n_steps = walk.n_steps
    most = int(n_steps.max())
    start = torch.full((*n_steps.shape, 1), control.t0)
    times = torch.cat([start, walk.step_sizes[..., :most]], -1).cumsum(-1)
    arrived = torch.arange(most + 1) >= n_steps[..., None]
    return Solution(
        z,
        ts=torch.where(arrived, control.t1, times),
        nfe=walk.nfe,
        n_accepted=n_steps - walk.rejected if control.per_sample else n_steps,
        n_rejected=walk.rejected,
        backend="fused",
    )


def check_walk(walk: kernels.FusedAdaptive) -> None:
    """SolveError where the kernel could not carry a member to the end of its time."""
    if not bool(walk.state.any()):
        return
    failed = walk.state > 0
    end = int(walk.state[failed][0])  # the others may have failed otherwise
    at_fault = walk.state == end
    max_steps = walk.step_sizes.shape[-1]
    message = _why_it_ended(kernels.ENDS[end], walk.time[at_fault], walk.step[at_fault], max_steps)
    raise SolveError(message, failed)


@torch.no_grad()
def initial_step_size(
    f: VectorField,
    t0: float,
    z0: Tensor,
    order: int,
    norm: Callable[[Tensor], Tensor],
    f0: Tensor | None = None,
) -> Tensor:
    """A first step size by Hairer, Norsett, Wanner (1993), p. 169; float64, in the norm's shape.

    norm: maps a tensor like z0 to one number for each instance. Costs two evaluations of f, one
    where f0 = f(t0, z0) is given.
    """
    start = z0.new_full((), t0)
    f0 = f(start, z0) if f0 is None else f0
    d0, d1 = norm(z0).double(), norm(f0).double()
    tiny = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = torch.where(tiny, 1e-6, 0.01 * d0 / d1.clamp(min=1e-300))
    h0_z = _per_instance(h0.to(z0), z0)
    f1 = f(start + h0_z, z0 + h0_z * f0)
    d2 = norm(f1 - f0).double() / h0
    largest = torch.maximum(d1, d2)
    flat = torch.maximum(torch.full_like(h0, 1e-6), h0 * 1e-3)
    h1 = torch.where(
        largest <= 1e-15, flat, (0.01 / largest.clamp(min=1e-300)) ** (1 / (order + 1))
    )
    return torch.minimum(100 * h0, h1)


# --- shapes and checks --------------------------------------------------------------------------


def _per_instance(value, z):
    """A number as it is; a tensor over the leading axes of z, ready to broadcast against z."""
    if not isinstance(value, Tensor):
        return value
    return value.reshape(value.shape + (1,) * (z.dim() - value.dim()))


def _members(active):
    """Which entries of the first axis, if there is one, have an active instance; a list of bool."""
    return active.reshape(active.shape[:1].numel(), -1).any(1).tolist()


def _rms(v, instance_axes):
    return v.detach().flatten(instance_axes).square().mean(-1).sqrt()


def _shaped(counts, single):
    return int(counts.reshape(-1)[0]) if single else counts


def check_embedded(solver: str | ButcherTableau) -> None:
    """ValueError unless the solver has an embedded method, which a tolerance needs."""
    tableau = get_tableau(solver)
    if tableau.b_embedded is None:
        raise ValueError(
            f"solver = {tableau.name!r} has no embedded method to estimate the error; "
            "use bosh3, fehlberg21 or dopri5, or fixed steps"
        )


def check_state(z: Tensor) -> None:
    """ValueError unless z is a floating-point tensor that is not empty."""
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.numel() == 0:
        what = f"{tuple(z.shape)} {z.dtype}" if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(f"z0 = {what}: give a floating-point tensor that is not empty")


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


def _time_span(t):
    t0, t1 = t
    if not (math.isfinite(t0) and math.isfinite(t1) and t1 > t0):
        raise ValueError(f"t = {tuple(t)}: give finite times (start, end) with end > start")
    return float(t1 - t0)


def _check_step_sizes(sizes, span, z0, per_member):
    if per_member and len(sizes) != z0.shape[0]:
        raise ValueError(
            f"step_size has {len(sizes)} entries for {z0.shape[0]} members; give one for each"
        )
    if not bool(((sizes > 0) & (sizes <= span * (1 + 1e-12))).all()):
        raise ValueError(f"step_size = {sizes.tolist()}: give sizes in (0, T] with T = {span}")


def _check_tolerances(name, value, z0, instance_axes):
    if not isinstance(value, Tensor):
        check_tolerance(name, value)
        return
    if instance_axes < 1 or value.shape != z0.shape[:1]:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}: give one tolerance for each of z0's "
            f"{z0.shape[0]} members, with instance_axes >= 1; got {instance_axes}"
        )
    for entry in value.tolist():
        check_tolerance(name, entry)


def _check_adaptive(tableau, rtol, atol, z0, instance_axes, first_step, max_steps):
    check_embedded(tableau)
    for name, value in (("rtol", rtol), ("atol", atol)):
        _check_tolerances(name, value, z0, instance_axes)
    check_n_steps(max_steps)
    if first_step is not None and not 0 < first_step < math.inf:
        raise ValueError(f"first_step = {first_step!r}: give a step size > 0")
    if not 0 <= instance_axes < z0.dim():
        raise ValueError(
            f"instance_axes = {instance_axes}: give 0 to {z0.dim() - 1} for {z0.dim()} axes"
        )


def _check_progress(time, h, active, attempts, max_steps):
    ends = {"underflow": time + h <= time, "spent": attempts >= max_steps}
    for end, at_fault in ends.items():
        failed = active & at_fault
        if bool(failed.any()):
            raise SolveError(_why_it_ended(end, time[failed], h[failed], max_steps), failed)


def _check_finite(error, active, time, h):
    bad = active & ~torch.isfinite(error)
    if bool(bad.any()):
        raise SolveError(_why_it_ended("not finite", time[bad], h[bad]), bad)


def _why_it_ended(end, time, h, max_steps=MAX_STEPS):
    """What happened, one of kernels.ENDS, to instances at times `time` with steps h; the remedy."""
    earliest = f"t = {time.min().item():.6g}"
    return {
        "underflow": f"the step size underflowed to {h.min().item():.3g} at {earliest}; "
        "loosen rtol and atol, or use float64",
        "spent": f"{max_steps} steps reached only {earliest}; "
        "raise max_steps, or loosen rtol and atol",
        "not finite": f"the state is not finite after a step of {h.max().item():.3g} from "
        f"{earliest}; check the field's weights or give a smaller first_step",
    }[end]
