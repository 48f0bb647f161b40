"""Claims that are decided on data and on single models: fields, trajectories, margins."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from nodecore.analysis.crossings import find_crossings
from nodecore.analysis.evaluate import AGREEMENT, better_setting
from nodecore.analysis.fixed_points import find_visited
from nodecore.analysis.intervals import Interval
from nodecore.analysis.margins import robustness
from nodecore.claims.paper import percent
from nodecore.claims.rules.base import (
    FACTOR,
    FAILS,
    HOLDS,
    MOST,
    PARTLY,
    UNSURE,
    Part,
    Parts,
    Studies,
    critical_of,
    decides,
    grade,
    grade_each,
    judge_within,
    points,
)
from nodecore.data.datasets import load as load_data
from nodecore.data.synthetic import landscape_field, landscape_minima
from nodecore.evidence.means import mean_interval, tell_mean
from nodecore.evidence.names import name_of
from nodecore.evidence.tables import AGREES_AT_END, as_trained, under_exact_flow
from nodecore.evidence.trajectories import follow

FEW_CROSSINGS = 0.01  # share of pairs: fewer are a blemish, more a habit
N_STARTS = 100  # trajectories that may cross


# --- data -----------------------------------------------------------------------------------------


@decides("Holds if there are as many minima as the paper says, each the class of some sample.")
def classes_are_minima(studies: Studies, numbers: Mapping) -> Parts:
    training, _ = load_data("landscape")
    minima, shares = landscape_minima(), training.class_shares()
    places = ", ".join(f"{x:.2f}" for x in minima)
    shown = ", ".join(f"{100 * share:.0f} %" for share in shares.tolist())
    right = len(minima) == len(shares) == numbers["minima"] and bool((shares > 0).all())
    found = f"{len(minima)} minima, at x = {places}; {shown} of the training samples end there"
    yield Part(name_of("landscape"), grade(right), found)


@decides(f"Holds for a data set whose dimension is within a factor of {FACTOR:g}.")
def dimension_is_near(studies: Studies, numbers: Mapping) -> Parts:
    ours = numbers["ours"]
    for dataset, dimension in numbers["theirs"].items():
        factor = max(ours, dimension) / min(ours, dimension)
        found = f"{dimension} against {ours}: a factor of {factor:.1f}"
        yield Part(name_of(dataset), grade(factor <= FACTOR), found)


@decides(
    "Each learned field is searched where its trajectories go. Holds if no field has a sink there; "
    "in part if some have none, or all have fewer than the true field."
)
def sinks_are_absent(studies: Studies, numbers: Mapping) -> Parts:
    for material, evidence in _runs_of([studies["landscape-euler"]], numbers["n_steps"]):
        model = follow(evidence, N_STARTS)
        zeros = [find_visited(model.member(i), p) for i, p in enumerate(model.path().unbind(1))]
        counts = [found.kinds.count("sink") for found, _ in zeros]
        none, fewer = (np.array(counts) < bound for bound in (1, len(landscape_minima())))
        verdict = HOLDS if none.all() else PARTLY if none.any() or fewer.all() else FAILS
        listed = ", ".join(map(str, counts))
        found = f"{int(none.sum())} of {len(counts)} fields have no sink; sinks by seed: {listed}"
        yield material.part(verdict, found, name_of(material.dataset))


def _runs_of(materials, n_steps):
    """(study, its run in so many steps) for each study that has one."""
    for material in materials:
        if (evidence := material.run(n_steps)) is not None:
            yield material, evidence


@decides(
    f"Holds if the seeds' accuracies have a standard deviation of at most {AGREES_AT_END:g} while "
    "any two learned fields, and each of them and the true field, differ at the test samples by "
    "more than half of their mean length; in part if only the fields differ."
)
def fields_differ(studies: Studies, numbers: Mapping) -> Parts:
    for material, evidence in _runs_of([studies["landscape-euler"]], numbers["n_steps"]):
        x = evidence.run.protocol.load()[1].x.expand(len(evidence.run.seeds), -1, -1)
        fields = [evidence.field(0.0, x)[i] for i in range(len(x))]
        fields.append(landscape_field(0.0, x[0].double()).to(x.dtype))
        away = [_difference(a, b) for a, b in combinations(fields[:-1], 2)]
        from_true = [_difference(a, fields[-1]) for a in fields[:-1]]
        accuracies = as_trained(evidence.records).loc[:, "accuracy"]
        different = min([*away, *from_true]) > 0.5
        alike = accuracies.std() <= AGREES_AT_END
        verdict = HOLDS if different and alike else PARTLY if different else FAILS
        found = (
            f"two seeds' fields differ by {tell_mean(away, 2)} of their mean length, and from the "
            f"true field by {tell_mean(from_true, 2)}; accuracies {tell_mean(100 * accuracies)} %"
        )
        yield material.part(verdict, found, name_of(material.dataset))


def _difference(f, g):
    """Mean distance of two fields' arrows (N, dim), over their mean length."""
    length = (f.norm(dim=-1) + g.norm(dim=-1)).mean() / 2
    return float((f - g).norm(dim=-1).mean() / length)


