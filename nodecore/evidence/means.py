"""Means over seeds: as text, and confidence intervals of them and of their differences."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from nodecore.analysis.intervals import Interval

Summary = tuple[float, float, int]  # mean, std (n - 1) and number of seeds


def mean_interval(values: ArrayLike) -> Interval:
    """Estimate a mean over seeds, those that are NaN left out: Student's t, 95 %.

    Of a single seed nothing is known of the spread, and the interval is infinite.
    """
    mean, std, n = summary(values)
    if n < 2:
        return Interval(mean, -math.inf, math.inf)
    half = float(stats.t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def summary(values: ArrayLike) -> Summary:
    """Summarise values over seeds, those that are NaN left out; NaN where there are too few."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    mean = float(known.mean()) if len(known) else math.nan
    return mean, float(known.std(ddof=1)) if len(known) > 1 else math.nan, len(known)


def tell_mean(values: ArrayLike, digits: int = 1) -> str:
    """Mean and standard deviation over seeds; of one seed its value."""
    mean, std, n = summary(values)
    deviation = f" ± {std:.{digits}f}" if n > 1 else ""
    return f"{mean:.{digits}f}{deviation}"


def difference_interval(one: Summary, other: Summary) -> Interval:
    """Estimate one mean less the other, of independent seeds: Welch's t, 95 %.

    Where a side has a single seed, nothing is known of its spread and the interval is infinite.
    """
    counts, middle = (one[2], other[2]), one[0] - other[0]
    if min(counts) < 2:
        return Interval(middle, -math.inf, math.inf)
    parts = [side[1] ** 2 / side[2] for side in (one, other)]
    half = float(stats.t.ppf(0.975, _welch_freedom(parts, counts))) * math.sqrt(sum(parts))
    return Interval(middle, middle - half, middle + half)


def _welch_freedom(parts, counts):
    """Degrees of freedom of the difference; those of the smaller side where nothing spreads."""
    below = sum(part**2 / (n - 1) for part, n in zip(parts, counts, strict=True))
    return sum(parts) ** 2 / below if below > 0 else min(counts) - 1
