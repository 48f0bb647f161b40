"""Claims about grids of step sizes and about tolerances."""

import math
from collections.abc import Mapping
from itertools import combinations, product

import numpy as np
import pandas as pd

from nodecore.analysis.evaluate import AGREEMENT, critical_n_steps
from nodecore.analysis.intervals import share_interval
from nodecore.claims.paper import TABLE1, percent
from nodecore.claims.rules.base import (
    ACCURACIES,
    FAILS,
    HOLDS,
    MANY,
    MOST,
    OTHER_SCALE,
    PARTLY,
    UNSURE,
    UNTESTED,
    Part,
    Parts,
    Studies,
    critical_of,
    decides,
    extent,
    grade,
    of_kind,
    points,
    search_of,
    table1_parts,
    unfound,
)
from nodecore.evidence.names import name_of
from nodecore.evidence.tables import (
    FEWEST,
    agreement_gaps,
    critical_rtols,
    critical_shares,
    exact_gaps,
    own_accuracy,
    seed_critical,
    seed_gaps,
    tolerances,
    trend,
)

# --- grids of step sizes --------------------------------------------------------------------------


@decides(
    "The gap is the difference of mean accuracy between the training solver and a better one "
    "(midpoint at the same step for Euler, half the step for rk4). Three things are asked: a "
    f"coarse run has a gap of more than {AGREEMENT:g}; from a critical K on, every gap is at most "
    "that; from some K on, not necessarily the same, every gap to the exact flow is, too. Holds if "
    "all three are true and the grid goes beyond both K, so that a finer run confirms each; in "
    "part if the first is true but not all three. A single seed cannot tell."
)
def critical_step_exists(studies: Studies, numbers: Mapping) -> Parts:
    return map(_critical_part, studies.values())


def _critical_part(material):
    frame = material.records
    if agreement_gaps(frame).isna().all():
        return material.part(UNTESTED, "no seed trained")
    if material.n_seeds < 2:
        lost = points(agreement_gaps(frame).max())
        found = f"one seed loses up to {lost}; {_critical_text(material)}"
        return material.part(UNSURE, found)
    gaps, exact = agreement_gaps(frame), critical_n_steps(exact_gaps(frame).to_dict())
    critical, lost = critical_n_steps(gaps.to_dict()), f"loses up to {points(gaps.max())}"
    if gaps.max() <= AGREEMENT:
        verdict = UNTESTED if material.cut else FAILS
        return material.part(verdict, f"{lost}; {unfound(material)}")
    if critical is None:
        return material.part(PARTLY, f"{lost}; {unfound(material)}")
    flow = "none" if exact is None else exact
    found = f"{lost}; critical K: {material.tell(critical)}{_sureness(frame, critical)}"
    found += f"; against the exact flow {flow}"
    confirmed = exact is not None and not material.ends_at(max(critical, exact))
    return material.part(HOLDS if confirmed else PARTLY, found)


def _critical_text(material):
    critical = critical_of(material)
    return f"critical K: {material.tell(critical)}" if critical else unfound(material)


def _sureness(frame, critical):
    """Describe how sure a critical n_steps is, where there is more than one seed."""
    single = seed_critical(frame)
    if len(single) < 2:
        return ""
    alone, never = f"single seeds K = {extent(single)}", int(single.isna().sum())
    alone += f", for {never} of {len(single)} no K" if 0 < never < len(single) else ""
    if len(single) < FEWEST:
        return f" ({alone})"
    share = critical_shares(frame).to_dict().get(critical, 0.0)
    return f" ({100 * share:.0f} % of redrawn seeds; {alone})"


def _apart(one, other):
    """Whether two ranges of n_steps have none in common."""
    if max(one[0], other[0]) > min(one[1], other[1]):
        return HOLDS
    return FAILS if one == other and one[0] == one[1] else UNSURE


def _above(one, other):
    """Whether all of a range of n_steps is above the other."""
    return HOLDS if one[0] > other[1] else FAILS if one[1] <= other[0] else UNSURE


