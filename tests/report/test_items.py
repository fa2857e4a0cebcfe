"""Item statistics against values worked out by hand, against scipy, and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.report.items import MOST, bootstrap, crossed, mcnemar

# ---- seeds and items at once


def test_crossed_by_hand() -> None:
    # seeds mean 1 and 3, items 1, 3 and 2, and no interaction: mean squares 6, 2 and 0
    found = crossed(np.array([[0.0, 2.0, 1.0], [2.0, 4.0, 3.0]]))

    assert found is not None
    assert found.mean == 2.0
    assert found.error == pytest.approx(math.sqrt((6 + 2 - 0) / 6))
    assert found.error_seeds == pytest.approx(math.sqrt(6 / 6))
    assert found.error_items == pytest.approx(math.sqrt(2 / 6))
    # Satterthwaite: (4/3)^2 / (1^2 / 1 + (1/3)^2 / 2)
    assert found.df == pytest.approx((4 / 3) ** 2 / (1 + 1 / 18))
    half = stats.t.ppf(0.975, found.df) * found.error
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))


def test_without_variance_of_items_it_is_the_paired_t_test_over_seeds() -> None:
    by_seed = np.array([0.02, 0.035, 0.01])

    found = crossed(np.repeat(by_seed[:, None], 50, axis=1))
    expected = stats.ttest_1samp(by_seed, 0.0)

    assert found is not None
    assert found.p == pytest.approx(expected.pvalue)
    assert found.low == pytest.approx(expected.confidence_interval(0.95).low)


def test_without_variance_of_seeds_it_is_the_t_test_over_items() -> None:
    by_item = np.array([1.0, 0.0, -1.0, 1.0, 1.0, 0.0, 1.0])

    found = crossed(np.repeat(by_item[None, :], 3, axis=0))

    assert found is not None
    assert found.p == pytest.approx(stats.ttest_1samp(by_item, 0.0).pvalue)


def test_the_interval_is_never_narrower_than_either_factor_alone() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        found = crossed(rng.choice([-1.0, 0.0, 1.0], size=(3, 20)))
        assert found is not None
        assert found.error >= max(found.error_seeds, found.error_items) - 1e-15


def test_no_spread_or_a_single_seed_gives_no_interval() -> None:
    assert crossed(np.full((3, 10), 0.1)) is None
    assert crossed(np.array([[0.0, 1.0, 1.0]])) is None


def test_it_covers_the_truth_where_each_factor_alone_does_not() -> None:
    rng = np.random.default_rng(0)
    covered = {"both": 0, "items": 0}
    tables = 600
    for _ in range(tables):
        seeds, items = rng.normal(0, 0.03, (3, 1)), rng.normal(0, 0.3, (1, 80))
        differences = 0.02 + seeds + items + rng.normal(0, 0.4, (3, 80))
        found = crossed(differences)
        assert found is not None
        covered["both"] += found.low <= 0.02 <= found.high
        half = 1.96 * found.error_items
        covered["items"] += abs(found.mean - 0.02) <= half

    assert covered["both"] / tables == pytest.approx(0.95, abs=0.03)
    assert covered["items"] / tables < 0.93


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