# --- one model: trajectories, other solvers, the margin -------------------------------------------


def _crossing_part(studies, n_steps, verdict_of):
    """Describe how many pairs of trajectories cross, seed by seed."""
    for material, evidence in _runs_of(studies.values(), n_steps):
        paths = follow(evidence, N_STARTS).path().unbind(1)
        shares = np.array([find_crossings(path).share_of_pairs for path in paths])
        found = (
            f"{tell_mean(100 * shares, 2)} % of the pairs cross; {int((shares == 0).sum())} of "
            f"{len(shares)} seeds have no crossing"
        )
        yield material.part(verdict_of(shares), found, name_of(material.dataset))


@decides(
    f"Follows {N_STARTS} starts that lie far apart. Holds if no pair crosses in any seed; in part "
    f"if some seed has none, or at most {100 * FEW_CROSSINGS:g} % of all pairs cross."
)
def trajectories_keep_apart(studies: Studies, numbers: Mapping) -> Parts:
    def verdict(shares):
        some = (shares == 0).any() or shares.mean() <= FEW_CROSSINGS
        return HOLDS if (shares == 0).all() else PARTLY if some else FAILS

    return _crossing_part(studies, numbers["n_steps"], verdict)


@decides(
    f"Follows {N_STARTS} starts that lie far apart. Holds if more than {100 * FEW_CROSSINGS:g} % "
    "of the pairs cross in every seed; in part if in some."
)
def trajectories_cross(studies: Studies, numbers: Mapping) -> Parts:
    return _crossing_part(
        studies, numbers["n_steps"], lambda shares: grade(*(shares > FEW_CROSSINGS))
    )


def changes(frame: pd.DataFrame) -> list[Interval]:
    """Accuracy as trained less that under each better setting: the means over seeds.

    frame: records of one run in fixed steps. Better: no fewer steps, of no lower order, or exact.
    """
    frame = frame.loc[frame["trained"].astype(bool)]
    own = as_trained(frame).set_index("seed")["accuracy"]
    finer = frame.loc[frame["test_n_steps"] >= frame["n_steps"]]
    own_setting = (finer["test_solver"] == finer["train_solver"]) & (
        finer["test_n_steps"] == finer["n_steps"]
    )
    better = pd.concat([finer.loc[~own_setting], under_exact_flow(frame)])
    lost = better.assign(lost=own.loc[better["seed"]].to_numpy() - better["accuracy"])
    settings = ["test_solver", "test_n_steps", "test_rtol"]
    by_setting = lost.groupby(settings, dropna=False)["lost"]
    return [mean_interval(values) for _, values in by_setting]


