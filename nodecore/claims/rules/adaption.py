"""Claims about Algorithm 1.

The paper leaves open in which norms the first step is chosen. Where the step begins, what a
training costs and how accurate it gets is judged for each start that was tried, all else for the
usual one.
"""

import math
from collections.abc import Mapping

import numpy as np

from nodecore.analysis.evaluate import AGREEMENT
from nodecore.claims.paper import TABLE1, percent
from nodecore.claims.rules.base import (
    ACCURACIES,
    FACTOR,
    FAILS,
    HOLDS,
    PARTLY,
    UNSURE,
    UNTESTED,
    Part,
    Parts,
    Studies,
    decides,
    extent,
    grade,
    grade_each,
    grade_together,
    judge_accuracy,
    judge_below,
    judge_ratio,
    judge_within,
    of_kind,
    search_of,
    table1_parts,
    unfound,
)
from nodecore.data.datasets import IMAGES
from nodecore.evidence.means import mean_interval, summary, tell_mean
from nodecore.evidence.names import name_of
from nodecore.evidence.tables import (
    AGREES_AT_END,
    agrees_at_end,
    as_trained,
)
from nodecore.evidence.violations import corrections
from nodecore.training.adapted import STARTS, USUAL_START
from nodecore.training.adaption import OUTSIDE_GAP
from nodecore.training.controllers import VARIATIONS, Algorithm1

FEW_FAILURES, SOME_FAILURES = 0.01, 0.1  # shares of checks
# How many checks that agree make up for one that halves the step
CHECKS_OF_A_HALVING = -math.log(Algorithm1().decrease) / math.log(Algorithm1().increase)
CLOSE = 0.25  # relative: a number so near the paper's is the same one


def _adapted(studies):
    """(data set, its adaption study) for each, where Algorithm 1 was at work."""
    for dataset, material in of_kind(studies, "adaption").items():
        if "algorithm1" in set(material.records["controller"]):
            yield dataset, material


def _algorithm1(material, start=USUAL_START):
    """One row for each seed of Algorithm 1 that trained, as trained."""
    own = _from(material.records, start)
    return as_trained(own[own["controller"] == "algorithm1"])


def _from(records, start):
    return records.loc[records["start"] == start]


def _starts(material):
    """The starts of Algorithm 1, each with what labels it: nothing where there is but one."""
    own = material.records[material.records["controller"] == "algorithm1"]
    there = [start for start in STARTS if start in set(own["start"])]
    return {start: f", {name_of(start)}" if len(there) > 1 else "" for start in there}


def _of_usual_start(studies, judge):
    """A part for each data set: judge(material) gives verdict and finding of the usual start."""
    for dataset, material in _adapted(studies):
        nothing = UNTESTED, f"nothing was trained from {name_of(USUAL_START)}"
        verdict, found = judge(material) if USUAL_START in _starts(material) else nothing
        yield material.part(verdict, found, name_of(dataset))


def _beside_grid(studies, compare):
    """Parts for each data set whose grid is there as well: where its critical step is known,
    compare(material, grid, search, start) gives verdict and finding, for each start."""
    grids = of_kind(studies, "euler")
    for dataset, material in _adapted(studies):
        if (grid := grids.get(dataset)) is None:
            continue
        search = search_of(grid)
        for start, label in _starts(material).items():
            nothing = UNTESTED, unfound(grid)
            verdict, found = compare(material, grid, search, start) if search else nothing
            yield material.part(verdict, found, f"{name_of(dataset)}{label}")


@decides("Holds if the constants stored in the records are the paper's.")
def constants_are_the_same(studies: Studies, numbers: Mapping) -> Parts:
    for dataset, material in _adapted(studies):
        run = next(e for e in material.found if e.run.steps.controller == "algorithm1")
        used = run.stored.header["controller_constants"]
        found = ", ".join(f"{name} {used[name]:g}" for name in numbers)
        verdict = grade(all(used[name] == value for name, value in numbers.items()))
        yield Part(name_of(dataset), verdict, found)


