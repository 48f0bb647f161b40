"""Colours, markers and axes that all figures share."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator
from matplotlib.typing import ColorType

from nodecore.evidence.names import name_of
from nodecore.ode.tableaus import TABLEAUS

Style = dict[str, Any]  # options of matplotlib's
Step = TypeVar("Step")  # n_steps, a tolerance, or a seed

# Dark, middle and light (CIE L* about 22, 49, 70), in hues that no common colour
# blindness mixes up.
CLASS_COLOURS = ("#14327d", "#cc4a0c", "#3fb8ae")
CLASS_MARKERS = ("o", "^", "s")
# The paper's markers: circles for Euler's method, crosses for midpoint, triangles for rk4.
PAPER_STYLES: dict[str, Style] = {
    "euler": {"color": "#14327d", "marker": "o", "linestyle": "-"},
    "midpoint": {"color": "#cc4a0c", "marker": "X", "linestyle": "--"},
    "rk4": {"color": "#2a9d94", "marker": "^", "linestyle": ":"},
}
OTHER_STYLES: list[Style] = [
    {"color": colour, "marker": marker, "linestyle": (0, dashes)}
    for marker, dashes in (("D", (4, 1, 1, 1)), ("v", (1, 2)), ("P", (6, 2)))
    for colour in ("#6d4a9c", "#8a6a1f", "#7d7d7d")
]
GREY = "#6b6b6b"
MODEL_STYLES: tuple[Style, ...] = (
    {"color": GREY, "marker": "D", "linestyle": ":"},
    {"color": "#14327d", "marker": "o", "linestyle": "-"},
    {"color": "#c2007a", "marker": "s", "linestyle": "--"},
)
CROSSING_COLOUR = "#c2007a"


def use_style() -> None:
    """Set the book's look: opaque white figures, readable type, a legend that needs no colour."""
    plt.rcParams.update(
        {
            "figure.dpi": 150,
            "figure.figsize": (8, 4),
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "savefig.facecolor": "white",
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.labelsize": 11,
            "axes.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.grid": False,
            "axes.prop_cycle": cycler(color=CLASS_COLOURS) + cycler(marker=CLASS_MARKERS),
            "grid.color": "#dddddd",
            "legend.frameon": False,
            "legend.fontsize": 10,
            "lines.markersize": 6,
        }
    )


def solver_style(solver: str) -> Style:
    """Colour, marker, line and label of a solver; the paper's three have styles of their own."""
    others = [name for name in TABLEAUS if name not in PAPER_STYLES]
    at = others.index(solver) if solver in others else 0
    style = PAPER_STYLES.get(solver) or OTHER_STYLES[at % len(OTHER_STYLES)]
    return {**style, "label": name_of(solver)}


def class_style(label: int) -> Style:
    """Colour and marker of class `label`; past three classes they repeat in new combinations."""
    n = len(CLASS_COLOURS)
    shift = (label + label // n) % n
    return {"color": CLASS_COLOURS[label % n], "marker": CLASS_MARKERS[shift]}


def class_legend(ax: Axes, names: Iterable[str], **options: Any) -> None:
    """Draw a marker per class; `names` in the order of the labels, `options` as for `ax.legend`."""
    handles = [
        Line2D([], [], linestyle="none", label=name, **class_style(label))
        for label, name in enumerate(names)
    ]
    ax.legend(handles=handles, **options)


def ring(ax: Axes, x: float, y: float, **options: Any) -> None:
    """Draw a ring around a point."""
    outline = {"markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 1.5}
    ax.plot([x], [y], marker="o", markersize=12, linestyle="none", zorder=5, **outline, **options)


def stamp_profile(fig: FigureBase, profile: str) -> None:
    """Say in the picture that its runs are smaller than the paper's, where they are."""
    if profile != "paper":
        fig.suptitle(
            f"profile {profile}: smaller than the paper's scale", fontsize=10, color=CROSSING_COLOUR
        )


def stamp_panel(ax: Axes, text: str) -> None:
    """Say in one panel what sets its runs apart from the paper's scale."""
    ax.text(0.02, 0.04, text, transform=ax.transAxes, fontsize=9, color=CROSSING_COLOUR)


def step_colours(grid: Sequence[Step]) -> dict[Step, ColorType]:
    """A colour for each training n_steps or tolerance, dark to light in the order given."""
    return dict(zip(grid, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(grid))), strict=True))


def seeds_and_mean(ax: Axes, seeds: pd.DataFrame, mean: pd.Series, style: Style) -> None:
    """Draw each seed, a column of `seeds`, as pale symbols, and the mean as a line."""
    style = {"linewidth": 1.5, "markersize": 6, **style}
    pale = {**style, "linestyle": "none", "markersize": 3, "alpha": 0.35, "label": None}
    for seed in seeds:
        ax.plot(seeds[seed], **pale)
    ax.plot(mean, **style)


def threshold_line(ax: Axes, value: float) -> None:
    """The largest gap that counts as agreement, and what lies below it."""
    ax.axhspan(0, value, color="#eeeeee", zorder=0)
    ax.axhline(value, color="black", linewidth=0.8, linestyle="--")


def accuracy_axes(ax: Axes) -> None:
    """Put the test accuracy along y."""
    ax.set(ylabel="test accuracy", ylim=(0, 1.05))
    ax.grid(axis="y")


def steps_axis(ax: Axes, label: str) -> None:
    """Put numbers of steps along x, by powers of two."""
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator([4.0**i for i in range(6)]))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.minorticks_off()
    ax.set_xlabel(label)
