"""Evidence comes back as it was written, or is refused by name."""

import json
import math
import os

import pandas as pd
import pytest
import torch

from nodecore.data import files
from nodecore.data.files import write_atomically
from nodecore.evidence import store
from nodecore.evidence.store import COLUMNS, RecordError, add_records, load_run, save_run

HEADER = {
    **{"study": "spheres2-euler", "dataset": "spheres2", "profile": "smoke", "seeds": [0, 1]},
    **{"train_solver": "euler", "n_steps": 4, "seconds": 1.25, "protocol": {"T": 1.0}},
    **{"protocol_hash": "0" * 12, "backend": "torch", "device": "cpu", "torch": "2.0"},
}
COMMON = {"train_accuracy": 0.5, "status": "ok", "nfe_per_iteration": 4.0}
RECORDS = [
    {
        **{"seed": 0, "test_solver": "euler", "test_n_steps": 4, "accuracy": 0.30000000000000004},
        **{"trained": True, **COMMON},
    },
    {
        **{"seed": 1, "test_solver": "dopri5", "test_rtol": 1e-6, "accuracy": 0.5},
        **{"trained": False, **COMMON},
    },
]
HISTORY = [{"iteration": 50, "seed": 0, "step_size": 0.1}, {"iteration": 60, "accuracy": 1 / 3}]


def weights():
    return {"field.first.0": torch.arange(6.0).reshape(2, 3) / 7, "head.1": torch.tensor([-0.0])}


def run_path(root, name="euler-K4-tol0.001"):
    return root / "spheres2-euler" / "smoke" / f"{name}.json"


@pytest.fixture
def path(tmp_path):
    path = run_path(tmp_path)
    save_run(path, HEADER, RECORDS, weights(), HISTORY)
    return path


def companion(path, suffix):
    return path.parent / (path.name.removesuffix(".json") + suffix)


# --- round trip -----------------------------------------------------------------------------------


def test_a_run_comes_back_as_it_was_written(path):
    run = load_run(path)
    assert HEADER.items() <= run.header.items()
    assert run.records == RECORDS
    assert run.weights().keys() == weights().keys()
    assert all(torch.equal(run.weights()[name], tensor) for name, tensor in weights().items())
    pd.testing.assert_frame_equal(run.history, pd.DataFrame(HISTORY))
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "euler-K4-tol0.001.history.csv",
        "euler-K4-tol0.001.json",
        "euler-K4-tol0.001.safetensors",
    ]


def test_frames_have_every_column_and_the_headers_values(path):
    frame = load_run(path).frame()
    assert list(frame.columns) == COLUMNS
    assert frame["n_steps"].tolist() == [4, 4]
    assert frame["accuracy"].tolist() == [0.30000000000000004, 0.5]
    assert frame["spread"].isna().all()
    assert math.isnan(frame["test_n_steps"][1])


DESIGNED = """
    study dataset profile train_solver n_steps rtol controller first_rtol start cures changes
    seed test_solver test_n_steps test_rtol accuracy train_accuracy trained status
    test_split accuracy_all test_split_all
    nfe_per_iteration seconds backend device protocol_hash revision
    reversals spread failed_checks final_n_steps final_rtol agreement_gap"""


def test_the_columns_are_the_promised_ones():
    assert DESIGNED.split() == COLUMNS


@pytest.mark.parametrize(
    ("header", "start"),
    [
        ({"controller": "algorithm1"}, "euclidean"),
        ({"controller": "algorithm1", "first_rtol": None}, "euclidean"),
        ({"controller": "algorithm1", "first_rtol": None, "start": "hairer"}, "hairer"),
        ({"controller": "algorithm1", "first_rtol": 0.01}, None),
        ({"controller": None, "first_rtol": None}, None),
        ({}, None),
    ],
)
def test_an_adaption_of_steps_without_a_start_had_the_first_one_there_was(tmp_path, header, start):
    final = {"final_rtol": 0.1, "final_n_steps": 4}
    records = [{**record, **final} for record in RECORDS]
    save_run(run_path(tmp_path), {**HEADER, **header}, records, weights())
    found = load_run(run_path(tmp_path)).frame()["start"]
    assert found.tolist() == [start] * 2 if start else found.isna().all()


def test_the_file_has_one_record_a_line(path):
    lines = path.read_text().splitlines()
    assert sum('"test_solver"' in line for line in lines) == len(RECORDS)
    assert json.loads(path.read_text())["records"] == RECORDS


def test_an_unknown_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"stored: its record 1 = .*'accuracies'.* unknown fields"):
        save_run(run_path(tmp_path), HEADER, [{**RECORDS[0], "accuracies": 1.0}], weights())
    assert not list(tmp_path.iterdir())


