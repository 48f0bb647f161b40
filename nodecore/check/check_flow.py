"""Check whether a model of your own is a flow: `check_flow`, and what a flow would cost."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nodecore.analysis.evaluate import AGREEMENT
from nodecore.analysis.intervals import Interval
from nodecore.check.evidence import along_trajectories, coarsest, crossing_shares
from nodecore.check.inputs import Tree
from nodecore.check.model import Layers
from nodecore.check.order import OrderTest, order_test
from nodecore.check.probes import affine_weight, probability_changes
from nodecore.check.problem import LEAST_PROBE, Problem, cost_of, pose
from nodecore.check.reference import Proof, Reference, Yardstick, prove
from nodecore.check.report import FlowCost, FlowReport
from nodecore.check.scale import find_scale
from nodecore.check.settings import Solve, finer_rows
from nodecore.check.solves import Solved, solve_part, solve_samples
from nodecore.check.verdict import (
    FLOW,
    SPREAD_SHARE,
    Recall,
    Rule,
    Tested,
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
    grid: Tensor | Iterable[float] | None = None,
    solve: Solve | None = None,
    t: tuple[float, float] = (0.0, 1.0),
    stem: Layers | None = None,
    args: Tree = None,
    tolerance: float | None = None,
    rows: int = 1000,
    verbose: bool = True,
) -> FlowReport:
    """Whether a trained model is the flow of its vector field, or belongs to the solver it had.

    field: f(t, z) -> dz/dt on states (batch, ...), t a tensor without axes; it may depend on t and
    have kinks. Fields called as f(z), or with t for each sample, are recognised; with `args`, a
    tensor (n, ...) or a tuple or dict of these, it is called as f(t, z, args), with the rows of its
    samples. head: end states -> logits (batch, classes), or None. x: inputs (n, ...), states or
    what `stem` takes to states; a tuple of tensors where the state is one. y: labels (n,), (n, 1)
    or one-hot.

    The training's solver is one of:

    - solver, one of nodecore.ode.tableaus.TABLEAUS (torchdiffeq's "rk4" is `rk4_38` here), with
      n_steps over t, its step_size (the last step is shortened to land on the end), the times of
      its steps as grid, or its rtol (and atol, by default the same; one step for a batch of `rows`,
      as torchdiffeq does);
    - solve, a function (field, z0, t) -> z(T) of any library, for example
      ``lambda f, z0, t: torchdiffeq.odeint(f, z0, t, method="dopri8")[-1]``.

    t is (start, end); time may run backwards.

    The verdict compares the training solver with the exact flow, on all samples: dopri5 at a fine
    tolerance, in steps that are never longer than the training's (or than a 64th of the time, for a
    field that does not depend on it), which is repeated at a tenth of the tolerance and with
    another method. A sample for which these do not agree, or that cannot be
    solved, counts for either answer.

    - With labels: "not a flow" if the accuracies differ by more than AGREEMENT (0.1), "flow" if by
      less, either with the whole 95 % interval of the paired difference. "cannot tell" if the
      interval holds the bound; if the accuracy is not surely above the largest class's share + 0.1,
      where a loss could not show; or if it agrees while surely over 10 % of the classes change.
    - Without: the same rule for the share of samples whose output (or end state, without a head)
      moves by more than `tolerance`, in the output's units; by default by more than a tenth of its
      scale, component by component: the spread over the samples, or a tenth of the distance
      travelled where that is more.
    - Fewer than 35 samples are too few for a verdict.

    Other solvers, the order of convergence, the search for the coarsest agreeing step, Jacobians
    and crossings are evidence besides, on samples drawn with a seed, fewer the larger the states.

    Modules are used as copies, in the mode they are in, on the field's device, half precision in
    float32; model, gradients and generators stay as they are. The cost is printed to stderr
    beforehand where `verbose`; `flow_cost` gives it alone.

    Raises ValueError for a bad argument, and for layers that are random or mix samples, such as
    dropout and batch norm in training mode.
    """
    training = {"solver": solver, "n_steps": n_steps, "rtol": rtol, "atol": atol}
    training |= {"step_size": step_size, "grid": grid, "solve": solve}
    options = {"t": t, "stem": stem, "args": args, "tolerance": tolerance, "rows": rows}
    with torch.no_grad(), torch.random.fork_rng(_gpus()):
        problem = pose(field, head, x, y, **options, **training)
        cost = cost_of(problem)
        if verbose:
            print(f"check_flow: {cost}", file=sys.stderr, flush=True)
        return _report(problem, cost)


def flow_cost(
    field: Callable[..., Any], head: Layers | None, x: Tree, y: Any = None, **options: Any
) -> FlowCost:
    """What `check_flow` with the same arguments would cost; solves a few samples only."""
    options.pop("verbose", None)
    options.setdefault("solver", None)
    with torch.no_grad(), torch.random.fork_rng(_gpus()):
        return cost_of(pose(field, head, x, y, **options))


def _gpus() -> range | list[int]:
    return range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []


# --- what is solved -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """All that was solved: under the training solver, by the exact flow, and the probe's."""

    own: Solved
    reference: Reference
    probed: dict[Steps, Solved]

    @property
    def sure(self) -> Tensor:
        """(n,) bool: known under the training solver, and the exact flow is settled."""
        return self.own.known & self.reference.settled

    @property
    def exact(self) -> Solved:
        return self.reference.solved


