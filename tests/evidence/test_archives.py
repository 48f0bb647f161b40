"""Runs on their way home: what was packed is filed, what was tampered with is refused."""

import io
import json
import math
import re
import shutil
import tarfile
from contextlib import contextmanager
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file
from test_sweep import forge
from typer.testing import CliRunner

from nodecore.__main__ import app
from nodecore.evidence import archives, store
from nodecore.evidence.archives import ArchiveError, pack, run_of, take
from nodecore.evidence.found import find
from nodecore.evidence.obtain import obtain
from nodecore.evidence.runs import Run
from nodecore.ode.steps import FixedSteps, Tolerance
from nodecore.training.adapted import Adapted, columns_of

RUNS = [
    Run("spheres2", FixedSteps("euler", 1), seeds=(0, 3), profile="smoke"),
    Run("spheres2", Tolerance("dopri5", 1e-1), seeds=(0,), profile="smoke"),
    Run("spheres2", Adapted("euler", "algorithm1"), seeds=(0,), profile="smoke"),
    Run("spheres2", FixedSteps("euler", 16), seeds=(0,), profile="smoke", T=2.0),
]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A store on the other machine."""
    root = tmp_path_factory.mktemp("there")
    for run in RUNS:
        obtain(run, root=root, device="cpu", progress=False)
    return root


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """The committed store of this one, empty."""
    monkeypatch.setattr(store, "COMMITTED", tmp_path / "committed")
    return store.COMMITTED


@pytest.fixture
def archive(there, tmp_path):
    (packed,), left = pack(tmp_path / "packed", there)
    assert left == []
    return packed


@pytest.fixture
def copy(there, tmp_path):
    return shutil.copytree(there, tmp_path / "copy", ignore=shutil.ignore_patterns(".*"))


def files(root):
    """All but locks and other hidden ones."""
    found = (p for p in root.rglob("*") if p.is_file() and p.name[0] != ".")
    return {p.relative_to(root): p.read_bytes() for p in found}


def test_what_is_packed_is_filed_byte_by_byte(there, here, archive):
    told = take([archive], sample=len(RUNS))
    assert len(told) == len(RUNS) and set(told.values()) == {"filed, verified"}
    assert files(here) == files(there)
    for run in RUNS:
        assert find(run, here).stored.records == find(run, there).stored.records
        assert run_of(find(run, there).stored.header) == run


def test_only_what_is_not_committed_is_packed(there, here, archive, tmp_path):
    take([archive])
    assert pack(tmp_path / "again", there) == ([], [])
    assert set(take([archive]).values()) == {"there already, kept"}


def test_a_run_that_is_there_stays_unless_it_says_less(there, here, archive):
    take([archive])
    cut, damaged, other = (run.path(here) for run in RUNS[:3])
    whole = cut.read_bytes()
    forge(cut, lambda document: document["records"].pop())
    damaged.write_text("{")
    forge(other, lambda document: document["header"].update(date="2020-01-01"))
    told = take([archive], sample=0)
    assert [told[f"{r.study}/smoke/{r.name}"] for r in RUNS] == [
        *("filed", "filed", "there already, kept", "there already, kept")
    ]
    assert cut.read_bytes() == whole


def test_a_run_is_filed_when_no_other_process_is_at_it(monkeypatch, there, here, archive):
    """The other one writes the first run, with a date of its own."""
    reserve, write, free = store.reserve, archives.files.write_atomically, []

    @contextmanager
    def reserve_late(path, **how):
        if path == RUNS[0].path(here):
            shutil.copytree(RUNS[0].path(there).parent, path.parent, dirs_exist_ok=True)
            forge(path, lambda document: document["header"].update(date="2020-01-01"))
        with reserve(path, **how) as reserved:
            yield reserved

    def watch(path, data):
        with reserve(archives._stem(path), wait=False) as reserved:
            free.append(reserved)
        write(path, data)

    monkeypatch.setattr(store, "reserve", reserve_late)
    monkeypatch.setattr(archives.files, "write_atomically", watch)
    told = take([archive], sample=0)
    assert told.pop(f"{RUNS[0].study}/smoke/{RUNS[0].name}") == "there already, kept"
    assert find(RUNS[0], here).stored.header["date"] == "2020-01-01"
    assert set(told.values()) == {"filed"} and free and not any(free)


def test_a_run_gives_way_where_another_lies_under_its_name(here, archive):
    take([archive])
    there, other = RUNS[0].path(here), replace(RUNS[0], steps=FixedSteps("euler", 2))
    whole = there.read_bytes()
    forge(there, lambda document: document["header"].update(columns_of(other.steps)))
    assert take([archive], sample=0)[f"{RUNS[0].study}/smoke/{RUNS[0].name}"] == "filed"
    assert there.read_bytes() == whole


def size_in_archive(run, there):
    files = run.path(there).parent.glob(f"{run.name}.*")
    return sum(512 + math.ceil(file.stat().st_size / 512) * 512 for file in files)


def test_archives_stay_small_and_few(there, monkeypatch, tmp_path):
    sizes = [size_in_archive(run, there) for run in RUNS]
    monkeypatch.setattr(archives, "LARGEST", max(sizes) + 10240)
    packed, left = pack(tmp_path / "small", there)
    assert left == []
    assert 1 < len(packed) <= len(RUNS)
    assert all(path.stat().st_size <= archives.LARGEST for path in packed)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "MOST", 1)
        few, left = pack(tmp_path / "few", there)
    assert len(few) == 1
    assert left and all("no room for its" in why for why in left)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "LARGEST", min(sizes))
        none, left = pack(tmp_path / "none", there)
    assert (none, len(left)) == ([], len(RUNS))
    assert len(take(packed)) == len(RUNS)


def test_a_damaged_run_is_not_packed(copy, tmp_path):
    RUNS[0].path(copy).with_suffix(".safetensors").write_bytes(b"")
    packed, (why,) = pack(tmp_path / "packed", copy)
    assert why.count(RUNS[0].name) == 1 and "checksum" in why
    assert len(take(packed)) == len(RUNS) - 1


def test_what_take_would_refuse_is_not_packed(copy, tmp_path):
    stopped, other = (run.path(copy) for run in RUNS[:2])
    forge(stopped, lambda document: document["records"].pop())
    forge(other, lambda document: document["header"].update(protocol_hash="0" * 12))
    packed, left = pack(tmp_path / "packed", copy)
    assert len(left) == 2 and len(take(packed)) == len(RUNS) - 2
    told = "\n".join(sorted(left))
    assert re.search(f"{stopped}: it lacks tests; .*`study test` adds them", told)
    assert f"{other}: it is of another protocol" in told


def test_a_run_that_lacks_tests_is_refused_whether_or_not_it_is_drawn(copy, here, tmp_path):
    path = RUNS[0].path(copy)
    forge(path, lambda document: document["records"].pop())
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        for file in files(copy):
            if file.parts[0] == path.parts[-3]:
                archive.add(copy / file, arcname=str(file))
    with pytest.raises(ArchiveError, match="it lacks tests"):
        take([tmp_path / "one.tar"], sample=0)
    assert not here.exists()


def test_a_folder_that_is_not_empty_is_left_alone(there, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="it exists and is not empty; give a new one"):
        pack(tmp_path, there)


# --- what is refused ------------------------------------------------------------------------------


def entry(name, data=b"", **values):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in values.items():
        setattr(info, key, value)
    return info, data


def with_entries(archive, *entries):
    """The archive with entries at its end."""
    with tarfile.open(archive, "a") as opened:
        for info, data in entries:
            opened.addfile(info, io.BytesIO(data))
    return archive


def refused(archive, message, here):
    with pytest.raises(ArchiveError, match=f"{archive}: .*{message}.*; nothing was filed"):
        take([archive])
    assert not here.exists()


@pytest.mark.parametrize(
    ("stranger", "message"),
    [
        (entry("spheres2-euler/smoke/a.json", type=tarfile.SYMTYPE, linkname="/etc/b"), "link"),
        (entry("spheres2-euler/smoke/a.json", type=tarfile.LNKTYPE, linkname="b"), "link"),
        (entry("spheres2-euler/smoke/fifo.json", type=tarfile.FIFOTYPE), "no regular file"),
        (entry("spheres2-euler/smoke/a.json", type=tarfile.GNUTYPE_SPARSE), "no regular file"),
        (entry("../smoke/a.json"), "no name of the store"),
        (entry("/etc/passwd"), "no name of the store"),
        (entry("spheres2-euler/smoke/../../a.json"), "no name of the store"),
        (entry("spheres2-euler/smoke/.a.json"), "no name of the store"),
        (entry("spheres2-euler/smoke/a.pkl", b"\x80\x04."), "is none of .json"),
        (entry("spheres2-euler/smoke/a.safetensors", b"x"), "no part of a run that is in it"),
        (entry("spheres2-euler/smoke/a.json", b"{}"), "it is no record of a run"),
        (entry("spheres2-euler/smoke/euler-K1-seeds0,3.json", b"{}"), "comes twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].name,
)  # fmt: skip
def test_links_and_strangers_are_refused(archive, here, stranger, message):
    refused(with_entries(archive, stranger), message, here)


def packed_after(copy, tmp_path, change):
    """An archive of the first run alone, changed after it was packed as no accident would."""
    for run in RUNS[1:]:
        for file in run.path(copy).parent.glob(f"{run.name}.*"):
            file.unlink()
    change(RUNS[0].path(copy))
    loads = archives._Load(sorted(f for f in copy.rglob("*") if f.is_file()), 0)
    return loads.write(tmp_path / "one.tar")


def renamed(path):
    for file in path.parent.glob(f"{path.stem}.*"):
        file.rename(file.with_name(file.name.replace("K1", "K2")))


def edited(path):
    path.write_text(path.read_text().replace('"accuracy": 0', '"accuracy": 1', 1))


def other_weights(change):
    def save(path):
        weights = path.with_suffix(".safetensors")
        save_file(change(load_file(weights)), weights)
        digest = store.hashlib.sha256(weights.read_bytes()).hexdigest()
        forge(path, lambda document: document["header"].update(weights_sha256=digest))

    return save


def forged(**values):
    return lambda path: forge(path, lambda document: document["header"].update(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "K2-seeds0,3.json: it holds the run .*K1"),
        (edited, "it was edited"),
        (lambda path: path.with_suffix(".safetensors").write_bytes(b"x"), "checksum"),
        (lambda path: path.with_suffix(".history.csv").write_text("a"), "history that its record"),
        (forged(protocol_hash="0" * 12), "of another protocol or controller than today's"),
        (forged(dataset="moons"), "dataset = 'moons' is unknown"),
        (forged(seeds=[0, 4]), "do not cover exactly its seeds"),
        (forged(train_solver="rk4"), "holds the run"),
        (forged(seeds="0,3"), "seeds of its header = '0,3': it is not whole numbers"),
        (
            other_weights(lambda w: {"field.first.0": w["field.first.0"]}),
            "it has no tensor 'field.first.1'",
        ),
        (other_weights(lambda w: {k: -v for k, v in w.items()}), "samples differ"),
    ],
)
def test_a_run_that_is_not_what_it_says_is_refused(copy, here, tmp_path, change, message):
    refused(packed_after(copy, tmp_path, change), message, here)


@pytest.mark.parametrize("damage", ["cut", "empty", "absent", "link", "zipped", "large"])
def test_a_file_that_is_no_archive_is_refused(monkeypatch, archive, here, tmp_path, damage):
    if damage == "cut":
        archive.write_bytes(archive.read_bytes()[:700])
    elif damage == "empty":
        archive.write_bytes(b"")
    elif damage == "absent":
        archive = tmp_path / "absent.tar"
    elif damage == "link":
        (tmp_path / "link.tar").symlink_to(archive)
        archive = tmp_path / "link.tar"
    elif damage == "zipped":
        with tarfile.open(archive, "w:gz"):
            pass
    else:
        monkeypatch.setattr(archives, "LARGEST", archive.stat().st_size - 1)
    refused(archive, "it is (cut short or no archive|no file of at most)", here)


def test_the_commands_pack_and_take(monkeypatch, there, here, tmp_path):
    monkeypatch.setenv("NODECORE_RESULTS", str(there))
    runner = CliRunner()
    packed = runner.invoke(app, ["study", "pack", str(tmp_path / "packed")])
    assert (packed.exit_code, packed.output) == (0, f"{tmp_path}/packed/records-1.tar\n")
    taken = runner.invoke(app, ["study", "take", packed.output.strip(), "--sample", "1"])
    assert taken.exit_code == 0
    assert taken.output.count(": filed\n") == len(RUNS) - 1
    assert taken.output.count(": filed, verified\n") == 1
    again = runner.invoke(app, ["study", "pack", str(tmp_path / "again")])
    nothing = f"nothing to pack: {there} has no runs that are not in book/results"
    assert (again.exit_code, again.output.strip()) == (1, nothing)
    bad = runner.invoke(app, ["study", "take", str(tmp_path / "absent.tar")])
    assert bad.exit_code == 1
    assert bad.output.startswith("error: ") and "nothing was filed" in bad.output


def test_a_protocol_of_another_time_is_found_by_its_digest(copy, here, tmp_path):
    """The same run, trained for other iterations than the profile has today."""
    run = replace(RUNS[0])

    def change(path):
        document = json.loads(path.read_text())
        protocol = document["header"]["protocol"] | {"iterations": 61}
        digest = archives.store.hashlib.sha256(json.dumps(protocol, sort_keys=True).encode())
        forged(protocol=protocol, protocol_hash=digest.hexdigest()[:12])(path)

    assert run.path(copy).exists()
    refused(packed_after(copy, tmp_path, change), "of another protocol", here)