def _pair_verdict(one, other, compare):
    """Verdict of compare on the ranges of the critical K of two studies."""
    if not (one.at_papers_scale and other.at_papers_scale):
        return OTHER_SCALE
    ours, theirs = one.critical_range, other.critical_range
    return UNSURE if ours is None or theirs is None else compare(ours, theirs)


def _range_text(material):
    seeds = f"{material.profile}, {material.n_seeds} seed{'s' * (material.n_seeds > 1)}"
    known, critical = material.critical_range, critical_of(material)
    told = unfound(material) if critical is None else material.tell(critical)
    if known is None:
        return f"{told} ({seeds})"
    low, high = known
    redraws = f"from {low:.0f} on" if high == math.inf else extent(known)
    return f"{told}, redraws {redraws} ({seeds})"


def _pair_parts(studies, pairs, compare):
    """A part for each pair of data sets whose grids of Euler's method are there."""
    euler = of_kind(studies, "euler")
    for pair in pairs:
        if all(dataset in euler for dataset in pair):
            found = " and ".join(f"{name_of(d)} {_range_text(euler[d])}" for d in pair)
            verdict = _pair_verdict(euler[pair[0]], euler[pair[1]], compare)
            yield Part(" and ".join(map(name_of, pair)), verdict, f"critical K: {found}")


PAIRS = (
    "Compares the ranges of the critical K of Euler's method in 95 % of the redraws of "
    f"{FEWEST} seeds or more; a range has no upper end where the grid ends there. A pair is judged "
    "'cannot tell' where the ranges leave the answer open or one of the two has fewer seeds. "
)


@decides(PAIRS + "Holds for two data sets whose ranges have no K in common.")
def critical_step_differs(studies: Studies, numbers: Mapping) -> Parts:
    return _pair_parts(studies, combinations(of_kind(studies, "euler"), 2), _apart)


@decides(PAIRS + "Holds for a synthetic set and a set of images if the former needs more steps.")
def synthetic_needs_more_steps(studies: Studies, numbers: Mapping) -> Parts:
    return _pair_parts(studies, product(numbers["synthetic"], numbers["images"]), _above)


@decides(
    "Holds if the critical K of rk4 is smaller than that of Euler's method in all of the "
    "95 % redraws of seeds; cannot tell where the ranges overlap.",
    compares=True,
)
def higher_order_allows_larger_steps(studies: Studies, numbers: Mapping) -> Parts:
    euler, rk4 = of_kind(studies, "euler"), of_kind(studies, "rk4")
    for dataset in (d for d in euler if d in rk4):
        ours, theirs = rk4[dataset], euler[dataset]
        found = f"critical K: rk4 {_range_text(ours)}, Euler {_range_text(theirs)}"
        yield Part(name_of(dataset), _pair_verdict(theirs, ours, _above), found)


NO_SLOPE = 0.005  # of accuracy for twice the steps: 4 points over a grid of 256


@decides(
    "Fits a line through each seed's accuracies over log2 K and takes the 95 % interval of the "
    f"mean slope. Holds if it lies within {100 * NO_SLOPE:g} points for twice the steps and "
    "contains 0, in part if it lies within without containing 0; does not hold if it lies on one "
    "side of 0 and reaches beyond; otherwise cannot tell."
)
def accuracy_has_no_trend(studies: Studies, numbers: Mapping) -> Parts:
    for material in studies.values():
        line = trend(material.records)
        if line is None:
            yield material.part(UNTESTED, "too few seeds or runs to tell")
            continue
        slope, low, high = (
            f"{100 * value:+.2f}".replace("-", "−") for value in (line.slope, line.low, line.high)
        )
        found = f"{slope} points for twice the steps (95 %: {low} to {high})"
        yield material.part(_slope_verdict(line.low, line.high), found)


def _slope_verdict(low, high):
    has_zero = low <= 0 <= high
    if low >= -NO_SLOPE and high <= NO_SLOPE:
        return HOLDS if has_zero else PARTLY
    return UNSURE if has_zero else FAILS


