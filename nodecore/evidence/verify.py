"""Count what is in a store, and test whether stored weights still give what is recorded."""

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from nodecore.analysis.evaluate import EXACT, accuracy, exact_flow
from nodecore.data.datasets import IMAGES, load
from nodecore.data.split import Split
from nodecore.evidence import store
from nodecore.evidence.catalogue import STUDIES
from nodecore.evidence.found import Evidence, checkpoint_path, find, find_done
from nodecore.evidence.measure import (
    foremost,
    groups_of,
    last_setting,
    member_values,
    recorded_setting,
    split_name,
    tested_on,
    trained_on,
)
from nodecore.evidence.provenance import testing_here
from nodecore.evidence.retest import missing_tests, stored_training
from nodecore.evidence.selection import evaluations_of, evaluations_under, select
from nodecore.ode import kernels
from nodecore.ode.steps import Setting
from nodecore.training.devices import single_threaded

# --- what there is, and whether it holds ----------------------------------------------------------

ROUNDING = 2  # samples that another machine may place on the other side of a boundary
NOT_COMPARED = (
    "seconds, dates, machines and versions; the iteration of a divergence; evaluations under a "
    "tolerance or a controller; steps that a controller chose since its last check"
)


def status(
    names: Sequence[str] = (), profile: str | None = None, root: Path | None = None
) -> pd.DataFrame:
    """One row for each study and profile: its seeds, runs, and how many of these are in a store
    and tested to the end; damaged files by name.

    ValueError for an unknown study or profile.
    """
    rows = []
    for name in names or STUDIES:
        runs = select([name], profile=profile)
        for each in dict.fromkeys(run.profile for run in runs):
            mine = [run for run in runs if run.profile == each]
            found = [_find_or_error(run, root, find_done) for run in mine]
            damaged = [store.shown(f.path) for f in found if isinstance(f, store.RecordError)]
            rows.append(
                {
                    "study": name,
                    "profile": each,
                    "seeds": len({seed for run in mine for seed in run.seeds}),
                    "runs": len(mine),
                    "done": sum(isinstance(f, Evidence) for f in found),
                    "damaged": ", ".join(damaged),
                }
            )
    return pd.DataFrame(rows)


def _find_or_error(run, root, look=find):
    try:
        return look(run, root)
    except store.RecordError as error:
        return error


def verify(
    names: Sequence[str] = (),
    profile: str | None = None,
    *,
    sample: int | None = None,
    seed: int = 0,
    seconds: float = 60.0,
    root: Path | None = None,
) -> pd.DataFrame:
    """Test stored weights again: a row for each run that is there, or for `sample` of them.

    change: the largest of an accuracy, in samples. allowed: 0 on the machine and with the versions
    that it was trained and tested with, else ROUNDING. tests: how many of the accuracies, those on
    the training data included, were measured again; of a run on images in a sample, the cheapest
    and others drawn that fit into `seconds`. problem: what is wrong with a damaged file, which
    records are missing, and which values are not those of the weights and the history. NOT_COMPARED
    says what these do not tell. seed: of what is drawn. ValueError for an unknown study or profile,
    or no time.
    """
    if not seconds > 0:
        raise ValueError(f"seconds = {seconds!r}: give a time > 0")
    found = [_find_or_error(run, root) for run in select(names, profile=profile)]
    found = [evidence for evidence in found if evidence is not None]
    draw = random.Random(seed)
    if sample is not None and sample < len(found):
        found = draw.sample(found, sample)
    columns = ["run", "change", "allowed", "agrees", "tests", "problem"]
    limit = seconds if sample is not None else math.inf
    rows = [verified(evidence, limit, draw) for evidence in tqdm(found, "runs", leave=False)]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"change": "Int64", "allowed": "Int64", "agrees": bool})


@single_threaded(torch.device("cpu"))  # as in the training
def verified(evidence: Evidence | store.RecordError, seconds: float, draw: random.Random) -> dict:
    """The row of `verify` for one run; on images tested for so many seconds."""
    try:
        if isinstance(evidence, store.RecordError):
            raise evidence
        problem = "; ".join([*_missing(evidence), *_wrong_values(evidence)])
        limit = seconds if evidence.run.dataset in IMAGES else math.inf
        tests = _tests(evidence)
        changes = _changes(evidence, tests, limit, draw)
        change, allowed = max(changes), _allowed(evidence.stored.header)
        return {
            "run": evidence.path,
            "change": change,
            "allowed": allowed,
            "agrees": change <= allowed and not problem,
            "tests": f"{len(changes)} of {len(tests)}",
            "problem": problem and f"{evidence.path}: {problem}",
        }
    except store.RecordError as error:
        return {"run": store.shown(error.path), "agrees": False, "problem": str(error)}


def _allowed(header):
    here = testing_here()
    made = [header, *header.get("tested", [])]  # trained and tested, then tested anew
    first = {"kernel": kernels.FIRST_VERSION if header["backend"] == "fused" else None}
    made = [first | entry for entry in made]
    return 0 if all(was[key] == value for was in made for key, value in here.items()) else ROUNDING


