"""Records of the first stage: those of the tracked example, and hand-made ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import metrics
from harness.config.sweep import Run
from harness.errors import SweepError
from harness.evaluate.invariants import check
from harness.results.outcomes import read_scores
from harness.results.records import Reader
from harness.store import first_stage
from harness.store.evaluations import EvaluationDir
from harness.store.record import Store
from harness.store.state import State
from harness.store.trials import Ledger, looks

EXAMPLE = Path(__file__).parents[1] / "reports" / "example" / "components" / "records"
T2I, I2T = "test/image_retrieval_recall@1", "test/text_retrieval_recall@1"


def told(value: float | None, n: int = 10) -> dict[str, Any]:
    return {"value": value, "n": n, "chance": value, "reason": None if value else "not there"}


def test_a_recall_of_the_first_stage_is_one_of_shared_captions_and_the_strict_one_is_todays() -> (
    None
):
    now = {
        "test/image_retrieval_recall@1": "test/image_retrieval_recall_shared@1",
        "test/strict/image_retrieval_recall@1": "test/image_retrieval_recall@1",
        "flickr30k/strict/text_retrieval_recall@10": "flickr30k/text_retrieval_recall@10",
        "test/mean_recall": "test/mean_recall_shared",
        "test/role/acc1": "test/role/acc1",
        "test/items/image_retrieval_recall": "test/items/image_retrieval_recall",
        "retrieval/mean": "retrieval/mean",
    }
    assert {name: first_stage.name_of(name) for name in now} == now


def test_means_are_taken_of_the_strict_recalls_on_record() -> None:
    names = [f"{way}_retrieval_recall@{k}" for way in ("image", "text") for k in (1, 5, 10)]
    found = {f"told/{name}": told(0.9) for name in names}
    found |= {f"told/strict/{name}": told(0.1 * (i + 1)) for i, name in enumerate(names)}
    found |= {"told/mean_recall": told(0.9, 20), "pair/mean": told(0.8, 2), "few/acc1": told(0.7)}
    sections = {
        "told": {"metric": [f"told/{names[0]}", f"told/{names[3]}"]},
        "few": {"metric": ["few/acc1"]},
    }
    protocol = {"benchmarks": sections, "suites": {"pair": ["told", "few"]}}
    read = first_stage.entry({"metrics": found, "protocol": protocol})["metrics"]
    assert read["told/mean_recall"]["value"] == pytest.approx(0.35)
    assert (read["told/mean_recall"]["n"], read["told/mean_recall_shared"]["value"]) == (20, 0.9)
    assert read["pair/mean"]["value"] == pytest.approx((0.25 + 0.7) / 2)


def test_a_hole_of_the_first_stage_stays_a_hole_by_its_name() -> None:
    name = "flickr30k/image_retrieval_recall@1"
    facts = {"hole": "not there", "metric": [name]}
    protocol = {"benchmarks": {"flickr30k": facts}, "suites": {"retrieval": ["flickr30k"]}}
    found = {name: told(None), "retrieval/mean": told(None)}
    read = first_stage.entry({"metrics": found, "protocol": protocol})["metrics"]
    assert set(read) == set(found)
    assert all(found[name].items() <= read[name].items() for name in found)


# --------------------------------------------------------------------------- the tracked example


@pytest.fixture
def store(tmp_path: Path) -> Store:
    shutil.copytree(EXAMPLE / "results", tmp_path / "results")
    return Store(tmp_path)


def keys(store: Store) -> list[str]:
    return sorted(file.parent.name for file in store.runs.glob("*/result.json"))


def test_finished_runs_of_the_first_stage_stay_done_and_keep_what_must_hold(store: Store) -> None:
    for key in keys(store):
        directory = store.run_dir(key)
        config = directory.read_config()
        assert directory.status(config.evaluation_key).state is State.DONE
        entry = directory.finished()["evaluations"][config.evaluation_key]
        check(entry)
        written = json.loads(directory.result_file.read_text())
        before = written["evaluations"][config.evaluation_key]["metrics"]
        for now, was in (
            (T2I, "test/strict/image_retrieval_recall@1"),
            ("test/mean_recall_shared", "test/mean_recall"),
        ):
            assert before[was].items() <= entry["metrics"][now].items()


def test_items_of_the_first_stage_give_intervals_by_the_names_of_today(store: Store) -> None:
    directory = store.run_dir(keys(store)[0])
    config = directory.read_config()
    record = Reader(store).read(0, Run("a", {}, config.seed, config), directory)
    shared = "test/image_retrieval_recall_shared@1"
    names = [T2I, I2T, shared, "test/mean_recall", "test/mean_recall_shared", "test/role/acc1"]
    found = read_scores(record, names)
    assert (found.problem, set(found.by_metric)) == (None, set(names))


def test_items_are_mapped_by_rule_and_not_by_position(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    name = "test/image_retrieval_recall@1"
    np.savez(file, **{name: [1.0, 1.0], "test/strict/image_retrieval_recall@1": [1.0, 0.0]})
    with np.load(file) as kept:
        names = first_stage.array_names(kept.files)
        assert kept[names[name]].tolist() == [1.0, 0.0]
        assert kept[names["test/image_retrieval_recall_shared@1"]].tolist() == [1.0, 1.0]


def test_an_evaluation_added_to_a_result_of_the_first_stage_leaves_the_others(store: Store) -> None:
    directory = store.run_dir(keys(store)[0])
    before = directory.finished()
    directory.write_result({**before, "evaluations": {**before["evaluations"], "new": {}}})
    after = directory.finished()
    assert after["schema"] == 2
    assert {**after["evaluations"]} == {**before["evaluations"], "new": {}}


def test_an_outside_models_record_of_the_first_stage_is_read(store: Store) -> None:
    written = json.loads(store.run_dir(keys(store)[0]).result_file.read_text())
    folder = EvaluationDir(store.root / "abc")
    folder.path.mkdir()
    tree = {"schema": 1, "key": "abc", "model": {}, "evaluations": written["evaluations"]}
    (folder.path / "result.json").write_text(json.dumps(tree))
    read = folder.result()
    assert read is not None
    (entry,) = read["evaluations"].values()
    check(entry)


# --------------------------------------------------------------------------- searches


def old_search(store: Store, goal: str) -> Ledger:
    ledger = Ledger.of(store, "hunt")
    ledger.define({"objectives": [goal]}, {"objectives": [goal]})
    tree = json.loads(ledger.definition_file.read_text())
    del tree["names"]
    ledger.definition_file.write_text(json.dumps(tree))
    return ledger


def test_a_search_by_the_old_rule_is_refused_in_one_line_and_read_by_its_new_name(
    tmp_path: Path,
) -> None:
    goal = "validation/mean_recall"
    ledger = old_search(Store(tmp_path), goal)
    with pytest.raises(SweepError, match=f"search for {goal} as an earlier version had it") as told:
        ledger.check({"objectives": [goal]})
    assert "\n" not in str(told.value)
    assert ledger.about()["objectives"] == ["validation/mean_recall_shared"]


def test_a_search_for_what_is_the_same_today_goes_on(tmp_path: Path) -> None:
    goal = "validation/role/acc1"
    ledger = old_search(Store(tmp_path), goal)
    ledger.check({"objectives": [goal]})
    assert ledger.about()["objectives"] == [goal]


def test_what_was_evaluated_while_training_is_read_by_its_new_names(store: Store) -> None:
    directory = store.run_dir(keys(store)[0])
    old = {"samples_seen": 8, "metrics": {"validation/mean_recall": 0.5}}
    new = {"samples_seen": 16, "metrics": {"validation/mean_recall": 0.4}}
    directory.progress_file.write_text(json.dumps(old) + "\n")
    directory.append_progress(new)
    assert [look.metrics for look in looks(directory)] == [
        {"validation/mean_recall_shared": 0.5},
        {"validation/mean_recall": 0.4},
    ]
    assert metrics.display("validation/mean_recall_shared").endswith("shared captions")
