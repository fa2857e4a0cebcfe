"""What may be said of differences: units, families, marks, trends, and sentences of them."""

from __future__ import annotations

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

from harness.document.table import Mark
from harness.report.collect import Collection, collect
from harness.report.comparisons import Over, Verdict
from harness.report.findings import Findings, find
from harness.report.sentences import sentences, trend_sentences
from harness.space import Run, Sweep, expand

LAYERS = "model.text.layers"
WEIGHT = "objective.mlm.weight"


def found_in(records: Records, sweep: Sweep, runs: list[Run]) -> tuple[Collection, Findings]:
    collection = collect(sweep, runs, records.store)
    return collection, find(collection)


def depths(records: Records, **show: object) -> tuple[Collection, Findings]:
    sweep = depth_sweep(**{"metrics": [T2I], **show})
    runs, _ = runs_by(sweep)
    fill(records, runs)
    return found_in(records, sweep, runs)


def two_layers(
    records: Records,
    difference: Callable[[int], np.ndarray],
    seeds: int = 3,
) -> tuple[Collection, Findings]:
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


# ---- units


def test_with_outcomes_the_interval_covers_seeds_and_items(records: Records) -> None:
    _, findings = two_layers(records, lambda seed: gain(20 + seed, lost=5))

    comparison = findings.cells[(1, I2T)].comparison

    assert comparison is not None
    assert comparison.interval is not None
    low, high, over = comparison.interval
    assert over is Over.BOTH
    assert comparison.seeds.low is not None
    assert low < comparison.seeds.low, "test items vary too"
    assert 0 < low < comparison.mean < high
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
    assert findings.cells[(1, I2T)].mark is Mark.NONE
    assert sentences(collection, findings, I2T) == [
        "Against layers 2, one seed alone, which says nothing of others, shows of I2T R@1 with "
        "layers 1 (+15.0 [10.0, 20.5])."
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

    # four depths against 12 on two metrics; both metrics differ alike, so p is shared by two
    assert findings.family == 8
    assert comparison is not None
    assert comparison.p is not None
    assert comparison.adjusted is not None
    assert comparison.adjusted > comparison.p
    assert comparison.verdict is Verdict.WORSE


def test_what_the_correction_takes_is_neither_better_nor_undecided(records: Records) -> None:
    # differences 1, 2, 3 points on ten depths: p = 0.074; 1, 1.2, 1.4: p = 0.0091, times ten > 0.05
    sweep = sweep_of({LAYERS: list(range(12, 1, -1))}, metrics=[T2I], baseline={LAYERS: 12})
    runs = expand(sweep)
    for run in runs:
        layers = run.config.model.text.layers
        more = 0.0 if layers == 12 else 0.01 + 0.002 * run.seed
        records.done(run, t2i=0.3 + 0.001 * run.seed**2 + more)

    _, findings = found_in(records, sweep, runs)

    comparison = findings.cells[(1, T2I)].comparison
    assert comparison is not None
    assert comparison.p == pytest.approx(0.0091, abs=1e-4)
    assert comparison.adjusted == pytest.approx(10 * comparison.p)
    assert comparison.verdict is Verdict.LOST


def marks(findings: Findings, metric: str) -> list[str]:
    points = sorted(point for point, name in findings.cells if name == metric)
    return [findings.cells[(point, metric)].mark.value for point in points]


def test_a_tie_is_marked_and_nothing_is_bold(records: Records) -> None:
    _, findings = depths(records)

    # 8 layers cannot be told from 12; 1, 2 and 4 can
    assert marks(findings, T2I) == ["", "", "", "tied", "tied"]


def test_best_and_second_where_each_is_told_from_all_below(records: Records) -> None:
    sweep = sweep_of({LAYERS: [1, 2, 3]}, metrics=[T2I])
    runs = expand(sweep)
    for run in runs:
        layers = run.config.model.text.layers
        records.done(run, t2i=0.1 * layers + 0.001 * layers * run.seed)

    _, findings = found_in(records, sweep, runs)

    assert marks(findings, T2I) == ["", "second", "best"]


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


def test_sensitivity_by_hand(records: Records) -> None:
    _, findings = depths(records)

    seen = findings.sensitivity[T2I]

    # paired standard errors of the four depths, pooled; 3.2640 x sqrt 3 of them is found 4 in 5
    differences = [np.subtract(DEPTHS[d], DEPTHS[12]) for d in (1, 2, 4, 8)]
    pooled = np.sqrt(np.mean([d.var(ddof=1) / 3 for d in differences]))
    assert seen.effect == pytest.approx(3.2640435 * np.sqrt(3) * pooled, rel=1e-4)
    assert (seen.seeds, seen.over) == (3, Over.SEEDS)


# ---- along the axis


def test_where_a_rise_stops_is_said_in_words(records: Records) -> None:
    collection, findings = depths(records, labels={LAYERS: "text layers"})

    (trend,) = findings.trends
    assert (trend.best, trend.enough, trend.rising) == (12.0, 8.0, True)
    (said,) = trend_sentences(collection, findings, T2I)
    assert said.startswith("T2I R@1 rises with text layers (Page's trend test over seeds, p = ")
    assert "8 is the smallest that cannot be told from the best, 12 (\u22120.3 [" in said


def test_a_slow_rise_is_not_taken_for_a_plateau(records: Records) -> None:
    """Every neighbour ties with the best, and yet all seeds rise from level to level."""
    sweep = sweep_of({LAYERS: [1, 2, 3, 4, 6]}, metrics=[T2I])
    runs = expand(sweep)
    noise = {0: 0.0, 1: 0.02, 2: -0.01}
    for run in runs:
        place = [1, 2, 3, 4, 6].index(run.config.model.text.layers)
        records.done(run, t2i=0.3 + place * (0.005 + noise[run.seed] / 5))

    _, findings = found_in(records, sweep, runs)

    (trend,) = findings.trends
    assert trend.enough > 1


def test_levels_without_all_seeds_are_left_out_and_named(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs, skip=((8, 1),))

    collection, findings = found_in(records, sweep, runs)

    (said,) = trend_sentences(collection, findings, T2I)
    assert said.endswith("left out, for want of a seed: 8.")


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

    # 0.018 +- 4.302653 x 0.001 / sqrt 3
    assert sentences(collection, findings, T2I)[0] == (
        "With MLM weight 0.5 against MLM weight 0, T2I R@1 rises by 1.8 points [1.6, 2.0] at text "
        "layers 4; no difference in T2I R@1 is detectable at text layers 12 "
        "(0.0 [\u22122.8, 2.8])."
    )


def test_many_changes_are_counted_and_not_listed(records: Records) -> None:
    axes = {LAYERS: [1, 2, 4], WEIGHT: [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]}
    sweep = sweep_of(axes, metrics=[T2I], baseline={WEIGHT: 0.0})
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3 + 0.01 * run.seed)

    collection, findings = found_in(records, sweep, runs)

    assert sentences(collection, findings, T2I)[0] == (
        "Of 15 differences in T2I R@1 to the baseline, 0 are for the better, 0 for the worse, 0 "
        "not detectable and 15 have no interval over seeds to judge by."
    )
