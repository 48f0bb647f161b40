"""Measure the distance of two outputs by component, so that units do not matter."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nodecore.check.inputs import is_finite

TRAVEL = 0.1  # of the distance travelled: the least scale of a component
MOST, TAIL = 0.9, 4.0  # times what so many samples stay below: beyond it lie outliers
ROUNDING = 1e-5  # of the largest value: below it a difference is rounding
STILL = 1e-6  # of its scale: a component that differs by less for every sample is not counted


@dataclass(frozen=True)
class Scale:
    """Units (d,) float64 of the components of flat outputs, and which are counted, (d,) bool.

    For trajectories, d is times x components, and a distance is taken at the time at which it is
    largest. For states that are a tuple, it is taken for the part in which it is largest; `parts`
    holds the number of components of each part.
    """

    unit: Tensor
    counted: Tensor
    times: int = 1
    parts: tuple[int, ...] = ()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the root mean square over counted components of the difference in units, (n,)."""
        squares = ((a - b).reshape(len(a), -1).double() / self.unit).square()
        kept = self.counted.view(self.times, -1)
        squares = torch.where(kept, squares.view(len(a), *kept.shape), 0.0)
        sizes = self.parts or (kept.shape[1],)
        means = [
            part.sum(2) / counted.sum(1).clamp(min=1)
            for part, counted in zip(squares.split(sizes, 2), kept.split(sizes, 1), strict=True)
        ]
        return torch.stack(means).amax(0).sqrt().amax(1)

    @property
    def whole(self) -> float:
        """Unit of all counted components together, in the outputs' units, where it is largest."""
        squares = torch.where(self.counted, self.unit.square(), 0.0)
        return float(squares.view(self.times, -1).sum(1).amax().sqrt())


def farthest(difference: Tensor, times: int) -> Tensor:
    """Return the norm of differences (n, ...), of trajectories at the time it is largest, (n,)."""
    return difference.reshape(len(difference), times, -1).double().norm(dim=2).amax(1)


def find_scale(
    exact: Tensor,
    start: Tensor,
    trained: Tensor | None = None,
    times: int = 1,
    parts: tuple[int, ...] = (),
) -> Scale:
    """Find the scale of outputs.

    A component's unit is its spread over the samples, at least a tenth of how far it travels, as a
    root mean square without outliers; the pixels of a channel (n, channels, height, width) share
    theirs.

    Args:
        exact: Outputs (n, ...) of the exact flow.
        start: Outputs of the states that x begins with.
        trained: Outputs under the training solver. Components that it gives alike for every sample,
            such as data carried in the state, are not counted.
        times: Number of output times of trajectories (n, times, ...); each has units of its own.
        parts: Numbers of components of the parts of a state, where it is a tuple.
    """
    axes = 1 if times == 1 else 2
    kept = is_finite(exact) & is_finite(start)
    rows, travel = exact[kept].double(), (exact[kept] - start[kept]).double()
    if len(rows) == 0:
        rows = travel = torch.zeros_like(exact[:1], dtype=torch.float64)
    spread = _clipped(rows - rows.median(0).values)
    unit = _rms(spread - spread.mean(0), axes)
    unit = torch.maximum(unit, TRAVEL * _rms(_clipped(travel), axes))
    unit = torch.maximum(unit, ROUNDING * _most(rows.abs()).reshape(-1))
    unit = torch.where(unit > 0, unit, 1.0)
    counted = torch.ones_like(unit, dtype=torch.bool)
    if trained is not None:
        difference = (exact - trained).reshape(len(exact), -1).double().abs() / unit
        moved = (difference.nan_to_num(0.0, 0.0) > STILL).any(0)
        counted = moved if bool(moved.any()) else counted
    return Scale(unit, counted, times, parts)


def _most(values: Tensor) -> Tensor:
    """Return what most of the n entries of each component (n, ...) stay below."""
    return values.kthvalue(math.ceil(MOST * len(values)), dim=0).values


def _clipped(values: Tensor) -> Tensor:
    """Clip outliers (n, ...): one sample must not set the scale of all."""
    limit = TAIL * _most(values.abs())
    limit = torch.where(limit > 0, limit, math.inf)  # most are alike: the others are no outliers
    return values.clamp(-limit, limit)


def _rms(values: Tensor, axes: int) -> Tensor:
    """Return the root mean square over n of components, or of channels, the first `axes` behind n.

    The pixels behind a channel share theirs. A single axis behind it, as in (n, bodies, features),
    may hold quantities of different units.
    """
    squares = values.square().mean(0)
    if squares.dim() > axes + 1:
        means = squares.flatten(axes).mean(axes, keepdim=True)
        squares = means.expand_as(squares.flatten(axes))
    return squares.reshape(-1).sqrt()
