"""A controller at work over the iterations of a training."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from nodecore.pages.plots.style import CROSSING_COLOUR, solver_style, step_colours


def over_iterations(ax: Axes, history: pd.DataFrame, column: str, seeds: Sequence[int]) -> None:
    """A column of a training's history against the iteration, a line for each seed; n_steps on a
    logarithmic axis."""
    for seed, colour in step_colours(seeds).items():
        rows = history[(history["seed"] == seed) & history[column].notna()]
        line = {"color": colour, "linewidth": 0.8, "label": f"seed {seed}"}
        ax.plot(rows["iteration"], rows[column], marker="", **line)
    iterations_axis(ax)
    if column == "n_steps":
        ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")


def iterations_axis(ax: Axes) -> None:
    """Put the iterations of a training along x."""
    ax.set_xlabel("iteration")
    ax.locator_params(axis="x", nbins=4)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.grid(axis="y")


def checks(ax: Axes, history: pd.DataFrame) -> None:
    """Accuracies of a batch at the checks of one seed, under the training and the test solver."""
    for column, solver in {"train_accuracy": "euler", "test_accuracy": "midpoint"}.items():
        ax.plot(history["iteration"], history[column], markersize=4.5, **solver_style(solver))
    _mark_failed(ax, history)
    ax.set(ylabel="batch accuracy", ylim=(0, 1.05))
    ax.grid(axis="y")


def steps_at_checks(ax: Axes, history: pd.DataFrame) -> None:
    """The number of steps of one seed, constant between the checks."""
    ax.step(history["iteration"], history["n_steps"], where="pre", color="black", marker="")
    _mark_failed(ax, history)
    ax.set(xlabel="iteration", ylabel="number of steps $K$", ylim=(0, None))
    ax.grid(axis="y")


def moments(ax: Axes, table: pd.DataFrame) -> None:
    """Accuracies of one model at moments of its training, a group for each; columns moment, solver,
    factor (of the training's steps, growing from left to right within a group) and accuracy."""
    labels = list(dict.fromkeys(table["moment"]))
    factors = sorted(table["factor"].unique())
    for solver, rows in table.groupby("solver", sort=False):
        places = rows["moment"].map(labels.index) + 0.18 * (rows["factor"].map(factors.index) - 1.5)
        style = {**solver_style(str(solver)), "linestyle": "none"}
        ax.plot(places, rows["accuracy"], markersize=7, alpha=0.85, **style)
    ax.set_xticks(range(len(labels)), labels, fontsize=9)
    ax.set(xlim=(-0.6, len(labels) - 0.4), ylabel="test accuracy")
    ax.grid(axis="y")


def _mark_failed(ax, history):
    failed = history[history["failed"].astype(bool)]["iteration"]
    for n, iteration in enumerate(failed):
        label = "failed check" if n == 0 else None
        ax.axvline(iteration, color=CROSSING_COLOUR, linewidth=0.9, linestyle="--", label=label)
