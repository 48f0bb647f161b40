"""The trajectory explorer: a trained model under a solver and steps that the reader chooses."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor, nn

from nodecore.analysis.crossings import Crossings
from nodecore.evidence.found import Evidence
from nodecore.evidence.joined import training_of
from nodecore.evidence.names import name_of
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.tableaus import ButcherTableau, get_tableau
from nodecore.pages.explorers.bundle import bundle
from nodecore.pages.explorers.constants import MARKED_STEPS
from nodecore.pages.explorers.host import check_choice, check_evidence, counted
from nodecore.pages.explorers.packing import Model, pack_tableau
from nodecore.pages.explorers.planar import PlanarExplorer
from nodecore.pages.explorers.runs import draw_run, tell_chords

MAX_STEPS = 512


class TrajectoryExplorer(PlanarExplorer):
    """Interactive trajectories of a model, their crossings, its decision regions and accuracy.

    field, head, x, y: as for Model; `others`: further models to choose from. solvers: names of
    test solvers, or tableaus. n_starts: how many trajectories are drawn, from starts far apart.
    Every trait can be set and read, here and with the mouse: dataset, train_n_steps, seed, solver,
    n_steps, time (0 to 1), regions ("starts", "ends", "none"), view ("states", "starts"),
    show_field, and launched, the starts [x, y] of trajectories of one's own. `accuracy` and
    `crossings` follow.

    Raises ValueError for a model that cannot be shown, TraitError for a state that does not exist.
    """

    _esm = bundle("trajectory.js")
    dataset = traitlets.Unicode().tag(sync=True)
    train_n_steps = traitlets.Int(allow_none=True).tag(sync=True)
    seed = traitlets.Int().tag(sync=True)
    solver = traitlets.Unicode().tag(sync=True)
    n_steps = traitlets.Int(8).tag(sync=True)
    time = traitlets.Float(1.0, min=0.0, max=1.0).tag(sync=True)
    regions = traitlets.Enum(["starts", "ends", "none"], "starts").tag(sync=True)
    view = traitlets.Enum(["states", "starts"], "states").tag(sync=True)
    show_field = traitlets.Bool(False).tag(sync=True)
    launched = traitlets.List(
        traitlets.List(traitlets.Float(), minlen=2, maxlen=2), default_value=[]
    ).tag(sync=True)

    def __init__(
        self,
        field: nn.Module,
        head: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        others: Sequence[Model] = (),
        solvers: Sequence[str | ButcherTableau] = ("euler", "midpoint", "rk4"),
        n_starts: int = 100,
        n_steps: int | None = None,
        seed: int | None = None,
        **model: Any,
    ):
        first = Model(field, head, x, y, **model)
        self._models = [first, *others]
        self._hold(self._models, n_starts)
        self._tableaus = {tableau.name: tableau for tableau in map(get_tableau, solvers)}
        super().__init__(
            data=self._pack(),
            dataset=first.dataset,
            train_n_steps=first.train_n_steps,
            seed=first.seeds[0] if seed is None else seed,
            solver=next(iter(self._tableaus)),
            n_steps=n_steps or first.train_n_steps or 8,
        )

    @classmethod
    def from_evidence(cls, evidence: Sequence[Evidence], **options: Any) -> "TrajectoryExplorer":
        """The models of finished runs, the first one shown first; of a training that is named
        twice, also with other seeds, the first run counts.

        classes: the names of the labels by data set. options: as for the constructor. Raises
        ValueError where there is no run, or two trainings on one data set have the same K, by which
        the explorer tells them apart.
        """
        check_evidence(evidence)
        runs: dict[tuple, Evidence] = {}
        for found in evidence:
            run = found.run
            other = runs.setdefault((run.dataset, run.steps.n_steps), found).run
            if training_of(other) != training_of(run):
                raise ValueError(
                    f"evidence has {other.title} and {run.title}, both trained with "
                    f"K = {run.steps.n_steps}: give one of them"
                )
        first, *others = (Model.from_evidence(found) for found in runs.values())
        return cls(**vars(first), others=others, **options)

    def _pack(self):
        """What the browser needs; keys as in `js/trajectory/state.js`."""
        order = list(self._points)
        models = sorted(self._models, key=lambda m: (order.index(m.dataset), m.train_n_steps or 0))
        return {
            "datasets": self._pack_datasets(),
            "models": [model.model_data() for model in models],
            "solvers": [pack_tableau(tableau) for tableau in self._tableaus.values()],
            "max_steps": MAX_STEPS,
        }

    # --- the state ------------------------------------------------------------------------------

    @traitlets.validate("dataset", "solver", "n_steps", "train_n_steps", "seed")
    def _check(self, proposal):
        """Refuse what is not there; a model's own traits are checked against its data set."""
        name, value = proposal["trait"].name, proposal["value"]
        offered = [model for model in self._models if model.dataset == self.dataset]
        choices = {
            "dataset": list(self._points),
            "solver": list(self._tableaus),
            "n_steps": range(1, MAX_STEPS + 1),
            "train_n_steps": [model.train_n_steps for model in offered],
            "seed": sorted({seed for model in offered for seed in model.seeds}),
        }[name]
        check_choice(name, value, choices, f"1 to {MAX_STEPS}" if name == "n_steps" else None)
        return value

    @traitlets.observe("dataset", "train_n_steps")
    def _settle(self, change):
        """Another data set or model: keep what it also has, else take its first."""
        offered = [model for model in self._models if model.dataset == self.dataset]
        if self.train_n_steps not in [model.train_n_steps for model in offered]:
            self.train_n_steps = offered[0].train_n_steps
        if self.seed not in self.model.seeds:
            self.seed = self.model.seeds[0]

    @property
    def model(self) -> Model:
        """The model that is shown."""
        return next(
            model
            for model in self._models
            if (model.dataset, model.train_n_steps) == (self.dataset, self.train_n_steps)
        )

    # --- the numbers ----------------------------------------------------------------------------

    @property
    def accuracy(self) -> float:
        """Share of all points that are right, solved in float64 as in the browser."""
        return self._accuracy_of(self.model)

    @torch.no_grad()
    def _accuracy_of(self, model):
        field, head = model.member(self.seed)
        x = model.x.double()[None]
        z = solve_fixed(field, x, self._tableaus[self.solver], n_steps=self.n_steps).z
        return float((head(z).argmax(-1)[0] == model.y).double().mean())

    @property
    def crossings(self) -> Crossings:
        """Crossings of the trajectories drawn, of those that stay finite."""
        return self._run_of(self.model).crossings

    def _run_of(self, model):
        starts = self._starts[self.dataset]
        return draw_run(model, self.seed, starts, self._tableaus[self.solver], self.n_steps)

    # --- the picture ----------------------------------------------------------------------------

    def describe(self) -> str:
        model, crossings = self.model, self.crossings
        where = tell_chords(self._tableaus[self.solver], self.n_steps)
        trained = f", trained with h = 1/{model.train_n_steps}" if model.train_n_steps else ""
        return (
            f"{name_of(self.dataset)}{trained}, seed {self.seed}, solved by "
            f"{name_of(self.solver)} in {counted(self.n_steps, 'step')}: "
            f"{100 * self.accuracy:.1f} % of {len(model.y):,} test points are right; "
            f"{crossings.n_between:,} crossings in {len(crossings.pairs):,} pairs of "
            f"trajectories{where}"
        )

    def draw(self) -> Figure:
        figure, ax = plt.subplots(figsize=(6, 4.6))
        self._draw_run(
            ax, self._run_of(self.model), self.model, mark_steps=self.n_steps <= MARKED_STEPS
        )
        ax.set_title(self.title(), fontsize=9)
        return figure
