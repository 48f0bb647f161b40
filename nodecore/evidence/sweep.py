"""Train what is missing of whole studies, here or on a cluster."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from dask.system import cpu_count

from nodecore.data.datasets import IMAGES
from nodecore.evidence import store
from nodecore.evidence.catalogue import turn
from nodecore.evidence.cluster import train_with
from nodecore.evidence.found import find, find_done
from nodecore.evidence.obtain import keep, obtain, precision_of
from nodecore.evidence.processes import Workers
from nodecore.evidence.progress import SweepBar
from nodecore.evidence.runs import Run
from nodecore.evidence.selection import cost, select, title_of
from nodecore.ode import kernels
from nodecore.training.devices import get_device

POLL = 2.0  # seconds between two looks at the runs that another process trains


class SweepError(RuntimeError):
    """Runs that were not trained, while the others were; the message says why."""


# --- training -------------------------------------------------------------------------------------


def run_studies(
    names: Sequence[str] = (),
    *,
    only: str | None = None,
    profile: str | None = None,
    root: Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    jobs: int | None = None,
    client=None,
) -> None:
    """Train what is missing of the studies (all, where none is named): what a study waits for
    before more seeds (see study.turn), and the longest runs first.

    Each run is written as it ends, and one that is stopped leaves a checkpoint. Other processes on
    the same store meanwhile train other runs. jobs: how many are trained at a time, see count_jobs;
    more than one each in a process of its own, which imports the program's main module anew. With
    a `client` of dask.distributed its workers train, and this process writes. names, only, profile:
    see select. root: the store (the scratch store). precision: see train; of runs on images.

    Before any work, raises ValueError for bad input, StoreError where nothing can be written,
    images.DataError where data is missing. Raises SweepError, after all others, for runs that
    failed beside others.
    """
    if client is not None and jobs is not None:
        raise ValueError(f"jobs = {jobs!r}: a cluster has as many as it has workers; leave it out")
    jobs = count_jobs(jobs, device) if client is None else None
    missing = find_missing(names, only, profile, root)
    if not missing:
        print("nothing to train: all runs are there", file=sys.stderr)
        return
    if client is None:
        for protocol in {run.protocol for run in missing if run.dataset in IMAGES}:
            protocol.load()
    missing.sort(key=lambda run: (turn(run), -cost(run)))
    jobs = jobs and min(jobs, len(missing))
    with SweepBar(missing, jobs) as bar:
        if jobs is not None and jobs > 1:
            _train_side_by_side(missing, root, device, precision, jobs, bar)
            return
        while missing:
            if client is None:
                left = _train_here(missing, root, device, precision, bar)
            else:
                left = _train_there(missing, root, device, precision, client, bar)
            if len(left) == len(missing):
                bar.show("waiting for another process")
                time.sleep(POLL)
            missing = left


def count_jobs(jobs: int | None = None, device: str = "auto") -> int:
    """How many runs are trained at a time on this machine: `jobs`, by default one a usable core,
    since a training uses one thread; but one on a GPU. ValueError for what cannot be.
    """
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise ValueError(
            f"jobs = {jobs!r}: give a whole number >= 1, or none for one a usable core"
        )
    if get_device(device).type == "cpu":
        return jobs or cpu_count()
    if jobs not in (None, 1):
        raise ValueError(f"jobs = {jobs}: a GPU trains one run at a time; leave it out")
    return 1


def find_missing(
    names: Sequence[str] = (),
    only: str | None = None,
    profile: str | None = None,
    root: Path | None = None,
) -> list[Run]:
    """The runs that are in no store, or not in `root`, or not tested to the end; see select."""
    return [run for run in select(names, only, profile) if find_done(run, root) is None]


def _train_here(runs, root, device, precision, bar):
    """Those that another process trains."""
    left = []
    for run in runs:
        how = {"device": device, "precision": precision_of(run, precision)}
        if obtain(run, root=root, progress=bar.follow(run), wait=False, **how) is None:
            left.append(run)
        else:
            bar.end(run, here=run in bar.followed)
    return left


def _train_side_by_side(runs, root, device, precision, jobs, bar):
    """All of them, or until another process has; each in a process, `jobs` at a time."""
    how = {"root": root, "device": str(get_device(device)), "precision": precision}
    kernels.status()  # compiled here once, where it is not, and not by all of them
    waiting, failed = list(runs), {}
    with Workers(partial(_train_in_process, **how), jobs) as workers:
        while waiting or workers.n_busy:
            for run in list(waiting):
                if not workers.have_room:
                    break
                if find_done(run, root) is not None:
                    waiting.remove(run)
                    bar.end(run, here=False)
                elif _is_free(run, root):
                    waiting.remove(run)
                    workers.start(run)
            n = workers.n_busy
            bar.show(f"{n} in training" if n else "waiting for another process")
            for event in workers.wait(POLL):
                run = event.item
                if event.kind == "told":
                    bar.reach(run, event.value)
                elif event.kind == "failed":
                    failed[run] = event.value
                    bar.drop(run, f"{title_of(run)} failed, the others go on: {event.value}")
                elif event.value:
                    bar.end(run)
                else:  # by now another process is at it
                    waiting.append(run)
    if failed:
        reasons = "".join(f"\n{title_of(run)}: {why}" for run, why in failed.items())
        raise SweepError(
            f"{len(failed)} of {len(runs)} runs failed; the same command tries them again, from "
            f"their checkpoints:{reasons}"
        )


def _is_free(run, root):
    """Whether no process trains it now."""
    with store.reserve(run.path(root or store.scratch_root()), wait=False) as reserved:
        return reserved


def _train_in_process(run, tell, *, root, device, precision):
    """Whether it is there now; not so where another process is at it."""
    how = {"device": device, "precision": precision_of(run, precision)}
    return obtain(run, root=root, progress=tell, wait=False, **how) is not None


def _train_there(runs, root, device, precision, client, bar):
    """Those that another process trains. All others stay reserved until the last one is done."""
    mine, left = [], []
    with ExitStack() as reserved:
        for run in runs:
            path = run.path(root or store.scratch_root())
            if not reserved.enter_context(store.reserve(path, wait=False)):
                left.append(run)
            elif find(run, root) is None:
                mine.append(run)
            else:
                bar.end(run, here=False)
        bar.show(f"on {len(client.scheduler_info(n_workers=-1)['workers'])} workers")
        for run, result in train_with(client, mine, device, precision):
            keep(run, result, root)
            bar.end(run)
    return left
