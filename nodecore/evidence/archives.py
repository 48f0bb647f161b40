"""Finished runs on their way from another machine: packed there, checked and filed here."""

import random
import re
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from nodecore.data import files
from nodecore.evidence import store
from nodecore.evidence.found import Evidence, find
from nodecore.evidence.retest import missing_tests
from nodecore.evidence.runs import run_of
from nodecore.evidence.store import RecordError
from nodecore.evidence.verify import verified

LARGEST = 15 * 2**20  # bytes of an archive
MOST = 7  # archives
SUFFIXES = (".json", ".safetensors", ".history.csv")
PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,-]*")  # of a name in an archive
BLOCK, RECORD = 512, 10240  # a tar's unit, and what its length is a multiple of


class ArchiveError(ValueError):
    """An archive that `pack` did not make, or whose contents fail a check; nothing was filed."""

    def __init__(self, archive: Path, why: str):
        super().__init__(f"{archive}: {why}; nothing was filed")


# --- packing --------------------------------------------------------------------------------------


def pack(folder: Path, root: Path | None = None) -> tuple[list[Path], list[str]]:
    """Pack the runs below `root` (the scratch store) that are not committed, in an empty folder.

    Writes at most MOST archives of at most LARGEST bytes each; a run's files stay together. Runs
    that `take` would refuse are left out. Returns the archives, and the reason for each run that
    was left out. ValueError for a folder with files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder = {folder}: it exists and is not empty; give a new one")
    root, loads, left = root or store.scratch_root(), [], []
    for path in sorted(root.glob("*/*/*.json")):
        try:
            [stored] = _whole(path, root).stored.parts
        except RecordError as error:  # it names its file
            left.append(str(error))
            continue
        except ValueError as error:
            left.append(f"{store.shown(path)}: {error}")
            continue
        if _is_committed(path):
            continue
        size = sum(BLOCK - (-f.stat().st_size // BLOCK) * BLOCK for f in stored.files)
        load = next((load for load in loads if load.size + size <= LARGEST), None)
        if load is None:
            if size + RECORD > LARGEST or len(loads) == MOST:
                left.append(f"{store.shown(path)}: no room for its {size / 2**20:.1f} MiB")
                continue
            loads.append(load := _Load())
        load.files += stored.files
        load.size += size
    folder.mkdir(parents=True, exist_ok=True)
    return [load.write(folder / f"records-{n}.tar") for n, load in enumerate(loads, 1)], left


def _is_committed(path):
    copy = store.COMMITTED / Path(*path.parts[-3:])
    return copy.exists() and copy.read_bytes() == path.read_bytes()


@dataclass
class _Load:
    """Files that go into one archive. size: of all of it, in bytes."""

    files: list[Path] = field(default_factory=list)
    size: int = RECORD

    def write(self, path: Path) -> Path:
        buffer = BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for file in self.files:
                data = file.read_bytes()
                entry = tarfile.TarInfo("/".join(file.parts[-3:]))  # study/profile/file
                entry.size = len(data)
                archive.addfile(entry, BytesIO(data))
        files.write_atomically(path, buffer.getvalue())
        return path


# --- filing ---------------------------------------------------------------------------------------


def take(
    archives: Sequence[Path], *, sample: int = 2, seed: int = 0, seconds: float = 60.0
) -> dict[str, str]:
    """File the runs in archives in the committed store; what became of each, by name.

    Names, digests and protocols are checked, and the weights of `sample` runs, drawn by `seed`, are
    tested again, on images for so many seconds each. Nothing is filed unless all of it holds. A run
    that is there already stays, unless it is damaged, of another protocol than today's, or was
    tested under fewer settings.

    Raises ArchiveError.
    """
    root = store.committed_root()
    with tempfile.TemporaryDirectory() as staging:
        came_in = _unpack(archives, Path(staging))
        evidence = {path: _checked(path, Path(staging), came_in[path]) for path in came_in}
        new = [path for path in evidence if not _stays(evidence[path], root)]
        draw = random.Random(seed)
        drawn = draw.sample(sorted(new), min(sample, len(new)))
        for path in drawn:
            row = verified(evidence[path], seconds, draw)
            if not row["agrees"]:
                why = row["problem"] or f"{row['change']} samples differ, {row['allowed']} may"
                raise ArchiveError(came_in[path], f"{title_of(evidence[path])}: {why}")
        told = {}
        for path in evidence:
            filed = path in new and _file(path, evidence[path], root)
            verdict = "filed, verified" if path in drawn else "filed"
            told[title_of(evidence[path])] = verdict if filed else "there already, kept"
    return told


def title_of(evidence: Evidence) -> str:
    return f"{evidence.run.study}/{evidence.run.profile}/{evidence.run.name}"


def _unpack(archives, staging):
    """The JSON files below `staging`, and the archive that each came in."""
    came_in = {}
    for archive in archives:
        if archive.is_symlink() or not archive.is_file() or archive.stat().st_size > LARGEST:
            raise ArchiveError(archive, f"it is no file of at most {LARGEST / 2**20:.0f} MiB")
        try:
            with tarfile.open(archive, "r:") as opened:
                for entry in opened:
                    _write(_place(entry, archive, staging), opened.extractfile(entry), archive)
        except (tarfile.TarError, EOFError) as error:
            raise ArchiveError(archive, f"it is cut short or no archive ({error})") from error
        for path in staging.glob("*/*/*.json"):
            came_in.setdefault(path, archive)
        for path in staging.glob("*/*/*"):
            if _stem(path) not in came_in:
                name = path.relative_to(staging)
                raise ArchiveError(archive, f"{name} is no part of a run that is in it")
    return came_in


def _place(entry, archive, staging):
    """Return where an entry goes; raise ArchiveError for one that `pack` would not put in."""
    parts = entry.name.split("/")
    if not entry.isreg() or entry.issparse():  # a sparse one may unpack to any size
        raise ArchiveError(archive, f"{entry.name!r} is a link or no regular file")
    if len(parts) != 3 or not all(PART.fullmatch(part) for part in parts):
        raise ArchiveError(archive, f"{entry.name!r} is no name of the store: study/profile/file")
    if not parts[-1].endswith(SUFFIXES):
        raise ArchiveError(archive, f"{entry.name!r} is none of {', '.join(SUFFIXES)}")
    return staging.joinpath(*parts)


def _write(path, file, archive):
    if path.exists():
        raise ArchiveError(archive, f"{'/'.join(path.parts[-3:])} comes twice")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.read())


def _stem(path):
    """The JSON file of the run that a file belongs to."""
    suffix = next(s for s in SUFFIXES if path.name.endswith(s))
    return path.with_name(path.name.removesuffix(suffix) + ".json")


def _checked(path, staging, archive):
    """The evidence in a file that came in; raise ArchiveError for what is not whole."""
    try:
        evidence = _whole(path, staging)
        history = path.with_suffix(".history.csv")
        if history.exists() and "history_sha256" not in evidence.stored.header:
            raise ValueError("it has a history that its record does not name")
    except ValueError as error:
        raise ArchiveError(archive, f"{path.relative_to(staging)}: {error}") from error
    return evidence


def _whole(path, root):
    """The evidence in a file below `root`, if it is of the run that the file's name says, under
    today's protocol, and tested under all settings; else ValueError."""
    try:
        run = run_of(store.load_run(path).header)
        if run.path(root) != path:
            raise ValueError(f"it holds the run {run.path(Path())}")
        evidence = find(run, root)
        if evidence is None:
            raise ValueError("it is of another protocol or controller than today's")
        if any(missing_tests(evidence)):  # which loads the weights: other names or shapes raise
            raise ValueError("it lacks tests; where it was trained, `study test` adds them")
    except RecordError:
        raise
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    return evidence


def _stays(evidence, root):
    """Tell whether the store has the run whole, under today's protocol, with as many tests."""
    try:
        there = find(evidence.run, root)
        if there is None:
            return False
        there.stored.weights()
    except RecordError:
        return False
    return len(there.stored.records) >= len(evidence.stored.records)


def _file(source, evidence, root):
    """Copy a run's files, the JSON last, because it makes the run count. Return False if another
    process has stored the run in the meantime."""
    target = evidence.run.path(root)
    with store.reserve(target, wait=True):
        if _stays(evidence, root):
            return False
        for suffix in reversed(SUFFIXES):
            if source.with_suffix(suffix).exists():
                data = source.with_suffix(suffix).read_bytes()
                files.write_atomically(target.with_suffix(suffix), data)
    return True
