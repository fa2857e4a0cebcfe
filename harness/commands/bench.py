"""Measure what a part costs on this machine.

`python -m harness.bench towers [options]`: what each lightweight image tower costs: parameters,
GMACs, latency and the patches it gives, as it would be deployed.  Needs no weights.
`python -m harness.bench latency RUN|SWEEP ... [options]`: how fast the deployed forms of finished
runs are, all in turns in one sitting, which reports then take their latencies from.

Exit codes: 0 all measured, 2 the command is wrong, 3 a table in which something has a reason in
place of numbers, or was not measured quietly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.shared import (
    command_parser,
    exit_code_of,
    print_table,
    say,
    store_of,
    under_a_root,
)
from harness.config import RunConfig, Runtime, override, override_runtime
from harness.document.text import DASH
from harness.errors import ConfigError, unknown
from harness.evaluate.towers import TOWERS, TowerRow, measure_tower
from harness.files import write_atomic
from harness.store.deployed import Sitting, write_sitting
from harness.store.manifest import manifest_names, read_manifest
from harness.store.record import RunDir

if TYPE_CHECKING:
    from harness.document.table import Table

#: Heading of a column -> its cell in a row.
_COLUMNS: dict[str, Callable[[TowerRow], str]] = {
    "backbone": lambda row: row.backbone,
    "parameters (M)": lambda row: _number(row.parameters, 2, per=1e6),
    "GMACs": lambda row: _number(row.gmacs, 3),
    "ms, batch 1": lambda row: _number(row.latency_ms_batch1, 1),
    "ms, batch 64": lambda row: _number(row.latency_ms_batch64, 0),
    "ONNX ms, batch 1": lambda row: _number(row.onnx_ms_batch1, 2),
    "ONNX ms, batch 64": lambda row: _number(row.onnx_ms_batch64, 0),
    "patches": lambda row: _number(row.patches, 0),
    "channels": lambda row: _number(row.channels, 0),
    "pooled": lambda row: _number(row.width, 0),
    "re-parameterised": lambda row: (
        DASH if row.reparameterised is None else "yes" if row.reparameterised else "no"
    ),
}


def _number(value: float | None, decimals: int, *, per: float = 1) -> str:
    return DASH if value is None else f"{value / per:,.{decimals}f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(
        lambda: _measure(parse(argv)), stopped=lambda: "stopped; nothing was written"
    )


def _measure(args: argparse.Namespace) -> int:
    return towers(args) if args.part == "towers" else latency(args)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ConfigError for one that is not understood, SystemExit after --help."""
    parser = command_parser("bench", __doc__)
    parts: Any = parser.add_subparsers(dest="part", required=True, metavar="PART")
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
    part = parts.add_parser(
        "latency",
        help="deployed forms of finished runs: load, memory, latency",
        description="Time the deployed forms of finished runs in turns, in one sitting.",
        parents=[under_a_root()],
        allow_abbrev=False,
    )
    add = part.add_argument
    add("what", nargs="+", metavar="RUN|SWEEP", help="keys; of a sweep one run a point")
    add("--threads", type=int, default=1, metavar="N", help="of ONNX Runtime (default: 1)")
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
        say(f"measuring {name} ({place} of {len(names)})")
        rows.append(measure_tower(name, args.size, device))
    table, notes = _table(rows, args.size, device_name(device))
    print_table(table, *notes)
    if args.out is not None:
        _write(args.out, rows, table, notes, (args.size, device_name(device)))
    return 3 if any(row.parameters is None for row in rows) else 0


def latency(args: argparse.Namespace) -> int:
    """Hold a sitting over the runs that `args` name, print and keep it; returns the exit code."""
    from harness.launch.latency import first_of_each_point, sit

    runtime = override_runtime(Runtime(), {"threads": args.threads})
    store = store_of(args)
    runs: list[RunDir] = []
    for name in args.what:
        if name in manifest_names(store):
            runs += first_of_each_point(read_manifest(store, name).runs, store)
        else:
            runs.append(store.find(name))
    distinct = {run.path: run for run in runs}
    sitting = sit(list(distinct.values()), runtime.threads, say)
    file = write_sitting(store, sitting)
    print_table(_timings(sitting))
    print(f"written: {file}; a report that is made again shows it")
    return 0 if all(timing.quiet for timing in sitting.timings) else 3


def _timings(sitting: Sitting) -> Table:
    from harness.document.table import plain_table

    heads = [
        "run", "form", "tower", "batch", "calls", "least (ms)", "median", "90th %", "load (ms)",
        "memory (MB)", "waited", "quiet",
    ]  # fmt: skip
    rows = [
        [t.key, t.form, t.tower, t.batch, t.calls, *map(_ms, (t.least, t.median, t.p90)),
         f"{t.load_ms:.1f}", f"{t.memory_mb:.1f}", f"{t.waited:.0%}", "yes" if t.quiet else "no"]
        for t in sitting.timings
    ]  # fmt: skip
    machine = sitting.machine
    caption = (
        f"ONNX Runtime {machine['onnxruntime']}, {machine['threads']} thread(s), on "
        f"{machine['cpu']}; load {' before, '.join(map(str, machine['load']))} after."
    )
    return plain_table(heads, rows, numeric=heads[3:11], coded={"run"}, caption=caption)


def _ms(value: float) -> str:
    return f"{value:.3f}"


def _table(rows: Sequence[TowerRow], size: int, device: str) -> tuple[Table, list[str]]:
    """The table, and why numbers are missing."""
    from harness.document.table import plain_table

    caption = (
        f"Image towers without projection, {size} x {size} pixels, re-parameterised where they can "
        f"be; latency in fp32 by torch and by ONNX Runtime (CPU), median of up to 30 calls, on "
        f"{device}."
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
