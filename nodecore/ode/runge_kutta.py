"""One explicit Runge-Kutta step, in the notation of its Butcher tableau."""

import torch
from torch import Tensor

from nodecore.ode.solution import VectorField
from nodecore.ode.tableaus import ButcherTableau

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
        stages.append(f(t + c * h, z + h * weighted_sum(a, stages)))
    return stages


def rk_step(
    f: VectorField, t, z: Tensor, h, tableau: ButcherTableau, k1: Tensor | None = None
) -> Tensor:
    """One explicit Runge-Kutta step z + h sum_i b_i k_i, in the shape of z."""
    stages = rk_stages(f, t, z, h, tableau, k1, tableau.n_solution_stages)
    return z + h * weighted_sum(tableau.b, stages)


def weighted_sum(weights, stages):
    terms = [w * k for w, k in zip(weights, stages, strict=False) if w != 0.0]
    return sum(terms[1:], start=terms[0]) if terms else torch.zeros_like(stages[0])


def field_for_solve(f, z0):
    """The field as a function of (t, z, going) for one solve from z0: one that can, leaves out the
    members that have arrived, and prepares for its many evaluations."""
    return f.for_solve(z0) if hasattr(f, "for_solve") else lambda t, z, going=None: f(t, z)


# --- shapes and checks --------------------------------------------------------------------------


def per_instance(value, z):
    """A number as it is; a tensor over the leading axes of z, ready to broadcast against z."""
    if not isinstance(value, Tensor):
        return value
    return value.reshape(value.shape + (1,) * (z.dim() - value.dim()))
