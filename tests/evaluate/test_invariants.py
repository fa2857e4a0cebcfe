"""Numbers that cannot be true are refused by name."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from harness.errors import InvariantError
from harness.evaluate.invariants import check

Entry = dict[str, Any]


def metric(value: float | None, n: int, reason: str | None = None) -> dict[str, Any]:
    return {"value": value, "n": n, "chance": 0.1, "reason": reason}


def true_entry() -> Entry:
    """Six captions of four captioned pictures; one task of three classes; one class folder."""
    recalls = {1: 0.25, 5: 0.5, 10: 0.75}
    metrics = {
        f"test/{way}_retrieval_recall{rule}@{k}": metric(value, n)
        for rule in ("", "_shared")
        for way, n in (("image", 6), ("text", 4))
        for k, value in recalls.items()
    }
    metrics |= {
        "test/mean_recall": metric(0.5, 10),
        "test/mean_recall_shared": metric(0.5, 10),
        "test/role/acc1": metric(0.5, 3),
        "test/role/acc5": metric(None, 3, "3 classes, at least 5 are needed"),
        "test/role/mean_per_class_recall": metric(0.4, 3),
        "digits/acc1": metric(0.5, 8),
        "digits/acc5": metric(1.0, 8),
        "digits/mean_per_class_recall": metric(0.0, 8),
    }
    return {
        "metrics": metrics,
        "protocol": {
            "metrics": {name.rpartition("/")[2]: 1 for name in metrics},
            "splits": {"test": {"captions": 6, "captioned": 4, "labelled": {"role": 3}}},
            "class_folders": {"digits": {"images": 8}},
        },
    }


def test_a_true_entry_passes() -> None:
    check(true_entry())


def _set(name: str, part: str, value: object) -> Callable[[Entry], None]:
    def change(entry: Entry) -> None:
        entry["metrics"][name][part] = value

    return change


def _drop(entry: Entry) -> None:
    del entry["metrics"]["test/role/acc1"]


def _add(entry: Entry) -> None:
    entry["metrics"]["test/gender/acc1"] = metric(0.5, 3)


def _drop_protocol(entry: Entry) -> None:
    del entry["protocol"]["class_folders"]


T2I = "test/image_retrieval_recall"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(f"{T2I}@1", "value", 0.6), rf"{T2I}@1 = 0.6 exceeds {T2I}@5 = 0.5"),
        (_set(f"{T2I}@5", "value", 0.8), rf"{T2I}@5 = 0.8 exceeds {T2I}@10 = 0.75"),
        (
            _set("test/text_retrieval_recall@10", "value", 0.9),
            r"test/text_retrieval_recall@10 = 0.9 exceeds test/text_retrieval_recall_shared@10",
        ),
        (_set("digits/acc5", "value", 0.4), r"digits/acc1 = 0.5 exceeds digits/acc5 = 0.4"),
        (_set("digits/acc1", "value", float("nan")), r"digits/acc1: its value nan is no fraction"),
        (_set("digits/acc1", "value", 1.2), r"digits/acc1: its value 1.2 is no fraction"),
        (_set("digits/acc1", "value", -0.2), r"digits/acc1: its value -0.2 is no fraction"),
        (_set("digits/acc1", "chance", None), r"digits/acc1: its chance None is no fraction"),
        (_set("test/role/acc5", "reason", None), r"role/acc5 has neither a value nor a reason"),
        (_set("digits/acc1", "n", 7), r"digits/acc1 is of 7 samples, 8 are expected"),
        (
            _set("test/mean_recall", "value", 0.6),
            r"0.6 is not the mean of its 6 parts",
        ),
        (_drop, r"test/role/acc1 is missing"),
        (_add, r"test/gender/acc1 is of nothing that was evaluated"),
        (_drop_protocol, r"it lacks 'class_folders'"),
    ],
)
def test_what_cannot_be_true_is_named(change: Callable[[Entry], None], message: str) -> None:
    entry = copy.deepcopy(true_entry())
    change(entry)
    with pytest.raises(InvariantError, match=message):
        check(entry)


def test_a_metric_of_no_samples_is_refused() -> None:
    entry = true_entry()
    entry["protocol"]["class_folders"]["digits"]["images"] = 0
    for kind in ("acc1", "acc5", "mean_per_class_recall"):
        entry["metrics"][f"digits/{kind}"]["n"] = 0
    with pytest.raises(InvariantError, match="is of 0 samples"):
        check(entry)


def test_module_is_torch_free() -> None:
    code = "import sys, harness.evaluate.invariants; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
