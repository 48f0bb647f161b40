"""Stored weights tested anew: what records lack is added, and what they have stays to the bit."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from nodecore.__main__ import app
from nodecore.analysis.evaluate import EXACT, IMAGES_EXACT
from nodecore.evidence import store
from nodecore.evidence.catalogue import STUDIES
from nodecore.evidence.found import find
from nodecore.evidence.measure import measure
from nodecore.evidence.obtain import obtain
from nodecore.evidence.provenance import cpu_model
from nodecore.evidence.retest import complete, complete_studies
from nodecore.evidence.runs import Run
from nodecore.evidence.verify import ROUNDING, _allowed, verify
from nodecore.ode.steps import FixedSteps, Tolerance
from nodecore.training.adapted import Adapted

RUN = Run("spheres2", FixedSteps("euler", 4), seeds=(0, 3), profile="smoke")
ADAPTED = Run("spheres2", Adapted("euler", "algorithm1"), seeds=(0, 1), profile="smoke")
WALKED = Run("spheres2", Tolerance("fehlberg21", 0.1), seeds=(0,), profile="smoke")
KEYS = ["seed", "test_solver", "test_n_steps", "test_rtol"]


def trained(run, root):
    return obtain(run, root=root, device="cpu", progress=False)


def forget(path, is_lost):
    """Leave out the records for which `is_lost` is true, as if they had never been made."""
    document = json.loads(path.read_text())
    kept = [record for record in document["records"] if not is_lost(record)]
    assert 0 < len(kept) < len(document["records"])
    document = {"header": document["header"], "records": kept}
    document["sha256"] = store._digest(document)
    path.write_text(store._dump(document) + "\n")


def ordered(frame):
    return frame.sort_values(KEYS).reset_index(drop=True)


def moving_on(monkeypatch):
    """Tests during which the checkout moves on to another revision."""

    def measured(*arguments):
        monkeypatch.setenv("NODECORE_REVISION", "after")
        return measure(*arguments)

    return measured


def no_training(*arguments, **options):
    raise AssertionError("trained, where only tests were asked for")


@pytest.mark.parametrize("run", [RUN, ADAPTED, WALKED], ids=["grid", "adaption", "tolerance"])
def test_what_is_missing_is_tested_as_it_was_and_the_rest_stays(monkeypatch, tmp_path, run):
    whole = trained(run, tmp_path)
    path, own = run.path(tmp_path), run.steps.solver
    forget(path, lambda r: r["test_solver"] != own or r["test_n_steps"] in (2, 16))
    before = path.read_text().splitlines()
    weights = path.with_suffix(".safetensors").stat().st_mtime_ns
    monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
    monkeypatch.setenv("NODECORE_REVISION", "before")
    monkeypatch.setattr("nodecore.evidence.retest.measure", moving_on(monkeypatch))
    added = complete(run, tmp_path)
    again = find(run, tmp_path)
    pd.testing.assert_frame_equal(ordered(again.records), ordered(whole.records))
    after = path.read_text().splitlines()
    rows = [line.rstrip(",") for line in before if line.startswith('{"accuracy')]
    kept = [line.rstrip(",") for line in after if line.startswith('{"accuracy')]
    assert kept[: len(rows)] == rows and len(kept) == len(rows) + added
    assert path.with_suffix(".safetensors").stat().st_mtime_ns == weights, "not written again"
    header = again.stored.header
    [entry] = header["tested"]
    assert entry["records"] == added and entry["date"] >= header["date"]
    assert {"device", "torch", "backend", "settings"} <= entry.keys()
    assert entry["revision"] == "before", "of the code that tests"
    assert {k: v for k, v in header.items() if k != "tested"} == whole.stored.header
    before = path.read_bytes()
    assert complete(run, tmp_path) == 0
    assert path.read_bytes() == before
    assert verify([], root=tmp_path / "none").empty


def test_a_test_that_one_seed_lacks_is_added_for_it_alone(tmp_path):
    whole = trained(RUN, tmp_path)
    forget(RUN.path(tmp_path), lambda r: r["test_solver"] == "rk4" and r["seed"] == 3)
    added = complete(RUN, tmp_path)
    assert added == len(whole.records.query("test_solver == 'rk4' and seed == 3"))
    pd.testing.assert_frame_equal(ordered(find(RUN, tmp_path).records), ordered(whole.records))


def test_factors_of_old_stay_in_the_records(monkeypatch, tmp_path):
    """Records from before have the paper's factors of the step size as those of the steps."""
    old = [FixedSteps(s, k) for s in ("euler", "midpoint", "rk4") for k in (2, 3, 4, 6, 8)]
    monkeypatch.setattr("nodecore.evidence.measure.cross_solver_settings", lambda *_: old)
    before = trained(RUN, tmp_path).records
    monkeypatch.undo()
    assert complete(RUN, tmp_path) > 0
    after = find(RUN, tmp_path).records
    pd.testing.assert_frame_equal(after.iloc[: len(before)], before)
    midpoint = after[(after["test_solver"] == "midpoint") & (after["seed"] == 0)]
    assert midpoint["test_n_steps"].tolist() == [2, 3, 4, 6, 8, 5, 16]