@decides(
    "Holds if the mean accuracy, as trained, of every run coarser than the critical K is at most "
    f"{AGREEMENT:g} below the best ODE-like run's."
)
def accurate_without_a_flow(studies: Studies, numbers: Mapping) -> Parts:
    for material in studies.values():
        search, own = search_of(material), own_accuracy(material.records)
        if search is None or search.coarser is None:
            yield material.part(UNTESTED, unfound(material))
            continue
        coarse = own.loc[own.index < search.critical]
        worst = coarse.loc[coarse["mean"].idxmin()]
        found = (
            f"lowest of the runs that are no flow {percent(worst['mean'], worst['std'])}, best of "
            f"the others {percent(search.mean, search.std)}"
        )
        verdict = grade(worst["mean"] >= search.mean - AGREEMENT)
        yield material.part(verdict, found)


NEAR_BOUND = 0.05  # of the bound: where two tests may fall on different sides of it


@decides(
    "Asks of each trained model: does the test with one better solver give the same answer as the "
    f"test with the exact flow? Holds if it does for {100 * MOST:g} % of all models and also of "
    f"those with a gap within {NEAR_BOUND:g} of the bound; in part if for {100 * MANY:g} % of all. "
    "Models of a reduced scale are counted separately; single runs beside a study do not count. "
    "Both tests measure accuracy; whether that is the right thing to measure is not tested."
)
def simple_test_suffices(studies: Studies, numbers: Mapping) -> Parts:
    for profile in dict.fromkeys(material.profile for material in studies.values()):
        frames = [m.records for m in studies.values() if m.profile == profile]
        gaps = np.concatenate([_both_gaps(frame) for frame in frames])
        if len(gaps):
            yield _simple_test_part(f"models in fixed steps, {profile} scale", gaps)


def _simple_test_part(where, gaps):
    simple, exact = (gaps <= AGREEMENT).T
    same, near = simple == exact, (np.abs(gaps - AGREEMENT) <= NEAR_BOUND).any(axis=1)
    share = share_interval(int(same.sum()), len(same))
    sure = share.value >= MOST and (same[near].mean() >= MOST if near.any() else True)
    verdict = HOLDS if sure else PARTLY if share.value >= MANY else FAILS
    found = (
        f"the same answer for {same.sum()} of {len(same)} models: {share.percent()}; near the "
        f"bound for {same[near].sum()} of {near.sum()}; {(simple & ~exact).sum()} pass the simple "
        f"test alone, {(exact & ~simple).sum()} the exact one alone"
    )
    return Part(where, verdict, found)


def _both_gaps(frame):
    """Gaps of every trained model to the better solver and to the exact flow, (models, 2)."""
    gaps = [seed_gaps(frame).stack(), seed_gaps(frame, exact_gaps).stack()]
    return pd.concat(gaps, axis=1).dropna().to_numpy(float)


@decides(
    f"Holds if every seed trained at every number of steps; in part if at least {100 * MANY:g} % "
    "did. A single seed that did not train everywhere cannot tell."
)
def trains_at_every_step(studies: Studies, numbers: Mapping) -> Parts:
    for material in studies.values():
        once = material.records.drop_duplicates(["n_steps", "seed"])
        models = once.loc[:, "trained"].astype(bool)
        fewer = UNSURE if material.n_seeds == 1 else FAILS
        verdict = HOLDS if models.all() else PARTLY if models.mean() >= MANY else fewer
        yield material.part(verdict, f"{models.sum()} of {len(models)} models")


@decides("Holds if the grid here goes as far as the paper's; in part if it ends earlier.")
def grid_is_the_same(studies: Studies, numbers: Mapping) -> Parts:
    for name, material in studies.items():
        last = int(material.records.loc[:, "n_steps"].max())
        verdict = HOLDS if last >= numbers[name] else PARTLY
        yield Part(material.title, verdict, f"K up to {last}, paper {numbers[name]}")


@decides(
    "Compares the settings stored in the records with those of the paper's appendix. Holds if all "
    "are the same, in part if the training was made smaller."
)
def protocol_is_the_same(studies: Studies, numbers: Mapping) -> Parts:
    for material in studies.values():
        dataset, wanted = material.dataset, numbers[material.dataset]
        used = material.found[0].stored.header["protocol"]
        other = [f"{k} {used[k]:g}, not {v:g}" for k, v in wanted.items() if used[k] != v]
        found = "; ".join(other) or f"all {len(wanted)} as in the paper"
        yield Part(name_of(dataset), PARTLY if other else HOLDS, found)


