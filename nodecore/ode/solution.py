"""Types that every solve shares: its result, its error, and the check of its state."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

# f(t, z); t is a number or, where instances have times of their own, (instances, 1, ..., 1).
VectorField = Callable[[float | Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """Result of a solve.

    Attributes:
        z: Final state.
        ts: Times of the accepted steps, (n_steps + 1,) float64, or a row for each instance.
        nfe: Evaluations of f, int, or a tensor with the shape of the instances that step by
            themselves.
        n_accepted: Accepted steps, likewise.
        n_rejected: Rejected steps, likewise.
        path: States at `ts` along a new first axis, where asked for.
        backend: "torch" or "fused".
    """

    z: Tensor
    ts: Tensor
    nfe: int | Tensor
    n_accepted: int | Tensor
    n_rejected: int | Tensor = 0
    path: Tensor | None = None
    backend: str = "torch"

    @property
    def states(self) -> Tensor:
        """States of the path; raises ValueError where it was not asked for."""
        if self.path is None:
            raise ValueError("path = False: the solve kept its end only; give path=True")
        return self.path


class SolveError(ArithmeticError):
    """Solve that cannot go on; `failed` marks the instances at fault (bool tensor).

    In its message "{t}" stands for the earliest `time` at which it stopped; `z` is the state of all
    instances there, where it is known.
    """

    def __init__(
        self, message: str, failed: Tensor, time: float = math.nan, z: Tensor | None = None
    ):
        super().__init__(message)
        self.failed, self.time, self.z = failed, time, z

    def said(self, sign: float = 1.0) -> str:
        """Return the message with sign * time: -1 where time runs backwards and is solved as -t."""
        return str(self.args[0]).replace("{t}", f"t = {sign * self.time + 0.0:.6g}")

    def __str__(self) -> str:
        return self.said()

    @property
    def members(self) -> Tensor:
        """Members that have an instance at fault, (members,) bool; needs an axis of instances."""
        return self.failed.reshape(len(self.failed), -1).any(1)


def check_state(z: Tensor) -> None:
    """Raise ValueError unless z is a floating-point tensor that is not empty."""
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.numel() == 0:
        what = f"{tuple(z.shape)} {z.dtype}" if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(f"z0 = {what}: give a floating-point tensor that is not empty")


def shaped(counts: Tensor, single: bool) -> int | Tensor:
    """Return the first of the counts as an int if `single`, else all of them."""
    return int(counts.reshape(-1)[0]) if single else counts
