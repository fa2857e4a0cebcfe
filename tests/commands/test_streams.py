"""A terminal without the characters, a closed output, a reader that leaves: never a traceback."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from harness.commands import commands

#: Words that print more than a pipe holds back, in little time.
LONG = ["fields"]

SWEEP = '''"""Which crop, in the words of Zürich \N{SNOWMAN}?"""
from harness.bases import SMALL
from harness.space import Show, Sweep, points

SWEEP = Sweep(
    base=SMALL,
    points=points({"train.lr": 0.001}, {"train.lr": 0.002}),
    show=Show(
        x="train.lr",
        metrics=["test/mean_recall"],
        names={"gr\N{LATIN SMALL LETTER O WITH DIAERESIS}n \N{SNOWMAN} [/b]": {"train.lr": 0.002}},
    ),
)
'''


def run(
    words: list[str], *, encoding: str = "utf-8", shell: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`python -m harness WORDS`, with what a shell would write after it."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-m", "harness", *words]
    if shell:
        line = f'"$@" {shell}'
        command = ["bash", "-c", f"set -o pipefail; {line}", "bash", *command]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True)


@pytest.fixture(scope="module")
def snowman(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sweeps") / "snowman.py"
    file.write_text(SWEEP, encoding="utf-8")
    return file


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_a_character_gets_it_written_out(
    encoding: str, snowman: Path, tmp_path: Path
) -> None:
    done = run([*_dry(snowman), "--root", str(tmp_path)], encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    told = done.stdout.decode(encoding)
    word = "gr\\xf6n" if encoding == "ascii" else "gr\N{LATIN SMALL LETTER O WITH DIAERESIS}n"
    assert f"{word} \\u2603 [/b]" in told
    refused = run(["fields", "\N{SNOWMAN}"], encoding=encoding)
    assert refused.returncode == 2
    assert refused.stderr.startswith(b"error: unknown field")


@pytest.mark.parametrize("name", commands())
def test_every_command_is_guarded(name: str) -> None:
    main = importlib.import_module(f"harness.commands.{name}").main
    assert "exit_code_of(" in inspect.getsource(main)


@pytest.mark.parametrize("name", ["sweep", "report", "data"])
def test_a_reader_that_leaves_ends_a_command_without_a_word(name: str) -> None:
    done = run([name, "--help"], shell="| true")
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_reader_that_leaves_in_the_middle(snowman: Path, tmp_path: Path) -> None:
    for words in (LONG, [*_dry(snowman), "--root", str(tmp_path)]):
        done = run(words, shell="| head -c 1 >/dev/null")
        assert (done.returncode in {0, 141}, done.stderr) == (True, b"")
        done = run(words, shell="2>&1 | true")
        assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(shell: str, snowman: Path, tmp_path: Path) -> None:
    dry = [*_dry(snowman), "--root", str(tmp_path)]
    for words, code in ((dry, 0), (["fields", "xyzzy"], 2)):
        done = run(words, shell=shell)
        assert done.returncode == code
        assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_device_is_told_in_a_line(snowman: Path, tmp_path: Path) -> None:
    for words in (LONG, ["fields", "train.lr"], [*_dry(snowman), "--root", str(tmp_path)]):
        done = run(words, shell=">/dev/full")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(b"error: OSError: ")
        assert b"No space left on device" in line
    assert run(["fields", "xyzzy"], shell="2>/dev/full").returncode == 2


def test_a_pipe_that_is_full_and_does_not_wait_is_told_in_a_line() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    command = [sys.executable, "-m", "harness", "fields"]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=buffered)
    os.close(reader)
    os.close(writer)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: BlockingIOError: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["worker", "ranks", "slurm.supervisor", "slurm.report_job"])
def test_the_processes_of_a_launch_are_as_safe(module: str) -> None:
    main = importlib.import_module(f"harness.launch.{module}").main
    assert "begin_process()" in inspect.getsource(main)


def _dry(file: Path) -> list[str]:
    return ["sweep", str(file), "--dry-run"]
