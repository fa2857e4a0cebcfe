"""Measure what a part costs on this machine.

`python -m harness.bench towers [options]`: what each lightweight image tower costs: parameters,
GMACs, latency and the patches it gives, as it would be deployed.  Needs no weights.  Exit codes: 0
all measured, 2 the command is wrong, 3 a table in which a tower has a reason in place of numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.shared import command_parser, exit_code_of, print_table
from harness.config import RunConfig, Runtime, override, override_runtime
from harness.errors import ConfigError, unknown
from harness.evaluate.towers import TOWERS, TowerRow, measure_tower
from harness.files import write_atomic

if TYPE_CHECKING:
    from harness.document.table import Table

_DASH = "\u2014"
#: Heading of a column -> its cell in a row.
_COLUMNS: dict[str, Callable[[TowerRow], str]] = {
    "backbone": lambda row: row.backbone,
    "parameters (M)": lambda row: _number(row.parameters, 2, per=1e6),
    "GMACs": lambda row: _number(row.gmacs, 3),
    "ms, batch 1": lambda row: _number(row.latency_ms_batch1, 1),
    "ms, batch 64": lambda row: _number(row.latency_ms_batch64, 0),
    "patches": lambda row: _number(row.patches, 0),
    "channels": lambda row: _number(row.channels, 0),
    "pooled": lambda row: _number(row.width, 0),
    "re-parameterised": lambda row: (
        _DASH if row.reparameterised is None else "yes" if row.reparameterised else "no"
    ),
}


def _number(value: float | None, decimals: int, *, per: float = 1) -> str:
    return _DASH if value is None else f"{value / per:,.{decimals}f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: towers(parse(argv)), stopped=lambda: "stopped; nothing was written")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ConfigError for one that is not understood, SystemExit after --help."""
    parser = command_parser("bench", __doc__)
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    part = parts.add_parser(
        "towers",
        help="lightweight image towers: parameters, GMACs, latency, patches",
        description=f"Measure image towers as they would be deployed: {', '.join(TOWERS)}.",
        allow_abbrev=False,
    )
    add = part.add_argument
    add("--size", type=int, default=224, metavar="S", help="pixels of a side (default: 224)")
    add("--only", default="*", metavar="PATTERN", help="towers whose name matches")
    add("--threads", type=int, default=1, metavar="N", help="torch threads (default: 1)")
    add("--out", type=Path, metavar="DIR", help="also write towers.csv and towers.md there")
    return parser.parse_args(argv)


def towers(args: argparse.Namespace) -> int:
    """Measure the towers that `args` ask for and print their table; returns the exit code."""
    names = [name for name in TOWERS if fnmatchcase(name, args.only)]
    if not names:
        raise ConfigError(unknown("tower", args.only, TOWERS))
    override(RunConfig(), {"model.image.size": args.size})
    runtime = override_runtime(Runtime(), {"threads": args.threads})
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)

    from harness.device import pick_device, set_up
    from harness.evaluate.cost import device_name

    device = pick_device(runtime)
    set_up(runtime, device)
    rows = []
    for place, name in enumerate(names, 1):
        print(f"measuring {name} ({place} of {len(names)})", file=sys.stderr, flush=True)
        rows.append(measure_tower(name, args.size, device))
    table, notes = _table(rows, args.size, device_name(device))
    print_table(table, *notes)
    if args.out is not None:
        _write(args.out, rows, table, notes, (args.size, device_name(device)))
    return 3 if any(row.parameters is None for row in rows) else 0


def _table(rows: Sequence[TowerRow], size: int, device: str) -> tuple[Table, list[str]]:
    """The table, and why numbers are missing."""
    from harness.document.table import plain_table

    caption = (
        f"Image towers without projection, {size} x {size} pixels, re-parameterised where they can "
        f"be; latency in fp32, median of up to 30 calls, on {device}."
    )
    cells = [[cell(row) for cell in _COLUMNS.values()] for row in rows]
    table = plain_table(list(_COLUMNS), cells, numeric=list(_COLUMNS)[1:], caption=caption)
    return table, [f"{row.backbone}: {row.note}" for row in rows if row.note]


def _write(
    folder: Path,
    rows: Sequence[TowerRow],
    table: Table,
    notes: Sequence[str],
    where: tuple[int, str],
) -> None:
    """The table as Markdown, and as CSV with numbers in full and columns for `where`."""
    from harness.document import markdown
    from harness.document.escaping import csv_text

    heads = [*(field.name for field in fields(TowerRow)), "size", "device"]
    text = csv_text(heads, [[*asdict(row).values(), *where] for row in rows])
    lines = [markdown.table(table), "", *(f"- {markdown.words(note)}" for note in notes)]
    write_atomic(folder / "towers.csv", text.encode())
    write_atomic(folder / "towers.md", ("\n".join(lines).rstrip() + "\n").encode())
    print(f"written: {folder / 'towers.csv'}, {folder / 'towers.md'}")
