"""Report on a checked model: the verdict, its reason and the evidence, to print and plot."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from torch import Tensor

from nodecore.analysis.intervals import Interval
from nodecore.check.evidence import StepError
from nodecore.check.order import OrderTest
from nodecore.check.plots import draw
from nodecore.check.settings import CLASSICAL
from nodecore.check.verdict import CANNOT_TELL, FLOW, NOT_A_FLOW, Recall, Sensitivity, Tested
from nodecore.ode.steps import Steps


@dataclass(frozen=True)
class FlowCost:
    """Evaluations of the field by n single samples.

    Those of fixed steps are exact, those of Jacobians the most that there can be; those of adaptive
    steps, and the seconds, are estimated from a few samples.
    """

    n: int
    fixed: int
    jacobians: int
    adaptive: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.n:,} samples; evaluations of the field for each: "
            f"{self.fixed / self.n:.1f} in fixed steps, {self.jacobians / self.n:.1f} for "
            f"Jacobians, about {self.adaptive / self.n:.0f} in adaptive steps; "
            f"about {self.seconds:.1f} s"
        )


@dataclass(frozen=True, repr=False)
class FlowReport:
    """The verdict of `check_flow` and its evidence. Print it, show it in a notebook, or plot it.

    Attributes:
        verdict: "flow", "not a flow" or "cannot tell".
        reason: One sentence.
        tested: The training solver first, the exact flow last, others between.
        cautions: Warnings to read with the verdict.
        bound: Largest difference of accuracies, or share of changed answers, of a flow.
        chance: Share of the largest class; None without labels.
        tolerance: Change of an output that counts, in its units, for all components together or for
            each; or change of the loss that counts; None with labels.
        tolerance_of: What changes by it: "end states", "outputs" of a head, or "loss".
        distances: Distance between the end states under training solver and exact flow, in the
            states' units, of each sample (n,); NaN where one is not known.
        margins: Distance from the exact end state to the classifier's nearest boundary, (n,); None
            without labels, with `output_times`, or for a head that is not affine in one tensor or
            gives probabilities.
        probability_change: Mean total variation of the class probabilities; None without labels.
        moved: Share of samples whose end state moves by more than a tenth of the states' scale.
        recalls: Recall of each class under both; empty without labels.
        sensitivity: The verdict for other bounds; None if none can be judged.
        relative_drop: Drop as a share of the accuracy above the largest class's share, or None.
        order: Test of the order of convergence; None without fixed steps, or if no sample can tell.
        h: The longest step, in the units of t; NaN where it is not known.
        lipschitz: Lower bound on the field's Lipschitz constant, from Jacobians along trajectories;
            None where the field cannot be differentiated.
        coarsest: The coarsest setting of `curve` from which on the training solver agrees with
            the exact flow; None if it never does.
        curve: Errors of the training solver in other steps, coarse to fine; empty for a solve of
            the user's own.
        crossing_shares: Share of pairs of 2-D trajectories that cross, by number of steps; empty
            where it has no meaning.
        settled: Samples whose answers are known, (n,) bool.
        cost: What the check was expected to take.
        notes: Remarks on how the model was read and solved.
    """

    verdict: str
    reason: str
    tested: tuple[Tested, ...]
    cautions: tuple[str, ...]
    bound: float
    chance: float | None
    tolerance: float | Tensor | None
    tolerance_of: str
    distances: np.ndarray
    margins: np.ndarray | None
    probability_change: float | None
    moved: Interval
    recalls: tuple[Recall, ...]
    sensitivity: Sensitivity | None
    relative_drop: Interval | None
    order: OrderTest | None
    h: float
    lipschitz: float | None
    coarsest: Steps | None
    curve: tuple[StepError, ...]
    crossing_shares: dict[int, float]
    settled: np.ndarray
    cost: FlowCost
    notes: tuple[str, ...]

    @property
    def training(self) -> Tested:
        """The model under the solver that it was trained with."""
        return self.tested[0]

    @property
    def exact(self) -> Tested:
        """The model under the solve that stands for the exact flow."""
        return self.tested[-1]

    @property
    def inside_margin(self) -> float | None:
        """Share of samples whose end state moves by less than its margin: these cannot flip."""
        return None if self.margins is None else float((self.distances < self.margins).mean())

    @property
    def headline(self) -> str:
        """Text that names the training solver, shown after the verdict."""
        said = CLASSICAL.get(self.training.setting.solver)
        return f"trained with {self.training.setting}" + (f" ({said})" if said else "")

    def __str__(self) -> str:
        table = list(_table(self))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        rows = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in table]
        lines = [f"{self.verdict}: {self.headline}", self.reason]
        lines += [f"but: {text}" for text in self.cautions]
        lines += ["", *(row.rstrip() for row in rows), ""]
        return "\n".join(lines + [f"{label}: {text}" for label, text in _findings(self)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *rows = ([escape(cell) for cell in row] for row in _table(self))
        titles = "".join(f"<th>{cell}</th>" for cell in head)
        body = "".join(f"<tr>{''.join(map(_table_cell, row))}</tr>" for row in rows)
        beside = "".join(f"<p>But: {escape(text)}</p>" for text in self.cautions)
        found = "".join(f"<li>{escape(k)}: {escape(v)}</li>" for k, v in _findings(self))
        return (
            f'<div class="flow-report"><p><strong>{escape(self.verdict)}</strong>: '
            f"{escape(self.headline)}</p><p>{escape(self.reason)}</p>{beside}<table><thead>"
            f"<tr>{titles}</tr></thead><tbody>{body}</tbody></table><ul>{found}</ul></div>"
        )

    def plot(self, axes: Any = None) -> Any:
        """Draw accuracies by solver, how far each end state moved, and errors by step size.

        Args:
            axes: Two or three of matplotlib's, made where not given; the errors go on the third.

        Returns:
            The figure.
        """
        return draw(self, axes)


# --- in words -------------------------------------------------------------------------------------


def _findings(report: FlowReport) -> Iterator[tuple[str, str]]:
    """Give the lines below the table, (label, text)."""
    if report.sensitivity is not None:
        yield "other bounds", str(report.sensitivity)
    if report.relative_drop is not None:
        yield "above chance", _above_chance(report.relative_drop, report.bound)
    yield "end states", _end_states(report)
    if report.tolerance is not None:
        each = np.atleast_1d(np.asarray(report.tolerance))
        yield "tolerance", f"{', '.join(f'{value:.3g}' for value in each)} ({report.tolerance_of})"
    if report.order is not None:
        yield "order", str(report.order)
    if report.lipschitz is not None and not np.isnan(report.h):
        bound = f"at least {report.h * report.lipschitz:.2g}"
        yield "h L", f"{bound}; below 1 an Euler step is one-to-one"
    elif report.lipschitz is not None:
        yield "L", f"at least {report.lipschitz:.2g}; Euler steps h with h L below 1 are one-to-one"
    if report.curve:
        first, last = report.curve[0].setting, report.curve[-1].setting
        found = "none" if report.coarsest is None else str(report.coarsest)
        yield "solver-independent from", f"{found} (searched: {first} to {last})"
    if text := _least_error(report):
        yield "error by step size", text
    if report.crossing_shares:
        shares = ", ".join(f"{100 * s:.2g} % at {k}" for k, s in report.crossing_shares.items())
        yield "pairs of trajectories that cross", f"{shares} steps"
    yield from (("note", note) for note in report.notes)


def _above_chance(drop: Interval, bound: float) -> str:
    lost = drop if drop.value >= 0 else Interval(-drop.value, -drop.high, -drop.low)
    verdict = FLOW if drop.within(bound) else CANNOT_TELL
    verdict = NOT_A_FLOW if drop.beyond(bound) else verdict
    what = "lost" if drop.value >= 0 else "gained"
    return (
        f"{lost.percent()} of the accuracy above the largest class is {what}: {verdict}, "
        f"if {100 * bound:.3g} % of it may change"
    )


def _least_error(report: FlowReport) -> str | None:
    """Say where fewest answers are wrong, if it is surely at the training's own step."""
    wrong = {error.setting: error.wrong for error in report.curve if error.wrong is not None}
    own = wrong.pop(report.training.setting, None)
    if own is None or not wrong or own.value > min(share.value for share in wrong.values()):
        return None
    finest = list(wrong.values())[-1]
    if finest.low <= own.high:
        return None
    return (
        f"least at the training's step ({100 * own.value:.1f} % are wrong, "
        f"{100 * finest.value:.1f} % in the finest steps): the model belongs to its solver"
    )


