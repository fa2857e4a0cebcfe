"""Evaluations between two steps: written down, and without a trace in what is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.config import RunConfig, Runtime
from harness.errors import StoppedRun
from harness.files import read_jsonl
from harness.run import execute
from harness.store.record import RunDir, Store
from harness.store.state import State
from tests.conftest import tiny_run, with_fingerprints, write_shapes

PLAIN = Runtime(log_samples=16, log_seconds=1e-6)
LOOKING = Runtime(log_samples=16, log_seconds=1e-6, validate_at=(20, 40, 64))


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A tiny run with a BatchNorm, random crops and every objective, on three splits."""
    folder = write_shapes(tmp_path / "shapes", validation=12)
    values = {
        "model.image.backbone": "test_resnet",
        "model.image.size": 64,
        "objective.token.weight": 0.5,
        "objective.mlm.weight": 0.5,
        "train.samples": 64,
    }
    return with_fingerprints(tiny_run(folder, **values), PLAIN)


def trained(config: RunConfig, root: Path, runtime: Runtime) -> RunDir:
    execute(config, root, runtime, label="x")
    return Store(root).run_dir(config.run_key)


def lines(directory: RunDir) -> list[dict[str, object]]:
    return list(read_jsonl(directory.progress_file))


def test_looking_changes_no_bit_of_the_weights(config: RunConfig, tmp_path: Path) -> None:
    plain = trained(config, tmp_path / "plain", PLAIN)
    looking = trained(config, tmp_path / "looking", LOOKING)
    results = [d.result() for d in (plain, looking)]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0]["checkpoint"]["sha256"] == results[1]["checkpoint"]["sha256"]
    assert results[0]["training"]["final_loss"] == results[1]["training"]["final_loss"]
    assert not plain.progress_file.exists()


def test_a_look_is_at_the_first_step_past_its_samples_and_not_at_the_end(
    config: RunConfig, tmp_path: Path
) -> None:
    found = lines(trained(config, tmp_path / "out", LOOKING))
    assert [line["samples_seen"] for line in found] == [24, 40]
    metrics = found[0]["metrics"]
    assert isinstance(metrics, dict)
    assert {name.split("/")[0] for name in metrics} == {"validation"}
    assert 0 <= metrics["validation/mean_recall"] <= 1


def test_a_run_that_goes_on_after_it_was_stopped_writes_each_look_once(
    config: RunConfig, tmp_path: Path
) -> None:
    whole = lines(trained(config, tmp_path / "whole", LOOKING))
    directory = Store(tmp_path / "cut").run_dir(config.run_key)
    directory.write_intent(config, {"label": "x"})

    def at_32() -> bool:
        if directory.metrics_file.exists() and '"samples_seen": 32' in (
            directory.metrics_file.read_text()
        ):
            directory.request_stop("pruned")
        return False

    with pytest.raises(StoppedRun):
        execute(config, tmp_path / "cut", LOOKING, label="x", stop=at_32)
    status = directory.status()
    assert (status.state, (status.details or {})["stopped"]) == (State.INTERRUPTED, "pruned")
    assert (status.details or {})["seconds"] > 0
    directory.write_intent(config, {"label": "x"})
    execute(config, tmp_path / "cut", LOOKING, label="x")
    again = lines(directory)
    assert [(d["samples_seen"], d["metrics"]) for d in again] == [
        (d["samples_seen"], d["metrics"]) for d in whole
    ]


def test_towers_that_collapsed_are_a_line_without_numbers(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.errors import InvariantError
    from harness.train import validation

    def collapsed(*args: object, **more: object) -> None:
        raise InvariantError("all 12 text embeddings are equal: the text tower has collapsed")

    monkeypatch.setattr(validation, "evaluate", collapsed)
    found = lines(trained(config, tmp_path / "out", LOOKING))
    assert [json.dumps(line["metrics"]) for line in found] == ["null", "null"]
    assert "has collapsed" in str(found[0]["reason"])