@decides(
    "Holds if no seed starts with more steps than the critical K of the grid or, where there are "
    "enough seeds, than any K of its 95 % redraws of seeds; cannot tell where one starts within "
    "these, or where the grid ends at that K.",
    compares=True,
)
def start_is_not_too_small(studies: Studies, numbers: Mapping) -> Parts:
    def compare(material, grid, search, start):
        checks = material.of_controller("algorithm1", start).history.dropna(subset="n_steps")
        first = checks.drop_duplicates("seed").set_index("seed")["n_steps"]
        found = (
            f"K = {extent(first)} at the start; critical K of the grid {grid.tell(search.critical)}"
        )
        low, high = grid.critical_range or (search.critical, search.critical)
        high = math.inf if grid.ends_at(high) else high
        verdict = HOLDS if (first <= low).all() else FAILS if (first > high).any() else UNSURE
        return verdict, found

    return _beside_grid(studies, compare)


@decides(
    "Reversals: changes of direction of the step in the second half of the training. Holds if "
    "every seed has two or more."
)
def steps_fluctuate(studies: Studies, numbers: Mapping) -> Parts:
    def judge(material):
        turns = _algorithm1(material)["reversals"]
        return grade(*(turns >= 2)), f"{tell_mean(turns)} reversals in the second half"

    return _of_usual_start(studies, judge)


@decides(
    f"Weights are kept at the worst check that fails by more than {OUTSIDE_GAP:g} and at the next "
    "that passes. The gap is between the accuracies under Euler and midpoint on the test set. The "
    "smaller step alone shrinks it, so the first weights are also tested in the later steps. Holds "
    "if further training closes the gap further, by the 95 % interval of its mean over seeds, to "
    f"at most {AGREEMENT:g} in every seed; in part if in some; cannot tell where the interval "
    "contains 0."
)
def violations_are_corrected(studies: Studies, numbers: Mapping) -> Parts:
    def judge(material):
        if material.dataset in IMAGES:
            return UNTESTED, "the kept weights are tested on the sets in the plane only"
        gaps = corrections(material.of_controller("algorithm1"))
        if gaps.empty:
            return UNTESTED, "no check failed in the second half"
        further = mean_interval(gaps["finer"] - gaps["past"])
        closed = grade(*(gaps["past"] <= AGREEMENT))
        verdict = closed if further.low > 0 else FAILS if further.high < 0 else UNSURE
        inside, finer, past = (tell_mean(100 * gaps[name]) for name in ("inside", "finer", "past"))
        found = (
            f"gap {inside} points at the failed check, {finer} with the later step alone, {past} "
            f"after further training ({len(gaps)} seed{'s' * (len(gaps) > 1)})"
        )
        return verdict, found

    return _of_usual_start(studies, judge)


@decides(
    "Measures the share of checks with midpoint, every 50 iterations in the second half, whose gap "
    f"exceeds {OUTSIDE_GAP:g}. The constants alone make some fail: a failed check halves the step, "
    f"which then takes {CHECKS_OF_A_HALVING:.1f} checks that pass to grow back, so about "
    f"{100 / (1 + CHECKS_OF_A_HALVING):.0f} % fail wherever the step swings to and fro. Holds if "
    f"at most {100 * FEW_FAILURES:g} % fail, in part if at most {100 * SOME_FAILURES:g} % do."
)
def stays_a_flow_in_training(studies: Studies, numbers: Mapping) -> Parts:
    def judge(material):
        checks = material.of_controller("algorithm1").history.dropna(subset="outside_gap")
        late = checks.loc[checks["iteration"] > checks["iteration"].max() / 2]
        shares = (late["outside_gap"].abs() > OUTSIDE_GAP).groupby(late["seed"]).mean()
        mean = shares.mean()
        verdict = HOLDS if mean <= FEW_FAILURES else PARTLY if mean <= SOME_FAILURES else FAILS
        return verdict, f"{tell_mean(100 * shares)} % of the checks fail"

    return _of_usual_start(studies, judge)


@decides(
    "Compares the accuracy of the finished model under Euler at its last step with that under the "
    f"exact flow. Holds if every seed's gap is at most {AGREES_AT_END:g}, in part if some are."
)
def ends_as_a_flow(studies: Studies, numbers: Mapping) -> Parts:
    def judge(material):
        gaps = _algorithm1(material)["agreement_gap"]
        found = f"gap {tell_mean(100 * gaps)} points, worst seed {100 * gaps.max():.1f}"
        return grade(*agrees_at_end(gaps)), found

    return _of_usual_start(studies, judge)


