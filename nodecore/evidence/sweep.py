"""Train what is missing of whole studies, here or on a cluster."""

import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dask.system import cpu_count

from nodecore.data.datasets import IMAGES
from nodecore.data.files import WriteError
from nodecore.evidence import store
from nodecore.evidence.catalogue import is_retired, turn
from nodecore.evidence.cluster import ClusterError, Workers, workers_here
from nodecore.evidence.found import checkpoint_path, find_done
from nodecore.evidence.obtain import Result, keep, obtain, precision_of
from nodecore.evidence.progress import SweepBar
from nodecore.evidence.runs import Run
from nodecore.evidence.selection import cost, select
from nodecore.ode import kernels
from nodecore.ode.backends import resolve_backend
from nodecore.ode.checks import check_count
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.devices import check_precision, check_precision_name, get_device

if TYPE_CHECKING:  # imported where it is used
    from distributed import Client

POLL = 1.0  # seconds between two looks at the workers, and at the runs that another process trains


class SweepError(RuntimeError):
    """Runs that were not trained, while the others were; the message says why."""


def run_studies(
    names: Sequence[str] = (),
    *,
    only: str | None = None,
    profile: str | None = None,
    root: Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    jobs: int | None = None,
    client: "Client | None" = None,
) -> None:
    """Train what is missing of the studies (all, where none is named): what a study waits for
    before more seeds (see catalogue.turn), one seed after the other, and its longest runs first.

    Each run is written as it ends, and one that is stopped leaves a checkpoint. Other processes on
    the same store meanwhile train other runs. jobs: how many are trained at a time, see count_jobs;
    more than one are trained by workers_here, whose processes import the program's main module
    anew. With a `client` of dask.distributed its workers train, and leave no checkpoints. names,
    only, profile: see select. root: the store (the scratch store). precision: see train; of runs on
    images.

    Before any work, raises ValueError for bad input, WriteError where nothing can be written,
    images.DataError where data is missing. Raises SweepError, after all others, for runs that
    failed beside others.
    """
    if client is not None and jobs is not None:
        raise ValueError(f"jobs = {jobs!r}: a cluster has as many as it has workers; leave it out")
    check_precision_name(precision)
    resolve_backend()  # NODECORE_KERNEL may name none
    jobs = count_jobs(jobs, device) if client is None else None
    missing = find_missing(names, only, profile, root)
    if not missing:
        print("nothing to train: all runs that can be trained are there", file=sys.stderr)
        return
    if client is None:
        for protocol in {run.protocol for run in missing if run.dataset in IMAGES}:
            check_precision(precision, protocol, get_device(device))
            protocol.load()
    missing.sort(key=lambda run: (turn(run), run.seeds[0], -cost(run)))
    with store.reserve(missing[0].path(root), wait=False):
        pass  # a store that cannot be written is told before any work
    jobs = jobs and min(jobs, len(missing))
    with SweepBar(missing) as bar:
        if jobs == 1:
            _train_here(missing, root, device, precision, bar)
            return
        if jobs is not None:
            kernels.status()  # compiled here once, where it is not, and not by all of them
            connecting, device = workers_here(jobs), str(get_device(device))
            folder = root or store.scratch_root()
        else:
            connecting, folder = nullcontext(client), None
        with (
            ExitStack() as reserved,  # until the workers have stopped
            connecting as connected,
            Workers(connected, device, precision, folder) as workers,
        ):
            _train_there(missing, root, workers, reserved, bar)


def count_jobs(jobs: int | None = None, device: str = "auto") -> int:
    """How many runs are trained at a time on this machine: `jobs`, by default one a usable core,
    since a training uses one thread; but one on a GPU. ValueError for what cannot be.
    """
    if jobs is not None:
        jobs = check_count("jobs", jobs)
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
    """Return the runs to train: those that are in no store, or not in `root`, or not tested to the
    end. Runs of retired controllers cannot be trained. names, only, profile: see select.
    """
    runs = (run for run in select(names, only, profile) if not is_retired(run))
    return [run for run in runs if find_done(run, root) is None]


def _train_here(runs, root, device, precision, bar):
    """All of them, one by one in this process, or until another process has."""
    waiting, failed = list(runs), {}
    while waiting:
        left = []
        for run in waiting:
            how = {"device": device, "precision": precision_of(run, precision)}
            try:
                done = obtain(run, root=root, progress=bar.follow(run), wait=False, **how)
            except WriteError:  # the others could not be written, either
                raise
            except Exception as error:
                _drop(run, error, failed, bar)
                continue
            if done is None:
                left.append(run)
            else:
                bar.end(run, here=run in bar.followed)
        if len(left) == len(waiting):
            bar.show("waiting for another process")
            time.sleep(POLL)
        waiting = left
    _tell_failed(failed, len(runs))


def _train_there(runs, root, workers, reserved, bar):
    """The same, on the workers; a run stays in the stack `reserved` while it is in training."""
    waiting, locks, failed = list(runs), {}, {}
    while waiting or workers.n_busy:
        bar.jobs = workers.n
        for run in list(waiting):
            if workers.n_busy >= bar.jobs:
                break
            lock = ExitStack()
            if not lock.enter_context(store.reserve(run.path(root), wait=False)):
                continue
            waiting.remove(run)
            if find_done(run, root) is None:
                locks[run] = reserved.enter_context(lock)
                workers.start(run)
            else:
                lock.close()
                bar.end(run, here=False)
        if workers.n_busy:
            bar.show(f"{workers.n_busy} in training")
        elif waiting:
            bar.show("waiting for another process" if bar.jobs else "waiting for workers")
        for run, news in workers.wait(POLL):
            if isinstance(news, int):
                bar.reach(run, news)
                continue
            if isinstance(news, Result):
                keep(run, news, root)
                Checkpoint(checkpoint_path(run.path(root))).remove()
                bar.end(run)
            else:
                _drop(run, news, failed, bar)
            locks.pop(run).close()
    _tell_failed(failed, len(runs))


def _drop(run, error, failed, bar):
    failed[run] = _why(error)
    bar.drop(run, f"{run.title} failed, the others go on: {failed[run]}")


def _tell_failed(failed, n_runs):
    """Raise SweepError if there are any."""
    if failed:
        reasons = "".join(f"\n{run.title}: {why}" for run, why in failed.items())
        raise SweepError(
            f"{len(failed)} of {n_runs} runs failed; the same command tries them again:{reasons}"
        )


def _why(error):
    if isinstance(error, (ValueError, OSError, ClusterError)):  # whose messages say what to do
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()
