"""A trained model under other solvers: accuracy, the cross-solver grid, the critical step."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from nodecore.data.datasets import IMAGES
from nodecore.data.split import Split
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.runge_kutta import per_instance
from nodecore.ode.solution import Solution, SolveError
from nodecore.ode.steps import FixedSteps, Setting, Tolerance, check_n_steps

# Of the training n_steps: the paper scales the step size by 2, 1.5, 1, 0.75 and 0.5. Old
# records hold 0.75 and 1.5 times the steps instead, which no figure shows.
PAPER_FACTORS = (1 / 2, 2 / 3, 1, 4 / 3, 2)
TEST_FACTORS = (*PAPER_FACTORS, 4)
FINER = ("midpoint", "rk4")  # what Euler-trained models meet besides Euler
AGREEMENT = 0.1  # largest difference of accuracy between two solvers that counts as agreement
EXACT_RTOL = 1e-6  # dopri5 at this tolerance stands for the exact flow
FLOAT32_RTOL = 1e-5  # below it the error estimate would drown in float32
AT_ONCE = 1000  # inputs whose classes are predicted in one solve


EXACT = Tolerance("dopri5", EXACT_RTOL)
# On images, where tests are dear, the coarsest power of ten at which no class flips on 300 images
# against float64 at 1e-6, and at most 1 in 1,000 against a tolerance ten times finer. Measured on
# the first seed of models at profile laptop, trained with Euler; flips among 300 / among more:
#     1e-5   MNIST K = 1: 0 / 1 of 2,000;   K = 8: 0 / 0 of 2,000;   CIFAR-10 K = 1: 0 / 0 of 1,000
#     1e-4   MNIST K = 1: 0 / 3 of 2,000;   K = 8: 0 / 0 of 2,000
#     1e-3   MNIST K = 1: 10 / 53 of 2,000; K = 8: 1 / 14 of 2,000
# It takes 62 and 98 evaluations for the models of MNIST; 44 and 56 at 1e-4.
IMAGES_EXACT = Tolerance("dopri5", 1e-5)


def exact_flow(dataset: str) -> Setting:
    """Return the setting that stands for the exact flow of a data set's models."""
    return IMAGES_EXACT if dataset in IMAGES else EXACT


@torch.no_grad()
def solve_setting(field: nn.Module, x: Tensor, setting: Setting, T: float = 1.0) -> Solution:
    """Carry states from 0 to T under a test setting.

    Adaptive solves below FLOAT32_RTOL run in float64. A member that an adaptive solve cannot carry
    to T ends as NaN.

    Args:
        field: Vector field of an ensemble.
        x: States at time 0, (members, batch, ...).
        setting: Solver and how it chooses its steps.
        T: Time to integrate over.

    Returns:
        The solution; its final state has x's shape and dtype.
    """
    if isinstance(setting, FixedSteps):
        return solve_fixed(field, x, setting.solver, n_steps=setting.n_steps, t=(0.0, T))
    dtype = torch.float64 if setting.rtol < FLOAT32_RTOL else x.dtype
    field, start = copy.deepcopy(field).to(dtype), x.to(dtype).contiguous()
    failed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    while True:
        try:
            solution = solve_adaptive(
                field,
                start,
                setting.solver,
                rtol=setting.rtol,
                atol=setting.rtol,
                t=(0.0, T),
                instance_axes=2 if setting.per_sample else 1,
                backend="auto" if dtype == torch.float32 else "torch",
            )
        except SolveError as error:
            if bool((failed & error.members).any()):
                raise
            failed |= error.members
            for parameter in field.parameters():  # weights of zero solve in one step
                parameter[error.members] = 0.0
            continue
        z = solution.z.masked_fill(per_instance(failed, x), torch.nan)
        return replace(solution, z=z.to(x.dtype))


