"""Outcomes become scores whose mean is the metric, and never those of another run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from report_records import Records, sweep_of

from harness.config.sweep import Run, expand
from harness.results.collect import collect
from harness.results.outcomes import RunScores, read_class_recalls, read_scores

T2I, I2T = "test/image_retrieval_recall@1", "test/text_retrieval_recall@1"
PICTURES = 4

#: Pictures a..d; a has three captions, b and c one each, d none.
ARRAYS: dict[str, np.ndarray] = {
    "test/items/images": np.array(["a.png", "b.png", "c.png", "d.png"]),
    "test/items/image_retrieval_recall": np.array([0, 0, 0, 1, 2], dtype=np.int32),
    "test/items/text_retrieval_recall": np.array([0, 1, 2], dtype=np.int32),
    T2I: np.array([1, 1, 0, 0, 1], dtype=np.uint8),
    I2T: np.array([1, 0, 1], dtype=np.uint8),
    "test/role/items": np.array([0, 2, 3], dtype=np.int32),
    "test/role/labels": np.array([0, 0, 1], dtype=np.int32),
    "test/role/acc1": np.array([1, 0, 1], dtype=np.uint8),
}
VALUES = {T2I: 3 / 5, I2T: 2 / 3, "test/role/acc1": 2 / 3}


def done(records: Records, arrays: dict[str, np.ndarray], role: float = 2 / 3) -> Run:
    (run,) = expand(sweep_of({"model.text.layers": [1]}, metrics=[T2I]), seeds=[0])
    records.done(run, t2i=VALUES[T2I], i2t=VALUES[I2T], role=role)
    records.outcomes(run, arrays)
    return run


def scores(records: Records, run: Run, *names: str, **averages: Any) -> RunScores:
    sweep = sweep_of({"model.text.layers": [1]}, metrics=[T2I])
    (record,) = collect(sweep, [run], records.store).records
    return read_scores(record, names, averages or None)


@pytest.mark.parametrize("name", list(VALUES))
def test_the_mean_of_the_scores_is_the_metric(records: Records, name: str) -> None:
    run = done(records, ARRAYS)

    found = scores(records, run, name)

    assert found.problem is None
    assert len(found.by_metric[name].scores) == PICTURES
    assert found.by_metric[name].scores.mean() == pytest.approx(VALUES[name])


def test_captions_of_one_picture_are_one_score(records: Records) -> None:
    run = done(records, ARRAYS)

    found = scores(records, run, T2I).by_metric[T2I]

    # ratio of sums, linearised: 3/5 + 4/5 (hits - 3/5 captions), by picture; d has neither
    hits, captions = np.array([2, 0, 1, 0]), np.array([3, 1, 1, 0])
    assert found.scores == pytest.approx(0.6 + 4 / 5 * (hits - 0.6 * captions))
    assert found.right is None, "captions are no independent items"
    assert scores(records, run, I2T).by_metric[I2T].right is not None


def test_mean_per_class_recall_weighs_classes_equally(records: Records) -> None:
    name = "test/role/mean_per_class_recall"
    run = done(records, ARRAYS, role=0.75)

    found = scores(records, run, name).by_metric[name]

    assert found.scores.mean() == pytest.approx((0.5 + 1.0) / 2)


def test_an_average_of_metrics_is_the_average_of_their_scores(records: Records) -> None:
    run = done(records, ARRAYS)

    found = scores(records, run, "both", both=[I2T, "test/role/acc1"]).by_metric["both"]

    assert found.scores.mean() == pytest.approx(2 / 3)


def test_outcomes_of_another_result_are_refused(records: Records) -> None:
    run = done(records, ARRAYS | {T2I: np.array([0, 0, 0, 0, 1], dtype=np.uint8)})

    found = scores(records, run, T2I)

    assert found.by_metric == {}
    assert found.problem is not None
    assert "their mean of test/image_retrieval_recall@1 is 0.200000" in found.problem


@pytest.mark.parametrize(
    "broken",
    [
        {"test/items/image_retrieval_recall": np.array([0, 1], dtype=np.int32)},
        {"test/items/image_retrieval_recall": np.array([0, 0, 0, 1, 9], dtype=np.int32)},
        {"test/items/image_retrieval_recall": np.array([0, 0, 0, 1, -1], dtype=np.int32)},
        {T2I: np.array([{}, 1, 1, 1, 1], dtype=object)},
    ],
)
def test_broken_outcomes_are_told_and_never_used(
    records: Records, broken: dict[str, np.ndarray]
) -> None:
    run = done(records, ARRAYS | broken)

    found = scores(records, run, T2I)

    assert found.by_metric == {}
    assert found.problem is not None
    assert found.problem.startswith("per-example outcomes cannot be used")


def test_a_file_cut_short_and_none_at_all(records: Records) -> None:
    run = done(records, ARRAYS)
    file = next(records.store.run_dir(run.key).outcomes.iterdir())
    file.write_bytes(file.read_bytes()[:100])
    assert "cannot be used" in str(scores(records, run, T2I).problem)

    file.unlink()
    assert scores(records, run, T2I).problem == "no per-example outcomes on disk"


def test_recalls_by_class_name(records: Records) -> None:
    run = done(records, ARRAYS)
    sweep = sweep_of({"model.text.layers": [1]}, metrics=[T2I])
    (record,) = collect(sweep, [run], records.store).records

    found = read_class_recalls(record, "test/role/acc1")

    assert found == {"cook": 0.5, "judge": 1.0}