def _end_states(report: FlowReport) -> str:
    finite = report.distances[np.isfinite(report.distances)]
    if len(finite) == 0:
        return "none is known"
    moved = f"moved by {np.median(finite):.3g} (median)"
    moved += f", {100 * report.moved.value:.1f} % by more than a tenth of their scale"
    if report.inside_margin is not None:
        return f"{moved}; inside the classifier's margin: {100 * report.inside_margin:.1f} %"
    if report.probability_change is not None:
        return f"{moved}; probabilities change by {100 * report.probability_change:.1f} %"
    return moved


def _table(report: FlowReport) -> Iterator[list[str]]:
    """Give header and rows of the table, as text."""
    labels = report.chance is not None
    yield ["solver", "samples", *(["accuracy", "drop"] if labels else []), "changed answers"]
    for row in report.tested:
        drop, changed = (
            "" if value is None or row is report.training else value.percent()
            for value in (row.drop, row.changed)
        )
        values = [row.accuracy.percent(), drop] if row.accuracy is not None else []
        yield [str(row.setting), f"{row.n:,}", *values, changed]


def _table_cell(text: str) -> str:
    """Return HTML of a cell; a page may put the interval of a value on a line of its own."""
    value, bracket, interval = text.partition(" (")
    return f"<td>{value} <small>({interval}</small></td>" if bracket else f"<td>{value}</td>"
