"""A metric that is added or raised in version touches no number of before.

The records are those of the tracked example, as the first stage made them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import metrics
from harness.config import RunConfig, Runtime
from harness.config.sweep import Run
from harness.evaluate.invariants import check
from harness.metrics import ACC1, CLASSIFICATION, METRICS, Classified, Metric, Value
from harness.planning.plan import Action, Rerun, make_plan, request_fills
from harness.results.records import Reader, Record
from harness.run import execute
from harness.store.manifest import read_manifest
from harness.store.record import Store
from harness.store.state import State
from tests.conftest import tiny_run, with_fingerprints

TASKS = ("role", "skin_tone", "gender")
EXAMPLE = Path(__file__).parents[1] / "reports" / "example" / "components" / "records"


class WorstClass(Metric):
    """Recall of the class that is told worst."""

    kind = "worst_class_recall"
    title = "worst class"
    needs = CLASSIFICATION

    def compute(self, found: Classified) -> Value:
        recalls = [found.top(1)[found.labels == c].mean() for c in np.unique(found.labels)]
        return Value(float(min(recalls)), len(found.labels), 1 / found.classes)


@pytest.fixture
def add_metric() -> Callable[[], None]:
    return lambda: METRICS._parts.update({WorstClass.kind: WorstClass()})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    shutil.copytree(EXAMPLE / "results", tmp_path / "results")
    return Store(tmp_path)


def runs_of(store: Store) -> tuple[Run, ...]:
    (name,) = [file.stem for file in store.manifests.glob("*.json")]
    return read_manifest(store, name).runs


def read(store: Store) -> list[Record]:
    reader = Reader(store)
    return [reader.read(i, run, store.run_dir(run.key)) for i, run in enumerate(runs_of(store))]


def values(records: list[Record]) -> list[dict[str, Any]]:
    assert all(record.evaluation is not None for record in records)
    return [dict(record.evaluation["metrics"]) for record in records if record.evaluation]


def test_an_added_metric_is_a_named_hole_and_nothing_else_changes(
    store: Store, add_metric: Callable[[], None]
) -> None:
    before = values(read(store))
    add_metric()
    after = read(store)
    assert all(record.reason is None for record in after)
    for was, now in zip(before, values(after), strict=True):
        added = now.keys() - was.keys()
        assert added == {
            f"test/{task}/{WorstClass.kind}" for task in ("role", "skin_tone", "gender")
        }
        assert {name: now[name] for name in was} == was
        for name in added:
            assert now[name]["value"] is None
            assert now[name]["reason"].startswith("worst class is newer than this evaluation")


def test_a_raised_version_is_a_named_hole_and_nothing_else_changes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = values(read(store))
    monkeypatch.setattr(METRICS.get(ACC1), "version", 2)
    for was, now in zip(before, values(read(store)), strict=True):
        changed = {name for name in was if now[name] != was[name]}
        assert changed == {f"test/{task}/{ACC1}" for task in TASKS}
        for name in changed:
            assert (
                "of version 2 is newer than this evaluation, which has version 1"
                in (now[name]["reason"])
            )


def test_a_metric_that_is_gone_invalidates_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = values(read(store))
    parts = {kind: METRICS.get(kind) for kind in METRICS if kind != ACC1}
    monkeypatch.setattr(METRICS, "_parts", parts)
    after = values(read(store))
    assert [now["test/role/mean_per_class_recall"] for now in after] == [
        was["test/role/mean_per_class_recall"] for was in before
    ]


def test_finished_runs_stay_done_and_the_plan_fills_them_without_training(
    store: Store, add_metric: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = runs_of(store)
    code = store.run_dir(runs[0].key).finished()["code"]
    monkeypatch.setattr("harness.planning.plan.code_hash", lambda: code)
    known = len(metrics.versions())
    add_metric()
    assert len(metrics.versions()) == known + 1
    assert {step.action for step in make_plan(runs, store)} == {Action.SKIP}
    for rerun in (Rerun.STALE, Rerun.METRICS):
        steps = make_plan(runs, store, rerun)
        assert {step.action for step in steps} == {Action.EVALUATE}
        assert {step.status.state for step in steps} == {State.DONE}
        assert steps[0].note.endswith("filled in without training")


# --------------------------------------------------------------------------- filled in


RUNTIME = Runtime(log_samples=16)


@pytest.fixture
def config(shapes_folder: Path) -> RunConfig:
    values = {"model.image.backbone": "test_convnext", "train.samples": 16}
    return with_fingerprints(tiny_run(shapes_folder, **values), RUNTIME)


def arrays(file: Path) -> dict[str, Any]:
    with np.load(file) as kept:
        return {name: kept[name] for name in kept.files}


def filled(config: RunConfig, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result before and after a finished run is filled up as a launch does it."""
    store = Store(root)
    directory = store.run_dir(config.run_key)
    before = directory.finished()
    run = Run("x", {}, config.seed, config)
    request_fills(make_plan([run], store, Rerun.METRICS), store)
    assert directory.status(config.evaluation_key).state is State.INTERRUPTED
    assert make_plan([run], store)[0].action is Action.EVALUATE
    execute(config, root, RUNTIME, label="x")
    assert directory.status(config.evaluation_key).state is State.DONE
    assert make_plan([run], store, Rerun.METRICS)[0].action is Action.SKIP
    return before, directory.finished()


def test_an_added_metric_is_filled_in_and_what_there_is_stays(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "image_retrieval_mean_rank"
    parts = {k: METRICS.get(k) for k in METRICS}
    monkeypatch.setattr(METRICS, "_parts", {k: m for k, m in parts.items() if k != kind})
    execute(config, tmp_path, RUNTIME, label="x")
    file = Store(tmp_path).run_dir(config.run_key).outcomes / f"{config.evaluation_key}.npz"
    kept = arrays(file)
    monkeypatch.setattr(METRICS, "_parts", parts)

    before, after = filled(config, tmp_path)

    was, now = (r["evaluations"][config.evaluation_key] for r in (before, after))
    rest = ("training", "checkpoint", "cost", "code")
    assert {part: after[part] for part in rest} == {part: before[part] for part in rest}
    check(now)
    assert now["metrics"].keys() - was["metrics"].keys() == {f"test/{kind}"}
    assert {name: now["metrics"][name] for name in was["metrics"]} == was["metrics"]
    found = arrays(file)
    assert found.keys() - kept.keys() == {"test/image_retrieval_rank"}
    assert all(np.array_equal(found[name], kept[name]) for name in kept)


def test_a_raised_version_is_computed_anew_and_the_others_stay(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(config, tmp_path, RUNTIME, label="x")
    rank = METRICS.get("text_retrieval_median_rank")
    monkeypatch.setattr(rank, "version", 2)
    monkeypatch.setattr(rank, "compute", lambda found: Value(1.0, 24, 4.0))

    before, after = filled(config, tmp_path)

    was, now = (r["evaluations"][config.evaluation_key]["metrics"] for r in (before, after))
    name = f"test/{rank.kind}"
    assert (now[name]["value"], now[name]["version"]) == (1.0, 2)
    assert {n: m for n, m in now.items() if n != name} == {
        n: m for n, m in was.items() if n != name
    }
