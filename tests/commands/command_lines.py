"""The options of every command, taken from the parser that its main() would parse with."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

#: What is typed after `python -m harness.` -> the module whose main() it is.
COMMANDS = {
    "sweep": ("harness.commands.sweep", []),
    "report": ("harness.commands.report", []),
    "report import": ("harness.commands.report", ["import"]),
    "report published": ("harness.commands.report", ["published"]),
    "status": ("harness.commands.status", []),
    "evaluate": ("harness.commands.evaluate", []),
    "export": ("harness.commands.export", []),
    "explain": ("harness.commands.explain", []),
    "fields": ("harness.commands.fields", []),
    "bench": ("harness.commands.bench", []),
    "board": ("harness.commands.board", []),
    "clean": ("harness.commands.clean", []),
    "data": ("harness.commands.data", []),
}


class _Parsed(BaseException):
    """Ends a command where it would have parsed its words."""


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a command as it is before it parses anything."""
    module, words = COMMANDS[name]
    found: list[argparse.ArgumentParser] = []

    def take(parser: argparse.ArgumentParser, *words: object, **more: object) -> None:
        found.append(parser)
        raise _Parsed

    with pytest.MonkeyPatch.context() as patch:
        for method in ("parse_known_args", "parse_known_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, method, take)
        with pytest.raises(_Parsed):
            importlib.import_module(module).main(list(words))
    return found[0]


def command_lines() -> dict[str, dict[str, Any]]:
    """Command -> option, or place of an argument -> what it takes; those of parts under them."""
    found: dict[str, dict[str, Any]] = {}
    for name in COMMANDS:
        for full, parser in _with_parts(name, parser_of(name)):
            found[full] = {_name_of(action): _about(action) for action in _actions(parser)}
    return found


def _with_parts(
    name: str, parser: argparse.ArgumentParser
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part, its_own in action.choices.items():
                yield from _with_parts(f"{name} {part}", its_own)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]


def _name_of(action: argparse.Action) -> str:
    return " ".join(action.option_strings) or f"<{action.metavar or action.dest}>"


def _about(action: argparse.Action) -> dict[str, Any]:
    default = None if action.dest == "workers" else action.default  # that of the machine
    default = bool(default) if action.nargs == 0 else default  # a flag that was not given
    return {
        "kind": type(action).__name__.strip("_").removesuffix("Action"),
        "nargs": action.nargs,
        "const": action.const if isinstance(action.const, (bool, float)) else None,
        "default": default if isinstance(default, (bool, int, float, str)) else str(default),
        "required": action.required,
        "choices": None if action.choices is None else sorted(action.choices),
    }