# --- what must be recorded ------------------------------------------------------------------------


def _missing(evidence):
    """Say which records must be there and are not; while a run is tested, only the foremost."""
    run, missing = evidence.run, []
    unfinished = checkpoint_path(evidence.stored.path).exists()
    for _, settings, own in missing_tests(evidence):
        must = foremost(run, own) if unfinished else settings
        missing += [s for s in settings if s in must]
    if missing:
        names = ", ".join(map(str, dict.fromkeys(missing)))
        yield f"records are missing, of {names}; `study test` adds them"


def _wrong_values(evidence):
    """Say which values of each member are not those that the weights and the history tell."""
    run, trained = evidence.run, stored_training(evidence)
    largest_share = float(trained_on(run).class_shares().max())
    trained.diverged_at = torch.where(_finite(evidence), -1, trained.diverged_at.clamp(min=1))
    if run.steps.n_steps is not None:
        trained.nfe_per_iteration[:] = evaluations_under(run.steps)
    if run.cures and run.steps.n_steps is not None:
        trained.nfe_per_iteration[:] = evaluations_of(run)
    for member, seed in enumerate(run.seeds):
        rows = _records_of(evidence, [member])
        [train_accuracy, *_] = rows["train_accuracy"]
        told = member_values(run, trained, member, train_accuracy, largest_share)
        if run.dataset in IMAGES:
            told["test_split"] = split_name(tested_on(run))
        if run.steps.controller is not None:
            told["agreement_gap"] = _agreement_gap(run, rows, last_setting(run, trained, member))
        for key, value in told.items():
            other = [v for v in rows[key] if not _same(v, value)]
            if other:
                yield f"{key} of seed {seed} is {other[0]}, not {value}"


def _finite(evidence):
    """Tell which members' weights are those of a training that did not diverge."""
    weights = [*evidence.field.parameters(), *evidence.head.parameters()]
    flat = torch.cat([parameter.flatten(1) for parameter in weights], 1)
    return flat.isfinite().all(1) & flat.any(1)


def _agreement_gap(run, rows, own):
    """The gap that a member's records give: as trained against the exact flow's stand-in."""
    pairs = zip(_settings_of(run, rows), rows["accuracy"], strict=True)
    accuracies = dict(pairs)
    exact = accuracies.get(exact_flow(run.dataset), accuracies.get(EXACT, math.nan))
    return abs(accuracies.get(own, math.nan) - exact)


def _same(recorded, value):
    if isinstance(value, float):
        return math.isclose(recorded, value, rel_tol=1e-9, abs_tol=1e-12)
    return recorded == value or (value is None and pd.isna(recorded))


# --- accuracies -----------------------------------------------------------------------------------


class _Test(NamedTuple):
    """A column of records that weights are tested for again: on a split, under a setting."""

    setting: Setting
    split: Split
    column: str
    rows: pd.DataFrame

    @property
    def cost(self) -> int:
        """Evaluations of the field, about, on all samples together."""
        return evaluations_under(self.setting) * len(self.split)


def _tests(evidence):
    """All accuracies that the records have, each with its rows."""
    run, records = evidence.run, evidence.records
    test, training = tested_on(run), trained_on(run)
    tests = []
    for _, rows in records.groupby(["test_solver", "test_n_steps", "test_rtol"], dropna=False):
        setting = next(_settings_of(run, rows))
        tests.append(_Test(setting, test, "accuracy", rows))
        on_all = rows.dropna(subset="accuracy_all")
        if len(on_all):
            tests.append(_Test(setting, load(run.dataset, None, None)[1], "accuracy_all", on_all))
    for group, _, own in groups_of(run, stored_training(evidence)):
        tests.append(_Test(own, training, "train_accuracy", _records_of(evidence, group)))
    return sorted(tests, key=lambda each: each.cost)


def _records_of(evidence, members):
    seeds = [evidence.run.seeds[member] for member in members]
    return evidence.records[evidence.records["seed"].isin(seeds)]


def _settings_of(run, rows):
    """The test setting of each row."""
    for solver, n_steps, rtol in zip(
        rows["test_solver"], rows["test_n_steps"], rows["test_rtol"], strict=True
    ):
        how = {"n_steps": int(n_steps)} if pd.notna(n_steps) else {"rtol": rtol}
        yield recorded_setting(run, solver, **how)


def _changes(evidence, tests, seconds, draw):
    """Largest change of an accuracy, in samples, for each test that was made again: the cheapest
    one, then others as they are drawn where they fit into the seconds."""
    run, others = evidence.run, tests[1:]
    draw.shuffle(others)
    changes, cost, used = [], 0, 0.0
    for test in (tests[0], *others):
        if changes and used * (cost + test.cost) / cost > seconds:
            continue
        start = time.perf_counter()
        values = accuracy(evidence.field, evidence.head, test.split, test.setting, run.T)
        cost, used = cost + test.cost, used + time.perf_counter() - start
        members = [run.seeds.index(seed) for seed in test.rows["seed"]]
        change = np.abs(values[members].numpy() - test.rows[test.column].to_numpy()).max()
        changes.append(round(change * len(test.split)))
    return changes
