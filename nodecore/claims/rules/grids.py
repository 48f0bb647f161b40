"""Claims about grids of step sizes and about tolerances."""

from collections.abc import Mapping

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
    PARTLY,
    UNTESTED,
    Part,
    Studies,
    best_of,
    critical_of,
    decides,
    extent,
    grade,
    judge_accuracy,
    of_kind,
    points,
    search_of,
    unfound,
)
from nodecore.evidence.names import name_of
from nodecore.evidence.runs import SEEDS
from nodecore.evidence.tables import (
    agreement_gaps,
    critical_rtols,
    critical_shares,
    exact_gaps,
    own_accuracy,
    seed_critical,
    seed_gaps,
    tolerances,
    trend,
    under_exact_flow,
)

# --- grids of step sizes --------------------------------------------------------------------------


@decides(
    "Gap: difference of mean accuracy between the training solver and a better one (midpoint at "
    "the same step for Euler, half the step for rk4). Holds if a coarse run has a gap of more than "
    f"{AGREEMENT:g} and from a critical K on every gap, also that to the exact flow (images: to "
    "rk4 in four times the steps), is at most that; in part if only the first."
)
def critical_step_exists(studies: Studies, numbers: Mapping) -> list[Part]:
    return [_critical_part(material) for material in studies.values()]


def flow_gaps(frame: pd.DataFrame) -> pd.Series:
    """Gap of mean accuracy to the exact flow, by n_steps; where no record has that, to rk4 in four
    times the steps."""
    if not under_exact_flow(frame).empty:
        return exact_gaps(frame)
    finest = (frame["test_solver"] == "rk4") & (frame["test_n_steps"] == 4 * frame["n_steps"])
    means = frame[finest & frame["trained"].astype(bool)].groupby("n_steps")["accuracy"].mean()
    gaps = (own_accuracy(frame)["mean"] - means).abs()
    return pd.Series(gaps.reindex(sorted(frame["n_steps"].unique())).astype(float))


def flow_name(frame: pd.DataFrame) -> str:
    """Name the setting that flow_gaps compares with."""
    return "rk4 at 4K" if under_exact_flow(frame).empty else "the exact flow"


def _critical_part(material):
    frame = material.records
    gaps, exact = agreement_gaps(frame), critical_n_steps(flow_gaps(frame).to_dict())
    critical, lost = critical_n_steps(gaps.to_dict()), f"loses up to {points(gaps.max())}"
    if gaps.max() <= AGREEMENT:
        verdict = UNTESTED if material.cut else FAILS
        return Part(material.title, verdict, f"{lost}; {unfound(material)}")
    if critical is None:
        return Part(material.title, PARTLY, f"{lost}; {unfound(material)}")
    flow = "none" if exact is None else exact
    found = f"{lost}; critical K = {critical}{_sureness(frame, critical)}"
    found += f"; against {flow_name(frame)} {flow}"
    return Part(material.title, HOLDS if exact is not None else PARTLY, found)


def _sureness(frame, critical):
    """Describe how sure a critical n_steps is, where there is more than one seed."""
    single = seed_critical(frame)
    if len(single) < 2:
        return ""
    share = critical_shares(frame).to_dict().get(critical, 0.0)
    return f" ({100 * share:.0f} % of redrawn seeds; single seeds K = {extent(single)})"


def _critical_steps(studies):
    """Critical K of Euler's method by data set, and a part for each where it is not known."""
    euler = of_kind(studies, "euler")
    found = {d: k for d, material in euler.items() if (k := critical_of(material))}
    unknown = [Part(name_of(d), UNTESTED, unfound(m)) for d, m in euler.items() if d not in found]
    return found, unknown


@decides(
    "The critical K of Euler's method for each data set. Holds if no two are equal, in part if "
    "not all are."
)
def critical_step_differs(studies: Studies, numbers: Mapping) -> list[Part]:
    found, unknown = _critical_steps(studies)
    if len(found) < 2:
        return unknown
    different = len(set(found.values()))
    verdict = HOLDS if different == len(found) else PARTLY if different > 1 else FAILS
    shown = ", ".join(f"{name_of(d)} {k}" for d, k in found.items())
    return [Part("critical K", verdict, shown), *unknown]


@decides(
    "The critical K of Euler's method. Holds if each synthetic set needs more steps than each "
    "image set, in part if some pair does."
)
def synthetic_needs_more_steps(studies: Studies, numbers: Mapping) -> list[Part]:
    found, unknown = _critical_steps(studies)
    pairs = [
        found[a] > found[b] for a in numbers["synthetic"] for b in numbers["images"]
        if a in found and b in found
    ]  # fmt: skip
    shown = ", ".join(f"{name_of(d)} {k}" for d, k in found.items())
    return [*([Part("critical K", grade(*pairs), shown)] if pairs else []), *unknown]


