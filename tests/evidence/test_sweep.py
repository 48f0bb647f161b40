"""Whole studies: what is chosen, in which order, and what a second process or damage does to it."""

import io
import json
import logging
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from nodecore.__main__ import app
from nodecore.data.files import PROJECT
from nodecore.evidence import store
from nodecore.evidence.catalogue import STUDIES, get_study
from nodecore.evidence.cluster import (
    SOURCES,
    OtherSources,
    Workers,
    _sources_digest,
    connect,
)
from nodecore.evidence.found import checkpoint_path, find
from nodecore.evidence.obtain import obtain, train_run
from nodecore.evidence.progress import Bar, SweepBar, makespan
from nodecore.evidence.runs import Run
from nodecore.evidence.selection import cost, select
from nodecore.evidence.sweep import SweepError, count_jobs, find_missing, run_studies
from nodecore.evidence.verify import status, verify
from nodecore.ode.steps import FixedSteps

RUN = Run("spheres2", FixedSteps("euler", 2), seeds=(0, 3), profile="smoke")
SMALL = tuple(replace(RUN, steps=FixedSteps("euler", k)) for k in (1, 2, 4))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store with the runs of SMALL."""
    root = tmp_path_factory.mktemp("store")
    for run in SMALL:
        obtain(run, root=root, device="cpu", progress=False)
    return root


@pytest.fixture
def root(filled, tmp_path):
    """A copy to be damaged."""
    for file in filled.rglob("*.*"):
        copy = tmp_path / file.relative_to(filled)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture(autouse=True)
def small_study(monkeypatch):
    monkeypatch.setitem(STUDIES, "spheres2-euler", SMALL)


def no_training(*arguments, **options):
    raise AssertionError("trained although the run is in the store")


# --- which runs, and in which order ---------------------------------------------------------------


def test_each_study_has_its_own_profile_unless_one_is_named():
    own = {name: {run.profile for run in select([name])} for name in STUDIES}
    assert own["spheres2-euler"] == {"smoke"}
    assert own["spheres900-rk4"] == own["mnist-adaption"] == {"paper", "laptop"}
    assert own["landscape-rk4"] == {"paper"} and own["cifar10-rk4"] == {"paper", "laptop"}
    assert {run.profile for run in select(profile="laptop")} == {"laptop"}
    assert set(select()) == {run for runs in STUDIES.values() for run in runs}


def test_a_run_that_belongs_to_two_studies_comes_once():
    names = ["spheres2-per-sample", "spheres2-dopri5", "spheres2-fehlberg21"]
    every = [run for name in names for run in get_study(name, "laptop")]
    chosen = select(names, profile="laptop")
    assert set(chosen) == set(every) and len(chosen) == len(set(every)) < len(every)


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ("euler-K2-*", ["euler-K2-seeds0,3"]),
        ("euler-K[24]-*", ["euler-K2-seeds0,3", "euler-K4-seeds0,3"]),
        ("spheres2-*/*K1-*", ["euler-K1-seeds0,3"]),
    ],
)
def test_only_chooses_runs_by_name(only, names):
    assert [run.name for run in select(["spheres2-euler"], only)] == names


def test_a_pattern_that_fits_nothing_lists_the_runs():
    with pytest.raises(
        ValueError, match=r"only = 'K8' fits none of the runs: spheres2-euler/euler-K1-seeds0,3, "
    ):
        select(["spheres2-euler"], "K8")
    with pytest.raises(ValueError, match="study = 'moons' is unknown"):
        select(["moons"])


def test_cost_is_evaluations_times_what_one_costs():
    def ratio(run, other):
        of = (Run(dataset, FixedSteps(solver, k)) for dataset, solver, k in (run, other))
        return cost(next(of)) / cost(next(of))

    assert ratio(("spheres2", "euler", 64), ("spheres2", "euler", 16)) == 4
    assert ratio(("spheres2", "rk4", 16), ("spheres2", "euler", 16)) == 4
    assert ratio(("spheres10", "euler", 16), ("spheres2", "euler", 16)) == 5  # positions
    # 30,000 and 10,000 iterations, 48 x 48 weights against twice 3 x 32 look-ups
    expected = 3 * 48**2 / (2 * 3 * 32)
    assert ratio(("landscape", "euler", 16), ("spheres2", "euler", 16)) == pytest.approx(expected)
    alone = Run("spheres2", FixedSteps("euler", 1), profile="laptop", seeds=(0,))
    assert cost(alone) == 4000 * 128 * 2 * 3 * 32


def test_a_retired_controller_is_not_missing_where_it_has_no_records(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "COMMITTED", tmp_path / "committed")
    runs = find_missing(["landscape-adaption"], root=tmp_path)
    rules = {run.steps.controller for run in runs}
    assert "algorithm1" in rules and "sawtooth" not in rules
    assert "sawtooth" in {run.steps.controller for run in get_study("landscape-adaption")}


def test_only_what_is_missing_is_trained_the_longest_first(monkeypatch, filled):
    trained = []
    monkeypatch.setattr(
        "nodecore.evidence.sweep.obtain", lambda run, **options: trained.append(run) or run
    )
    wide = Run("spheres10", FixedSteps("euler", 2), seeds=(0, 3), profile="smoke")
    monkeypatch.setitem(
        STUDIES,
        "spheres2-euler",
        (
            *SMALL,
            replace(RUN, steps=FixedSteps("euler", 8)),
            replace(RUN, steps=FixedSteps("euler", 16)),
        ),
    )
    monkeypatch.setitem(STUDIES, "spheres10-euler", (wide,))
    names = ["spheres2-euler", "spheres10-euler"]
    run_studies(names, root=filled, jobs=1)
    assert [(run.dataset, run.steps.n_steps) for run in trained] == [
        ("spheres2", 16),
        ("spheres10", 2),
        ("spheres2", 8),
    ]
    with pytest.raises(ValueError, match="'moons' is unknown"):
        run_studies([*names, "moons"], root=filled)
    with pytest.raises(ValueError, match="device = 'tpu9'"):
        run_studies(names, root=filled, device="tpu9")
    assert len(trained) == 3


def test_what_a_study_waits_for_is_trained_before_more_seeds_and_finer_steps(monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(
        "nodecore.evidence.sweep.obtain", lambda run, **options: trained.append(run) or run
    )
    monkeypatch.setattr("nodecore.training.protocols.load", lambda *_: None)
    run_studies(["mnist-euler"], profile="paper", root=tmp_path, jobs=1)
    seed_by_seed = [(k, seed) for seed in range(5) for k in (16, 8, 4, 2, 1)]
    beyond = [(k, seed) for seed in range(5) for k in (64, 32)]
    assert [(run.steps.n_steps, *run.seeds) for run in trained] == [*seed_by_seed, *beyond]


# --- training them --------------------------------------------------------------------------------


def test_a_study_is_trained_and_then_there(monkeypatch, filled, tmp_path, capsys):
    run_studies(["spheres2-euler"], root=tmp_path, device="cpu", jobs=1)
    for run in SMALL:
        assert find(run, tmp_path).stored.records == find(run, filled).stored.records
    bar = capsys.readouterr().err
    assert "0 of 3 runs done, spheres2-euler/euler-K4-seeds0,3" in bar
    assert "3 of 3 runs done" in bar
    assert "100%" in bar and re.search(r"\d left\]", bar)
    monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
    run_studies(["spheres2-euler"], root=tmp_path, device="cpu")
    assert capsys.readouterr() == ("", "nothing to train: all runs that can be trained are there\n")


def test_the_bar_counts_costs_and_not_what_was_done_before_a_stop(monkeypatch):
    monkeypatch.setattr("nodecore.evidence.progress.HALF_LIFE", math.inf)
    with SweepBar(SMALL) as bar:
        tell = bar.follow(SMALL[2])  # K = 4, of 7 in all
        tell(30)
        assert bar.bar.n == pytest.approx(bar.bar.total * 2 / 7)
        assert bar.done == 0
        tell(31)
        assert bar.done == pytest.approx(cost(SMALL[2]) / 60)
        bar.end(SMALL[2])
        bar.end(SMALL[0], here=False)  # found: another process trained it
        assert bar.done == pytest.approx(cost(SMALL[2]) / 2)
        assert bar.bar.n == pytest.approx(bar.bar.total * 5 / 7)
        bar.end(SMALL[1])
        assert bar.bar.n == pytest.approx(bar.bar.total)


def test_a_makespan_is_that_of_a_schedule_written_out():
    assert makespan([], 3) == 0
    assert makespan([5, 4, 3], 1) == 12
    assert makespan([5, 4, 3], 2) == 7  # 5 beside 4 + 3
    assert makespan([10, 1, 1, 1], 2) == 10
    assert makespan([3, 3, 2, 2, 2], 2) == 7  # 3 + 2 + 2 beside 3 + 2
    assert makespan([3, 3], 5) == 3


def test_the_time_left_is_that_of_the_processes_at_their_pace(monkeypatch):
    """K = 4, 2 and 1, two at a time: the last one comes after the second."""
    monkeypatch.setattr("nodecore.evidence.progress.HALF_LIFE", math.inf)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    unit = cost(SMALL[0])
    with SweepBar([SMALL[2], SMALL[1], SMALL[0]]) as bar:
        bar.jobs = 2
        bar.reach(SMALL[2], 30)  # half of it, before a stop
        assert bar.bar.postfix == "?"
        bar.reach(SMALL[2], 45)  # 10 s later: one unit of cost
        assert (bar.done, bar.spent) == (pytest.approx(unit), 10)
        assert bar.bar.postfix == "00:20"  # 1 and then 1, beside 2, at 10 s each
        bar.reach(SMALL[1], 0)
        assert (bar.done, bar.spent) == (pytest.approx(unit), 20)
        bar.reach(SMALL[1], 30)  # both have been at work for 10 s
        assert (bar.done, bar.spent) == (pytest.approx(2 * unit), 40)
        bar.end(SMALL[1])
        assert bar.bar.postfix == "00:20"  # 1 beside 1, three units having taken 60 s
        bar.drop(SMALL[0], "it failed")
        bar.end(SMALL[2])
        assert bar.bar.n == pytest.approx(bar.bar.total)
        assert bar.bar.desc.startswith("2 of 3 runs done")


def test_no_time_is_told_from_a_moment_and_the_tests_are_told(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with SweepBar(SMALL) as bar:
        tell = bar.follow(SMALL[2])
        tell(0)
        clock[0] = 0.01
        tell(30)
        assert bar.bar.postfix == "?"
        clock[0] = 4.0
        tell(60)
        assert bar.bar.postfix == "00:03"  # 3 of 7 units, 4 s having been four units
        assert bar.bar.desc == f"0 of 3 runs done, tests of {SMALL[2].title}"


@pytest.mark.filterwarnings("error")
def test_rounded_sums_do_not_pass_the_end_of_the_bar(monkeypatch):
    monkeypatch.setattr("nodecore.evidence.progress.cost", lambda run: 100)  # whose 60ths do
    with SweepBar(SMALL) as bar:
        for run in SMALL:
            for iteration in range(run.protocol.iterations + 1):
                bar.reach(run, iteration)
            bar.end(run)
            bar.bar.refresh()
        assert bar.bar.n <= bar.bar.total


def test_the_time_left_is_seen_at_80_columns():
    with SweepBar(SMALL) as bar:
        bar.show("a name that is far longer than what is left of a line of eighty columns")
        line = bar.bar.format_meter(**bar.bar.format_dict | {"ncols": 80})
    assert " left] 0 of 3 runs done" in line


def test_the_time_left_follows_a_pace_that_changes(monkeypatch):
    """A controller begins with ten times the steps that it ends with."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    run = SMALL[0]
    with SweepBar([run]) as bar:
        bar.reach(run, 0)
        for iteration in range(1, 41):
            clock[0] += 1000.0 if iteration <= 10 else 100.0
            bar.reach(run, iteration)
        left = (run.protocol.iterations - 40) * 100
        assert left <= bar.spent / bar.done * bar.left[run] < 1.05 * left  # 3.25 times by the mean


