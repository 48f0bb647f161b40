"""Report on a checked model: the verdict, its reason and the evidence, to print and plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from nodecore.analysis.evaluate import AGREEMENT
from nodecore.analysis.intervals import Interval
from nodecore.ode.steps import Setting

if TYPE_CHECKING:  # a check needs torch and numpy alone, its plot matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

FLOW, NOT_A_FLOW, CANNOT_TELL = "flow", "not a flow", "cannot tell"
COLOURS = {"dark": "#14327d", "bound": "#6b6b6b"}


@dataclass(frozen=True)
class Tested:
    """The model under one setting, against the training solver on the same n samples.

    changed: share of samples with another answer than under the training solver (another class, or
    an output farther away than the tolerance). accuracy and drop (of accuracy, training solver less
    this one): None without labels. nfe: evaluations of the field in one solve.
    """

    setting: Setting
    n: int
    changed: Interval
    accuracy: Interval | None
    drop: Interval | None
    nfe: int


@dataclass(frozen=True)
class FlowCost:
    """Evaluations of the field by single samples: fixed steps and Jacobians exactly; adaptive and
    seconds (of the field alone) estimated from a few samples."""

    n: int
    fixed: int
    jacobians: int
    adaptive: int
    seconds: float

    def __str__(self):
        return (
            f"{self.n:,} samples; evaluations of the field for each: "
            f"{self.fixed / self.n:.1f} in fixed steps, {self.jacobians / self.n:.1f} for "
            f"Jacobians, about {self.adaptive / self.n:.0f} in adaptive steps; "
            f"about {self.seconds:.1f} s"
        )


@dataclass(frozen=True, repr=False)
class FlowReport:
    """The verdict of `check_flow` and its evidence. Print it, show it in a notebook, or plot it.

    verdict: "flow", "not a flow" or "cannot tell"; reason: one sentence.
    tested: the training solver first, the exact flow last, others between. chance: share of the
    largest class, None without labels. tolerance: of outputs, None with labels.
    distances, margins: for each sample (n,), between the end states under training solver and exact
    flow, and from there to the classifier's nearest boundary; margins is None for a head that is
    not affine. probability_change: mean total variation of the class probabilities, None without
    labels. h, lipschitz: the (largest) step, and a lower bound on the field's Lipschitz constant
    from Jacobians along trajectories; None where the field cannot be differentiated.
    coarsest: the coarsest setting of `searched`, coarse to fine, from which on the training solver
    agrees with the exact flow; None if it never does. crossing_shares: of pairs of 2-D
    trajectories, by number of steps; empty where it has no meaning. notes: what to keep in mind.
    """

    verdict: str
    reason: str
    tested: tuple[Tested, ...]
    chance: float | None
    tolerance: float | None
    distances: np.ndarray
    margins: np.ndarray | None
    probability_change: float | None
    h: float
    lipschitz: float | None
    coarsest: Setting | None
    searched: tuple[Setting, ...]
    crossing_shares: dict[int, float]
    cost: FlowCost
    notes: tuple[str, ...]

    @property
    def training(self) -> Tested:
        """Under the solver that it was trained with."""
        return self.tested[0]

    @property
    def exact(self) -> Tested:
        """Under the solve that stands for the exact flow."""
        return self.tested[-1]

    @property
    def inside_margin(self) -> float | None:
        """Share of samples whose end state moves by less than its margin: these cannot flip."""
        return None if self.margins is None else float((self.distances < self.margins).mean())

    def _findings(self):
        """The lines below the table, (label, text)."""
        yield "end states", self._end_states()
        if self.lipschitz is not None:
            bound = f"at least {self.h * self.lipschitz:.2g}"
            yield "h L", f"{bound}; below 1 an Euler step is one-to-one"
        first, last = self.searched[0], self.searched[-1]
        found = "none" if self.coarsest is None else str(self.coarsest)
        yield (
            "solver-independent from",
            f"{found} (searched: {first} to {last})",
        )
        if self.crossing_shares:
            shares = ", ".join(f"{100 * s:.2g} % at {k}" for k, s in self.crossing_shares.items())
            yield "pairs of trajectories that cross", f"{shares} steps"
        yield from (("note", note) for note in self.notes)

    def _end_states(self):
        moved = f"moved by {np.median(self.distances):.3g} (median)"
        if (inside := self.inside_margin) is not None:
            return f"{moved}; inside the classifier's margin: {100 * inside:.1f} %"
        if self.probability_change is not None:
            return f"{moved}; probabilities change by {100 * self.probability_change:.1f} %"
        return f"{moved}; tolerance {self.tolerance:.3g}"

    def _table(self):
        """Header and rows of the table, as text."""
        labels = self.chance is not None
        yield ["solver", "samples", *(["accuracy", "drop"] if labels else []), "changed answers"]
        for row in self.tested:
            drop, changed = (
                "" if value is None or row is self.training else value.percent()
                for value in (row.drop, row.changed)
            )
            values = [] if row.accuracy is None else [row.accuracy.percent(), drop]
            yield [str(row.setting), f"{row.n:,}", *values, changed]

    def __str__(self):
        table = list(self._table())
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        rows = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in table]
        lines = [f"{self.verdict}: {self.reason}", "", *(row.rstrip() for row in rows), ""]
        return "\n".join(lines + [f"{label}: {text}" for label, text in self._findings()])

    __repr__ = __str__

    def _repr_html_(self):
        head, *rows = ([escape(cell) for cell in row] for row in self._table())
        head = "".join(f"<th>{cell}</th>" for cell in head)
        rows = "".join(f"<tr>{''.join(map(_table_cell, row))}</tr>" for row in rows)
        found = "".join(f"<li>{escape(k)}: {escape(v)}</li>" for k, v in self._findings())
        return (
            f'<div class="flow-report"><p><strong>{escape(self.verdict)}</strong>: '
            f"{escape(self.reason)}</p><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table><ul>{found}</ul></div>"
        )

    def plot(self, axes: "Sequence[Axes] | None" = None) -> "Figure | SubFigure":
        """Accuracies (or changed answers) by solver, and how far each end state moved.

        axes: two of matplotlib's, made where not given. Returns the figure.
        """
        import matplotlib.pyplot as plt

        pair = axes
        if pair is None:
            _, pair = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
        self._plot_solvers(pair[0])
        self._plot_distances(pair[1])
        return pair[0].figure

    def _plot_solvers(self, ax):
        rows = self.tested[::-1]
        shown = [row.changed if row.accuracy is None else row.accuracy for row in rows]
        errors = [[v.value - v.low for v in shown], [v.high - v.value for v in shown]]
        ax.errorbar(
            [v.value for v in shown], range(len(rows)), xerr=np.maximum(errors, 0.0), fmt="o",
            color=COLOURS["dark"],
        )  # fmt: skip
        ax.set_yticks(range(len(rows)), [str(row.setting) for row in rows])
        at = AGREEMENT if self.training.accuracy is None else shown[-1].value - AGREEMENT
        ax.axvline(at, color=COLOURS["bound"], linestyle="--")
        name = "share of changed answers" if self.training.accuracy is None else "accuracy"
        ax.set(xlabel=name, title=self.verdict, ylim=(-0.5, len(rows) - 0.5))

    def _plot_distances(self, ax):
        solid, dashed = {"color": COLOURS["dark"]}, {"color": COLOURS["bound"], "linestyle": "--"}
        _plot_shares(ax, self.distances, label="moved by", **solid)
        if self.margins is not None:
            _plot_shares(ax, self.margins, label="margin", **dashed)
        if self.tolerance is not None:
            ax.axvline(self.tolerance, label="tolerance", **dashed)
        scale = "log" if (self.distances > 0).any() else "linear"
        ax.set(xlabel="distance", ylabel="share of samples", ylim=(0, 1.02), xscale=scale)
        above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        ax.legend(**above, ncols=2, fontsize="small", frameon=False, columnspacing=1.0)


def _table_cell(text):
    """HTML of a cell; a page may put the interval of a value on a line of its own."""
    value, bracket, interval = text.partition(" (")
    return f"<td>{value} <small>({interval}</small></td>" if bracket else f"<td>{value}</td>"


def _plot_shares(ax, values, **style):
    """The share of values that are smaller, over the value."""
    values = np.sort(values[np.isfinite(values)])
    ax.plot(values, np.arange(1, len(values) + 1) / max(1, len(values)), marker="", **style)