@decides("Holds if the critical K of rk4 is smaller than that of Euler's method.")
def higher_order_allows_larger_steps(studies: Studies, numbers: Mapping) -> list[Part]:
    euler, rk4 = of_kind(studies, "euler"), of_kind(studies, "rk4")
    parts = []
    for dataset in (d for d in euler if d in rk4):
        ours, theirs = critical_of(rk4[dataset]), critical_of(euler[dataset])
        last = euler[dataset].records.loc[:, "n_steps"].max()
        shown = [f"{k}" if k else "none on the grid" for k in (ours, theirs)]
        found = f"critical K: rk4 {shown[0]}, Euler {shown[1]}"
        if ours is None or (theirs is None and (euler[dataset].cut or ours > last)):
            parts.append(Part(name_of(dataset), UNTESTED, found))
        else:
            parts.append(Part(name_of(dataset), grade(theirs is None or ours < theirs), found))
    return parts


@decides(
    "For each seed a line through its accuracies over log2 K; t test of the slopes over the "
    "seeds. Holds where no slope is told from zero, at a level of 0.05 over the number of studies."
)
def accuracy_has_no_trend(studies: Studies, numbers: Mapping) -> list[Part]:
    parts = []
    for material in studies.values():
        line = trend(material.records)
        if line is None:
            parts.append(Part(material.title, UNTESTED, "too few seeds or runs to tell"))
            continue
        found = (
            f"{100 * line.slope:+.2f} points for twice the steps (95 %: {100 * line.low:+.2f} to "
            f"{100 * line.high:+.2f})"
        )
        level = 0.05 / len(studies)
        parts.append(Part(material.title, grade(not line.p_slope < level), found))
    return parts


@decides(
    f"Holds if every run coarser than the critical K has a mean accuracy, as trained, of at most "
    f"{AGREEMENT:g} below the best ODE-like run's."
)
def accurate_without_a_flow(studies: Studies, numbers: Mapping) -> list[Part]:
    parts = []
    for material in studies.values():
        search, own = search_of(material), own_accuracy(material.records)
        if search is None or search.coarser is None:
            parts.append(Part(material.title, UNTESTED, unfound(material)))
            continue
        coarse = own.loc[own.index < search.critical]
        worst = coarse.loc[coarse["mean"].idxmin()]
        found = (
            f"lowest of the runs that are no flow {percent(worst['mean'], worst['std'])}, best of "
            f"the others {percent(search.mean, search.std)}"
        )
        verdict = grade(worst["mean"] >= search.mean - AGREEMENT)
        parts.append(Part(material.title, verdict, found))
    return parts


@decides(
    "Every trained model by itself: does the test with one better solver give the same answer as "
    "the test with the exact flow (images: rk4 in four times the steps)? "
    f"Holds from {100 * MOST:g} % on, in part from "
    f"{100 * MANY:g} %."
)
def simple_test_suffices(studies: Studies, numbers: Mapping) -> list[Part]:
    same = []
    for material in studies.values():
        frame = material.records
        gaps = [seed_gaps(frame).stack(), seed_gaps(frame, flow_gaps).stack()]
        both = pd.concat(gaps, axis=1).dropna() <= AGREEMENT
        same += (both[0] == both[1]).tolist()
    if not same:
        return []
    share = share_interval(sum(same), len(same))
    verdict = HOLDS if share.value >= MOST else PARTLY if share.value >= MANY else FAILS
    found = f"the same answer for {sum(same)} of {len(same)} models: {share.percent()}"
    return [Part("all models in fixed steps", verdict, found)]


@decides("Holds if every seed trained at every number of steps; in part if most did.")
def trains_at_every_step(studies: Studies, numbers: Mapping) -> list[Part]:
    parts = []
    for material in studies.values():
        once = material.records.drop_duplicates(["n_steps", "seed"])
        models = once.loc[:, "trained"].astype(bool)
        verdict = HOLDS if models.all() else PARTLY if models.mean() >= MANY else FAILS
        parts.append(Part(material.title, verdict, f"{models.sum()} of {len(models)} models"))
    return parts