@pytest.mark.parametrize("jobs", [0, -2, 1.5, "2"])
def test_jobs_that_cannot_be_are_refused_before_any_work(monkeypatch, tmp_path, jobs):
    monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
    with pytest.raises(ValueError, match=f"jobs = {jobs!r}: give a whole number >= 1"):
        run_studies(["spheres2-euler"], root=tmp_path, jobs=jobs)
    with pytest.raises(ValueError, match="jobs = 2: a cluster has as many as it has workers"):
        run_studies(["spheres2-euler"], root=tmp_path, jobs=2, client=object())
    assert CliRunner().invoke(app, ["study", "run", "--jobs", "0"]).exit_code == 2


def test_by_default_there_is_a_run_for_each_core_that_may_be_used():
    before = os.sched_getaffinity(0)
    assert 1 <= count_jobs(device="cpu") <= len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert count_jobs(device="cpu") == 1
    finally:
        os.sched_setaffinity(0, before)


def test_a_gpu_trains_one_run_at_a_time(monkeypatch):
    monkeypatch.setattr("nodecore.evidence.sweep.cpu_count", lambda: 7)
    assert (count_jobs(device="cpu"), count_jobs(9, "cpu")) == (7, 9)
    monkeypatch.setattr("nodecore.evidence.sweep.get_device", lambda name: torch.device("cuda"))
    assert count_jobs() == count_jobs(1) == 1
    with pytest.raises(ValueError, match="jobs = 2: a GPU trains one run at a time"):
        count_jobs(2)


