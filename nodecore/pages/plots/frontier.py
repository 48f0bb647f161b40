"""Cures beside plain steps: accuracy of the exact flow against the cost of the training."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from nodecore.analysis.intervals import Interval
from nodecore.pages.plots.style import CLASS_COLOURS, CROSSING_COLOUR, GREY, solver_style

LABEL_GAP = 0.055  # between two labels, as a share of the height of the axes


def frontier(ax: Axes, table: pd.DataFrame, labels: Sequence[str]) -> None:
    """Draw accuracy of the exact flow in per cent against evaluations per iteration.

    table: see evidence.frontier; plain rows are joined by a line for each solver, with their
    numbers of steps. labels: of the other rows, in their order, set beside the axes; "" for none.
    """
    is_plain, bars = table["plain"].astype(bool), {"capsize": 2, "elinewidth": 0.8}
    plain, cured = table.loc[is_plain].sort_values(by="nfe"), table.loc[~is_plain]
    for solver, rows in plain.groupby("solver"):
        style = {**solver_style(str(solver)), "color": GREY, "mfc": "white", "linewidth": 1.2}
        ax.errorbar(rows["nfe"], 100 * rows["exact"], yerr=_bars(rows), **style, **bars)
        for row in rows.to_dict("records"):
            at, shift = (row["nfe"], 100 * row["exact"]), (4, -11 if solver == "euler" else 5)
            how = {"textcoords": "offset points", "fontsize": 8, "color": GREY}
            ax.annotate(f"{row['n_steps']:.0f}", at, shift, **how)
    style = {"color": CLASS_COLOURS[1], "marker": "*", "markersize": 9, "ls": "none"}
    style |= {"yerr": _bars(cured), "label": "cures, controllers"}
    ax.errorbar(cured["nfe"], 100 * cured["exact"], **style, **bars)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator([2.0**i for i in range(2, 9)]))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="evaluations per training iteration", ylabel="exact flow, accuracy in %")
    ax.grid(axis="y")
    _label_beside(ax, list(zip(cured["nfe"], 100 * cured["exact"], labels, strict=True)))


def _bars(rows):
    """Lengths of the interval below and above each point, in points of accuracy."""
    return [(100 * (rows["exact"] - rows[end]).abs()).tolist() for end in ("low", "high")]


def _label_beside(ax, points):
    """Write the points' labels to the right of the axes, in the order of their heights."""
    points = sorted((point for point in points if point[2]), key=lambda point: point[1])
    bottom, top = ax.get_ylim()
    wanted = [(y - bottom) / (top - bottom) for _, y, _ in points]
    for (x, y, label), place in zip(points, _apart(wanted, LABEL_GAP), strict=True):
        ax.annotate(
            label,
            xy=(x, y),
            xytext=(1.02, place),
            textcoords="axes fraction",
            fontsize=8.5,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.7, "shrinkB": 3},
        )


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Move ascending places apart until neighbours have a gap, around where they were."""
    moved = np.array(places, float)
    for _ in range(200):
        short = gap - np.diff(moved)
        if not len(short) or short.max() <= 1e-6:
            break
        push = np.clip(short, 0, None) / 2
        moved[:-1] -= push
        moved[1:] += push
    return moved.tolist()


def seed_gaps_of(ax: Axes, gaps: Mapping[str, pd.Series], bound: float) -> None:
    """Draw the gap of every seed between as trained and exact flow, in points; a row for each run.

    gaps: by the run's label, as shares. bound: the largest one that counts as agreement.
    """
    names = list(gaps)
    for row, name in enumerate(names):
        values = 100 * gaps[name].to_numpy()
        beyond = values > 100 * bound + 1e-7
        for chosen, colour, marker in (
            (~beyond, CLASS_COLOURS[0], "o"),
            (beyond, CROSSING_COLOUR, "X"),
        ):
            where = np.full(chosen.sum(), row, float)
            ax.plot(values[chosen], where, marker, color=colour, alpha=0.6, linestyle="none")
    ax.axvspan(0, 100 * bound, color="#eeeeee", zorder=0)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.set(ylim=(len(names) - 0.5, -0.5), xlabel="gap in points", xlim=(-0.5, None))
    ax.grid(axis="x")


def intervals(ax: Axes, values: Mapping[str, Interval]) -> None:
    """Draw values with their intervals, a row for each name."""
    for row, value in enumerate(values.values()):
        ax.hlines(row, value.low, value.high, color=CLASS_COLOURS[0], alpha=0.5)
        ax.plot(value.value, row, "o", color=CLASS_COLOURS[0])
    ax.set_yticks(range(len(values)), list(values), fontsize=9)
    ax.set(ylim=(len(values) - 0.5, -0.5))
    ax.grid(axis="x")
