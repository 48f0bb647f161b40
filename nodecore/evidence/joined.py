"""The evidence of a whole study: runs that differ only in their seeds joined, at the best scale."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from nodecore.evidence import store
from nodecore.evidence.catalogue import STUDIES, get_study, turn
from nodecore.evidence.found import Evidence, find
from nodecore.evidence.runs import SEEDS, Run
from nodecore.training.adapted import USUAL_START

FEW = 3  # seeds


def training_of(run: Run) -> Run:
    """A run with the usual seeds in place of its own: equal for runs that differ only in seeds."""
    return replace(run, seeds=SEEDS)


def join(found: Sequence[Evidence]) -> list[Evidence]:
    """Evidence of runs that differ only in their seeds as that of one run of all these seeds.

    In the order in which the trainings come. ValueError where two have the same seed.
    """
    groups = {}
    for evidence in found:
        groups.setdefault(training_of(evidence.run), []).append(evidence)
    return [_joined(group) for group in groups.values()]


def _joined(group):
    if len(group) == 1:
        return group[0]
    group = sorted(group, key=lambda evidence: evidence.run.seeds)
    seeds = tuple(seed for evidence in group for seed in evidence.run.seeds)
    run = replace(group[0].run, seeds=seeds)
    return Evidence(run, store.JoinedRuns(tuple(evidence.stored for evidence in group)))


@dataclass(frozen=True)
class Shown:
    """The evidence of a study at one profile, all seeds of a training joined.

    trainings: all of the study's at that profile, with the usual seeds. complete: no run that is
    waited for is missing (see best). lacking: in words, what is missing of a larger scale that
    would be shown if it were complete.
    """

    study: str
    profile: str
    found: tuple[Evidence, ...]
    trainings: tuple[Run, ...]
    complete: bool = False
    lacking: str = ""


Look = Callable[[Run], Evidence | None]


def best(names: Sequence[str], look: Look = find) -> list[Shown]:
    """The evidence of studies of one data set that are set beside one another, at one scale.

    It is the first of their profiles at which all of them are complete, else the last one that has
    any evidence. Complete: all runs with the first seed are there, but for those that nobody waits
    for (finer steps than need be, see catalogue.turn, and other starts of Algorithm 1). More seeds
    are in it where all their runs are there, in the same sense, and those of all seeds before them:
    a seed is not left out of a mean because one of its runs is missing, while a later one counts.
    Steps that nobody waits for are in it once FEW of these seeds have them, or all where there are
    fewer. Of adaptions, which are no grid, each training counts its own seeds.

    look: finds the evidence of a run.
    """
    own = {name: list(dict.fromkeys(run.profile for run in STUDIES[name])) for name in names}
    lacking, shown = [], []
    for profile in dict.fromkeys(p for profiles in own.values() for p in profiles):
        at = {name: profile if profile in own[name] else own[name][-1] for name in names}
        studies = {name: _joined_runs(name, at[name]) for name in names}
        every = [run for runs in studies.values() for run in runs]
        found = {run: evidence for run in every if (evidence := look(run))}
        awaited = [run for run in every if turn(run) == 0 and not _is_aside(run)]
        there = sum(run in found for run in awaited)
        if there or not shown:
            shown = [_show(name, at[name], runs, found) for name, runs in studies.items()]
        if there == len(awaited):
            shown = [replace(study, complete=True) for study in shown]
            break
        lacking.append(f"{profile} scale: {there} of {len(awaited)} runs so far")
    return [replace(study, lacking="; ".join(lacking)) for study in shown]


def _joined_runs(name, profile):
    """Adaptions are compared on the same seeds: there more of them stay apart. Some constants were
    chosen on the first ones, and only some controllers were tried on more."""
    runs = get_study(name, profile)
    return [run for run in runs if run.steps.controller is None or set(run.seeds) <= set(SEEDS)]


def _is_aside(run):
    """Tell whether a run is Algorithm 1 from another start: shown if there, not waited for."""
    return run.steps.start not in (None, USUAL_START)


def _show(name, profile, runs, found):
    trainings = list(dict.fromkeys(map(training_of, runs)))
    is_adaption = trainings[0].steps.controller is not None
    beside = [[t] for t in trainings] if is_adaption else [trainings]
    counted = []
    for together in beside:
        own = [run for run in runs if training_of(run) in together]
        groups = sorted({run.seeds for run in own})
        whole = set(takewhile(lambda seeds, own=own: _is_whole(seeds, own, found), groups))
        counted += [
            found[run]
            for run in own
            if run in found
            and run.seeds in whole
            and (is_adaption or _is_counted(run, whole, found))
        ]
    return Shown(name, profile, tuple(join(counted)), tuple(trainings))


def _is_whole(seeds, runs, found):
    """Tell whether all that is waited for of these seeds is there; the first ones count anyway."""
    belong = [r for r in runs if r.seeds == seeds and turn(r) < 2]
    return seeds[0] == SEEDS[0] or all(run in found for run in belong)


def _is_counted(run, groups, found):
    """Tell whether a run counts beside others of these seeds. A training that nobody waits for
    counts only once FEW seeds have it, so that no single seed stands in a row of means."""
    having = sum(replace(run, seeds=seeds) in found for seeds in groups)
    return turn(run) < 2 or having >= min(FEW, len(groups))
