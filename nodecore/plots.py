"""Arrays -> matplotlib axes: one function per family of figures.

Every function draws on axes that it is given and never solves or trains. Classes and solvers are
told apart twice, by colour and by marker, and the colours differ in lightness, so that a figure
survives greyscale print and colour blindness.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogFormatterSciNotation

from nodecore.paper import scale_note

# Dark, middle and light (CIE L* about 22, 49, 70), in hues that no common colour
# blindness mixes up.
CLASS_COLOURS = ("#14327d", "#cc4a0c", "#3fb8ae")
CLASS_MARKERS = ("o", "^", "s")
# The paper's markers: circles for Euler's method, crosses for midpoint, triangles for rk4.
SOLVER_STYLES = {
    "euler": {"color": "#14327d", "marker": "o", "linestyle": "-", "label": "Euler"},
    "midpoint": {"color": "#cc4a0c", "marker": "X", "linestyle": "--", "label": "midpoint"},
    "rk4": {"color": "#2a9d94", "marker": "^", "linestyle": ":", "label": "rk4"},
}
GREY = "#6b6b6b"
MODEL_STYLES = (
    {"color": GREY, "marker": "D", "linestyle": ":"},
    {"color": "#14327d", "marker": "o", "linestyle": "-"},
    {"color": "#c2007a", "marker": "s", "linestyle": "--"},
)
FIXED_POINT_STYLES = {
    "sink": {"s": 60, "marker": "o", "facecolor": "black", "edgecolor": "white", "zorder": 6},
    "saddle": {"s": 50, "marker": "X", "facecolor": "#cc4a0c", "edgecolor": "white", "zorder": 5},
    "source": {"s": 45, "marker": "o", "facecolor": "white", "edgecolor": "black", "zorder": 5},
}
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


def class_style(label: int) -> dict:
    """Colour and marker of class `label`; past three classes they repeat in new combinations."""
    n = len(CLASS_COLOURS)
    shift = (label + label // n) % n
    return {"color": CLASS_COLOURS[label % n], "marker": CLASS_MARKERS[shift]}


def class_legend(ax: Axes, names, **options) -> None:
    """One marker per class; `names` in the order of the labels, `options` as for `ax.legend`."""
    handles = [
        Line2D([], [], linestyle="none", label=name, **class_style(label))
        for label, name in enumerate(names)
    ]
    ax.legend(handles=handles, **options)


# --- trajectories and vector fields ---------------------------------------------------------------


def trajectories(
    ax: Axes, path, labels, crossings=None, mark_steps: bool = False, size: float = 1.0
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
                lines.swapaxes(0, 1), colors=style["color"], linewidths=0.9 * size, alpha=0.8
            )
        )
        if mark_steps:
            ax.scatter(*lines[1:].reshape(-1, 2).T, s=5 * size, color=style["color"], linewidths=0)
        ax.scatter(*lines[0].T, s=18 * size, edgecolors="white", linewidths=0.5, zorder=3, **style)
    if crossings is not None:
        ring = {"facecolors": "none", "edgecolors": CROSSING_COLOUR, "linewidths": 0.8}
        ax.scatter(*np.asarray(crossings).T, s=22 * size, zorder=4, **ring)
    ax.set(xlabel="$z_1$", ylabel="$z_2$")


def zoom(ax: Axes, path, share: float = 0.9) -> None:
    """Limit the axes to the starts in `path` (n_points, N, 2) and the central share of states."""
    path = np.asarray(path)
    low, high = np.quantile(path.reshape(-1, 2), [(1 - share) / 2, (1 + share) / 2], axis=0)
    low, high = np.minimum(low, path[0].min(0)), np.maximum(high, path[0].max(0))
    margin = 0.05 * (high - low)
    (x0, y0), (x1, y1) = low - margin, high + margin
    ax.set(xlim=(x0, x1), ylim=(y0, y1))


def trajectory_handles(names, crossings: bool = True) -> list[Line2D]:
    """Legend handles of `trajectories`: the start of each class, and the ring of a crossing."""
    handles = [
        Line2D([], [], linestyle="-", linewidth=0.9, label=name, **class_style(label))
        for label, name in enumerate(names)
    ]
    if crossings:
        ring = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": CROSSING_COLOUR}
        handles.append(Line2D([], [], linestyle="none", markersize=5, label="crossing", **ring))
    return handles


def accuracy_by_steps(ax: Axes, table, n_steps: int) -> None:
    """Accuracy against the number of test steps, a line for each test solver.

    table: a frame with test_solver, test_n_steps and accuracy, one row a seed; the line is the mean
    over the seeds, the band their range. A ring marks Euler's method at the training n_steps.
    """
    for solver, rows in table.groupby("test_solver"):
        style = SOLVER_STYLES[solver]
        spread = rows.groupby("test_n_steps")["accuracy"].agg(["mean", "min", "max"])
        ax.plot(spread["mean"], markersize=4.5, linewidth=1.2, **style)
        ax.fill_between(
            spread.index,
            spread["min"],
            spread["max"],
            color=style["color"],
            alpha=0.12,
            linewidth=0,
        )
    own = table[(table["test_solver"] == "euler") & (table["test_n_steps"] == n_steps)]
    _ring(ax, n_steps, own["accuracy"].mean(), label="training step")
    ax.set_xscale("log", base=2)
    ax.set(xlabel="number of test steps $K$", ylabel="test accuracy", ylim=(0, 1))
    ax.grid(axis="y")


def crossing_shares(ax: Axes, shares, trained_at, n_pairs: int) -> None:
    """Share of pairs of trajectories that cross against the number of steps, one line a model.

    shares: frame, index n_steps, one column a model, three at most. trained_at: the training
    n_steps of the models that have one, to be ringed. The axis is linear below 1 / n_pairs.
    """
    for style, name in zip(MODEL_STYLES, shares, strict=False):
        ax.plot(shares[name], linewidth=1.4, label=name, clip_on=False, zorder=3, **style)
    for name, n_steps in trained_at.items():
        _ring(ax, n_steps, shares[name][n_steps])
    ticks = [0, *(10.0**e for e in range(-4, 1) if 10.0**e > 1 / n_pairs)]
    ax.set_xscale("log", base=2)
    ax.set_yscale("symlog", linthresh=1 / n_pairs, linscale=0.4)
    ax.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    ax.set(xlabel="number of Euler steps $K$", ylabel="pairs that cross", ylim=(0, 1))
    ax.yaxis.minorticks_off()
    ax.grid(axis="y")


def field_lines(ax: Axes, x, y, arrows, fixed_points, kinds) -> None:
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


def _ring(ax, x, y, **options):
    ring = {"markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 1.5}
    ax.plot([x], [y], marker="o", markersize=12, linestyle="none", zorder=5, **ring, **options)


# --- data sets ------------------------------------------------------------------------------------


def stamp_profile(fig, profile: str) -> None:
    """Say in the picture that its runs are smaller than the paper's, where they are."""
    if profile != "paper":
        fig.suptitle(
            f"profile {profile}: smaller than the paper's scale", fontsize=10, color=CROSSING_COLOUR
        )