@decides("Holds if the grid here goes as far as the paper's; in part if it ends before.")
def grid_is_the_same(studies: Studies, numbers: Mapping) -> list[Part]:
    parts = []
    for name, material in studies.items():
        last = int(material.records.loc[:, "n_steps"].max())
        verdict = HOLDS if last >= numbers[name] else PARTLY
        parts.append(Part(material.title, verdict, f"K up to {last}, paper {numbers[name]}"))
    return parts


@decides(
    "The settings that lie in the records against those of the appendix. Holds if all are the "
    "same, in part if the training was made smaller."
)
def protocol_is_the_same(studies: Studies, numbers: Mapping) -> list[Part]:
    parts = []
    for material in studies.values():
        dataset, wanted = material.dataset, numbers[material.dataset]
        used = material.found[0].stored.header["protocol"]
        other = [f"{k} {used[k]:g}, not {v:g}" for k, v in wanted.items() if used[k] != v]
        found = "; ".join(other) or f"all {len(wanted)} as in the paper"
        parts.append(Part(name_of(dataset), PARTLY if other else HOLDS, found))
    return parts


# --- their numbers in Table 1 ---------------------------------------------------------------------


@decides(
    ACCURACIES + "NFE of the grid: holds if the critical K is the paper's, in part if it is the "
    "next one on the grid."
)
def grid_numbers_match(studies: Studies, numbers: Mapping) -> list[Part]:
    parts = []
    for dataset, material in of_kind(studies, "euler").items():
        search, paper = search_of(material), TABLE1[dataset]
        theirs = 2 * (paper["grid NFE"][0] - 1)  # one past the last K that fails in the paper
        if search is None:
            far_enough = material.records.loc[:, "n_steps"].max() >= theirs and not material.cut
            verdict = FAILS if far_enough else UNTESTED
            parts.append(Part("NFE", verdict, unfound(material)))
            continue
        factor = search.critical / theirs
        verdict = HOLDS if factor == 1 else PARTLY if factor in (0.5, 2) else FAILS
        ours = best_of(material.records, search)
        same = judge_accuracy(ours, (*paper["grid accuracy"], len(SEEDS)))
        sureness = _sureness(material.records, search.critical)
        parts.append(Part("NFE", verdict, search.nfe.replace("-", "–") + sureness))
        parts.append(Part("accuracy", same, percent(*ours[:2])))
    return parts


# --- adaptive solvers -----------------------------------------------------------------------------


@decides(
    "Trained at the coarsest tolerance. Holds if the mean accuracy changes by more than "
    f"{AGREEMENT:g} under the exact flow."
)
def coarse_tolerance_depends(studies: Studies, numbers: Mapping) -> list[Part]:
    parts = []
    for material in studies.values():
        table = tolerances(material.records)
        rtol, row = table.index[0], table.iloc[0]
        shown = percent(row["mean"], row["std"]), percent(row["mean exact"], row["std exact"])
        found = f"trained at {rtol:g}: {shown[0]}, under the exact flow {shown[1]}"
        parts.append(Part(material.title, grade(row["gap"] > AGREEMENT), found))
    return parts


@decides(
    "Critical tolerance: the coarsest of the training from which on the exact flow changes the "
    f"mean accuracy by at most {AGREEMENT:g}. Holds if from there on every finer test tolerance of "
    "the same method changes it by no more either; in part if some do."
)
def fine_tolerance_is_independent(studies: Studies, numbers: Mapping) -> list[Part]:
    parts = []
    for material in studies.values():
        frame, critical = material.records, critical_rtols(material.records)
        if pd.isna(critical.loc["mean"]):
            parts.append(Part(material.title, FAILS, "no critical tolerance on the grid"))
            continue
        moved = _changes_of_tolerance(frame[frame["rtol"] <= critical["mean"]])
        alone = sorted({f"{v:g}" for v in critical.drop("mean").dropna()}, key=float)
        found = (
            f"from a tolerance of {critical['mean']:g} on (single seeds: {', '.join(alone)}); "
            f"finer tests change the mean by at most {points(moved.max())}"
        )
        parts.append(Part(material.title, grade(*(moved <= AGREEMENT)), found))
    return parts


def _changes_of_tolerance(frame):
    """Largest changes of the mean accuracy at finer tests of the training's method, by rtol."""
    trained = frame[frame["trained"].astype(bool)]
    same = trained[trained["test_solver"] == trained["train_solver"]]
    finer = same[same["test_rtol"] <= same["rtol"]]
    means = finer.groupby(["rtol", "test_rtol"])["accuracy"].mean().unstack()
    own = own_accuracy(frame, "rtol")["mean"]
    return means.sub(own, axis=0).abs().max(axis=1)
