"""Walk in steps that keep an embedded error estimate within tolerances."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nodecore.ode import kernels
from nodecore.ode.backends import choose_adaptive_backend
from nodecore.ode.checks import check_positive
from nodecore.ode.dense import Dense
from nodecore.ode.fixed import tableau_arrays
from nodecore.ode.runge_kutta import field_for_solve, per_instance, rk_stages, weighted_sum
from nodecore.ode.solution import Solution, SolveError, VectorField, check_state, shaped
from nodecore.ode.steps import check_embedded, check_n_steps, time_span
from nodecore.ode.tableaus import ButcherTableau, get_tableau

# Factor from one adaptive step to the next: SAFETY * error^(-1/(q+1)), within these two bounds.
SAFETY, MIN_FACTOR, MAX_FACTOR = 0.9, 0.2, 10.0
MAX_STEPS = 10_000  # tried in an adaptive solve


def solve_adaptive(
    f: VectorField,
    z0: Tensor,
    solver: str | ButcherTableau,
    *,
    rtol: float | Tensor,
    atol: float | Tensor,
    t: tuple[float, float] = (0.0, 1.0),
    instance_axes: int = 0,
    parts: tuple[int, ...] = (),
    first_step: float | None = None,
    max_steps: int = MAX_STEPS,
    path: bool = False,
    dense: Dense | None = None,
    backend: str = "auto",
) -> Solution:
    """Walk from t[0] to t[1] with steps that keep the embedded error within the tolerances.

    The error of a step is the root mean square of error / (atol + rtol max(abs z, abs z_new)); a
    step is accepted where it is <= 1, and the next one is 0.9 error^(-1/(q+1)) times as long, but
    0.2 to 10 times, with q the order of the embedded method (Hairer, Norsett, Wanner 1993, p. 168).

    Args:
        f: Vector field f(t, z), in the shape of z.
        z0: Initial state, a floating-point tensor of any shape.
        solver: Name of an embedded method, or its tableau.
        rtol: Relative tolerance, or a tensor (members,) with one for each entry of z0's first axis.
        atol: Absolute tolerance, in the units of z, likewise.
        t: Start and end.
        instance_axes: Number of leading axes that index instances which step by themselves. With 0
            the whole tensor takes one step, as in torchdiffeq; with 1, on (members, batch, dim),
            each member's batch has its own steps; with 2, each sample. Times, counts and errors
            then have the shape of these axes.
        parts: Sizes, along the last axis, of the parts of a state that joins several. The error is
            then the largest of the parts' root mean squares, as in torchdiffeq for a tuple, so that
            a large part that stands still does not hide the error of a small one. Needs
            instance_axes of 0.
        first_step: Size of the first step; None chooses it (see initial_step_size).
        max_steps: Largest number of steps to try.
        path: Whether to return the states at all accepted steps.
        dense: Takes the states at its times, the last of them t[1]. Then no step is cut to land on
            t[1]: the last one goes past it, as in torchdiffeq. Needs instance_axes of 0.
        backend: "auto", "fused" or "torch", as for solve_fixed; the fused kernel serves
            instance_axes of 1 and 2.

    Returns:
        The final state, times and counts of the steps.

    Raises:
        ValueError: An argument is bad.
        SolveError: A step underflows, the state is not finite or max_steps are not enough.
    """
    tableau = get_tableau(solver)
    check_state(z0)
    check_adaptive(tableau, rtol, atol, z0, instance_axes, first_step, max_steps)
    _check_parts(parts, z0, instance_axes)
    control = step_control(tableau, rtol, atol, t, first_step, max_steps, instance_axes == 2)
    close = 1e-9 * (control.t1 - control.t0)
    if dense is not None and (instance_axes or abs(dense.times[-1] - control.t1) > close):
        raise ValueError(
            f"dense ends at {dense.times[-1]}, with instance_axes = {instance_axes}: let it end at "
            f"t[1] = {control.t1}, and give instance_axes=0"
        )
    if choose_adaptive_backend(f, z0, tableau, instance_axes, path, backend) == "fused":
        return _adapt_fused(f, z0, tableau, control)
    return _adapt(f, z0, tableau, control, instance_axes, parts, path, dense)


def step_control(
    tableau: ButcherTableau,
    rtol: float | Tensor,
    atol: float | Tensor,
    t: tuple[float, float],
    first_step: float | None = None,
    max_steps: int = MAX_STEPS,
    per_sample: bool = False,
) -> kernels.StepControl:
    """Return what the kernel needs to know to choose steps by a tolerance."""
    time_span(t)  # refuses times that do not work
    return kernels.StepControl(
        b_error=np.array(tableau.b_error),
        same_as_last=tableau.first_same_as_last,
        exponent=-1.0 / (check_embedded(tableau) + 1),
        rtol=rtol,
        atol=atol,
        t0=float(t[0]),
        t1=float(t[1]),
        first_step=first_step or 0.0,
        safety=SAFETY,
        min_factor=MIN_FACTOR,
        max_factor=MAX_FACTOR,
        max_steps=max_steps,
        per_sample=per_sample,
    )


def _adapt(f, z0, tableau, control, instance_axes, parts, path, dense):
    """The torch path: all instances try steps together, and each accepts or rejects its own."""
    f, t1, axes = field_for_solve(f, z0), control.t1, z0.shape[:instance_axes]
    norm = _scaled_norm(z0, control, instance_axes, parts)

    def like_state(v):
        return per_instance(v.to(z0), z0)

    time = torch.full(axes, control.t0, dtype=torch.float64, device=z0.device)
    z, k1 = z0, f(like_state(time), z0)
    h = _first_step(f, z0, tableau, control, k1, norm).expand(axes)
    nfe = torch.full(axes, 1 if control.first_step else 2, device=z0.device)
    accepted, rejected = torch.zeros_like(nfe), torch.zeros_like(nfe)
    times, states = [time], [z0]
    active = time < t1
    while any(going := _members(active)):
        step_f = partial(f, going=going if axes else None)
        h = torch.where(active, torch.minimum(h, t1 - time) if dense is None else h, 0.0)
        _check_progress(time, h, active, accepted + rejected, control.max_steps, z)
        hz = like_state(h)
        stages = rk_stages(step_f, like_state(time), z, hz, tableau, k1)
        z_new = z + hz * weighted_sum(tableau.b, stages)
        with torch.no_grad():
            size = torch.maximum(z.abs(), z_new.abs())
            error = norm(hz * weighted_sum(tableau.b_error, stages), size).to(h)
            # An infinite error is too large a one where steps are those of torchdiffeq.
            lost = ~torch.isfinite(error) if dense is None else torch.isnan(error)
            _check_finite(active & lost, time, h, z_new)
            accept = active & (error <= 1.0)
            # The last step lands on t1 exactly, whatever the rounding of the sum.
            arrived = accept & (h >= t1 - time)
            if dense is not None and bool(accept):
                dense.take(tableau, float(time), float(h), (z, z_new), stages, bool(arrived))
                z_new = dense.states[-1] if bool(arrived) else z_new
            time = torch.where(arrived, t1, torch.where(accept, time + h, time))
        nfe += active * (len(stages) - 1)
        accepted, rejected = accepted + accept, rejected + (active & ~accept)
        take = per_instance(accept, z0)
        z = torch.where(take, z_new, z)
        active = time < t1
        if tableau.first_same_as_last or dense is not None:  # torchdiffeq carries any last one on
            k1 = torch.where(take, stages[-1], k1)
        elif bool((accept & active).any()):
            k1 = torch.where(take, step_f(like_state(time), z), k1)
            nfe += accept & active
        if bool(accept.any()):
            times.append(time)
            if path:
                states.append(z)
        h = torch.where(active, _next_step(h, error, accept, control), h)
    single = instance_axes == 0
    return Solution(
        z,
        ts=torch.stack(times, dim=-1),
        nfe=shaped(nfe, single),
        n_accepted=shaped(accepted, single),
        n_rejected=shaped(rejected, single),
        path=torch.stack(states) if path else None,
    )


def _scaled_norm(z0, control, instance_axes, parts):
    """Return the norm of an error, in tolerances, of states of a size: one for each instance."""
    rtol, atol = (
        per_instance(v.to(z0) if isinstance(v, Tensor) else v, z0)
        for v in (control.rtol, control.atol)
    )

    def norm(error, size):
        v = error / (atol + rtol * size)
        return _largest_rms(v, parts) if parts else _rms(v, instance_axes)

    return norm


def _first_step(f, z0, tableau, control, k1, norm):
    """Return the step to try first, for each instance; its choice takes one evaluation."""
    if control.first_step:
        return torch.tensor(control.first_step, dtype=torch.float64, device=z0.device)
    order, size = tableau.embedded_order, z0.detach().abs()
    return initial_step_size(f, control.t0, z0, order, lambda v: norm(v, size), k1)


def _next_step(h, error, accept, control):
    """Return the step after one of size h with this error; an accepted one is never followed by a
    shorter one (as in torchdiffeq)."""
    factor = control.safety * error.clamp(min=1e-10) ** control.exponent
    floor = torch.where(accept, 1.0, control.min_factor)
    return h * torch.maximum(factor, floor).clamp(max=control.max_factor)


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
    """Raise SolveError if the kernel could not carry a member to the end of its time."""
    if not bool(walk.state.any()):
        return
    failed = walk.state > 0
    end = int(walk.state[failed][0])  # the others may have failed otherwise
    at_fault = walk.state == end
    max_steps = walk.step_sizes.shape[-1]
    time, step = walk.time[at_fault], walk.step[at_fault]
    raise _solve_error(kernels.ENDS[end], failed, time, step, max_steps)


@torch.no_grad()
def initial_step_size(
    f: VectorField,
    t0: float,
    z0: Tensor,
    order: int,
    norm: Callable[[Tensor], Tensor],
    f0: Tensor | None = None,
) -> Tensor:
    """Choose a first step size (Hairer, Norsett, Wanner 1993, p. 169).

    Args:
        f: Vector field f(t, z).
        t0: Start.
        z0: Initial state.
        order: Order of the method whose error is to be kept small.
        norm: Maps a tensor like z0 to one number for each instance.
        f0: f(t0, z0), where it is known; the choice costs two evaluations of f without it, one
            with it.

    Returns:
        The size, float64, in the shape that the norm gives.
    """
    start = z0.new_full((), t0)
    f0 = f(start, z0) if f0 is None else f0
    d0, d1 = norm(z0).double(), norm(f0).double()
    tiny = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = torch.where(tiny, 1e-6, 0.01 * d0 / d1.clamp(min=1e-300))
    h0_z = per_instance(h0.to(z0), z0)
    f1 = f(start + h0_z, z0 + h0_z * f0)
    d2 = norm(f1 - f0).double() / h0
    largest = torch.maximum(d1, d2)
    flat = torch.maximum(torch.full_like(h0, 1e-6), h0 * 1e-3)
    h1 = torch.where(
        largest <= 1e-15, flat, (0.01 / largest.clamp(min=1e-300)) ** (1 / (order + 1))
    )
    return torch.minimum(100 * h0, h1)


def _members(active):
    """List for each entry of the first axis, if there is one, whether it has an active instance."""
    return active.reshape(active.shape[:1].numel(), -1).any(1).tolist()


def _rms(v, instance_axes):
    return v.detach().flatten(instance_axes).square().mean(-1).sqrt()


def _largest_rms(v, parts):
    """Return the largest root mean square of the parts along the last axis, of all instances."""
    return torch.stack([_rms(part, 0) for part in v.split(parts, -1) if part.numel()]).amax()


def _check_parts(parts, z0, instance_axes):
    if parts and (instance_axes or sum(parts) != z0.shape[-1]):
        raise ValueError(
            f"parts = {parts}, with instance_axes = {instance_axes}: give sizes that add up to "
            f"z0's last axis, {z0.shape[-1]}, and instance_axes=0"
        )


def _check_tolerances(name, value, z0, instance_axes):
    if not isinstance(value, Tensor):
        check_positive(name, value)
        return
    if instance_axes < 1 or value.shape != z0.shape[:1]:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}: give one tolerance for each of z0's "
            f"{z0.shape[0]} members, with instance_axes >= 1; got {instance_axes}"
        )
    for entry in value.tolist():
        check_positive(name, entry)


def check_adaptive(
    tableau: ButcherTableau,
    rtol: float | Tensor,
    atol: float | Tensor,
    z0: Tensor,
    instance_axes: int,
    first_step: float | None,
    max_steps: int,
) -> None:
    """Raise ValueError naming the argument of an adaptive solve that cannot work."""
    check_embedded(tableau)
    for name, value in (("rtol", rtol), ("atol", atol)):
        _check_tolerances(name, value, z0, instance_axes)
    check_n_steps(max_steps, "max_steps")
    if first_step is not None:
        check_positive("first_step", first_step)
    if not 0 <= instance_axes < z0.dim():
        raise ValueError(
            f"instance_axes = {instance_axes}: give 0 to {z0.dim() - 1} for {z0.dim()} axes"
        )


def _check_progress(time, h, active, attempts, max_steps, z):
    ends = {"underflow": time + h <= time, "spent": attempts >= max_steps}
    for end, at_fault in ends.items():
        failed = active & at_fault
        if bool(failed.any()):
            raise _solve_error(end, failed, time[failed], h[failed], max_steps, z)


def _check_finite(bad, time, h, z):
    if bool(bad.any()):
        raise _solve_error("not finite", bad, time[bad], h[bad], z=z)


def _solve_error(end, failed, time, h, max_steps=MAX_STEPS, z=None):
    """Say what happened (one of kernels.ENDS) at times `time` with steps h, and the remedy."""
    why = {
        "underflow": f"the step size underflowed to {h.min().item():.3g} at {{t}}; "
        "loosen rtol and atol, or use float64",
        "spent": f"{max_steps} steps reached only {{t}}; raise max_steps, or loosen rtol and atol",
        "not finite": f"the state is not finite after a step of {h.max().item():.3g} from {{t}}; "
        "check the field's weights or give a smaller first_step",
    }[end]
    return SolveError(why, failed, time.min().item(), z)