HOLDER = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]) as lock:
    print(lock.is_locked, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def held(tmp_path):
    """A process that has reserved the run K = 4 in tmp_path."""
    lock = store.hidden(SMALL[2].path(tmp_path), "lock")
    lock.parent.mkdir(parents=True)
    command = [sys.executable, "-c", HOLDER, lock]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


@pytest.fixture(scope="module")
def client():
    """Of two workers, threads of this process."""
    from distributed import Client, LocalCluster

    options = {"dashboard_address": None, "threads_per_worker": 1, "processes": False}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture(params=["one by one", "on workers"])
def where(request, monkeypatch):
    """Options that have runs trained in this process, one by one or by two workers of `client`,
    which share the store as the processes of this machine do."""
    if request.param == "one by one":
        return {"jobs": 1}
    client = request.getfixturevalue("client")
    monkeypatch.setattr("nodecore.evidence.sweep.workers_here", lambda n: nullcontext(client))
    return {"jobs": 2}


def when_waiting(monkeypatch, call):
    """Call it once, when nothing is left but what another process trains."""
    show, calls = SweepBar.show, [call]

    def watch(self, what):
        show(self, what)
        if what == "waiting for another process" and calls:
            calls.pop()()

    monkeypatch.setattr(SweepBar, "show", watch)
    return calls


def test_a_run_that_another_process_trains_is_left_to_it_until_the_end(
    monkeypatch, filled, tmp_path, held, where
):
    def kill_it():
        assert find(SMALL[0], tmp_path) and find(SMALL[1], tmp_path)  # the others went first
        assert find(SMALL[2], tmp_path) is None
        held.kill()
        held.wait()

    left = when_waiting(monkeypatch, kill_it)
    run_studies(["spheres2-euler"], root=tmp_path, device="cpu", **where)
    assert not left
    assert find(SMALL[2], tmp_path).stored.records == find(SMALL[2], filled).stored.records


def test_what_another_process_has_finished_is_not_trained_again(
    monkeypatch, filled, tmp_path, held, where
):
    obtain(SMALL[1], root=tmp_path, device="cpu", progress=False)

    def it_finishes():
        assert find(SMALL[0], tmp_path)
        monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
        for suffix in (".safetensors", ".json"):
            source = SMALL[2].path(filled).with_suffix(suffix)
            SMALL[2].path(tmp_path).with_suffix(suffix).write_bytes(source.read_bytes())
        held.kill()
        held.wait()

    left = when_waiting(monkeypatch, it_finishes)
    run_studies(["spheres2-euler"], root=tmp_path, device="cpu", **where)
    assert not left


def test_a_worker_with_other_sources_is_refused(client, tmp_path):
    with Workers(client, "cpu", "float32", tmp_path) as workers:
        workers.sources = "0" * 12
        workers.start(SMALL[0])
        message = rf"other sources \({SOURCES}\) than the one that gives it work \({'0' * 12}\)"
        with pytest.raises(OtherSources, match=message):
            for _ in range(60):
                list(workers.wait(1.0))


@pytest.mark.parametrize("name", ["catalogue", "measure", "provenance"])
def test_the_sources_are_others_where_what_records_follow_from_is(monkeypatch, tmp_path, name):
    copy = tmp_path / "nodecore"
    shutil.copytree(PROJECT / "nodecore", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("nodecore.evidence.cluster.PROJECT", tmp_path)
    before = _sources_digest()
    with (copy / "evidence" / f"{name}.py").open("a") as file:
        file.write("# another\n")
    assert _sources_digest() != before


def test_workers_train_the_longest_first_and_a_run_that_fails_is_named_in_the_end(
    monkeypatch, client, filled, tmp_path, capsys
):
    begun, second = [], Event()

    def fail_twice(run, **options):
        begun.append(run)
        if run == SMALL[1]:
            second.set()
        if run == SMALL[2]:
            second.wait(30)  # it fails at once, and the other worker may be slow to begin
            raise ValueError("a remedy")
        return {}["nothing"] if run == SMALL[1] else train_run(run, **options)

    monkeypatch.setattr("nodecore.evidence.cluster.train_run", fail_twice)
    with pytest.raises(SweepError) as failed:
        run_studies(["spheres2-euler"], root=tmp_path, device="cpu", client=client)
    assert set(begun[:2]) == {SMALL[2], SMALL[1]} and begun[2:] == [SMALL[0]]
    reasons = str(failed.value)
    assert reasons.startswith("2 of 3 runs failed; the same command tries them again:\n")
    assert "\nspheres2-euler/euler-K4-seeds0,3: a remedy" in reasons
    assert "euler-K2-seeds0,3: Traceback" in reasons and "KeyError: 'nothing'" in reasons
    assert "euler-K4-seeds0,3 failed, the others go on: a remedy" in capsys.readouterr().err
    assert find(SMALL[0], tmp_path).stored.records == find(SMALL[0], filled).stored.records


def test_one_by_one_a_run_that_fails_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    """Ctrl-C does."""
    reasons = {SMALL[2]: ValueError("a remedy"), SMALL[1]: KeyError("nothing")}

    def fail_twice(run, **options):
        if run in reasons:
            raise reasons[run]
        return train_run(run, **options)

    monkeypatch.setattr("nodecore.evidence.obtain.train_run", fail_twice)
    with pytest.raises(SweepError, match=r"2 of 3 runs failed; .*\n.*K4-.*: a remedy\n.*K2-.*: Tr"):
        run_studies(["spheres2-euler"], root=tmp_path, device="cpu", jobs=1)
    assert "euler-K4-seeds0,3 failed, the others go on: a remedy" in capsys.readouterr().err
    assert find(SMALL[0], tmp_path) is not None
    reasons[SMALL[2]] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_studies(["spheres2-euler"], root=tmp_path, device="cpu", jobs=1)


def is_gone(pid):
    """Whether a process ends, soon; a zombie has ended."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_ctrl_c_says_how_to_go_on_and_leaves_a_checkpoint(tmp_path):
    """The protocol's run at K = 256 takes minutes; it is stopped as soon as it trains."""
    options = ["spheres2-euler", "--only", "euler-K256-*", "--profile", "laptop", "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-m", "nodecore", "study", "run", *options],
        env=store.os.environ | {"NODECORE_RESULTS": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        seen = ""
        while (
            "left] 0 of 1 runs done, spheres2-euler/euler-K256-seeds0-4" not in seen
            and process.poll() is None
        ):
            seen += process.stderr.read(1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert errors.rstrip().endswith(
        "stopped; what is finished is kept, and the same command goes on from here"
    )
    assert "Traceback" not in errors
    assert {file.suffix for file in tmp_path.rglob(".*")} == {".lock", ".checkpoint"}


def test_ctrl_c_while_a_bar_is_drawn_does_not_keep_others_from_drawing(monkeypatch):
    """tqdm's own keeps its lock then, and the thread that draws anew waits for ever."""
    bar, drawn = Bar(total=1, file=io.StringIO()), []

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(bar, "display", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bar.refresh()
    monkeypatch.setattr(bar, "display", lambda: drawn.append(True))
    other = Thread(target=bar.refresh, daemon=True)
    other.start()
    other.join(10)
    assert drawn


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whoever_stops_a_study_stops_the_runs_side_by_side(tmp_path, number):
    """Ctrl-C as a terminal sends it: to all processes of the group; and impatiently."""
    options = ["spheres2-euler", "--only", "euler-K[12]*-*", "--profile", "laptop"]
    options += ["--device", "cpu", "--jobs", "2"]
    begun = r"\d left\]" if number == signal.SIGINT else "2 in training"
    port = socket.socket()
    with suppress(OSError):
        port.bind(("127.0.0.1", 8787))  # as another study or cluster has it
        port.listen()
    command = [sys.executable, "-m", "nodecore", "study", "run", *options]
    where = store.os.environ | {"NODECORE_RESULTS": str(tmp_path)}
    how = {"env": where, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with port, subprocess.Popen(command, **how) as process:
        seen = ""
        while not re.search(begun, seen) and process.poll() is None:
            seen += process.stderr.read(1)
        children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        if number == signal.SIGINT:
            time.sleep(3)  # so that the other run, which began at the same time, trains, too
            os.killpg(process.pid, number)
            time.sleep(0.3)
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        errors = process.stderr.read()
    assert "0 of 5 runs done, 2 in training" in seen
    assert len(children) >= 2 and all(map(is_gone, children))
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert errors.rstrip().endswith(
            "stopped; what is finished is kept, and the same command goes on from here"
        )
        assert "Traceback" not in errors and "Warning" not in errors
    if number == signal.SIGINT:
        assert len([file for file in tmp_path.rglob(".*") if file.suffix == ".checkpoint"]) == 2


@pytest.fixture
def cluster(tmp_path_factory):
    """A scheduler and a worker in processes of their own; the scheduler and its address."""
    told = tmp_path_factory.mktemp("cluster") / "scheduler.json"
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask, shared = [sys.executable, "-m"], ["--scheduler-file", told, "--no-dashboard"]
    scheduler = [*dask, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    worker = [*dask, "distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1"]
    with (
        subprocess.Popen([*scheduler, *shared], **options) as first,
        subprocess.Popen([*worker, *shared], **options) as second,
    ):
        address = None
        while address is None and first.poll() is None:
            time.sleep(0.05)
            with suppress(OSError, ValueError):  # not there yet, or not whole
                address = json.loads(told.read_text())["address"]
        yield first, address
        first.kill(), second.kill()


def test_a_scheduler_that_dies_is_told_with_how_to_go_on(cluster, tmp_path):
    scheduler, address = cluster
    command = [sys.executable, "-m", "nodecore", "study", "run", "spheres2-euler"]
    command += ["--only", "euler-K256-*", "--profile", "laptop", "--scheduler", address]
    where = store.os.environ | {"NODECORE_RESULTS": str(tmp_path)}
    with subprocess.Popen(command, env=where, stderr=subprocess.PIPE, text=True) as process:
        seen = ""
        while "1 in training" not in seen and process.poll() is None:
            seen += process.stderr.read(1)
        scheduler.kill()
        errors = process.stderr.read()
    assert process.returncode == 1
    last = errors.rstrip().splitlines()[-1]
    assert last.startswith("error: the scheduler has ended or cannot be reached any more.")
    assert last.endswith("it goes on with the runs that are missing")
    assert "Traceback" not in errors


def test_dask_prints_no_tracebacks_of_its_own_of_a_scheduler_that_ends(monkeypatch):
    """Whether it writes while its connection closes is a matter of luck."""
    monkeypatch.setattr("distributed.Client", lambda address, timeout: nullcontext())
    loggers = [logging.getLogger(f"distributed.{name}") for name in ("client", "batched")]
    for logger in loggers:
        monkeypatch.setattr(logger, "level", logger.level)  # as it is again afterwards
        logger.setLevel(logging.INFO)
    with connect("tcp://127.0.0.1:1"):
        assert not any(logger.isEnabledFor(logging.ERROR) for logger in loggers)


def test_an_unknown_kernel_is_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setenv("NODECORE_KERNEL", "nonsense")
    monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
    with pytest.raises(ValueError, match="NODECORE_KERNEL = 'nonsense' is unknown; choose one of"):
        run_studies(["spheres2-euler"], root=tmp_path)


def test_ctrl_c_while_packages_are_imported_is_quiet(tmp_path):
    """An import that sends the signal itself stands for one that takes long."""
    (tmp_path / "pandas.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    command = [sys.executable, "-m", "nodecore", "study", "status"]
    where = store.os.environ | {"PYTHONPATH": f"{tmp_path}:{PROJECT}"}
    done = subprocess.run(command, env=where, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_folder_that_may_not_be_read_is_named(monkeypatch, tmp_path):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path))
    monkeypatch.setattr(Path, "exists", refuse)  # root, who may run this test, may read all
    result = CliRunner().invoke(app, ["study", "status", "spheres2-euler"])
    assert result.exit_code == 1
    assert re.search(r"^error: /.*: Permission denied; make it accessible, or", result.output)


def test_the_bar_goes_on_while_nothing_happens(monkeypatch, capsys):
    monkeypatch.setattr("nodecore.evidence.progress.TICK", 0.05)
    seen, until = "", time.monotonic() + 10
    with SweepBar(SMALL):
        while seen.count("0 of 3 runs done") <= 5:
            assert time.monotonic() < until
            time.sleep(0.05)
            seen += capsys.readouterr().err


# --- what is there --------------------------------------------------------------------------------


def test_status_counts_what_is_there_and_names_what_is_damaged(root):
    damaged = SMALL[1].path(root)
    damaged.write_text(damaged.read_text().replace('"accuracy": 0', '"accuracy": 1', 1))
    SMALL[2].path(root).unlink()
    table = status(["spheres2-euler", "spheres900-rk4"], root=root)
    columns = ["profile", "seeds", "runs", "done", "damaged"]
    assert table[columns].to_numpy().tolist() == [
        ["smoke", 2, 3, 1, str(damaged)],
        ["paper", 5, 20, 0, ""],  # a run for each seed
        ["laptop", 1, 1, 0, ""],
    ]
    checkpoint_path(SMALL[0].path(root)).touch()  # its tests were stopped
    assert status(["spheres2-euler"], root=root)["done"].tolist() == [0]
    checkpoint_path(SMALL[0].path(root)).unlink()
    assert status(["spheres900-rk4"], "paper", root)["runs"].tolist() == [20]
    assert status(["spheres900-rk4"], "smoke", root)["runs"].tolist() == [1]


def test_the_command_prints_a_row_for_each_study(monkeypatch, root):
    monkeypatch.setenv("NODECORE_RESULTS", str(root))
    SMALL[1].path(root).write_text("{")
    result = CliRunner().invoke(app, ["study", "status"])
    assert result.exit_code == 0
    assert re.search(r"spheres2-euler +smoke +2 +3 +2\n", result.output)
    at_two_scales = 8  # of images and the spheres in 900 dimensions
    assert len(result.output.splitlines()) == 1 + len(STUDIES) + at_two_scales + 1
    assert f"damaged in spheres2-euler: {SMALL[1].path(root)}" in result.output


# --- whether it is so -----------------------------------------------------------------------------


def test_stored_weights_give_the_stored_accuracies_exactly(filled):
    table = verify(["spheres2-euler"], root=filled)
    assert table["run"].tolist() == [str(run.path(filled)) for run in SMALL]
    assert table["change"].tolist() == table["allowed"].tolist() == [0, 0, 0]
    assert table["agrees"].all()


def forge(path, change):
    """Change a record by `change` and set its checksum right, as no accident would."""
    document = json.loads(path.read_text())
    change(document)
    document.pop("sha256")
    document["sha256"] = store._digest(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("key", "value"), [("device", "cpu (another model)"), ("torch", "1.0"), ("backend", "other")]
)
def test_another_machine_may_differ_by_two_samples_and_no_more(root, key, value):
    def differ_by(samples, where):
        def change(document):
            document["header"][key] = value if where == "elsewhere" else document["header"][key]
            document["records"][0]["accuracy"] += samples / 200

        return change

    forge(SMALL[0].path(root), differ_by(1, "here"))
    forge(SMALL[1].path(root), differ_by(2, "elsewhere"))
    forge(SMALL[2].path(root), differ_by(3, "elsewhere"))
    table = verify(["spheres2-euler"], root=root)
    assert table["change"].tolist() == [1, 2, 3]
    assert table["allowed"].tolist() == [0, 2, 2]
    assert table["agrees"].tolist() == [False, True, False]


def test_an_edited_record_and_a_flipped_bit_are_named_and_the_others_verified(monkeypatch, root):
    edited, flipped = SMALL[0].path(root), SMALL[1].path(root).with_suffix(".safetensors")
    edited.write_text(edited.read_text().replace('"accuracy": 0', '"accuracy": 1', 1))
    data = bytearray(flipped.read_bytes())
    data[-100] ^= 1
    flipped.write_bytes(data)
    monkeypatch.setenv("NODECORE_RESULTS", str(root))
    result = CliRunner().invoke(app, ["study", "verify", "spheres2-euler"])
    assert result.exit_code == 1
    for file, why in ((edited, "it was edited"), (flipped, "do not match the checksum")):
        assert re.search(rf"error: {re.escape(str(file))}: .*{why}", result.output)
    assert re.search(rf"{re.escape(str(SMALL[2].path(root)))} +0 +0 +True", result.output)


def same_for_seed_3(**values):
    """A change of what all records of a seed have in common."""
    return lambda document: [r.update(values) for r in document["records"] if r["seed"] == 3]


def only_one_left(document):
    """Without all records but one of each seed."""
    document["records"] = list({record["seed"]: record for record in document["records"]}.values())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d["records"][0].update(accuracy=math.nan), "accuracy of its record 1 = nan"),
        (same_for_seed_3(trained=True), "trained of seed 3 is True, not False"),
        (same_for_seed_3(nfe_per_iteration=3.0), "nfe_per_iteration of seed 3 is 3.0, not 4.0"),
        (same_for_seed_3(status="diverged at 7"), "status of seed 3 is diverged at 7, not ok"),
        (only_one_left, "records are missing, of euler, 1 step, .*; `study test` adds them"),
        (lambda d: d["records"].pop(0), "records are missing, of euler, 1 step; `study test`"),
        (
            lambda d: d["records"].pop(),
            r"records are missing, of dopri5, tolerance 1e-06; `study test` adds them",
        ),
    ],
)
def test_altered_records_that_were_signed_anew_are_found(root, change, problem):
    forge(SMALL[2].path(root), change)
    table = verify(["spheres2-euler"], root=root)
    assert table["agrees"].tolist() == [True, True, False]
    assert re.search(rf"{re.escape(str(SMALL[2].path(root)))}: {problem}", table["problem"].iloc[2])


def test_an_accuracy_on_the_training_data_is_measured_again(root):
    forge(SMALL[2].path(root), same_for_seed_3(train_accuracy=0.25))
    table = verify(["spheres2-euler"], root=root)
    assert table["agrees"].tolist() == [True, True, False] and table["change"].iloc[2] > 2


def test_weights_that_do_not_belong_to_their_record_are_found(root):
    """Both files whole and with their checksums right, but the accuracies are those of others."""
    path = SMALL[2].path(root)
    weights = load_file(path.with_suffix(".safetensors"))
    weights = {name: -value for name, value in weights.items()}
    save_file(weights, path.with_suffix(".safetensors"))
    digest = store.hashlib.sha256(path.with_suffix(".safetensors").read_bytes()).hexdigest()
    forge(path, lambda document: document["header"].update(weights_sha256=digest))
    table = verify(["spheres2-euler"], root=root)
    assert table["agrees"].tolist() == [True, True, False]
    assert table["change"].iloc[2] > 2


def test_a_sample_is_drawn_by_its_seed(monkeypatch, filled):
    monkeypatch.setattr("nodecore.evidence.verify._changes", lambda *_: [0])

    def drawn(**options):
        return verify(["spheres2-euler"], root=filled, **options)["run"].tolist()

    samples = [drawn(sample=2, seed=seed) for seed in range(10)]
    assert samples == [drawn(sample=2, seed=seed) for seed in range(10)]
    assert all(len(set(sample)) == 2 for sample in samples)
    assert len(set(np.ravel(samples))) == 3
    assert sorted(drawn(sample=99)) == sorted(drawn())


class Clock:
    """A time that goes on by what each test is said to take: a second for each evaluation."""

    def __init__(self):
        self.now, self.tested = 0.0, []

    def perf_counter(self):
        return self.now

    def accuracy(self, field, head, test, setting, T):
        self.tested.append((setting, len(test)))
        stages = {"euler": 1, "midpoint": 2, "rk4": 4, "dopri5": 100}[setting.solver]
        self.now += stages * (setting.n_steps or 1)
        return torch.zeros(2)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("nodecore.evidence.verify.time", clock)
    monkeypatch.setattr("nodecore.evidence.verify.accuracy", clock.accuracy)
    return clock


def test_of_images_in_a_sample_settings_are_drawn_that_fit_into_the_time(
    monkeypatch, clock, filled
):
    def settings(**options):
        clock.now, clock.tested = 0.0, []
        [row] = verify(["spheres2-euler"], root=filled, sample=1, **options)["tests"]
        n, _, total = row.split()
        assert int(n) == len(clock.tested)
        return int(n), int(total)

    every, total = settings(seconds=20)
    assert every == total, "of other data sets all"
    monkeypatch.setattr("nodecore.evidence.verify.IMAGES", {"spheres2"})
    few, total = settings(seconds=20)
    assert 3 < few < total and clock.now <= 20
    assert clock.tested[0][0] == FixedSteps("euler", 1)
    assert {len(set(clock.tested)), settings(seconds=20)[0]} == {few}
    drawn = [tuple(clock.tested) for seed in range(5) if settings(seconds=20, seed=seed)]
    assert len(set(drawn)) > 1
    assert settings(seconds=1e-9)[0] == 1
    assert settings(seconds=1e9)[0] == total
    with pytest.raises(ValueError, match="seconds = 0: give a time > 0"):
        settings(seconds=0)


def test_all_runs_of_all_studies_can_be_asked_for():
    for name in STUDIES:
        assert get_study(name)
