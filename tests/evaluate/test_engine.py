"""One evaluation from pictures and captions to a record, with answers worked out by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config import Evaluate, RunConfig, Runtime, override
from harness.data import catalog
from harness.data.dataset import Task
from harness.errors import ConfigError, DataError
from harness.evaluate.engine import evaluate
from harness.metrics import is_cost, known_metrics

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
PICTURES = {
    "r1": (RED, ("red", "Red.")),
    "g": (GREEN, ("a green one",)),
    "b": (BLUE, ("a red one",)),
    "r2": (RED, ("red",)),
    "bare": (GREEN, ()),
}
TASK = Task("colour", ("red", "green", "blue"), ("{c}", "a {c} one"), {"test": [0, 1, 0, 0, -1]})
CONFIG = RunConfig(evaluate=Evaluate(batch_size=4))


def run(model: Any, data: Any, out: Path, config: RunConfig = CONFIG, **more: Any) -> Any:
    sha = more.pop("sha", "0" * 64)
    return evaluate(
        model, data, config, Runtime(**more), checkpoint_sha256=sha, out=out / "outcomes"
    )


def test_every_figure_by_hand(model: Any, make_data: Callable[..., Any], tmp_path: Path) -> None:
    entry = run(model, make_data(PICTURES, (TASK,)), tmp_path)
    values = {name: metric["value"] for name, metric in entry["metrics"].items()}
    # Captions in order: red, Red., a green one, a red one (of the blue picture), red.  Pool: 5.
    # Text -> image, shared: the three "red" find one of the two red pictures; "a green one" ties
    # between g and bare: 1/2; "a red one" belongs to b, which is in a tie of three at the bottom.
    t2i = "test/image_retrieval_recall_shared@"
    assert values[f"{t2i}1"] == pytest.approx((1 + 1 + 1 / 2 + 0 + 1) / 5)
    assert values[f"{t2i}5"] == 1.0
    # By the main rule each "red" has one of the two red pictures to find.
    own = "test/image_retrieval_recall@1"
    assert values[own] == pytest.approx((1 / 2 + 1 / 2 + 1 / 2 + 0 + 1 / 2) / 5)
    # Image -> text: r1 and r2 see four captions in a tie, of which three read "red"; g finds its
    # own; b is equally far from all five texts.
    i2t = "test/text_retrieval_recall_shared@1"
    assert values[i2t] == pytest.approx((3 / 4 + 1 + 1 / 5 + 3 / 4) / 4)
    # By the main rule r1 owns two of the four, r2 one.
    own = "test/text_retrieval_recall@1"
    assert values[own] == pytest.approx((2 / 4 + 1 + 1 / 5 + 1 / 4) / 4)
    # Classes: r1 and r2 red, g green: right; b labelled red: wrong.  Red 2 of 3, green 1 of 1.
    assert values["test/colour/acc1"] == 0.75
    assert values["test/colour/mean_per_class_recall"] == pytest.approx((2 / 3 + 1) / 2)
    assert values["test/colour/acc5"] is None


def test_counts_chances_and_reasons(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    metrics = run(model, make_data(PICTURES, (TASK,)), tmp_path)["metrics"]
    counts = {name: metrics[name]["n"] for name in metrics if "@1" in name or "acc" in name}
    assert counts["test/image_retrieval_recall@1"] == 5
    assert counts["test/text_retrieval_recall@1"] == 4
    assert counts["test/colour/acc1"] == 4
    # Three captions with 2 positives among 5 pictures, two with 1.
    chance = metrics["test/image_retrieval_recall_shared@1"]["chance"]
    assert chance == pytest.approx((3 * 2 / 5 + 2 * 1 / 5) / 5)
    assert metrics["test/colour/acc1"]["chance"] == pytest.approx(1 / 3)
    acc5 = metrics["test/colour/acc5"]
    assert acc5["reason"] == "3 classes, at least 5 are needed"
    assert metrics["test/mean_recall"]["n"] == 9


def test_known_metrics_are_those_with_a_value(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    data = make_data(PICTURES, (TASK,))
    metrics = run(model, data, tmp_path)["metrics"]
    known = {name for name in known_metrics(data, CONFIG.evaluate) if not is_cost(name)}
    assert known == {name for name, metric in metrics.items() if metric["value"] is not None}


def test_protocol_travels_with_the_numbers(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    entry = run(model, make_data(PICTURES, (TASK,)), tmp_path)
    protocol = json.loads(json.dumps(entry["protocol"], allow_nan=False))
    assert protocol["precision"] == "fp32"
    assert protocol["data"] == {"name": "colours", "fingerprint": "e" * 64}
    assert protocol["tasks"]["colour"] == {
        "classes": 3,
        "classnames": ["red", "green", "blue"],
        "templates": ["{c}", "a {c} one"],
    }
    assert protocol["splits"]["test"] == {
        "images": 5,
        "captioned": 4,
        "captions": 5,
        "excluded": [],
        "shared_captions": 3,
        "truncated_captions": 0,
        "k_beyond_pool": ["image_retrieval_recall@10", "text_retrieval_recall@10"],
        "labelled": {"colour": 4},
    }


def test_bad_picture_goes_with_its_captions_and_labels(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    pictures = {**PICTURES, "g": (b"<html>", ("a green one",)), "b": (BLUE, ("a blue one",))}
    entry = run(model, make_data(pictures, (TASK,)), tmp_path, max_bad_fraction=0.2)
    facts = entry["protocol"]["splits"]["test"]
    assert (facts["images"], facts["captions"], facts["labelled"]) == (4, 4, {"colour": 3})
    assert facts["excluded"][0]["where"] == "g"
    # The labels of those that are left: red, red (blue to see), red.
    assert entry["metrics"]["test/colour/acc1"]["value"] == pytest.approx(2 / 3)


def test_task_with_no_picture_left_is_an_error(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    task = Task("g", ("red", "green"), ("{c}",), {"test": [-1, 1, -1, -1, -1]})
    pictures = {**PICTURES, "g": (b"<html>", ("a green one",)), "b": (BLUE, ("a blue one",))}
    with pytest.raises(DataError, match="every picture of 'test' for task 'g' is unreadable"):
        run(model, make_data(pictures, (task,)), tmp_path, max_bad_fraction=0.2)


def test_templates_of_the_configuration_replace_those_of_the_task(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    config = override(CONFIG, {"evaluate.templates": ["one {c}"]})
    entry = run(model, make_data(PICTURES, (TASK,)), tmp_path, config)
    assert entry["protocol"]["tasks"]["colour"]["templates"] == ["one {c}"]
    assert "one red" in model.tokenizer.seen
    assert not {"blue", "a blue one"} & set(model.tokenizer.seen)


def test_pictures_are_encoded_once_for_retrieval_and_all_tasks(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    other = Task("warm", ("red", "blue"), ("{c}",), {"test": [0, -1, 1, 0, -1]})
    run(model, make_data(PICTURES, (TASK, other)), tmp_path)
    assert model.image_batches == [4, 1]


def test_outcomes_are_kept_and_their_mean_is_the_metric(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    entry = run(model, make_data(PICTURES, (TASK,)), tmp_path)
    assert entry["outcomes"] == f"outcomes/{CONFIG.evaluation_key}.npz"
    with np.load(tmp_path / entry["outcomes"]) as kept:
        outcomes = {name: kept[name] for name in kept.files}
    assert outcomes["test/items/images"].tolist() == ["r1", "g", "b", "r2", "bare"]
    assert outcomes["test/items/image_retrieval_recall"].tolist() == [0, 0, 1, 2, 3]
    assert outcomes["test/items/text_retrieval_recall"].tolist() == [0, 1, 2, 3]
    assert outcomes["test/colour/items"].tolist() == [0, 1, 2, 3]
    assert outcomes["test/colour/labels"].tolist() == [0, 1, 0, 0]
    assert outcomes["test/colour/acc1"].tolist() == [1, 1, 0, 1]
    assert outcomes["test/colour/acc1"].dtype == np.uint8
    assert outcomes["test/image_retrieval_recall@1"].tolist() == [0.5, 0.5, 0.5, 0.0, 0.5]
    assert outcomes["test/image_retrieval_recall_shared@1"].tolist() == [1.0, 1.0, 0.5, 0.0, 1.0]
    for name in set(outcomes) & set(entry["metrics"]):
        mean = float(outcomes[name].mean(dtype=np.float64))
        assert mean == pytest.approx(entry["metrics"][name]["value"], abs=1e-7)


def test_twice_is_equal_to_the_byte(
    model: Any, make_data: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(PICTURES, (TASK,))
    first = run(model, data, tmp_path / "a")
    later = time.time() + 10_000
    monkeypatch.setattr(time, "time", lambda: later)
    second = run(model, data, tmp_path / "b")
    assert first == second
    files = [tmp_path / place / first["outcomes"] for place in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_content_key_covers_checkpoint_prompts_and_preprocessing(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    data = make_data(PICTURES, (TASK,))
    same = run(model, data, tmp_path)["content_key"]
    others = [
        run(model, data, tmp_path, sha="1" * 64),
        run(model, data, tmp_path, override(CONFIG, {"evaluate.templates": ["{c}"]})),
        run(model, data, tmp_path, override(CONFIG, {"model.image.size": 64})),
        run(model, make_data({**PICTURES, "r2": (RED, ())}, (TASK,)), tmp_path),
    ]
    keys = {same, *(entry["content_key"] for entry in others)}
    assert len(keys) == 5
    assert run(model, data, tmp_path)["content_key"] == same


def test_class_folder_is_a_test_set_of_its_own(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    from PIL import Image

    for name, colour in (("red", RED), ("green", GREEN), ("blue", RED)):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4), colour).save(tmp_path / "set" / name / "1.png")
    folder = {"name": "patches", "path": str(tmp_path / "set"), "templates": ["a {c} patch"]}
    config = override(CONFIG, {"evaluate.class_folders": [folder]})
    entry = run(model, make_data(PICTURES), tmp_path, config)
    # The picture called blue is red, so two of three are right.
    assert entry["metrics"]["patches/acc1"]["value"] == pytest.approx(2 / 3)
    facts = entry["protocol"]["class_folders"]["patches"]
    assert facts["classnames"] == ["blue", "green", "red"]
    assert (facts["images"], facts["templates"]) == (3, ["a {c} patch"])
    assert facts["notes"] == [
        "3 classes, 1 pictures a class, first prompt 'a blue patch'",
        "in several classes: 1 picture of blue and of red, such as blue/1.png = red/1.png",
    ]
    # It is kept by itself, as a public benchmark is: another protocol evaluates it no second time.
    seen = list(model.image_batches)
    again = run(model, make_data(PICTURES), tmp_path, override(config, {"evaluate.batch_size": 5}))
    assert model.image_batches[len(seen) :] == [5]
    assert again["metrics"]["patches/acc1"] == entry["metrics"]["patches/acc1"]
    (tmp_path / "set" / "red" / "2.png").write_bytes(b"<html>")
    catalog._open_class_folder.cache_clear()
    with pytest.raises(DataError, match="1 of 4 pictures cannot be evaluated"):
        run(model, make_data(PICTURES), tmp_path, config)


def test_unknown_split_and_one_with_nothing_to_evaluate(
    model: Any, make_data: Callable[..., Any], tmp_path: Path
) -> None:
    config = override(CONFIG, {"evaluate.splits": ["tset"]})
    with pytest.raises(DataError, match="unknown split 'tset'; nearest: test"):
        run(model, make_data(PICTURES), tmp_path, config)
    with pytest.raises(ConfigError, match="neither captions nor labels"):
        run(model, make_data({"a": (RED, ()), "b": (GREEN, ())}), tmp_path)
