"""Training runs on the workers of dask.distributed: processes of this machine, or a cluster.

dask.distributed is imported where it is used.
"""

import hashlib
import logging
import math
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from uuid import uuid4

from nodecore.data.datasets import IMAGES
from nodecore.data.files import PROJECT
from nodecore.evidence.found import checkpoint_path
from nodecore.evidence.obtain import Result, keep, precision_of, train_run
from nodecore.evidence.runs import Run
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.deadline import Deadline

TOPIC = "nodecore-iterations"  # under which the workers tell how far they are
TELLING = 0.5  # seconds between two words about a run


class ClusterError(RuntimeError):
    """What keeps a cluster from training; the message says what to do."""


class OtherSources(ClusterError):
    """A worker whose nodecore would train or test otherwise."""


def _sources_digest():
    """Twelve hexadecimal digits that change with the sources that a result depends on."""
    package = PROJECT / "nodecore"
    names = ("catalogue", "measure", "obtain", "provenance", "runs")
    paths = [package / "evidence" / f"{name}.py" for name in names]
    paths.append(package / "analysis" / "evaluate.py")
    for folder in ("ode", "data", "training"):
        paths += (path for s in ("py", "cpp", "h") for path in (package / folder).rglob(f"*.{s}"))
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


SOURCES = _sources_digest()  # as they are imported: what is edited later is not at work


# --- where the workers are ------------------------------------------------------------------------


