"""Count what is in a store, and test whether stored weights still give the stored accuracies."""

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from nodecore.analysis.evaluate import accuracy
from nodecore.data.datasets import IMAGES
from nodecore.evidence import store
from nodecore.evidence.catalogue import STUDIES
from nodecore.evidence.found import Evidence, find
from nodecore.evidence.measure import recorded_setting, tested_on
from nodecore.evidence.provenance import device_name, kernel_version
from nodecore.evidence.selection import USUAL_TEST, select
from nodecore.ode import kernels
from nodecore.ode.backends import resolve_backend
from nodecore.ode.steps import FixedSteps, Setting
from nodecore.ode.tableaus import get_tableau
from nodecore.training.devices import single_threaded

# --- what there is, and whether it holds ----------------------------------------------------------

ROUNDING = 2  # test samples that another machine may place on the other side of a boundary


def status(
    names: Sequence[str] = (), profile: str | None = None, root: Path | None = None
) -> pd.DataFrame:
    """One row for each study and profile: its seeds, runs, and how many of these are in a store;
    damaged files by name.

    ValueError for an unknown study or profile.
    """
    rows = []
    for name in names or STUDIES:
        runs = select([name], profile=profile)
        for each in dict.fromkeys(run.profile for run in runs):
            mine = [run for run in runs if run.profile == each]
            found = [_find_or_error(run, root) for run in mine]
            damaged = [store.shown(f.path) for f in found if isinstance(f, store.RecordError)]
            rows.append(
                {
                    **{"study": name, "profile": each},
                    "seeds": len({seed for run in mine for seed in run.seeds}),
                    "runs": len(mine),
                    "done": sum(isinstance(f, Evidence) for f in found),
                    "damaged": ", ".join(damaged),
                }
            )
    return pd.DataFrame(rows)


def _find_or_error(run, root):
    try:
        return find(run, root)
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

    change: the largest of an accuracy, in test samples. allowed: 0 on the machine and with the
    versions that it was trained and tested with, else ROUNDING. settings: how many of the tests
    were made again; of a run on images in a sample, the cheapest and others drawn that fit into
    `seconds`. problem: what is wrong with a damaged file. seed: of what is drawn. ValueError for an
    unknown study or profile, or no time.
    """
    if not seconds > 0:
        raise ValueError(f"seconds = {seconds!r}: give a time > 0")
    found = [_find_or_error(run, root) for run in select(names, profile=profile)]
    found = [evidence for evidence in found if evidence is not None]
    draw = random.Random(seed)
    if sample is not None and sample < len(found):
        found = draw.sample(found, sample)
    columns = ["run", "change", "allowed", "agrees", "settings", "problem"]
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
        limit = seconds if evidence.run.dataset in IMAGES else math.inf
        changes, settings = _changes(evidence, limit, draw), len(_by_setting(evidence))
        change, allowed = max(changes), _allowed(evidence.stored.header)
        return {
            **{"run": evidence.path, "change": change, "allowed": allowed},
            **{"agrees": change <= allowed, "settings": f"{len(changes)} of {settings}"},
            "problem": "",
        }
    except store.RecordError as error:
        return {"run": store.shown(error.path), "agrees": False, "problem": str(error)}


def _allowed(header):
    here = {
        **{"torch": torch.__version__, "device": device_name("cpu"), "backend": backend_here()},
        "kernel": kernel_version(backend_here()),
    }
    made = [header, *header.get("tested", [])]  # trained and tested, then tested anew
    first = {"kernel": kernels.FIRST_VERSION if header["backend"] == "fused" else None}
    made = [first | entry for entry in made]
    return 0 if all(was[key] == value for was in made for key, value in here.items()) else ROUNDING


def backend_here() -> str:
    """The backend that solves here where none is named."""
    fused = resolve_backend() != "torch" and kernels.status().available
    return "fused" if fused else "torch"


def _changes(evidence, seconds, draw):
    """Largest change of an accuracy, in samples of the test, for each setting that was tested
    again: the cheapest one, then others as they are drawn where they fit into the seconds."""
    run, test = evidence.run, tested_on(evidence.run)
    tests = [(_setting_of(run, *key), rows) for key, rows in _by_setting(evidence)]
    tests.sort(key=lambda pair: evaluations_under(pair[0]))
    others = tests[1:]
    draw.shuffle(others)
    changes, cost, used = [], 0, 0.0
    for setting, rows in (tests[0], *others):
        more = evaluations_under(setting)
        if changes and used * (cost + more) / cost > seconds:
            continue
        start = time.perf_counter()
        values = accuracy(evidence.field, evidence.head, test, setting, run.T)
        cost, used = cost + more, used + time.perf_counter() - start
        members = [run.seeds.index(seed) for seed in rows["seed"]]
        change = np.abs(values[members].numpy() - rows["accuracy"].to_numpy()).max()
        changes.append(round(change * len(test)))
    return changes


def _by_setting(evidence):
    """The records of each test setting."""
    return evidence.records.groupby(["test_solver", "test_n_steps", "test_rtol"], dropna=False)


def _setting_of(run, solver, n_steps, rtol):
    fixed = pd.notna(n_steps)
    how = {"n_steps": int(n_steps)} if fixed else {"rtol": rtol}
    return recorded_setting(run, solver, **how)


def evaluations_under(setting: Setting) -> int:
    """Count the evaluations of the field under a test setting, about."""
    if not isinstance(setting, FixedSteps):
        return USUAL_TEST
    return setting.n_steps * get_tableau(setting.solver).n_solution_stages
