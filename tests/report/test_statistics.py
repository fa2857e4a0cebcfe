"""Statistics against values worked out by hand and against scipy's own tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.report.statistics import (
    detectable_effect,
    estimate,
    holm,
    paired_difference,
    trend,
)


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
    assert not found.distinguishable


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
    assert found.distinguishable
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


def test_one_pair_is_never_distinguishable() -> None:
    found = paired_difference({0: 0.9}, {0: 0.1})

    assert found is not None
    assert (found.mean, found.low, found.p) == (0.8, None, None)
    assert not found.distinguishable


def test_seeds_that_agree_exactly_give_no_certainty() -> None:
    # 0.3 - 0.2 and 0.2 - 0.1 differ in the seventeenth digit only
    found = paired_difference({0: 0.3, 1: 0.2}, {0: 0.2, 1: 0.1})

    assert found is not None
    assert found.no_spread
    assert found.p is None
    assert not found.distinguishable


def test_a_worse_point_is_distinguishable_too() -> None:
    found = paired_difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 3.1, 2: 3.9})

    assert found is not None
    assert found.high is not None
    assert found.high < 0
    assert found.distinguishable


# ---- many comparisons


def test_holm_by_hand() -> None:
    # 0.01 x 3; 0.03 x 2; 0.04 x 1, raised to what a smaller p already got
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_holm_equals_statsmodels() -> None:
    # multipletests([...], method="holm") of statsmodels 0.15
    given, expected = [0.01, 0.04, 0.03, 0.005, 0.5], [0.04, 0.09, 0.09, 0.025, 0.5]

    assert holm(given) == pytest.approx(expected)


def test_an_adjusted_p_is_never_above_one() -> None:
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


# ---- what could be seen


@pytest.mark.parametrize(
    ("seeds", "expected"),
    # TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8) of statsmodels 0.15
    [(3, 3.264043552819638), (5, 1.6819970833232674), (10, 0.9960019107624178)],
)
def test_detectable_effect_equals_statsmodels(seeds: int, expected: float) -> None:
    # in standard deviations of the differences; the far tail, which is no finding, is not counted
    found = detectable_effect(1 / math.sqrt(seeds), seeds - 1)

    assert found == pytest.approx(expected, rel=1e-5)


def test_detectable_effect_is_found_four_times_out_of_five() -> None:
    rng = np.random.default_rng(0)
    effect = detectable_effect(1 / math.sqrt(4), 3)

    samples = rng.normal(effect, 1.0, size=(20_000, 4))
    found = (stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05).mean()

    assert found == pytest.approx(0.8, abs=0.01)


# ---- trends


def test_trend_by_hand() -> None:
    # two seeds that both rise over three levels: one of 6 x 6 orders, doubled for two sides
    assert trend([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]) == pytest.approx(2 / 36)


def test_a_fall_is_a_trend_like_a_rise() -> None:
    levels = [[0.30, 0.29, 0.31], [0.34, 0.33, 0.36], [0.35, 0.37, 0.38], [0.40, 0.41, 0.39]]

    assert trend(levels) == pytest.approx(trend(levels[::-1]))
    assert trend(levels) == pytest.approx(2 * stats.page_trend_test(np.array(levels).T).pvalue)


def test_no_trend_without_order() -> None:
    p = trend([[0.1, 0.3, 0.2], [0.3, 0.1, 0.3], [0.2, 0.2, 0.1]])

    assert p is not None
    assert p > 0.5


@pytest.mark.parametrize("levels", [[[1.0, 2.0], [2.0, 3.0]], [[1.0], [2.0], [3.0]], []])
def test_a_trend_needs_three_levels_and_two_seeds(levels: list[list[float]]) -> None:
    assert trend(levels) is None
