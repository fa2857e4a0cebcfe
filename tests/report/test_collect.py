"""Records become rows; whatever is missing becomes a hole that says why."""

from __future__ import annotations

import math
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
from report_records import (
    DEPTHS,
    IMAGES,
    PROTOCOL,
    ROLE,
    T2I,
    Records,
    depth_sweep,
    edit_json,
    fill,
    frame_of,
    metric,
    runs_by,
    sweep_of,
)

from harness.config.sweep import (
    Sweep,
    baselines_of,
    compared_with_nothing,
    expand,
    points,
    product,
)
from harness.errors import RecordError
from harness.metrics import base
from harness.report.content import runs_with_holes
from harness.results.collect import Collection, collect
from harness.results.findings import find
from harness.results.run_table import run_table
from harness.results.second_process import begin
from harness.results.summary import summarise
from harness.store.record import RunDir


def one_hole(collection: Collection, metric: str = T2I) -> pd.Series[Any]:
    frame = frame_of(collection)
    holes = frame[(frame["metric"] == metric) & frame["value"].isna()]
    assert len(holes) == 1
    return holes.iloc[0]


def test_one_row_a_point_seed_and_metric(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs)

    frame = frame_of(collect(sweep, runs, records.store))

    shown = frame[frame["metric"] == T2I]
    assert len(shown) == 15
    row = shown[(shown["model.text.layers"] == 4) & (shown["seed"] == 1)].iloc[0]
    assert (row["value"], row["n"], row["chance"]) == (0.386, 200, 0.005)
    assert (row["label"], row["key"], row["state"]) == ("layers=4", at(4, 1).key, "done")
    assert set(frame["metric"]) >= {ROLE, "test/mean_recall", "cost/gmacs/text"}


def test_two_processes_read_what_one_reads(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((8, 2), (12, 1), (12, 2)))
    records.failed(at(8, 2))
    oddity = base.Described("oddity", "oddity", "points", True, 1, "retrieval")
    odd = {**metric(0.25, IMAGES, 0.1), **oddity.plain()}
    versions = {**PROTOCOL["metrics"], "oddity": 1}
    records.done(
        at(12, 1),
        t2i=0.4,
        metrics={"test/oddity": odd},
        protocol={**PROTOCOL, "metrics": versions},
    )
    alone = collect(sweep, runs, records.store)
    monkeypatch.setattr(base, "_MET", {})
    monkeypatch.setattr("harness.results.records._MANY", 4)

    both = collect(sweep, runs, records.store)

    pd.testing.assert_frame_equal(frame_of(alone), frame_of(both))
    for one, two in zip(alone.records, both.records, strict=True):
        assert (one.run, one.status, one.inputs) == (two.run, two.status, two.inputs)
        assert one.curve.points("loss").tolist() == two.curve.points("loss").tolist()
    assert base.recorded_of("oddity") == oddity


def test_a_second_process_does_the_task_and_what_fails_there_is_told_here() -> None:
    def fails() -> int:
        raise RecordError(f"in process {os.getpid()}")

    assert begin(os.getpid)() != os.getpid()
    with pytest.raises(RecordError, match=f"in process {os.getpid()}"):
        begin(fails)()


def test_beside_a_thread_no_process_is_copied() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        assert begin(os.getpid)() == os.getpid()


def test_what_a_killed_process_owes_is_done_here() -> None:
    here = os.getpid()

    def task() -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    assert begin(task)() == here


def test_the_table_of_runs_has_a_row_a_run(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((2, 1),))
    records.failed(at(2, 1))

    table = run_table(collect(sweep, runs, records.store))

    assert table["key"].tolist() == [run.key for run in runs]
    assert table["model.text.layers"].tolist() == [d for d in DEPTHS for _ in range(3)]
    row = table[(table["model.text.layers"] == 4) & (table["seed"] == 1)].iloc[0]
    assert (row[T2I], row["cost/parameters/inference"]) == (0.386, 1_600_000)
    assert (row["training_seconds"], row["evaluation_seconds"]) == (20.0, 2.0)
    assert row["state"] == "done"
    assert pd.isna(row["reason"])
    hole = table[table["key"] == at(2, 1).key].iloc[0]
    assert hole["reason"] == "failed (diverged): loss is NaN at step 41"
    assert hole[[T2I, "cost/gmacs/text", "training_seconds"]].isna().all()


