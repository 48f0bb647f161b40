"""The pair explorer: two trainings of one network, solved with the same number of steps."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from nodecore.pages.explorers.bundle import bundle
from nodecore.pages.explorers.constants import MARKED_STEPS
from nodecore.pages.explorers.host import counted
from nodecore.pages.explorers.trajectory import TrajectoryExplorer


class PairExplorer(TrajectoryExplorer):
    """Two trainings of one network side by side; the reader drags the number of test steps.

    Its models and traits are those of a TrajectoryExplorer. Raises ValueError unless there are two
    models, of one data set.
    """

    _esm = bundle("pair.js")

    def __init__(self, *model: Any, **options: Any):
        super().__init__(*model, **options)
        if len(self._models) != 2 or len(self._points) != 1:
            raise ValueError(
                f"{len(self._models)} models of {len(self._points)} data sets: give two trainings "
                "of one data set"
            )

    def describe(self) -> str:
        told = [
            f"{model.title}, {100 * self._accuracy_of(model):.1f} % are "
            f"right and {len(self._run_of(model).crossings.pairs):,} pairs cross"
            for model in self._in_order()
        ]
        return f"Solved in {counted(self.n_steps, 'step')}: {'; '.join(told)}"

    def draw(self) -> Figure:
        figure, axes = plt.subplots(1, 2, figsize=(8, 4))
        for ax, model in zip(axes, self._in_order(), strict=True):
            run = self._run_of(model)
            self._draw_run(ax, run, model, mark_steps=self.n_steps <= MARKED_STEPS)
            ax.set_title(model.title, fontsize=9)
        return figure

    def _in_order(self):
        """The models as the page shows them, that of fewer steps first."""
        return sorted(self._models, key=lambda model: model.train_n_steps or 0)
