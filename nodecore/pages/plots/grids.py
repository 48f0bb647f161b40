"""Accuracy against training and test steps."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.typing import ColorType

from nodecore.evidence.names import name_of
from nodecore.pages.plots.style import (
    CROSSING_COLOUR,
    GREY,
    Style,
    accuracy_axes,
    seeds_and_mean,
    solver_style,
    steps_axis,
)


def cross_solver(
    ax: Axes,
    table: pd.DataFrame,
    colours: Mapping[int, ColorType],
    test_steps: Mapping[int, Sequence[int]],
) -> None:
    """Mean accuracy against test steps, a colour for each training n_steps (a paper's Fig. 3).

    table: records of one training solver, seeds that count only. test_steps: training n_steps ->
    the test n_steps to show. The large dark symbol is the training solver at its own step.
    """
    if table.empty:
        ax.text(0.5, 0.5, "no records", transform=ax.transAxes, ha="center", color=GREY)
    for n_steps, colour in colours.items():
        shown = table["test_n_steps"].isin(test_steps[n_steps])
        rows: pd.DataFrame = table.loc[(table["n_steps"] == n_steps) & shown]
        for solver, line in rows.groupby("test_solver"):
            means = pd.Series(line.groupby("test_n_steps")["accuracy"].mean())
            style = {"marker": solver_style(str(solver))["marker"], "color": colour}
            ax.plot(means, linewidth=0.7, alpha=0.5, markersize=4.5, markeredgewidth=0, **style)
            if line["train_solver"].iloc[0] == solver and n_steps in means:
                own = {"markeredgecolor": "black", "markersize": 9, "zorder": 4}
                ax.plot(n_steps, means[n_steps], **style, **own)
    accuracy_axes(ax)
    steps_axis(ax, "number of test steps $K$")


def cross_solver_handles(colours: Mapping[int, ColorType], solvers: Iterable[str]) -> list[Line2D]:
    """Legend of `cross_solver`: training n_steps by colour, solvers by marker."""
    ks = [Line2D([], [], color=c, linewidth=5, label=f"$K={k:g}$") for k, c in colours.items()]
    marks = [
        Line2D([], [], color=GREY, linewidth=0, marker=s["marker"], label=f"test: {s['label']}")
        for s in map(solver_style, solvers)
    ]
    own = Line2D([], [], color=GREY, linewidth=0, marker="o", markersize=9, markeredgecolor="black")
    own.set_label("outlined: as trained")
    return [*ks, *marks, own]


def accuracy_of_seeds(ax: Axes, table: pd.DataFrame, colour: ColorType) -> None:
    """Accuracy of every seed against test steps, for one training n_steps (paper's Fig. 7 to 12).

    table: records of one run; seeds that did not train are grey.
    """
    for _, rows in table.groupby(["seed", "test_solver"]):
        rows, solver = rows.sort_values("test_n_steps"), rows["test_solver"].iloc[0]
        shown = colour if rows["trained"].iloc[0] else "#b5b5b5"
        style = {"marker": solver_style(solver)["marker"], "color": shown}
        ax.plot(
            rows["test_n_steps"],
            rows["accuracy"],
            linewidth=0.5,
            markersize=3.5,
            alpha=0.6,
            **style,
        )
        own = rows[(rows["train_solver"] == solver) & (rows["test_n_steps"] == rows["n_steps"])]
        outline = {"markeredgecolor": "black", "markersize": 7, "linewidth": 0, "zorder": 4}
        if len(own):
            ax.plot(own["test_n_steps"], own["accuracy"], **style, **outline)
    accuracy_axes(ax)
    steps_axis(ax, "number of test steps $K$")


# Of a map: its colours, from its lowest accuracy to 1, and the accuracy up to which white figures
# contrast more with them than black ones do (by 4.5 to 1 or more, WCAG 2.2)
MAP_COLOURS, MAP_LOWEST, MAP_DARK = "viridis", 0.3, 0.6


def train_test_map(ax: Axes, means: pd.DataFrame, what: str = "steps $K$") -> None:
    """Accuracies by training n_steps or tolerance (index) and test ones (columns), as numbers."""
    values = means.to_numpy(dtype=float)
    ax.imshow(values, cmap=MAP_COLOURS, vmin=MAP_LOWEST, vmax=1, aspect="auto", origin="lower")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            shade = "black" if value > MAP_DARK else "white"
            own = "bold" if means.index[i] == means.columns[j] else None
            text = {"ha": "center", "va": "center", "fontsize": 7.5, "fontweight": own}
            ax.text(j, i, f"{100 * value:.0f}", color=shade, **text)
    for i, n_steps in enumerate(means.index):
        if n_steps in means.columns:
            j = list(means.columns).index(n_steps)
            box = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.5)
            ax.add_patch(box)
    ax.set_xticks(range(len(means.columns)), map(_short, means.columns))
    ax.set_yticks(range(len(means.index)), map(_short, means.index))
    ax.set(xlabel=f"test {what}", ylabel=f"training {what}")


def _short(value):
    return f"{value:g}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


def as_trained_and_exact(ax: Axes, table: pd.DataFrame, solver: str) -> None:
    """Accuracy as trained and under the exact flow against training n_steps.

    table: one row a seed, see tables.same_step; lines are means over seeds, bands their range, and
    the area between the lines is what the model owes to its solver.
    """
    styles = {
        "as trained": {**solver_style(solver), "label": "as trained"},
        "exact flow": {"color": "black", "marker": "s", "linestyle": "--", "label": "exact flow"},
    }
    means = {}
    for name, style in styles.items():
        by_step = table[name].dropna().groupby("n_steps")
        spread = pd.DataFrame(by_step.agg(["mean", "min", "max"]))
        means[name] = spread["mean"]
        ax.plot(spread["mean"], linewidth=1.5, markersize=5, **style)
        band = {"color": style["color"], "alpha": 0.13, "linewidth": 0}
        ax.fill_between(spread.index, spread["min"], spread["max"], **band)
    both = pd.DataFrame(means).dropna()
    ax.fill_between(both.index, *both.T.to_numpy(), color=CROSSING_COLOUR, alpha=0.1, linewidth=0)
    accuracy_axes(ax)
    steps_axis(ax, "training steps $K$")


AGAINST_EXACT = {"linewidth": 0.9, "linestyle": (0, (5, 3))}


def agreement(
    ax: Axes, gaps: pd.Series, exact_gaps: pd.Series, seed_gaps: pd.DataFrame, solver: str
) -> None:
    """Loss of accuracy under a better solver against training n_steps.

    gaps, exact_gaps: series by n_steps, of the means against the test solver and the exact flow.
    seed_gaps: frame, a column for each seed, against the test solver.
    """
    style = {**solver_style(solver), "label": None, "markersize": 7}
    seeds_and_mean(ax, seed_gaps, gaps, style)
    ax.plot(exact_gaps, color=style["color"], marker="", **AGAINST_EXACT)
    steps_axis(ax, "training steps $K$")
    ax.set(ylabel="gap of accuracy")
    ax.grid(axis="y")


def agreement_handles(solvers: Iterable[str]) -> list[Line2D]:
    """Legend of `agreement`."""
    handles = [
        Line2D([], [], **{**solver_style(s), "label": f"trained with {name_of(s)}"})
        for s in solvers
    ]
    exact = Line2D([], [], color=GREY, **AGAINST_EXACT)
    exact.set_label("against the exact flow")
    return [*handles, exact]


def seeds_over_steps(ax: Axes, table: pd.DataFrame, style: Style) -> None:
    """Each seed (pale) and the mean against training n_steps; table: n_steps by seed."""
    seeds_and_mean(ax, table, table.mean(axis=1), style)
    steps_axis(ax, "training steps $K$")
    ax.grid(axis="y")


def bounds_over_steps(ax: Axes, low: pd.DataFrame, high: pd.DataFrame, style: Style) -> None:
    """A quantity that lies between two bounds against training n_steps; tables: n_steps by seed.

    Line: mean of the lower bounds; band: up to the mean of the upper ones; dashed: one.
    """
    seeds_over_steps(ax, low, style)
    mean = low.mean(axis=1)
    ax.fill_between(mean.index, mean, high.mean(axis=1), color=style["color"], alpha=0.15)
    ax.axhline(1, color="black", linewidth=0.8, linestyle="--")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")


SHARE_STYLES: tuple[Style, ...] = (
    {"color": "#14327d"},
    {"color": "#b9c4e4", "hatch": "//"},
    {"color": "#cc4a0c", "hatch": ".."},
)


def stacked_shares(ax: Axes, table: pd.DataFrame) -> None:
    """Shares that add up to one, a column each (three at most), by training n_steps (index)."""
    bottom = np.zeros(len(table))
    for name, style in zip(table, SHARE_STYLES, strict=False):
        bar: Style = {"width": 0.8, "label": name, "edgecolor": "white", "linewidth": 0.5}
        ax.bar(range(len(table)), table[name], bottom=bottom, **bar, **style)
        bottom += table[name].to_numpy()
    ax.set_xticks(range(len(table)), [f"{k:g}" for k in table.index])
    ax.set(xlabel="training steps $K$", ylabel="share of test samples", ylim=(0, 1))
