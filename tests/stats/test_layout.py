"""The linear model of a metric, against statsmodels and against variances worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from harness.stats.layout import ItemSpread, Layout, Values
from harness.stats.tests import MixedModel, Noise, difference, noise_of, slope


def values_of(table: np.ndarray, holes: tuple[tuple[int, int], ...] = ()) -> Values:
    return {
        point: {s: float(v) for s, v in enumerate(row) if (point, s) not in holes}
        for point, row in enumerate(table)
    }


def ols(values: Values) -> tuple[sm.regression.linear_model.RegressionResults, int]:
    """The same model by statsmodels: a column a point, and a column a seed but the first."""
    seen = [(p, s, v) for p, found in values.items() for s, v in found.items()]
    points, seeds = sorted({p for p, _, _ in seen}), sorted({s for _, s, _ in seen})
    design = np.array([[p == q for q in points] + [s == t for t in seeds[1:]] for p, s, _ in seen])
    return sm.OLS([v for _, _, v in seen], design.astype(float)).fit(), len(points)


@pytest.mark.parametrize("holes", [(), ((2, 1),), ((0, 0), (2, 1), (4, 2))])
def test_differences_and_errors_equal_statsmodels(holes: tuple[tuple[int, int], ...]) -> None:
    table = np.random.default_rng(1).normal(size=(5, 3)) + np.arange(5)[:, None]
    values = values_of(table, holes)
    oracle, points = ols(values)
    model = MixedModel(Layout(values))
    assert model.noisy == ()

    for point in range(4):
        contrast = np.zeros(points + 2)
        contrast[[point, 4]] = 1, -1
        expected = oracle.t_test(contrast)
        found = model.test(difference(point, 4))

        assert found is not None
        assert found.estimate == pytest.approx(expected.effect.item())
        assert found.error == pytest.approx(expected.sd.item())
        assert found.df == oracle.df_resid
        assert found.p == pytest.approx(expected.pvalue.item())
        assert found.interval == pytest.approx(expected.conf_int()[0])


def test_every_difference_at_once_is_each_by_itself() -> None:
    table = np.random.default_rng(2).normal(size=(5, 4))
    table[1] *= 40  # a noisy point
    scores = {(p, s): table[p, s] + np.random.default_rng(s).normal(size=50) for p in range(4)
              for s in range(4)}  # fmt: skip
    model = MixedModel(Layout(values_of(table, ((3, 2),))), ItemSpread(scores))
    gaps = model.differences([0, 1, 2], range(5))

    assert model.noisy == (1,)
    for row, rival in enumerate((0, 1, 2)):
        for point in range(5):
            if point != rival:
                test = model.test(difference(rival, point))
                assert test is not None
                assert gaps.estimates[row, point] == pytest.approx(test.estimate)
                assert gaps.errors[row, point] == pytest.approx(test.error)


def test_two_points_are_the_paired_t_test() -> None:
    a, b = np.array([[0.31, 0.36, 0.33, 0.40], [0.30, 0.34, 0.33, 0.37]])
    found = MixedModel(Layout(values_of(np.stack([a, b])))).test(difference(0, 1))

    assert found is not None
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.df == 3


def test_a_slope_equals_scipys_on_the_means() -> None:
    table = np.random.default_rng(3).normal(size=(4, 3)) + np.arange(4)[:, None]
    places = {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.585}

    found = MixedModel(Layout(values_of(table))).test(slope(places))

    expected = stats.linregress(list(places.values()), table.mean(axis=1))
    assert found is not None
    assert found.estimate == pytest.approx(expected.slope)


def test_points_that_share_no_seed_cannot_be_compared() -> None:
    layout = Layout({0: {0: 0.1, 1: 0.2}, 1: {2: 0.3, 3: 0.5}})

    assert layout.fit(difference(0, 1)) is None


def test_seeds_that_agree_exactly_give_no_error() -> None:
    # 0.3 - 0.2 and 0.2 - 0.1 differ in the seventeenth digit only
    found = MixedModel(Layout({0: {0: 0.3, 1: 0.2}, 1: {0: 0.2, 1: 0.1}})).test(difference(0, 1))

    assert found is not None
    assert (found.error, found.p, found.interval) == (None, None, None)


# ---- unequal noise


def test_the_ratio_of_a_point_is_the_f_of_leaving_it_out() -> None:
    table = np.random.default_rng(4).normal(size=(4, 3))
    for holes in ((), ((1, 2),)):
        layout = Layout(values_of(table, holes))
        ratios, own, rest = layout.noise_ratios
        for place, point in enumerate(layout.points):
            left = layout.without([point])
            assert left.mean_square is not None
            drop = (layout.residual - left.residual) / (layout.df - left.df)
            assert ratios[place] == pytest.approx(drop / left.mean_square)
            assert (own[place], rest[place]) == (layout.df - left.df, left.df)


def test_a_noisy_point_is_named_and_judged_by_its_own_seeds() -> None:
    rng = np.random.default_rng(5)
    table = rng.normal(size=(5, 5))
    table[3] *= 30
    layout = Layout(values_of(table))
    model = MixedModel(layout)

    own, rest = model.test(difference(3, 0)), model.test(difference(1, 0))

    assert noise_of([layout]).noisy == (3,)
    assert own is not None
    assert rest is not None
    assert own.p == pytest.approx(stats.ttest_rel(table[3], table[0]).pvalue)
    assert (own.df, own.pooled) == (4, False)
    assert (rest.df, rest.pooled) == (12, True)


def test_equal_noise_is_called_unequal_in_one_sweep_of_twenty() -> None:
    rng = np.random.default_rng(6)
    tables = 2_000
    called = sum(
        bool(noise_of([Layout(values_of(rng.normal(size=(5, 3))))]).noisy) for _ in range(tables)
    )

    assert called / tables == pytest.approx(0.05, abs=0.015)


def test_metrics_together_call_a_sweep_unequal_as_seldom_as_one() -> None:
    rng = np.random.default_rng(7)
    sweeps = 600
    called = [
        noise_of([Layout(values_of(table)) for table in rng.normal(size=(6, 5, 3))])
        for _ in range(sweeps)
    ]

    assert sum(bool(each.noisy) for each in called) / sweeps == pytest.approx(0.05, abs=0.03)
    doubted = sum(bool(each.noisy or each.doubtful) for each in called)
    assert doubted / sweeps == pytest.approx(0.2, abs=0.05)


def test_what_no_single_metric_shows_all_of_them_do() -> None:
    rng = np.random.default_rng(8)
    tables = rng.normal(size=(8, 5, 3)) * np.array([1.0, 4.0, 1.0, 1.0, 1.0])[:, None]
    layouts = [Layout(values_of(table)) for table in tables]
    alone = [noise_of([layout]).noisy for layout in layouts]

    assert noise_of(layouts).noisy == (1,)
    assert sum(found == (1,) for found in alone) < len(alone)


def test_a_doubtful_point_has_its_own_seeds_and_never_less_than_the_common_variance() -> None:
    rng = np.random.default_rng(9)
    table = rng.normal(size=(5, 3))
    table[1] = table[4] + 1 + 1e-3 * rng.normal(size=3)  # agrees with point 4, by luck
    layout = Layout(values_of(table))
    model = MixedModel(layout, noise=Noise(doubtful=(1,)))

    own, rest = model.test(difference(1, 4)), model.test(difference(0, 4))

    assert own is not None
    assert rest is not None
    assert layout.mean_square is not None
    assert (own.df, own.pooled) == (2, False)
    assert own.error == pytest.approx(np.sqrt(layout.mean_square * 2 / 3))
    assert (rest.df, rest.pooled, model.noisy) == (8, True, ())


# ---- items


def test_what_items_add_by_hand() -> None:
    # two points, two seeds, three items; the difference is 0, 2, 1 at one seed and 2, 4, 3 at the
    # other: items mean 1, 3, 2, so a variance of 1 over 3 items, and no noise within runs
    zero = np.zeros(3)
    scores = {
        (0, 0): np.array([0.0, 2, 1]),
        (0, 1): np.array([2.0, 4, 3]),
        (1, 0): zero,
        (1, 1): zero,
    }

    spread = ItemSpread(scores)

    assert spread.parts(difference(0, 1)) == pytest.approx((1 / 3, 0.0))
    assert spread.beyond(difference(0, 1)) == pytest.approx(1 / 3)
    assert spread.differences([0], [1])[0, 0] == pytest.approx(1 / 3)


def test_noise_within_runs_adds_nothing_on_the_average() -> None:
    rng = np.random.default_rng(7)
    parts = []
    for _ in range(300):
        scores = {(p, s): rng.normal(size=100) for p in range(2) for s in range(3)}
        parts.append(ItemSpread(scores).parts(difference(0, 1)))
    seen, within = np.mean(parts, axis=0)

    assert seen == pytest.approx(2 / 3 / 100, rel=0.03)
    assert within == pytest.approx(seen, rel=0.03)


def test_an_interaction_of_points_and_items_is_found() -> None:
    rng = np.random.default_rng(8)
    parts = []
    for _ in range(300):
        own = rng.normal(size=(2, 100))  # variance 1 a point, the same at every seed
        scores = {(p, s): own[p] + rng.normal(size=100) for p in range(2) for s in range(3)}
        seen, within = ItemSpread(scores).parts(difference(0, 1))
        parts.append(seen - within)

    assert np.mean(parts) == pytest.approx(2 / 100, rel=0.05)


def test_items_need_two_seeds_in_common() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        ItemSpread({(0, 0): np.zeros(3), (0, 1): np.zeros(3), (1, 0): np.zeros(3)})
