"""Families, power, the best and what is enough, against scipy, statsmodels and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from harness.stats.analysis import Measured, Plan, analyse, under_trained
from harness.stats.best import best_of, dunnett, enough
from harness.stats.layout import Layout, Values
from harness.stats.power import detectable, noncentrality, unbiased
from harness.stats.tests import ContrastTest, Judged, MixedModel, difference, holm, judge


def table(*rows: tuple[float, ...]) -> Values:
    return {point: dict(enumerate(row)) for point, row in enumerate(rows)}


def noisy(means: list[float], sd: float, seeds: int = 3, seed: int = 0) -> Values:
    rng = np.random.default_rng(seed)
    return {p: {s: m + float(rng.normal(0, sd)) for s in range(seeds)} for p, m in enumerate(means)}


# ---- families


def test_holm_by_hand() -> None:
    # 0.01 x 3; 0.03 x 2; 0.04 x 1, raised to what a smaller p already got
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_holm_equals_statsmodels() -> None:
    given = [0.01, 0.04, 0.03, 0.005, 0.5]

    assert holm(given) == pytest.approx(multipletests(given, method="holm")[1].tolist())


def test_an_adjusted_p_is_never_above_one() -> None:
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_tests_without_a_p_are_in_no_family() -> None:
    judged = judge({"a": ContrastTest(0.1, 3, 0.01, 8), "b": ContrastTest(0.1, 3)})

    assert judged["a"].family == 1
    assert judged["b"].adjusted is None
    assert not judged["b"].significant


def measured(name: str, seed: int, means: list[float], sd: float = 0.01) -> Measured:
    return Measured(name, noisy(means, sd, seed=seed))


def plan(primary: str | None = "first") -> Plan:
    return Plan(
        comparisons=[(0, 2), (1, 2)],
        lines=[{0: 0.0, 1: 1.0, 2: 2.0}],
        primary=primary,
        margin=None if primary is None else 0.02,
        cost={0: 1.0, 1: 2.0, 2: 3.0},
    )


def test_added_metrics_never_change_a_primary_verdict() -> None:
    first = measured("first", 1, [0.3, 0.33, 0.36])
    others = [measured(f"m{n}", n + 2, [0.3, 0.3, 0.3]) for n in range(20)]

    alone = analyse([first], plan()).by_metric["first"]
    beside = analyse([*others, first], plan()).by_metric["first"]

    assert beside == alone
    assert {judged.family for judged in alone.comparisons.values()} == {3}


def test_without_a_primary_metric_all_are_one_family_and_nothing_is_enough() -> None:
    first, other = measured("first", 1, [0.3, 0.33, 0.36]), measured("other", 2, [0.3, 0.3, 0.3])

    found = analyse([first, other], plan(primary=None))

    families = {j.family for each in found.by_metric.values() for j in each.comparisons.values()}
    assert families == {6}
    assert all(each.enough is None for each in found.by_metric.values())


def test_points_that_are_barred_are_not_compared_and_have_no_best() -> None:
    barred = Plan(
        comparisons=[(0, 2), (1, 2)], barred=lambda a, b: "cpu and cuda" if 0 in (a, b) else None
    )

    found = analyse([measured("first", 1, [0.3, 0.33, 0.36])], barred).by_metric["first"]

    assert set(found.comparisons) == {(1, 2)}
    assert found.best is None


def test_a_point_that_one_metric_shows_to_be_noisy_is_so_in_the_secondary_ones() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(0.3, 0.01, (5, 5))
    loud = rows + np.array([[0.0], [1.0], [0.0], [0.0], [0.0]]) * rng.normal(0, 1, 5)
    quiet = [Measured(f"m{n}", table(*map(tuple, rng.normal(0.3, 0.01, (5, 5))))) for n in range(2)]
    shown = Measured("loud", table(*map(tuple, loud.tolist())))
    pairs = Plan(comparisons=[(0, 4), (1, 4)], primary="m0")

    analysis = analyse([*quiet, shown], pairs)
    found = analysis.by_metric

    assert analysis.noise.noisy == (1,)
    assert (found["m0"].noisy, found["m1"].noisy, found["loud"].noisy) == ((), (1,), (1,))
    assert found["m1"].comparisons[1, 4].test.df == 4
    assert found["m1"].comparisons[0, 4].test.df == 12
    # what can be found is told of the comparisons that share their variance, where there are some
    assert found["m1"].detectable == detectable([found["m1"].comparisons[0, 4]])
    (own,) = [each for each in found["m1"].comparisons.values() if not each.test.pooled]
    assert detectable([own]) == pytest.approx(detectable([own, own]))


# ---- power


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_shift_that_is_found_equals_statsmodels(seeds: int) -> None:
    # in standard deviations of the differences; the far tail, which is no finding, is not counted
    expected = TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8)

    assert noncentrality(seeds - 1, 0.05) / math.sqrt(seeds) == pytest.approx(expected, rel=1e-5)


def test_a_detectable_difference_is_found_four_times_out_of_five() -> None:
    rng = np.random.default_rng(0)
    shift = noncentrality(8, 0.05 / 5)

    t = (rng.normal(shift, 1, 40_000)) / np.sqrt(rng.chisquare(8, 40_000) / 8)

    assert (2 * stats.t.sf(t, 8) < 0.05 / 5).mean() == pytest.approx(0.8, abs=0.01)


def test_the_printed_difference_is_right_in_the_median() -> None:
    rng = np.random.default_rng(1)
    errors = np.sqrt(rng.chisquare(2, 4_000) / 2)
    printed = [detectable([Judged(ContrastTest(0.0, 2, float(e), 2), 1.0, 4)]) for e in errors]

    assert np.median(printed) == pytest.approx(noncentrality(2, 0.05 / 4), rel=0.05)
    assert unbiased(2) == pytest.approx(math.sqrt(math.log(2)))


# ---- the best


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 4), (2, 3), (4, 3), (7, 5)])
def test_dunnetts_quantile_equals_scipys(comparisons: int, seeds: int) -> None:
    # scipy's one-sided p of a statistic at the quantile is 5 %: points with equal numbers of seeds
    df = (comparisons + 1) * (seeds - 1)
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(comparisons + 1, seeds))
    bound = dunnett(comparisons, df)
    pooled = math.sqrt(samples.var(axis=1, ddof=1).mean() * 2 / seeds)
    samples[0] += samples[1:].mean(axis=1).max() + bound * pooled - samples[0].mean()
    for row in samples[1:]:
        row -= row.mean()
    samples[0] -= samples[0].mean()
    found = stats.dunnett(
        *(samples[1:] + bound * pooled), control=samples[0], alternative="greater", rng=rng
    )

    assert found.pvalue.max() == pytest.approx(0.05, abs=0.002)


def test_the_best_is_told_from_all_others_and_a_tie_is_none() -> None:
    apart = best_of(MixedModel(Layout(noisy([0.1, 0.2, 0.3], 0.005))), [0, 1, 2], 1)
    tied = best_of(MixedModel(Layout(noisy([0.1, 0.299, 0.3], 0.005))), [0, 1, 2], 1)

    assert apart is not None
    assert tied is not None
    assert (apart.leader, apart.won) == (2, True)
    assert not tied.won
    assert set(tied.candidates) == {1, 2}


def test_lower_may_be_better() -> None:
    found = best_of(MixedModel(Layout(noisy([0.1, 0.2, 0.3], 0.005))), [0, 1, 2], -1)

    assert found is not None
    assert (found.leader, found.won) == (0, True)


def test_a_bound_on_the_loss_is_never_zero_because_a_point_leads() -> None:
    found = best_of(MixedModel(Layout(noisy([0.30, 0.30, 0.30], 0.02))), [0, 1, 2], 1)

    assert found is not None
    assert found.estimates[found.leader] < 0
    assert found.losses[found.leader] > 0


def test_what_is_enough_is_the_cheapest_within_the_margin() -> None:
    cost = {0: 1.0, 1: 2.0, 2: 3.0}
    model = MixedModel(Layout(noisy([0.10, 0.295, 0.300], 0.002)))

    found = enough(model, [0, 1, 2], cost, 0.02, 1)

    assert found is not None
    assert found.point == 1
    assert found.loss < 0.02
    assert found.open is None


def test_what_cannot_be_told_says_how_many_seeds_would() -> None:
    cost = {0: 1.0, 1: 2.0, 2: 3.0}
    model = MixedModel(Layout(noisy([0.30, 0.30, 0.30], 0.02)))

    found = enough(model, [0, 1, 2], cost, 0.03, 1)

    assert found is not None
    assert found.point is None
    assert found.open == 0
    assert found.open_loss > 0.03
    assert found.seeds is not None
    assert found.seeds > 3


def test_where_cost_does_not_differ_nothing_is_asked() -> None:
    model = MixedModel(Layout(noisy([0.30, 0.30, 0.30], 0.02)))

    assert enough(model, [0, 1, 2], dict.fromkeys(range(3), 1.0), 0.03, 1) is None


def test_four_points_just_beyond_the_margin_are_seldom_called_enough() -> None:
    rng = np.random.default_rng(2)
    means, wrong, sweeps = [0.2795] * 4 + [0.3], 0, 1_500
    for _ in range(sweeps):
        rows = rng.normal(means, 0.006, (3, 5)).T
        model = MixedModel(Layout(table(*map(tuple, rows.tolist()))))
        found = enough(model, range(5), dict(enumerate([1.0, 2, 3, 4, 5])), 0.02, 1)
        wrong += found is not None and found.point in {0, 1, 2, 3}

    assert wrong / sweeps <= 0.06


# ---- bad input


def test_one_point_or_one_seed_has_nothing_to_test() -> None:
    for values in (
        table((0.3, 0.4, 0.5)),
        table((0.3,), (0.4,)),
        table((0.3, 0.3), (0.3, 0.3)),
        {},
    ):
        found = analyse([Measured("first", values)], Plan(comparisons=[(0, 1)], primary="first"))
        each = found.by_metric["first"]
        assert each.best is None
        assert each.detectable is None
        assert all(judged.adjusted is None for judged in each.comparisons.values())


# ---- under-training


def falling(rise: float, sd: float = 0.01) -> tuple[Values, Measured, dict[int, float]]:
    loss = noisy([0.5 + rise * n for n in range(5)], sd, seed=3)
    metric = Measured("first", noisy([0.5 - 0.02 * n for n in range(5)], 0.01, seed=4))
    return loss, metric, {n: float(n) for n in range(5)}


def test_rising_loss_and_a_falling_metric_are_under_training() -> None:
    loss, metric, line = falling(0.1)

    found = under_trained(loss, metric, line)

    assert found is not None
    assert found.loss.estimate == pytest.approx(0.1, abs=0.01)
    assert found.metric.estimate < 0
    assert found.falls


def test_a_flat_metric_is_no_sign_of_over_sizing_and_told_apart() -> None:
    loss, _, line = falling(0.1)
    flat = Measured("first", noisy([0.5] * 5, 0.01, seed=4))

    found = under_trained(loss, flat, line)

    assert found is not None
    assert not found.falls


def test_a_loss_that_falls_with_capacity_is_healthy() -> None:
    assert under_trained(*falling(-0.1)) is None


def test_an_order_that_may_be_luck_is_no_sign() -> None:
    assert under_trained(*falling(0.002, sd=0.05)) is None


def test_a_pair_that_needs_its_own_seeds_has_bonferronis_critical_value() -> None:
    rows = np.random.default_rng(5).normal(0.3, 0.001, (4, 5))
    rows[0] += np.array([0.3, -0.3, 0.2, -0.2, 0.0])
    model = MixedModel(Layout(table(*map(tuple, rows.tolist()))))

    found = best_of(model, range(4), 1)

    assert model.noisy == (0,)
    assert found is not None
    test = model.test(difference(1, 0))
    assert test is not None
    assert test.error is not None
    bound = test.estimate + test.error * stats.t.isf(0.05 / 3, 4)
    assert found.losses[0] >= bound - 1e-12