def test_records_that_would_spoil_a_run_leave_it_as_it_was(path):
    before, run = path.read_bytes(), load_run(path)
    with pytest.raises(ValueError, match="stored: it has several records of one seed and test"):
        add_records(run, run.header, RECORDS[:1])
    assert path.read_bytes() == before


# --- damage ---------------------------------------------------------------------------------------

REMEDY = r".*; delete it and its companions, and run the study again"


def refused(path, why):
    return pytest.raises(RecordError, match=f"{path.name}: .*{why}{REMEDY}")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -2, -20])
def test_a_truncated_record_is_refused(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with refused(path, "truncated or no JSON"):
        load_run(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.30000000000000004", "0.9470000000000001"),
        ("0.30000000000000004", "0.3"),
        ('"n_steps": 4', '"n_steps": 8'),
        ('"trained": false', '"trained": true'),
        ('"seed": 1', '"seed": 2'),
        ('"weights_sha256": "', '"weights_sha256": "0'),
        ('"history_sha256"', '"history_sha255"'),
        ('"sha256": "', '"sha256": "0'),
    ],
)
def test_an_edited_record_is_refused(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new, 1))
    with refused(path, "do not match its checksum: it was edited"):
        load_run(path)


def test_a_record_without_its_checksum_is_refused(path):
    document = json.loads(path.read_text())
    del document["sha256"]
    path.write_text(json.dumps(document))
    with refused(path, "checksum"):
        load_run(path)


def test_a_record_with_a_row_taken_out_is_refused(path):
    document = json.loads(path.read_text())
    document["records"].pop()
    path.write_text(json.dumps(document))
    with refused(path, "it was edited"):
        load_run(path)


@pytest.mark.parametrize(
    "text",
    ["[]", "3", "{}", '{"header": 1}', '{"header": {}}', '{"header": {"format": "other-2"}}'],
)
def test_a_foreign_file_is_refused(path, text):
    path.write_text(text)
    with refused(path, "no record of a run|its format is"):
        load_run(path)


def test_a_file_that_is_no_text_is_refused(path):
    path.write_bytes(b"\x80\x04\x95pickle\xff")
    with refused(path, "no JSON"):
        load_run(path)


def signed(document):
    document.pop("sha256", None)
    document["sha256"] = store._digest(document)
    return json.dumps(document)


HUGE = 10**400


@pytest.mark.parametrize(
    ("where", "values", "why"),
    [
        ("header", {"protocol_hash": None}, "protocol_hash of its header = None: it is not text"),
        ("header", {"weights_sha256": 3}, "weights_sha256 of its header = 3"),
        ("header", {"seeds": "0,1"}, "seeds of its header = '0,1': it is not whole numbers"),
        ("header", {"seeds": [0, 1, 2]}, r"do not cover exactly its seeds \[0, 1, 2\]"),
        ("header", {"seeds": [0, HUGE]}, "seeds of its header = .*000"),
        ("header", {"n_steps": "4"}, "n_steps of its header = '4': it is not a whole number"),
        ("header", {"protocol": {"T": "1"}}, "protocol of its header = .*a mapping with a number"),
        ("header", {"tested": [{}]}, "tested of its header = .*: it is not a list of tests, each"),
        ("header", {"controller": "algorithm1"}, "its record 1 has no final_n_steps"),
        ("record", {"accuracy": "0.3"}, "accuracy of its record 1 = '0.3': it is not a share"),
        ("record", {"accuracy": 1.5}, "accuracy of its record 1 = 1.5: it is not a share"),
        ("record", {"accuracy": math.nan}, "accuracy of its record 1 = nan: it is not a share"),
        ("record", {"nfe_per_iteration": HUGE}, "nfe_per_iteration of its record 1 = 1000.*000"),
        ("record", {"nfe_per_iteration": math.inf}, "nfe_per_iteration of its record 1 = inf"),
        ("record", {"status": "diverged at -3"}, "status of its record 1 = 'diverged at -3'"),
        ("record", {"trained": 1}, "trained of its record 1 = 1: it is not true or false"),
        ("record", {"test_solver": "moon"}, "record 1 describes no valid test .*solver = 'moon'"),
        ("record", {"test_n_steps": None}, "record 1 describes no valid test .*give exactly one"),
        ("record", {"n_steps": 8}, "its record 1 = .*: it is not a record, or has unknown"),
    ],
)  # fmt: skip
def test_a_signed_value_that_cannot_be_is_refused(path, where, values, why):
    document = json.loads(path.read_text())
    (document["header"] if where == "header" else document["records"][0]).update(values)
    path.write_text(signed(document))
    with refused(path, why):
        load_run(path)


