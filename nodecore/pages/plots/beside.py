"""The paper's numbers beside ours."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from nodecore.claims.paper import scale_note
from nodecore.evidence.names import name_of
from nodecore.pages.plots.style import GREY

# --- the paper's numbers and ours -----------------------------------------------------------------

SIDES = {
    "paper": {"color": GREY, "marker": "D", "mfc": "white", "label": "paper"},
    "here": {"color": "#14327d", "marker": "o", "label": "here"},
}


def numbers_beside(left: Axes, right: Axes, table) -> None:
    """Two rows for each training of `table` (see scorecard.table1): NFE left, accuracy right.

    Bars: the pair of the grid or the std of the NFE, and the std of the accuracy.
    """
    trainings = list(table.groupby(["dataset", "training"], sort=False))
    for at, (_, sides) in enumerate(trainings):
        for row in sides.itertuples():
            y = at + (0.15 if row.source == "here" else -0.15)
            style = {**SIDES[row.source], "linestyle": "none", "capsize": 3}
            ends = (row.high - row.low) / 2
            left.errorbar((row.low + row.high) / 2, y, xerr=ends, **style)
            right.errorbar(100 * row.accuracy, y, xerr=100 * np.nan_to_num(row.std), **style)
    names = [_training_name(*key, sides) for key, sides in trainings]
    left.set_yticks(range(len(names)), names)
    left.set(xscale="log", xlabel="NFE per iteration", ylim=(len(names) - 0.5, -0.5))
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    left.xaxis.set_minor_formatter("")
    right.set(xlabel="test accuracy in per cent")


def _training_name(dataset, training, sides):
    """A row's label; what has another scale or other seeds than the paper says so."""
    notes = filter(None, map(scale_note, sides["scale"]))
    return "\n".join([f"{name_of(dataset)}: {training}", *notes])


def numbers_beside_handles() -> list[Line2D]:
    """Legend entries for numbers_beside."""
    return [Line2D([], [], linestyle="none", **style) for style in SIDES.values()]