@torch.no_grad()
def predict(
    field: nn.Module,
    head: nn.Module,
    x: Tensor,
    setting: Setting,
    T: float = 1.0,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Predict the classes (members, n) of inputs (n, ...) by every member, under a setting.

    Args:
        field: Vector field of an ensemble.
        head: Its classifier.
        x: Inputs.
        setting: See solve_setting.
        T: Time to integrate over.
        check: Called before each AT_ONCE inputs; may raise, to stop.
    """
    parts = []
    for part in x.split(AT_ONCE):
        check()
        z = solve_setting(field, for_members(field, part), setting, T).z
        parts.append(head(z).argmax(-1))
    return torch.cat(parts, dim=1)


def for_members(field: nn.Module, x: Tensor) -> Tensor:
    """Return inputs (n, ...) as every member of an ensemble gets them, (members, n, ...)."""
    return x.expand(next(field.parameters()).shape[0], *x.shape)


def accuracy(
    field: nn.Module,
    head: nn.Module,
    split: Split,
    setting: Setting,
    T: float = 1.0,
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Measure the accuracy of each member on a split: correct ones counted, divided once.

    A member whose state is not finite predicts class 0, as argmax does; its training marks it. See
    predict for the arguments.

    Returns:
        Accuracies in [0, 1], (members,) float64.
    """
    correct = predict(field, head, split.x, setting, T, check=check) == split.y
    return correct.sum(1).double() / len(split)


def scaled_steps(n_steps: int, factors: Iterable[float] = TEST_FACTORS) -> list[int]:
    """Return n_steps times each factor, rounded to whole numbers >= 1, ascending, no duplicates."""
    return sorted({max(1, round(factor * check_n_steps(n_steps))) for factor in factors})


def cross_solver_settings(
    solver: str,
    n_steps: int,
    grid: Iterable[int] = (),
    finer_factors: Iterable[float] = TEST_FACTORS,
) -> list[FixedSteps]:
    """List the test settings of a model that was trained in these fixed steps.

    Euler-trained models meet Euler, midpoint and rk4, others their own solver, at the scaled
    numbers of steps; under the training solver also at every number of steps of the grid.
    finer_factors: on n_steps under midpoint and rk4.
    """
    own = sorted({*scaled_steps(n_steps), *grid})
    finer = FINER if solver == "euler" else ()
    steps = scaled_steps(n_steps, finer_factors)
    settings = [FixedSteps(solver, k) for k in own]
    return settings + [FixedSteps(name, k) for name in finer for k in steps]


def cross_solver_grid(
    field: nn.Module, head: nn.Module, split: Split, settings: Iterable[Setting]
) -> list[tuple[Setting, Tensor]]:
    """Pair each setting with the accuracies (members,) float64 under it."""
    return [(setting, accuracy(field, head, split, setting)) for setting in settings]


def better_setting(solver: str, n_steps: int) -> FixedSteps:
    """Return the test setting that the critical step size is judged by.

    It is midpoint at the same step for Euler, and half the step for every other solver.
    """
    if solver == "euler":
        return FixedSteps("midpoint", n_steps)
    return FixedSteps(solver, 2 * n_steps)


def critical_n_steps(gaps: Mapping[int, float], threshold: float = AGREEMENT) -> int | None:
    """Return the coarsest n_steps from which on every gap is within the threshold; None if none is.

    Args:
        gaps: Difference of accuracy between the training solver and its test solver, in absolute
            value, by training n_steps (a mapping or a pandas series).
        threshold: Largest gap that counts as agreement.
    """
    gaps, critical = dict(gaps), None
    for n_steps in sorted(gaps, reverse=True):
        if not gaps[n_steps] <= threshold:  # a NaN is no agreement
            break
        critical = n_steps
    return critical


def has_trained(train_accuracy: float, largest_share: float) -> bool:
    """Tell whether a seed trained: its training accuracy exceeds the largest class's share + 0.1.

    Args:
        train_accuracy: In [0, 1]; one that is not finite has not trained.
        largest_share: Share of the largest class among the training samples.
    """
    return bool(train_accuracy > largest_share + 0.1)
