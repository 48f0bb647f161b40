"""Test the order: do finer steps of the training solver converge as its order says?

After Krishnapriyan et al. (2023), "Learning continuous models for continuous physics": the ends
under K, 2 K and 4 K steps differ by h^p and (h/2)^p, times a constant, if h is small enough for the
field, so that ``p = log2(|z_K - z_2K| / |z_2K - z_4K|)``. Where p is the solver's order, the
training's step resolves the field. It needs no labels. A field with kinks, such as one of ReLU, has
at most p = 2 along most trajectories, whatever the method: that is expected of orders above 2 then.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nodecore.analysis.intervals import Z95, Interval, share_interval

WITHIN = 0.3  # of the order: as expected
ROUNDING = 100.0  # times the rounding of a state: smaller differences say nothing


@dataclass(frozen=True)
class OrderTest:
    """Observed orders p of the samples whose ends differ by more than rounding.

    Attributes:
        expected: Order of the solver.
        n: Number of samples that tell.
        near: Share of these within WITHIN of it.
        near_kinks: Share within WITHIN of 2, where `expected` is higher; None elsewhere.
        median: Median of p, with its interval.
    """

    expected: int
    n: int
    near: Interval
    near_kinks: Interval | None
    median: Interval

    def __str__(self) -> str:
        p, low, high = self.median
        text = (
            f"{self.near.percent()} of {self.n:,} samples converge with the solver's order "
            f"{self.expected} (within {WITHIN}); median order {p:.2f} ({low:.2f} to {high:.2f})"
        )
        if self.near_kinks is not None and self.near_kinks.value > self.near.value:
            kinks = f"with order 2, as in a field with kinks: {self.near_kinks.percent()}"
            return f"{text}; {kinks}"
        return text


def order_test(ends: tuple[Tensor, ...], expected: int) -> OrderTest | None:
    """Test the order from end states (m, ...) under K, 2 K and 4 K steps.

    A sample whose ends differ by rounding alone has converged already, or stands still.

    Returns:
        The test, or None where no sample can tell, or most of those that move differ by rounding
        alone: the others then may, too, as a sensitive field amplifies it.
    """
    own, twice, four = (z.reshape(len(z), -1).double() for z in ends)
    first, second = (own - twice).norm(dim=1), (twice - four).norm(dim=1)
    size = torch.stack([own, twice, four]).abs().amax(0).norm(dim=1)
    rounding = ROUNDING * torch.finfo(ends[0].dtype).eps * size
    known = torch.isfinite(first) & torch.isfinite(second)
    tells, rounded = known & (second > rounding), known & (second <= rounding) & (first > 0)
    # p = log2(|z_K - z_2K| / |z_2K - z_4K|)
    p = (first[tells].clamp(min=1e-300) / second[tells]).log2().sort().values
    if len(p) == 0 or int(rounded.sum()) > len(p):
        return None

    def near(order: int) -> Interval:
        return share_interval(int(((p - order).abs() <= WITHIN).sum()), len(p))

    kinks = near(2) if expected > 2 else None
    return OrderTest(expected, len(p), near(expected), kinks, _median(p))


def _median(ordered: Tensor) -> Interval:
    """Return the median of ascending values (n,) and its interval by order statistics."""
    n = len(ordered)
    reach = Z95 * math.sqrt(n) / 2
    low, high = max(0, math.floor(n / 2 - reach)), min(n - 1, math.ceil(n / 2 + reach))
    return Interval(*(float(ordered[i]) for i in (n // 2, low, high)))
