"""The answer at the top of a report: headline metrics first, and like things in one sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from report_records import DEPTHS, I2T, ROLE, T2I, Records, depth_sweep, fill, runs_by, sweep_of
from statsmodels.stats.power import TTestPower

from harness.config.sweep import Run, Sweep, expand, points
from harness.document.text import flat
from harness.report.digest import conclusions, undecided, verdicts, warnings
from harness.results.collect import collect
from harness.results.findings import find
from harness.results.records import Record

LAYERS, WEIGHT = "model.text.layers", "objective.mlm.weight"
#: What the term adds at seeds 0, 1, 2: 1.8 points for sure, and nothing to speak of.
SURE, NOTHING = (0.018, 0.017, 0.019), (0.010, -0.012, 0.003)


def with_term(layers: Sequence[int], metrics: Sequence[str], **show: Any) -> Sweep:
    """A term on and off at every depth."""
    return sweep_of(
        {LAYERS: list(layers), WEIGHT: [0.0, 0.5]},
        metrics=list(metrics),
        baseline={WEIGHT: 0.0},
        labels={LAYERS: "text layers", WEIGHT: "MLM weight"},
        **show,
    )


def said(
    records: Records,
    sweep: Sweep,
    more: Mapping[int, Sequence[float]],
    i2t: Mapping[int, Sequence[float]] | None = None,
) -> list[str]:
    """All sentences where the term adds `more` to T2I by depth and seed, and `i2t` to I2T."""
    runs = expand(sweep)
    for run in runs:
        on, layers = run.config.objective.mlm.weight > 0, run.config.model.text.layers
        base = 0.3 + 0.01 * run.seed
        t2i = base + (more[layers][run.seed] if on else 0.0)
        other = base + ((i2t or more)[layers][run.seed] if on else 0.0)
        records.done(run, t2i=t2i, i2t=other)
    return digest_of(records, sweep, runs)


def digest_of(records: Records, sweep: Sweep, runs: Sequence[Run]) -> list[str]:
    collection = collect(sweep, runs, records.store)
    findings = find(collection)
    told = [flat(line) for line in conclusions(collection, findings)]
    return [*verdicts(collection, findings), *undecided(collection, findings), *told]


#: What a family of two tests at 2 degrees of freedom finds four times in five, in standard errors.
_SHIFT = TTestPower().solve_power(
    nobs=3, alpha=0.05 / 2 / 2, power=0.8, alternative="larger"
) * math.sqrt(3)


def test_a_primary_metric_is_told_with_its_amounts_and_the_rest_by_number(records: Records) -> None:
    sweep = with_term([4], [T2I, I2T, ROLE], primary=T2I)

    found = said(records, sweep, {4: SURE}, {4: NOTHING})

    # 0.018 +- 4.302653 x 0.001 / sqrt 3, and a family of one test
    assert found[0] == (
        "T2I R@1: 1 of 1 better than MLM weight 0: MLM weight 0.5 +1.8 [1.6, 2.0] (Holm, 1 test)."
    )
    assert found[1].startswith("Smallest detectable difference (80 % power): ")
    assert found[2].startswith("T2I R@1: highest: MLM weight 0.5")
    assert found[3].startswith("I2T R@1: no significant difference (Holm, 1 test); highest: ")
    assert found[4] == "role acc@1: nothing to test."
    assert len(found) == 5


def test_without_a_primary_metric_it_says_how_to_declare_one(records: Records) -> None:
    sweep = with_term([4], [T2I, I2T])

    found = said(records, sweep, {4: SURE}, {4: NOTHING})

    assert found[0] == (
        "T2I R@1: 1 of 1 better than MLM weight 0: MLM weight 0.5 +1.8 [1.6, 2.0] (Holm, 2 tests). "
        "I2T R@1: no significant difference from MLM weight 0 (Holm, 2 tests)."
    )
    assert found[1].startswith("No primary metric is declared: all metrics are one family")


def test_the_smallest_detectable_difference_is_that_of_the_family(records: Records) -> None:
    sweep = with_term([4], [T2I, I2T])

    found = said(records, sweep, {4: SURE}, {4: NOTHING})

    # standard errors 0.001 and 0.01124 over sqrt 3, right in the median: sqrt(ln 2) of 2 degrees
    ends = [
        f"{100 * sd / math.sqrt(3) / math.sqrt(math.log(2)) * _SHIFT:.1f}"
        for sd in (0.001, np.std(NOTHING, ddof=1))
    ]
    least = r"smallest detectable difference \(80 % power\): (\S+) points"
    assert [re.search(least, line)[1] for line in found[2:]] == ends  # type: ignore[index]


def test_what_is_enough_leads(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I], primary=T2I, margin=3.0, labels={LAYERS: "text layers"})
    runs, _ = runs_by(sweep)
    fill(records, runs)

    first, second, *_ = digest_of(records, sweep, runs)

    # 8 layers (39.9) are 0.3 points below 12 (40.2), and so noisy that they may lose 2.8
    assert first.startswith(
        "8 text layers are enough: at most 2.8 points of T2I R@1 below the best (margin 3), with "
        "75 % of the parameters of 12 text layers. T2I R@1: 3 of 4 worse than 12 text layers: "
        "1 text layer "
    )
    assert second.startswith(
        "Undecided: whether 4 text layers are enough too (up to 4.3 points below the best; "
    )
    # whether 8 layers differ from 12 is not asked: their interval lies within the margin
    assert "differ from" not in second
    assert second.endswith(" points.")


def test_a_slope_of_the_primary_metric_is_told(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I, I2T], labels={LAYERS: "text layers"}, baseline=None,
                        primary=T2I)  # fmt: skip
    runs, _ = runs_by(sweep)
    fill(records, runs)

    assert list(DEPTHS) == [1, 2, 4, 8, 12]
    first, *_, other = [line for line in digest_of(records, sweep, runs) if "per doubling" in line]
    assert first.startswith("T2I R@1 changes by +")
    assert first.endswith("per doubling of text layers (significant, Holm, 1 test).")
    assert other.startswith("I2T R@1: "), "what leads is not said again"


@pytest.mark.parametrize("size", [0.04, 0.0])
def test_effects_of_crossed_axes_are_told(records: Records, size: float) -> None:
    token = "objective.token.weight"
    sweep = sweep_of(
        {WEIGHT: [0.0, 0.5], token: [0.0, 0.5]},
        metrics=[T2I],
        baseline={WEIGHT: 0.0, token: 0.0},
        primary=T2I,
        labels={WEIGHT: "MLM weight", token: "token weight"},
    )
    runs = expand(sweep)
    for run in runs:
        terms = run.config.objective
        noise = 0.001 * (run.seed * (1 + (terms.mlm.weight > 0) + 2 * (terms.token.weight > 0)) % 3)
        records.done(run, t2i=0.3 + size * terms.mlm.weight + noise)

    first, *_, last = digest_of(records, sweep, runs)

    effects = "Effects on T2I R@1 in points (significant, Holm, 3 tests): "
    if size:
        assert first.endswith(f"{effects}MLM weight 0.5 against 0 +2.1 [2.0, 2.1].")
    else:
        none = "No main effect or interaction on T2I R@1 is significant (Holm, 3 tests); largest: "
        assert f" {none}" in first
    assert "against" not in last, "nothing is said twice"


def test_an_interaction_of_crossed_axes_is_called_so(records: Records) -> None:
    token = "objective.token.weight"
    sweep = sweep_of({WEIGHT: [0.0, 0.5], token: [0.0, 0.5]}, metrics=[T2I], primary=T2I,
                     labels={WEIGHT: "MLM weight", token: "token weight"})  # fmt: skip
    runs = expand(sweep)
    for run in runs:
        terms = run.config.objective
        noise = 0.001 * (run.seed * (1 + (terms.mlm.weight > 0) + 2 * (terms.token.weight > 0)) % 3)
        both = terms.mlm.weight * terms.token.weight
        records.done(run, t2i=0.3 + 0.4 * both + noise)

    first = digest_of(records, sweep, runs)[0]

    assert "; interaction MLM weight 0.5 x token weight 0.5 +" in first


def test_one_seed_judges_nothing(records: Records) -> None:
    sweep = with_term([4], [T2I], primary=T2I)
    runs = expand(sweep, seeds=range(1))
    for run in runs:
        records.done(run, t2i=0.3 + 0.1 * run.config.objective.mlm.weight)

    assert digest_of(records, sweep, runs) == [
        "T2I R@1: nothing to test. One seed says nothing of other seeds: MLM weight 0.5 +5.0."
    ]


def test_without_a_baseline_the_best_point_is_told(records: Records) -> None:
    mlm, token = "objective.mlm.weight", "objective.token.weight"
    sweep = sweep_of({LAYERS: [4]}, metrics=[T2I], primary=T2I)
    sweep = replace(sweep, points=points({}, {mlm: 0.5}, {token: 0.5, mlm: 0.1}))
    runs = expand(sweep)
    noise = [0.002, -0.001, 0.003, 0.001, 0.004, -0.002, 0.0, 0.002, -0.003]
    for run, more in zip(runs, noise, strict=True):
        records.done(run, t2i=0.3 + 0.2 * run.config.objective.mlm.weight + more)

    said, *_ = digest_of(records, sweep, runs)
    assert said.startswith("T2I R@1, highest: mlm.weight 0.5, better than every other point (95 %")
    assert "no baseline is declared" in said

    for run, more in zip(runs, noise, strict=True):  # nothing differs by more than its seeds
        records.done(run, t2i=0.3 + 10 * more + 0.02 * (not run.point))
    said, *_ = digest_of(records, sweep, runs)
    assert said.startswith("T2I R@1, highest: base, ")


def test_one_point_has_nothing_to_test(records: Records) -> None:
    sweep = sweep_of({LAYERS: [4]}, metrics=[T2I], primary=T2I, margin=2.0)
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3 + 0.01 * run.seed)

    assert digest_of(records, sweep, runs) == [
        "Nothing to test: no two points of the sweep have a number to compare."
    ]


@pytest.mark.parametrize("primary", [None, I2T])
def test_a_point_that_is_noisy_is_named_once_ahead_of_the_metrics(
    records: Records, primary: str | None
) -> None:
    sweep = depth_sweep(metrics=[T2I, I2T], primary=primary)
    runs = expand(sweep)
    fill(records, runs)  # 8 layers are far noisier

    found = digest_of(records, sweep, runs)

    others = "the metrics" if primary is None else "secondary metrics"
    told = [line for line in found if "far more over seeds" in line]
    assert told == [
        f"8 layers: {others} together vary far more over seeds than at the other points, so "
        "differences in these are judged by their own seeds alone, which finds large ones only."
    ]


def losses_that_rise(found: Sequence[Record]) -> dict[int, float]:
    """Final training losses of a point by seed, higher with more layers."""
    layers = found[0].run.config.model.text.layers
    return {seed: 1 + 0.1 * layers + 0.01 * (seed * layers % 3) for seed in range(3)}


@pytest.mark.parametrize(("axis", "rises"), [("text layers", "rise"), ("depth", "rises")])
@pytest.mark.parametrize("falls", [True, False])
def test_points_that_fit_the_training_set_worse_are_told(
    records: Records, monkeypatch: pytest.MonkeyPatch, axis: str, rises: str, falls: bool
) -> None:
    monkeypatch.setattr("harness.results.guards.final_losses", losses_that_rise)
    sweep = depth_sweep(metrics=[T2I], primary=T2I, labels={LAYERS: axis})
    runs = expand(sweep)
    for run in runs:
        layers = run.config.model.text.layers
        t2i = 0.5 + 0.001 * (run.seed * layers % 3) - (0.01 * layers if falls else 0.0)
        records.done(run, t2i=t2i, parameters=1000 * layers)
    collection = collect(sweep, runs, records.store)

    (told,) = warnings(collection, find(collection))

    seen = f"(final contrastive loss 1.11, 1.21, 1.41, 1.81, 2.20 at {axis} 1, 2, 4, 8, 12)"
    assert told == (
        f"As {axis} {rises}, points also fit the training set worse {seen}: they are under-trained,"
        " not over-sized, so this sweep measures its training budget."
        if falls
        else f"As {axis} {rises}, points may still gain from more training {seen}."
    )


def test_lines_of_a_second_axis_are_told_apart(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.results.guards.final_losses", losses_that_rise)
    axes = {LAYERS: [1, 2, 4, 8], WEIGHT: [0.0, 0.5]}
    sweep = sweep_of(axes, metrics=[T2I], primary=T2I, baseline={WEIGHT: 0.0})
    runs = expand(sweep)
    for run in runs:
        layers = run.config.model.text.layers
        records.done(run, t2i=0.5 + 0.001 * (run.seed * layers % 3), parameters=1000 * layers)
    collection = collect(sweep, runs, records.store)

    told = warnings(collection, find(collection))

    assert [each.partition(", points")[0] for each in told] == [
        "As layers rise, at weight 0",
        "As layers rise, at weight 0.5",
    ]
