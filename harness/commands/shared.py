"""What every command shares: its parser, one line for an error, an exit code, and no traceback.

Knows no command.  Exit codes: 0 done, 2 the command or its configuration is wrong or its output
cannot be written, 130 interrupted, 141 nobody reads its output; an error may carry its own.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.document.text import VisibleStream
from harness.errors import ConfigError, HarnessError, one_line, refuse_controls, unknown
from harness.files import real_path
from harness.launch.own_process import begin_process
from harness.store.record import Store

if TYPE_CHECKING:
    from harness.document.table import Table


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are ConfigErrors, shown as every other error is."""

    def error(self, message: str) -> NoReturn:
        """ConfigError with argparse's own words."""
        raise ConfigError(f"{message}; --help shows what there is")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """As argparse's; ConfigError, naming the nearest, for an option that there is not."""
        return self._whole(*self.parse_known_args(args, namespace))

    def parse_intermixed_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """The same with options between positional arguments."""
        return self._whole(*self.parse_known_intermixed_args(args, namespace))

    def _whole(self, found: argparse.Namespace, rest: Sequence[str]) -> argparse.Namespace:
        if rest and rest[0].startswith("-"):
            raise ConfigError(unknown("option", rest[0].partition("=")[0], options_of(self)))
        if rest:
            self.error(f"unexpected: {' '.join(rest)}")
        return found


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Every option of a parser, and of the commands below it."""
    found: list[str] = []
    for action in parser._actions:
        below = action.choices.values() if isinstance(action, _SubParsers) else ()
        found += [*action.option_strings, *(name for each in below for name in options_of(each))]
    return list(dict.fromkeys(found))


_SubParsers = argparse._SubParsersAction


def command_parser(
    name: str, about: str | None, *parents: argparse.ArgumentParser, **more: Any
) -> Parser:
    """The parser of `python -m harness.NAME`; it says what the docstring `about` begins with."""
    return Parser(
        prog=f"python -m harness.{name}",
        description=" ".join((about or "").split("\n\n")[0].split()),
        allow_abbrev=False,
        parents=parents,
        **more,
    )


def _parent() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(add_help=False, allow_abbrev=False)


HOLES = 3
"""Exit code of what was done and lacks numbers."""


def under_a_root() -> argparse.ArgumentParser:
    """`--root DIR`, of every command that reads or writes a results store; see `store_of`."""
    parent = _parent()
    parent.add_argument(
        "--root",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="holds results/ and reports/ (default: here)",
    )
    return parent


def store_of(args: argparse.Namespace) -> Store:
    """The results store under `--root`."""
    root = real_path(args.root)
    refuse_controls("--root", str(root))
    return Store(root)


def of_a_sweep_file(name: str = "sweep") -> argparse.ArgumentParser:
    """`--sweep PATH`, of every command that may need what a sweep file registers."""
    parent = _parent()
    about = "sweep file that registers the run's parts"
    parent.add_argument("--sweep", dest=name, type=Path, metavar="PATH", help=about)
    return parent


def seeds_of(text: str) -> list[int]:
    """The seeds in `0,1,2`, as an option has them."""
    parts = [part.strip() for part in text.split(",")]
    wrong = next((part for part in parts if not _SEED.fullmatch(part)), None)
    if wrong is None:
        return list(map(int, parts))
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a list of integers such as 0,1,2: {wrong!r} is no integer from 0 on"
        + "".join(f"; nearest: {near}" for near in [_nearest_seeds(text)] if near)
    )


_SEED = re.compile(r"[0-9]{1,18}")
_MOST_NAMED = 100


def _nearest_seeds(text: str) -> str:
    """What was meant by `0-3`, `0:3`, `0..3`, or by seeds that are told apart by other signs."""
    span = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-|:|\.\.+)\s*([0-9]{1,9})\s*", text)
    if span and 0 <= int(span[2]) - int(span[1]) < _MOST_NAMED:
        return ",".join(map(str, range(int(span[1]), int(span[2]) + 1)))
    return ",".join(dict.fromkeys(re.findall(_SEED, text)[:_MOST_NAMED]))


def number_from(least: float, of: str) -> Callable[[str], float]:
    """The type of an option that is a number, `of` seconds or days, from `least` on."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {of} from {least:g} on")
        return value

    return number


def typed_words() -> list[str]:
    """What was typed after the name of the interpreter."""
    return sys.orig_argv[1:] if len(sys.orig_argv) > 1 else sys.argv


def go_on() -> str:
    """What to say of a command that was stopped and can be repeated."""
    return f"stopped; the same command goes on: {shlex.join(['python', *typed_words()])}"


def exit_code_of(
    command: Callable[[], int], *, stopped: Callable[[], str] = lambda: "stopped"
) -> int:
    """The exit code of `command`; a known error is told in one line on standard error.

    A stream that is closed, full or cannot hold a character ends no command in a traceback.

    Args:
        stopped: what to say when the user interrupts.
    """
    begin_process()
    with _shown():
        return _exit_code(command, stopped)


def _exit_code(command: Callable[[], int], stopped: Callable[[], str]) -> int:
    try:
        code = _code_of(command, stopped)
    except SystemExit as end:  # after --help, or where rich found that nobody reads
        if isinstance(end.__context__, BrokenPipeError):
            return _UNREAD
        if failed := _flush(0):
            return failed
        raise
    return _flush(code)


_UNREAD = 141
"""As a shell tells of a command that SIGPIPE ended."""


def _code_of(command: Callable[[], int], stopped: Callable[[], str]) -> int:
    try:
        return command()
    except HarnessError as error:
        _tell(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _tell(stopped())
        return 130
    except BrokenPipeError:
        return _UNREAD
    except OSError as error:
        _tell(f"error: {one_line(error)}")
        return 2


@contextmanager
def _shown() -> Iterator[None]:
    """Both streams show what a terminal would obey: much of what is printed is other people's."""
    raw = sys.stdout, sys.stderr
    streams: Any = tuple(map(VisibleStream, raw))
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = raw


def say(line: str) -> None:
    """A line of progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def _tell(line: str) -> None:
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _flush(code: int) -> int:
    """`code`, unless what was printed cannot be written after all; then nothing more is tried."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            if not code and not isinstance(error, BrokenPipeError):
                _tell(f"error: {one_line(error)}")
            code = code or (_UNREAD if isinstance(error, BrokenPipeError) else 2)
    return code


def print_table(table: Table, *notes: str) -> None:
    """A table of plain cells on standard output, its caption and `notes` below in lines."""
    from rich.table import Table as RichTable
    from rich.text import Text

    from harness.document.terminal import PlainConsole
    from harness.document.text import flat
    from harness.launch.preview import PIPE_WIDTH

    made = RichTable(box=None, pad_edge=False)
    for column in table.columns:
        heads = " ".join(column.heads)
        made.add_column(heads, justify="right" if column.numeric else "left", overflow="fold")
    for group in table.groups:
        for row in group.rows:
            made.add_row(*(Text(flat(cell.text)) for cell in row))
    console = PlainConsole(pipe_width=PIPE_WIDTH)
    console.print(made)
    for line in filter(None, [table.caption, *notes]):
        console.print(line)
