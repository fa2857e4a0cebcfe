"""`python -m harness.evaluate`: which models are meant, what is kept, and what a user is told."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.commands.evaluate import main
from harness.config import Evaluate, Runtime
from harness.data import catalog
from harness.evaluate import invariants
from harness.evaluate.suites import BENCHMARKS, SUITES
from harness.evaluate.suites.find import Found, find
from harness.launch.evaluations import Done, EvaluationTask, ModelSpec, Work, cost, evaluate_all
from harness.store.evaluations import EvaluationDir, read_evaluations
from harness.store.record import Store
from tests.evaluate.benchmark_cases import (
    CAPTIONS,
    CLASSES,
    caption_folder,
    class_folder,
    write_small_clip,
)


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_clip(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The suite `made` of two sets on disk, and the arguments that find them."""
    monkeypatch.setitem(SUITES, "made", (CLASSES, CAPTIONS))
    class_folder(tmp_path / "data" / "patches")
    caption_folder(tmp_path / "data" / "told")
    return [
        *("--suite", "made", "--data-root", str(tmp_path / "data"), "--root", str(tmp_path)),
        f"runtime.cache={tmp_path / 'cache'}",
    ]


def test_help_and_the_list_of_benchmarks_import_no_torch() -> None:
    code = (
        "import sys, harness.commands.evaluate\n"
        "try: harness.commands.evaluate.main(['--help'])\n"
        "except SystemExit: pass\n"
        "harness.commands.evaluate.main(['--list', '--suite', 'lightclip11'])\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'scipy', 'open_clip')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "imagenet1k: ImageNet, 50,000 pictures, 1,000 classes, by acc1" in done.stdout


def test_a_table_a_record_and_nothing_twice(
    export: Path, made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(export), *made, "--out", str(tmp_path / "table.csv")]) == 0
    shown = capsys.readouterr().out
    assert "patches acc@1" in shown
    assert "told T2I R@1" in shown
    (record,) = read_evaluations(Store(tmp_path))
    assert record["model"]["name"] == "small"
    (entry,) = record["evaluations"].values()
    invariants.check(entry)
    folder = EvaluationDir(tmp_path / "results" / "evaluations" / record["key"])
    assert (folder.path / entry["outcomes"]).is_file()
    rows = list(csv.reader((tmp_path / "table.csv").open()))
    assert rows[0][1:] == [
        "patches/acc1",
        "told/image_retrieval_recall@1",
        "told/text_retrieval_recall@1",
        "made/mean",
    ]
    assert float(rows[1][1]) == entry["metrics"]["patches/acc1"]["value"]
    parts = sorted((folder.outcomes / "benchmarks").glob("*.json"))
    before = [(file, file.stat().st_mtime_ns) for file in parts]
    assert main([str(export), *made]) == 0
    assert [(file, file.stat().st_mtime_ns) for file in parts] == before


def test_a_folder_of_exports_makes_one_table(
    export: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(export.parent), *made, "--dry-run"]) == 0
    # The longest first.
    assert capsys.readouterr().out == "export small: patches, told\n"


def test_a_hole_is_named_and_the_exit_code_says_so(
    export: Path, made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "told").rename(tmp_path / "data" / "elsewhere")
    assert main([str(export), *made]) == 3
    told = capsys.readouterr()
    assert "hole: told: not below" in told.err
    assert "this fetches it: hf download clip-benchmark/wds_told" in told.err
    assert "1 of 2 numbers are missing" in told.err
    (record,) = read_evaluations(Store(tmp_path))
    (entry,) = record["evaluations"].values()
    assert entry["metrics"]["made/mean"]["reason"] == "1 of 2 sets of made are missing: told"


def test_one_set_that_is_broken_leaves_the_others(
    export: Path, made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "patches" / "red" / "0.png").unlink()
    assert main([str(export), *made]) == 3
    told = capsys.readouterr()
    assert "small on told: done" in told.err
    assert "holds 5 pictures, and Patches has 6 in its split test" in told.err


