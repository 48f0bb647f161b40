"""Evidence on disk: one JSON and one safetensors file for each run, written whole or not at all.

    <root>/<study>/<profile>/<run>.json         what was run, and a record for each seed and test
    <root>/<study>/<profile>/<run>.safetensors  the weights
    <root>/<study>/<profile>/<run>.history.csv  what was followed over the iterations, where it was

Nothing read here is executed. A file that was cut short, edited or put there by something else is
refused by name. Hidden beside a run lie its lock and, while it is trained, its checkpoint.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from nodecore.data.files import PROJECT, WriteError, write_atomically
from nodecore.evidence.fields import problems

FORMAT = "nodecore-run-1"
COMMITTED = PROJECT / "book" / "results"
IN_PROJECT = (PROJECT / "_toc.yml").exists()  # not where the package is installed by itself

# Every row of a frame of records has all of these, NaN or None where one does not apply.
COLUMNS = [
    *("study", "dataset", "profile", "train_solver", "n_steps", "rtol"),
    *("controller", "first_rtol", "start", "cures", "changes"),
    *("seed", "test_solver", "test_n_steps", "test_rtol"),
    *("accuracy", "train_accuracy", "trained", "status"),
    # Of image sets: which test images `accuracy` is about; and beside it that on all of them.
    *("test_split", "accuracy_all", "test_split_all"),
    *("nfe_per_iteration", "seconds", "backend", "device", "protocol_hash", "revision"),
    *("reversals", "spread", "failed_checks", "final_n_steps", "final_rtol", "agreement_gap"),
]


ROOM = 16 * 2**20  # bytes that must be free before a run is trained; most runs need far less
ELSEWHERE = ", or have results written elsewhere (NODECORE_RESULTS)"


RUN_AGAIN = "delete it and its companions, and run the study again"


class RecordError(ValueError):
    """A file of the store that is not what was written there; the message names it."""

    def __init__(self, path: Path, why: str, remedy: str = RUN_AGAIN):
        super().__init__(f"{path}: {why}; {remedy}")
        self.path = path


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies in the store.

    header: values common to all records. records: a mapping for each seed and test setting.
    path: of the JSON file. history: a frame, or None.
    """

    header: Mapping
    records: Sequence[Mapping]
    path: Path
    history: pd.DataFrame | None = field(default=None, compare=False)

    @property
    def parts(self) -> tuple["StoredRun", ...]:
        """The stored runs behind it: itself."""
        return (self,)

    @property
    def paths(self) -> list[Path]:
        """The JSON files behind it."""
        return [self.path]

    @property
    def files(self) -> list[Path]:
        """All files of the run: its records, its weights, and its history where it has one."""
        files = [self.path, self.path.with_suffix(".safetensors")]
        return files + [_history_path(self.path)] * ("history_sha256" in self.header)

    def frame(self) -> pd.DataFrame:
        """The records with the header's values, all of COLUMNS."""
        common = {key: self.header[key] for key in COLUMNS if key in self.header}
        if "start" not in common and self.header.get("controller") and not common.get("first_rtol"):
            common["start"] = "euclidean"  # there was no other when it was written
        rows = [{**common, **record} for record in self.records]
        return pd.DataFrame(rows, columns=COLUMNS)

    def weights(self) -> dict[str, Tensor]:
        """The tensors by name. Raises RecordError if the file is not the one recorded."""
        path = self.path.with_suffix(".safetensors")
        _check_digest(path, _read(path), self.header["weights_sha256"])
        try:
            return load_file(path)
        except SafetensorError as error:
            raise RecordError(path, f"it is no safetensors file ({error})") from error


