"""What may be said of differences: units, families, marks, trends, and sentences of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from report_records import (
    DEPTHS,
    I2T,
    ROLE,
    T2I,
    Records,
    depth_sweep,
    edit_json,
    fill,
    metric,
    runs_by,
    sweep_of,
)
from scipy import stats
from statsmodels.stats.power import TTestPower

from harness.config.sweep import Run, Sweep, expand
from harness.report.sentences import Teller
from harness.results.collect import Collection, collect
from harness.results.comparisons import Verdict
from harness.results.findings import ReportFindings, find
from harness.stats.tests import Over

LAYERS = "model.text.layers"
WEIGHT = "objective.mlm.weight"


def found_in(records: Records, sweep: Sweep, runs: list[Run]) -> tuple[Collection, ReportFindings]:
    collection = collect(sweep, runs, records.store)
    return collection, find(collection)


def depths(records: Records, **show: object) -> tuple[Collection, ReportFindings]:
    sweep = depth_sweep(**{"metrics": [T2I], **show})
    runs, _ = runs_by(sweep)
    fill(records, runs)
    return found_in(records, sweep, runs)


def two_layers(
    records: Records,
    difference: Callable[[int], np.ndarray],
    seeds: int = 3,
) -> tuple[Collection, ReportFindings]:
    """1 layer against its baseline of 2, whose I2T outcomes differ picture by picture as given."""
    sweep = sweep_of({LAYERS: [2, 1]}, metrics=[I2T], baseline={LAYERS: 2})
    runs = expand(sweep, seeds=range(seeds))
    for run in runs:
        right = np.tile(np.array([1, 0], dtype=np.uint8), 100)
        if run.config.model.text.layers == 1:
            right = (right + difference(run.seed)).astype(np.uint8)
        records.done(run, t2i=0.5, i2t=float(right.mean()))
        records.outcomes(
            run,
            {
                "test/items/images": np.array([f"{n}.png" for n in range(200)]),
                "test/items/text_retrieval_recall": np.arange(200, dtype=np.int32),
                I2T: right,
            },
        )
    return found_in(records, sweep, runs)


def gain(pictures: int, lost: int = 0) -> np.ndarray:
    """So many wrong pictures made right, so many right ones made wrong."""
    change = np.zeros(200, dtype=int)
    change[1 : 2 * pictures : 2] = 1
    change[200 - 2 * lost : 200 : 2] = -1
    return change


def told(collection: Collection, findings: ReportFindings, name: str) -> list[str]:
    return Teller(collection, findings, findings.answered[0]).differences(name)


def slopes(collection: Collection, findings: ReportFindings, name: str) -> list[str]:
    return Teller(collection, findings, findings.answered[0]).trends(name)


# ---- units


def test_with_outcomes_the_interval_covers_seeds_and_items(records: Records) -> None:
    _, findings = two_layers(records, lambda seed: gain(20 + seed, lost=5))

    comparison = findings.cells[(1, I2T)].comparison

    assert comparison is not None
    assert comparison.interval is not None
    low, high, over = comparison.interval
    assert over is Over.BOTH
    assert 0 < low < comparison.mean < high
    # 15, 16 and 17 of 200, so 0.005 a seed; most items are gained at every seed, which other items
    # would not be
    half = 4.302653 * 0.005 / np.sqrt(3)
    assert high - comparison.mean > half, "test items vary too"
    assert comparison.mean == pytest.approx(16 / 200)
    # 21 gained and 5 lost at seed 1
    assert comparison.exact[1] == pytest.approx(0.00249, abs=1e-5)
    assert len(findings.outcomes) == 6
    assert findings.unread == {}


def test_one_seed_has_an_interval_over_items_and_no_verdict(records: Records) -> None:
    collection, findings = two_layers(records, lambda seed: gain(30), seeds=1)

    comparison = findings.cells[(1, I2T)].comparison

    assert comparison is not None
    assert comparison.verdict is Verdict.ONE_SEED
    assert comparison.interval is not None
    assert comparison.interval[2] is Over.ITEMS
    assert comparison.interval[0] > 0
    assert findings.mark(findings.cells[(1, I2T)]) == ""
    assert told(collection, findings, I2T) == [
        "I2T R@1: nothing to test.",
        "One seed says nothing of other seeds: 1 layer +15.0 [10.0, 20.5].",
    ]


def test_without_outcomes_the_interval_is_over_seeds_and_the_reason_is_kept(
    records: Records,
) -> None:
    _, findings = depths(records)

    comparison = findings.cells[(2, T2I)].comparison

    assert comparison is not None
    assert comparison.interval is not None
    assert comparison.interval[2] is Over.SEEDS
    assert {reason: len(keys) for reason, keys in findings.unread.items()} == {
        "no per-example outcomes on disk": 15
    }


# ---- families and marks


def test_the_correction_is_over_all_comparisons_of_the_table(records: Records) -> None:
    _, findings = depths(records, metrics=[T2I, I2T])

    comparison = findings.cells[(2, T2I)].comparison

    # four depths against 12 and a slope, on two metrics; both differ alike, so p is shared by two
    assert comparison is not None
    assert comparison.judged is not None
    assert comparison.judged.family == 10
    assert comparison.p is not None
    assert comparison.adjusted is not None
    assert comparison.adjusted > comparison.p
    assert comparison.verdict is Verdict.WORSE


def test_what_the_correction_takes_is_neither_better_nor_undecided(records: Records) -> None:
    # three points, of which one rises by 1.0, 1.4 and 1.2 points over its baseline at three seeds
    sweep = sweep_of({LAYERS: [12, 6]}, metrics=[T2I, I2T, ROLE], baseline={LAYERS: 12})
    runs = expand(sweep)
    for run in runs:
        more = 0.0 if run.config.model.text.layers == 12 else 0.01 + 0.004 * (run.seed % 2)
        records.done(run, t2i=0.3 + more, i2t=0.4 + 0.01 * run.seed * more, role=0.5 + more**2)

    _, findings = found_in(records, sweep, runs)

    # 0.01133 over 0.00231 / sqrt 3 with 2 degrees of freedom is t = 8.5; three tests of one family
    comparison = findings.cells[(1, T2I)].comparison
    assert comparison is not None
    assert comparison.p == pytest.approx(0.01356, abs=1e-5)
    assert comparison.adjusted is not None
    assert comparison.adjusted > 0.03
    others = [findings.cells[(1, name)].comparison for name in (I2T, ROLE)]
    family = sorted(c.p for c in [comparison, *others] if c is not None and c.p is not None)
    assert comparison.adjusted == pytest.approx(comparison.p * (3 - family.index(comparison.p)))


def test_a_primary_metric_is_a_family_of_its_own(records: Records) -> None:
    _, findings = depths(records, metrics=[T2I, I2T], primary=T2I)

    first, other = findings.cells[(2, T2I)].comparison, findings.cells[(2, I2T)].comparison

    assert first is not None
    assert other is not None
    assert first.judged is not None
    assert other.judged is not None
    assert (first.primary, first.judged.family) == (True, 5)
    assert (other.primary, other.judged.family) == (False, 5)


def test_a_primary_metric_that_no_run_records_is_said(records: Records) -> None:
    _, findings = depths(records, metrics=[T2I], primary="test/mean_recal")

    (said,) = findings.notes
    assert "no verdict on the primary metric" in said
    assert "nearest: test/mean_recall" in said


def marks(findings: ReportFindings, metric: str) -> list[str]:
    points = sorted(point for point, name in findings.cells if name == metric)
    return [findings.mark(findings.cells[(point, metric)]) for point in points]


def test_a_tie_is_marked_and_nothing_is_bold(records: Records) -> None:
    _, findings = depths(records)

    # 8 layers cannot be told from 12; 1, 2 and 4 can
    assert marks(findings, T2I) == ["", "", "", "tied", "tied"]


def test_best_where_it_is_told_from_all_others(records: Records) -> None:
    sweep = sweep_of({LAYERS: [1, 2, 3]}, metrics=[T2I])
    runs = expand(sweep)
    for run in runs:
        layers = run.config.model.text.layers
        records.done(run, t2i=0.1 * layers + 0.001 * layers * run.seed)

    _, findings = found_in(records, sweep, runs)

    assert marks(findings, T2I) == ["", "", "best"]


def test_a_row_with_a_hole_is_in_no_contest(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs, skip=((12, 1),))

    _, findings = found_in(records, sweep, runs)

    assert findings.contests[T2I].leader == 3
    assert marks(findings, T2I)[4] == ""


# ---- averages


def test_an_average_is_over_listed_sets_and_never_over_a_hole(records: Records) -> None:
    tone = "test/tone/acc1"
    sweep = sweep_of({LAYERS: [1, 2]}, metrics=[T2I, ROLE, tone])
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3, role=0.5)
        hole = (run.config.model.text.layers, run.seed) == (2, 1)
        add_task(records, run, "tone", None if hole else 0.9)

    _, findings = found_in(records, sweep, runs)

    assert findings.averages == {"average acc@1": (ROLE, tone)}
    whole, hole = (findings.cells[(point, "average acc@1")] for point in (0, 1))
    assert list(whole.values.values()) == pytest.approx([0.7] * 3)
    assert hole.estimate is None
    assert hole.hole is not None
    assert hole.hole.startswith("2 of 3 seeds: seed 1 no average without tone acc@1: ")


def add_task(records: Records, run: Run, task: str, value: float | None) -> None:
    """A second zero-shot set in the result of a finished run."""

    def change(tree: dict[str, Any]) -> None:
        evaluation = tree["evaluations"][run.config.evaluation_key]
        evaluation["protocol"]["splits"]["test"]["labelled"][task] = 150
        for kind in ("acc1", "acc5", "mean_per_class_recall"):
            given = metric(value, 150, 0.2, None if value is not None else "no labels")
            evaluation["metrics"][f"test/{task}/{kind}"] = given

    edit_json(records.store.run_dir(run.key).result_file, change)


# ---- what could be seen


def test_the_smallest_detectable_difference_by_hand(records: Records) -> None:
    _, findings = depths(records)

    found = findings.answered[0].of(T2I).detectable

    # 8 layers are far noisier (F = 14.6 of 2 and 6) and judged by their own seeds; the others by
    # their residual mean square on 6 degrees, at the level 0.05 / 5
    assert findings.answered[0].of(T2I).noisy == (3,)
    table = np.array([DEPTHS[depth] for depth in (1, 2, 4, 12)])
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    error = np.sqrt((rest**2).sum() / 6 * 2 / 3)
    shift = TTestPower().solve_power(nobs=7, alpha=0.01, power=0.8) * np.sqrt(7)
    assert found == pytest.approx(error / np.sqrt(stats.chi2.median(6) / 6) * shift, rel=1e-4)


# ---- along the axis


def test_a_slope_is_told_with_its_interval_and_its_direction(records: Records) -> None:
    collection, findings = depths(records, labels={LAYERS: "text layers"})

    (trend,) = findings.trends
    assert trend.rising
    assert trend.judged.significant
    (said,) = slopes(collection, findings, T2I)
    assert said.startswith("T2I R@1 changes by +")
    assert said.endswith("per doubling of text layers (significant, Holm, 5 tests).")


def test_the_direction_is_the_slopes_and_not_that_of_the_ends(records: Records) -> None:
    """A check mark: the last level stands above the first, and the slope is for the worse."""
    sweep = sweep_of({LAYERS: [1, 2, 3, 4]}, metrics=[T2I])
    runs = expand(sweep)
    shape = {1: 0.40, 2: 0.50, 3: 0.20, 4: 0.41}
    for run in runs:
        level = shape[run.config.model.text.layers]
        records.done(run, t2i=level + 0.001 * (run.seed * run.config.model.text.layers % 3))

    collection, findings = found_in(records, sweep, runs)

    (trend,) = findings.trends
    assert not trend.rising
    assert "changes by \u2212" in slopes(collection, findings, T2I)[0]


def test_levels_without_any_seed_are_left_out_and_named(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs, skip=((8, 0), (8, 1), (8, 2)))

    collection, findings = found_in(records, sweep, runs)

    (said,) = slopes(collection, findings, T2I)
    assert said.endswith("; without layers 8.")


# ---- what is enough


def test_the_cheapest_point_within_the_margin_is_enough(records: Records) -> None:
    collection, findings = enough_of(records, {1: 0.100, 2: 0.298, 4: 0.300})

    assert Teller(collection, findings, findings.answered[0]).enough() == [
        "2 layers are enough: at most 0.6 points of T2I R@1 below the best (margin 2), with 56 % "
        "of the parameters of 4 layers."
    ]


def test_what_cannot_be_told_says_what_may_be_lost_and_how_many_seeds_would_tell(
    records: Records,
) -> None:
    collection, findings = enough_of(records, {1: 0.30, 2: 0.30, 4: 0.300}, noise=0.01)

    tell = Teller(collection, findings, findings.answered[0])
    assert tell.enough() == ["No point is shown to be enough on T2I R@1 (margin 2)."]
    enough, _ = tell.undecided()
    assert enough.startswith("whether 1 layer is enough (up to ")
    assert re.search(r" points below the best; about \d+ seeds would tell\)$", enough)


def test_a_point_at_chance_is_enough_for_nothing(records: Records) -> None:
    collection, findings = enough_of(records, {1: 0.005, 2: 0.006, 4: 0.005})

    assert Teller(collection, findings, findings.answered[0]).enough() == [
        "No point is called enough on T2I R@1 (margin 2): 1 layer is within it of the best, and at "
        "chance in every run."
    ]


@pytest.mark.parametrize(("noise", "small"), [(0.001, True), (0.02, False)])
def test_differences_that_all_lie_within_the_margin_are_called_so(
    records: Records, noise: float, small: bool
) -> None:
    collection, findings = enough_of(records, {1: 0.30, 2: 0.30, 4: 0.30}, noise)

    tell = Teller(collection, findings, findings.answered[0])
    assert ("Every 95 % interval lies within the margin of 2." in tell.differences(T2I)) is small
    differing = [said for said in tell.undecided() if " from 4 layers" in said]
    assert bool(differing) is not small


def enough_of(
    records: Records, means: dict[int, float], noise: float = 0.001
) -> tuple[Collection, ReportFindings]:
    sweep = sweep_of(
        {LAYERS: [1, 2, 4]}, metrics=[T2I], baseline={LAYERS: 4}, primary=T2I, margin=2.0
    )
    runs = expand(sweep)
    rng = np.random.default_rng(0)
    for run in runs:
        layers = run.config.model.text.layers
        t2i = means[layers] + noise * float(rng.normal())
        records.done(run, t2i=t2i, parameters=1_000_000 * layers)
    return found_in(records, sweep, runs)


# ---- sentences


def test_a_change_tried_at_two_depths_is_one_sentence(records: Records) -> None:
    sweep = sweep_of(
        {LAYERS: [4, 12], WEIGHT: [0.0, 0.5]},
        metrics=[T2I],
        baseline={WEIGHT: 0.0},
        labels={LAYERS: "text layers", WEIGHT: "MLM weight"},
    )
    runs = expand(sweep)
    more = {4: [0.018, 0.017, 0.019], 12: [0.010, -0.012, 0.003]}
    for run in runs:
        on, layers = run.config.objective.mlm.weight > 0, run.config.model.text.layers
        records.done(run, t2i=0.3 + 0.01 * run.seed + (more[layers][run.seed] if on else 0.0))

    collection, findings = found_in(records, sweep, runs)

    # 12 layers with MLM vary by 1.1 points, the others by 0.1 and less: 0.018 +- 2.7764 (4 degrees)
    # x 0.00041 x sqrt(2 / 3), and 4.3027 (2 degrees) x 0.01124 / sqrt 3
    assert told(collection, findings, T2I) == [
        "T2I R@1: 1 of 2 better than MLM weight 0: MLM weight 0.5 at 4 text layers "
        "+1.8 [1.7, 1.9] (Holm, 2 tests).",
    ]


def test_many_changes_are_counted_and_not_listed(records: Records) -> None:
    axes = {LAYERS: [1, 2, 4], WEIGHT: [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]}
    sweep = sweep_of(axes, metrics=[T2I], baseline={WEIGHT: 0.0})
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3 + 0.01 * run.seed)

    collection, findings = found_in(records, sweep, runs)

    assert told(collection, findings, T2I) == [
        "T2I R@1: nothing to test.",
        "All seeds agree exactly, so there is nothing to test.",
    ]


# ---- a metric of which less is better


def test_the_lowest_error_is_the_best_and_a_higher_one_is_worse(records: Records) -> None:
    ece = "test/role/ece"
    sweep = sweep_of({LAYERS: [2, 1]}, metrics=[ece], baseline={LAYERS: 2})
    runs = expand(sweep, seeds=range(4))
    for run in runs:
        records.done(run, t2i=0.5, i2t=0.5)
        values = {1: [0.300, 0.312, 0.304, 0.308], 2: [0.106, 0.100, 0.103, 0.109]}
        value = values[run.config.model.text.layers][run.seed]

        def change(tree: dict[str, Any], run: Run = run, value: float = value) -> None:
            entry = tree["evaluations"][run.config.evaluation_key]
            entry["protocol"]["metrics"]["ece"] = 1
            entry["metrics"][ece] = metric(value, 150, None)

        edit_json(records.store.run_dir(run.key).result_file, change)
    collection, findings = found_in(records, sweep, runs)
    assert [record.reason for record in collection.records] == [None] * 8
    comparison = findings.cells[(1, ece)].comparison
    assert comparison is not None
    assert comparison.verdict is Verdict.WORSE
    assert marks(findings, ece) == ["best", ""]
