"""Loggers: each line of the logs reaches them once, and what they cannot do ends no run."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.commands.sweep import main
from harness.config import RunConfig, Runtime
from harness.errors import ConfigError, InterruptedRun, how_to_install
from harness.loggers import LOGGERS, LoggedRun, Logger, check_loggers
from harness.run import execute
from harness.store.record import Store, read_jsonl
from tests.conftest import tiny_run, with_fingerprints

CONFIG = RunConfig()
Line = tuple[int, dict[str, float]]


class Kept(Logger):
    """A logger that keeps what it is told, and breaks where a test says so."""

    def __init__(self, run: LoggedRun, config: RunConfig, state: dict[str, Any]) -> None:
        state["attempts"] = state.get("attempts", 0) + 1
        self.told: list[Line] = []
        self.closed: list[bool] = []
        self.label, self.state = run.label, state
        self.breaks_at = state.get("breaks_at")
        MADE.append(self)

    def write(self, samples_seen: int, values: Mapping[str, float]) -> None:
        if samples_seen == self.breaks_at:
            raise OSError("the network is gone")
        self.told.append((samples_seen, dict(values)))

    def close(self, failed: bool) -> None:
        self.closed.append(failed)


MADE: list[Kept] = []


@pytest.fixture
def kept() -> list[Kept]:
    """`runtime.log=kept` keeps here what it is told, one an attempt."""
    LOGGERS.register("kept")(Kept)
    MADE.clear()
    return MADE


def logged(path: Path, *names: str) -> LoggedRun:
    path.mkdir(exist_ok=True)
    return LoggedRun(path, CONFIG, Runtime(log=names), "layers=1")


def line(samples: int, loss: float = 0.5) -> dict[str, Any]:
    return {"samples_seen": samples, "step": samples // 8, "loss": loss, "terms": {"mlm": 0.25}}


def cut_off(run: LoggedRun, *places: int) -> None:
    """An attempt that logs at some places and is then stopped."""
    with run:
        run.rewind_logs(0)
        for samples in places:
            run.append_metrics(line(samples))
        raise InterruptedRun("stopped")


# --------------------------------------------------------------------------- which lines


def test_each_line_is_told_once_over_attempts(tmp_path: Path, kept: list[Kept]) -> None:
    with pytest.raises(InterruptedRun):
        cut_off(logged(tmp_path, "kept"), 8, 16, 24)
    with logged(tmp_path, "kept") as second:
        second.rewind_logs(8)  # the last state on disk; 16 and 24 are trained again
        for samples in (16, 24, 32):
            second.append_metrics(line(samples))
    assert [[samples for samples, _ in one.told] for one in kept] == [[8, 16, 24], [32]]
    assert kept[0].told[0] == (8, {"loss": 0.5, "terms/mlm": 0.25})
    assert [one.closed for one in kept] == [[True], [False]]
    assert kept[1].state == {"attempts": 2}, "what a logger keeps is there in the next attempt"
    assert [m["samples_seen"] for m in read_jsonl(second.metrics_file)] == [8, 16, 24, 32]


def test_a_logger_that_is_added_later_gets_what_was_before(
    tmp_path: Path, kept: list[Kept]
) -> None:
    with logged(tmp_path) as first:
        for samples in (8, 16, 24):
            first.append_metrics(line(samples))
    with logged(tmp_path, "kept") as second:
        second.rewind_logs(16)
        second.append_metrics(line(24))
    (one,) = kept
    assert [samples for samples, _ in one.told] == [8, 16, 24]


def test_validation_and_the_result_are_told_too(tmp_path: Path, kept: list[Kept]) -> None:
    result = {
        "training": {"samples_seen": 24},
        "evaluations": {
            "k1": {"metrics": {"test/acc1": {"value": 0.5}, "x/acc1": {"value": None}}}
        },
    }
    with logged(tmp_path, "kept") as run:
        run.append_metrics(line(16))
        run.append_progress({**line(16), "metrics": {"validation/acc1": 0.25}, "seconds": 3.0})
        run.write_result(result)
        run.write_result(result)
    (one,) = kept
    assert one.told[1:] == [
        (16, {"loss": 0.5, "terms/mlm": 0.25, "validation/acc1": 0.25}),
        (24, {"test/acc1": 0.5}),
    ]


# --------------------------------------------------------------------------- what goes wrong


def test_a_logger_that_breaks_is_told_and_left_alone(
    tmp_path: Path, kept: list[Kept], capsys: pytest.CaptureFixture[str]
) -> None:
    with logged(tmp_path, "kept") as run:
        kept[0].breaks_at = 16
        for samples in (8, 16, 24):
            run.append_metrics(line(samples))
    assert [samples for samples, _ in kept[0].told] == [8]
    assert capsys.readouterr().err.splitlines() == [
        "logger kept: OSError: the network is gone; no more of this attempt goes there"
    ]
    assert len(list(read_jsonl(run.metrics_file))) == 3


def test_a_logger_whose_package_is_gone_ends_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with logged(tmp_path, "wandb") as run:
        run.append_metrics(line(8))
    assert "logger wandb: ModuleNotFoundError" in capsys.readouterr().err


def test_names_are_looked_up_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dry = ["smoke", "--dry-run", "--root", str(tmp_path)]
    assert main([*dry, "runtime.log=tensorbord"]) == 2
    assert "unknown logger 'tensorbord'; nearest: tensorboard" in capsys.readouterr().err
    monkeypatch.setattr("harness.errors.find_spec", lambda name: None)
    assert main([*dry, "runtime.log=tensorboard,wandb"]) == 2
    assert f"needs tensorboard; {how_to_install('tensorboard')}" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="needs wandb"):
        check_loggers(Runtime(log=("wandb",)))


def test_loggers_are_no_part_of_what_a_run_is(
    tmp_path: Path, capsys: Any, kept: list[Kept]
) -> None:
    dry = ["smoke", "--dry-run", "--root", str(tmp_path)]
    plans = []
    for words in ([], ["runtime.log=kept"]):
        assert main([*dry, *words]) == 0
        plans.append(capsys.readouterr().out)
    assert plans[0] == plans[1]


def test_a_sweep_file_brings_its_own(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        '''"""Is it told?"""
from harness.bases import SMALL
from harness.loggers import LOGGERS, Logger
from harness.space import Show, Sweep, points


@LOGGERS.register("own_lines")
class OwnLines(Logger):
    def __init__(self, run, config, state):
        self.file = run.path / "own.txt"

    def write(self, samples_seen, values):
        with self.file.open("a") as file:
            print(samples_seen, sorted(values), file=file)

    def close(self, failed):
        pass


SWEEP = Sweep(base=SMALL, points=points({}), show=Show(x="train.lr", metrics=["*/mean_recall"]))
'''
    )
    words = [str(file), "--dry-run", "--root", str(tmp_path)]
    assert main([*words, "runtime.log=own_lines"]) == 0
    with logged(tmp_path / "run", "own_lines") as run:
        run.append_metrics(line(8))
    assert (run.path / "own.txt").read_text() == "8 ['loss', 'terms/mlm']\n"


# --------------------------------------------------------------------------- TensorBoard


def test_tensorboard_shows_one_curve_of_a_run_that_was_cut_off(
    shapes_folder: Path, tmp_path: Path
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    runtime = Runtime(log_samples=8, checkpoint_seconds=1e-6, log=("tensorboard",))
    values = {"model.image.backbone": "test_convnext", "train.samples": 64}
    config = with_fingerprints(tiny_run(shapes_folder, **values), runtime)
    asked = iter(range(100))
    with pytest.raises(InterruptedRun):
        execute(config, tmp_path, runtime, label="x", stop=lambda: next(asked) == 3)
    execute(config, tmp_path, runtime, label="x")

    run = Store(tmp_path).run_dir(config.run_key)
    shown = accumulator.EventAccumulator(str(run.path / "tensorboard"))
    shown.Reload()
    lines = list(read_jsonl(run.metrics_file))
    assert [e.step for e in shown.Scalars("loss")] == [m["samples_seen"] for m in lines]
    assert [e.value for e in shown.Scalars("loss")] == pytest.approx([m["loss"] for m in lines])
    assert len(shown.Scalars("terms/instance")) == len(lines) == 8
    entry = (run.result() or {})["evaluations"][config.evaluation_key]
    (recall,) = shown.Scalars("test/mean_recall")
    assert recall.step == 64
    assert recall.value == pytest.approx(entry["metrics"]["test/mean_recall"]["value"])
    assert len(list((run.path / "tensorboard").iterdir())) == 2, "a file an attempt"


# --------------------------------------------------------------------------- Weights & Biases


class StandIn(types.ModuleType):
    """What is used of wandb, by its documentation: init with an id to resume, log, finish."""

    class Settings(dict[str, Any]):
        """Keyword settings."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.errors = types.SimpleNamespace(Error=type("Error", (Exception,), {}))
        self.begun: list[dict[str, Any]] = []
        self.curves: dict[str, list[dict[str, float]]] = {}
        self.axes: list[tuple[str, str | None]] = []
        self.ends: list[int] = []

    def init(self, **words: Any) -> StandIn:
        self.begun.append(words)
        self.open = self.curves.setdefault(words["id"], [])
        return self

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes.append((name, step_metric))

    def log(self, values: dict[str, float]) -> None:
        if values["samples_seen"] == 40:
            raise self.errors.Error("rate limit")
        self.open.append(values)

    def finish(self, exit_code: int) -> None:
        self.ends.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