def test_an_axis_that_is_none_somewhere_keeps_its_other_values(records: Records) -> None:
    sweep = sweep_of({"train.grad_clip": [None, 1]})
    runs = expand(sweep, seeds=[0])

    assert run_table(collect(sweep, runs, records.store))["train.grad_clip"].tolist() == [None, 1]


@pytest.mark.parametrize(
    ("kind", "state", "reason"),
    [
        ("absent", "new", "not run"),
        ("running", "running", "still running (6,000 of 10,000 samples)"),
        ("interrupted", "interrupted", "interrupted at 6,000 of 10,000 samples"),
        ("failed", "failed", "failed (diverged): loss is NaN at step 41"),
    ],
)
def test_a_run_that_is_not_done_is_a_hole(
    records: Records, kind: str, state: str, reason: str
) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((4, 1),))
    if kind != "absent":
        getattr(records, kind)(at(4, 1))

    hole = one_hole(collect(sweep, runs, records.store))

    assert (hole["label"], hole["seed"], hole["state"]) == ("layers=4", 1, state)
    assert hole["reason"] == reason


def test_a_trained_run_without_this_protocol_is_a_hole(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs)
    file = records.store.run_dir(at(4, 1).key).result_file
    edit_json(file, lambda result: result.update(evaluations={}))

    hole = one_hole(collect(sweep, runs, records.store))

    assert hole["reason"] == "trained, not evaluated with this protocol"


def test_a_result_that_cannot_be_true_is_a_hole_and_a_failure(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs)

    def break_it(result: dict[str, Any]) -> None:
        (evaluation,) = result["evaluations"].values()
        evaluation["metrics"]["test/image_retrieval_recall@5"]["value"] = 0.1

    edit_json(records.store.run_dir(at(4, 1).key).result_file, break_it)
    collection = collect(sweep, runs, records.store)

    assert "test/image_retrieval_recall@5 = 0.1" in one_hole(collection)["reason"]
    broken = next(record for record in collection.records if record.reason)
    assert (broken.failed, broken.status.failure) == (True, "invariant")


def test_a_hand_edited_configuration_is_a_hole_and_a_failure(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs)
    directory = records.store.run_dir(at(4, 1).key)
    edit_json(directory.path / "config.json", lambda tree: tree["config"].update(seed=7))

    collection = collect(sweep, runs, records.store)

    assert "was edited" in one_hole(collection)["reason"]
    assert sum(record.failed for record in collection.records) == 1


def test_a_null_metric_is_a_hole_with_its_own_reason(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I, ROLE])
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((4, 1),))
    records.done(at(4, 1), t2i=0.386, role=None)

    collection = collect(sweep, runs, records.store)

    assert one_hole(collection, ROLE)["reason"] == "no labels"
    frame = frame_of(collection)
    assert frame[frame["metric"] == T2I]["value"].notna().all()


def test_a_number_of_a_term_that_is_off_is_not_missing(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I, "validation/grounding"])
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((4, 1),))

    assert runs_with_holes(collect(sweep, runs, records.store)) == 1

    records.done(at(4, 1), t2i=0.386)
    collection = collect(sweep, runs, records.store)
    assert set(frame_of(collection).query("metric == 'validation/grounding'")["reason"]) == {
        "of the loss term token, which is off in this run"
    }
    assert runs_with_holes(collection) == 0


def test_an_unknown_metric_names_the_nearest(records: Records) -> None:
    sweep = depth_sweep(metrics=["test/rol/acc1"])
    runs, _ = runs_by(sweep)
    fill(records, runs)

    frame = frame_of(collect(sweep, runs, records.store))

    reasons = set(frame[frame["metric"] == "test/rol/acc1"]["reason"])
    assert len(reasons) == 1
    assert "test/role/acc1" in reasons.pop()


