"""A visit to a GPU, at the smallest size and on the CPU; the data in parts."""

import json
import shutil
import tarfile
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu_node, packed_images
from benchmarks.gpu_node import fastest, in_order, passes, read_plan, run_tests, write_plan
from nodecore.data.images import DataError
from nodecore.evidence import store
from nodecore.evidence.archives import take
from nodecore.evidence.found import find
from nodecore.evidence.obtain import obtain
from nodecore.evidence.runs import Run
from nodecore.ode.steps import FixedSteps
from nodecore.training import protocols


def names(runs):
    return [f"{run.study}/{run.name}" for run in runs]


def test_runs_come_in_the_order_of_their_value():
    runs = in_order()
    assert names(runs)[:9] == [
        *(f"cifar10-euler/euler-K{k}-seeds0" for k in (8, 4, 16, 2, 1)),
        *("cifar10-rk4/rk4-K1-seeds0", "cifar10-rk4/rk4-K2-seeds0"),
        *("cifar10-adaption/euler-algorithm1-seeds0", "cifar10-euler/euler-K32-seeds0"),
    ]
    assert names(runs)[9] == "cifar10-euler/euler-K8-seeds1"
    assert names(runs)[27:30] == [f"mnist-euler/euler-K8-seeds{seed}" for seed in (0, 1, 2)]
    assert {run.profile for run in runs} == {"paper"}
    assert len(set(runs)) == len(runs)


def test_a_plan_leaves_out_what_is_committed(monkeypatch, few_images, tiny, tmp_path):
    monkeypatch.setattr(store, "COMMITTED", tmp_path / "committed")
    runs = in_order("smoke")
    obtain(runs[4], root=store.COMMITTED, device="cpu", progress=False)
    assert write_plan(tmp_path / "plan", "smoke") == len(runs) - 1
    assert read_plan(tmp_path / "plan") == [*runs[:4], *runs[5:]]


def test_a_precision_passes_by_its_own_tests():
    outcomes = {
        "test_a[cifar10-adam-bf16]": "PASSED",
        "test_a[cifar10-adam-tf32]": "FAILED",
        "test_b[mnist-sgd-bf16]": "PASSED",
        "test_b[tf32]": "PASSED",
        "test_c": "FAILED",
        "test_a[float32]": "SKIPPED",
    }
    assert passes("bf16", outcomes)
    assert not passes("tf32", outcomes) and not passes("float32", outcomes)
    assert not passes("bf16", {})
    table = [
        {"dataset": d, "precision": p, "seconds": s}
        for d, p, s in (("cifar10", "bf16", 2.0), ("cifar10", "tf32", 1.0), ("mnist", "bf16", 0.1))
    ]
    assert fastest(outcomes, table) == "bf16"
    assert fastest(outcomes | {"test_a[cifar10-adam-tf32]": "PASSED"}, table) == "tf32"
    assert fastest({}, table) == "float32"


def test_the_tests_of_cuda_need_nothing_else():
    """Collected as on the GPU, without this folder's conftest; skipped where there is none."""
    outcomes, said = run_tests(300.0)
    assert len(outcomes) >= 30, said
    expected = {"PASSED"} if torch.cuda.is_available() else {"SKIPPED"}
    assert set(outcomes.values()) == expected
    for precision in ("float32", "tf32", "bf16"):
        assert passes(precision, dict.fromkeys(outcomes, "PASSED"))


@pytest.fixture
def tiny(monkeypatch):
    """The smallest profile, for the few images that there are."""
    small = protocols._TINY | {"n_train": 20, "n_test": 10}
    smoke = protocols.PROFILES["smoke"] | {"mnist": small, "cifar10": small}
    monkeypatch.setitem(protocols.PROFILES, "smoke", smoke)


