"""Estimate what a check costs: evaluations of the field, and seconds."""

import time
from collections.abc import Callable
from typing import Any

from nodecore.check.model import FEW
from nodecore.check.problem import Problem
from nodecore.check.report import FlowCost
from nodecore.check.settings import count_nfe
from nodecore.check.solves import solve_part
from nodecore.ode.solution import SolveError

JACOBIANS = 2 * 20 * 16 * 5  # products: with J and its transpose, iterations, samples, times


def cost_of(problem: Problem) -> FlowCost:
    """Count the evaluations of fixed steps, and measure adaptive ones on a few samples."""
    n, probed = len(problem.samples), len(problem.probe)
    plan = dict.fromkeys(problem.probed, probed) | {problem.trained: n}
    few = problem.samples[problem.probe[:FEW]]
    fixed, adaptive = 0, 0
    for setting, m in plan.items():
        if nfe := count_nfe(setting):
            fixed += m * nfe
        else:
            adaptive += m * _measure(lambda s=setting: solve_part(problem.model, few, s))
    solver = problem.solver
    exact = n * _measure(lambda: solver.once(few)) + probed * _measure(lambda: solver.twice(few))
    jacobians = JACOBIANS * min(16, n) // 16
    seconds = _seconds_of_one(problem) * (fixed + adaptive + (1 + solver.double) * exact)
    return FlowCost(n, fixed, jacobians, adaptive + exact, seconds)


def _measure(solve: Callable[[], Any]) -> int:
    """Return the evaluations of a solve; 0 where it fails."""
    try:
        return solve().nfe
    except SolveError:
        return 0


def _seconds_of_one(problem: Problem) -> float:
    """Measure the seconds that the field takes for one sample of a batch."""
    part = problem.samples[: problem.at_once(problem.exact)]
    f = problem.model.field(part.args)
    began = time.perf_counter()
    float(f(problem.model.t[0], part.z).sum())  # waits for a GPU
    return (time.perf_counter() - began) / len(part)