@decides(
    "One constant is changed at a time, on the same seeds. A change is harmless if the mean "
    f"accuracy moves by at most {AGREES_AT_END:g}, the NFE by at most a factor of {FACTOR:g}, and "
    f"the mean gap to the exact flow is at most {AGREEMENT:g}, each by its 95 % interval. It is "
    "harmful if one of these is beyond its limit. Holds if all are harmless, in part if some are; "
    "cannot tell where the intervals leave it open."
)
def constants_are_robust(studies: Studies, numbers: Mapping) -> Parts:
    def judge(material):
        own = as_trained(_from(material.records, USUAL_START))
        runs = {name: rows.set_index("seed") for name, rows in own.groupby("controller")}
        verdicts = {n: _harm(runs[n], runs["algorithm1"]) for n in VARIATIONS if n in runs}
        if not verdicts:
            return UNTESTED, "no variation was trained"
        found = "; ".join(
            f"{word}: {_listed(name for name in verdicts if verdicts[name] == verdict)}"
            for verdict, word in ((HOLDS, "harmless"), (FAILS, "harmful"), (UNSURE, "undecided"))
        )
        return grade_each(*verdicts.values()), found

    return _of_usual_start(studies, judge)


def _listed(names):
    """Variations as text."""
    return ", ".join(n.removeprefix("algorithm1-").replace("-", " ") for n in names) or "none"


def _harm(changed, base):
    """Verdict on whether a change is harmless, from records by seed."""
    both = base.join(changed.add_suffix(" changed"), how="inner")
    moved = both["accuracy changed"] - both["accuracy"]
    factor = np.log(both["nfe_per_iteration changed"] / both["nfe_per_iteration"])
    judged = (
        judge_within(mean_interval(moved), AGREES_AT_END),
        judge_within(mean_interval(factor), math.log(FACTOR)),
        judge_below(mean_interval(changed["agreement_gap"]), AGREEMENT),
    )
    return next((verdict for verdict in (FAILS, UNSURE) if verdict in judged), HOLDS)


def _summary_of(material, start):
    """The accuracy of Algorithm 1."""
    return summary(_algorithm1(material, start)["accuracy"])


@decides(
    ACCURACIES + "Here Algorithm 1 is compared with the grid's best ODE-like run. Its NFE, too, "
    "must be at most the critical K + 1, by the 95 % interval of its mean. Holds if both are true, "
    "in part if one is; cannot tell if the seeds spread too much to decide either.",
    compares=True,
)
def adaption_matches_the_grid(studies: Studies, numbers: Mapping) -> Parts:
    def compare(material, grid, search, start):
        ours, theirs = _summary_of(material, start), search.accuracy
        nfe = _algorithm1(material, start)["nfe_per_iteration"]
        found = (
            f"accuracy {percent(*ours[:2])}, grid {percent(*theirs[:2])}; NFE {tell_mean(nfe)}, "
            f"grid {search.nfe}"
        )
        judged = judge_accuracy(ours, theirs), judge_below(mean_interval(nfe), search.critical + 1)
        return grade_together(*judged), found

    return _beside_grid(studies, compare)


@decides(
    "Compares the NFE per iteration of Algorithm 1, by the 95 % interval of its mean, with the sum "
    "over all runs of the grid up to its critical K. Holds if Algorithm 1 needs fewer; cannot tell "
    "where the interval contains that sum.",
    compares=True,
)
def adaption_is_cheaper_than_the_grid(studies: Studies, numbers: Mapping) -> Parts:
    def compare(material, grid, search, start):
        runs = grid.records.groupby("n_steps")["nfe_per_iteration"].mean()
        whole = runs[runs.index <= search.critical].sum()
        nfe = _algorithm1(material, start)["nfe_per_iteration"]
        return judge_below(mean_interval(nfe), whole), f"{tell_mean(nfe)} against {whole:.0f}"

    return _beside_grid(studies, compare)


# --- its numbers in Table 1 -----------------------------------------------------------------------


@decides(
    ACCURACIES + "NFE of Algorithm 1, by the 95 % interval of its mean: holds within "
    f"{100 * CLOSE:g} % of the paper's, in part within a factor of {FACTOR:g}, cannot tell where "
    "the interval crosses either limit."
)
def adaption_numbers_match(studies: Studies, numbers: Mapping) -> Parts:
    for dataset, material in _adapted(studies):
        for start, label in _starts(material).items():
            nfe = _algorithm1(material, start)["nfe_per_iteration"]
            ratio = mean_interval(nfe / TABLE1[dataset]["adaption NFE"])
            judged, ours = (judge_ratio(ratio, CLOSE), tell_mean(nfe)), _summary_of(material, start)
            yield from table1_parts(material, "adaption", judged, ours, label)
