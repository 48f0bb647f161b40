"""One explicit Runge-Kutta step, in the notation of its Butcher tableau."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from nodecore.ode.solution import VectorField
from nodecore.ode.tableaus import ButcherTableau

Value = TypeVar("Value", float, Tensor)


def rk_stages(
    f: VectorField,
    t: float | Tensor,
    z: Tensor,
    h: float | Tensor,
    tableau: ButcherTableau,
    k1: Tensor | None = None,
    n_stages: int | None = None,
) -> list[Tensor]:
    """Compute the stages k_i = f(t + c_i h, z + h sum_j a_ij k_j), each in the shape of z.

    Args:
        f: Vector field.
        t: Time before the step.
        z: State before the step.
        h: Step size, a number or a tensor that broadcasts against z.
        tableau: The method.
        k1: f(t, z), where it is known; saves its evaluation.
        n_stages: Number of stages to compute, the first ones; None for all.
    """
    stages = [f(t, z) if k1 is None else k1]
    for a, c in list(zip(tableau.a, tableau.c, strict=True))[1:n_stages]:
        stages.append(f(t + c * h, z + h * weighted_sum(a, stages)))
    return stages


def rk_step(
    f: VectorField, t: float | Tensor, z: Tensor, h: float | Tensor, tableau: ButcherTableau
) -> Tensor:
    """Return the state z + h sum_i b_i k_i after one explicit Runge-Kutta step, in the shape of z.

    See rk_stages for the arguments.
    """
    stages = rk_stages(f, t, z, h, tableau, n_stages=tableau.n_solution_stages)
    return z + h * weighted_sum(tableau.b, stages)


def weighted_sum(weights: Sequence[float], stages: Sequence[Tensor]) -> Tensor:
    """Return the sum of the stages times their weights; weights of zero cost nothing."""
    terms = [w * k for w, k in zip(weights, stages, strict=False) if w != 0.0]
    return sum(terms[1:], start=terms[0]) if terms else torch.zeros_like(stages[0])


def field_for_solve(f: VectorField, z0: Tensor) -> Callable[..., Tensor]:
    """Return the field as a function of (t, z, going) for one solve from z0.

    A field that can leaves out the members that have arrived, and prepares for many evaluations.
    """
    return f.for_solve(z0) if hasattr(f, "for_solve") else lambda t, z, going=None: f(t, z)


def per_instance(value: Value, z: Tensor) -> Value:
    """Return a number as it is; reshape a tensor over leading axes of z to broadcast against z."""
    if not isinstance(value, Tensor):
        return value
    return value.reshape(value.shape + (1,) * (z.dim() - value.dim()))
