"""The commands are found by their files, and each is behind the name that people type."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import harness
from harness.commands import commands, main

HERE = Path(harness.__file__).parent


def door_of(name: str) -> Path:
    inside = HERE / name / "__main__.py"
    return inside if inside.exists() else HERE / f"{name}.py"


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_without_a_word_every_command_is_listed_in_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    usage, _, *lines = capsys.readouterr().out.splitlines()
    assert usage.startswith("usage: python -m harness.COMMAND")
    assert [line.split()[0] for line in lines] == sorted(commands())
    (export,) = (line.split() for line in lines if line.split()[0] == "export")
    assert " ".join(export[1:]) == "Write a finished run's model for use without the harness."


@pytest.mark.parametrize("name", commands())
def test_a_command_says_what_the_list_says_of_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = " ".join(help_of([name], capsys).split())
    assert told.startswith(f"usage: python -m harness.{name} ")
    assert commands()[name] in told


@pytest.mark.parametrize("name", commands())
def test_a_door_is_twelve_lines_at_most_and_holds_no_logic(name: str) -> None:
    lines = door_of(name).read_text().splitlines()
    assert len(lines) <= 12
    assert f"from harness.commands.{name} import main" in lines


def test_a_command_that_is_not_there_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exprt"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown command 'exprt'; nearest: export")


def test_the_console_script_is_the_same_list() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"harness": "harness.commands:main"}
    listed = subprocess.run(
        [sys.executable, "-m", "harness"], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[0] for line in listed.splitlines()[2:]] == sorted(commands())


def test_no_help_waits_for_torch() -> None:
    code = (
        "import sys\nfrom harness.commands import commands, main\n"
        "for name in commands():\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit: pass\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"torch", "timm", "open_clip", "optuna", "submitit", "pandas", "seaborn", "scipy"}
    assert not {*heavy, "jinja2", "onnx"} & set(done.stdout.splitlines()[-1].split())
    assert "--onnx" in done.stdout
    assert "--index" in done.stdout
