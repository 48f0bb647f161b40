"""Estimate what a check costs: evaluations of the field, and seconds."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

from nodecore.check.evidence import JACOBIAN_ITERATIONS, JACOBIAN_SAMPLES, JACOBIAN_TIMES
from nodecore.check.inputs import Samples
from nodecore.check.model import FEW
from nodecore.check.problem import Problem
from nodecore.check.report import FlowCost
from nodecore.check.settings import count_nfe
from nodecore.check.solves import solve_part
from nodecore.ode.solution import SolveError

CALLS = 5  # of the field that are timed
JACOBIAN_CALLS = 2 * JACOBIAN_ITERATIONS * JACOBIAN_TIMES  # products with J and its transpose


def cost_of(problem: Problem) -> FlowCost:
    """Count the evaluations of fixed steps, and measure adaptive ones on a few samples.

    Products with Jacobians are the most that there can be: there are fewer where the training's
    steps end at fewer times. Crossings, which are counted of few samples, are left out.
    The seconds are those of the evaluations, and what each call of a solver takes besides, which is
    most of it where states are small.
    """
    n, probed = len(problem.samples), len(problem.probe)
    plan = dict.fromkeys(problem.probed, probed) | {problem.trained: n}
    few, solver = problem.samples[problem.probe[:FEW]], problem.solver
    once, seconds_once = _measure(lambda: solver.once(few))
    twice, seconds_twice = _measure(lambda: solver.twice(few))
    of_a_call = seconds_once / once if once else _seconds_of_call(problem, few)
    parts = math.ceil(n / problem.at_once(problem.exact))
    calls = parts * seconds_once + seconds_twice + JACOBIAN_CALLS * of_a_call
    fixed, adaptive = 0, 0
    for setting, m in plan.items():
        parts = math.ceil(m / problem.at_once(setting))
        if nfe := count_nfe(setting):
            fixed += m * nfe
            calls += parts * nfe * of_a_call
        else:
            nfe, seconds = _measure(lambda s=setting: solve_part(problem.model, few, s))
            adaptive += m * nfe
            calls += parts * seconds
    exact = n * once + probed * twice
    jacobians = JACOBIAN_CALLS * min(JACOBIAN_SAMPLES, n)
    seconds = _seconds_of_one(problem) * (fixed + adaptive + (1 + solver.double) * exact)
    return FlowCost(n, fixed, jacobians, adaptive + exact, seconds + calls)


def _measure(solve: Callable[[], Any]) -> tuple[int, float]:
    """Return the evaluations and the seconds of a solve; no evaluations where it fails."""
    began = time.perf_counter()
    try:
        nfe = solve().nfe
    except SolveError:
        nfe = 0
    return nfe, time.perf_counter() - began


def _seconds_of_one(problem: Problem) -> float:
    """Measure the seconds that the field takes for one sample of a batch."""
    part = problem.samples[: problem.at_once(problem.exact)]
    return _seconds_of_call(problem, part) / len(part)


def _seconds_of_call(problem: Problem, part: Samples) -> float:
    """Measure the seconds of a call of the field: the median, as a machine may be shared."""
    f = problem.model.field(part.args)
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        float(f(problem.model.t[0], part.z).sum())  # waits for a GPU
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
