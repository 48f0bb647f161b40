"""The grid explorer: accuracy by training and test steps, and what lies behind each cell."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from nodecore.analysis.crossings import Crossings
from nodecore.evidence.catalogue import GRIDS
from nodecore.evidence.found import Evidence
from nodecore.evidence.names import name_of
from nodecore.ode.tableaus import get_tableau
from nodecore.pages import plots
from nodecore.pages.explorers.bundle import bundle
from nodecore.pages.explorers.host import check_choice, check_evidence, none_for_nan
from nodecore.pages.explorers.packing import Model, pack_tableau
from nodecore.pages.explorers.planar import PlanarExplorer
from nodecore.pages.explorers.runs import draw_run


class GridExplorer(PlanarExplorer):
    """The map of accuracy, training n_steps by test n_steps under the training solver.

    evidence: runs with n_steps, of data sets in the plane. n_starts: how many trajectories are
    drawn, from starts far apart. n_seeds: of how many seeds, for a smaller page; accuracies are
    those of all. Every trait can be set and read: study, train_n_steps, test_n_steps, seed.
    `accuracies`, `crossings` and `record` follow.

    Raises ValueError without runs, TraitError for a state that does not exist.
    """

    _esm = bundle("grid.js")
    study = traitlets.Unicode().tag(sync=True)
    train_n_steps = traitlets.Int().tag(sync=True)
    test_n_steps = traitlets.Int().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)

    def __init__(
        self, evidence: Sequence[Evidence], *, n_starts: int = 100, n_seeds: int | None = None
    ):
        check_evidence(evidence)
        ordered = sorted(evidence, key=lambda found: found.run.steps.n_steps or 0)
        self._n_seeds = n_seeds
        self._cells = {found.run.study: {} for found in evidence}
        for found in ordered:
            row = found, Model.from_evidence(found), _tests(found)
            self._cells[found.run.study][found.run.steps.n_steps] = row
        self._hold([m for rows in self._cells.values() for _, m, _ in rows.values()], n_starts)
        first = next(iter(self._cells))
        n_steps = min(self._cells[first])
        super().__init__(
            data=self._pack(),
            study=first,
            train_n_steps=n_steps,
            test_n_steps=n_steps,
            seed=self._cells[first][n_steps][1].seeds[0],
        )

    def _pack(self):
        """What the browser needs; keys as in `js/grid.js`."""
        entries, solvers = [], {}
        for study, rows in self._cells.items():
            for found, model, tests in rows.values():
                solvers[found.run.steps.solver] = get_tableau(found.run.steps.solver)
                accuracies = [
                    {"nSteps": k, "accuracies": none_for_nan(values)} for k, values in tests.items()
                ]
                entries.append(
                    {
                        **model.model_data(self._n_seeds),
                        "counts": list(model.trained),
                        "study": study,
                        "path": found.path,
                        "tests": accuracies,
                    }
                )
        return {
            "datasets": self._pack_datasets(),
            "models": entries,
            "solvers": [pack_tableau(tableau) for tableau in solvers.values()],
            "studies": [{"name": name, "title": self._title(name)} for name in self._cells],
        }

    def _title(self, study):
        found, *_ = next(iter(self._cells[study].values()))
        return f"{name_of(found.run.dataset)}, {name_of(found.run.steps.solver)}"

    # --- the state ------------------------------------------------------------------------------

    @traitlets.validate("study", "train_n_steps", "test_n_steps", "seed")
    def _check(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        rows = self._cells.get(self.study, {})
        choices = {
            "study": list(self._cells),
            "train_n_steps": list(rows),
            "test_n_steps": sorted({int(k) for *_, tests in rows.values() for k in tests}),
            "seed": sorted(
                {s for _, model, _ in rows.values() for s in model.seeds[: self._n_seeds]}
            ),
        }[name]
        check_choice(name, value, choices)
        return value

    @traitlets.observe("study", "train_n_steps")
    def _settle(self, change):
        """Another study or model: keep what it also has, else take the cell as trained."""
        rows = self._cells[self.study]
        if self.train_n_steps not in rows:
            self.train_n_steps = min(rows)
        _, model, tests = rows[self.train_n_steps]
        if self.test_n_steps not in tests:
            self.test_n_steps = self.train_n_steps
        if self.seed not in model.seeds[: self._n_seeds]:
            self.seed = model.seeds[0]

    # --- the cell -------------------------------------------------------------------------------

    @property
    def _cell(self):
        return self._cells[self.study][self.train_n_steps]

    @property
    def record(self) -> str:
        """The JSON file that holds the cell's records."""
        return self._cell[0].path

    @property
    def accuracies(self) -> pd.Series:
        """The recorded accuracy of each seed that trained."""
        _, model, tests = self._cell
        return tests[self.test_n_steps][list(model.trained)]

    @property
    def crossings(self) -> Crossings:
        """Crossings of the trajectories drawn, of those that stay finite."""
        return self._run().crossings

    def _run(self):
        found, model, _ = self._cell
        starts = self._starts[model.dataset]
        return draw_run(model, self.seed, starts, found.run.steps.solver, self.test_n_steps)

    # --- the picture ----------------------------------------------------------------------------

    def describe(self) -> str:
        values = self.accuracies
        mean = f"{100 * values.mean():.1f} %" if len(values) else "none"
        return (
            f"{self._title(self.study)}, trained with K = {self.train_n_steps}, tested with "
            f"K = {self.test_n_steps}: mean accuracy {mean} over {len(values)} seeds that trained"
        )

    def draw(self) -> Figure:
        _, model, _ = self._cell
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
        means = {
            k: {test: values[list(m.trained)].mean() for test, values in tests.items()}
            for k, (_, m, tests) in self._cells[self.study].items()
        }
        plots.train_test_map(left, pd.DataFrame(means).T.sort_index(axis=1))
        self._draw_run(right, self._run(), model)
        figure.suptitle(self.title(), fontsize=9)
        return figure


def _tests(found):
    """Return the seeds' accuracies for each test n_steps of the grid and the training's own."""
    rows = found.records
    rows = rows[(rows["test_solver"] == found.run.steps.solver) & rows["test_n_steps"].notna()]
    table = rows.pivot(index="seed", columns="test_n_steps", values="accuracy")
    grid = {*GRIDS.get(found.run.study, list(table)), found.run.steps.n_steps}
    return {int(k): table[k] for k in table.columns if k in grid}
