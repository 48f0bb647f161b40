"""The pieces of a verdict: its words, a claim's parts, a study's evidence, and the register."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd
from numpy.typing import ArrayLike

from nodecore.evidence.found import Evidence
from nodecore.evidence.names import name_of
from nodecore.evidence.tables import AGREES_AT_END, GridSearch, as_trained, grid_search, same_mean
from nodecore.training.adapted import USUAL_START

HOLDS, PARTLY, FAILS = "holds", "holds in part", "does not hold here"
UNTESTED = "not tested here"
VERDICTS = (HOLDS, PARTLY, FAILS, UNTESTED)

FACTOR = 2.0  # a number within this factor is the same up to one step of the grid
MOST, MANY = 0.95, 0.8  # shares that count as nearly always, and as mostly


@dataclass(frozen=True)
class Part:
    """A claim on one data set, study or number: its verdict, and what was found, in words."""

    where: str
    verdict: str
    found: str


@dataclass(frozen=True)
class Material:
    """The evidence of one study: its name, its records, and the runs behind them.

    cut: the coarsest runs of a grid of step sizes are missing. lacking: in words, what is missing
    of a larger scale.
    """

    study: str
    records: pd.DataFrame
    found: tuple[Evidence, ...] = field(default=(), repr=False)
    cut: bool = False
    lacking: str = ""

    @property
    def dataset(self) -> str:
        return self.study.split("-")[0]

    @property
    def profile(self) -> str:
        return self.records["profile"].iloc[0]

    @property
    def title(self) -> str:
        """Title of the study, such as "spheres, 2-D, Euler"."""
        dataset, kind = self.study.split("-", 1)
        return f"{name_of(dataset)}, {name_of(kind)}"

    def run(self, n_steps: int) -> Evidence | None:
        """The run that was trained with so many steps."""
        return next((e for e in self.found if e.run.steps.n_steps == n_steps), None)

    def history(self, controller: str, start: str | None = USUAL_START) -> pd.DataFrame:
        """Return what was followed under this controller, from steps begun in this way."""
        of = controller, start
        return next(
            e.history
            for e in self.found
            if (e.run.steps.controller, e.run.steps.start) == of and e.history is not None
        )


Studies = Mapping[str, Material]
Decision = Callable[[Studies, Mapping], list[Part]]
DECISIONS: dict[str, Decision] = {}


def decides(rule: str) -> Callable[[Decision], Decision]:
    """Register a function under its name, with the rule it follows in a sentence."""

    def register(function):
        function.rule = rule
        DECISIONS[function.__name__] = function
        return function

    return register


def get_decision(name: str) -> Decision:
    """The function of that name. ValueError lists the names."""
    if name not in DECISIONS:
        raise ValueError(f"decided_by = {name!r} is unknown; choose one of {', '.join(DECISIONS)}")
    return DECISIONS[name]


def grade(*conditions: bool) -> str:
    """All hold, some do, or none; not tested if there are none."""
    if not conditions:
        return UNTESTED
    return HOLDS if all(conditions) else PARTLY if any(conditions) else FAILS


def points(value: float) -> str:
    """A difference of accuracies as text."""
    return f"{100 * value:.1f} points"


def spread(values: ArrayLike, digits: int = 1) -> str:
    """Mean and standard deviation over seeds; of one seed its value."""
    known = pd.Series(values).dropna()
    deviation = f" ± {known.std():.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{deviation}"


def extent(values: ArrayLike) -> str:
    """Smallest to largest whole number, those of no seed left out."""
    known = sorted(pd.Series(values).dropna())
    if not known:
        return "none"
    ends = dict.fromkeys(f"{v:.0f}" for v in (known[0], known[-1]))
    return " to ".join(ends)


def of_kind(studies: Studies, kind: str) -> dict[str, Material]:
    """The studies of a kind, such as "euler", by data set."""
    return {m.dataset: m for name, m in studies.items() if name.endswith(f"-{kind}")}


def critical_of(material: Material) -> int | None:
    """The critical n_steps of the mean; None where there is none or coarser runs are missing."""
    search = search_of(material)
    return None if search is None else search.critical


def search_of(material: Material) -> GridSearch | None:
    """The grid search of a study; None where its critical step is not known."""
    search = grid_search(material.records)
    bound_only = material.cut and search is not None and search.coarser is None
    return None if bound_only else search


def unfound(material: Material) -> str:
    """Why search_of found nothing, in words."""
    search, steps = grid_search(material.records), material.records["n_steps"]
    if search is not None:
        missing = "; coarser runs are missing" if material.cut else ""
        return f"agrees from K = {steps.min()} on{missing}"
    return f"no critical K on the grid, up to {steps.max()}"


# --- accuracies beside one another ----------------------------------------------------------------

ACCURACIES = (
    f"Accuracies: within {AGREES_AT_END:g} of one another, and not told apart (t test, 0.05); "
    "holds if both, in part if one. "
)


def best_of(frame: pd.DataFrame, search: GridSearch) -> tuple:
    """Mean and std of accuracy, and number of seeds, of the best ODE-like run of a grid."""
    trained = as_trained(frame)
    return search.mean, search.std, len(trained.loc[trained["n_steps"] == search.best])


def judge_accuracy(ours: tuple, theirs: tuple) -> str:
    """Verdict on two accuracies, (mean, std, seeds) each: near one another, not told apart."""
    return grade(abs(ours[0] - theirs[0]) <= AGREES_AT_END, same_mean(ours, theirs))