def test_the_finer_stand_in_for_the_exact_flow_serves_as_well(monkeypatch, tmp_path):
    """Records of images of old have it; nobody misses the coarser one there."""
    trained(ADAPTED, tmp_path)
    monkeypatch.setattr("nodecore.evidence.measure.exact_flow", lambda dataset: IMAGES_EXACT)
    monkeypatch.setattr("nodecore.evidence.retest.exact_flow", lambda dataset: IMAGES_EXACT)
    monkeypatch.setattr("nodecore.evidence.measure.EXACT", IMAGES_EXACT)
    assert complete(ADAPTED, tmp_path) == 0
    assert EXACT.rtol in find(ADAPTED, tmp_path).records["test_rtol"].unique()


def test_a_run_that_is_damaged_or_held_or_not_there(tmp_path):
    assert complete(RUN, tmp_path) == 0
    trained(RUN, tmp_path)
    path = RUN.path(tmp_path)
    forget(path, lambda r: r["test_solver"] == "rk4")
    with store.reserve(path):
        assert complete(RUN, tmp_path) == 0, "left to who is at it"
    path.write_text(path.read_text().replace('"accuracy": 0', '"accuracy": 1', 1))
    with pytest.raises(store.RecordError, match="it was edited"):
        complete(RUN, tmp_path)


def test_the_command_completes_the_studies_that_are_there(monkeypatch, tmp_path):
    monkeypatch.setitem(STUDIES, "spheres2-euler", (RUN, Run("spheres2", FixedSteps("euler", 8))))
    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path))
    trained(RUN, tmp_path)
    forget(RUN.path(tmp_path), lambda r: r["test_solver"] == "rk4")
    command = ["study", "test", "spheres2-euler"]
    result = CliRunner().invoke(app, [*command, "--only", "euler-K8-*"])
    assert (result.exit_code, result.stdout) == (0, "0 records were added\n")
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.stdout) == (0, "12 records were added\n")
    assert complete_studies(["spheres2-euler"]) == 0
    result = CliRunner().invoke(app, ["study", "test", "moons"])
    assert result.exit_code == 1 and "study = 'moons' is unknown" in result.output


def test_tests_on_another_machine_may_differ_by_rounding(tmp_path):
    trained(RUN, tmp_path)
    path = RUN.path(tmp_path)
    forget(path, lambda r: r["test_solver"] == "rk4")
    complete(RUN, tmp_path)
    header = find(RUN, tmp_path).stored.header
    assert _allowed(header) == 0
    header["tested"][0]["device"] = "cpu (another model)"
    assert _allowed(header) == ROUNDING


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("AMD EPYC", "AMD EPYC, family 25, model 17"),  # a name of several generations
        ("AMD EPYC 7R13 Processor", "AMD EPYC 7R13 Processor"),
    ],
)
def test_a_processor_is_told_from_others_of_its_name(monkeypatch, name, told):
    lines = f"processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {name}\n\n"
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: 2 * lines)
    assert cpu_model() == told
