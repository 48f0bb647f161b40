"""Draw the report of a check."""

from typing import Any

import numpy as np

COLOURS = {"dark": "#14327d", "bound": "#6b6b6b"}


def draw(report: Any, axes: Any = None) -> Any:
    """Draw accuracies by solver, how far each end state moved, and errors by step size.

    Args:
        report: A FlowReport.
        axes: Two or three of matplotlib's, made where not given; the errors go on the third.

    Returns:
        The figure.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("plot needs matplotlib: pip install matplotlib") from error

    if axes is None:
        n = 3 if report.curve else 2
        _, axes = plt.subplots(1, n, figsize=(4 * n, 3.2), layout="constrained")
    _draw_solvers(report, axes[0])
    _draw_distances(report, axes[1])
    if len(axes) > 2:
        _draw_errors(report, axes[2])
    return axes[0].figure


def _draw_solvers(report: Any, ax: Any) -> None:
    rows = report.tested[::-1]
    shown = [row.changed if row.accuracy is None else row.accuracy for row in rows]
    errors = [[v.value - v.low for v in shown], [v.high - v.value for v in shown]]
    ax.errorbar(
        [v.value for v in shown], range(len(rows)), xerr=np.maximum(errors, 0.0), fmt="o",
        color=COLOURS["dark"],
    )  # fmt: skip
    ax.set_yticks(range(len(rows)), [str(row.setting) for row in rows])
    own = shown[-1].value  # 0 where the answers that change are drawn
    for bound in (own - report.bound, own + report.bound):
        if 0 <= bound <= 1:
            ax.axvline(bound, color=COLOURS["bound"], linestyle="--")
    name = "share of changed answers" if report.training.accuracy is None else "accuracy"
    ax.set(xlabel=name, title=report.verdict, ylim=(-0.5, len(rows) - 0.5))


def _draw_distances(report: Any, ax: Any) -> None:
    solid, dashed = {"color": COLOURS["dark"]}, {"color": COLOURS["bound"], "linestyle": "--"}
    _draw_shares(ax, report.distances, label="moved by", **solid)
    if report.margins is not None:
        _draw_shares(ax, report.margins, label="margin", **dashed)
    if isinstance(report.tolerance, float) and report.tolerance_of == "end states":
        ax.axvline(report.tolerance, label="tolerance", **dashed)
    scale = "log" if (report.distances > 0).any() else "linear"
    ax.set(xlabel="distance", ylabel="share of samples", ylim=(0, 1.02), xscale=scale)
    ax.xaxis.set_minor_formatter("")
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    ax.legend(**above, ncols=2, fontsize="small", frameon=False, columnspacing=1.0)


def _draw_errors(report: Any, ax: Any) -> None:
    """Draw the error over step size or tolerance: wrong answers, or else the median distance."""
    curve = [error for error in report.curve if np.isfinite(error.distance)]
    if not curve:
        ax.set_axis_off()
        return
    sizes, labels = [error.size for error in curve], curve[0].wrong is not None
    if labels:
        shown = [error.wrong for error in curve]
        ax.fill_between(
            sizes, [v.low for v in shown], [v.high for v in shown], color=COLOURS["dark"],
            alpha=0.15, linewidth=0,
        )  # fmt: skip
    values = [error.wrong.value if labels else error.distance for error in curve]
    ax.plot(sizes, values, marker="o", color=COLOURS["dark"])
    own = [error.size for error in curve if error.setting == report.training.setting]
    for size in own:
        ax.axvline(size, color=COLOURS["bound"], linestyle="--")
        ax.annotate(
            "training", (size, 1), xycoords=("data", "axes fraction"), rotation=90, ha="right",
            xytext=(-3, 0), textcoords="offset points", va="top", fontsize="small",
            color=COLOURS["bound"],
        )  # fmt: skip
    name = "tolerance" if report.training.setting.rtol is not None else "step size $h$"
    error = "wrong answers" if labels else "median distance"
    ax.set(xlabel=name, ylabel=error, xscale="log", yscale="linear" if labels else "log")
    shown = sorted({sizes[0], *own, sizes[-1]})
    ax.set_xticks(shown, [f"{size:.3g}" for size in shown])
    ax.set_xticks([], minor=True)


def _draw_shares(ax: Any, values: np.ndarray, **style: Any) -> None:
    """Draw the share of values that are smaller, over the value."""
    values = np.sort(values[np.isfinite(values)])
    ax.plot(values, np.arange(1, len(values) + 1) / max(1, len(values)), marker="", **style)
