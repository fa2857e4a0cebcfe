"""What people type stays: every option of every command takes what it took when it was frozen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_lines import COMMANDS, command_lines

FROZEN: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("frozen_options.json").read_text()
)


@pytest.fixture(scope="module")
def now() -> dict[str, dict[str, Any]]:
    return command_lines()


@pytest.mark.parametrize("command", FROZEN)
def test_a_command_takes_what_it_took(command: str, now: dict[str, dict[str, Any]]) -> None:
    options = now[command]
    for name, frozen in FROZEN[command].items():
        assert name in options, f"{command} has lost {name}"
        option = dict(options[name])
        if option["choices"] is not None:
            assert set(frozen["choices"] or ()) <= set(option["choices"]), f"{command} {name}"
        assert {**option, "choices": frozen["choices"]} == frozen, f"{command} {name}"


def test_an_option_that_was_added_is_not_required(now: dict[str, dict[str, Any]]) -> None:
    added = [
        (command, name)
        for command, options in FROZEN.items()
        for name, option in now[command].items()
        if name not in options and option["required"]
    ]
    assert added == []


def test_every_command_is_frozen() -> None:
    assert set(COMMANDS) <= set(FROZEN)
