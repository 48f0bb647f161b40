"""The tolerance explorer: the steps that an adaptive solver takes, and those it rejects."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
import traitlets
from matplotlib.figure import Figure

from nodecore.evidence.found import Evidence
from nodecore.evidence.names import name_of
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.solution import SolveError
from nodecore.ode.tableaus import get_tableau
from nodecore.pages import plots
from nodecore.pages.explorers.bundle import bundle
from nodecore.pages.explorers.host import (
    check_choice,
    check_evidence,
    check_range,
    counted,
    none_for_nan,
)
from nodecore.pages.explorers.packing import Model, pack_tableau
from nodecore.pages.explorers.planar import PlanarExplorer

SOLVERS = ("fehlberg21", "bosh3", "dopri5")
LOOSEST, TIGHTEST = 10.0, 1e-6  # tolerances that can be chosen


@dataclass(frozen=True)
class StepCounts:
    """How many steps were accepted and rejected, and evaluations made, in one adaptive solve."""

    accepted: int
    rejected: int
    nfe: int


class ToleranceExplorer(PlanarExplorer):
    """Accepted and rejected steps, and the accuracy, of a trained model at a chosen tolerance.

    evidence: runs of data sets in the plane. n_starts: how many trajectories are drawn, from starts
    far apart, each with steps of its own; `accuracy` and `steps` belong to the whole test set,
    solved with one step for all points, as in the records. Every trait can be set and read:
    training (the name of a run), seed, solver, rtol (10 to 1e-6).

    Raises ValueError without runs, TraitError for a state that does not exist.
    """

    _esm = bundle("tolerance.js")
    training = traitlets.Unicode().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)
    solver = traitlets.Enum(SOLVERS, "dopri5").tag(sync=True)
    rtol = traitlets.Float(1e-2).tag(sync=True)

    def __init__(self, evidence: Sequence[Evidence], *, n_starts: int = 40):
        check_evidence(evidence)
        self._runs = {found.run.name: (found, Model.from_evidence(found)) for found in evidence}
        self._hold([model for _, model in self._runs.values()], n_starts)
        first, (found, model) = next(iter(self._runs.items()))
        super().__init__(
            data={
                "datasets": self._pack_datasets(),
                "models": [self._pack(name) for name in self._runs],
                "solvers": [pack_tableau(get_tableau(solver)) for solver in SOLVERS],
                "tolerances": [LOOSEST, TIGHTEST],
            },
            training=first,
            seed=model.seeds[0],
            solver=found.run.steps.solver if found.run.steps.solver in SOLVERS else "dopri5",
            rtol=found.run.steps.rtol or 1e-2,
        )

    def _pack(self, name):
        """What the browser needs of a run; keys as in `js/tolerance/state.js`."""
        found, model = self._runs[name]
        return {
            **model.model_data(),
            "name": name,
            "title": _title(found.run),
            "rtol": found.run.steps.rtol,
            "tests": _tests(found, model.seeds),
        }

    # --- the state ------------------------------------------------------------------------------

    @traitlets.validate("training", "seed", "rtol")
    def _check(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name == "rtol":
            check_range(name, value, TIGHTEST, LOOSEST)
            return value
        seeds = {seed for _, model in self._runs.values() for seed in model.seeds}
        choices = list(self._runs) if name == "training" else sorted(seeds)
        check_choice(name, value, choices)
        return value

    @traitlets.observe("training")
    def _settle(self, change):
        if self.seed not in self._model.seeds:
            self.seed = self._model.seeds[0]

    @property
    def _model(self):
        return self._runs[self.training][1]

    # --- the numbers ----------------------------------------------------------------------------

    @property
    def accuracy(self) -> float:
        """Share of all points that are right; NaN where the solve fails."""
        _, head = self._model.member(self.seed)
        solution = self._solve_all()
        if solution is None:
            return float("nan")
        with torch.no_grad():
            right = head(solution.z).argmax(-1)[0] == self._model.y
        return float(right.double().mean())

    @property
    def steps(self) -> StepCounts | None:
        """The steps of the same solve; None where it fails."""
        solution = self._solve_all()
        if solution is None:
            return None
        return StepCounts(int(solution.n_accepted), int(solution.n_rejected), int(solution.nfe))

    def _solve_all(self):
        try:
            return self._solve(self._model.x, path=False)
        except SolveError:
            return None

    def _solve(self, x, path):
        field, _ = self._model.member(self.seed)
        z0, rtol = x.double()[None], self.rtol
        with torch.no_grad():
            return solve_adaptive(field, z0, self.solver, rtol=rtol, atol=rtol, path=path)

    # --- the picture ----------------------------------------------------------------------------

    def describe(self) -> str:
        found, model = self._runs[self.training]
        steps = self.steps
        text = "no step"
        if steps:
            text = f"{counted(steps.accepted, 'step')} accepted, {steps.rejected} rejected"
        return (
            f"{name_of(found.run.dataset)}, trained with {_title(found.run)}, seed "
            f"{self.seed}, solved by {name_of(self.solver)} at tolerance {_tolerance(self.rtol)}: "
            f"{100 * self.accuracy:.1f} % of {len(model.y):,} test points are right; {text}"
        )

    def draw(self) -> Figure:
        figure, ax = plt.subplots(figsize=(7, 4.6))
        starts = self._starts[self._model.dataset]
        paths = []
        for i in starts:  # each start with steps of its own, as in the browser
            try:
                paths.append((self._solve(self._model.x[i : i + 1], path=True).states[:, 0], i))
            except SolveError:
                continue
        for path, i in paths:
            plots.trajectories(ax, path, self._model.y[i : i + 1], mark_steps=True)
        if paths:
            plots.zoom(ax, torch.cat([torch.stack([path[0], path[-1]]) for path, _ in paths], 1))
        figure.suptitle(self.title(), fontsize=9)
        return figure


def _title(run):
    rtol, n_steps = run.steps.rtol, run.steps.n_steps
    how = f"tolerance {_tolerance(rtol)}" if rtol else f"K = {n_steps}"
    return f"{name_of(run.steps.solver)}, {how}"


def _tolerance(rtol):
    """A tolerance as `js/tolerance/controls.js` writes it: 0.01, 1e-5, 3.2e-6."""
    digits = f"{rtol:.1e}".replace(".0e", "e").replace("e-0", "e-")
    return digits if float(digits) < 0.01 else f"{rtol:.2g}"


def _tests(found, seeds):
    """The recorded accuracies under tolerances: solver, rtol and one entry for each seed."""
    rows = found.records[found.records["test_rtol"].notna()]
    table = rows.pivot(index=["test_solver", "test_rtol"], columns="seed", values="accuracy")
    return [
        {
            "solver": solver,
            "rtol": float(rtol),
            "accuracies": none_for_nan(values[list(seeds)]),
        }
        for (solver, rtol), values in table.iterrows()
        if TIGHTEST <= rtol <= LOOSEST
    ]
