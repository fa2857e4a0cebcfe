"""The commands that people type: a module each, which parses, calls and returns an exit code.

A command's docstring begins with what it does, and names itself as it is typed; nothing else knows
which commands there are.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.commands.shared import exit_code_of
from harness.errors import ConfigError, unknown


def commands() -> dict[str, str]:
    """Name -> what it does, of every command; imports none of them."""
    found: dict[str, str] = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        about = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        if f"python -m harness.{file.stem}" in about:
            found[file.stem] = " ".join(about.split("\n\n")[0].split())
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """`harness` and `python -m harness`: list the commands, or run the one that is named."""
    words = list(sys.argv[1:] if argv is None else argv)
    return exit_code_of(lambda: _run(words))


def _run(words: Sequence[str]) -> int:
    known = commands()
    if not words or words[0] in {"-h", "--help"}:
        width = max(map(len, known))
        print("usage: python -m harness.COMMAND ..., or harness COMMAND ...; each has a --help\n")
        print("\n".join(f"  {name:{width}}  {about}" for name, about in known.items()))
        return 0
    if words[0] not in known:
        raise ConfigError(unknown("command", words[0], known))
    return int(importlib.import_module(f"harness.commands.{words[0]}").main(words[1:]))
