"""The pieces of a verdict: its words, a claim's parts, a study's evidence, and the register."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
from numpy.typing import ArrayLike

from nodecore.analysis.intervals import Interval
from nodecore.claims.paper import TABLE1, percent
from nodecore.evidence.found import Evidence
from nodecore.evidence.means import Summary, difference_interval
from nodecore.evidence.names import name_of
from nodecore.evidence.runs import SEEDS
from nodecore.evidence.tables import (
    AGREES_AT_END,
    GridSearch,
    grid_search,
    redraw_range,
)
from nodecore.ode.checks import check_choice
from nodecore.training.adapted import USUAL_START

HOLDS, PARTLY, FAILS = "holds", "holds in part", "does not hold here"
UNSURE, OTHER_SCALE, UNTESTED = "cannot tell", "not comparable", "not tested here"
SYMBOLS = {HOLDS: "✓", PARTLY: "◐", FAILS: "✗", UNSURE: "?", OTHER_SCALE: "≠", UNTESTED: "○"}
VERDICTS = tuple(SYMBOLS)
DECIDED = {HOLDS, PARTLY, FAILS}

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
    def at_papers_scale(self) -> bool:
        return self.profile == "paper"

    @property
    def n_seeds(self) -> int:
        return len(set(self.records["seed"]))

    @cached_property  # asked for by every claim about this step
    def grid(self) -> GridSearch | None:
        """The search on the grid of n_steps, whether or not its coarsest runs are missing."""
        return grid_search(self.records)

    @cached_property  # thousands of redraws, asked for by every pair of data sets
    def critical_range(self) -> tuple[float, float] | None:
        """The n_steps between which the critical one lies in 95 % of the redraws of seeds.

        Its end is infinite where the grid ends there: what would come next is not known. None where
        nothing is: for few seeds, or where a redraw has none on the grid.
        """
        ends = redraw_range(self.records) if search_of(self) is not None else ()
        if not ends or any(map(math.isnan, ends)):
            return None
        low, high = ends
        return low, math.inf if self.ends_at(high) else high

    def ends_at(self, n_steps: float) -> bool:
        """Tell whether the grid ends there, so that what would come next is not known."""
        return n_steps == self.records["n_steps"].max()

    def tell(self, critical: int) -> str:
        """A critical n_steps as text: a bound only, where the grid ends there."""
        return f"at least {critical}" if self.ends_at(critical) else f"{critical}"

    @property
    def title(self) -> str:
        """Title of the study, such as "spheres, 2-D, Euler"."""
        dataset, kind = self.study.split("-", 1)
        return f"{name_of(dataset)}, {name_of(kind)}"

    def part(self, verdict: str, found: str, where: str | None = None) -> Part:
        """A claim about the paper's models, on this study or what else of it `where` says.

        What was found on smaller models leaves it open.
        """
        decides = self.at_papers_scale or verdict == UNTESTED
        return Part(where or self.title, verdict if decides else OTHER_SCALE, found)

    def run(self, n_steps: int) -> Evidence | None:
        """The run that was trained with so many steps."""
        return next((e for e in self.found if e.run.steps.n_steps == n_steps), None)

    def of_controller(self, controller: str, start: str | None = USUAL_START) -> Evidence:
        """The run under this controller, from steps begun in this way."""
        of = controller, start
        return next(
            e
            for e in self.found
            if (e.run.steps.controller, e.run.steps.start) == of and e.history is not None
        )


Studies = Mapping[str, Material]
Parts = Iterator[Part]


@dataclass(frozen=True)
class Decision:
    """A rule in a sentence, and the function that follows it: a part after the other.

    compares: whether it sets studies of one data set beside one another.
    """

    rule: str
    parts: Callable[[Studies, Mapping], Parts]
    compares: bool = False

    def __call__(self, studies: Studies, numbers: Mapping) -> list[Part]:
        return list(self.parts(studies, numbers))


DECISIONS: dict[str, Decision] = {}


def decides(
    rule: str, *, compares: bool = False
) -> Callable[[Callable[[Studies, Mapping], Parts]], Decision]:
    """Register a function under its name, with the rule it follows in a sentence."""

    def register(function):
        DECISIONS[function.__name__] = Decision(rule, function, compares)
        return DECISIONS[function.__name__]

    return register


def get_decision(name: str) -> Decision:
    """The function of that name. ValueError lists the names."""
    return DECISIONS[check_choice("decided_by", name, DECISIONS)]


def grade(*conditions: bool) -> str:
    """All hold, some do, or none; not tested if there are none."""
    if not conditions:
        return UNTESTED
    return HOLDS if all(conditions) else PARTLY if any(conditions) else FAILS


def grade_together(*verdicts: str) -> str:
    """Holds if all that are judged hold, in part if some do; cannot tell unless all are decided."""
    decided = DECIDED.issuperset(verdicts)
    return grade(*(verdict == HOLDS for verdict in verdicts)) if decided else UNSURE


def grade_each(*verdicts: str) -> str:
    """Holds if all do, in part if some do; else cannot tell unless all are decided."""
    if HOLDS in verdicts:
        return grade(*(verdict == HOLDS for verdict in verdicts))
    return FAILS if DECIDED.issuperset(verdicts) else UNSURE


def points(value: float) -> str:
    """A difference of accuracies as text."""
    return f"{100 * value:.1f} points"


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
    search = material.grid
    bound_only = material.cut and search is not None and search.coarser is None
    return None if bound_only else search


def unfound(material: Material) -> str:
    """Why search_of found nothing, in words."""
    search, steps = material.grid, material.records["n_steps"]
    if search is not None:
        missing = "; coarser runs are missing" if material.cut else ""
        return f"agrees from K = {steps.min()} on{missing}"
    return f"no critical K on the grid, up to {steps.max()}"


# --- numbers beside one another -------------------------------------------------------------------

ACCURACIES = (
    "Accuracies are compared by the 95 % interval of their difference. Holds if it lies within "
    f"{AGREES_AT_END:g} and contains 0, in part if it lies within without containing 0; does not "
    "hold if all of it lies outside; otherwise cannot tell. "
)


def judge_accuracy(ours: Summary, theirs: Summary) -> str:
    """Verdict on two accuracies; see ACCURACIES."""
    change = difference_interval(ours, theirs)
    verdict = judge_within(change, AGREES_AT_END)
    return PARTLY if verdict == HOLDS and not change.low <= 0 <= change.high else verdict


def table1_parts(
    material: Material, way: str, nfe: tuple[str, str], ours: Summary, label: str = ""
) -> Parts:
    """Parts for the two numbers of a row of the paper's Table 1; see ACCURACIES.

    way: "grid" or "adaption". nfe: verdict and finding. ours: the accuracy.
    """
    paper = TABLE1[material.dataset][f"{way} accuracy"]
    accuracy = judge_accuracy(ours, (*paper, len(SEEDS))), percent(*ours[:2])
    for name, (verdict, found) in (("NFE", nfe), ("accuracy", accuracy)):
        yield material.part(verdict, found, f"{name}{label}")


def judge_ratio(ratio: Interval, close: float) -> str:
    """Verdict on a ratio.

    Holds within 1 +- `close`, in part within a factor FACTOR, does not hold outside of that; cannot
    tell where the interval is in more than one of these.
    """
    _, low, high = ratio
    if 1 - close <= low and high <= 1 + close:
        return HOLDS
    if high < 1 / FACTOR or low > FACTOR:
        return FAILS
    inside = low >= 1 / FACTOR and high <= FACTOR
    return PARTLY if inside and (high < 1 - close or low > 1 + close) else UNSURE


def judge_within(estimate: Interval, bound: float) -> str:
    """Verdict on whether what is estimated lies within +- a bound."""
    return HOLDS if estimate.within(bound) else FAILS if estimate.beyond(bound) else UNSURE


def judge_below(estimate: Interval, bound: float) -> str:
    """Verdict on whether what is estimated is less than a bound."""
    return HOLDS if estimate.high < bound else FAILS if estimate.low >= bound else UNSURE
