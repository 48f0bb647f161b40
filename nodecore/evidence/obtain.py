"""The evidence of a run: found in a store, or trained and kept."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodecore.data.datasets import IMAGES
from nodecore.evidence import store
from nodecore.evidence.found import Evidence, checkpoint_path, find_done
from nodecore.evidence.measure import evaluate_run, flipped
from nodecore.evidence.provenance import device_name, kernel_version, recorded_revision
from nodecore.evidence.runs import Run
from nodecore.training.adapted import Adapted, columns_of
from nodecore.training.changes import name_changes
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.cures import name_cures
from nodecore.training.deadline import Deadline
from nodecore.training.devices import get_device, single_threaded
from nodecore.training.loop import Progress, train


def obtain(
    run: Run,
    *,
    device: str = "auto",
    precision: str = "float32",
    root: Path | None = None,
    progress: Progress = True,
    wait: bool = True,
    deadline: Deadline | None = None,
) -> Evidence | None:
    """The evidence of a run: found, or trained now and written to `root` (the scratch store).

    A training that was stopped goes on from its last checkpoint, at most a minute before. Where
    another process is at it, waits for that one, or gives None where `wait` is False. Tests of
    image models are dear: what the foremost ones say is written before the others. With a deadline,
    raises TimeUp when it has come, and leaves a checkpoint. Raises WriteError where nothing
    can be written.
    """
    found = find_done(run, root)
    if found is not None:
        return found
    path = run.path(root)
    with store.reserve(path, wait=wait) as reserved:
        if not reserved:
            return None
        found = find_done(run, root)  # by now another process may have written it
        if found is not None:
            return found
        checkpoint = Checkpoint(checkpoint_path(path), deadline=deadline)
        how = {"device": device, "precision": precision, "progress": progress}
        how |= {"check": deadline.check} if deadline is not None else {}
        how |= {"write_first": partial(keep, run, root=root)} if run.dataset in IMAGES else {}
        result = train_run(run, checkpoint=checkpoint, **how)
        evidence = keep(run, result, root)
        checkpoint.remove()
        return evidence


def precision_of(run: Run, precision: str) -> str:
    """Return the precision of a run's training: the one asked for on images, else float32."""
    return precision if run.dataset in IMAGES else "float32"


@dataclass(frozen=True)
class Result:
    """Outcome of a training, as plain data; see store.save_run."""

    header: dict
    records: list[dict]
    weights: dict[str, Tensor]
    history: list[dict]


def train_run(
    run: Run,
    *,
    device: str = "auto",
    write_first: Callable[[Result], object] | None = None,
    check: Callable[[], None] = lambda: None,
    **options: Any,
) -> Result:
    """Train a run and test it, on this machine; writes to no store. `options`: those of train.

    On a CPU with one thread, the tests too: records are then the same wherever a run is trained.
    write_first: called with what is there after the foremost tests. check: called again and again
    in the tests; may raise, to stop.
    """
    origin = recorded_revision()  # of the code that trains, whatever the files are in the end
    with single_threaded(get_device(device)):
        trained = train(
            run.protocol, run.steps, run.seeds, device=device, cures=run.cures, **options
        )
        weights = {f"field.{k}": v for k, v in trained.field.state_dict().items()}
        weights |= {f"head.{k}": v for k, v in trained.head.state_dict().items()}
        for mark, kept in trained.marks.items():
            weights |= {f"{mark}.{k}": v for k, v in kept.items()}
        weights |= flipped(run, trained) if run.dataset in IMAGES else {}
        weights = {name: value.cpu() for name, value in weights.items()}
        known = {}
        if write_first is not None:
            records = evaluate_run(run, trained, known, check, foremost_only=True)
            write_first(Result(_header(run, trained, origin), records, weights, trained.history))
        records = evaluate_run(run, trained, known, check)
        return Result(_header(run, trained, origin), records, weights, trained.history)


def keep(run: Run, result: Result, root: Path | None = None) -> Evidence:
    """Write what was trained to `root` (the scratch store)."""
    stored = store.save_run(
        run.path(root), result.header, result.records, result.weights, result.history
    )
    return Evidence(run, stored)


def _header(run, trained, origin):
    constants = run.steps.constants if isinstance(run.steps, Adapted) else {}
    return {
        "study": run.study,
        "dataset": run.dataset,
        "profile": run.profile,
        **columns_of(run.steps),
        **({"cures": name_cures(run.cures)} if run.cures else {}),
        **({"changes": name_changes(run.changes)} if run.changes else {}),
        "start_constants": constants.get("start"),
        "controller_constants": constants.get("controller"),
        "seeds": list(run.seeds),
        "protocol": run.protocol.values,
        "protocol_hash": run.digest,
        "seconds": round(trained.seconds, 2),
        "backend": trained.backend,
        "kernel": kernel_version(trained.backend),
        "precision": trained.precision,
        "execution": trained.execution,
        "device": device_name(trained.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **origin,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