def _solve(problem: Problem, setting: Steps, index: Tensor) -> Solved:
    solve = partial(solve_part, problem.model, setting=setting)
    return solve_samples(problem.model, problem.samples, index, solve, problem.at_once(setting))


def _solve_all(problem: Problem) -> _Found:
    own = _solve(problem, problem.trained, torch.arange(len(problem.samples)))
    probed = {setting: _solve(problem, setting, problem.probe) for setting in problem.probed}
    rows = [probed[s].z for s in finer_rows(problem.trained)]
    proof = Proof(
        problem.model,
        problem.samples,
        own.z,
        partial(_yardstick, problem, own),
        (own.z[problem.probe], *rows),
        problem.probe,
        problem.at_once(problem.trained if problem.size > 64 else problem.exact),
        problem.double,
    )
    return _Found(own, prove(proof, problem.mesh, problem.rtol), probed)


def _yardstick(problem: Problem, own: Solved, exact: Solved) -> Yardstick:
    """How ends are compared while the exact flow proves itself."""
    rule = _rule(problem, own, exact)

    def same(index: Tensor, z: Tensor, other: Tensor) -> Tensor:
        a, b = problem.model.outputs(z), problem.model.outputs(other)
        if problem.y is not None:
            return ~rule.changed(a, b)
        return rule.changed(a, own.outputs[index]) == rule.changed(b, own.outputs[index])

    return Yardstick(find_scale(exact.z, problem.samples.z), same)


def _rule(problem: Problem, own: Solved, exact: Solved) -> Rule:
    """What counts as another answer."""
    if problem.y is not None or problem.tolerance is not None:
        return Rule(problem.y, problem.tolerance)
    start = problem.model.outputs(problem.samples.z)
    return Rule(None, None, find_scale(exact.outputs, start, own.outputs))


# --- what comes of it -----------------------------------------------------------------------------


def _report(problem: Problem, cost: FlowCost) -> FlowReport:
    """Everything."""
    found, chance = _solve_all(problem), problem.chance
    own, exact = found.own, found.exact
    rule = _rule(problem, own, exact)
    tested = _tested(problem, found, rule)
    verdict, reason = judge(tested[0], tested[-1], chance, problem.tolerance)
    path = along_trajectories(problem.model, problem.samples, problem.trained)
    shares, notes = crossing_shares(
        problem.model, problem.samples, problem.trained, problem.scan.depends
    )
    solved = found.probed | {problem.trained: own, problem.exact: exact}
    searched = problem.searched
    moved = _moved(problem, found)
    recall = _recalls(problem, found)
    return FlowReport(
        verdict,
        reason,
        tested=tested,
        cautions=tuple(_cautions(problem, found, verdict, moved, recall)),
        chance=chance,
        tolerance=_tolerance(problem, rule),
        distances=(own.z - exact.z).double().flatten(1).norm(dim=1).cpu().numpy(),
        margins=_margins(problem, exact),
        probability_change=_probability_change(problem, found),
        moved=moved,
        recalls=recall,
        sensitivity=sensitivity(tested[0], tested[-1], chance),
        order=_order(problem, found),
        h=path.h,
        lipschitz=path.lipschitz,
        coarsest=coarsest(
            rule, searched, solved, exact.outputs, found.reference.settled, tested[0], chance
        ),
        searched=tuple(searched),
        crossing_shares=shares,
        settled=found.sure.cpu().numpy(),
        cost=cost,
        notes=(*problem.notes, *_failures(problem, found), *path.notes, *notes),
    )