def _change_part(studies, n_steps, verdict_of, which):
    """The "largest" or the "smallest" change of accuracy under a better setting."""
    [material] = studies.values()
    frame = material.records[material.records["n_steps"] == n_steps]
    if frame.empty:
        return
    lost = changes(frame)
    pick = {"largest": max, "smallest": min}[which]
    shown = pick(lost, key=lambda change: abs(change.value))
    own = as_trained(frame).loc[:, "accuracy"]
    verdicts = [verdict_of(change) for change in lost]
    unsure = verdicts.count(UNSURE)
    found = (
        f"{percent(own.mean(), own.std())} as trained; {which} loss under {len(lost)} better "
        f"settings {points(shown.value)} ({100 * shown.low:.1f} to {100 * shown.high:.1f})"
        + f"; the intervals leave {unsure} of them open"
        * (unsure > 0)
    )
    yield material.part(grade_each(*verdicts), found, name_of(material.dataset))


@decides(
    "Holds if no better solver or finer step changes the mean accuracy by more than "
    f"{AGREEMENT:g}, by its 95 % interval; in part if some do not, cannot tell where the intervals "
    "leave it open."
)
def accuracy_is_kept(studies: Studies, numbers: Mapping) -> Parts:
    def verdict(lost):
        return judge_within(lost, AGREEMENT)

    return _change_part(studies, numbers["n_steps"], verdict, "largest")


@decides(
    f"Holds if every better solver or finer step loses more than {AGREEMENT:g} of the mean "
    "accuracy, by its 95 % interval; in part if some do, cannot tell where the intervals leave it "
    "open."
)
def accuracy_is_lost(studies: Studies, numbers: Mapping) -> Parts:
    def verdict(lost):
        return HOLDS if lost.low > AGREEMENT else FAILS if lost.high <= AGREEMENT else UNSURE

    return _change_part(studies, numbers["n_steps"], verdict, "smallest")


def _robustness_at(material, n_steps):
    """End states under the training and its test solver beside the margin, on the test set."""
    evidence = material.run(n_steps)
    own = evidence.run.steps
    x = evidence.run.protocol.load()[1].x
    return robustness(evidence.field, evidence.head, x, own, better_setting(own.solver, n_steps))


def _margin_material(studies):
    """Studies whose coarsest and critical runs are there, with these n_steps."""
    for material in studies.values():
        critical = critical_of(material)
        if critical is not None and material.found:
            yield material, int(material.records["n_steps"].min()), critical


@decides(
    "Compares the training with the test solver on every test sample, for the coarsest and the "
    "critical run. Holds if no sample whose end states lie closer together than its margin changes "
    "class."
)
def margin_keeps_the_class(studies: Studies, numbers: Mapping) -> Parts:
    for material, *both in _margin_material(studies):
        tested = [_robustness_at(material, k) for k in both]
        inside = sum(int(t.inside.sum()) for t in tested)
        broken = sum(int((t.inside & t.flipped).sum()) for t in tested)
        found = f"{broken} of {inside:,} samples inside the margin change class"
        yield Part(material.title, grade(broken == 0), found)


@decides(
    "Measures, of the samples that keep their class at the critical step, the share for which the "
    "margin guarantees it, by the 95 % interval of its mean over seeds. Holds if it is at least "
    f"{100 * MOST:g} %, in part if at least half; cannot tell where a limit is in the interval."
)
def margin_explains_agreement(studies: Studies, numbers: Mapping) -> Parts:
    for material, _, critical in _margin_material(studies):
        tested = _robustness_at(material, critical)
        shares = (tested.inside & ~tested.flipped).sum(1) / (~tested.flipped).sum(1)
        _, low, high = mean_interval(shares.numpy())
        verdict = PARTLY if low >= 0.5 and high < MOST else UNSURE
        verdict = HOLDS if low >= MOST else FAILS if high < 0.5 else verdict
        share = tell_mean(100 * shares.numpy())
        found = f"at K = {critical}, {share} % of those that keep their class are inside the margin"
        yield material.part(verdict, found)


# --- neither --------------------------------------------------------------------------------------


@decides("No test decides this claim here; the reason is given.")
def is_not_tested(studies: Studies, numbers: Mapping) -> Parts:
    return iter(())
