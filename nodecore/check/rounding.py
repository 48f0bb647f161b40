"""Ask what rounding alone does to the training's answers, before they are blamed on its steps."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nodecore.check.problem import Problem
from nodecore.check.settings import OwnSolve, TimeGrid, times_of
from nodecore.check.solves import Solved, solve_part, solve_samples
from nodecore.check.verdict import CANNOT_TELL, NOT_A_FLOW, Rule

MOST = 256  # samples that are asked
SOME = 0.01  # share of answers that change, above which rounding matters
NEAR = 1e-6  # of the time: a step that begins so near to a jump may fall to either side


def doubted(problem: Problem, own: Solved, exact: Solved, rule: Rule, verdict: str) -> str | None:
    """Say why a verdict may come from rounding and not from the steps; None where it does not."""
    if verdict == CANNOT_TELL or isinstance(problem.trained, OwnSolve):
        return None
    return _of_times(problem, own, rule) or (
        _of_states(problem, own, exact, rule) if verdict == NOT_A_FLOW else None
    )


def _of_times(problem: Problem, own: Solved, rule: Rule) -> str | None:
    """Compare the training's solve with those whose times of steps are computed otherwise.

    A field that jumps where a step begins is asked on one side of the jump or on the other.
    """
    index = problem.probe[:MOST]
    for other in _otherwise(problem):
        found = problem.solve(other, index)
        known = found.known & own.known[index]
        share = _share(rule, found.outputs, own.outputs[index], index, known)
        if share > SOME:
            return (
                "the field jumps where steps begin, and the rounding of the time decides which "
                f"side of the jump a step sees: this changes {100 * share:.0f} % of the answers; "
                "give the training's own solver as solve=, or rescale the time so that steps begin "
                "at whole numbers, such as t=(0, K)"
            )
    return None


def _otherwise(problem: Problem) -> Iterator[TimeGrid]:
    """Give the times of equal steps k as multiples of a rounded step, as torchdiffeq does, and as
    the share k / n of the time; only those where a step near a jump begins at another number.
    """
    times = np.array(times_of(problem.trained, problem.model.t))
    jumps = np.array(problem.scan.jumps)
    if len(times) < 3 or len(jumps) == 0:
        return
    start, end, n = times[0], times[-1], len(times) - 1
    near = np.abs(times[:, None] - jumps).min(1) < NEAR * (end - start)
    sizes = np.diff(times)[:-1]
    if not near.any() or not np.allclose(sizes, sizes[0], rtol=1e-6):
        return
    kind = np.float64 if problem.model.dtype == torch.float64 else np.float32
    first, h = kind(start), kind(sizes[0])
    multiples = first + np.arange(n + 1).astype(kind) * h
    for other in (multiples, np.linspace(start, end, n + 1)):
        if (other.astype(kind) != times.astype(kind))[near].any():
            inner = other[1:-1].astype(float).tolist()
            yield TimeGrid(problem.trained.solver, (float(start), *inner, float(end)))


def _of_states(problem: Problem, own: Solved, exact: Solved, rule: Rule) -> str | None:
    """Compare the training's steps in float64 with the exact flow."""
    model, index = problem.model, problem.probe[:MOST]
    if model.dtype == torch.float64 or not model.in_float64:
        return None
    trained = problem.trained
    solve = partial(solve_part, model, setting=trained, double=True)
    at_once, patience = problem.at_once(trained), problem.patience
    double = solve_samples(model, problem.samples, index, solve, at_once, patience=patience)
    known = double.known & own.known[index] & exact.known[index]
    before, after = (
        _share(rule, outputs, exact.outputs[index], index, known)
        for outputs in (own.outputs[index], double.outputs)
    )
    if after > problem.bound or 2 * after > before:
        return None
    return (
        f"of the answers of {int(known.sum())} samples, the steps change {100 * before:.1f} % in "
        f"float32, but {100 * after:.1f} % in float64: the cause is rounding, not the steps; check "
        "the model in float64, as finer steps will not help"
    )


def _share(rule: Rule, outputs: Tensor, others: Tensor, index: Tensor, known: Tensor) -> float:
    """Return the share of samples whose answers are known and differ."""
    return float((rule.changed(outputs, others, index) & known).double().mean())