def test_class_sets_of_ones_own_stand_beside_the_suites(
    export: Path, made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = class_folder(tmp_path / "zoo", {"red": "red", "green": "green", "blue": "sea_blue"})
    asked = [str(export), *made, "--class-folder", f"zoo={zoo}"]
    assert main([*asked, "--dry-run"]) == 0
    assert capsys.readouterr().out == "export small: patches, told, zoo\n"
    assert main(asked) == 0
    assert "zoo acc@1" in capsys.readouterr().out
    (record,) = read_evaluations(Store(tmp_path))
    (entry,) = record["evaluations"].values()
    invariants.check(entry)
    assert entry["protocol"]["class_folders"]["zoo"]["classnames"] == ["green", "red", "sea blue"]
    (zoo / "red" / "0.png").write_bytes(b"<html>")
    (zoo / "red" / "1.png").write_bytes(b"<html>")
    catalog._open_class_folder.cache_clear()
    assert main([*asked, "--out", str(tmp_path / "table.csv")]) == 3
    told = capsys.readouterr()
    assert "2 of 6 pictures cannot be evaluated" in told.err
    assert "1 of 3 numbers are missing" in told.err
    heads, row = csv.reader((tmp_path / "table.csv").open())
    assert dict(zip(heads, row, strict=True))["zoo/acc1"] == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "name what to evaluate"),
        (["--class-folder", "zoo"], "evaluate.class_folders.0.path: Field required"),
        (["--class-folder", "zoo=/no/where"], "no data at /no/where"),
        (["--pretrained", "x.pt"], "is a checkpoint of --model NAME, which is missing"),
        (["--model", "RN50", "--pretrained", "no.pt"], "there is no checkpoint no.pt"),
        (["nosuchrun"], "holds no run"),
        (["--suite", "smok"], "unknown suite 'smok'; nearest: smoke"),
        (["--slots", "0", "--suite", "smoke"], "name what to evaluate"),
        (["runtime.thread=2"], "unknown field 'runtime.thread'; nearest: runtime.threads"),
        (["--fetch", "--suite", "cars"], "--fetch needs --data-root DIR to put cars in"),
    ],
)
def test_a_command_that_cannot_be_is_one_line(
    args: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_checkpoints_in_a_folder_need_their_architecture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "epoch_1.pt").write_bytes(b"x")
    assert main([str(tmp_path)]) == 2
    assert "holds 1 checkpoints such as epoch_1.pt; --model NAME says of" in capsys.readouterr().err


def test_the_command_that_fetches_is_run_on_request_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    def bring(command: list[str], folder: Path) -> str:
        assert folder == tmp_path / "cars"
        ran.append(command)
        return ""

    monkeypatch.setattr("harness.evaluate.suites.fetched.bring", bring)
    assert main(["--list", "--suite", "cars", "--data-root", str(tmp_path)]) == 3
    assert ran == []
    assert main(["--fetch", "--suite", "cars", "--data-root", str(tmp_path)]) == 0
    (command,) = ran
    assert Path(command[0]).name == "hf"
    assert command[1:3] == ["download", "clip-benchmark/wds_cars"]
    assert command[-1] == f"{tmp_path}/cars"


def test_the_longest_benchmark_of_all_is_the_one_with_the_most_pictures_and_prompts() -> None:
    ordered = sorted(SUITES["lightclip11"], key=cost, reverse=True)
    assert [b.name for b in ordered[:2]] == ["sun397", "imagenet1k"]
    assert cost(BENCHMARKS["cifar10"]) == 10_000 + 10 * 18 // 2


@pytest.mark.slow
@pytest.mark.thorough
def test_processes_share_the_data_sets_and_one_that_dies_leaves_a_hole(
    export: Path, tmp_path: Path
) -> None:
    class_folder(tmp_path / "patches")
    caption_folder(tmp_path / "told")
    found = [find(each, str(tmp_path)) for each in (CLASSES, CAPTIONS)]
    specs = [ModelSpec("export", "small", export), ModelSpec("export", "gone", tmp_path / "no")]
    settings = Evaluate(splits=(), suites=("smoke",))

    def numbers_of(slots: list[str | None], folder: Path) -> dict[str, object]:
        work = Work(folder, settings, Runtime(cache=str(folder / "cache")))
        done = evaluate_all(specs, found, work, slots)  # type: ignore[arg-type]
        reasons = {str(each.reason) for each in done if each.model == 1}
        assert all("open_clip_config.json is missing" in reason for reason in reasons)
        assert len(done) == 4
        parts = {each.benchmark: each.part for each in done if each.model == 0}
        return {name: part and (part.key, part.metrics) for name, part in parts.items()}

    together = numbers_of([None, None], tmp_path / "two")
    assert None not in together.values()
    assert together == numbers_of([None], tmp_path / "one")


def test_the_task_of_a_dead_process_is_a_hole_and_the_rest_goes_on() -> None:
    from multiprocessing import Pipe

    from harness.launch.evaluations import _handed_out

    found = Found(CLASSES, "class folder", Path("x"), "f" * 64)
    other = replace(found, benchmark=CAPTIONS)
    spec = ModelSpec("export", "m", Path("m"))
    tasks = [EvaluationTask(0, spec, found), EvaluationTask(0, spec, other)]
    processes, theirs = {}, []
    for exitcode in (-9, 1, 0):
        pipe, end = Pipe()
        processes[pipe] = SimpleNamespace(exitcode=exitcode, join=lambda: None)
        theirs.append(end)
    dying, broken, sound = theirs
    broken.close()  # it never came to ask for a task
    dying.send(None)
    sound.send(None)
    sound.send(Done(0, "told", reason="seen"))
    done = _handed_out(tasks, processes)
    first = next(done)
    dying.close()
    assert [(d.benchmark, d.reason) for d in (first, *done)] == [
        ("told", "seen"),
        ("patches", "its process died (exit code -9)"),
    ]


def test_a_record_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = EvaluationDir(tmp_path / "abc")
    folder.add({"name": "m"}, "e1", {"metrics": {}})
    folder.add({"name": "m"}, "e2", {"metrics": {}})
    record = folder.result()
    assert record is not None
    assert sorted(record["evaluations"]) == ["e1", "e2"]
    file = folder.path / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "key": "x"}))
    from harness.errors import RecordError

    with pytest.raises(RecordError, match="is of key 'x', not abc"):
        folder.result()
