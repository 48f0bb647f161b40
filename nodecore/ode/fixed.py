"""Walk in fixed steps, of one size for all or a size for each member."""

from functools import cache, lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nodecore.ode import kernels
from nodecore.ode.backends import choose_backend
from nodecore.ode.runge_kutta import field_for_solve, per_instance, rk_step
from nodecore.ode.solution import Solution, VectorField, check_state, shaped
from nodecore.ode.steps import check_n_steps, count_steps, time_span
from nodecore.ode.tableaus import ButcherTableau, get_tableau


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

    Give either `n_steps` or `step_size`. A state that overflows is returned as it is.

    Args:
        f: Vector field f(t, z), in the shape of z.
        z0: Initial state, a floating-point tensor of any shape.
        solver: Name of a method, or its tableau.
        n_steps: Number of equal steps.
        step_size: Size of the steps, in the units of t; or a tensor (members,) with one for each
            entry of z0's first axis.
        t: Start and end.
        path: Whether to return the states at all steps.
        backend: "fused", "torch", or "auto", which takes the fused kernel where it serves (a field
            that has `block_layers`, float32 on the CPU, no path) and torch otherwise; the
            environment variable NODECORE_KERNEL sets what "auto" means.

    Returns:
        The final state, times and number of the steps, and the number of evaluations.

    Raises:
        ValueError: An argument is bad.
    """
    tableau = get_tableau(solver)
    check_state(z0)
    schedule = plan_steps(n_steps, step_size, t, z0)
    walk = _walk_fused if choose_backend(f, z0, path, backend) == "fused" else _walk
    z, states = walk(f, z0, tableau, schedule, path)
    return Solution(
        z,
        ts=schedule.ts[:, 0].clone() if schedule.shared else schedule.ts.T,
        nfe=shaped(schedule.n_steps * tableau.n_solution_stages, schedule.shared),
        n_accepted=shaped(schedule.n_steps, schedule.shared),
        path=None if states is None else torch.stack(states),
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


def _schedule(n_steps, step_size, t0, t1, shared):
    last = (t1 - t0) - (n_steps - 1) * step_size
    k = torch.arange(int(n_steps.max()))[:, None]
    hs = torch.where(k < n_steps - 1, step_size, torch.where(k == n_steps - 1, last, 0.0))
    # Times are multiples of the step: a sum's rounding would fall short of the start of a block.
    k = torch.arange(len(hs) + 1)[:, None]
    return _Schedule(n_steps, hs, torch.where(k < n_steps, t0 + k * step_size, t1), shared)


@lru_cache(maxsize=64)
def _equal_steps(step_size: float, n_steps: int, t0: float, t1: float) -> _Schedule:
    """Every iteration of a training asks for the same one again."""
    size = torch.tensor([step_size], dtype=torch.float64)
    return _schedule(torch.tensor([n_steps]), size, t0, t1, shared=True)


def plan_steps(
    n_steps: int | None, step_size: float | Tensor | None, t: tuple[float, float], z0: Tensor
) -> _Schedule:
    """Return the schedule of a walk, checked; see solve_fixed for the arguments."""
    span = time_span(t)
    if (n_steps is None) == (step_size is None):
        raise ValueError(f"n_steps = {n_steps} and step_size = {step_size}: give exactly one")
    if n_steps is not None:
        n_steps = check_n_steps(n_steps)  # a plain int, whatever kind it came as
        return _equal_steps(span / n_steps, n_steps, *t)
    return _chosen_steps(step_size, *t, span, z0)


def _chosen_steps(step_size, t0, t1, span, z0):
    sizes = torch.as_tensor(step_size, dtype=torch.float64, device="cpu").detach()
    shared = sizes.dim() == 0
    sizes = sizes.reshape(-1)
    _check_step_sizes(sizes, span, z0, not shared)
    n_steps = count_steps(sizes, span)
    if shared:
        return _equal_steps(float(sizes), int(n_steps), t0, t1)
    return _schedule(n_steps, sizes, t0, t1, shared=False)


def _walk(f, z0, tableau, schedule, path):
    """The torch path: all members step together; one that has arrived takes steps of size 0."""
    f, hs, ts = field_for_solve(f, z0), schedule.hs, schedule.ts
    # A shared step is a plain number: on a GPU nothing has to be copied for it.
    h_rows = hs[:, 0].tolist() if schedule.shared else hs.to(z0)
    t_rows = ts[:, 0].tolist() if schedule.shared else ts.to(z0)
    going = [None] * len(hs) if schedule.shared else (hs > 0).tolist()
    z, states = z0, [z0] if path else None
    for t, h, members in zip(t_rows, h_rows, going, strict=False):
        step_f = partial(f, going=members)
        z = rk_step(step_f, per_instance(t, z), z, per_instance(h, z), tableau)
        if states is not None:
            states.append(z)
    return z, states


def _walk_fused(f, z0, tableau, schedule, path):
    steps = fused_steps(schedule, z0)
    z0 = z0.contiguous()
    return kernels.solve_fused(z0, f.block_layers(), *tableau_arrays(tableau), *steps), None


def fused_steps(schedule: _Schedule, z0: Tensor) -> tuple[Tensor, Tensor]:
    """Return number (members,) and sizes (members, n) of the steps, as the kernel takes them."""
    members = z0.shape[0]
    sizes = schedule.hs.T.expand(members, -1)
    return schedule.n_steps.expand(members).contiguous(), sizes.contiguous()


@cache
def tableau_arrays(tableau: ButcherTableau) -> tuple[np.ndarray, np.ndarray]:
    """Return a (s, s) and b (s,) of the s solution stages as float64 arrays."""
    s = tableau.n_solution_stages
    a = torch.zeros(s, s, dtype=torch.float64)
    for i, row in enumerate(tableau.a[:s]):
        a[i, :i] = torch.tensor(row, dtype=torch.float64)
    return a.numpy(), torch.tensor(tableau.b[:s], dtype=torch.float64).numpy()


def _check_step_sizes(sizes, span, z0, per_member):
    if per_member and len(sizes) != z0.shape[0]:
        raise ValueError(
            f"step_size has {len(sizes)} entries for {z0.shape[0]} members; give one for each"
        )
    if not bool(((sizes > 0) & (sizes <= span * (1 + 1e-12))).all()):
        raise ValueError(f"step_size = {sizes.tolist()}: give sizes in (0, T] with T = {span}")
