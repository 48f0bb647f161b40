"""Stored weights tested anew: the settings that records lack are added, nothing is trained."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from nodecore.analysis.evaluate import EXACT, exact_flow
from nodecore.evidence import store
from nodecore.evidence.fields import key_of
from nodecore.evidence.found import Evidence, find
from nodecore.evidence.measure import groups_of, measure
from nodecore.evidence.provenance import recorded_revision, testing_here
from nodecore.evidence.runs import Run
from nodecore.evidence.selection import select
from nodecore.ode.fields import take_members
from nodecore.ode.steps import Setting
from nodecore.training.devices import single_threaded
from nodecore.training.loop import Trained

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
    names, only, profile: see selection.select. Raises ValueError for bad input, WriteError where
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
        if evidence is None:
            return 0
        origin = recorded_revision()  # of the code that tests, whatever the files are in the end
        added = list(_new_records(evidence))
        if added:
            header = dict(evidence.stored.header)
            header["tested"] = [*header.get("tested", []), _entry(added) | origin]
            store.add_records(evidence.stored, header, added)
    return len(added)


def _new_records(evidence: Evidence) -> Iterator[dict]:
    run, members = evidence.run, _values_of_members(evidence)
    known = {key_of(record) for record in evidence.stored.records}
    for group, missing, own in missing_tests(evidence):
        seeds = [run.seeds[member] for member in group]
        model = [take_members(module, group) for module in (evidence.field, evidence.head)]
        for rows in measure(run, model, missing, own).values():
            records = ({**members[s], **row} for s, row in zip(seeds, rows, strict=True))
            yield from (record for record in records if key_of(record) not in known)


def missing_tests(evidence: Evidence) -> Iterator[tuple[Sequence[int], list[Setting], Setting]]:
    """Members that lack a test, the settings of these, and the setting of their training."""
    run = evidence.run
    known = {key_of(record) for record in evidence.stored.records}
    for group, settings, own in groups_of(run, stored_training(evidence)):
        seeds = [run.seeds[member] for member in group]
        missing = [s for s in settings if not all(_knows(known, run, seed, s) for seed in seeds)]
        if missing:
            yield group, missing, own


def _values_of_members(evidence):
    """Return the values that all records of a member have in common, by seed."""
    common = {}
    for record in evidence.stored.records:
        values = {key: value for key, value in record.items() if key not in TESTED}
        common.setdefault(record["seed"], values)
    return common


def _knows(known, run: Run, seed: int, setting: Setting) -> bool:
    """Tell whether there is a record of a test, or of the finer stand-in for the exact flow."""
    alike = {setting, EXACT} if setting == exact_flow(run.dataset) else {setting}
    return any((seed, s.solver, s.n_steps, s.rtol) in known for s in alike)


def _entry(records):
    """Describe when and on what machine these records were made, for the header."""
    settings = dict.fromkeys(key_of(record)[1:] for record in records)
    return {
        "records": len(records),
        "settings": [f"{solver} {n_steps or rtol}" for solver, n_steps, rtol in settings],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **testing_here(),
    }


def _diverged_at(status):
    return -1 if status == "ok" else int(status.removeprefix("diverged at "))


def stored_training(evidence: Evidence) -> Trained:
    """The training behind a stored run, to be tested anew: what `evaluate_run` needs of it."""
    header = evidence.stored.header
    by_seed = {record["seed"]: record for record in evidence.stored.records}
    members = [by_seed[seed] for seed in evidence.run.seeds]
    history = [] if evidence.history is None else evidence.history.to_dict("records")
    return Trained(
        evidence.field,
        evidence.head,
        evidence.run.protocol,
        list(evidence.run.seeds),
        nfe_per_iteration=torch.tensor(
            [m["nfe_per_iteration"] for m in members], dtype=torch.float64
        ),
        diverged_at=torch.tensor([_diverged_at(m["status"]) for m in members]),
        seconds=header["seconds"],
        backend=header["backend"],
        device="cpu",
        step_size=last_steps(evidence),
        history=[{k: v for k, v in row.items() if pd.notna(v)} for row in history],
    )


def last_steps(evidence: Evidence) -> Tensor | None:
    """The step, or tolerance, that each member's last iteration took, (members,) float64; None
    where no controller was at work.

    If that iteration was a check, the step comes from the history: the one that the check asked for
    was never used. Otherwise it comes from the records.
    """
    run, steps = evidence.run, {}
    if run.steps.controller is None:
        return None
    for record in evidence.stored.records:
        steps[record["seed"]] = (
            record["final_rtol"]
            if run.steps.first_rtol is not None
            else run.T / record["final_n_steps"]
        )
    if evidence.history is not None:
        history = evidence.history
        last: pd.DataFrame = history.loc[history["iteration"] == run.protocol.iterations]
        steps |= last.dropna(subset="step_size").set_index("seed")["step_size"].to_dict()
    return torch.tensor([steps[seed] for seed in run.seeds], dtype=torch.float64)
