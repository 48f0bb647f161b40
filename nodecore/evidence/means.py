"""Means over seeds: as text, and confidence intervals of them and of their differences."""

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from nodecore.analysis.intervals import Interval

Summary = tuple[float, float, int]  # mean, std (n - 1) and number of seeds


def mean_interval(values: ArrayLike) -> Interval:
    """Estimate a mean over seeds, those that are NaN left out: Student's t, 95 %.

    Of a single seed nothing is known of the spread, and the interval is infinite.
    """
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        return Interval(float(known.mean()) if len(known) else math.nan, -math.inf, math.inf)
    half = stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known))
    return Interval(*(float(known.mean() + half * side) for side in (0, -1, 1)))


def summary(values: ArrayLike) -> Summary:
    """Summarise values, one a seed, for difference_interval."""
    known = np.asarray(values, float)
    std = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return float(known.mean()), std, len(known)


def tell_mean(values: ArrayLike, digits: int = 1) -> str:
    """Mean and standard deviation over seeds; of one seed its value."""
    known = pd.Series(values).dropna()
    deviation = f" ± {known.std():.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{deviation}"


def difference_interval(one: Summary, other: Summary) -> Interval:
    """Estimate one mean less the other, of independent seeds: Welch's t, 95 %.

    Where a side has a single seed, nothing is known of its spread and the interval is infinite.
    """
    counts, middle = (one[2], other[2]), one[0] - other[0]
    if min(counts) < 2:
        return Interval(middle, -math.inf, math.inf)
    parts = [side[1] ** 2 / side[2] for side in (one, other)]
    half = stats.t.ppf(0.975, _welch_freedom(parts, counts)) * math.sqrt(sum(parts))
    return Interval(*(float(middle + half * side) for side in (0, -1, 1)))


def _welch_freedom(parts, counts):
    """Degrees of freedom of the difference; those of the smaller side where nothing spreads."""
    below = sum(part**2 / (n - 1) for part, n in zip(parts, counts, strict=True))
    return sum(parts) ** 2 / below if below > 0 else min(counts) - 1