def stamp_panel(ax: Axes, text: str) -> None:
    """Say in one panel what sets its runs apart from the paper's scale."""
    ax.text(0.02, 0.04, text, transform=ax.transAxes, fontsize=9, color=CROSSING_COLOUR)


def labelled_points(ax: Axes, points, labels, size=8) -> None:
    """Points (N, 2) with colour and marker of their class `labels` (N,).

    size: of every symbol, or one for each class.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    sizes = np.broadcast_to(size, (labels.max() + 1,)) if np.ndim(size) == 0 else size
    for label in np.unique(labels):
        here = points[labels == label]
        ax.scatter(*here.T, s=sizes[label], linewidths=0, zorder=3, **class_style(int(label)))


def potential_landscape(ax: Axes, x, v, minima, maxima, names) -> None:
    """A potential v(x) with its minima, one of each class, and the maxima that part them.

    minima, maxima: points (M, 2); names: of the minima.
    """
    ax.plot(x, v, color="black", linewidth=1.2, marker="")
    for label, (point, name) in enumerate(zip(minima, names, strict=True)):
        ax.plot(*point, linestyle="none", markersize=9, label=name, **class_style(label))
    ax.plot(*np.transpose(maxima), "v", color="white", markeredgecolor="black", label="maximum")
    ax.set(xlabel="position $x$", ylabel="potential $V(x)$")


def basins(ax: Axes, x, y, labels, boundaries=()) -> None:
    """Regions by class, labels (len(y), len(x)) as tints, and boundary curves (P, 2) in black."""
    colours = ListedColormap(CLASS_COLOURS)
    last = len(CLASS_COLOURS) - 1
    ax.pcolormesh(x, y, labels, cmap=colours, vmin=0, vmax=last, alpha=0.3, rasterized=True)
    for curve in boundaries:
        ax.plot(*np.transpose(curve), color="black", linewidth=0.7, marker="")
    ax.set(xlim=(min(x), max(x)), ylim=(min(y), max(y)))


def positions_over_time(ax: Axes, ts, path, labels, minima) -> None:
    """First coordinates of trajectories (n_points, N, 2) against time, and the minima reached."""
    for line, label in zip(np.asarray(path)[..., 0].T, np.asarray(labels), strict=True):
        ax.plot(ts, line, color=class_style(int(label))["color"], linewidth=0.7, marker="")
    for label, x in enumerate(minima):
        ax.plot(ts[-1], x, clip_on=False, markersize=9, **class_style(label))
    ax.set(xlabel="time $t$", ylabel="position $x$", xlim=(ts[0], ts[-1]))


def deformed_mesh(ax: Axes, corners) -> None:
    """A mesh of corners (rows, columns, 2); cells that are turned over are filled."""
    corners = np.asarray(corners)
    lines = [*corners, *corners.transpose(1, 0, 2)]
    ax.add_collection(LineCollection(lines, colors=GREY, linewidths=0.4))
    cells = np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], -2)
    turned = cells[_signed_areas(cells) < 0]
    ax.add_collection(PolyCollection(turned, facecolors=CROSSING_COLOUR, alpha=0.4))
    ax.autoscale_view()


def _signed_areas(quadrilaterals):
    """(..., 4, 2) -> (...): negative where the corners run clockwise."""
    (ax, ay), (bx, by) = (
        np.moveaxis(quadrilaterals[..., i + 2, :] - quadrilaterals[..., i, :], -1, 0)
        for i in (0, 1)
    )
    return (ax * by - ay * bx) / 2


def radii(ax: Axes, values, labels) -> None:
    """Histogram of the radii (N,) of each class, labels (N,)."""
    values, labels = np.asarray(values), np.asarray(labels)
    bins = np.linspace(0, values.max() * 1.05, 50)
    for label in np.unique(labels):
        colour = class_style(int(label))["color"]
        ax.hist(values[labels == label], bins, color=colour, hatch="//" * int(label))
    ax.set(xlabel="radius", ylabel="points")


def labelled_images(axes, pixels, titles) -> None:
    """An image (channels, height, width) on each of the axes, as far as there are any."""
    for ax in axes:
        ax.axis("off")
    for ax, image, title in zip(axes, pixels, titles, strict=False):
        ax.imshow(np.moveaxis(np.asarray(image), 0, -1).squeeze(), cmap="gray")
        ax.set_title(title, fontsize=9)


# --- accuracy under other solvers -----------------------------------------------------------------

NAMES = {
    "euler": "Euler",
    "fehlberg21": "Fehlberg 2(1)",
    "dopri5": "Dopri 5(4)",
    "landscape": "energy landscape",
    "spheres2": "spheres, 2-D",
    "spheres3": "spheres, 3-D",
    "spheres10": "spheres, 10-D",
    "spheres900": "spheres, 900-D",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "algorithm1": "Algorithm 1",
    "confirmed-increase": "confirmed increase",
    "settling-gap": "settling by gap",
    "settling-discord": "settling by discord",
    "settling-closeness": "settling by closeness",
    "settling-bend": "settling by bend",
    "remembering-gap": "remembering gap",
    "remembering-discord": "remembering discord",
    "euclidean": "Euclidean norms",
    "hairer": "scaled norms",
}
CLASSES = {  # of the data sets in the plane, by label
    "spheres2": ["inner and outer shell", "middle shell"],
    "landscape": ["left minimum", "middle minimum", "right minimum"],
}
IMAGE_CLASSES = {
    "mnist": [str(digit) for digit in range(10)],
    "cifar10": ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
}


def name_of(name: str) -> str:
    """A data set, solver, controller or start as text calls it."""
    return NAMES.get(name, name)


def step_colours(grid) -> dict:
    """A colour for each training n_steps or tolerance, dark to light in the order given."""
    return dict(zip(grid, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(grid))), strict=True))


def cross_solver(ax: Axes, table, colours, test_steps) -> None:
    """Mean accuracy against test steps, a colour for each training n_steps (a paper's Fig. 3).

    table: records of one training solver, seeds that count only. test_steps: training n_steps ->
    the test n_steps to show. The large dark symbol is the training solver at its own step.
    """
    if table.empty:
        ax.text(0.5, 0.5, "no records", transform=ax.transAxes, ha="center", color=GREY)
    for n_steps, colour in colours.items():
        rows = table[
            (table["n_steps"] == n_steps) & table["test_n_steps"].isin(test_steps[n_steps])
        ]
        for solver, line in rows.groupby("test_solver"):
            means = line.groupby("test_n_steps")["accuracy"].mean()
            style = {"marker": SOLVER_STYLES[solver]["marker"], "color": colour}
            ax.plot(means, linewidth=0.7, alpha=0.5, markersize=4.5, markeredgewidth=0, **style)
            if line["train_solver"].iloc[0] == solver and n_steps in means:
                own = {"markeredgecolor": "black", "markersize": 9, "zorder": 4}
                ax.plot(n_steps, means[n_steps], **style, **own)
    _accuracy_axes(ax)
    _steps_axis(ax, "number of test steps $K$")


def cross_solver_handles(colours, solvers) -> list[Line2D]:
    """Legend of `cross_solver`: training n_steps by colour, solvers by marker."""
    ks = [Line2D([], [], color=c, linewidth=5, label=f"$K={k:g}$") for k, c in colours.items()]
    marks = [
        Line2D([], [], color=GREY, linewidth=0, marker=s["marker"], label=f"test: {s['label']}")
        for s in (SOLVER_STYLES[name] for name in solvers)
    ]
    own = Line2D([], [], color=GREY, linewidth=0, marker="o", markersize=9, markeredgecolor="black")
    own.set_label("dark edge: as trained")
    return [*ks, *marks, own]


def accuracy_of_seeds(ax: Axes, table, colour) -> None:
    """Accuracy of every seed against test steps, for one training n_steps (paper's Fig. 7 to 12).

    table: records of one run; seeds that did not train are grey.
    """
    for (_, solver), rows in table.groupby(["seed", "test_solver"]):
        rows = rows.sort_values("test_n_steps")
        shown = colour if rows["trained"].iloc[0] else "#b5b5b5"
        style = {"marker": SOLVER_STYLES[solver]["marker"], "color": shown}
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
    _accuracy_axes(ax)
    _steps_axis(ax, "number of test steps $K$")


def train_test_map(ax: Axes, means, what: str = "steps $K$") -> None:
    """Accuracies by training n_steps or tolerance (index) and test ones (columns), as numbers."""
    values = means.to_numpy(dtype=float)
    ax.imshow(values, cmap="viridis", vmin=0.3, vmax=1, aspect="auto", origin="lower")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            shade = "black" if value > 0.75 else "white"
            own = "bold" if means.index[i] == means.columns[j] else None
            text = {"ha": "center", "va": "center", "fontsize": 7.5, "fontweight": own}
            ax.text(j, i, f"{100 * value:.0f}", color=shade, **text)
    for i, n_steps in enumerate(means.index):
        if n_steps in means.columns:
            j = list(means.columns).index(n_steps)
            box = plt.Rectangle(
                (j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.5
            )
            ax.add_patch(box)
    ax.set_xticks(range(len(means.columns)), map(_short, means.columns))
    ax.set_yticks(range(len(means.index)), map(_short, means.index))
    ax.set(xlabel=f"test {what}", ylabel=f"training {what}")


def _short(value):
    return f"{value:g}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


def agreement(ax: Axes, gaps, exact_gaps, seed_gaps, solver: str) -> None:
    """Loss of accuracy under a better solver against training n_steps.

    gaps, exact_gaps: series by n_steps, of the means against the test solver and the exact flow.
    seed_gaps: frame, a column for each seed, against the test solver.
    """
    style = {**SOLVER_STYLES[solver], "label": None}
    pale = {**style, "linestyle": "none", "markersize": 3, "alpha": 0.35}
    for seed in seed_gaps:
        ax.plot(seed_gaps[seed], **pale)
    ax.plot(gaps, **style, linewidth=1.5, markersize=7)
    ax.plot(exact_gaps, color=style["color"], linewidth=0.9, marker="", linestyle=(0, (1, 1)))
    _steps_axis(ax, "training steps $K$")
    ax.set(ylabel="gap of accuracy")
    ax.grid(axis="y")


def agreement_handles(solvers) -> list[Line2D]:
    """Legend of `agreement`."""
    handles = [
        Line2D([], [], **{**SOLVER_STYLES[s], "label": f"trained with {name_of(s)}"})
        for s in solvers
    ]
    exact = Line2D([], [], color=GREY, linewidth=0.9, linestyle=(0, (1, 1)))
    exact.set_label("against the exact flow")
    return [*handles, exact]


def seeds_over_steps(ax: Axes, table, style) -> None:
    """Each seed (pale) and the mean against training n_steps; table: n_steps by seed."""
    pale = {"marker": style["marker"], "color": style["color"], "linestyle": "none"}
    for seed in table:
        ax.plot(table[seed], **pale, markersize=3, alpha=0.35)
    ax.plot(table.mean(axis=1), linewidth=1.5, markersize=6, **style)
    _steps_axis(ax, "training steps $K$")
    ax.grid(axis="y")


def bounds_over_steps(ax: Axes, low, high, style) -> None:
    """A quantity that lies between two bounds against training n_steps; tables: n_steps by seed.

    Line: mean of the lower bounds; band: up to the mean of the upper ones; dashed: one.
    """
    seeds_over_steps(ax, low, style)
    mean = low.mean(axis=1)
    ax.fill_between(mean.index, mean, high.mean(axis=1), color=style["color"], alpha=0.15)
    ax.axhline(1, color="black", linewidth=0.8, linestyle="--")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


SHARE_STYLES = (
    {"color": "#14327d"},
    {"color": "#b9c4e4", "hatch": "//"},
    {"color": "#cc4a0c", "hatch": ".."},
)


def stacked_shares(ax: Axes, table) -> None:
    """Shares that add up to one, a column each (three at most), by training n_steps (index)."""
    bottom = np.zeros(len(table))
    for name, style in zip(table, SHARE_STYLES, strict=False):
        bar = {"width": 0.8, "label": name, "edgecolor": "white", "linewidth": 0.5}
        ax.bar(range(len(table)), table[name], bottom=bottom, **bar, **style)
        bottom += table[name].to_numpy()
    ax.set_xticks(range(len(table)), [f"{k:g}" for k in table.index])
    ax.set(xlabel="training steps $K$", ylabel="share of test samples", ylim=(0, 1))


def threshold_line(ax: Axes, value: float) -> None:
    """The largest gap that counts as agreement, and what lies below it."""
    ax.axhspan(0, value, color="#eeeeee", zorder=0)
    ax.axhline(value, color="black", linewidth=0.8, linestyle="--")


def _accuracy_axes(ax):
    ax.set(ylabel="test accuracy", ylim=(0, 1.05))
    ax.grid(axis="y")


def _steps_axis(ax, label):
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator([4.0**i for i in range(6)]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:g}"))
    ax.xaxis.minorticks_off()
    ax.set_xlabel(label)


# --- step adaption --------------------------------------------------------------------------------


def over_iterations(ax: Axes, history, column: str, seeds) -> None:
    """A column of a training's history against the iteration, a line for each seed; n_steps on a
    logarithmic axis."""
    for seed, colour in step_colours(seeds).items():
        rows = history[(history["seed"] == seed) & history[column].notna()]
        line = {"color": colour, "linewidth": 0.8, "label": f"seed {seed}"}
        ax.plot(rows["iteration"], rows[column], marker="", **line)
    _iterations_axis(ax)
    if column == "n_steps":
        ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _iterations_axis(ax):
    ax.set_xlabel("iteration")
    ax.locator_params(axis="x", nbins=4)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.grid(axis="y")


def checks(ax: Axes, history) -> None:
    """Accuracies of a batch at the checks of one seed, under the training and the test solver."""
    for column, solver in {"train_accuracy": "euler", "test_accuracy": "midpoint"}.items():
        ax.plot(history["iteration"], history[column], markersize=4.5, **SOLVER_STYLES[solver])
    _mark_failed(ax, history)
    ax.set(ylabel="batch accuracy", ylim=(0, 1.05))
    ax.grid(axis="y")


def steps_at_checks(ax: Axes, history) -> None:
    """The number of steps of one seed, constant between the checks."""
    ax.step(history["iteration"], history["n_steps"], where="pre", color="black", marker="")
    _mark_failed(ax, history)
    ax.set(xlabel="iteration", ylabel="number of steps $K$", ylim=(0, None))
    ax.grid(axis="y")


def moments(ax: Axes, table) -> None:
    """Accuracies of one model at moments of its training, a group for each; columns moment, solver,
    factor (of the training's steps, growing from left to right within a group) and accuracy."""
    labels = list(dict.fromkeys(table["moment"]))
    factors = sorted(table["factor"].unique())
    for solver, rows in table.groupby("solver", sort=False):
        places = rows["moment"].map(labels.index) + 0.18 * (rows["factor"].map(factors.index) - 1.5)
        style = {**SOLVER_STYLES[solver], "linestyle": "none"}
        ax.plot(places, rows["accuracy"], markersize=7, alpha=0.85, **style)
    ax.set_xticks(range(len(labels)), labels, fontsize=9)
    ax.set(xlim=(-0.6, len(labels) - 0.4), ylabel="test accuracy")
    ax.grid(axis="y")


def _mark_failed(ax, history):
    failed = history[history["failed"].astype(bool)]["iteration"]
    for n, iteration in enumerate(failed):
        label = "failed check" if n == 0 else None
        ax.axvline(iteration, color=CROSSING_COLOUR, linewidth=0.9, linestyle="--", label=label)


# --- tolerances -----------------------------------------------------------------------------------


def accuracy_by_tolerance(ax: Axes, table, colour) -> None:
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
        means = rows[rows["trained"]].groupby("test_rtol")["accuracy"].mean()
        style = {"linestyle": "-" if own else "--", "linewidth": 1.6 if own else 1.0}
        style["label"] = f"trained at {rtol:g}" if own else None
        ax.plot(means, color=colour, marker="o" if own else "", markersize=4, **style)
        if own and rtol in means:
            _ring(ax, rtol, means[rtol])
    _accuracy_axes(ax)
    _tolerance_axis(ax)


def tolerance_handles() -> list[Line2D]:
    """Legend of `accuracy_by_tolerance`."""
    lines = {
        "mean": {"linewidth": 1.6, "marker": "o", "markersize": 4},
        "a seed": {"linewidth": 0.5},
        "mean, other method": {"linewidth": 1.0, "linestyle": "--"},
    }
    handles = [Line2D([], [], color=GREY, label=name, **style) for name, style in lines.items()]
    ring = {"linestyle": "none", "marker": "o", "markersize": 9, "markerfacecolor": "none"}
    return [*handles, Line2D([], [], color="black", label="as trained", **ring)]


def nfe_by_tolerance(ax: Axes, nfe, rtol: float, colour) -> None:
    """Evaluations, a series by test tolerance, fine to the right; a ring at the training rtol."""
    ax.plot(nfe, color=colour, marker="o", markersize=4, label=f"trained at {rtol:g}")
    if rtol in nfe:
        _ring(ax, rtol, nfe[rtol])
    _tolerance_axis(ax)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_ylabel("evaluations (NFE)")
    ax.grid(axis="y")


def gap_by_tolerance(ax: Axes, gaps, seed_gaps) -> None:
    """Loss of accuracy under the exact flow against the training's tolerance, fine to the right.

    gaps: series by rtol, of the means; seed_gaps: frame, a column for each seed (pale).
    """
    colour = SOLVER_STYLES["euler"]["color"]
    for seed in seed_gaps:
        pale = {"linestyle": "none", "marker": "o", "color": colour, "alpha": 0.35}
        ax.plot(seed_gaps[seed], markersize=3, **pale)
    ax.plot(gaps, color=colour, marker="o", linewidth=1.5, markersize=6)
    _tolerance_axis(ax, "tolerance of the training")
    ax.set_ylabel("gap of accuracy")
    ax.grid(axis="y")


def tolerance_over_iterations(ax: Axes, histories, critical) -> None:
    """The tolerance in use against the iteration, a line for each seed and a colour for each start.

    histories: by the tolerance that the adaption begins at. critical: the critical tolerance and
    the next coarser one, shaded; NaN where there is none.
    """
    ax.axhspan(*critical, color="#dddddd", zorder=0, label="critical range of fixed tolerances")
    colours = step_colours([*histories, None])  # without the lightest
    for first, history in histories.items():
        for _, rows in history[history["step_size"].notna()].groupby("seed"):
            line = {"color": colours[first], "linewidth": 0.8, "marker": ""}
            ax.plot(rows["iteration"], rows["step_size"], **line, label=f"begins at {first:g}")
    _iterations_axis(ax)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(LogFormatterSciNotation())


def accuracy_over_time(ax: Axes, table, style) -> None:
    """Accuracy against the time T that is integrated over: the mean, and each seed (pale).

    table: T (index) by seed.
    """
    for seed in table:
        pale = {**style, "linestyle": "none", "label": None}
        ax.plot(table[seed], **pale, markersize=3, alpha=0.35)
    ax.plot(table.mean(axis=1), **style, linewidth=1.5, markersize=6)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda T, _: f"{T:g}"))
    ax.xaxis.minorticks_off()
    ax.set_xlabel("time $T$")
    ax.grid(axis="y")


def _tolerance_axis(ax, label="tolerance of the test"):
    ax.set_xscale("log")
    if not ax.xaxis_inverted():
        ax.invert_xaxis()
    ax.xaxis.minorticks_off()
    ax.set_xlabel(label)


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