@dataclass(frozen=True)
class JoinedRuns:
    """Runs of one training with different seeds, as one run: what StoredRun has, of all of them.

    header: the first run's. Tensors that are no member's, such as `flipped.*`, come from the first
    run that has them; a mark that a run lacks is filled with zeros.
    """

    parts: tuple[StoredRun, ...]

    @property
    def header(self) -> Mapping:
        return self.parts[0].header

    @property
    def records(self) -> list[Mapping]:
        return [record for part in self.parts for record in part.records]

    @property
    def history(self) -> pd.DataFrame | None:
        """All histories below one another; None if there is none."""
        histories = [part.history for part in self.parts if part.history is not None]
        return pd.concat(histories, ignore_index=True) if histories else None

    @property
    def paths(self) -> list[Path]:
        return [part.path for part in self.parts]

    def frame(self) -> pd.DataFrame:
        return pd.concat([part.frame() for part in self.parts], ignore_index=True)

    def weights(self) -> dict[str, Tensor]:
        """The members' tensors stacked in the order of their seeds. Raises RecordError."""
        seeds = [part.header["seeds"] for part in self.parts]
        order = torch.tensor([seed for own in seeds for seed in own]).argsort()
        every, sizes = [part.weights() for part in self.parts], [len(own) for own in seeds]
        joined = {}
        for name in dict.fromkeys(name for weights in every for name in weights):
            there = next(weights[name] for weights in every if name in weights)
            if name.startswith("flipped."):
                joined[name] = there
                continue
            stacked = [
                weights.get(name, there.new_zeros(n, *there.shape[1:]))
                for weights, n in zip(every, sizes, strict=True)
            ]
            joined[name] = torch.cat(stacked)[order]
        return joined


def shown(path: Path) -> str:
    """A path as text, from the project's root where it lies in the project."""
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path)


def scratch_root() -> Path:
    """Return where new results go: NODECORE_RESULTS, or _build/results in the project. Where the
    package is installed by itself, there is no project, and they go below the working folder."""
    project = PROJECT if IN_PROJECT else Path.cwd()
    return Path(os.environ.get("NODECORE_RESULTS") or project / "_build" / "results")


def committed_root() -> Path:
    """Return where committed evidence lies; ValueError where nodecore has no project around it."""
    if not IN_PROJECT:
        raise ValueError(
            f"{COMMITTED}: nodecore is installed by itself there, with no project around it; clone "
            "the project and run this in its folder, with nodecore from there (pip install -e .)"
        )
    return COMMITTED


def save_run(
    path: Path,
    header: Mapping,
    records: Sequence[Mapping],
    weights: Mapping[str, Tensor],
    history: Sequence[Mapping] = (),
) -> StoredRun:
    """Write a run to `path` (.json) and its companions; the JSON comes last and makes it count.

    Before anything is written, ValueError for a header or records that load_run would refuse.
    """
    blob = save({name: tensor.contiguous().cpu() for name, tensor in weights.items()})
    header = {**header, "format": FORMAT, "weights_sha256": hashlib.sha256(blob).hexdigest()}
    companions = {path.with_suffix(".safetensors"): blob}
    if history:
        table = pd.DataFrame(history).to_csv(index=False).encode()
        header["history_sha256"] = hashlib.sha256(table).hexdigest()
        companions[_history_path(path)] = table
    document = _checked(header, records)
    path.parent.mkdir(parents=True, exist_ok=True)
    for companion, content in companions.items():
        write_atomically(companion, content)
    write_atomically(path, document)
    return load_run(path)


def add_records(
    stored: StoredRun | JoinedRuns, header: Mapping, records: Sequence[Mapping]
) -> StoredRun:
    """Write records below those of a stored run, which stay as they are, with another header.

    ValueError, the run unchanged, for what load_run would refuse.
    """
    [path] = stored.paths  # several runs that were joined are no file
    write_atomically(path, _checked(header, [*stored.records, *records]))
    return load_run(path)


def _checked(header, records):
    """The content of a run's file."""
    document = {"header": dict(header), "records": list(records)}
    document["sha256"] = _digest(document)
    text = _dump(document)
    read = json.loads(text)
    for problem in problems(read["header"], read["records"]):
        raise ValueError(f"a run cannot be stored: {problem}")
    return (text + "\n").encode()


