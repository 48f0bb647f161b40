"""Set the fused kernel up once for a training loop that solves thousands of times."""

from torch import Tensor

from nodecore.ode import kernels
from nodecore.ode.adaptive import MAX_STEPS, check_adaptive, step_control
from nodecore.ode.fixed import fused_steps, plan_steps, tableau_arrays
from nodecore.ode.solution import VectorField
from nodecore.ode.tableaus import ButcherTableau, get_tableau


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
    """Set the fused kernel up for many solves of states like z0.

    A training loop that repeats a solve has it checked once. Give one of `n_steps`, `step_size`
    and `rtol`.

    Args:
        f: Vector field that has `block_layers`.
        z0: A state of the shape to solve for, (members, batch, ...), float32 on the CPU.
        solver: Name of a method, or its tableau.
        n_steps: Number of equal steps.
        step_size: Size of the steps, or a tensor (members,).
        rtol: Relative tolerance, which is the absolute one too, or a tensor (members,).
        per_sample: With rtol, whether each sample steps by itself.
        t: Start and end.

    Raises:
        ValueError: An argument is bad, as in solve_fixed and solve_adaptive.
    """
    tableau = get_tableau(solver)
    layers, arrays = f.block_layers(), tableau_arrays(tableau)
    if rtol is not None:
        check_adaptive(tableau, rtol, rtol, z0, 1, None, MAX_STEPS)
        control = step_control(tableau, rtol, rtol, t, per_sample=per_sample)
        return kernels.FusedAdaptive(z0, layers, *arrays, control)
    steps = fused_steps(plan_steps(n_steps, step_size, t, z0), z0)
    return kernels.FusedSolve(z0, layers, *arrays, *steps)
