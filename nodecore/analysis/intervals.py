"""Confidence intervals: of shares and their differences in closed form, of means by resampling."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z95 = 1.959963984540054  # of the normal distribution, for 95 %
TAILS = (0.025, 0.975)
RESAMPLES = 10_000


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def beyond(self, bound: float) -> bool:
        """Tell whether the whole interval lies outside [-bound, bound]."""
        return self.low > bound or self.high < -bound

    def within(self, bound: float) -> bool:
        """Tell whether the whole interval lies inside [-bound, bound]."""
        return -bound <= self.low and self.high <= bound

    def percent(self) -> str:
        """Return the interval as text, such as "7.5 % (6.0 to 9.3)"."""
        value, low, high = (100 * v + 0.0 for v in self)
        return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def share_interval(count: int, n: int) -> Interval:
    """Estimate the share count / n of independent samples, with Wilson's score interval (1927)."""
    share, z2 = count / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(only_first: int, only_second: int, n: int) -> Interval:
    """Estimate the share in a first state less that in a second one, of the same n samples.

    The interval is the adjusted Wald interval of Bonett and Price (2012), which adds one to either
    and holds its level for few samples and for no differences at all; see Fagerland, Lydersen,
    Laake (2014), Stat. Med. 33.

    Args:
        only_first: Number of samples that are in the first state and not in the second.
        only_second: Number of samples that are in the second state and not in the first.
        n: Number of samples.
    """
    p, q = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = Z95 * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    value = (only_first - only_second) / n
    return Interval(value, max(-1.0, p - q - half), min(1.0, p - q + half))


def bootstrap_mean(values: Sequence[float]) -> Interval:
    """Estimate the mean of what the values are a sample of, with the bootstrap's percentiles.

    As many values as there are, drawn with replacement, always by the same draws (Efron, Tibshirani
    1993, chapter 13). From few values the interval is too short: five hold some 85 % at most. It is
    NaN where a value is.
    """
    means = _redrawn_means(np.random.default_rng(0), values)
    return Interval(float(np.mean(values)), *map(float, np.quantile(means, TAILS)))


def bootstrap_difference(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Estimate the mean of the values less that of the others, two independent samples.

    See bootstrap_mean, which draws from either likewise.
    """
    generator = np.random.default_rng(0)
    means, less = (_redrawn_means(generator, each) for each in (values, others))
    ends = np.quantile(means - less, TAILS)
    return Interval(float(np.mean(values) - np.mean(others)), *map(float, ends))


def _redrawn_means(generator, values):
    """Means (RESAMPLES,) of as many values as there are, drawn with replacement."""
    drawn = generator.integers(len(values), size=(RESAMPLES, len(values)))
    return np.asarray(values, float)[drawn].mean(1)
