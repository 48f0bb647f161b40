"""Check whether a model of your own is a flow: `check_flow`, and what a flow would cost."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from nodecore.analysis.evaluate import AGREEMENT
from nodecore.analysis.intervals import Interval
from nodecore.check.cost import cost_of
from nodecore.check.evidence import (
    AlongTrajectories,
    along_trajectories,
    coarsest,
    crossing_shares,
    errors_by_step,
)
from nodecore.check.inputs import Tree, is_finite
from nodecore.check.model import Layers
from nodecore.check.order import OrderTest, order_test
from nodecore.check.pose import forked, pose
from nodecore.check.probes import affine_weight, probability_changes, random_index
from nodecore.check.problem import LEAST_PROBE, Problem
from nodecore.check.reference import Reference
from nodecore.check.report import FlowCost, FlowReport
from nodecore.check.rounding import doubted
from nodecore.check.scale import farthest
from nodecore.check.settings import Solve, finer_rows
from nodecore.check.solves import STOPPED, Patience, Solved
from nodecore.check.verdict import (
    CANNOT_TELL,
    FLOW,
    SPREAD_SHARE,
    Recall,
    Rule,
    Tested,
    above_chance,
    beats_chance,
    bounded_share,
    judge,
    lost_recalls,
    recalls,
    sensitivity,
)
from nodecore.ode.fields import boundary_distances
from nodecore.ode.steps import Steps
from nodecore.ode.tableaus import get_tableau


def check_flow(
    field: Callable[..., Any],
    head: Layers | None,
    x: Tree,
    y: Any = None,
    *,
    solver: str | None = None,
    n_steps: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    step_size: float | None = None,
    grid: Tensor | Sequence[float] | None = None,
    solve: Solve | None = None,
    t: tuple[float, float] = (0.0, 1.0),
    stem: Layers | None = None,
    args: Tree = None,
    tolerance: float | Sequence[float] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    bound: float = AGREEMENT,
    output_times: Tensor | Sequence[float] | None = None,
    rows: int = 1000,
    verbose: bool = True,
) -> FlowReport:
    """Check whether a trained model is the flow of its vector field or belongs to its solver.

    The verdict compares the training solver with the exact flow on all samples. The exact flow is
    dopri5 at a fine tolerance, in steps that are never longer than the training's; it is confirmed
    by a solve at a tenth of the tolerance and by another method. If these disagree on a sample, or
    a sample cannot be solved (for example because the field raises an AssertionError or ValueError
    for its state), the intervals allow for either answer.

    - With labels: "not a flow" if the whole 95 % interval of the paired difference of accuracies
      lies beyond `bound`, and "flow" if it lies within. "cannot tell" if the interval contains the
      bound; if the accuracy does not clearly exceed the share of the largest class by `bound`, so
      that a loss could not show; if the accuracies agree, but the predicted class clearly changes
      for a larger share of samples than `bound`; or if rounding alone decides.
    - Without labels: the same rule for the share of samples whose output (or end state, without a
      head) moves by more than `tolerance`, or with `loss`, whose loss changes by more.
    - A verdict needs at least 35 samples, and more if `bound` is less than 0.1.
    - It is about the end state, or with `output_times` about the trajectory at all of these times.

    Beside the verdict, the report shows other solvers, the order of convergence, the coarsest step
    that agrees, Jacobians and crossings, for a random subset of the samples drawn with a fixed
    seed; the larger the states, the smaller the subset.

    Ctrl-C stops the search, and the report then shows what is known. For samples that are not yet
    solved, the intervals allow for either answer.

    Modules are copied; the copies keep their mode, run on the field's device, and use float32 in
    place of half precision. Model, gradients and torch's generators are left unchanged. A function
    is called directly: if it wraps a batch norm in training mode, the running statistics change;
    give the module itself, or call .eval().

    Args:
        field: f(t, z) -> dz/dt on states (batch, ...), t a tensor without axes; it may depend on t
            and have kinks. Fields called as f(z), or with t for each sample, are recognised; one
            with `args` is called as f(t, z, args).
        head: Takes end states to logits (batch, classes) or to outputs; None where there is none.
        x: Inputs (n, ...), states or what `stem` takes to states, integers too; a tuple of tensors
            where the state is one.
        y: Labels (n,), (n, 1) or one-hot (n, classes), or None. With `loss`: targets (n, ...).
        solver: Solver of the training, one of nodecore.ode.tableaus.TABLEAUS (torchdiffeq's "rk4"
            is `rk4_38` here); with exactly one of the next four.
        n_steps: Number of its equal steps over t.
        rtol: Its relative tolerance. As in torchdiffeq, all samples of a batch of `rows` share
            their steps, the last step passes the end, and states are interpolated; give a solver
            that lands on the end as `solve`.
        step_size: Its step; the last one is shortened to land on the end.
        grid: Times of its steps, from start to end.
        atol: Absolute tolerance beside rtol, in the units of z; by default the same number, whereas
            torchdiffeq's own default is 1e-9.
        solve: Instead of a solver, the training's own as (field, z0, t) -> z(T), such as
            ``lambda f, z0, t: torchdiffeq.odeint(f, z0, t, method="dopri8")[-1]``. Its field takes
            one time, or one for each sample, (n,).
        t: Start and end of the time; it may run backwards.
        stem: Layers that take inputs to states.
        args: Tensor (n, ...), or a tuple or dict of these: the field gets the rows of its samples.
        tolerance: Without labels, the difference of outputs that counts, in their units. A single
            number is compared with the Euclidean norm over all outputs of a sample, for
            trajectories at each time. A list gives one number for each output, along the last axis;
            a sample counts if any of its outputs moves by more. The default is a tenth of the scale
            of each component: its spread over the samples, or a tenth of the distance it travels if
            that is larger. With `loss`: the change of a sample's loss that counts.
        loss: A loss of one's own, (outputs (m, ...), targets (m, ...)) -> (m,), in place of labels.
        bound: Largest difference of accuracies, or share of changed answers, of a flow; a share.
        output_times: Times at which outputs are compared, from start to end, both included. States
            are then trajectories: the head takes them as (batch, times, ...), and a `solve` returns
            them as torchdiffeq does, times first. Outputs (batch, times, ...) of a head are
            compared time by time if each depends on its own time alone. Fixed steps must end at all
            these times.
        rows: Largest number of samples in a batch.
        verbose: Whether to print the cost to stderr beforehand; `flow_cost` gives it alone.

    Raises:
        ValueError: An argument is bad, or layers are random or mix samples, such as dropout and
            batch norm in training mode.
    """
    training = {"solver": solver, "n_steps": n_steps, "rtol": rtol, "atol": atol}
    training |= {"step_size": step_size, "grid": grid, "solve": solve}
    options = {"t": t, "stem": stem, "args": args, "tolerance": tolerance, "rows": rows}
    options |= {"loss": loss, "bound": bound, "output_times": output_times}
    with forked():
        problem = pose(field, head, x, y, **options, **training)
        cost = cost_of(problem)
        if verbose:
            print(f"check_flow: {cost}", file=sys.stderr, flush=True)
        return _report(replace(problem, patience=Patience()), cost)


def flow_cost(
    field: Callable[..., Any], head: Layers | None, x: Tree, y: Any = None, **options: Any
) -> FlowCost:
    """Estimate what `check_flow` with the same arguments would cost; solves a few samples only."""
    options.pop("verbose", None)
    with forked():
        return cost_of(pose(field, head, x, y, **options))


# --- what is solved -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """All that was solved: under the training solver, by the exact flow, and the probe's.

    It is `whole` where Ctrl-C did not come before all was known that the verdict needs.
    """

    own: Solved
    reference: Reference
    probed: dict[Steps, Solved]
    rule: Rule
    whole: bool

    @property
    def exact(self) -> Solved:
        return self.reference.solved

    @property
    def sure(self) -> Tensor:
        """Samples known under the training solver, and settled by the exact flow, (n,) bool."""
        return self.own.known & self.reference.settled

    def shown(self, problem: Problem) -> dict[Steps, Solved]:
        """The settings that are compared in the report, the training's first."""
        return {problem.trained: self.own} | {
            s: self.probed[s] for s in problem.better if s in self.probed
        }