def test_wandb_has_one_run_for_all_attempts(tmp_path: Path, wandb: StandIn) -> None:
    with pytest.raises(InterruptedRun):
        cut_off(logged(tmp_path, "wandb"), 8, 16)
    with logged(tmp_path, "wandb") as second:
        second.rewind_logs(8)
        for samples in (16, 24):
            second.append_metrics(line(samples))
    ((name, curve),) = wandb.curves.items()
    assert name.startswith(f"{tmp_path.name}-")
    assert [values["samples_seen"] for values in curve] == [8, 16, 24]
    assert [words["resume"] for words in wandb.begun] == ["allow", "allow"]
    assert {words["name"] for words in wandb.begun} == {"layers=1 seed 0"}
    assert wandb.begun[0]["config"]["train"]["lr"] == CONFIG.train.lr
    assert json.dumps(wandb.begun[0]["config"])
    assert wandb.axes[:2] == [("samples_seen", None), ("*", "samples_seen")]
    assert wandb.ends == [1, 0]


def test_what_wandb_refuses_ends_no_run(
    tmp_path: Path, wandb: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    with logged(tmp_path, "wandb") as run:
        for samples in (32, 40, 48):
            run.append_metrics(line(samples))
    assert "logger wandb: Error: rate limit; no more" in capsys.readouterr().err
    assert len(list(read_jsonl(run.metrics_file))) == 3


def test_wandb_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for samples in (8, 16):
        with logged(tmp_path, "wandb") as run:
            run.append_metrics(line(samples))
    kept = json.loads((tmp_path / "loggers" / "wandb.json").read_text())
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert {file.stem for file in files} == {f"run-{kept['own']['id']}"}
