"""Trainings within a limit of time: what fits is trained, the rest is left for another time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

from nodecore.analysis.evaluate import accuracy
from nodecore.data.datasets import IMAGES
from nodecore.data.files import WriteError
from nodecore.evidence.found import checkpoint_path, find_done
from nodecore.evidence.measure import test_settings, tested_on
from nodecore.evidence.obtain import obtain, precision_of
from nodecore.evidence.runs import Run
from nodecore.evidence.selection import USUAL_N_STEPS, evaluations_under
from nodecore.ode.steps import FixedSteps
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.deadline import Deadline, TimeUp
from nodecore.training.devices import (
    check_precision,
    check_precision_name,
    get_device,
    in_precision,
    seconds_of,
    wait_for,
)
from nodecore.training.ensemble import make_model
from nodecore.training.loop import train

RESERVE = 1.15  # times the predicted time must fit
PROBED = 8  # iterations that a prediction rests on; a graph is captured in the fourth
AT_ONCE = 1000  # samples in the timing of a test


def train_within(
    runs: Sequence[Run],
    deadline: Deadline,
    *,
    root: Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    tell: Callable[[str], None] = print,
) -> tuple[list[Run], list[Run]]:
    """Train the runs in order, skipping each one whose predicted time, RESERVE times, is not left.

    Each run is written when it ends. At the deadline, the current run leaves a checkpoint and, on
    images, the results of its foremost tests. A run that fails is reported, and the others go on.
    Returns the runs that did not fit and those that failed. tell: called with a line of news of
    each run. root, precision: see sweep.run_studies.
    """
    check_precision_name(precision)
    place, left, failed = get_device(device), [], []
    for run in runs:
        check_precision(precision_of(run, precision), run.protocol, place)
    for run in runs:
        name = run.title
        how = {"device": str(place), "precision": precision_of(run, precision)}
        try:
            needed = RESERVE * predict_seconds(run, root=root, deadline=deadline, **how)
            deadline.check()
            if needed > deadline.left():
                left.append(run)
                tell(f"{name}: needs {needed:.0f} s, {deadline.left():.0f} s are left; not begun")
                continue
            tell(f"{name}: begun, {needed:.0f} s of {deadline.left():.0f} s")
            done = obtain(run, root=root, progress=False, wait=False, deadline=deadline, **how)
            if done is None:
                left.append(run)
                tell(f"{name}: another process is training it")
            else:
                tell(f"{name}: done")
        except TimeUp:
            left += [r for r in runs[runs.index(run) :] if find_done(r, root) is None]
            tell(f"{name}: the time is over; what was begun goes on from its checkpoint")
            break
        except WriteError:  # the others could not be written, either
            raise
        except Exception as error:
            failed.append(run)
            tell(f"{name} failed: {type(error).__name__}: {' '.join(str(error).split())}")
    return left, failed


# --- predictions ----------------------------------------------------------------------------------


def predict_seconds(
    run: Run,
    *,
    device: str = "auto",
    precision: str = "float32",
    root: Path | None = None,
    deadline: Deadline | None = None,
) -> float:
    """Predict the seconds of a run's training and tests, from a few iterations of it and one test.

    Iterations that a checkpoint holds are not counted. Where the steps are chosen on the way, the
    usual number of fixed ones stands for them. With a deadline, a run that cannot be done by then
    is looked at no closer and takes infinity.
    """
    done = Checkpoint(checkpoint_path(run.path(root))).iterations_done()
    left = max(0, run.protocol.iterations - done)
    limit = float("inf") if deadline is None else deadline.left()
    training = left * _seconds_an_iteration(run, get_device(device), precision, left, limit)
    return training + (_seconds_of_tests(run, get_device(device)) if training <= limit else 0.0)


class _TooLong(Exception):
    pass


def _seconds_an_iteration(run, device, precision, left, limit):
    """Return the median seconds of an iteration, the first ones left out, which are slower.

    Infinity as soon as `left` of them would exceed the limit.
    """
    times = []

    def note(_):
        wait_for(device)
        times.append(time.perf_counter())
        if len(times) > 2 and left * min(_differences(times)) > limit:
            raise _TooLong

    protocol = replace(run.protocol, iterations=PROBED)
    how = {"precision": precision, "progress": note, "cures": run.cures}
    try:
        train(protocol, _usual_steps(run), run.seeds, device=str(device), **how)
    except _TooLong:
        return float("inf")
    return median(_differences(times)[-PROBED // 2 :])


def _usual_steps(run):
    """Its own where they are fixed, else as many as one takes that chooses them, about."""
    return FixedSteps(run.steps.solver, run.steps.n_steps or USUAL_N_STEPS)


def _differences(times):
    return [later - earlier for earlier, later in pairwise(times)]


def _seconds_of_tests(run, device):
    field, head = (module.to(device) for module in make_model(run.protocol, run.seeds))
    test = tested_on(run)
    part = test.first(AT_ONCE).to(device)
    with in_precision("float32", device):
        one = partial(accuracy, field, head, part, FixedSteps("euler", 1), run.T)
        an_evaluation = seconds_of(one, device) / len(part)
    own = _usual_steps(run)
    samples = {setting: len(test) for setting in test_settings(run, own)}
    # The training split, or part of it, and the images that were left out of the test.
    samples[own] = samples.get(own, 0) + (12_000 if run.dataset in IMAGES else 2_000)
    return an_evaluation * sum(n * evaluations_under(setting) for setting, n in samples.items())
