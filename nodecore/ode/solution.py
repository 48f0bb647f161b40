"""What a solve starts from, returns, or fails with."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

VectorField = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """What a solve returns.

    z: final state. ts: times of the accepted steps, (n_steps + 1,) float64, or a row for each
    instance. path: the states at `ts` along a new first axis, where asked for.
    nfe, n_accepted, n_rejected: evaluations of f and steps, int, or a tensor with the shape of the
    instances that step by themselves. backend: "torch" or "fused".
    """

    z: Tensor
    ts: Tensor
    nfe: int | Tensor
    n_accepted: int | Tensor
    n_rejected: int | Tensor = 0
    path: Tensor | None = None
    backend: str = "torch"


class SolveError(ArithmeticError):
    """A solve that cannot go on. `failed` marks the instances at fault (bool tensor)."""

    def __init__(self, message: str, failed: Tensor):
        super().__init__(message)
        self.failed = failed

    @property
    def members(self) -> Tensor:
        """Those with an instance at fault, (members,) bool; for at least one axis of instances."""
        return self.failed.reshape(len(self.failed), -1).any(1)


def check_state(z: Tensor) -> None:
    """ValueError unless z is a floating-point tensor that is not empty."""
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.numel() == 0:
        what = f"{tuple(z.shape)} {z.dtype}" if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(f"z0 = {what}: give a floating-point tensor that is not empty")


def shaped(counts, single):
    return int(counts.reshape(-1)[0]) if single else counts
