"""Free what nothing on record needs: old checkpoints, caches and frozen code; never a record.

`python -m harness.clean [--yes]`.  Without --yes it lists what would go, the largest first, and
frees nothing.  Kept are the weights of every result, the states of every run that can go on, the
caches used since the first of those began, and the code of every submission that may be in the
queue.  Exit codes: 0, 2 the command is wrong.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.commands.shared import (
    command_parser,
    exit_code_of,
    number_from,
    print_table,
    store_of,
    under_a_root,
)
from harness.config import Runtime
from harness.data.source import cache_dir
from harness.document.table import plain_table
from harness.monitor.leftovers import Leftover, leftovers

_DAYS = 7.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: run_command(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("clean", __doc__, under_a_root())
    add = parser.add_argument
    add("--yes", action="store_true", help="free what is listed")
    add("--cache", type=Path, metavar="DIR", help="of this machine (default: that of runs)")
    add("--days", type=number_from(0, "days"), default=_DAYS, metavar="N", help="caches and "
        "temporary files that were used within them stay (default: %(default)g)")  # fmt: skip
    return parser


def run_command(args: argparse.Namespace) -> int:
    """List, and free what is listed if asked to."""
    store = store_of(args)
    found = leftovers(store, args.cache or cache_dir(Runtime()), args.days)
    if not found:
        print("nothing to free")
        return 0
    rows = [[_size(each.size), _place(each.path, store.root), each.why] for each in found]
    total = _size(sum(each.size for each in found))
    print_table(plain_table(("size", "what", "why"), rows, numeric={"size"}))
    if not args.yes:
        print(f"{total} in {len(found)} places could be freed; --yes frees them")
        return 0
    for each in found:
        _free(each)
    print(f"{total} in {len(found)} places freed")
    return 0


def _free(each: Leftover) -> None:
    if each.path.is_dir():
        shutil.rmtree(each.path)
    else:
        each.path.unlink(missing_ok=True)


def _place(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
