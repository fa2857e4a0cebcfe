"""List every field that defines a run or where it happens, with its type, value and meaning.

`python -m harness.fields [PATTERN]`: those whose name is PATTERN, which may hold `*`, else those
whose name, meaning or name elsewhere holds it.  Options of registered loss terms and data sources
are among them, with `--sweep PATH` those that a sweep file registers too.  Exit codes: 0 listed, 2
no field is like that.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel

from harness.commands.shared import command_parser, exit_code_of, of_a_sweep_file
from harness.config import SOURCES, RunConfig, Runtime, canonical_json
from harness.config.bases import BASES, base
from harness.config.fields import DeclaredField, unknown_field
from harness.config.overrides import RUNTIME, typed_fields
from harness.config.sweep_files import load_sweep
from harness.config.values import alternatives, at_path, in_words
from harness.errors import ConfigError
from harness.evaluate.suites import SUITES
from harness.loggers import LOGGERS
from harness.metrics import OWN_SUITES

_NAMED: dict[str, Iterable[str]] = {
    "data.source": SOURCES,
    "evaluate.suites": (*SUITES, *OWN_SUITES),
    "runtime.log": LOGGERS,
}
"""Path -> the names of what is registered for it."""
_WIDTH = 100


@dataclass(frozen=True)
class FieldLine:
    """What is told of one field: its path, how it is declared, and its values."""

    path: str
    field: DeclaredField
    default: Any
    of_base: Any

    @property
    def takes(self) -> str:
        """`integer from 1 to 48`, or the names that may be given."""
        words = in_words(self.field.annotation, self.field.metadata)
        named = _NAMED.get(self.path)
        return words if named is None else f"{words}: {' | '.join(named)}"

    def matches(self, pattern: str) -> bool:
        """Whether `pattern` is in its name, what it means or what it is called elsewhere."""
        told = [self.path, self.field.meaning, *self.field.aliases]
        wanted = pattern.casefold()
        return any(fnmatchcase(text.casefold(), f"*{wanted}*") for text in told)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: list_fields(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("fields", __doc__, of_a_sweep_file())
    add = parser.add_argument
    add("pattern", metavar="PATTERN", nargs="?", help="part of a name or meaning")
    add("--base", metavar="NAME", help=f"whose values are shown: {', '.join(BASES)}")
    return parser


def list_fields(args: argparse.Namespace) -> int:
    """Print the fields that `args` ask for; ConfigError, naming the nearest, if there is none."""
    config = base(args.base or "small")
    if args.sweep is not None:
        sweep = load_sweep(str(args.sweep))
        config = config if args.base else sweep.base
    name = args.base or ("small" if args.sweep is None else args.sweep.stem)
    lines = list(field_lines(config))
    chosen = [line for line in lines if fnmatchcase(line.path, (args.pattern or "*").casefold())]
    chosen = chosen or [line for line in lines if line.matches(args.pattern)]
    if not chosen:
        raise ConfigError(unknown_field(args.pattern, {line.path: line.field for line in lines}))
    print("\n".join(text for line in chosen for text in _told(line, name)))
    return 0


def field_lines(config: RunConfig) -> Iterator[FieldLine]:
    """Every field as a command line has it, with what it holds in `config`."""
    defaults, values = _values(RunConfig()), _values(config)
    for path, field in typed_fields().items():
        yield FieldLine(path, field, at_path(defaults, path), at_path(values, path))


def _values(config: RunConfig) -> dict[str, Any]:
    return {**config.model_dump(mode="json"), RUNTIME[:-1]: Runtime().model_dump(mode="json")}


def _told(line: FieldLine, base_name: str) -> Iterator[str]:
    """The lines of text about a field; what the items of a list are made of stands below it."""
    default, of_base = canonical_json(line.default), canonical_json(line.of_base)
    there = "" if default == of_base else f"; {base_name}: {of_base}"
    yield f"{line.path} = {default}{there}"
    yield f"    {line.takes}"
    yield from _meaning(line.field, "    ")
    for item in _items(line.field):
        for name, declared in item.model_fields.items():
            part = DeclaredField(item, name)
            yield f"    .{name}: {in_words(declared.annotation, declared.metadata)}"
            yield from _meaning(part, "        ")


def _meaning(field: DeclaredField, indent: str) -> Iterator[str]:
    called = f"elsewhere: {', '.join(field.aliases)}" if field.aliases else ""
    for text in filter(None, [field.meaning, called]):
        yield from textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)


def _items(field: DeclaredField) -> Iterable[type[BaseModel]]:
    """The classes that the items of a list are of."""
    for one in alternatives(field.annotation):
        for item in getattr(one, "__args__", ()):
            if isinstance(item, type) and issubclass(item, BaseModel):
                yield item
