"""The answer at the top of a report: headline metrics first, and like things in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from report_records import DEPTHS, I2T, ROLE, T2I, Records, depth_sweep, fill, runs_by, sweep_of

from harness.report.collect import collect
from harness.report.digest import digest
from harness.report.findings import find
from harness.space import Sweep, expand

LAYERS, WEIGHT, RECALL = "model.text.layers", "objective.mlm.weight", "test/mean_recall"
#: What the term adds at seeds 0, 1, 2: 1.8 points for sure, and nothing to speak of.
SURE, NOTHING = (0.018, 0.017, 0.019), (0.010, -0.012, 0.003)


def with_term(layers: Sequence[int], metrics: Sequence[str]) -> Sweep:
    """A term on and off at every depth."""
    return sweep_of(
        {LAYERS: list(layers), WEIGHT: [0.0, 0.5]},
        metrics=list(metrics),
        baseline={WEIGHT: 0.0},
        labels={LAYERS: "text layers", WEIGHT: "MLM weight"},
    )


def said(
    records: Records,
    sweep: Sweep,
    more: Mapping[int, Sequence[float]],
    i2t: Mapping[int, Sequence[float]] | None = None,
) -> list[str]:
    """The digest where the term adds `more` to T2I by depth and seed, and `i2t` to I2T."""
    runs = expand(sweep)
    for run in runs:
        on, layers = run.config.objective.mlm.weight > 0, run.config.model.text.layers
        base = 0.3 + 0.01 * run.seed
        t2i = base + (more[layers][run.seed] if on else 0.0)
        other = base + ((i2t or more)[layers][run.seed] if on else 0.0)
        records.done(run, t2i=t2i, i2t=other)
    collection = collect(sweep, runs, records.store)
    return digest(collection, find(collection))


def test_a_difference_has_its_amount_and_the_rest_is_counted(records: Records) -> None:
    sweep = with_term([4, 12], [T2I])

    found = said(records, sweep, {4: SURE, 12: NOTHING})

    # 0.018 +- 4.302653 x 0.001 / sqrt 3
    assert found == [
        "With MLM weight 0.5 against MLM weight 0, T2I R@1 rises by 1.8 points [1.6, 2.0] at text "
        "layers 4; no difference stands in the other case."
    ]


def test_metrics_in_which_nothing_differs_share_a_sentence(records: Records) -> None:
    sweep = with_term([4, 12], [T2I, I2T, ROLE])
    half = tuple(value / 2 for value in NOTHING)

    found = said(records, sweep, {4: NOTHING, 12: NOTHING}, {4: half, 12: half})

    # standard error 0.01124 / sqrt 3, and half of it; 3.2640 x sqrt 3 of them is found 4 in 5
    assert found == [
        "With MLM weight 0.5 against MLM weight 0, no difference in T2I R@1, I2T R@1 and role "
        "acc@1 is detectable at any of 2 values of text layers; the design can see 1.8 to 3.7 "
        "points."
    ]


def test_a_headline_differs_and_the_others_do_not(records: Records) -> None:
    sweep = with_term([4, 12], [T2I, I2T])

    found = said(records, sweep, {4: SURE, 12: SURE}, {4: NOTHING, 12: NOTHING})

    first, second = found
    assert first == (
        "With MLM weight 0.5 against MLM weight 0, T2I R@1 rises by 1.8 points [1.6, 2.0] at text "
        "layers 4 and by 1.8 [1.6, 2.0] at text layers 12."
    )
    assert second.startswith(
        "With MLM weight 0.5 against MLM weight 0, no difference in I2T R@1 is detectable at any "
        "of 2 values of text layers; the design can see 3.7 points."
    )


def test_metrics_beyond_the_headline_are_counted(records: Records) -> None:
    sweep = with_term([4, 12], [T2I, I2T, RECALL])

    found = said(records, sweep, {4: SURE, 12: SURE})

    assert found[2:] == [
        "Of the other metrics, differences stand for mean recall in 2 of 2 comparisons."
    ]


def test_metrics_that_rise_alike_share_a_sentence(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I, I2T], labels={LAYERS: "text layers"}, baseline=None)
    runs, _ = runs_by(sweep)
    fill(records, runs)
    collection = collect(sweep, runs, records.store)

    assert list(DEPTHS) == [1, 2, 4, 8, 12]
    assert digest(collection, find(collection)) == [
        "Along text layers, T2I R@1 and I2T R@1 rise (Page's trend test over seeds, at 5 %). No "
        "gain is detectable beyond text layers 8 in T2I R@1 and 8 in I2T R@1."
    ]


def test_one_seed_judges_nothing(records: Records) -> None:
    sweep = with_term([4], [T2I])
    runs = expand(sweep, seeds=range(1))
    for run in runs:
        records.done(run, t2i=0.3 + 0.1 * run.config.objective.mlm.weight)
    collection = collect(sweep, runs, records.store)

    assert digest(collection, find(collection)) == [
        "Against MLM weight 0, no difference in T2I R@1 can be judged with MLM weight 0.5: there "
        "is one seed."
    ]


def test_without_a_baseline_or_a_line_the_best_is_named(records: Records) -> None:
    sweep = sweep_of({WEIGHT: [0.0, 0.5]}, metrics=[T2I], labels={WEIGHT: "MLM weight"})
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3 + 0.01 * run.seed)
    collection = collect(sweep, runs, records.store)

    (found,) = digest(collection, find(collection))
    assert found.startswith("The best mean T2I R@1 is 31.0 \u00b1 2.5 at ")
