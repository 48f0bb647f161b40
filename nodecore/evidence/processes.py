"""Work side by side on this machine; a process that dies takes only its own work along."""

import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

GRACE = 10.0  # seconds that a process has to end once it is told to
TELLING = 0.5  # seconds between two words about the progress of an item


# --- the processes --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """What came from the process that has `item`: a value that it told on the way, the value that
    it returned, or a text that says why it failed."""

    item: Any
    kind: Literal["told", "returned", "failed"]
    value: Any


class Workers:
    """Up to `n` processes, each of which calls `call(item, tell)` for one item at a time.

    `tell` passes a value on, if the last one was not just before. A process that dies fails its
    item only, and another one takes its place. The terminal's Ctrl-C does not reach them. Whoever
    leaves the context, or dies, has them stopped: KeyboardInterrupt is raised in `call`.

    A pool of concurrent.futures would end all of its processes where one is killed.
    """

    def __init__(self, call: Callable[[Any, Callable[[Any], None]], Any], n: int):
        self.call, self.n = call, n
        self.workers: list[_Worker] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        for worker in self.workers:
            worker.process.terminate()
        until = time.monotonic() + GRACE
        for worker in self.workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            worker.process.kill()

    @property
    def n_busy(self) -> int:
        """Items that are being worked on."""
        return sum(worker.busy for worker in self.workers)

    @property
    def have_room(self) -> bool:
        """Whether one more item can be started."""
        return self.n_busy < self.n

    def start(self, item: Any) -> None:
        """Have an item worked on. Call it while there is room."""
        worker = next((worker for worker in self.workers if not worker.busy), None)
        if worker is None:
            worker = _Worker(self.call)
            self.workers.append(worker)
        worker.give(item)

    def wait(self, timeout: float) -> Iterator[Event]:
        """What the processes have to say, once one has, or nothing after `timeout` seconds."""
        of = {worker.connection: worker for worker in self.workers}
        for connection in wait(list(of), timeout):
            worker = of[connection]
            event = worker.receive()
            if worker.is_gone:
                self.workers.remove(worker)
            if event is not None:
                yield event


class _Worker:
    """A process, as its parent sees it, and the item that it has."""

    def __init__(self, call):
        # Not forked: a child would lack its parent's threads, and wait for them.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, call), daemon=True)
        # Blocked in the child from its first moment on; for the parent Ctrl-C has only to wait.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the connection ends with the process
        self.item, self.busy, self.is_gone = None, False, False

    def give(self, item):
        self.item, self.busy = item, True
        with suppress(OSError):  # it is gone, as the next `receive` will find
            self.connection.send(item)

    def receive(self):
        """Its next event; None where it had no item when it died."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            self.is_gone = True
            kind, value = "failed", f"its process {_end_of(self.process.exitcode)}"
        event = Event(self.item, kind, value) if self.busy else None
        self.busy = self.busy and kind == "told"
        return event


STOPPED = 128 + signal.SIGTERM  # exit status, as a shell has it


def _end_of(exitcode):
    if exitcode == -signal.SIGKILL:
        return "was killed (SIGKILL), perhaps for lack of memory"
    if exitcode in (STOPPED, -signal.SIGTERM):
        return "was told to end (SIGTERM)"
    if exitcode < 0:
        return f"crashed ({signal.Signals(-exitcode).name})"
    return f"ended with status {exitcode}"


# --- within a process -----------------------------------------------------------------------------


def _work(connection: Connection, call):
    """Take items until the parent has no more."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        while True:
            connection.send(_outcome(call, connection.recv(), _Teller(connection)))
    except (EOFError, OSError, KeyboardInterrupt):  # the parent is gone, or wants no more
        os._exit(STOPPED)  # at once: what libraries do at an exit can take seconds


def _outcome(call, item, tell):
    try:
        return "returned", call(item, tell)
    except (ValueError, OSError) as error:  # whose messages say what to do
        return "failed", str(error)
    except Exception:
        return "failed", traceback.format_exc().rstrip()


class _Teller:
    """Passes on the first value, and then one every TELLING seconds."""

    def __init__(self, connection):
        self.connection, self.told = connection, -math.inf

    def __call__(self, value):
        if time.monotonic() - self.told < TELLING:
            return
        self.told = time.monotonic()
        with suppress(OSError):  # the parent is gone; _end_with_parent ends this process properly
            self.connection.send(("told", value))


def _end_with_parent():
    """Stop what goes on here when nobody waits for it any more."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
