"""One progress bar over many runs, and a clock that goes on where work takes long."""

import heapq
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from tqdm import tqdm

from nodecore.evidence.runs import Run
from nodecore.evidence.selection import cost

TICK = 5.0  # seconds that a bar stands still at most
# Seconds after which work counts half in a pace: a controller that begins with a hundred steps
# soon takes ten.
HALF_LIFE = 300.0
LEAST = 1.0  # seconds of work that a pace is told from


class Bar(tqdm):
    """A bar that other threads can draw after Ctrl-C has come while it was drawn.

    tqdm's own keeps its lock then, for which they would wait for ever.
    """

    monitor_interval = 0  # no thread of tqdm's own, which would wait, too: `ticking` draws

    def refresh(self, nolock: bool = False, lock_args: tuple | None = None) -> None:
        with self.get_lock():
            self.display()


@contextmanager
def ticking(bar: Bar) -> Iterator[Bar]:
    """Draw a bar anew every few seconds, also where nothing has happened, and close it then."""
    over = Event()

    def draw():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the main one's
        while not over.wait(TICK):
            bar.refresh()

    thread = Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield bar
    finally:
        over.set()
        thread.join()
        bar.close()


class SweepBar:
    """One bar over many runs by their cost, in their order, of which `jobs` are trained at a time,
    a number that may change; with the time left at the pace of one process of late."""

    # The times come before what a narrow terminal cuts off.
    FORMAT = "{percentage:3.0f}% |{bar:20}| [{elapsed} so far{postfix} left] {desc}"

    def __init__(self, runs: Sequence[Run]):
        self.runs, self.jobs, self.n_ended = len(runs), 1, 0
        self.followed: set[Run] = set()
        self.costs: dict[Run, float] = {run: cost(run) for run in runs}
        self.left = dict(self.costs)  # to be done, of those that have not ended
        # The work of late and the seconds that all processes spent on it.
        self.done, self.spent, self.now = 0.0, 0.0, time.monotonic()
        total = sum(self.left.values())
        self.bar = Bar(total=total, bar_format=self.FORMAT, postfix="?", mininterval=1.0)
        self.show("")
        self._clock = ticking(self.bar)

    def __enter__(self) -> "SweepBar":
        self._clock.__enter__()
        return self

    def __exit__(self, *_) -> None:
        self._clock.__exit__(None, None, None)

    def show(self, what: str) -> None:
        """Say what is going on."""
        self.what = what
        text = f"{self.n_ended} of {self.runs} runs done, {what}"
        if text != self.bar.desc:
            self.bar.set_description_str(text)

    def follow(self, run: Run) -> Callable[[int], None]:
        """What train() calls with the iterations done, those before a stop first."""

        def tell(iteration):
            if run not in self.followed:
                self.show(run.title)
            self.reach(run, iteration)
            if iteration == run.protocol.iterations:
                self.show(f"tests of {run.title}")

        return tell

    def reach(self, run: Run, iteration: int) -> None:
        """Note the iterations of a run that are done, those before a stop first."""
        first = run not in self.followed
        left = self.costs[run] * (1 - iteration / run.protocol.iterations)
        self._advance(run, left, here=not first)  # what was done before took no time of this sweep
        self.followed.add(run)

    def end(self, run: Run, here: bool = True) -> None:
        """Note that a run is there; `here`: it was trained for this sweep."""
        self.n_ended += 1
        self._advance(run, 0.0, here)
        del self.left[run]
        self.show(self.what)

    def drop(self, run: Run, why: str) -> None:
        """Note that a run is given up, and say why."""
        self.bar.total -= self.left.pop(run)
        self.bar.write(why, file=sys.stderr)

    def _advance(self, run, left, here):
        now = time.monotonic()
        elapsed, self.now = now - self.now, now
        step, self.left[run] = self.left[run] - left, left
        fade = 0.5 ** (elapsed / HALF_LIFE)
        self.spent = self.spent * fade + elapsed * len(self.followed & self.left.keys())
        self.done = self.done * fade + (step if here else 0.0)
        if self.done and (self.spent >= LEAST or not any(self.left.values())):
            seconds = makespan(self.left.values(), max(1, self.jobs)) * self.spent / self.done
            self.bar.set_postfix_str(self.bar.format_interval(seconds), refresh=False)
        self.bar.update(min(step, self.bar.total - self.bar.n))  # sums are rounded


def makespan(costs: Iterable[float], jobs: int) -> float:
    """Return the time at which all are done if each of `jobs` workers takes the next one, in this
    order, as soon as it is free."""
    ends = [0.0] * jobs
    for each in costs:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)