def test_a_visit_tests_measures_trains_and_packs(monkeypatch, few_images, tiny, tmp_path, capsys):
    monkeypatch.setattr(store, "COMMITTED", tmp_path / "committed")
    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path / "scratch"))
    outcomes = {"test_a[bf16]": "PASSED", "test_b": "PASSED"}
    monkeypatch.setattr(gpu_node, "run_tests", lambda limit: (outcomes, "2 passed"))
    seen = [Run("cifar10", FixedSteps("euler", 2), seeds=(0, 1), profile="smoke")]
    seen += [Run("mnist", FixedSteps("rk4", 1), seeds=(0,), profile="smoke")]
    plan = tmp_path / "plan"
    plan.write_text(json.dumps([gpu_node.as_row(run) for run in seen]))
    out = tmp_path / "out"
    options = ["--budget", "3000", "--plan", str(plan), "--device", "cpu", "--profile", "smoke"]
    gpu_node.main(["visit", str(out), *options])
    report = json.loads((out / "report.json").read_text())
    assert report["tests"] == outcomes
    assert report["left"] == []
    assert report["said"][-1] == "2 of 2 runs are done, in 1 archives"
    ways = {(r["dataset"], r["precision"], r["layout"], r["recompute"]) for r in report["speeds"]}
    assert len(ways) == len(report["speeds"]) == 2 * 2 * 2 * 2
    assert all(row["seconds"] > 0 for row in report["speeds"])
    assert (report["precision"], report["torch"]) == ("bf16", torch.__version__)
    told = take([out / "records" / "records-1.tar"])
    assert len(told) == 2
    for run in seen:
        assert find(run, store.COMMITTED).stored.header["precision"] == "bf16"
    assert "trainings in bf16" in capsys.readouterr().out


def test_a_visit_tells_of_failures_and_takes_the_rest_home(monkeypatch, few_images, tiny, tmp_path):
    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path / "scratch"))
    monkeypatch.setattr(gpu_node, "run_tests", lambda limit: ({"test_a": "FAILED"}, "1 failed"))
    monkeypatch.setattr(gpu_node, "speeds", lambda device, profile: [])
    run = Run("mnist", FixedSteps("euler", 1), seeds=(0,), profile="smoke")
    monkeypatch.setattr(
        gpu_node, "in_order", lambda profile: [replace(run, steps=FixedSteps("euler", 2)), run]
    )
    obtain_or_fail = gpu_node.train_within.__globals__["obtain"]

    def fail_once(wanted, **how):
        if wanted.steps.n_steps == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return obtain_or_fail(wanted, **how)

    monkeypatch.setitem(gpu_node.train_within.__globals__, "obtain", fail_once)
    with pytest.raises(SystemExit) as end:
        gpu_node.main(["visit", str(tmp_path / "out"), "--budget", "3000", "--device", "cpu"])
    assert end.value.code == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["left"], report["failed"]) == ([], ["mnist-euler/euler-K2-seeds0"])
    assert any("euler-K2-seeds0 failed: OutOfMemoryError: CUDA out" in s for s in report["said"])
    assert report["precision"] == "float32"
    with tarfile.open(tmp_path / "out" / "records" / "records-1.tar") as archive:
        assert "mnist-euler/smoke/euler-K1-seeds0.json" in archive.getnames()


# --- the data -------------------------------------------------------------------------------------


def test_data_goes_in_parts_and_comes_out_as_it_was(few_images, tmp_path):
    parts = packed_images.pack(tmp_path / "parts", ["mnist", "cifar10"], 30_000)
    assert len(parts) > 2
    for part in parts:
        assert sum(file.stat().st_size for file in part.iterdir()) <= 30_000
    packed_images.main(["unpack", *map(str, parts[:2]), "--to", str(tmp_path / "data")])
    packed_images.main(["unpack", *map(str, parts[2:]), "--to", str(tmp_path / "data")])
    for name in (file for files in packed_images.FILES.values() for file in files):
        assert (tmp_path / "data" / name).read_bytes() == (few_images / name).read_bytes()
    with pytest.raises(SystemExit, match=r"takes .* MiB; allow larger parts"):
        packed_images.main(["pack", str(tmp_path / "none"), "--part-mib", "0.001"])


def test_what_is_not_the_release_is_not_unpacked(few_images, tmp_path):
    (part,) = packed_images.pack(tmp_path / "parts", ["cifar10"], 10**9)
    first, second, *_ = sorted(part.iterdir())
    shutil.copy(second, first)
    with pytest.raises(DataError, match="is not the file that was released"):
        packed_images.unpack([part], tmp_path / "data")
    shutil.copy(second, part / "passwd.xz")
    with pytest.raises(DataError, match=r"passwd\.xz is no file of MNIST or CIFAR-10"):
        packed_images.unpack([part], tmp_path / "data")
