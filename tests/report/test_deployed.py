"""Deployed forms in a report: rows beside the model, paired by seed, timed in one sitting."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from report_records import T2I, Records, fill, frame_of, runs_by, sweep_of

from harness.api import load
from harness.config import Runtime, override
from harness.config.searchspace import check_search
from harness.config.sweep import Run, Sweep
from harness.document.markdown import words
from harness.document.text import flat
from harness.errors import ConfigError, RecordError, SweepError
from harness.figures.base import Sheet
from harness.figures.trade_off import trade_off
from harness.launch import latency
from harness.launch.latency import CALLS, TURNS, first_of_each_point, sit, time_what_is_untimed
from harness.metrics import COSTS, is_measured_apart
from harness.planning.plan import Action, Rerun, make_plan
from harness.report.check import check
from harness.report.deployed import device_blocks, on_devices
from harness.report.folder import build
from harness.results.collect import collect
from harness.results.deployed import FORM, TRAINED, deployed, newest_with_most
from harness.results.findings import find
from harness.searchspace import Integers, Search
from harness.store.deployed import WAITED, Sitting, Timing, read_sittings, write_sitting
from harness.store.manifest import write_manifest

MACHINE = {"host": "h", "cpu": "a CPU", "threads": 1, "onnxruntime": "1", "load": [0.1, 0.2]}


NO_ROW = '{"schema": 1, "when": "x", "machine": {}, "timings": [{}]}'


def sweep() -> Sweep:
    return sweep_of({"model.text.layers": [1, 2, 4]}, primary=T2I, margin=1.0)


def timing(run: Run, form: str, tower: str, median: float = 1.0, p90: float = 1.2) -> Timing:
    sha256 = f"{run.key}{form}{tower}"
    return Timing(run.key, form, tower, sha256, 1, 200, 0.9, median, p90, 10.0, 20.0)


def sitting_of(runs: Sequence[Run], *, when: str = "2026-01-01T00:00:00", **more: float) -> Sitting:
    towers = [(r, f, t) for r in runs for f in ("onnx", "onnx-int8") for t in ("image", "text")]
    return Sitting(when, MACHINE, tuple(timing(*each, **more) for each in towers))


@pytest.fixture
def runs(records: Records) -> list[Run]:
    runs, _ = runs_by(sweep())
    fill(records, runs)
    for run in runs:
        plain = records.store.run_dir(run.key).result()["evaluations"][run.config.evaluation_key]
        t2i = plain["metrics"][T2I]["value"]
        records.deployed(run, {"onnx": t2i, "onnx-int8": t2i - 0.002 - 0.0004 * run.seed})
    return runs


def test_a_form_is_a_row_against_the_model_as_trained(records: Records, runs: list[Run]) -> None:
    forms = deployed(collect(sweep(), runs, records.store), None)
    assert forms is not None
    assert [row.axes[FORM] for row in forms.points] == [TRAINED, "onnx", "onnx-int8"] * 3
    assert [row.baseline for row in forms.points] == [None, 0, 0, None, 3, 3, None, 6, 6]
    frame = frame_of(forms)
    frame = frame[frame["metric"] == T2I]
    values = frame.pivot_table("value", ["model.text.layers", "seed"], FORM)
    lost = values[TRAINED] - values["onnx-int8"]
    assert lost.tolist() == pytest.approx([0.002, 0.0024, 0.0028] * 3)
    assert (values[TRAINED] == values["onnx"]).all()


def test_the_page_says_what_is_lost_and_whether_it_is_within_the_margin(
    records: Records, runs: list[Run]
) -> None:
    blocks = blocks_of(records, runs)
    said = [flat(item) for item in blocks[0].items]  # type: ignore[union-attr]
    assert said[0].startswith("onnx: T2I R@1 differs from the model as trained by 0.0 points;")
    assert "onnx-int8: T2I R@1 differs from the model as trained by \u22120.2 points" in said[1]
    assert "within the margin of 1" in said[1]
    assert "python -m harness.bench latency" in said_of(blocks)


def blocks_of(records: Records, runs: list[Run]) -> tuple[Any, ...]:
    collection = collect(sweep(), runs, records.store)
    return tuple(device_blocks(collection, on_devices(collection, records.store)))


def said_of(blocks: Sequence[Any]) -> str:
    return " ".join(words(block.text) for block in blocks if hasattr(block, "text"))


def test_a_hole_has_its_reason_and_runs_without_forms_have_no_section(
    records: Records, runs: list[Run]
) -> None:
    records.deployed(runs[0], {"onnx": 0.5, "onnx-int8": "torch cannot write text.onnx"})
    forms = deployed(collect(sweep(), runs, records.store), None)
    assert forms is not None
    frame = frame_of(forms)
    hole = frame[(frame["key"] == runs[0].key) & (frame[FORM] == "onnx-int8")]
    assert set(hole["reason"]) == {"torch cannot write text.onnx"}
    assert hole["value"].isna().all()
    for run in runs:
        records.deployed(run, {})
    assert blocks_of(records, runs) == ()


def test_numbers_that_cannot_be_true_are_refused(records: Records, runs: list[Run]) -> None:
    directory, key = records.store.run_dir(runs[0].key), runs[0].config.evaluation_key
    result = directory.result()
    result["evaluations"][key]["deployed"]["onnx"]["metrics"][T2I]["value"] = 1.5
    directory.write_result(result)
    forms = deployed(collect(sweep(), runs, records.store), None)
    assert forms is not None
    frame = frame_of(forms)
    one = frame[(frame["key"] == runs[0].key) & (frame[FORM] == "onnx")]
    assert all("result refused" in reason for reason in one["reason"])


@pytest.mark.parametrize(
    "entry", [None, [], "x", {}, {"files": []}, {"files": {"image": 1}}, {"hole": 1}]
)
def test_an_entry_that_is_none_is_a_hole(records: Records, runs: list[Run], entry: Any) -> None:
    directory, key = records.store.run_dir(runs[0].key), runs[0].config.evaluation_key
    result = directory.result()
    result["evaluations"][key]["deployed"]["onnx"] = entry
    directory.write_result(result)
    forms = deployed(collect(sweep(), runs, records.store), None)
    assert forms is not None
    frame = frame_of(forms)
    one = frame[(frame["key"] == runs[0].key) & (frame[FORM] == "onnx")]
    assert set(one["reason"]) == {"the entry of this form was edited"}


def test_a_form_that_is_a_hole_can_be_filled_in_without_training(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = sweep()
    asked = replace(asked, base=override(asked.base, {"evaluate.deploy": ["onnx"]}))
    runs, _ = runs_by(asked)
    fill(records, runs)
    for run in runs:
        records.deployed(run, {"onnx": "no package" if run is runs[0] else 0.5})
    steps = {step.run.key: step for step in make_plan(runs, records.store, Rerun.METRICS)}
    first, second = (steps[run.key] for run in runs[:2])
    assert first.action is Action.EVALUATE
    assert "form onnx" in first.note
    assert "form onnx" not in second.note


@pytest.mark.parametrize("found", [{}, [], {"onnx": 3}])
def test_a_plan_takes_an_entry_that_was_edited_for_a_hole(records: Records, found: Any) -> None:
    asked = sweep()
    asked = replace(asked, base=override(asked.base, {"evaluate.deploy": ["onnx"]}))
    runs, _ = runs_by(asked)
    fill(records, runs)
    directory, key = records.store.run_dir(runs[0].key), runs[0].config.evaluation_key
    result = directory.result()
    result["evaluations"][key]["deployed"] = found
    directory.write_result(result)
    steps = make_plan(runs, records.store, Rerun.METRICS)
    step = next(step for step in steps if step.run.key == runs[0].key)
    assert "form onnx" in step.note


# --------------------------------------------------------------------------- timings


def test_all_rows_come_from_the_sitting_that_has_most_of_them(
    records: Records, runs: list[Run]
) -> None:
    some = sitting_of(runs[:1], median=5.0, when="2026-03-01T00:00:00")
    old, new = (
        sitting_of(runs, median=1.0),
        sitting_of(runs, median=2.0, when="2026-02-01T00:00:00"),
    )
    collection = collect(sweep(), runs, records.store)
    chosen = newest_with_most(collection, [old, new, some])
    assert chosen is new
    forms = deployed(collection, chosen)
    assert forms is not None
    frame = frame_of(forms)
    found = frame[frame["metric"] == "cost/latency_ms/text_batch1"]
    assert set(found[found[FORM] != TRAINED]["value"]) == {2.0}
    assert found[found[FORM] == TRAINED]["value"].isna().all()


def test_one_seed_of_a_point_is_enough_and_another_file_is_not(
    records: Records, runs: list[Run]
) -> None:
    by_point = first_of_each_point(runs, records.store)
    assert [d.key for d in by_point] == [runs[0].key, runs[3].key, runs[6].key]
    own = [run for run in runs if run.key in {d.key for d in by_point}]
    collection = collect(sweep(), runs, records.store)
    forms = deployed(collection, sitting_of(own))
    assert forms is not None
    frame = frame_of(forms)
    found = frame[(frame["metric"] == "cost/load_ms/image")]
    assert (found[found[FORM] != TRAINED]["value"] == 10.0).all()
    stale = [Timing(**{**vars(t), "sha256": "of another file"}) for t in sitting_of(own).timings]
    assert newest_with_most(collection, [Sitting("x", MACHINE, tuple(stale))]) is None


def test_what_was_not_quiet_is_in_no_table(records: Records, runs: list[Run]) -> None:
    write_sitting(records.store, sitting_of(runs, p90=1.9))
    made = blocks_of(records, runs)
    heads = [column.heads[0] for column in made[1].columns]
    assert "latency (ms)" not in heads
    assert "least latency (ms)" not in heads
    assert "memory (MB)" in heads
    assert "36 of 36 timings were not measured quietly" in said_of(made)
    write_sitting(records.store, sitting_of(runs, when="2026-02-01T00:00:00"))
    heads = [column.heads[0] for column in blocks_of(records, runs)[1].columns]
    assert heads[heads.index("least latency (ms)") + 1] == "latency (ms)"


def test_a_report_with_timings_is_checked_with_them(records: Records, runs: list[Run]) -> None:
    file = write_sitting(records.store, sitting_of(runs))
    out = records.store.root / "reports" / "made_up"
    build(sweep(), runs, records.store, out)
    told = json.loads((out / "manifest.json").read_text())["inputs"]
    assert list(told) == [f"results/latency/{file.name}"]
    file.write_text(file.read_text().replace("10.0", "11.0"))
    assert any(file.name in line for line in check(out, records.store.root))


@pytest.mark.parametrize("text", ["{", '{"schema": 1}', '{"schema": 9}', "[]", NO_ROW])
def test_a_damaged_sitting_is_a_line(records: Records, runs: list[Run], text: str) -> None:
    write_sitting(records.store, sitting_of(runs)).with_name("0.json").write_text(text)
    sittings, problems = read_sittings(records.store)
    assert len(sittings) == 1
    assert len(problems) == 1
    assert "\n" not in problems[0]
    assert "Timings left out:" in said_of(blocks_of(records, runs))


def test_sittings_of_one_second_do_not_replace_one_another(records: Records) -> None:
    files = {write_sitting(records.store, sitting_of([])) for _ in range(3)}
    assert len(files) == 3


# --------------------------------------------------------------------------- the sitting


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that were probed, in order; a file is as slow as its turn."""
    probed: list[str] = []
    monkeypatch.setattr(latency, "_towers", _towers)

    def probe(tower: Any, threads: int) -> dict[str, Any]:
        probed.append(tower.sha256)
        turn = probed.count(tower.sha256)
        times = {"1": [float(turn)] * (CALLS // TURNS), "32": [32.0] * (CALLS // TURNS)}
        waited = {"1": 0.0, "32": 0.02 * turn}
        return {
            "load_ms": 10.0 * turn,
            "memory_mb": 5.0 * turn,
            "times_ms": times,
            "waited": waited,
        }

    monkeypatch.setattr(latency, "_probe", probe)
    return probed


def _towers(run: Any) -> Any:
    for tower in ("image", "text"):
        shared = "shared" if tower == "image" else run.key
        yield latency._Tower(run.key, "onnx", tower, Path("f"), shared)


def test_files_are_timed_in_turns_and_each_once_a_turn(
    records: Records, runs: list[Run], played: list[str]
) -> None:
    made = sit([records.store.run_dir(run.key) for run in runs[:2]], 1, lambda line: None)
    assert played == ["shared", runs[0].key, runs[1].key] * TURNS
    one = next(t for t in made.timings if t.batch == 1)
    assert (one.calls, one.least, one.median, one.p90) == (CALLS, 1.0, 2.5, 4.0)
    assert (one.load_ms, one.memory_mb) == (10.0, 20.0)
    assert not one.quiet
    assert all(t.quiet and t.waited == pytest.approx(0.05) for t in made.timings if t.batch == 32)
    assert len(made.timings) == 2 * 2 * 2


@pytest.fixture
def busy() -> Iterator[None]:
    """Three processes for every core that want it all the time."""
    loop = [sys.executable, "-S", "-c", "while True: pass"]
    beside = [subprocess.Popen(loop) for _ in range(3 * (os.cpu_count() or 1))]
    yield
    for process in beside:
        process.kill()
        process.wait()


@pytest.mark.thorough  # nothing else that is timed can run beside it
def test_busy_loops_beside_a_sitting_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: None
) -> None:
    file = tmp_path / "tower.onnx"
    squares = [f"x{i}" for i in range(9)]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(squares)]
    shape = ["batch", 256]
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info(squares[0], TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(squares[-1], TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.eye(256, dtype=np.float32), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(made, file)
    monkeypatch.setattr(latency, "BATCHES", (1, 256))
    tower = latency._Tower("key", "onnx", "image", file, "sha")
    short, long = latency._rows(tower, [latency._probe(tower, 1)])
    # A short call is as fast as ever between two waits: its spread alone need not show them.
    assert long.waited > WAITED
    assert not long.quiet
    assert short.calls == CALLS // TURNS


def test_old_sittings_without_waits_are_read(records: Records, runs: list[Run]) -> None:
    file = write_sitting(records.store, sitting_of(runs[:1]))
    tree = json.loads(file.read_text())
    for row in tree["timings"]:
        assert row.pop("waited") == 0.0
    file.write_text(json.dumps(tree))
    (found,), problems = read_sittings(records.store)
    assert not problems
    assert all(timing.quiet for timing in found.timings)


# --------------------------------------------------------------------------- pictures and tables


def traded(records: Records, runs: list[Run]) -> tuple[Any, list[dict[str, str]]]:
    collection = collect(sweep(), runs, records.store)
    devices = on_devices(collection, records.store)
    assert devices is not None
    shipped = Sheet(devices.forms, devices.findings)
    drawing = trade_off(Sheet(collection, find(collection), {}, shipped))
    assert drawing is not None
    return drawing, list(csv.DictReader(io.StringIO(drawing.data)))


def test_the_trade_off_is_against_latency_where_every_point_was_measured_quietly(
    records: Records, runs: list[Run]
) -> None:
    drawing, rows = traded(records, runs)
    assert {row["cost"] for row in rows} == {"parameters"}
    slow = {run.key: 1.0 + place for place, run in enumerate(runs)}
    measured = sitting_of(runs)
    timings = [
        replace(t, **dict.fromkeys(("median", "least", "p90"), slow[t.key]))
        for t in measured.timings
    ]
    write_sitting(records.store, replace(measured, timings=tuple(timings)))
    drawing, rows = traded(records, runs)
    assert {row["cost"] for row in rows} == {"latency"}
    assert len(rows) == 3 * 2
    assert "ms" in drawing.words
    assert "in the forms that ship" in drawing.words
    assert {float(row["cost_value"]) for row in rows} == {2.0, 8.0, 14.0}
    # One point that was not measured quietly, and it is against parameters again.
    loud = [replace(t, p90=99.0) if t.key in {r.key for r in runs[:3]} else t for t in timings]
    loud_one = replace(measured, when="2026-03-01T00:00:00", timings=tuple(loud))
    write_sitting(records.store, loud_one)
    _, rows = traded(records, runs)
    assert {row["cost"] for row in rows} == {"parameters"}


def test_python_is_given_a_row_a_form(records: Records, runs: list[Run]) -> None:
    made = sweep()
    write_manifest(records.store, made, runs, Runtime(), ["sweep"])
    write_sitting(records.store, sitting_of(runs, median=2.0))
    table = load(made.name, records.store.root, deployed=True)
    assert len(table) == 3 * len(runs)
    assert list(table.columns[:4]) == ["label", "seed", "model.text.layers", FORM]
    assert set(table[FORM]) == {TRAINED, "onnx", "onnx-int8"}
    costs = ["cost/latency_least_ms/text_batch1", "cost/latency_ms/text_batch1"]
    shipped = table[table[FORM] != TRAINED]
    assert shipped[costs].drop_duplicates().to_numpy().tolist() == [[0.9, 2.0]]
    assert table[table[FORM] == TRAINED][costs].isna().all(axis=None)
    plain = load(made.name, records.store.root)
    assert len(plain) == len(runs)
    assert FORM not in plain
    assert plain[T2I].tolist() == table[table[FORM] == TRAINED][T2I].tolist()
    for run in runs:
        records.deployed(run, {})
    with pytest.raises(ConfigError, match="no run was evaluated in a deployed form"):
        load(made.name, records.store.root, deployed=True)


def test_a_second_sitting_waits_and_then_says_so(
    records: Records, runs: list[Run], played: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "_LOCK_SECONDS", 0.0)
    directory = [records.store.run_dir(runs[0].key)]
    with latency._alone(), pytest.raises(ConfigError, match="another sitting has held"):
        sit(directory, 1, lambda line: None)
    assert sit(directory, 1, lambda line: None).timings


def test_a_sweep_is_timed_once_and_a_failure_stops_nothing(
    records: Records, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def refuse(*_: Any) -> Sitting:
        raise ConfigError("no luck")

    monkeypatch.setattr(latency, "sit", refuse)
    time_what_is_untimed(runs, records.store, 1, said.append)
    assert said == ["latency was not measured: no luck"]
    monkeypatch.setattr(latency, "sit", lambda *_: sitting_of(runs))
    time_what_is_untimed(runs, records.store, 1, said.append)
    assert len(read_sittings(records.store)[0]) == 1
    monkeypatch.setattr(latency, "sit", refuse)
    time_what_is_untimed(runs, records.store, 1, said.append)
    assert len(said) == 1


def test_a_file_that_was_not_scored_is_not_timed(records: Records, runs: list[Run]) -> None:
    directory = records.store.run_dir(runs[0].key)
    with pytest.raises(RecordError, match="cannot be read"):
        sit([directory], 1, lambda line: None)
    folder = directory.path / "deploy" / "onnx"
    folder.mkdir(parents=True)
    (folder / "image.onnx").write_bytes(b"another")
    with pytest.raises(RecordError, match=r"no ONNX file|differs"):
        sit([directory], 1, lambda line: None)
    records.deployed(runs[0], {})
    with pytest.raises(ConfigError, match="none of these runs has a deployed form"):
        sit([directory], 1, lambda line: None)


def test_speed_is_no_goal_of_a_search_and_no_cost_of_a_run() -> None:
    assert [n for n in COSTS if is_measured_apart(n)] == [
        n for n in COSTS if not n.startswith(("cost/parameters/", "cost/gmacs/"))
    ]
    with pytest.raises(SweepError, match="speed is measured apart"):
        check_search(
            Search(
                space={"model.text.layers": Integers(1, 4)},
                objectives=["validation/mean_recall", "cost/latency_ms/text_batch1"],
                trials=4,
            ),
            sweep().base,
            [{}],
        )
