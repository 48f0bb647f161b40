"""Suggest steps for a trained field: the coarsest that give the answers of its exact flow."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nodecore.analysis.evaluate import AGREEMENT
from nodecore.check.inputs import Tree, ascending, read_times, whole
from nodecore.check.model import Layers
from nodecore.check.pose import forked, pose
from nodecore.check.problem import Problem
from nodecore.check.reference import Reference
from nodecore.check.settings import (
    count_nfe,
    finer_rows,
    read_grid,
    read_training,
    steps_past,
    without_rounding,
)
from nodecore.check.verdict import FLOW, Tested, judge, least_samples
from nodecore.ode.steps import FixedSteps, Steps, Tolerance
from nodecore.ode.tableaus import get_tableau

FIRST_STEPS, FIRST_RTOL = 64, 1e-3  # the training that the exact flow is proved for
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
CONFIRMED = 2  # finer settings, one after the other, that agree as well


@dataclass(frozen=True)
class Tried:
    """A setting and what `check_flow` would say of a model that is used with it.

    Attributes:
        setting: Solver and how it chooses its steps.
        verdict: "flow", "not a flow" or "cannot tell".
        reason: One sentence.
        exact: The exact flow, compared with the setting.
        nfe: Evaluations of the field in one solve.
    """

    setting: Steps
    verdict: str
    reason: str
    exact: Tested
    nfe: int

    def __str__(self) -> str:
        changed = self.exact.changed.percent()
        return f"{self.setting}: {self.verdict}; changed answers {changed}; NFE {self.nfe}"


@dataclass(frozen=True, repr=False)
class Suggestion:
    """What `suggest_steps` found; print it.

    Attributes:
        setting: The coarsest setting whose answers are those of the exact flow, or None.
        training: What to begin with, if the field is trained anew with this solver: half the step,
            or a tenth of the tolerance; None where there is no setting.
        reason: One sentence.
        tried: All that was tried, coarse to fine.
        notes: What to keep in mind.
    """

    setting: Steps | None
    training: Steps | None
    reason: str
    tried: tuple[Tried, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.setting or 'no setting that was tried'}: {self.reason}"]
        lines += [f"  {tried}" for tried in self.tried]
        if self.training is not None:
            lines.append(
                f"to train anew: begin with {self.training}. Training changes the field, so check "
                "it again, or let a controller choose its steps (nodecore.monitor)"
            )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__


def suggest_steps(
    field: Callable[..., Any],
    head: Layers | None,
    x: Tree,
    y: Any = None,
    *,
    solver: str,
    t: tuple[float, float] = (0.0, 1.0),
    stem: Layers | None = None,
    args: Tree = None,
    tolerance: float | Sequence[float] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    bound: float = AGREEMENT,
    output_times: Tensor | Sequence[float] | None = None,
    rows: int = 1000,
    most: int = 1024,
    verbose: bool = True,
) -> Suggestion:
    """Find the coarsest steps with which a trained field gives the answers of its exact flow.

    A setting will do if `check_flow` would call a model that is used with it a flow, and the next
    two finer ones, too, as far as they are tried. A method without an error estimate gets equal
    steps: their number is doubled until it will do, and then bisected. An embedded method gets a
    tolerance, rtol = atol, from 0.1 down by tens. All are compared with one exact flow, which
    proves itself.

    How the field was trained makes no difference. A field that is trained anew with steps as coarse
    as these need not be a flow, so half the step is suggested to begin with.

    Args:
        field: f(t, z) -> dz/dt, as in `check_flow`, like the other arguments.
        head: Takes end states to logits or outputs; None where there is none.
        x: Inputs (n, ...), at least 35 of them; more where `bound` is less than 0.1.
        y: Labels, or targets of the loss, or None.
        solver: Solver that is to be used, one of nodecore.ode.tableaus.TABLEAUS.
        t: Start and end of the time.
        stem: Layers that take inputs to states.
        args: What the field is given besides, with n rows.
        tolerance: Without labels, the difference of outputs that counts, in their units, or with
            `loss` the change of a sample's loss.
        loss: A loss of one's own, (outputs (m, ...), targets (m, ...)) -> (m,).
        bound: Largest difference of accuracies, or share of changed answers, of a flow; a share.
        output_times: Times at which outputs count, where states are trajectories. Equal steps end
            at all of them, so their numbers are multiples of the fewest that do.
        rows: Largest number of samples in a batch.
        most: Largest number of steps that is tried.
        verbose: Whether to print to stderr what is tried.

    Raises:
        ValueError: An argument is bad, or there are too few samples for a verdict.
    """
    most = whole("most", most)
    name = read_training((0.0, 1.0), solver=solver, n_steps=1)[0].solver
    by_tolerance = get_tableau(name).b_embedded is not None
    fewest = 1 if by_tolerance else _fewest_steps(output_times, t, most)
    n_steps = fewest * math.ceil(FIRST_STEPS / fewest)
    first = {"rtol": FIRST_RTOL} if by_tolerance else {"n_steps": n_steps}
    options = {"t": t, "stem": stem, "args": args, "tolerance": tolerance, "rows": rows}
    options |= {"loss": loss, "bound": bound, "output_times": output_times}
    with forked():
        problem = pose(field, head, x, y, solver=solver, **first, **options)
        if len(problem.samples) < (least := least_samples(problem.bound)):
            raise ValueError(
                f"x has {len(problem.samples)} samples: give at least {least}, as fewer allow no "
                "verdict; for a single trajectory, pass its states as starts of shorter ones"
            )
        trial = _Trial(problem, fewest, verbose)
        if hopeless := trial.hopeless():
            return _suggestion(trial, None, hopeless)
        found = _coarsest(trial, by_tolerance, name, most)
        reason = trial.last_reason if found is None else trial.tried[found].reason
        return _suggestion(trial, found, reason)


# --- the search -----------------------------------------------------------------------------------


class _Trial:
    """Judges settings of one problem against its exact flow, each once."""

    def __init__(self, problem: Problem, fewest: int, verbose: bool):
        self.problem, self.fewest, self.verbose = problem, fewest, verbose
        own = problem.solve(problem.trained, problem.everyone)
        finer = [problem.solve(s, problem.probe).z for s in finer_rows(problem.trained)]
        self.reference: Reference = problem.prove(own, finer)
        self.tried: dict[Steps, Tried] = {}

    def will_do(self, setting: Steps) -> bool:
        """Tell whether a model that is used with a setting would be called a flow."""
        if setting not in self.tried:
            self.tried[setting] = self._judge(setting)
            if self.verbose:
                print(f"suggest_steps: {self.tried[setting]}", file=sys.stderr, flush=True)
        return self.tried[setting].verdict == FLOW

    def hopeless(self) -> str | None:
        """Say why no setting could be called a flow; None where one could."""
        problem, exact = self.problem, self.reference.solved
        same = problem.rule(exact, exact).tested(
            problem.exact, exact, exact, self.reference.settled
        )
        verdict, reason = judge(same, same, problem.terms)
        return None if verdict == FLOW else reason

    @property
    def last_reason(self) -> str:
        """What was said of the last setting."""
        return list(self.tried.values())[-1].reason

    def _judge(self, setting: Steps) -> Tried:
        problem, exact = self.problem, self.reference.solved
        own = problem.solve(setting, problem.everyone)
        rule = problem.rule(own, exact)
        sure = own.known & self.reference.settled
        under_own = rule.tested(setting, own, own, own.known)
        under_exact = rule.tested(problem.exact, exact, own, sure)
        verdict, reason = judge(under_own, under_exact, problem.terms)
        return Tried(setting, verdict, reason, under_exact, count_nfe(setting) or own.nfe)


def _coarsest(trial: _Trial, by_tolerance: bool, name: str, most: int) -> Steps | None:
    """Return the coarsest setting that will do, with the finer ones that were tried."""
    settings = _tolerances(trial, name) if by_tolerance else _doubled(trial, name, most)
    run: list[Steps] = []  # settings that will do, one after the other
    before: Steps | None = None
    for setting in settings:
        if trial.will_do(setting):
            run.append(setting)
        else:
            before, run = setting, []
        if len(run) > CONFIRMED:
            break
    if not run:
        return None
    return run[0] if by_tolerance or before is None else _bisect(trial, before, run[0])


def _fewest_steps(output_times: Any, t: Any, most: int) -> int:
    """Return the fewest equal steps that end at all output times; raise ValueError."""
    if output_times is None:
        return 1
    solved = ascending(read_times(t))
    wanted = read_grid("output_times", output_times, solved)
    for n_steps in range(1, most + 1):
        if steps_past(FixedSteps("euler", n_steps), solved, wanted) is None:
            return n_steps
    raise ValueError(
        f"output_times: no number of equal steps up to most = {most} ends at all of them; give "
        "ones that do, or a solver that chooses its steps, such as dopri5"
    )


def _doubled(trial: _Trial, name: str, most: int) -> Iterator[Steps]:
    n_steps = trial.fewest
    while n_steps <= most:
        yield FixedSteps(name, n_steps)
        n_steps *= 2


def _tolerances(trial: _Trial, name: str) -> Iterable[Steps]:
    """List tolerances that are surely coarser than the exact flow's."""
    least = 10 * trial.problem.solver.rtol * (1 - 1e-9)
    return [Tolerance(name, rtol) for rtol in TOLERANCES if rtol >= least]


