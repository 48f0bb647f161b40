"""Trainings within a limit of time: a clock that the tests move."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from nodecore.__main__ import app
from nodecore.data.files import WriteError
from nodecore.evidence import budget
from nodecore.evidence.budget import predict_seconds, train_within
from nodecore.evidence.catalogue import STUDIES
from nodecore.evidence.found import checkpoint_path, find, find_done
from nodecore.evidence.measure import accuracy
from nodecore.evidence.obtain import obtain
from nodecore.evidence.runs import Run
from nodecore.evidence.sweep import find_missing
from nodecore.ode.steps import FixedSteps, Tolerance
from nodecore.training.adapted import Adapted
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.deadline import Deadline, TimeUp
from nodecore.training.devices import get_device
from nodecore.training.ensemble import Ensemble
from nodecore.training.iteration import FusedStep

RUN = Run("spheres2", FixedSteps("euler", 1), seeds=(0,), profile="smoke")
RUNS = [replace(RUN, steps=FixedSteps("euler", k)) for k in (4, 1, 2)]
QUIET = {"device": "cpu", "progress": False}


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return []


def predicting(monkeypatch, seconds):
    monkeypatch.setattr(budget, "predict_seconds", lambda run, **_: seconds[run.steps.n_steps])


def test_a_deadline_keeps_time_to_stop(clock):
    deadline = Deadline(120, clock)
    assert deadline.left() == 100
    clock.now += 99
    deadline.check()
    clock.now += 1
    with pytest.raises(TimeUp):
        deadline.check()
    with pytest.raises(ValueError, match="budget = 20: give more than the 20 s that are kept"):
        Deadline(20)


def test_a_run_begins_only_where_it_fits_with_a_reserve(monkeypatch, clock, told, tmp_path):
    """100 seconds: 87 do not fit with 15 % more, 86.9 do; then a shorter one still does."""
    predicting(monkeypatch, {4: 87.0, 1: 80.0, 2: 13.0})
    trained = []

    def obtain_in(run, **_):
        trained.append(run)
        clock.now += {1: 80.0, 2: 13.0}[run.steps.n_steps]
        return run

    monkeypatch.setattr(budget, "obtain", obtain_in)
    left, failed = train_within(RUNS, Deadline(120, clock), device="cpu", tell=told.append)
    assert trained == RUNS[1:] and left == RUNS[:1] and not failed
    assert "needs 100 s, 100 s are left; not begun" in told[0]
    predicting(monkeypatch, {4: 86.9})
    monkeypatch.setattr(budget, "obtain", lambda run, **_: run)
    done = train_within(RUNS[:1], Deadline(120, clock), device="cpu", tell=told.append)
    assert done == ([], [])


@pytest.mark.parametrize("error", [MemoryError("no room"), ValueError("nothing to batch")])
def test_a_run_that_fails_is_told_of_and_the_others_go_on(monkeypatch, clock, told, error):
    predicting(monkeypatch, dict.fromkeys((4, 1, 2), 1.0))

    def fail_first(run, **_):
        if run == RUNS[0]:
            raise error
        return run

    monkeypatch.setattr(budget, "obtain", fail_first)
    left, failed = train_within(RUNS, Deadline(120, clock), device="cpu", tell=told.append)
    assert failed == RUNS[:1] and not left and f"failed: {type(error).__name__}: {error}" in told[1]


def test_where_nothing_can_be_written_no_other_run_is_tried(monkeypatch, clock, told, tmp_path):
    predicting(monkeypatch, dict.fromkeys((4, 1, 2), 1.0))
    tried = []

    def fail(run, **_):
        tried.append(run)
        raise WriteError(tmp_path, "it is full")

    monkeypatch.setattr(budget, "obtain", fail)
    with pytest.raises(WriteError, match="it is full"):
        train_within(RUNS, Deadline(120, clock), device="cpu", tell=told.append)
    assert tried == RUNS[:1]


def test_at_the_deadline_a_checkpoint_is_left_and_gone_on_from(monkeypatch, clock, told, tmp_path):
    predicting(monkeypatch, dict.fromkeys((4, 1, 2), 1.0))
    step, iterations = FusedStep.__call__, []
    torch_step = Ensemble.step

    def count(*arguments):
        iterations.append(1)
        clock.now += 2 if len(iterations) > 60 else 0  # in the second run

    for owner, name, original in (
        (FusedStep, "__call__", step),
        (Ensemble, "step", torch_step),
    ):
        monkeypatch.setattr(owner, name, lambda *a, f=original: (count(), f(*a))[1])
    deadline = Deadline(120, clock)
    left, _ = train_within(RUNS, deadline, root=tmp_path, device="cpu", tell=told.append)
    assert left == RUNS[1:]
    assert len(iterations) == 60 + 50
    assert "the time is over; what was begun goes on from its checkpoint" in told[-1]
    assert find(RUNS[1], tmp_path) is None
    assert Checkpoint(checkpoint_path(RUNS[1].path(tmp_path))).iterations_done() == 50
    whole = obtain(RUNS[1], root=tmp_path / "whole", **QUIET)
    assert len(iterations) == 110 + 60
    resumed = obtain(RUNS[1], root=tmp_path, **QUIET)
    assert len(iterations) == 170 + 10
    assert resumed.stored.records == whole.stored.records


def test_foremost_tests_of_images_are_written_before_the_time_is_over(
    monkeypatch, clock, few_images, tmp_path
):
    run = Run("cifar10", FixedSteps("euler", 2), profile="smoke", seeds=(0, 1))
    small = replace(run.protocol, n_train=20, n_test=10)
    monkeypatch.setattr(Run, "protocol", property(lambda self: small))
    whole = obtain(run, root=tmp_path / "whole", **QUIET)
    accuracies = []

    def slow(field, head, split, setting, T, check):
        accuracies.append(setting)
        clock.now += 30
        return accuracy(field, head, split, setting, T, check=check)

    monkeypatch.setattr("nodecore.evidence.measure.accuracy", slow)
    with pytest.raises(TimeUp):
        obtain(run, root=tmp_path, deadline=Deadline(150, clock), **QUIET)
    early = find(run, tmp_path)
    tested = early.records[["test_solver", "test_n_steps"]].drop_duplicates()
    assert tested.to_numpy().tolist() == [["euler", 2], ["midpoint", 2]]
    assert len(accuracies) == 5  # training and all test images, too; then the next one stopped
    assert find_done(run, tmp_path) is None
    assert find_done(run, tmp_path / "whole") is not None
    monkeypatch.setattr("nodecore.evidence.measure.accuracy", accuracy)
    monkeypatch.setattr(Ensemble, "step", None)  # nothing is left to be trained
    late = obtain(run, root=tmp_path, **QUIET)
    assert late.stored.records == whole.stored.records
    assert find_done(run, tmp_path) is not None


def test_images_can_be_trained_to_a_tolerance(monkeypatch, few_images, tmp_path):
    run = Run("mnist", Tolerance("fehlberg21", 1.0), profile="smoke", seeds=(0,))
    small = replace(run.protocol, n_train=20, n_test=10, iterations=2)
    monkeypatch.setattr(Run, "protocol", property(lambda self: small))
    evidence = obtain(run, root=tmp_path, **QUIET)
    assert {"fehlberg21", "dopri5"} <= set(evidence.records["test_solver"])
    assert evidence.stored.weights()["flipped.images"].shape[1:] == (1, 28, 28)


def test_what_was_not_tested_to_the_end_is_still_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(STUDIES, "spheres2-euler", tuple(RUNS[:1]))
    obtain(RUNS[0], root=tmp_path, **QUIET)
    assert find_missing(["spheres2-euler"], root=tmp_path) == []
    checkpoint_path(RUNS[0].path(tmp_path)).touch()
    assert find_missing(["spheres2-euler"], root=tmp_path) == RUNS[:1]


# --- predictions ----------------------------------------------------------------------------------


def test_a_prediction_is_iterations_times_what_one_takes(monkeypatch, tmp_path):
    """With a clock that a training moves by a second an evaluation, and a test not at all."""
    clock = Clock()
    monkeypatch.setattr(budget.time, "perf_counter", clock)

    def train(protocol, steps, seeds, *, progress, **_):
        for iteration in range(protocol.iterations + 1):
            progress(iteration)
            clock.now += steps.n_steps * (10 if iteration == 0 else 1)  # the first one warms up

    monkeypatch.setattr(budget, "train", train)
    assert predict_seconds(RUNS[0], device="cpu", root=tmp_path) == 60 * 4
    adapted = Run("spheres2", Adapted("euler", "algorithm1"), seeds=(0,), profile="smoke")
    assert predict_seconds(adapted, device="cpu", root=tmp_path) == 60 * budget.USUAL_N_STEPS
    path = checkpoint_path(RUNS[0].path(tmp_path))
    path.parent.mkdir(parents=True)
    Checkpoint(path).save({}, {}, {"iteration": 45})
    assert predict_seconds(RUNS[0], device="cpu", root=tmp_path) == 15 * 4
    looked, deadline = clock.now, Deadline(120, lambda: 0.0)
    assert predict_seconds(RUNS[2], device="cpu", root=tmp_path, deadline=deadline) == float("inf")
    assert clock.now == looked + 20 + 2, "two iterations tell that 60 do not fit"


def test_a_real_training_and_its_tests_are_what_is_timed(tmp_path):
    assert 0 < predict_seconds(RUN, device="cpu", root=tmp_path) < 600
    assert budget._seconds_of_tests(RUN, get_device("cpu")) > 0


def test_tests_in_more_steps_take_longer(monkeypatch):
    monkeypatch.setattr(budget, "seconds_of", lambda call, device: 1.0)
    finer = replace(RUN, steps=FixedSteps("euler", 64))
    tests, more = (budget._seconds_of_tests(run, get_device("cpu")) for run in (RUN, finer))
    assert 0 < tests < more


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [(), ("--budget", "600")])
def test_where_nothing_is_missing_it_says_so_and_a_precision_is_checked(monkeypatch, budget):
    monkeypatch.setitem(STUDIES, "spheres2-euler", ())
    command = ["study", "run", "spheres2-euler", "--device", "cpu", *budget]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.output) == (
        0,
        "nothing to train: all runs that can be trained are there\n",
    )
    result = CliRunner().invoke(app, [*command, "--precision", "float8"])
    assert result.exit_code == 1
    assert "error: precision = 'float8' is unknown; choose one of float32" in result.output


@pytest.mark.parametrize("budget", [(), ("--budget", "600")])
def test_a_precision_that_the_device_lacks_is_refused_before_any_work(
    monkeypatch, tmp_path, budget
):
    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path))
    command = ["study", "run", "mnist-euler", "--profile", "smoke", "--device", "cpu", *budget]
    result = CliRunner().invoke(app, [*command, "--precision", "tf32"])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        "error: precision = 'tf32': cpu does not support tf32; use float32 or bf16"
    )
    assert "failed" not in result.output and not any(tmp_path.rglob("*.json"))


def test_the_command_trains_what_fits(monkeypatch, tmp_path):
    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path))
    monkeypatch.setitem(STUDIES, "spheres2-euler", tuple(RUNS))
    predicting(monkeypatch, {4: 1e6, 1: 1.0, 2: 1.0})
    command = ["study", "run", "spheres2-euler", "--device", "cpu"]
    result = CliRunner().invoke(app, [*command, "--budget", "600"])
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "2 of 3 runs are done"
    assert find(RUNS[0]) is None and find(RUNS[1]) is not None
    assert result.output.index("euler-K2") < result.output.index("euler-K1-")
    predicting(monkeypatch, {})  # the one that is missing fails
    failing = CliRunner().invoke(app, [*command, "--budget", "600"])
    assert failing.exit_code == 1 and "error: 1 of 1 runs failed" in failing.output
    bad = CliRunner().invoke(app, [*command, "--budget", "5"])
    assert bad.exit_code == 1 and "error: budget = 5.0: give more than" in bad.output
    both = CliRunner().invoke(app, [*command, "--budget", "600", "--scheduler", "tcp://x"])
    assert both.exit_code == 1 and "leave one of them out" in both.output
    beside = CliRunner().invoke(app, [*command, "--budget", "600", "--jobs", "2"])
    assert beside.exit_code == 1 and "leave jobs out" in beside.output


def test_whoever_ends_a_run_within_a_budget_is_told_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "nodecore", "study", "run", "spheres2-euler", "--only"]
    command += ["euler-K256-*", "--profile", "laptop", "--device", "cpu", "--budget", "1e6"]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    where = os.environ | {"NODECORE_RESULTS": str(tmp_path)}
    with subprocess.Popen(command, env=where, **how) as process:
        assert ": begun, " in process.stdout.readline()
        while not list(tmp_path.rglob(".*.lock")) and process.poll() is None:
            time.sleep(0.1)
        time.sleep(1)  # in the training, most likely
        process.terminate()
        told = process.stderr.read()
    assert process.returncode == 130
    assert told.endswith("and the same command goes on from here\n") and "Traceback" not in told