def _solve_all(problem: Problem, patience: Patience) -> _Found:
    """Solve what the verdict needs, and then what is evidence besides."""
    own = problem.solve(problem.trained, problem.everyone)
    finer = finer_rows(problem.trained)
    probed = {setting: problem.solve(setting, problem.probe) for setting in finer}
    reference = problem.prove(own, [rows.z for rows in probed.values()])
    whole = not patience.ended
    for setting in problem.probed:
        if setting not in probed:
            rows = patience.for_(lambda s=setting: problem.solve(s, problem.probe))
            probed |= {} if rows is None else {setting: rows}
    return _Found(own, reference, probed, problem.rule(own, reference.solved), whole)


# --- what comes of it -----------------------------------------------------------------------------


def _report(problem: Problem, cost: FlowCost) -> FlowReport:
    """Run all solves and build the report."""
    patience, terms = problem.patience or Patience(), problem.terms
    found = _solve_all(problem, patience)
    own, exact, rule = found.own, found.exact, found.rule
    tested = _tested(problem, found)
    verdict, reason = judge(tested[0], tested[-1], terms)
    doubt = patience.for_(lambda: doubted(problem, own, exact, rule, verdict))
    if doubt is not None:
        verdict, reason = CANNOT_TELL, f"{reason}. But {doubt}"
    of_model = (problem.model, problem.samples, problem.trained)
    path = patience.for_(lambda: along_trajectories(*of_model)) or AlongTrajectories(math.nan, None)
    crossing = patience.for_(lambda: crossing_shares(*of_model, problem.scan.depends))
    shares, notes = crossing or ({}, [])
    moved, recall = _moved(problem, found), _recalls(problem, found)
    can_show = problem.y is None or beats_chance(tested[0], terms)
    can_search = can_show and bool(found.reference.settled.any()) and not patience.ended
    solved = found.probed | {problem.trained: own, problem.exact: exact}
    settled, (start, end) = found.reference.settled, problem.model.t
    searched = {setting: solved[setting] for setting in problem.searched if setting in solved}
    times, bound = problem.times, problem.bound
    curve = errors_by_step(rule, searched, exact, settled, end - start, times, bound)
    return FlowReport(
        verdict,
        reason,
        tested=tested,
        cautions=(
            *_cautions(problem, found, verdict, moved, recall),
            *_missing(found.whole, patience.ended),
        ),
        bound=problem.bound,
        chance=problem.chance,
        tolerance=_tolerance_shown(problem, rule),
        tolerance_of=problem.compared,
        distances=farthest(own.z - exact.z, times).cpu().numpy(),
        margins=_margins(problem, exact),
        probability_change=_probability_change(problem, found),
        moved=moved,
        recalls=recall,
        sensitivity=sensitivity(tested[0], tested[-1], terms) if doubt is None else None,
        relative_drop=above_chance(tested[0], tested[-1], terms),
        order=_order(problem, found),
        h=path.h,
        lipschitz=path.lipschitz,
        coarsest=coarsest(curve) if can_search else None,
        curve=curve,
        crossing_shares=shares,
        settled=found.sure.cpu().numpy(),
        cost=cost,
        notes=(*problem.notes, *_failures(problem, found), *path.notes, *notes),
    )


