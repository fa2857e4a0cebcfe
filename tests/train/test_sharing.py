"""An evaluation by all processes of a run has the bits of one, and ends well when it goes wrong."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import run
from harness.config import ClassFolder, RunConfig, Runtime, override
from harness.data.dataset import Split
from harness.errors import ConfigError, DataError, InvariantError, RankLost
from harness.evaluate import benchmarks
from harness.evaluate.engine import evaluate
from harness.files import read_jsonl
from harness.metrics import OWN_SUITES
from harness.models.training import TrainingModel
from harness.store.record import Store
from harness.train import sharing
from harness.train.distributed import SINGLE_PROCESS, ProcessGroup
from harness.train.sharing import help_to_evaluate, shared_evaluation
from tests.conftest import (
    MemoryData,
    drawings,
    memory_data,
    tiny_run,
    with_fingerprints,
    write_shapes,
)
from tests.train import rank_cases
from tests.train.rank_cases import CLIP, on_ranks, start_ranks


def data_with_validation() -> MemoryData:
    """24, 12 and 13 pictures, of which one of `test` cannot be read; two captions each there."""
    data = memory_data(24, 25)
    names, tests = data.splits["test"].images, data.tasks[0].labels
    captions = [(f"a {i} thing", "one of many things " + "and on " * (i % 4)) for i in range(25)]
    for split, part in (("validation", slice(0, 12)), ("test", slice(12, 25))):
        data.splits[split] = Split(names[part], captions[part])  # type: ignore[index]
    labels = tests["test"]
    tests["validation"], tests["test"] = labels[:12], labels[12:]  # type: ignore[index]
    data.files[data.splits["test"].images[5]] = b"<html>"
    return data


def job(folder: Path) -> RunConfig:
    """The evaluation of two splits, a class folder and everything of the own suites."""
    pictures = folder / "classes"
    for name, (png, colour, _) in drawings(9).items():
        place = pictures / colour / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png)
    classes = ClassFolder(name="drawn", path=str(pictures), templates=("a {c}", "some {c}"))
    values = {
        "evaluate.batch_size": 4,
        "evaluate.splits": ("test", "validation"),
        "evaluate.suites": tuple(OWN_SUITES),
        "evaluate.class_folders": (classes,),
        "model.text.vocabulary": "full",
    }
    return override(CLIP, values)


def evaluated(
    config: RunConfig, folder: Path, ranks: ProcessGroup, data: MemoryData | None = None
) -> dict[str, Any]:
    """What one process comes to: the first has the entry and its outcomes, as text."""
    data = data or data_with_validation()
    torch.set_num_threads(1)
    training = TrainingModel(config, None)
    runtime = Runtime(max_bad_fraction=0.2, cache=str(folder / f"cache {ranks.rank}"))
    if ranks.rank:
        help_to_evaluate(ranks, training.model, data, config.evaluate, runtime)
        return {}
    out = folder / "outcomes"
    with shared_evaluation(ranks) as share:
        entry = evaluate(
            training.model,
            data,
            config,
            runtime,
            checkpoint_sha256="0" * 64,
            out=out,
            training=training,
            share=share,
        )
    kept = {str(file.relative_to(out)): file.read_bytes().hex() for file in out.rglob("*.npz")}
    return {"entry": json.dumps(entry, sort_keys=True), "files": kept}


@pytest.fixture(scope="module")
def of_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    return evaluated(job(folder), folder, SINGLE_PROCESS)


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_find_the_bits_of_one(
    of_one: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    real = sharing._in_turns
    counted = tmp_path / "turns"

    def counting(group: ProcessGroup, work: Any) -> Any:
        with counted.open("a") as file:
            file.write(f"{group.rank}\n")
        return real(group, work)

    monkeypatch.setattr(sharing, "_in_turns", counting)
    config = job(tmp_path)
    first, *others = on_ranks(tmp_path, size, partial(evaluated, config, tmp_path / "out"))
    assert others == [{}] * (size - 1)
    assert json.loads(first["entry"]) == json.loads(of_one["entry"])
    assert first["files"] == of_one["files"]
    assert len(first["files"]) == 2
    # pictures of two splits, of `train` and of the folder; prompts, captions, and these shortened
    assert sorted(counted.read_text().split()) == sorted([*map(str, range(size))] * (4 + 6))


def test_a_set_that_another_process_lacks_is_embedded_by_the_first_alone(
    of_one: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "opened", lambda *of: None)
    first, _ = on_ranks(tmp_path, 2, partial(evaluated, job(tmp_path), tmp_path / "out"))
    assert json.loads(first["entry"]) == json.loads(of_one["entry"])


def test_a_set_of_other_content_is_not_at_hand(tmp_path: Path) -> None:
    settings = job(tmp_path).evaluate
    (folder,) = settings.class_folders
    known = benchmarks.class_set(folder, Runtime()).fingerprint
    found = benchmarks.opened("drawn", known, settings, Runtime())
    assert found is not None
    assert len(found.split("test")) == 9
    assert benchmarks.opened("drawn", "0" * 64, settings, Runtime()) is None
    assert benchmarks.opened("other", known, settings, Runtime()) is None


# --------------------------------------------------------------------------- what goes wrong


class Broken(MemoryData):
    """Pictures whose shards are gone."""

    def read(self, image: str) -> bytes:
        raise DataError("shard 3 is gone")


@pytest.mark.parametrize("rank", [0, 1])
def test_data_that_one_process_cannot_read_is_its_error_and_the_others_go_on(
    tmp_path: Path, rank: int
) -> None:
    def work(ranks: ProcessGroup) -> str:
        data = data_with_validation()
        if ranks.rank == rank:
            object.__setattr__(data, "__class__", Broken)
        try:
            evaluated(job(tmp_path / str(ranks.rank)), tmp_path, ranks, data)
        except DataError as error:
            return str(error)
        return "went on"

    found = on_ranks(tmp_path, 2, work)  # both leave well: they may help with the next run
    assert found == ["shard 3 is gone", "went on"]


def test_a_process_that_dies_in_there_is_told(tmp_path: Path) -> None:
    def work(ranks: ProcessGroup) -> None:
        if ranks.rank == 1:
            kill = lambda *of: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
            sharing._told = kill  # type: ignore[assignment]
        evaluated(job(tmp_path / str(ranks.rank)), tmp_path, ranks)

    for child in start_ranks(tmp_path, 2, work):
        os.waitpid(child, 0)
    assert "RankLost: another process of the run is gone" in (tmp_path / "error-0.txt").read_text()


def test_a_process_that_falls_silent_in_there_is_waited_for_as_long_as_in_any_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rank_cases.process_group

    def impatient(place: Any, store: Any, device: Any, timeout: float) -> Any:
        return real(place, store, device, 1.0)

    def work(ranks: ProcessGroup) -> None:
        if ranks.rank == 1:
            sharing._told = lambda batch: time.sleep(600) or {}
        began = time.monotonic()
        try:
            evaluated(job(tmp_path / str(ranks.rank)), tmp_path, ranks)
        finally:
            (tmp_path / f"took-{ranks.rank}").write_text(str(time.monotonic() - began))

    monkeypatch.setattr(rank_cases, "process_group", impatient)
    first, silent = start_ranks(tmp_path, 2, work)
    os.waitpid(first, 0)
    os.kill(silent, signal.SIGKILL)
    os.waitpid(silent, 0)
    assert "RankLost: another process of the run is gone" in (tmp_path / "error-0.txt").read_text()
    assert float((tmp_path / "took-0").read_text()) < 60


def test_an_error_of_the_first_lets_the_others_go(tmp_path: Path) -> None:
    def work(ranks: ProcessGroup) -> bool:
        if ranks.rank:
            evaluated(CLIP, tmp_path, ranks)
            return True
        with pytest.raises(ConfigError), shared_evaluation(ranks):
            raise ConfigError("no such split")
        return True

    assert on_ranks(tmp_path, 2, work) == [True, True]


def test_an_error_in_an_exchange_is_not_followed_by_another(tmp_path: Path) -> None:
    group = ProcessGroup()
    group.size = 2
    group.broadcast = _gone  # type: ignore[method-assign]
    with pytest.raises(RankLost), shared_evaluation(group) as share:
        share({"tokens": torch.zeros(1, 1)}, lambda first, every: (_ for _ in ()))


def _gone(data: object) -> None:
    raise RankLost("another process of the run is gone")


# --------------------------------------------------------------------------- a whole run


def tiny(folder: Path, runtime: Runtime) -> RunConfig:
    """A run on three splits of drawings, which are put into `folder`."""
    values = {"train.samples": 64, "evaluate.batch_size": 4}
    return with_fingerprints(tiny_run(write_shapes(folder, validation=12), **values), runtime)


def test_a_run_of_two_processes_validates_and_evaluates_by_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Runtime(processes=2, log_samples=16, validate_at=(20,))
    config = tiny(tmp_path / "shapes", plain)

    def work(ranks: ProcessGroup, shared: bool) -> None:
        if not shared:
            monkeypatch.setattr(sharing.Sharing, "__call__", lambda self, asked, work: work(0, 1))
        root = tmp_path / f"shared {shared}"
        if ranks.rank == 0:
            run.execute(config, root, plain, label="x", company=lambda device: nullcontext(ranks))
            return
        monkeypatch.setattr(run, "open_store", lambda *of: None)
        monkeypatch.setattr(run, "process_group", lambda *of: nullcontext(ranks))
        run.assist(config, plain, ranks)  # type: ignore[arg-type]

    found = []
    for shared in (True, False):
        on_ranks(tmp_path / f"ranks {shared}", 2, partial(work, shared=shared))
        directory = Store(tmp_path / f"shared {shared}").run_dir(config.run_key)
        (line,) = read_jsonl(directory.progress_file)
        result = directory.result()
        assert result is not None
        entry = result["evaluations"][config.evaluation_key]
        found.append((line["metrics"], entry, result["checkpoint"]))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (InvariantError("the text tower has collapsed"), "well"),
        (RankLost("another process of the run is gone"), "RankLost"),
        (OSError("disk full"), "OSError"),
    ],
)
def test_an_evaluation_that_fails_by_its_numbers_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, left: str
) -> None:
    how: list[str] = []

    @contextmanager
    def company(device: torch.device) -> Iterator[ProcessGroup]:
        try:
            yield SINGLE_PROCESS
            how.append("well")
        except BaseException as error:
            how.append(type(error).__name__)
            raise

    def fails(*of: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(run, "evaluate", fails)
    config = tiny(tmp_path / "shapes", Runtime())
    with pytest.raises(type(error)):
        run.execute(config, tmp_path / "out", Runtime(), label="x", company=company)
    assert how == [left]
