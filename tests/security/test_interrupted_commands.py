"""Whole commands ended at their writes, two at once, on a full or a read-only disk, by a clock that
was set back: the same command ends as if nothing had been, and tells in a line what hindered it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from small_data import folder_of_shapes
from walk import Command, Full, assert_same, new, tree, walk, watch, writes

from harness import files
from harness.commands import data, report
from harness.config import RunConfig, Runtime, override
from harness.errors import HarnessError
from harness.launch.slurm import submit as submitting
from harness.launch.slurm.submit import JobOrder, submit
from harness.planning.plan import Rerun, make_plan
from harness.run import execute
from harness.store.lease import LeaseHeld
from harness.store.record import Store
from tests.conftest import tiny_run, with_fingerprints
from tests.launch.slurm.fake_slurm import FakeSlurm

EXAMPLE = Path(__file__).parents[2] / "reports" / "example" / "components" / "records"
NAME = "ablation_components"
RUNTIME = Runtime()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_STALE_SECONDS", -1.0)


def door(main: Callable[[list[str]], int], *words: str) -> None:
    """A command as it is typed; Full where its one line says that there is no space."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    with contextlib.redirect_stderr(stream):
        code = main(list(words))
    stream.seek(0)
    told = stream.read()
    if "No space left" in told:
        raise Full(told)
    if code not in {0, 3}:
        raise HarnessError(told)


# --------------------------------------------------------------------------- report


def two_runs(place: Path) -> None:
    """Two runs of the example."""
    shutil.copytree(EXAMPLE / "results", place / "results")
    store = Store(place)
    file = store.manifest_file(NAME)
    made = json.loads(file.read_text())
    made["runs"] = made["runs"][:2]
    file.write_text(json.dumps(made))
    for folder in store.runs.iterdir():
        if folder.name not in {run["key"] for run in made["runs"]}:
            shutil.rmtree(folder)


def whole_report(place: Path) -> None:
    door(report.main, NAME, "--root", str(place), "--out", str(place / "out"))


# --------------------------------------------------------------------------- pack


def pack(place: Path) -> None:
    source = folder_of_shapes(place.parent.parent)
    words = [str(source), "--size", "4", "--shard-samples", "5", "--workers", "1"]
    words += ["--out", str(place / "packed"), "--cache", str(place / "cache")]
    door(data.main, "pack", *words)


# --------------------------------------------------------------------------- evaluation


def trained(place: Path) -> RunConfig:
    """A run of a few steps, made once, and copied."""
    home = place.parent.parent
    values = {"model.image.backbone": "test_convnext", "train.samples": 16}
    config = with_fingerprints(tiny_run(folder_of_shapes(home), **values), RUNTIME)
    if not (home / "trained").exists():
        execute(config, home / "trained", RUNTIME, label="x")
    if not (place / "results").exists():
        shutil.copytree(home / "trained" / "results", place / "results")
    return config


def evaluated(place: Path, **more: object) -> None:
    config = override(trained(place), {"evaluate.batch_size": 4, **more})
    execute(config, place, RUNTIME.model_copy(update={"cache": str(place / "cache")}), label="x")


def numbers(place: Path) -> dict[str, Any]:
    """What evaluations found, without how long they took."""
    (run,) = Store(place).runs.glob("*")
    entries = json.loads((run / "result.json").read_text())["evaluations"]
    return {key: entry["metrics"] for key, entry in entries.items()}


TIMES = r"(status|provenance|result|config|job|lease|ends)\.json$|metrics\.jsonl$|here$"

OF_SUBMISSIONS = r"results/(sweeps/sweep\.submissions|code)/"

# --------------------------------------------------------------------------- submission