@pytest.mark.parametrize("lost", ["protocol_hash", "seeds", "dataset", "weights_sha256", "backend"])
def test_a_signed_header_without_a_field_is_refused(path, lost):
    document = json.loads(path.read_text())
    del document["header"][lost]
    path.write_text(signed(document))
    with refused(path, f"its header has no {lost}"):
        load_run(path)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (None, "records = None: expected a non-empty list"),
        ([], r"records = \[\]: expected a non-empty list"),
        ([3, *RECORDS], "its record 1 = 3: it is not a record"),
        ([*RECORDS, RECORDS[0]], "several records of one seed and test"),
    ],
)
def test_signed_records_that_cannot_be_are_refused(path, records, why):
    document = json.loads(path.read_text())
    path.write_text(signed({**document, "records": records}))
    with refused(path, why):
        load_run(path)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "9" * 10**4])
def test_a_file_deep_or_wide_beyond_reason_is_refused(path, text):
    path.write_text(text)
    with refused(path, "truncated or no JSON"):
        load_run(path)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("", "it is no table"),
        ("iteration,step_size\n1,0.5\n", "it has no column 'seed'"),
        ("iteration,seed,step_size\n1,0,0.5\n2,0,long\n", "column 'step_size' holds text"),
    ],
)
def test_a_signed_history_that_cannot_be_is_refused(path, table, why):
    history = companion(path, ".history.csv")
    history.write_text(table)
    document = json.loads(path.read_text())
    digest = store.hashlib.sha256(table.encode()).hexdigest()
    document["header"]["history_sha256"] = digest
    path.write_text(signed(document))
    with refused(history, why):
        load_run(path)


@pytest.mark.parametrize("at", [0, 40, -1])
@pytest.mark.parametrize("suffix", [".safetensors", ".history.csv"])
def test_a_companion_with_one_byte_changed_is_refused(path, suffix, at):
    file = companion(path, suffix)
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    with refused(file, "do not match the checksum in its record"):
        load_run(path).weights()


@pytest.mark.parametrize("suffix", [".safetensors", ".history.csv"])
def test_a_companion_that_is_cut_short_or_missing_is_refused(path, suffix):
    file = companion(path, suffix)
    file.write_bytes(file.read_bytes()[:-5])
    with refused(file, "do not match the checksum in its record"):
        load_run(path).weights()
    file.unlink()
    missing = (path, "its weights, .*are missing"), (file, "cannot be read")
    with refused(*missing[suffix != ".safetensors"]):
        load_run(path)


def test_a_record_that_cannot_be_read_is_not_to_be_deleted(path):
    path.unlink()
    path.mkdir()  # root may read any file
    with pytest.raises(RecordError) as error:
        load_run(path)
    assert (
        str(error.value) == f"{path}: it cannot be read (Is a directory); make it a readable file"
    )


def test_weights_of_another_run_are_refused(tmp_path, path):
    other = run_path(tmp_path, "euler-K8")
    save_run(other, HEADER, RECORDS, {"x": torch.zeros(3)})
    os.replace(companion(other, ".safetensors"), companion(path, ".safetensors"))
    with refused(companion(path, ".safetensors"), "do not match"):
        load_run(path).weights()


# --- crashes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["replace", "fsync"])
def test_a_crash_before_the_rename_leaves_the_old_file(monkeypatch, tmp_path, where):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def crash(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.os, where, crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_data_is_on_disk_before_the_name_is(monkeypatch, tmp_path):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(store.os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(store.os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_atomically(tmp_path / "file", b"new")
    assert calls == ["fsync", "replace"]


@pytest.mark.parametrize("survivors", [0, 1, 2])
def test_a_crash_between_the_files_of_a_new_run_leaves_no_run(monkeypatch, tmp_path, survivors):
    write, written = files.write_atomically, []

    def write_some(path, data):
        if len(written) == survivors:
            raise KeyboardInterrupt
        written.append(path)
        write(path, data)

    monkeypatch.setattr(store, "write_atomically", write_some)
    with pytest.raises(KeyboardInterrupt):
        save_run(run_path(tmp_path), HEADER, RECORDS, weights(), HISTORY)
    assert not run_path(tmp_path).exists()
    assert not list(tmp_path.rglob("*.json"))


def test_new_results_go_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path))
    assert store.scratch_root() == tmp_path
    monkeypatch.delenv("NODECORE_RESULTS")
    assert store.scratch_root() == files.PROJECT / "_build" / "results"
    assert store.COMMITTED not in (store.scratch_root(), *store.scratch_root().parents)
