"""Accuracy, cost and gap against the tolerance."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation
from matplotlib.typing import ColorType

from nodecore.pages.plots.adaption import iterations_axis
from nodecore.pages.plots.style import (
    GREY,
    Style,
    accuracy_axes,
    ring,
    seeds_and_mean,
    solver_style,
    step_colours,
)


def accuracy_by_tolerance(ax: Axes, table: pd.DataFrame, colour: ColorType) -> None:
    """Accuracy against the test tolerance, fine to the right; table: records of one training rtol.

    Solid: under the training solver; dashed: under another one. Thin: every seed.
    """
    solver, rtol = table[["train_solver", "rtol"]].iloc[0]
    for test_solver, rows in table.groupby("test_solver"):
        own = test_solver == solver
        for _, line in rows.groupby("seed") if own else ():
            line = line.sort_values("test_rtol")
            shown = colour if line["trained"].iloc[0] else "#b5b5b5"
            ax.plot(line["test_rtol"], line["accuracy"], color=shown, linewidth=0.5, marker="")
        means = rows.loc[rows["trained"]].groupby("test_rtol")["accuracy"].mean()
        style: Style = {"linestyle": "-" if own else "--", "linewidth": 1.6 if own else 1.0}
        style["label"] = f"trained at {rtol:g}" if own else None
        ax.plot(means, color=colour, marker="o" if own else "", markersize=4, **style)
        if own and rtol in means:
            ring(ax, rtol, means[rtol])
    accuracy_axes(ax)
    _tolerance_axis(ax)


def tolerance_handles() -> list[Line2D]:
    """Legend of `accuracy_by_tolerance`."""
    lines: dict[str, Style] = {
        "mean": {"linewidth": 1.6, "marker": "o", "markersize": 4},
        "a seed": {"linewidth": 0.5},
        "mean, other method": {"linewidth": 1.0, "linestyle": "--"},
    }
    handles = [Line2D([], [], color=GREY, label=name, **style) for name, style in lines.items()]
    outline: Style = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "color": "black"}
    return [*handles, Line2D([], [], linestyle="none", label="as trained", **outline)]


def nfe_by_tolerance(ax: Axes, nfe: pd.Series, rtol: float, colour: ColorType) -> None:
    """Evaluations, a series by test tolerance, fine to the right; a ring at the training rtol."""
    ax.plot(nfe, color=colour, marker="o", markersize=4, label=f"trained at {rtol:g}")
    if rtol in nfe:
        ring(ax, rtol, nfe.loc[rtol])
    _tolerance_axis(ax)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_ylabel("evaluations (NFE)")
    ax.grid(axis="y")


def gap_by_tolerance(ax: Axes, gaps: pd.Series, seed_gaps: pd.DataFrame) -> None:
    """Loss of accuracy under the exact flow against the training's tolerance, fine to the right.

    gaps: series by rtol, of the means; seed_gaps: frame, a column for each seed (pale).
    """
    seeds_and_mean(ax, seed_gaps, gaps, {**solver_style("euler"), "label": None})
    _tolerance_axis(ax, "tolerance of the training")
    ax.set_ylabel("gap of accuracy")
    ax.grid(axis="y")


def tolerance_over_iterations(
    ax: Axes, histories: Mapping[float, pd.DataFrame], critical: tuple[float, float]
) -> None:
    """The tolerance in use against the iteration, a line for each seed and a colour for each start.

    histories: by the tolerance that the adaption begins at. critical: the critical tolerance and
    the next coarser one, shaded; NaN where there is none.
    """
    ax.axhspan(*critical, color="#dddddd", zorder=0, label="critical range of fixed tolerances")
    colours = step_colours([*histories, None])  # without the lightest
    for first, history in histories.items():
        for _, rows in history.loc[history["step_size"].notna()].groupby("seed"):
            line = {"color": colours[first], "linewidth": 0.8, "marker": ""}
            ax.plot(rows["iteration"], rows["step_size"], **line, label=f"begins at {first:g}")
    iterations_axis(ax)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(LogFormatterSciNotation())


def accuracy_over_time(ax: Axes, table: pd.DataFrame, style: Style) -> None:
    """Accuracy against the time T that is integrated over: the mean, and each seed (pale).

    table: T (index) by seed.
    """
    seeds_and_mean(ax, table, table.mean(axis=1), style)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.minorticks_off()
    ax.set_xlabel("time $T$")
    ax.grid(axis="y")


def _tolerance_axis(ax, label="tolerance of the test"):
    ax.set_xscale("log")
    if not ax.xaxis_inverted():
        ax.invert_xaxis()
    ax.xaxis.minorticks_off()
    ax.set_xlabel(label)