def submitted(place: Path) -> None:
    """Five runs to a SLURM of scripts that lies beside the folder, and is not interrupted."""
    slurm = place.parent / "slurm"
    if not slurm.exists():
        FakeSlurm(slurm)
    store = Store(place)
    runs = [
        submitting_run(label, override(RunConfig(), {"train.samples": 1000 + number}))
        for number, label in enumerate("abcde")
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{slurm / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setattr(submitting, "_LOOK_AGAIN_SECONDS", 0.0)
        patch.setattr(submitting, "_check_room", lambda *given: None)  # it ends in the midst
        order = JobOrder(store, Runtime(), "sweep", report=("-m", "harness.sweep", "sweep"))
        said: list[str] = []
        try:
            submit(make_plan(runs, store, Rerun.MISSING), order, said.append)
        except submitting.NotWritten as error:
            said.append(str(error))
    if hindered := [line for line in said if "No space left" in line]:
        raise Full(hindered[0])
    if hindered := [line for line in said if "Read-only" in line]:
        raise HarnessError(hindered[0])


def submitting_run(label: str, config: RunConfig) -> Any:
    from harness.config.sweep import Run

    return Run(label, {}, 0, config)


def queued(place: Path) -> list[str]:
    """The runs that the queue has jobs for, each as often."""
    from harness.launch.slurm.submissions import submissions

    listed = (place.parent / "slurm" / "queue").read_text()
    return sorted(
        task[0]
        for each in submissions(Store(place))
        for array in each.read().arrays
        if f"|{array.name}|" in listed
        for task in array.tasks
    )


COMMANDS = {
    "report": Command(whole_report, two_runs, r"^out/digest"),
    "pack": Command(pack, unlike=r"cache/"),
    "evaluation": Command(evaluated, trained, TIMES, told=numbers),
    "deployment": Command(
        partial(evaluated, **{"evaluate.deploy": ["onnx"]}), trained, TIMES, told=numbers
    ),
    "submission": Command(submitted, unlike=TIMES, hidden=OF_SUBMISSIONS, told=queued),
}
#: At which shares of its writes each is broken in the quick test, and in the thorough one; most
#: of a submission's are those of the frozen code.
QUICK = {
    "report": [0.5],
    "pack": [0.1, 0.2, 0.7],
    "evaluation": [0.4, 0.9],
    "submission": [0.5, 0.985, 0.995],
}
THOROUGH = {
    "report": [part / 7 for part in range(8)],
    "pack": [part / 100 for part in range(101)],
    "evaluation": [part / 12 for part in range(13)],
    "deployment": [part / 8 for part in range(9)],
    "submission": [*(part / 8 for part in range(8)), *(part / 1000 for part in range(970, 1001))],
}
CHEAP = ["pack", "evaluation", "submission"]
DEAR = ["report", "deployment"]
both = [*CHEAP, *(pytest.param(name, marks=pytest.mark.thorough) for name in DEAR)]


@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("name", QUICK)
def test_some_writes(name: str, how: str, tmp_path: Path) -> None:
    assert list(walk(COMMANDS[name], tmp_path, how, QUICK[name], twice=name in CHEAP))


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_write(name: str, how: str, tmp_path: Path) -> None:
    found = list(walk(COMMANDS[name], tmp_path, how, THOROUGH[name], twice=name in CHEAP))
    assert len(found) > 2


# --------------------------------------------------------------------------- beside one another


def in_child(action: Callable[[], object]) -> int:
    """A copy of this process that does it; 0 if it went well, 9 where there is no space."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except (LeaseHeld, Full) as error:
            code = 9 if isinstance(error, Full) else 0
        except OSError as error:
            code = 9 if "No space left" in str(error) else 1
        finally:
            if code == 1:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)
    return child


def code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", both)
def test_two_at_once_end_as_one(name: str, tmp_path: Path) -> None:
    command = COMMANDS[name]
    alone = new(tmp_path / "0", command)
    command.run(alone)
    place = new(tmp_path / "two", command)
    children = [in_child(lambda: command.run(place)) for _ in range(2)]
    assert [code_of(child) for child in children] == [0, 0]
    command.run(place)  # what either left to the other
    assert_same(command.left(place), command.left(alone))


@pytest.mark.parametrize("name", both)
def test_a_clock_that_was_set_back_changes_nothing(name: str, tmp_path: Path) -> None:
    command = COMMANDS[name]
    alone = new(tmp_path / "0", command)
    total = writes(command, alone)
    place = new(tmp_path / "back", command)
    assert code_of(in_child(lambda: broken(command, place, total * 2 // 3))) < 0
    for file in place.rglob("*"):
        state = file.stat()
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 86_400 * 10**9))
    command.run(place)
    assert_same(command.left(place), command.left(alone))


def broken(command: Command, place: Path, number: int) -> None:
    watch(number, place, "kill")
    command.run(place)


# --------------------------------------------------------------------------- disks


@contextmanager
def disk(place: Path, options: str) -> Iterator[None]:
    """A file system of its own at `place`, in memory."""
    place.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("only root may mount a small tmpfs, and not in every container")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


@pytest.mark.parametrize("name", both)
def test_a_disk_that_is_full_is_said_and_with_more_room_the_same_command_ends_the_same(
    name: str, tmp_path: Path
) -> None:
    command = COMMANDS[name]
    with disk(tmp_path / "0" / "whole", "size=1g"):
        alone = new(tmp_path / "0", command)
        before = shutil.disk_usage(alone).used
        command.run(alone)
        wanted, needed = command.left(alone), shutil.disk_usage(alone).used - before
    for share in (0.0, 0.5, 0.9):
        folder = tmp_path / f"full-{share}"
        with disk(folder / "whole", "size=1g"):
            place = new(folder, command)
            remount(place, f"size={max(4096, before + int(share * needed))}")
            assert code_of(in_child(lambda p=place: command.run(p))) == 9
            remount(place, "size=1g")
            command.run(place)
            if name in CHEAP:
                command.run(place)
            assert_same(command.left(place), wanted)


@pytest.mark.parametrize("name", both)
def test_a_read_only_disk_is_a_line_and_changes_nothing(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = COMMANDS[name]
    folder = tmp_path / "disk"
    with disk(folder / "whole", "size=1g"):
        place = new(folder, command)
        before = tree(place)
        remount(place, "ro")
        with pytest.raises((OSError, HarnessError), match="Read-only file system"):
            command.run(place)
        assert tree(place) == before
    assert "Traceback" not in capfd.readouterr().err
