"""What the explorers of trajectories share: models of data sets in the plane, starts, pictures."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from nodecore.analysis.crossings import separated_starts
from nodecore.pages import plots
from nodecore.pages.explorers.host import Explorer
from nodecore.pages.explorers.packing import Model
from nodecore.pages.explorers.runs import DrawnRun


class PlanarExplorer(Explorer):
    """Base of the explorers that draw trajectories; a subclass calls `_hold` before its traits."""

    def _hold(self, models: Sequence[Model], n_starts: int) -> None:
        """Keep the points of each data set, and starts of its trajectories that lie far apart."""
        self._points = _points_by_dataset(models)
        self._starts = {
            name: separated_starts(model.x, min(n_starts, len(model.x)))
            for name, model in self._points.items()
        }

    def _pack_datasets(self) -> list[dict]:
        """What the browser needs of the points."""
        return [model.dataset_data(self._starts[name]) for name, model in self._points.items()]

    def _start_labels(self, model: Model) -> Tensor:
        return model.y[self._starts[model.dataset]]

    def _draw_run(self, ax: Axes, run: DrawnRun, model: Model, mark_steps: bool = False) -> None:
        """Trajectories with their crossings, where most of their states lie."""
        labels = self._start_labels(model)
        plots.trajectories(ax, run.path, labels, run.crossings.points, mark_steps=mark_steps)
        plots.zoom(ax, run.path[:, run.path.isfinite().all(0).all(1)])


def _points_by_dataset(models):
    """The first model of each data set. Raises ValueError where another has other points."""
    points = {}
    for model in models:
        first = points.setdefault(model.dataset, model)
        if not torch.equal(first.x, model.x) or not torch.equal(first.y, model.y):
            raise ValueError(
                f"two models of {model.dataset!r} come with different points: give the same x and "
                "y, or different dataset names"
            )
    return points