def _tested(problem: Problem, found: _Found, rule: Rule) -> tuple[Tested, ...]:
    """The training solver first, the exact flow last, better settings between."""
    own = found.own
    rows = [rule.tested(problem.trained, own, own.outputs, own.known)]
    for setting in problem.better:
        rows.append(rule.tested(setting, found.probed[setting], own.outputs, own.known))
    return (*rows, rule.tested(problem.exact, found.exact, own.outputs, found.sure))


def _tolerance(problem: Problem, rule: Rule) -> float | None:
    """In the outputs' units, of all components together; None with labels."""
    return problem.tolerance if rule.scale is None else SPREAD_SHARE * rule.scale.whole


def _moved(problem: Problem, found: _Found) -> Interval:
    """Share of samples whose end state moves by more than a tenth of the states' scale."""
    exact, own = found.exact.z, found.own.z
    far = find_scale(exact, problem.samples.z, own).distance(exact, own) > SPREAD_SHARE
    return bounded_share(far & found.sure, ~found.sure)


def _recalls(problem: Problem, found: _Found) -> tuple[Recall, ...]:
    if problem.y is None:
        return ()
    return recalls(problem.y, found.own.outputs, found.exact.outputs, found.sure)


def _probability_change(problem: Problem, found: _Found) -> float | None:
    if problem.y is None:
        return None
    return probability_changes(found.own.outputs, found.exact.outputs, problem.probabilities)


def _margins(problem: Problem, exact: Solved) -> Any:
    """Distances (n,) to the classifier's nearest boundary; None where it is not affine."""
    ends = exact.z[exact.known][:LEAST_PROBE]
    if problem.y is None or problem.probabilities or len(ends) == 0:
        return None
    if problem.model.packing.shapes is not None:
        return None
    weight = affine_weight(problem.model, ends)
    if weight is None:
        return None
    return boundary_distances(exact.outputs[None], weight[None])[0].double().cpu().numpy()


def _order(problem: Problem, found: _Found) -> OrderTest | None:
    """Of the training solver in its steps, twice and four times these, on the probe."""
    finer = finer_rows(problem.trained)
    if not finer:
        return None
    twice, four = (found.probed[setting].z for setting in finer)
    ends = (found.own.z[problem.probe], twice, four)
    return order_test(ends, get_tableau(problem.trained.solver).order)


def _failures(problem: Problem, found: _Found) -> list[str]:
    """What could not be solved, and what the exact flow took, as notes."""
    texts = list(found.reference.notes)
    better = {setting: found.probed[setting] for setting in problem.better}
    solved = {problem.trained: found.own, **better, problem.exact: found.exact}
    for setting, rows in solved.items():
        n = len(rows.index)
        if lost := n - int(rows.known.sum()):
            why = rows.failures[0] if rows.failures else "their end states are not finite"
            texts.append(f"{lost:,} of {n:,} samples could not be solved by {setting}: {why}")
    return texts


def _cautions(
    problem: Problem,
    found: _Found,
    verdict: str,
    moved: Interval,
    found_recalls: tuple[Recall, ...],
) -> list[str]:
    """What stands beside the verdict, since it might be overlooked below."""
    texts, n = [], len(problem.samples)
    lost = n - int((found.own.known & found.exact.known).sum())
    if lost:
        texts.append(f"{lost:,} of {n:,} samples could not be solved: they count for either answer")
    open_ = n - lost - int(found.sure.sum())
    if open_:
        texts.append(
            f"for {open_:,} of {n:,} samples the exact flow has not converged: finer tolerances "
            "and another method end elsewhere; they count for either answer"
        )
    for recall in lost_recalls(found_recalls)[:3]:
        texts.append(str(recall))
    if problem.y is not None and verdict == FLOW and moved.low > AGREEMENT:
        texts.append(
            f"the classes stay, but {moved.percent()} of the end states move by more than a tenth "
            "of their scale"
        )
    return texts
