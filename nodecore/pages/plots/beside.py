"""The paper's numbers beside ours."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nodecore.claims.paper import scale_note
from nodecore.evidence.names import name_of
from nodecore.pages.plots.style import GREY, Style

SIDES: dict[str, Style] = {
    "paper": {"color": GREY, "marker": "D", "mfc": "white", "label": "paper"},
    "here": {"color": "#14327d", "marker": "o", "label": "here"},
}


def numbers_beside(left: Axes, right: Axes, table: pd.DataFrame) -> None:
    """Two rows for each training of `table` (see scorecard.table1): NFE left, accuracy right.

    Bars: the pair of the grid or the extent of the seeds' NFE, and the std of the accuracy.
    """
    trainings = [sides for _, sides in table.groupby(["dataset", "training"], sort=False)]
    for at, sides in enumerate(trainings):
        for row in sides.to_dict("records"):
            y = at + (0.15 if row["source"] == "here" else -0.15)
            style = {**SIDES[row["source"]], "linestyle": "none", "capsize": 3}
            middle = row["middle"]
            ends = [[middle - row["low"]], [row["high"] - middle]]
            left.errorbar(middle, y, xerr=ends, **style)
            deviation = 100 * np.nan_to_num(row["std"])
            right.errorbar(100 * row["accuracy"], y, xerr=deviation, **style)
    names = [_training_name(sides) for sides in trainings]
    left.set_yticks(range(len(names)), names)
    left.set(xscale="log", xlabel="NFE per iteration", ylim=(len(names) - 0.5, -0.5))
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter("")
    right.set(xlabel="test accuracy in per cent")


def _training_name(sides):
    """A row's label; what has another scale or other seeds than the paper says so."""
    dataset, training = sides[["dataset", "training"]].iloc[0]
    notes = filter(None, map(scale_note, sides["scale"]))
    return "\n".join([f"{name_of(dataset)}: {training}", *notes])


def numbers_beside_handles() -> list[Line2D]:
    """Legend entries for numbers_beside."""
    return [Line2D([], [], linestyle="none", **style) for style in SIDES.values()]