def _tolerance_shown(problem: Problem, rule: Rule) -> float | Tensor | None:
    """Return the tolerance of the report, which lies on the CPU."""
    if rule.scale is not None:
        return SPREAD_SHARE * rule.scale.whole
    given = problem.tolerance
    return given.cpu() if isinstance(given, Tensor) else given


def _tested(problem: Problem, found: _Found) -> tuple[Tested, ...]:
    """Compare the training solver with itself first, the exact flow last, others between."""
    own, rows = found.own, found.shown(problem)
    tested = [found.rule.tested(setting, rows[setting], own, own.known) for setting in rows]
    return (*tested, found.rule.tested(problem.exact, found.exact, own, found.sure))


def _moved(problem: Problem, found: _Found) -> Interval:
    """Return the share of samples whose end state moves by over a tenth of the states' scale."""
    exact, own = found.exact.z, found.own.z
    far = problem.scale_of_states(exact, own).distance(exact, own) > SPREAD_SHARE
    return bounded_share(far & found.sure, ~found.sure)


def _recalls(problem: Problem, found: _Found) -> tuple[Recall, ...]:
    if problem.y is None:
        return ()
    return recalls(problem.y, found.own.outputs, found.exact.outputs, found.sure)


def _probability_change(problem: Problem, found: _Found) -> float | None:
    if problem.y is None:
        return None
    return probability_changes(found.own.outputs, found.exact.outputs, problem.probabilities)


