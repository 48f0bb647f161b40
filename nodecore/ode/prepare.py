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
    """Set the fused kernel up for many solves of states like z0, checked once.

    Give one of `n_steps`, `step_size` and `rtol`, which is the absolute tolerance, too; with it,
    per_sample has each sample step by itself. f has `block_layers`. All else, and what is raised,
    is as in solve_fixed and solve_adaptive.
    """
    tableau = get_tableau(solver)
    layers, arrays = f.block_layers(), tableau_arrays(tableau)
    if rtol is not None:
        check_adaptive(tableau, rtol, rtol, z0, 1, None, MAX_STEPS)
        control = step_control(tableau, rtol, rtol, t, per_sample=per_sample)
        return kernels.FusedAdaptive(z0, layers, *arrays, control)
    steps = fused_steps(plan_steps(n_steps, step_size, t, z0), z0)
    return kernels.FusedSolve(z0, layers, *arrays, *steps)
