"""Kills, full disks, read-only folders and workers that die: nothing finished is lost, no half of a
run is ever taken for one, and what comes out is what an undisturbed study gives."""

import _thread
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

from nodecore.data import files
from nodecore.evidence import store
from nodecore.evidence.catalogue import STUDIES
from nodecore.evidence.cluster import workers_here
from nodecore.evidence.measure import torch
from nodecore.evidence.obtain import obtain
from nodecore.evidence.runs import Run
from nodecore.evidence.sweep import SweepError, run_studies
from nodecore.ode.steps import FixedSteps
from nodecore.training import checkpoint

NAME = "spheres2-euler"
RUNS = tuple(
    Run("spheres2", FixedSteps("euler", k), seeds=(0, 3), profile="smoke") for k in (1, 2, 4)
)
KILLS = int(os.environ.get("NODECORE_TEST_KILLS", "5"))
ASIDE = {"date", "seconds", "revision"}  # what may differ between two trainings


def contents(root):
    """Every run below root, its weights and history included; refused where one is damaged."""
    runs = {}
    for path in sorted(root.rglob("*.json")):
        stored = store.load_run(path)
        header = {key: value for key, value in stored.header.items() if key not in ASIDE}
        weights = {name: tensor.tolist() for name, tensor in stored.weights().items()}
        runs[path.relative_to(root)] = header, stored.records, weights
    return runs


def visible(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.name.startswith("."))


