"""Trajectories, crossings and vector fields in the plane."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from nodecore.pages.plots.style import (
    CROSSING_COLOUR,
    GREY,
    MODEL_STYLES,
    Style,
    class_style,
    ring,
    solver_style,
)

FIXED_POINT_STYLES: dict[str, Style] = {
    "sink": {"s": 60, "marker": "o", "facecolor": "black", "edgecolor": "white", "zorder": 6},
    "saddle": {"s": 50, "marker": "X", "facecolor": "#cc4a0c", "edgecolor": "white", "zorder": 5},
    "source": {"s": 45, "marker": "o", "facecolor": "white", "edgecolor": "black", "zorder": 5},
}


def trajectories(
    ax: Axes,
    path: ArrayLike,
    labels: ArrayLike,
    crossings: ArrayLike | None = None,
    mark_steps: bool = False,
    size: float = 1.0,
) -> None:
    """Trajectories (n_points, N, 2) in the plane, coloured by class `labels` (N,), starts marked.

    crossings: points (M, 2) to ring. mark_steps: a dot at each state, where steps are few. size: of
    all symbols.
    """
    path, labels = np.asarray(path), np.asarray(labels)
    for label in np.unique(labels):
        style, lines = class_style(int(label)), path[:, labels == label]
        ax.add_collection(
            LineCollection(
                list(lines.swapaxes(0, 1)), colors=style["color"], linewidths=0.9 * size, alpha=0.8
            )
        )
        if mark_steps:
            ax.scatter(*lines[1:].reshape(-1, 2).T, s=5 * size, color=style["color"], linewidths=0)
        ax.scatter(*lines[0].T, s=18 * size, edgecolors="white", linewidths=0.5, zorder=3, **style)
    if crossings is not None:
        outline = {"facecolors": "none", "edgecolors": CROSSING_COLOUR, "linewidths": 0.8}
        ax.scatter(*np.asarray(crossings).T, s=22 * size, zorder=4, **outline)
    ax.set(xlabel="$z_1$", ylabel="$z_2$")


def zoom(ax: Axes, path: ArrayLike) -> None:
    """Limit the axes to the starts in `path` (n_points, N, 2) and 90 % of its states."""
    path = np.asarray(path)
    low, high = np.quantile(path.reshape(-1, 2), [0.05, 0.95], axis=0)
    low, high = np.minimum(low, path[0].min(0)), np.maximum(high, path[0].max(0))
    margin = 0.05 * (high - low)
    (x0, y0), (x1, y1) = low - margin, high + margin
    ax.set(xlim=(x0, x1), ylim=(y0, y1))


def trajectory_handles(names: Iterable[str]) -> list[Line2D]:
    """Legend handles of `trajectories`: the start of each class, and the ring of a crossing."""
    handles = [
        Line2D([], [], linestyle="-", linewidth=0.9, label=name, **class_style(label))
        for label, name in enumerate(names)
    ]
    outline: Style = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": CROSSING_COLOUR}
    return [*handles, Line2D([], [], linestyle="none", markersize=5, label="crossing", **outline)]


def accuracy_by_steps(ax: Axes, table: pd.DataFrame, n_steps: int) -> None:
    """Accuracy against the number of test steps, a line for each test solver.

    table: a frame with test_solver, test_n_steps and accuracy, one row a seed; the line is the mean
    over the seeds, the band their range. A ring marks Euler's method at the training n_steps.
    """
    for solver, rows in table.groupby("test_solver"):
        style = solver_style(str(solver))
        accuracies = rows.groupby("test_n_steps")["accuracy"]
        spread = pd.DataFrame(accuracies.agg(["mean", "min", "max"]))
        ax.plot(spread["mean"], markersize=4.5, linewidth=1.2, **style)
        ax.fill_between(
            spread.index,
            spread["min"],
            spread["max"],
            color=style["color"],
            alpha=0.12,
            linewidth=0,
        )
    own = table.loc[(table["test_solver"] == "euler") & (table["test_n_steps"] == n_steps)]
    ring(ax, n_steps, own["accuracy"].mean(), label="training step")
    ax.set_xscale("log", base=2)
    ax.set(xlabel="number of test steps $K$", ylabel="test accuracy", ylim=(0, 1))
    ax.grid(axis="y")


def crossing_shares(
    ax: Axes, shares: pd.DataFrame, trained_at: Mapping[str, int], n_pairs: int
) -> None:
    """Share of pairs of trajectories that cross against the number of steps, one line a model.

    shares: frame, index n_steps, one column a model, three at most. trained_at: the training
    n_steps of the models that have one, to be ringed. The axis is linear below 1 / n_pairs.
    """
    for style, name in zip(MODEL_STYLES, shares, strict=False):
        ax.plot(shares[name], linewidth=1.4, label=name, clip_on=False, zorder=3, **style)
    for name, n_steps in trained_at.items():
        ring(ax, n_steps, shares.loc[n_steps, name])
    ticks = [0, *(10.0**e for e in range(-4, 1) if 10.0**e > 1 / n_pairs)]
    ax.set_xscale("log", base=2)
    ax.set_yscale("symlog", linthresh=1 / n_pairs, linscale=0.4)
    ax.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    ax.set(xlabel="number of Euler steps $K$", ylabel="pairs that cross", ylim=(0, 1))
    ax.yaxis.minorticks_off()
    ax.grid(axis="y")


def field_lines(
    ax: Axes,
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    arrows: ArrayLike,
    fixed_points: ArrayLike,
    kinds: Sequence[str],
) -> None:
    """Field lines of arrows (len(y), len(x), 2) over the grid x, y; the darker the faster.

    fixed_points: points (M, 2), marked by their `kinds`, "sink", "saddle" or "source".
    """
    u, v = np.moveaxis(np.asarray(arrows), -1, 0)
    speed = np.log10(np.hypot(u, v) + 1e-12)
    extent = (min(x), max(x), min(y), max(y))
    shades = {"vmin": speed.max() - 2, "vmax": speed.max() + 1.5}  # light enough to draw on
    ax.imshow(
        speed,
        extent=extent,
        origin="lower",
        cmap="Greys",
        aspect="auto",
        interpolation="bilinear",
        **shades,
    )
    ax.streamplot(x, y, u, v, color="#3d5a80", density=1.1, linewidth=0.7, arrowsize=0.8)
    for kind, style in FIXED_POINT_STYLES.items():
        here = [k == kind for k in kinds]
        ax.scatter(*np.asarray(fixed_points)[here].T, label=kind, **style)
    ax.set(xlabel="$z_1$", ylabel="$z_2$", xlim=extent[:2], ylim=extent[2:])


def deformed_mesh(ax: Axes, corners: ArrayLike) -> None:
    """A mesh of corners (rows, columns, 2); cells that are turned over are filled."""
    corners = np.asarray(corners)
    lines = [*corners, *corners.transpose(1, 0, 2)]
    ax.add_collection(LineCollection(lines, colors=GREY, linewidths=0.4))
    cells = np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], -2)
    turned = cells[_signed_areas(cells) < 0]
    ax.add_collection(PolyCollection(list(turned), facecolors=CROSSING_COLOUR, alpha=0.4))
    ax.autoscale_view()


def _signed_areas(quadrilaterals):
    """(..., 4, 2) -> (...): negative where the corners run clockwise."""
    (ax, ay), (bx, by) = (
        np.moveaxis(quadrilaterals[..., i + 2, :] - quadrilaterals[..., i, :], -1, 0)
        for i in (0, 1)
    )
    return (ax * by - ay * bx) / 2


def one_step(
    ax: Axes, solution: ArrayLike, steps: Mapping[str, tuple[ArrayLike, ArrayLike]]
) -> None:
    """One step of each method along a curve (n, 2), with the slopes that it asks for.

    steps: by solver, the states (stages + 1, 2) of its stages and at its end, and the slopes
    (stages, 2) at the former.
    """
    style = {"color": GREY, "linewidth": 3, "alpha": 0.4, "marker": "", "label": "solution"}
    ax.plot(*np.asarray(solution).T, **style)
    for solver, (states, slopes) in steps.items():
        states, short, style = np.asarray(states), 0.06 * np.asarray(slopes), solver_style(solver)
        for line in np.stack([states[:-1] - short, states[:-1] + short], axis=1):
            ax.plot(*line.T, color=style["color"], linewidth=2, marker="")
        ax.plot(*states[[0, -1]].T, markersize=7, markevery=[1], **style)
    ax.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
