"""Intervals of a point and of a pair, against values worked out by hand and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.stats.intervals import MOST, bootstrap, estimate, mcnemar, paired_difference


def test_mean_and_interval_by_hand() -> None:
    # mean 2, standard deviation 1, t(0.975, 2) = 4.30265, over sqrt(3)
    found = estimate([1.0, 2.0, 3.0])

    assert found.mean == 2.0
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((-0.484138, 4.484138), abs=1e-6)
    assert found.n == 3


def test_interval_equals_scipys() -> None:
    sample = [0.31, 0.29, 0.35, 0.302, 0.318]

    found = estimate(sample)
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)

    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_one_seed_has_no_interval() -> None:
    found = estimate([0.4])

    assert (found.mean, found.low, found.high, found.half_width) == (0.4, None, None, None)


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_nothing_is_averaged_over_a_hole(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no values|not finite"):
        estimate(values)


def test_difference_by_hand() -> None:
    # differences 1, 2, 3: the interval above, which holds zero; t = 2 / (1 / sqrt 3)
    found = paired_difference({0: 11.0, 1: 22.0, 2: 33.0}, {0: 10.0, 1: 20.0, 2: 30.0})

    assert found is not None
    assert found.mean == 2.0
    assert (found.low, found.high) == pytest.approx((-0.484138, 4.484138), abs=1e-6)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)


def test_difference_equals_scipys_paired_test() -> None:
    a, b = [0.31, 0.36, 0.33, 0.40], [0.30, 0.34, 0.33, 0.37]

    found = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(0.95)

    assert found is not None
    assert found.p == pytest.approx(test.pvalue, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_pairing_finds_what_the_spread_between_seeds_would_hide() -> None:
    a, b = {0: 0.30, 1: 0.40, 2: 0.50}, {0: 0.28, 1: 0.379, 2: 0.481}

    found = paired_difference(a, b)

    assert found is not None
    assert found.low is not None
    assert found.low > 0
    assert stats.ttest_ind(list(a.values()), list(b.values())).pvalue > 0.5


def test_only_seeds_that_both_have_are_paired() -> None:
    # seed 1 is missing here and seed 3 there; what is left differs by 1 and by 3
    found = paired_difference({0: 2.0, 2: 5.0, 3: 99.0}, {0: 1.0, 1: -99.0, 2: 2.0})

    assert found is not None
    assert found.seeds == (0, 2)
    assert found.mean == 2.0
    # t(0.975, 1) = 12.7062, standard error 1
    assert (found.low, found.high) == pytest.approx((-10.7062, 14.7062), abs=1e-4)


def test_no_shared_seed_is_no_difference() -> None:
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_one_pair_has_no_interval() -> None:
    found = paired_difference({0: 0.9}, {0: 0.1})

    assert found is not None
    assert (found.mean, found.low, found.p) == (0.8, None, None)


def test_seeds_that_agree_exactly_give_no_certainty() -> None:
    # 0.3 - 0.2 and 0.2 - 0.1 differ in the seventeenth digit only
    found = paired_difference({0: 0.3, 1: 0.2}, {0: 0.2, 1: 0.1})

    assert found is not None
    assert found.p is None


def test_a_worse_point_has_an_interval_below_zero() -> None:
    found = paired_difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 3.1, 2: 3.9})

    assert found is not None
    assert found.high is not None
    assert found.high < 0


# ---- items alone


def test_bootstrap_equals_scipys() -> None:
    rng = np.random.default_rng(1)
    own, base = rng.binomial(1, 0.45, 300), rng.binomial(1, 0.38, 300)

    low, high = bootstrap(np.array(own - base, dtype=float))
    expected = stats.bootstrap(
        (own, base),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        paired=True,
        method="percentile",
        n_resamples=5_000,
        rng=np.random.default_rng(2),
    ).confidence_interval

    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.006)


def test_bootstrap_is_the_same_twice_and_averages_seeds_first() -> None:
    table = np.array([[1.0, 0.0, -1.0, 1.0], [0.0, 0.0, -1.0, 1.0]])

    assert bootstrap(table) == bootstrap(table)
    assert bootstrap(table) == bootstrap(table.mean(axis=0))


def test_many_items_are_resampled_in_blocks_to_the_same_interval() -> None:
    rng = np.random.default_rng(5)
    differences = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.75, 0.15], size=5 * MOST + 17)

    low, high = bootstrap(differences)

    error = differences.std(ddof=1) / math.sqrt(len(differences))
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert low < differences.mean() < high


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [
        # 2 (1 + 9) / 2^9; statsmodels' mcnemar([[10, 1], [8, 4]], exact=True) gives the same
        (8, 1, 0.0390625),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, expected: float) -> None:
    own = np.array([1] * gained + [0] * lost + [1, 0], dtype=np.uint8)
    base = np.array([0] * gained + [1] * lost + [1, 0], dtype=np.uint8)

    assert mcnemar(own, base) == pytest.approx(expected)