@contextmanager
def connect(address: str) -> Iterator:
    """A client of the scheduler at `address`, such as tcp://host:8786. ClusterError if none is."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError("a cluster needs dask: pip install distributed") from error
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"scheduler = {address!r}: no scheduler answers there ({error}); start one with "
            "`dask scheduler` and give the address that it prints"
        ) from error
    # They would print tracebacks where the scheduler ends, which Workers tells in words.
    for name in ("client", "batched"):
        logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)
    with client:
        yield client


# A computer that slept has missed heartbeats, and nobody reads the profiles.
SETTINGS = {"distributed.scheduler.worker-ttl": None, "distributed.worker.profile.enabled": False}


@contextmanager
def workers_here(n: int) -> Iterator:
    """A client of `n` processes on this machine, of which each trains one run at a time.

    One that dies fails its run only, and is replaced. The terminal's Ctrl-C does not reach them.
    They end with this process, however it ends; where the context is left, with a checkpoint.
    """
    import dask.config
    from distributed import Client, LocalCluster

    # A connection that closes while all stop is no news; silence_logs ends with the cluster.
    logging.getLogger("distributed.batched").setLevel(logging.WARNING)
    resource_tracker.ensure_running()  # it unblocks Ctrl-C in the thread that first needs it
    # Threads and processes inherit what is blocked, also those that replace others later.
    blocked = partial(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGINT})
    before = blocked()
    try:
        with (
            dask.config.set(SETTINGS),
            LocalCluster(
                n_workers=n,
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address=None,  # pyright: ignore[reportArgumentType] None is documented
                silence_logs=logging.CRITICAL,
                # Without a dashboard it still serves a page; several studies need several ports.
                scheduler_kwargs={"allowed_failures": 0, "dashboard_address": "127.0.0.1:0"},
            ) as cluster,
            Client(cluster) as client,
        ):
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            try:
                yield client
            finally:
                blocked()  # a second Ctrl-C waits until all have left their checkpoints
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- their work -----------------------------------------------------------------------------------


class Workers:
    """The workers of a client, which train what `start` gives them.

    root: the store, where they share this machine and leave checkpoints there; else None. Whoever
    leaves the context has them stop.
    """

    def __init__(self, client, device: str, precision: str, root: Path | None):
        self.client, self.device, self.precision, self.root = client, device, precision, root
        self.futures, self.events, self.sources = {}, deque(), SOURCES

    def __enter__(self) -> "Workers":
        self.client.subscribe_topic(TOPIC, self.events.append)
        return self

    def __exit__(self, _, error: BaseException | None, __) -> None:
        if self.client.status != "running":
            raise self._scheduler_lost() from error
        self.client.unsubscribe_topic(TOPIC)
        self.client.cancel(list(self.futures.values()))

    def _scheduler_lost(self):
        return ClusterError(
            "the scheduler has ended or cannot be reached any more. What is finished is stored; "
            "the runs in training are lost, since workers elsewhere leave no checkpoints. Start a "
            "scheduler and workers again and give the same command with its address: it goes on "
            "with the runs that are missing"
        )

    @property
    def n(self) -> int:
        """How many runs they can train at a time; on a cluster workers come and go."""
        return sum(self.client.nthreads().values())

    @property
    def n_busy(self) -> int:
        """How many runs they have."""
        return len(self.futures)

    def start(self, run: Run) -> None:
        """Have a run trained."""
        key = f"{run.title}-{uuid4().hex}"  # no answer to it lies on the cluster already
        how = self.device, precision_of(run, self.precision), self.root, self.sources
        self.futures[run] = self.client.submit(_train_on_worker, run, *how, key=key)

    def wait(self, seconds: float) -> Iterator[tuple[Run, int | Result | Exception]]:
        """What is new once a run has ended, or after so many seconds: the iterations of a run that
        are done, its result, or why there is none.

        Raises OtherSources for a worker with another nodecore.
        """
        from distributed import KilledWorker, wait
        from distributed.client import FutureCancelledError

        if self.futures:
            with suppress(TimeoutError), self.client.as_current():
                wait(list(self.futures.values()), seconds, "FIRST_COMPLETED")
        else:
            time.sleep(seconds)
        runs = {future.key: run for run, future in self.futures.items()}
        while self.events:
            _, (key, iterations) = self.events.popleft()
            if key in runs:  # not another client's
                yield runs[key], iterations
        for run in [run for run, future in self.futures.items() if future.done()]:
            try:
                result = self.futures.pop(run).result()
            except KilledWorker:
                result = ClusterError("the worker that trained it died, perhaps for lack of memory")
            except (OtherSources, FutureCancelledError):
                raise
            except Exception as error:
                result = error
            yield run, result


# --- within a worker ------------------------------------------------------------------------------


def _train_on_worker(run, device, precision, root, sources):
    if sources != SOURCES:
        raise OtherSources(
            f"a worker's nodecore has other sources ({SOURCES}) than the one that gives it work "
            f"({sources}): give both the same version and start the workers anew"
        )
    unwanted = _Unwanted()
    how = {"device": device, "precision": precision, "check": unwanted.check}
    how |= {"progress": _Teller(unwanted.worker, unwanted.key)}
    if root is None:
        return train_run(run, checkpoint=_NoCheckpoint(unwanted), **how)
    how |= {"write_first": partial(keep, run, root=root)} if run.dataset in IMAGES else {}
    return train_run(
        run, checkpoint=Checkpoint(checkpoint_path(run.path(root)), deadline=unwanted), **how
    )


class _Unwanted(Deadline):
    """Comes when nobody wants a training any more: a worker cannot stop the thread of a cancelled
    task by itself, nor wait long for it when it is to end."""

    def __init__(self):
        from distributed import get_worker

        self.worker = get_worker()
        self.key = self.worker.get_current_task()

    def left(self):
        task = self.worker.state.tasks.get(self.key)
        over = task is None or task.state == "cancelled" or self.worker.status.name == "closing"
        return 0.0 if over else math.inf


class _NoCheckpoint:
    """On a machine that may go away with its files; train() asks it after every iteration."""

    def __init__(self, deadline):
        self.deadline = deadline

    def load(self, identity):
        return None

    def save(self, identity, tensors, values):
        self.deadline.check()

    def is_due(self):
        return self.deadline.left() <= 0


class _Teller:
    """Tells of the first iteration, and then of one every TELLING seconds."""

    def __init__(self, worker, key):
        self.worker, self.key, self.last = worker, key, -math.inf

    def __call__(self, iteration):
        if time.monotonic() - self.last >= TELLING:
            self.last = time.monotonic()
            self.worker.log_event(TOPIC, [self.key, iteration])
