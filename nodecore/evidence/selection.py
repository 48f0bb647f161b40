"""Choose runs by name, and tell what each costs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache

from torch import Tensor

from nodecore.data.datasets import DATASETS
from nodecore.evidence.catalogue import STUDIES, get_study
from nodecore.evidence.runs import Run
from nodecore.ode.fields import PiecewiseField
from nodecore.ode.steps import FixedSteps, Setting
from nodecore.ode.tableaus import get_tableau
from nodecore.training.draws import count_evaluations
from nodecore.training.ensemble import make_model

USUAL_N_STEPS = 32  # of an adaptive or adapting run, for want of knowledge
USUAL_TEST = 100  # evaluations of an adaptive test, likewise


def select(
    names: Sequence[str] = (), only: str | None = None, profile: str | None = None
) -> list[Run]:
    """The runs of the named studies (all, where none is named), at `profile` or each at its own.

    only: a pattern for names of runs such as `euler-K8-*`, or of study and run, `spheres*/*-K8-*`.
    Raises ValueError for an unknown study, and one that lists the runs where `only` fits none.
    """
    every = (run for name in names or STUDIES for run in get_study(name, profile))
    runs = list(dict.fromkeys(every))  # some belong to two studies
    if only is None:
        return runs
    chosen = [run for run in runs if any(fnmatchcase(n, only) for n in (run.name, run.title))]
    if not chosen:
        known = ", ".join(run.title for run in runs)
        raise ValueError(f"only = {only!r} fits none of the runs: {known}")
    return chosen


def cost(run: Run) -> int:
    """Multiplications in a training, about, or look-ups: how long it takes beside others.

    An adaptive or adapting run counts as one of USUAL_N_STEPS.
    """
    samples = len(run.seeds) * run.protocol.batch_size * run.protocol.iterations
    return samples * evaluations(run) * _multiplications(run.protocol)


def evaluations_of(run: Run, iterations: int | None = None) -> Tensor:
    """Count the evaluations per iteration of a run with cures, (members,) float64, from what they
    draw in its iterations, or in so many."""
    solver, n_steps = run.steps.solver, run.steps.n_steps or USUAL_N_STEPS
    iterations = iterations or run.protocol.iterations
    return count_evaluations(run.cures, solver, n_steps, run.seeds, iterations)


def evaluations(run: Run) -> int:
    """Count one member's evaluations of the field in an iteration; those of checks left out."""
    if run.cures:
        return round(float(evaluations_of(run, iterations=100).mean()))
    return (run.steps.n_steps or USUAL_N_STEPS) * get_tableau(run.steps.solver).n_solution_stages


def evaluations_under(setting: Setting) -> int:
    """Count the evaluations of the field under a test setting, about."""
    if not isinstance(setting, FixedSteps):
        return USUAL_TEST
    return setting.n_steps * get_tableau(setting.solver).n_solution_stages


@cache
def _multiplications(protocol):
    """Count the multiplications of the field for one sample.

    Those of its middle layer count, which has by far the most. Where there is one channel, a
    look-up in the kernel's tables stands for those of all inputs.
    """
    field = make_model(replace(protocol, pieces=1), [0])[0]
    assert not isinstance(field, PiecewiseField)
    channels = field.third[1].numel()
    positions = math.prod(DATASETS[protocol.dataset].shape) // channels
    return field.second[0].numel() * positions // (protocol.width if channels == 1 else 1)
