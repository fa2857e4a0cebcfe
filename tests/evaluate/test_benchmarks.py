"""A benchmark's numbers by hand, what they are keyed by, and how parts become one entry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config import Evaluate, Runtime
from harness.errors import DataError, InvariantError, RecordError
from harness.evaluate import invariants
from harness.evaluate.benchmarks import combine, place_of
from harness.evaluate.parts import FoundTestSet, Part, evaluate_part, part_key
from harness.evaluate.suites import SUITES
from harness.evaluate.suites.find import Found, Hole, find
from harness.evaluate.suites.records import Benchmark
from harness.metrics import METRICS, versions
from tests.evaluate.benchmark_cases import (
    CAPTIONS,
    CLASSES,
    IDENTITY,
    caption_folder,
    class_folder,
    edit_json,
)

SETTINGS = Evaluate(splits=(), suites=("smoke",), batch_size=4)


def located(benchmark: Benchmark, root: Path) -> FoundTestSet:
    found = find(benchmark, str(root))
    assert isinstance(found, Found)
    return place_of(found, Runtime(cache=str(root / "cache")))


def evaluated(model: Any, found: FoundTestSet, tmp_path: Path, **more: Any) -> Part:
    identity = more.pop("identity", IDENTITY)
    runtime = Runtime(cache=str(tmp_path / "cache"), **more)
    return evaluate_part(model, identity, found, SETTINGS, runtime, tmp_path / "store")


def test_classification_by_hand(model: Any, tmp_path: Path) -> None:
    class_folder(tmp_path / "patches", {"red": "red", "green": "blue", "blue": "green"})
    part = evaluated(model, located(CLASSES, tmp_path), tmp_path)
    # Folders green and blue have each other's pictures: the two red ones alone are right.
    assert part.metrics["patches/acc1"]["value"] == pytest.approx(1 / 3)
    assert part.metrics["patches/acc5"]["value"] is None
    assert part.arrays()["patches/predictions"].tolist() == [1, 1, 0, 0, 2, 2]
    assert part.protocol["classnames"] == ["blue", "green", "red"]
    assert part.protocol["metric"] == ["patches/acc1"]


def test_retrieval_by_hand(model: Any, tmp_path: Path) -> None:
    caption_folder(tmp_path / "told")
    part = evaluated(model, located(CAPTIONS, tmp_path), tmp_path)
    assert part.metrics["told/image_retrieval_recall@1"]["value"] == 1.0
    assert part.metrics["told/image_retrieval_recall@1"]["n"] == 4
    assert part.metrics["told/text_retrieval_recall@1"]["n"] == 3


def test_a_part_is_evaluated_once(model: Any, tmp_path: Path) -> None:
    class_folder(tmp_path / "patches")
    found = located(CLASSES, tmp_path)
    first = evaluated(model, found, tmp_path)
    seen = len(model.image_batches), len(model.text_batches)
    assert evaluated(model, found, tmp_path) == first
    assert (len(model.image_batches), len(model.text_batches)) == seen


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": "d" * 64},
        {"config": {"heads": 2}},
        {"tokenizer": "l" * 64},
        {"preprocessing": {"size": 8}},
    ],
)
def test_whatever_changes_a_number_changes_its_key(tmp_path: Path, change: Any) -> None:
    class_folder(tmp_path / "patches")
    found = located(CLASSES, tmp_path)
    assert part_key(replace(IDENTITY, **change), found, "fp32") != part_key(IDENTITY, found, "fp32")


def test_precision_data_and_metric_version_do_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folder(tmp_path / "patches")
    found = located(CLASSES, tmp_path)
    keys = {
        part_key(IDENTITY, found, "fp32"),
        part_key(IDENTITY, found, "bf16"),
        part_key(IDENTITY, replace(found, fingerprint="f" * 64), "fp32"),
    }
    monkeypatch.setattr(METRICS.get("acc1"), "version", 10**6)
    assert len(keys | {part_key(IDENTITY, found, "fp32")}) == 4


def test_nothing_else_does(model: Any, tmp_path: Path) -> None:
    class_folder(tmp_path / "patches")
    found = located(CLASSES, tmp_path)
    first = evaluated(model, found, tmp_path)
    other = Evaluate(splits=(), suites=("retrieval",), batch_size=1)
    runtime = Runtime(cache=str(tmp_path / "other"), workers=0, max_pixels=10**6)
    again = evaluate_part(model, IDENTITY, found, other, runtime, tmp_path / "store")
    assert again == first


@pytest.mark.parametrize("damage", ["torn", "no outcomes"])
def test_a_part_that_is_not_whole_is_evaluated_again(
    model: Any, tmp_path: Path, damage: str
) -> None:
    class_folder(tmp_path / "patches")
    found = located(CLASSES, tmp_path)
    first = evaluated(model, found, tmp_path)
    file = first.outcomes.with_suffix(".json")
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:-20])
    else:
        first.outcomes.unlink()
    assert evaluated(model, found, tmp_path) == first
    assert first.outcomes.exists()


def test_an_edited_part_is_refused(model: Any, tmp_path: Path) -> None:
    class_folder(tmp_path / "patches")
    found = located(CLASSES, tmp_path)
    part = evaluated(model, found, tmp_path)
    metrics = {n: dict(m) for n, m in part.metrics.items()}
    metrics["patches/acc1"]["n"] = 5
    edit_json(part.outcomes.with_suffix(".json"), metrics=metrics)
    with pytest.raises(RecordError, match=r"was edited .*of 5 samples, 6 are expected"):
        evaluated(model, found, tmp_path)


def test_class_weights_are_shared_by_sets_with_the_same_names(model: Any, tmp_path: Path) -> None:
    class_folder(tmp_path / "a" / "patches")
    class_folder(tmp_path / "b" / "patches", {"red": "red", "green": "black", "blue": "blue"})
    evaluated(model, located(CLASSES, tmp_path / "a"), tmp_path)
    model.tokenizer.seen.clear()
    evaluated(model, located(replace(CLASSES, name="more"), _as(tmp_path, "b", "more")), tmp_path)
    # Of three classes one is new.
    assert set(model.tokenizer.seen) == {"a photo of a black.", "a photo of the black."}
    model.tokenizer.seen.clear()
    evaluated(
        model,
        located(CLASSES, tmp_path / "a"),
        tmp_path,
        identity=replace(IDENTITY, checkpoint="d" * 64),
    )
    assert not model.tokenizer.seen
    evaluated(
        model,
        located(CLASSES, tmp_path / "a"),
        tmp_path,
        identity=replace(IDENTITY, checkpoint="d" * 64, text_tower="u" * 64),
    )
    assert len(set(model.tokenizer.seen)) == 6


def _as(tmp_path: Path, folder: str, name: str) -> Path:
    (tmp_path / folder / "patches").rename(tmp_path / folder / name)
    return tmp_path / folder


def test_a_suspicion_goes_with_the_numbers(model: Any, tmp_path: Path) -> None:
    class_folder(tmp_path / "patches", {"red": "green", "green": "blue", "blue": "red"})
    part = evaluated(model, located(CLASSES, tmp_path), tmp_path)
    assert part.metrics["patches/acc1"]["value"] == 0.0
    assert any("chance" in line for line in part.protocol["warnings"])


def test_nan_is_no_number(model: Any, tmp_path: Path) -> None:
    class_folder(tmp_path / "patches")
    model.image[2].bias.data.fill_(float("nan"))
    with pytest.raises(InvariantError, match="hold NaN"):
        evaluated(model, located(CLASSES, tmp_path), tmp_path)
    assert not (tmp_path / "store").exists()


def test_too_many_bad_pictures_are_no_number(model: Any, tmp_path: Path) -> None:
    class_folder(tmp_path / "patches")
    (tmp_path / "patches" / "red" / "0.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match="1 of 6 pictures cannot be evaluated"):
        evaluated(model, located(CLASSES, tmp_path), tmp_path)


# --------------------------------------------------------------------------- entries


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(SUITES, "made", (CLASSES, CAPTIONS))
    return "made"


def entry(suites: list[str], parts: dict[str, Part | Hole]) -> dict[str, Any]:
    metrics, sections = combine(suites, parts)
    protocol = {"metrics": versions(), "splits": {}, "class_folders": {}, **sections}
    return {"metrics": metrics, "protocol": protocol}


def test_the_mean_of_a_suite_is_of_one_metric_a_set(model: Any, tmp_path: Path, suite: str) -> None:
    class_folder(tmp_path / "patches", {"red": "red", "green": "blue", "blue": "green"})
    caption_folder(tmp_path / "told")
    parts = {b.name: evaluated(model, located(b, tmp_path), tmp_path) for b in SUITES[suite]}
    made = entry([suite], parts)  # type: ignore[arg-type]
    invariants.check(made)
    recalls = [parts["told"].metrics[n]["value"] for n in parts["told"].protocol["metric"]]
    mean = made["metrics"]["made/mean"]
    assert mean["value"] == pytest.approx((1 / 3 + np.mean(recalls)) / 2)
    assert mean["n"] == 2
    made["metrics"]["made/mean"]["value"] += 0.01
    with pytest.raises(InvariantError, match="is not the mean of its 2 sets"):
        invariants.check(made)


def test_no_mean_is_taken_over_a_hole(model: Any, tmp_path: Path, suite: str) -> None:
    class_folder(tmp_path / "patches")
    parts = {
        "patches": evaluated(model, located(CLASSES, tmp_path), tmp_path),
        "told": Hole(CAPTIONS, "not here", "fetch it"),
    }
    made = entry([suite], parts)
    invariants.check(made)
    mean = made["metrics"]["made/mean"]
    assert (mean["value"], mean["reason"]) == (None, "1 of 2 sets of made are missing: told")
    hole = made["metrics"]["told/image_retrieval_recall@1"]
    assert hole["reason"] == "told is not on disk"
    made["metrics"]["made/mean"] = {"value": 0.5, "n": 2, "chance": 0.1, "reason": None}
    with pytest.raises(InvariantError, match="a mean over a data set that is missing"):
        invariants.check(made)
    made["metrics"]["told/text_retrieval_recall@1"]["value"] = 0.5
    with pytest.raises(InvariantError, match="was not evaluated"):
        invariants.check(made)