# --- their numbers in Table 1 ---------------------------------------------------------------------


@decides(
    ACCURACIES + f"NFE of the grid: holds if the critical K is the paper's in more than "
    f"{100 * MOST:g} % of the redraws of seeds; cannot tell if it is that in "
    f"{100 * (1 - MOST):.0f} % or more, if there are fewer than {FEWEST} seeds, or if the grid "
    "ends at a smaller one; otherwise in part if it is the next one on the grid."
)
def grid_numbers_match(studies: Studies, numbers: Mapping) -> Parts:
    for dataset, material in of_kind(studies, "euler").items():
        search = search_of(material)
        # One past the last K that fails in the paper.
        theirs = 2 * (TABLE1[dataset]["grid NFE"][0] - 1)
        if search is None:
            far_enough = material.records.loc[:, "n_steps"].max() >= theirs and not material.cut
            verdict = FAILS if far_enough else UNTESTED
            yield material.part(verdict, unfound(material), "NFE")
            continue
        verdict = _critical_verdict(material, search.critical, theirs)
        found = search.nfe + _sureness(material.records, search.critical)
        yield from table1_parts(material, "grid", (verdict, found), search.accuracy)


def _critical_verdict(material, ours, theirs):
    """Verdict on the critical K beside the paper's."""
    if material.n_seeds < FEWEST or (ours < theirs and material.ends_at(ours)):
        return UNSURE
    share = critical_shares(material.records).to_dict().get(theirs, 0.0)
    if share >= 1 - MOST:
        return HOLDS if share > MOST else UNSURE
    return PARTLY if ours / theirs in (0.5, 2) else FAILS


# --- adaptive solvers -----------------------------------------------------------------------------


@decides(
    "Looks at the models trained at the coarsest tolerance. Holds if the mean accuracy changes by "
    f"more than {AGREEMENT:g} under the exact flow."
)
def coarse_tolerance_depends(studies: Studies, numbers: Mapping) -> Parts:
    for material in studies.values():
        table = tolerances(material.records)
        rtol, row = table.index[0], table.iloc[0]
        shown = percent(row["mean"], row["std"]), percent(row["mean exact"], row["std exact"])
        found = f"trained at {rtol:g}: {shown[0]}, under the exact flow {shown[1]}"
        yield material.part(grade(row["gap"] > AGREEMENT), found)


@decides(
    "The critical tolerance is the coarsest training tolerance from which on the exact flow "
    f"changes the mean accuracy by at most {AGREEMENT:g}. Holds if, from there on, every finer "
    "test tolerance of the same method also changes it by no more; in part if some do."
)
def fine_tolerance_is_independent(studies: Studies, numbers: Mapping) -> Parts:
    for material in studies.values():
        frame, critical = material.records, critical_rtols(material.records)
        if pd.isna(critical.loc["mean"]):
            yield material.part(FAILS, "no critical tolerance on the grid")
            continue
        moved = _changes_of_tolerance(frame[frame["rtol"] <= critical["mean"]])
        alone = sorted({f"{v:g}" for v in critical.drop("mean").dropna()}, key=float)
        found = (
            f"from a tolerance of {critical['mean']:g} on (single seeds: {', '.join(alone)}); "
            f"finer tests change the mean by at most {points(moved.max())}"
        )
        yield material.part(grade(*(moved <= AGREEMENT)), found)


def _changes_of_tolerance(frame):
    """Largest changes of the mean accuracy at finer tests of the training's method, by rtol."""
    trained = frame[frame["trained"].astype(bool)]
    same = trained[trained["test_solver"] == trained["train_solver"]]
    finer = same[same["test_rtol"] <= same["rtol"]]
    means = finer.groupby(["rtol", "test_rtol"])["accuracy"].mean().unstack()
    own = own_accuracy(frame, "rtol")["mean"]
    return means.sub(own, axis=0).abs().max(axis=1)
