"""A moment at which everything must have stopped and been written."""

import time
from collections.abc import Callable


class TimeUp(Exception):
    """The time is over; what was going on has left a checkpoint."""


class Deadline:
    """`seconds` from now. Work stops MARGIN before it, for what must still be written then.

    clock: gives seconds. Raises ValueError for a time that does not exceed MARGIN.
    """

    MARGIN = 20.0

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        if not seconds > self.MARGIN:
            raise ValueError(
                f"budget = {seconds!r}: give more than the {self.MARGIN:g} s that are kept to stop"
            )
        self.clock, self.until = clock, clock() + seconds - self.MARGIN

    def left(self) -> float:
        """Return the seconds of work that are left, negative where it is over."""
        return self.until - self.clock()

    def check(self) -> None:
        """Raise TimeUp where it is over."""
        if self.left() <= 0:
            raise TimeUp("the time is over")
