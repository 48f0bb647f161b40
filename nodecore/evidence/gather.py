"""What a chapter and its appendix both show: the evidence of their runs, found or trained."""

from collections.abc import Iterable, Sequence
from itertools import product

import pandas as pd

from nodecore.evidence.catalogue import cure_run, grid_runs, tolerance_runs
from nodecore.evidence.found import Evidence, find
from nodecore.evidence.joined import join
from nodecore.evidence.names import name_of
from nodecore.evidence.obtain import obtain
from nodecore.evidence.runs import Run
from nodecore.evidence.tables import records_by_solver
from nodecore.evidence.trajectories import Followed, follow
from nodecore.ode.steps import FixedSteps
from nodecore.training.adapted import Adapted
from nodecore.training.controllers import controller_name


def gather(runs: Iterable[Run], device: str) -> list[Evidence]:
    """The evidence of all runs, in their order; waits for what another process trains."""
    return [evidence for run in runs if (evidence := obtain(run, device=device)) is not None]


def gather_pair(
    dataset: str,
    fine: int,
    coarse: int,
    seeds: Sequence[int],
    n_starts: int,
    profile: str,
    device: str,
) -> dict[str, Followed]:
    """The same network, trained with many Euler steps ("fine") and with few ("coarse").

    n_starts: how many trajectories are to be followed, at most one a test point. ValueError for a
    single one, and for steps that are not finer.
    """
    if n_starts < 2:
        raise ValueError(f"n_starts = {n_starts}: choose at least 2, a pair")
    if fine <= coarse:
        raise ValueError(f"n_steps_fine = {fine}: give more than n_steps_coarse = {coarse}")
    steps = [FixedSteps("euler", k) for k in (fine, coarse)]
    runs = [Run(dataset, s, seeds=tuple(seeds), profile=profile) for s in steps]
    models = [follow(evidence, n_starts) for evidence in gather(runs, device)]
    return dict(zip(("fine", "coarse"), models, strict=True))


def find_all(runs: Iterable[Run]) -> list[Evidence]:
    """The evidence that there is of these runs, in their order; trains nothing."""
    return [evidence for run in runs if (evidence := find(run)) is not None]


def find_trainings(
    dataset: str, trainings: Iterable[str], seeds: Sequence[int], profile: str
) -> list[Evidence]:
    """The evidence that there is of trainings with and without cures, by name, each once."""
    names = dict.fromkeys(trainings)
    return find_all(cure_run(dataset, name, seeds, profile) for name in names)


def gather_grids(
    datasets: Sequence[str],
    solvers: Sequence[str],
    n_steps: Sequence[int],
    seeds: Sequence[int],
    profile: str,
    device: str,
) -> dict[tuple[str, str], list[Evidence]]:
    """The grids of fixed steps, by data set and training solver.

    ValueError, before any training, where a grid has none of these n_steps.
    """
    keys = [(dataset, solver) for dataset in datasets for solver in solvers]
    grids = {key: grid_runs(*key, n_steps, seeds, profile) for key in keys}
    return {key: join(gather(runs, device)) for key, runs in grids.items()}


def adaption_run(dataset: str, controller: str, seeds: Sequence[int], profile: str) -> Run:
    """The training with Euler steps that a controller adapts."""
    return Run(dataset, Adapted("euler", controller), seeds=tuple(seeds), profile=profile)


def gather_adaptions(
    datasets: Sequence[str],
    controllers: Sequence[str],
    seeds: Sequence[int],
    profile: str,
    device: str,
) -> dict[tuple[str, str], Evidence]:
    """Trainings with an adapted step, by data set and controller."""
    keys = [(dataset, controller) for dataset in datasets for controller in controllers]
    runs = [adaption_run(*key, seeds, profile) for key in keys]
    return dict(zip(keys, gather(runs, device), strict=True))


def gather_tolerances(
    dataset: str,
    others: Sequence[str],
    solvers: Sequence[str],
    rtols: Sequence[float],
    seeds: Sequence[int],
    profile: str,
    device: str,
) -> tuple[dict[tuple[str, str, float | None], Evidence], dict[tuple[str, str], pd.DataFrame]]:
    """Trainings with a tolerance, by data set, method and tolerance; of `others` what is stored.

    And the records of all tolerances, by data set and method.
    """
    grid = solvers, rtols, seeds, profile
    every = gather(tolerance_runs(dataset, *grid), device)
    every += find_all(run for d in others for run in tolerance_runs(d, *grid))
    found = {(e.run.dataset, e.run.steps.solver, e.run.steps.rtol): e for e in every}
    return found, records_by_solver(every)


def gather_adapted_tolerances(
    dataset: str,
    solvers: Sequence[str],
    first_rtols: Sequence[float],
    controllers: Sequence[str],
    seeds: Sequence[int],
    profile: str,
    device: str,
) -> dict[tuple[str, float, str], Evidence]:
    """Trainings with an adapted tolerance, by method, first tolerance and title of the rule."""
    settings = list(product(solvers, first_rtols, map(controller_name, controllers)))
    steps = [Adapted(solver, rule, first_rtol=first) for solver, first, rule in settings]
    runs = [Run(dataset, s, seeds=tuple(seeds), profile=profile) for s in steps]
    keys = [(solver, first, name_of(rule)) for solver, first, rule in settings]
    return dict(zip(keys, gather(runs, device), strict=True))