def _margins(problem: Problem, exact: Solved) -> np.ndarray | None:
    """Return distances (n,) to the classifier's nearest boundary, if it is affine in the end."""
    ends = exact.z[exact.known]
    ends = ends[random_index(len(ends), LEAST_PROBE)]
    one_state = problem.model.packing.shapes is None and not problem.model.output_times
    if problem.y is None or problem.probabilities or not one_state or len(ends) == 0:
        return None
    weight = affine_weight(problem.model, ends)
    if weight is None:
        return None
    return boundary_distances(exact.outputs[None], weight[None])[0].double().cpu().numpy()


def _order(problem: Problem, found: _Found) -> OrderTest | None:
    """Test the order of the training solver in its steps, twice and four times these."""
    finer = finer_rows(problem.trained)
    if not finer:
        return None
    twice, four = (found.probed[setting].z for setting in finer)
    ends = (found.own.z[problem.probe], twice, four)
    return order_test(ends, get_tableau(problem.trained.solver).order)


def _failures(problem: Problem, found: _Found) -> list[str]:
    """Describe what could not be solved, and what the exact flow took."""
    texts = list(found.reference.notes)
    for setting, rows in (found.shown(problem) | {problem.exact: found.exact}).items():
        n = len(rows.index)
        if lost := n - int(rows.known.sum()):
            unsolved = bool((~is_finite(rows.z)).any())
            what = "end states" if unsolved else "outputs"
            why = rows.failures[0] if rows.failures else f"their {what} are not finite"
            texts.append(f"{lost:,} of {n:,} samples could not be solved by {setting}: {why}")
    return texts


def _missing(whole: bool, ended: bool) -> list[str]:
    """Say what is missing after Ctrl-C."""
    if not whole:
        return [f"{STOPPED} before all samples were solved: the others may have either answer"]
    return [f"{STOPPED}: the verdict is complete, but some evidence is missing"] * ended


def _cautions(
    problem: Problem, found: _Found, verdict: str, moved: Interval, recall: tuple[Recall, ...]
) -> list[str]:
    """Say beside the verdict what might be overlooked below."""
    texts, n = [], len(problem.samples)
    lost = n - int((found.own.known & found.exact.known).sum())
    if lost:
        texts.append(
            f"{lost:,} of {n:,} samples could not be solved: the intervals allow for either answer"
        )
    if n_open := n - lost - int(found.sure.sum()):
        texts.append(
            f"the exact flow has not converged for {n_open:,} of {n:,} samples: a finer tolerance "
            "or another method gives another end state; the intervals allow for either answer"
        )
    texts += [str(lost) for lost in lost_recalls(recall)[:3]]
    if problem.y is not None and verdict == FLOW and moved.low > AGREEMENT:
        texts.append(
            f"the accuracy stays within the bound while {moved.percent()} of the end states move "
            "by more than a tenth of their scale"
        )
    return texts
