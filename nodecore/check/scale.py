"""Measure what is far between two outputs: by component, so that units do not matter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nodecore.check.solves import is_finite

TRAVEL = 0.1  # of the distance travelled: the least scale of a component
ROUNDING = 1e-5  # of the largest value: below it a difference is rounding
STILL = 1e-6  # of its scale: a component that differs by less for every sample is not counted


@dataclass(frozen=True)
class Scale:
    """Units (d,) float64 of the components of flat outputs, and which are counted, (d,) bool."""

    unit: Tensor
    counted: Tensor

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the root mean square over counted components of the difference in units, (n,)."""
        difference = (a - b).reshape(len(a), -1).double() / self.unit
        return difference[:, self.counted].square().mean(1).sqrt()

    @property
    def whole(self) -> float:
        """Unit of all counted components together, in the outputs' units."""
        return float(self.unit[self.counted].square().sum().sqrt())


def find_scale(exact: Tensor, start: Tensor, trained: Tensor | None = None) -> Scale:
    """Find the scale of outputs.

    A component's unit is its spread over the samples, at least a tenth of how far it travels, as a
    root mean square; the positions of a channel (n, channels, ...) share theirs.

    Args:
        exact: Outputs (n, ...) of the exact flow.
        start: Outputs of the states that x begins with.
        trained: Outputs under the training solver. Components that it gives alike for every sample,
            such as data carried in the state, are not counted.
    """
    kept = is_finite(exact) & is_finite(start)
    rows, travel = exact[kept].double(), (exact[kept] - start[kept]).double()
    if len(rows) == 0:
        rows = travel = torch.zeros_like(exact[:1], dtype=torch.float64)
    unit = torch.maximum(_rms(rows - rows.mean(0)), TRAVEL * _rms(travel))
    unit = torch.maximum(unit, ROUNDING * rows.abs().amax(0).reshape(-1))
    unit = torch.where(unit > 0, unit, 1.0)
    counted = torch.ones_like(unit, dtype=torch.bool)
    if trained is not None:
        difference = (exact - trained).reshape(len(exact), -1).double().abs() / unit
        moved = (difference.nan_to_num(0.0, 0.0) > STILL).any(0)
        counted = moved if bool(moved.any()) else counted
    return Scale(unit, counted)


def _rms(values: Tensor) -> Tensor:
    """Return the root mean square over n of each component, or channel of (n, channels, ...)."""
    squares = values.square().mean(0)
    if squares.dim() >= 2:
        means = squares.flatten(1).mean(1)
        squares = means.view(-1, *[1] * (squares.dim() - 1)).expand_as(squares)
    return squares.reshape(-1).sqrt()