def test_inputs_are_hashed_as_they_lie_on_disk(records: Records) -> None:
    import hashlib

    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs)
    file = records.store.run_dir(at(1, 0).key).result_file

    record = collect(sweep, runs, records.store).records[0]

    assert record.inputs["result.json"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert set(record.inputs) == {
        "result.json", "config.json", "metrics.jsonl", "provenance.json",
    }  # fmt: skip


def test_the_log_is_named_relative_to_the_root(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    records.failed(at(1, 0))

    record = collect(sweep, runs, records.store).records[0]

    assert record.log == f"results/runs/{at(1, 0).key}/logs/attempt-2.txt"


def test_a_section_that_lacks_newer_fields_is_read_in_full_once(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, at = runs_by(depth_sweep())
    for run in runs:
        records.done(run, t2i=0.3)
        edit_json(records.store.run_dir(run.key).path / "config.json", _without_decoder)
    read = Mock(wraps=RunDir.read_config)
    monkeypatch.setattr(RunDir, "read_config", lambda self: read(self))

    assert all(r.reason is None for r in collect(depth_sweep(), runs, records.store).records)
    assert read.call_count == 1

    def edited(tree: dict[str, Any]) -> None:
        tree["config"]["data"]["decode"] = "scaled"

    edit_json(records.store.run_dir(at(4, 1).key).path / "config.json", edited)
    found = collect(depth_sweep(), runs, records.store).records
    assert [r.run.key for r in found if "was edited" in (r.reason or "")] == [at(4, 1).key]


def _without_decoder(tree: dict[str, Any]) -> None:
    del tree["config"]["data"]["decoder"]


# ---- baselines


def test_the_baseline_is_the_twin_that_differs_in_its_axes_alone() -> None:
    points = list(product({"a": [1, 12], "b": ["x", "y"]}))

    assert baselines_of(points, {"a": 12}) == [2, 3, 2, 3]
    assert baselines_of(points, {"a": 12, "b": "x"}) == [2, 2, 2, 2]
    assert baselines_of(points, None) == [None] * 4


def test_without_a_twin_a_single_match_is_the_baseline_and_several_are_none() -> None:
    assert baselines_of([{"a": 1, "b": 1}, {"a": 2, "b": 2}], {"a": 2}) == [1, 1]
    assert baselines_of([{"a": 1}, {"a": 2, "b": 2}, {"a": 2, "b": 3}], {"a": 2}) == [None, 1, 2]


def test_a_point_that_sets_more_than_the_baseline_is_told_to_meet_no_other(
    records: Records,
) -> None:
    weight, matching = "objective.token.weight", "objective.token.matching"
    off, whole = {weight: 0.0}, {weight: 0.5}
    given = points(off, whole, {**whole, matching: "sinkhorn"})
    sweep = replace(sweep_of({weight: [0.0, 0.5]}, baseline=whole), points=given)

    (note,) = collect(sweep, expand(sweep), records.store).notes

    assert note == (
        "Weight=0.5, matching=sinkhorn is compared with no other point: none differs from it in "
        "weight alone, the axes of Show(baseline=...)."
    )
    named = {**whole, matching: "one_to_one"}
    told = replace(sweep, points=points(off, named, {**whole, matching: "sinkhorn"}))
    assert compared_with_nothing(expand(told), named) is None


# ---- cells


def cells_of(sweep: Sweep, records: Records) -> Any:
    return summarise(collect(sweep, expand(sweep), records.store))


def test_a_cell_that_lacks_a_seed_has_no_mean_and_says_which(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((4, 1), (4, 2)))
    records.failed(at(4, 1))

    cell = cells_of(sweep, records)[(2, T2I)]

    assert cell.estimate is None
    assert cell.hole == (
        "1 of 3 seeds: seed 1 failed (diverged): loss is NaN at step 41; seed 2 not run"
    )
    assert cell.values == {0: 0.380}


def test_differences_pair_the_seeds_that_both_have(records: Records) -> None:
    sweep = depth_sweep()
    runs, _ = runs_by(sweep)
    fill(records, runs, skip=((12, 2), (4, 0)))

    findings = find(collect(sweep, runs, records.store))

    comparison = findings.cells[(2, T2I)].comparison
    assert comparison is not None
    assert comparison.seeds.seeds == (1,)
    assert comparison.mean == pytest.approx(0.386 - 0.405)


def test_chance_and_samples_come_from_the_records(records: Records) -> None:
    sweep = sweep_of({"model.text.layers": [1, 2]}, metrics=[ROLE])
    for run in expand(sweep):
        records.done(run, t2i=0.3)

    cell = cells_of(sweep, records)[(0, ROLE)]

    assert math.isclose(cell.chance, 1 / 3)
    assert cell.samples == (150,)


def test_reading_changes_nothing(records: Records, tmp_path: Path) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    records.done(runs[0], t2i=0.3)
    records.failed(at(1, 1))

    def listing() -> dict[str, bytes]:
        return {str(f): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}

    before = listing()
    collect(sweep, runs, records.store)

    assert listing() == before