def _bisect(trial: _Trial, too_coarse: Steps, will_do: Steps) -> Steps:
    assert too_coarse.n_steps is not None and will_do.n_steps is not None
    unit = trial.fewest
    low, high = too_coarse.n_steps // unit, will_do.n_steps // unit
    while high - low > 1:
        middle = (low + high) // 2
        if trial.will_do(FixedSteps(will_do.solver, middle * unit)):
            high = middle
        else:
            low = middle
    return FixedSteps(will_do.solver, high * unit)


# --- what comes of it -----------------------------------------------------------------------------


def _suggestion(trial: _Trial, setting: Steps | None, reason: str) -> Suggestion:
    reference = trial.reference
    tried = sorted(trial.tried.values(), key=lambda one: (one.setting.n_steps or 0, -_rtol(one)))
    notes = (*trial.problem.notes, *reference.notes)
    training = None if setting is None else _finer(setting)
    return Suggestion(setting, training, reason, tuple(tried), notes)


def _rtol(tried: Tried) -> float:
    return tried.setting.rtol or 0.0


def _finer(setting: Steps) -> Steps:
    """Return half the step, or a tenth of the tolerance."""
    if setting.rtol is not None:
        return Tolerance(setting.solver, without_rounding(setting.rtol / 10))
    assert setting.n_steps is not None
    return FixedSteps(setting.solver, 2 * setting.n_steps)
