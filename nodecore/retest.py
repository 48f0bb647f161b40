"""Stored weights tested anew: the settings that records lack are added, nothing is trained."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from tqdm import tqdm

from nodecore import store
from nodecore.evaluate import EXACT, TestSetting, exact_flow
from nodecore.study import (
    Evidence,
    Run,
    device_name,
    find,
    groups_of,
    kernel_version,
    measure,
    revision,
    stored_training,
)
from nodecore.sweep import backend_here, select
from nodecore.train import single_threaded
from nodecore.vector_fields import take_members

TESTED = ("test_solver", "test_n_steps", "test_rtol", "accuracy")
TESTED += ("test_split", "accuracy_all", "test_split_all")


def complete_studies(
    names: Sequence[str] = (),
    *,
    only: str | None = None,
    profile: str | None = None,
    root: Path | None = None,
) -> int:
    """Test the stored runs of the studies (all, where none is named) in `root` (the scratch store)
    under the settings that their records lack; how many records there are more of.

    Each run is written as soon as it is tested; one that another process is at is left to it.
    names, only, profile: see sweep.select. Raises ValueError for bad input, store.StoreError where
    nothing can be written, store.RecordError for a damaged file.
    """
    root = root or store.scratch_root()
    runs = [run for run in select(names, only, profile) if run.path(root).exists()]
    return sum(complete(run, root) for run in tqdm(runs, "runs tested"))


@single_threaded(torch.device("cpu"))  # as tests after a training
def complete(run: Run, root: Path) -> int:
    """Test one run that lies in `root` under what its records lack; how many were added."""
    with store.reserve(run.path(root), wait=False) as reserved:
        evidence = find(run, root) if reserved else None
        added = list(_new_records(evidence)) if evidence is not None else []
        if added:
            header = dict(evidence.stored.header)
            header["tested"] = [*header.get("tested", []), _entry(added)]
            store.add_records(evidence.stored, header, added)
    return len(added)


def _new_records(evidence: Evidence) -> Iterator[dict]:
    run, members = evidence.run, _values_of_members(evidence)
    known = {(record["seed"], _setting(record)) for record in evidence.stored.records}
    for group, settings, own in groups_of(run, stored_training(evidence)):
        seeds = [run.seeds[member] for member in group]
        missing = [s for s in settings if not all(_knows(known, run, seed, s) for seed in seeds)]
        if not missing:
            continue
        model = [take_members(module, group) for module in (evidence.field, evidence.head)]
        for rows in measure(run, model, missing, own).values():
            for seed, row in zip(seeds, rows, strict=True):
                yield {**members[seed], **row}


def _values_of_members(evidence):
    """What all records of a member have in common, by seed."""
    common = {}
    for record in evidence.stored.records:
        values = {key: value for key, value in record.items() if key not in TESTED}
        common.setdefault(record["seed"], values)
    return common


def _setting(record):
    return record["test_solver"], record["test_n_steps"], record["test_rtol"]


def _knows(known, run: Run, seed: int, setting: TestSetting) -> bool:
    """Whether there is a record of it, or of the finer stand-in for the exact flow."""
    alike = {setting, EXACT} if setting == exact_flow(run.dataset) else {setting}
    return any((seed, (s.solver, s.n_steps, s.rtol)) in known for s in alike)


def _entry(records):
    """When and by what these records were made, for the header."""
    settings = dict.fromkeys(map(_setting, records))
    return {
        "records": len(records),
        "settings": [f"{solver} {n_steps or rtol}" for solver, n_steps, rtol in settings],
        "revision": revision(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name("cpu"),
        "torch": torch.__version__,
        "backend": backend_here(),
        "kernel": kernel_version(backend_here()),
    }
