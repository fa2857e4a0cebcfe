"""Runs that were computed in different ways are told apart, and compared only where that is sound.

A run of these tests is what its record says of one field after another; all else is equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.config import RunConfig, override
from harness.config.sweep import Run
from harness.results.numerics import Numerics, fields_of
from harness.results.records import Record
from harness.store.state import State, Status

ON_A_CPU = {
    "device": "cpu",
    "gpu": None,
    "threads": 1,
    "precision": "fp32",
    "processes": 1,
    "parts": 1,
    "compile": False,
    "versions": {"torch": "2.9.0", "timm": "1.0.0", "open_clip_torch": "3.0.0"},
}
ON_A_GPU = ON_A_CPU | {"device": "cuda", "gpu": "H100", "threads": 8, "precision": "bf16"}


def record(
    point: int,
    *attempts: dict[str, Any],
    result: dict[str, Any] | None = None,
    asked: str = "auto",
) -> Record:
    config = override(RunConfig(), {"train.precision": asked})
    entries = [] if result is not None else [{"numerics": numerics} for numerics in attempts]
    return Record(
        point,
        Run(f"point {point}", {}, 0, config),
        Path("run"),
        config.evaluation_key,
        Status(State.DONE),
        None,
        result=result or {"numerics": attempts[-1], "training": {}},
        attempts=entries,
    )


def cpu(point: int, **changes: Any) -> Record:
    return record(point, ON_A_CPU | changes)


def gpu(point: int, **changes: Any) -> Record:
    return record(point, ON_A_GPU | changes)


def test_runs_that_were_computed_alike_are_compared_without_a_word() -> None:
    found = Numerics.of([cpu(0), cpu(0), cpu(1)])
    assert found.comparable(1, 0) is None
    assert found.warnings == ()


def test_there_is_no_verdict_across_devices_threads_or_precisions() -> None:
    found = Numerics.of([cpu(0), gpu(1), cpu(2, threads=2), gpu(3, precision="fp32")])
    assert found.comparable(1, 0) == "device cuda against cpu: a difference may be the machine's"
    assert found.comparable(2, 0) == "threads 2 against 1: a difference may be the machine's"
    assert (
        found.comparable(3, 1) == "precision fp32 against bf16: a difference may be the machine's"
    )


def test_one_run_of_several_is_enough_to_forbid_it() -> None:
    found = Numerics.of([cpu(0), cpu(0), cpu(1), cpu(1, threads=2)])
    assert found.comparable(1, 0) is not None
    assert found.warnings == (
        "runs differ in threads (1: 3 runs, 2: 1 run); "
        "no verdict is given between points that differ in it",
    )


def test_threads_are_nothing_to_a_gpu() -> None:
    found = Numerics.of([gpu(0, threads=1), gpu(1, threads=8)])
    assert found.comparable(1, 0) is None
    assert found.warnings == ()


def test_a_precision_that_the_points_ask_for_is_the_question() -> None:
    wide, narrow = ON_A_GPU | {"precision": "fp32"}, ON_A_GPU
    found = Numerics.of([record(0, wide, asked="fp32"), record(1, narrow, asked="bf16")])
    assert found.comparable(1, 0) is None
    assert found.warnings == ()


def test_other_differences_are_a_warning_while_every_point_has_some_of_each() -> None:
    found = Numerics.of([gpu(0), gpu(0, gpu="A100"), gpu(1), gpu(1, gpu="A100")])
    assert found.comparable(1, 0) is None
    assert found.warnings == (
        "runs differ in GPU model (H100: 2 runs, A100: 2 runs); "
        "no verdict is given between points that it tells apart",
    )


def test_and_forbid_a_verdict_between_points_that_they_tell_apart() -> None:
    newer = ON_A_CPU["versions"] | {"torch": "2.10.0"}
    found = Numerics.of([cpu(0), cpu(0), cpu(1, versions=newer), cpu(2, processes=2)])
    assert found.comparable(1, 0) == "torch 2.10.0 against 2.9.0: a difference may be the machine's"
    assert found.comparable(2, 0) == "processes 2 against 1: a difference may be the machine's"


def test_a_run_that_went_on_elsewhere_is_neither_the_one_nor_the_other() -> None:
    moved = record(1, ON_A_CPU, ON_A_CPU | {"threads": 2})
    assert fields_of(moved)["threads"] == "1 then 2"
    assert Numerics.of([cpu(0), moved]).comparable(1, 0) is not None


def test_a_record_of_before_tells_what_its_training_recorded_and_the_rest_is_not_known() -> None:
    training = {"device": "cpu", "threads": 1, "precision": "fp32", "processes": 1}
    old = record(1, result={"training": training | {"micro_batch": None}})
    old = Record(**{**vars(old), "attempts": [{"versions": {"torch": "2.9.0", "timm": "1.0.0"}}]})
    assert fields_of(old) == {
        "device": "cpu",
        "threads": "1",
        "precision": "fp32",
        "processes": "1",
        "parts": "1",
        "compile": None,
        "torch": "2.9.0",
        "timm": "1.0.0",
        "open_clip_torch": None,
    }
    assert Numerics.of([old, old]).warnings == ()
    found = Numerics.of([cpu(0), old])
    assert found.comparable(1, 0) is None
    assert found.warnings == (
        "not on record: torch.compile (1 run), open_clip (1 run); "
        "these runs are compared as if it were the others'",
    )


def test_a_record_that_tells_nothing_is_said_once_and_never_guessed() -> None:
    found = Numerics.of([cpu(0), record(1, result={"training": {}})])
    assert found.comparable(1, 0) is None
    (line,) = found.warnings
    assert line.startswith("not on record: device (1 run), threads (1 run), precision (1 run)")
