"""Confidence intervals of shares and of their differences."""

import math
from typing import NamedTuple

Z95 = 1.959963984540054  # of the normal distribution, for 95 %
TAILS = (0.025, 0.975)


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

    def points(self) -> str:
        """Return a difference of shares as text, such as "7.5 points (6.0 to 9.3)"."""
        return self.percent().replace(" %", " points")


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
