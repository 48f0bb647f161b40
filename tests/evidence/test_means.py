"""Intervals of means against SciPy's tests, which have them, too."""

import math

import numpy as np
import pytest
from scipy import stats

from nodecore.evidence.means import difference_interval, mean_interval, summary

ONE, OTHER = (0.90, 0.92, 0.93, 0.88), (0.80, 0.85, 0.83)


def test_intervals_are_those_of_scipy():
    expected = stats.ttest_ind(ONE, OTHER, equal_var=False).confidence_interval(0.95)
    change = difference_interval(summary(ONE), summary(OTHER))
    assert change == pytest.approx((np.mean(ONE) - np.mean(OTHER), *expected))
    alone = stats.ttest_1samp(ONE, 0.0).confidence_interval(0.95)
    assert mean_interval(ONE) == pytest.approx((np.mean(ONE), *alone))


def test_seeds_that_are_nan_do_not_count():
    assert mean_interval([*ONE, math.nan]) == mean_interval(ONE)
    assert math.isnan(mean_interval([math.nan]).value)


def test_of_a_single_seed_nothing_is_known():
    alone, endless = summary([0.93]), (-math.inf, math.inf)
    for sides in ((alone, summary(ONE)), (summary(ONE), alone), (alone, alone)):
        assert difference_interval(*sides)[1:] == endless
    assert mean_interval([3.0]) == (3.0, *endless)


def test_where_nothing_spreads_the_interval_has_no_length():
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    assert difference_interval(summary([0.5, 0.5]), summary([0.25] * 3)) == (0.25, 0.25, 0.25)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(2.0, 3.0, (2000, 5))
    held = [low <= 2.0 <= high for _, low, high in map(mean_interval, draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)