@pytest.fixture(autouse=True)
def small_study(monkeypatch):
    monkeypatch.setitem(STUDIES, NAME, RUNS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A store with all RUNS, trained one after the other."""
    root = tmp_path_factory.mktemp("undisturbed")
    for run in RUNS:
        obtain(run, root=root, device="cpu", progress=False)
    return root


# --- kill -9 --------------------------------------------------------------------------------------


def run_small_study(root, ready):
    """In a process of its own: checkpoints ever so often, a word when the work begins."""
    STUDIES[NAME] = RUNS
    checkpoint.Checkpoint.is_due = lambda self: True
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    RUNS[0].protocol.load()
    ready.set()
    run_studies([NAME], root=root, device="cpu", jobs=1)


@pytest.fixture(scope="module")
def start():
    """Starts run_small_study on a store, from a process that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nodecore.evidence.sweep"])

    def start(root):
        ready = context.Event()
        process = context.Process(target=run_small_study, args=(root, ready))
        process.start()
        assert ready.wait(120)
        return process

    return start


def test_killed_at_random_moments_a_study_ends_as_an_undisturbed_one(start, undisturbed, tmp_path):
    moments, expected = random.Random(0), contents(undisturbed)
    started = time.monotonic()
    process = start(tmp_path / "timed")
    process.join()
    lasts = time.monotonic() - started
    kills, round_, finished = 0, 0, {}
    while kills < KILLS:
        root = tmp_path / str(round_)
        process = start(root)
        process.join(moments.uniform(0, lasts / 2))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        assert process.exitcode in (0, -signal.SIGKILL)
        there = contents(root) if root.exists() else {}
        assert finished.items() <= there.items()  # none is lost, or touched
        assert there.items() <= expected.items()  # none is there that is not whole
        finished = there
        if process.exitcode == 0:
            assert there == expected
            round_, finished = round_ + 1, {}
    process = start(root := tmp_path / str(round_))
    process.join()
    assert process.exitcode == 0
    assert contents(root) == expected
    assert visible(root) == visible(undisturbed)
    assert {p.suffix for p in root.rglob(".*")} == {".lock"}  # no checkpoint, nothing half written


def test_two_processes_at_once_share_the_runs_out(start, undisturbed, tmp_path):
    processes = [start(tmp_path), start(tmp_path)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert contents(tmp_path) == contents(undisturbed)


# --- a disk that is full, a folder that is read-only ----------------------------------------------


def mount(folder, *options):
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here, NOT checked: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    mount(folder, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only(undisturbed, tmp_path):
    """The first of RUNS in a folder that nobody may write to, not even root."""
    folder = tmp_path / "read-only"
    obtain(RUNS[0], root=tmp_path / "source", device="cpu", progress=False)
    mount(folder, "--bind", str(tmp_path / "source"))
    subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def no_training(*arguments, **options):
    raise AssertionError("trained although nothing can be written")


def told(folder, why, instead=", or have results written elsewhere"):
    remedy = f"Make room or make it writable{instead}"
    return pytest.raises(
        files.WriteError, match=rf"{folder}\S* cannot be written: .*{why}.*{remedy}"
    )


def test_a_full_disk_is_told_before_any_training(monkeypatch, small_disk):
    monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
    with told(small_disk, "1.0 MiB are free, 16 are needed"):
        run_studies([NAME], root=small_disk)


def test_a_disk_that_fills_up_in_a_training_leaves_what_is_finished(
    monkeypatch, undisturbed, small_disk
):
    monkeypatch.setattr(store, "ROOM", 0)
    monkeypatch.setattr(checkpoint.Checkpoint, "is_due", lambda self: True)
    obtain(RUNS[0], root=small_disk, device="cpu", progress=False)
    before = contents(small_disk)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1024))
    with told(small_disk, "No space left on device", instead=", and begin again"):
        run_studies([NAME], root=small_disk, device="cpu", jobs=1)
    assert contents(small_disk) == before
    ballast.unlink()
    run_studies([NAME], root=small_disk, device="cpu", jobs=1)
    assert contents(small_disk) == contents(undisturbed)


def test_a_read_only_store_is_told_before_any_training_and_can_be_read(monkeypatch, read_only):
    monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
    with told(read_only, "Read-only file system"):
        run_studies([NAME], root=read_only)
    assert obtain(RUNS[0], root=read_only).records["accuracy"].notna().all()


def test_a_file_in_the_place_of_the_store_is_told_before_any_training(monkeypatch, tmp_path):
    monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
    (tmp_path / "file").write_text("")
    with told(tmp_path / "file", "Not a directory|File exists"):
        run_studies([NAME], root=tmp_path / "file")


# --- side by side, and workers that die -----------------------------------------------------------

LONG = Run("spheres2", FixedSteps("rk4", 256), profile="laptop")  # minutes


def worker_of(client, run):
    """The process that trains a run now, once there is one."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for address, keys in client.processing().items():
            if any(run.name in key for key in keys):
                return client.run(os.getpid, workers=[address])[address]
        time.sleep(0.01)
    raise AssertionError(f"no worker trains {run}")


def test_side_by_side_the_runs_are_the_same_and_a_kill_takes_only_its_own(
    monkeypatch, undisturbed, tmp_path, capfd
):
    """That of the long run, while another run is in training."""
    killers = []

    @contextmanager
    def workers_to_kill(n):
        def kill():
            while sum(map(len, client.processing().values())) < 2:
                time.sleep(0.01)
            os.kill(worker_of(client, LONG), signal.SIGKILL)

        with workers_here(n) as client:
            killers.append(threading.Thread(target=kill))
            killers[0].start()
            yield client

    monkeypatch.setattr("nodecore.evidence.sweep.workers_here", workers_to_kill)
    monkeypatch.setitem(STUDIES, NAME, (LONG, *RUNS))
    with pytest.raises(SweepError) as failed:
        run_studies([NAME], root=tmp_path, device="cpu", jobs=2)
    killers[0].join()
    name, why = f"{LONG.study}/{LONG.name}", "the worker that trained it died"
    assert str(failed.value).startswith("1 of 4 runs failed; the same command tries them again:")
    assert f"{name}: {why}" in str(failed.value)
    assert contents(tmp_path) == contents(undisturbed)
    said = capfd.readouterr().err
    assert f"{name} failed, the others go on: {why}" in said
    assert "0 of 4 runs done, 2 in training" in said and "3 of 4 runs done" in said
    assert "leaked" not in said and "distributed" not in said


@pytest.fixture(scope="module")
def client():
    """Of two workers, each a process of its own."""
    from distributed import Client, LocalCluster

    options = {"dashboard_address": None, "threads_per_worker": 1, "processes": True}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
        yield client


def test_a_worker_that_is_killed_has_its_run_trained_by_another(client, undisturbed, tmp_path):
    killed = []

    def kill_one():
        killed.append(worker_of(client, RUNS[2]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    run_studies([NAME], root=tmp_path, device="cpu", client=client)
    killer.join()
    assert killed and killed[0] not in client.run(os.getpid).values()
    assert contents(tmp_path) == contents(undisturbed)
    assert visible(tmp_path) == visible(undisturbed)


def test_ctrl_c_cancels_what_the_workers_train(client, monkeypatch, tmp_path):
    monkeypatch.setitem(STUDIES, NAME, (LONG,))

    def interrupt():
        worker_of(client, LONG)
        time.sleep(0.5)
        _thread.interrupt_main()

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_studies([NAME], root=tmp_path, device="cpu", client=client)
    until = time.monotonic() + 60
    while any(client.run(executing).values()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(client.run(executing).values())
    assert visible(tmp_path) == ["spheres2-rk4", "spheres2-rk4/laptop"]


def executing(dask_worker):
    return dask_worker.state.executing_count
