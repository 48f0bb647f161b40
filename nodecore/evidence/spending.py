"""What an adapting training has spent by each of its checks, counted from its history."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from nodecore.evidence.runs import Run
from nodecore.ode.steps import count_steps
from nodecore.ode.tableaus import get_tableau
from nodecore.training.adapted import Adapted
from nodecore.training.controllers import ConfirmedIncrease

FIRST_STEP = 2  # evaluations that choose its size


def evaluations_by_check(run: Run, checks: pd.DataFrame) -> np.ndarray:
    """Count what one seed has evaluated from its first iteration to each check, itself included.

    checks: the rows of its history that hold a check, in their order. Returns (checks,) float64.
    Raises ValueError for a run that does more, or other, than to adapt fixed steps.
    """
    steps, T = run.steps, run.protocol.T
    if not isinstance(steps, Adapted) or steps.start is None or run.cures:
        raise ValueError(
            f"{run.title} is not counted by its checks: give a run that adapts h alone"
        )
    rule, stages = steps.rule, get_tableau(steps.solver).n_solution_stages
    better = get_tableau(rule.better_solver(steps.solver)).n_solution_stages
    sizes = checks["step_size"].to_numpy(float)
    # The step of a check has been in use since the check before.
    trained = np.diff(checks["iteration"], prepend=0) * stages * _count(sizes, T)
    checked = better * _count([rule.test_step(size) for size in sizes], T)
    if isinstance(rule, ConfirmedIncrease):  # it solves with a longer step before it takes it
        longer = np.minimum(rule.increase * sizes, T)
        tries = ~checks["failed"].to_numpy(bool) & (longer > sizes)
        checked = checked + tries * stages * _count(longer, T)
    return FIRST_STEP + np.cumsum(trained + checked).astype(float)


def _count(sizes: ArrayLike, T: float) -> np.ndarray:
    return count_steps(torch.tensor(sizes, dtype=torch.float64), T).numpy()
