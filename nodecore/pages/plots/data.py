"""Pictures of the data sets."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import ArrayLike

from nodecore.pages.plots.style import CLASS_COLOURS, class_style

Point = tuple[float, float] | np.ndarray


def labelled_points(
    ax: Axes, points: ArrayLike, labels: ArrayLike, size: float | Sequence[float] = 8
) -> None:
    """Points (N, 2) with colour and marker of their class `labels` (N,).

    size: of every symbol, or one for each class.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    sizes = np.asarray(size)
    sizes = np.broadcast_to(sizes, (labels.max() + 1,)) if sizes.ndim == 0 else sizes
    for label in np.unique(labels):
        here = points[labels == label]
        ax.scatter(*here.T, s=sizes[label], linewidths=0, zorder=3, **class_style(int(label)))


def potential_landscape(
    ax: Axes,
    x: ArrayLike,
    v: ArrayLike,
    minima: Sequence[Point],
    maxima: ArrayLike,
    names: Sequence[str],
) -> None:
    """A potential v(x) with its minima, one of each class, and the maxima that part them.

    minima, maxima: points (M, 2); names: of the minima.
    """
    ax.plot(x, v, color="black", linewidth=1.2, marker="")
    for label, (point, name) in enumerate(zip(minima, names, strict=True)):
        ax.plot(*point, linestyle="none", markersize=9, label=name, **class_style(label))
    ax.plot(*np.transpose(maxima), "v", color="white", markeredgecolor="black", label="maximum")
    ax.set(xlabel="position $x$", ylabel="potential $V(x)$")


def basins(
    ax: Axes,
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    labels: ArrayLike,
    boundaries: Iterable[ArrayLike] = (),
) -> None:
    """Regions by class, labels (len(y), len(x)) as tints, and boundary curves (P, 2) in black."""
    colours = ListedColormap(CLASS_COLOURS)
    last = len(CLASS_COLOURS) - 1
    ax.pcolormesh(x, y, labels, cmap=colours, vmin=0, vmax=last, alpha=0.3, rasterized=True)
    for curve in boundaries:
        ax.plot(*np.transpose(curve), color="black", linewidth=0.7, marker="")
    ax.set(xlim=(min(x), max(x)), ylim=(min(y), max(y)))


def positions_over_time(
    ax: Axes,
    ts: Sequence[float] | np.ndarray,
    path: ArrayLike,
    labels: ArrayLike,
    minima: Iterable[float],
) -> None:
    """First coordinates of trajectories (n_points, N, 2) against time, and the minima reached."""
    for line, label in zip(np.asarray(path)[..., 0].T, np.asarray(labels), strict=True):
        ax.plot(ts, line, color=class_style(int(label))["color"], linewidth=0.7, marker="")
    for label, x in enumerate(minima):
        ax.plot(ts[-1], x, clip_on=False, markersize=9, **class_style(label))
    ax.set(xlabel="time $t$", ylabel="position $x$", xlim=(ts[0], ts[-1]))


def radii(ax: Axes, values: ArrayLike, labels: ArrayLike) -> None:
    """Histogram of the radii (N,) of each class, labels (N,)."""
    values, labels = np.asarray(values), np.asarray(labels)
    bins = np.linspace(0, values.max() * 1.05, 50)
    for label in np.unique(labels):
        colour = class_style(int(label))["color"]
        ax.hist(values[labels == label], bins, color=colour, hatch="//" * int(label))
    ax.set(xlabel="radius", ylabel="points")


def labelled_images(
    axes: Collection[Axes], pixels: Iterable[ArrayLike], titles: Iterable[str]
) -> None:
    """An image (channels, height, width) on each of the axes, as far as there are any."""
    for ax in axes:
        ax.axis("off")
    for ax, image, title in zip(axes, pixels, titles, strict=False):
        ax.imshow(np.moveaxis(np.asarray(image), 0, -1).squeeze(), cmap="gray")
        ax.set_title(title, fontsize=9)