def load_run(path: Path) -> StoredRun:
    """Read and check a run. Raises RecordError naming a truncated, edited or foreign file."""
    content = _read(path)
    try:
        document = json.loads(content)
        stated = document.pop("sha256", None) if isinstance(document, dict) else None
        digest = _digest(document)
    except (ValueError, RecursionError) as error:
        raise RecordError(path, f"it is truncated or no JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("header"), dict):
        raise RecordError(path, "it is no record of a run")
    if document["header"].get("format") != FORMAT:
        raise RecordError(
            path, f"its format is {document['header'].get('format')!r}, not {FORMAT!r}"
        )
    if stated != digest:
        raise RecordError(path, "its contents do not match its checksum: it was edited")
    header, records = document["header"], document.get("records", [])
    for problem in problems(header, records):
        raise RecordError(path, problem)
    if not path.with_suffix(".safetensors").exists():
        raise RecordError(path, "its weights, the .safetensors beside it, are missing")
    history = _read_history(path, header) if "history_sha256" in header else None
    return StoredRun(header, records, path, history)


def _read_history(path, header):
    table = _history_path(path)
    data = _read(table)
    _check_digest(table, data, header["history_sha256"])
    try:
        history = pd.read_csv(BytesIO(data))
    except ValueError as error:
        raise RecordError(table, f"it is no table ({error})") from error
    for name in ("iteration", "seed"):
        if name not in history:
            raise RecordError(table, f"it has no column {name!r}")
    for name in history.columns.drop("mark", errors="ignore"):
        if any(isinstance(value, str) for value in history[name]):
            raise RecordError(table, f"its column {name!r} holds text instead of numbers")
    return history


@contextmanager
def reserve(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Keep other processes from training the run at `path`; yields whether that is possible.

    Where another one is at it, waits for its end, or yields False at once where `wait` is False.
    The lock is the operating system's: a process that is killed lets go of it. Raises WriteError
    where a run could not be written in the end: its folder is read-only or full.
    """
    _check_writable(path.parent)
    lock = FileLock(hidden(path, "lock"), fallback_to_soft=False)
    try:
        held = lock.acquire(timeout=-1 if wait else 0, poll_interval=0.5)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise WriteError(path.parent, error.strerror, ELSEWHERE) from error
    with held:
        for left_by_a_kill in path.parent.glob(f".{path.stem}.*.tmp"):
            left_by_a_kill.unlink()
        yield True


def hidden(path: Path, what: str) -> Path:
    """A file beside the run at `path` that is no part of its evidence, such as its lock."""
    return path.with_name(f".{path.stem}.{what}")


def _check_writable(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        with TemporaryFile(dir=folder):  # a lock that lies there tells nothing
            pass
    except OSError as error:
        raise WriteError(folder, error.strerror, ELSEWHERE) from error
    if free < ROOM:
        why = f"{free / 2**20:.1f} MiB are free, {ROOM / 2**20:.0f} are needed"
        raise WriteError(folder, why, ELSEWHERE)


def _history_path(path):
    return path.with_suffix(".history.csv")


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = RUN_AGAIN if isinstance(error, FileNotFoundError) else "make it a readable file"
        raise RecordError(path, f"it cannot be read ({error.strerror})", remedy) from error


def _check_digest(path, data, expected):
    if hashlib.sha256(data).hexdigest() != expected:
        raise RecordError(path, "its contents do not match the checksum in its record")


def _digest(document):
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _dump(document):
    """JSON with one record a line: small differences between two versions stay small."""
    head = json.dumps(document["header"], indent=1, sort_keys=True)
    rows = ",\n".join(json.dumps(record, sort_keys=True) for record in document["records"])
    digest = json.dumps(document["sha256"])
    return f'{{"header": {head},\n"records": [\n{rows}\n],\n"sha256": {digest}}}'
