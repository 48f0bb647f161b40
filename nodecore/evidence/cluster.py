"""Training runs on the workers of a dask.distributed cluster; dask is imported where it is used."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nodecore.evidence.obtain import Result, precision_of, train_run
from nodecore.evidence.runs import Run


class ClusterError(RuntimeError):
    """What keeps a cluster from training; the message says what to do."""


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
    with client:
        yield client


def train_with(
    client, runs: Sequence[Run], device: str = "auto", precision: str = "float32"
) -> Iterator[tuple[Run, Result]]:
    """Have the workers train all `runs`, the first ones first; yields each as it ends.

    A worker that dies has its run trained elsewhere. When the caller stops asking, what is not done
    is cancelled, on the workers too. Raises ClusterError, after all others, for runs whose workers
    died again and again.
    """
    from distributed import KilledWorker, as_completed

    futures = {
        client.submit(
            _train_on_worker,
            run,
            device,
            precision_of(run, precision),
            key=_key(run),
            priority=-rank,
        ): run
        for rank, run in enumerate(runs)
    }
    killed = []
    try:
        for future in as_completed(futures):
            run = futures[future]
            try:
                result = future.result()
            except KilledWorker:
                killed.append(run.name)
                continue
            if result.header["protocol_hash"] != run.digest:
                raise ClusterError(
                    "the workers' nodecore has other protocols or controllers than the one here: "
                    "give them the same version and start them anew"
                )
            yield run, result
    finally:
        client.cancel(list(futures))
    if killed:
        raise ClusterError(
            f"every worker that trained {', '.join(killed)} died, so that the scheduler gave up: "
            "look at the workers' logs, they may lack memory"
        )


def _key(run):
    return f"nodecore-{run.study}-{run.profile}-{run.name}-{run.digest}"


def _train_on_worker(run, device, precision):
    how = {"device": device, "precision": precision}
    return train_run(run, **how, progress=False, checkpoint=_Watch())


class _Watch:
    """No checkpoint, but the place where train() asks after every iteration: ends a training that
    nobody wants any more. A worker cannot stop the thread of a cancelled task by itself."""

    def __init__(self):
        from distributed import get_worker

        self.worker = get_worker()
        self.key = self.worker.get_current_task()

    def load(self, identity):
        return None

    def save(self, identity, tensors, values):
        pass

    def is_due(self):
        task = self.worker.state.tasks.get(self.key)
        if task is None or task.state == "cancelled":
            raise ClusterError("the training was cancelled")
        return False
