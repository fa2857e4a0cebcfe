"""The command: `python -m harness.bench towers [options]`.

What each lightweight image tower costs on this machine: parameters, GMACs, latency and the patches
it gives, as it would be deployed.  Trains and scores nothing, and needs no weights.  Exit codes: 0
all measured, 2 the command is wrong, 3 a table in which a tower has a reason in place of numbers.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.shared import Parser, exit_code_of
from harness.config import RunConfig, Runtime, override, override_runtime
from harness.errors import ConfigError, HarnessError, one_line, unknown
from harness.files import write_atomic

if TYPE_CHECKING:
    import torch

#: LightCLIP's three first, then one or two of each of today's mobile families.
TOWERS = (
    "resnet18",
    "mobilenetv2_100",
    "swin_nano",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "tf_efficientnet_lite0",
    "lcnet_050",
    "ghostnetv3_100",
    "fastvit_t8",
    "fastvit_mci0",
    "mobileone_s0",
    "repvit_m0_9",
    "efficientvit_b0",
    "efficientvit_m0",
    "tiny_vit_5m_224",
    "mobilevitv2_050",
    "edgenext_xx_small",
    "efficientformerv2_s0",
    "convnext_atto",
    "starnet_s1",
)
BATCHES = (1, 64)
_DASH = "\u2014"


@dataclass(frozen=True)
class TowerRow:
    """What one tower costs without a projection; a number is None where it could not be had.

    Attributes:
        parameters, gmacs: of the re-parameterised tower; GMACs of one picture.
        latency_ms_batch1, latency_ms_batch64: milliseconds of a batch in fp32.
        patches, channels: tokens that it gives to token-level objectives, and their width.
        width: of the pooled features.
        reparameterised: whether branches or norms were merged first.
        note: why a number is missing.
    """

    backbone: str
    parameters: int | None = None
    gmacs: float | None = None
    latency_ms_batch1: float | None = None
    latency_ms_batch64: float | None = None
    patches: int | None = None
    channels: int | None = None
    width: int | None = None
    reparameterised: bool | None = None
    note: str = ""


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: towers(parse(argv)), stopped=lambda: "stopped; nothing was written")


# --------------------------------------------------------------------------- the command line


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ConfigError for one that is not understood, SystemExit after --help."""
    parser = Parser(
        prog="python -m harness.bench",
        description="Measure what a part costs on this machine.",
        allow_abbrev=False,
    )
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


# --------------------------------------------------------------------------- the command


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
    caption = _caption(args.size, device_name(device))
    print_table(rows, caption)
    if args.out is not None:
        write_atomic(args.out / "towers.csv", csv_table(rows, args.size, device_name(device)))
        write_atomic(args.out / "towers.md", markdown_table(rows, caption))
        print(f"written: {args.out / 'towers.csv'}, {args.out / 'towers.md'}")
    return 3 if any(row.parameters is None for row in rows) else 0


def measure_tower(name: str, size: int, device: torch.device) -> TowerRow:
    """The costs of a randomly initialised backbone for pictures of `size` pixels.

    An architecture that cannot be built, run or re-parameterised is a row with the reason.
    """
    try:
        return _measured(name, size, device)
    except (HarnessError, RuntimeError, AssertionError, ValueError, TypeError) as error:
        return TowerRow(name, note=one_line(error))


def _measured(name: str, size: int, device: torch.device) -> TowerRow:
    from harness.evaluate.cost import (
        count_gmacs,
        count_parameters,
        latency_ms,
        noise_pictures,
        re_parameterised,
    )
    from harness.models.image import build_backbone
    from harness.models.tokens import patch_layout

    backbone = build_backbone(name, size).eval()
    picture = noise_pictures(1, size)
    deployed = re_parameterised(backbone, picture)
    gmacs = count_gmacs(deployed, picture)
    try:
        layout = patch_layout(deployed, name, size)
        patches, channels, note = layout.grid**2, layout.channels, ""
    except ConfigError as error:
        patches, channels, note = None, None, str(error)
    deployed.to(device)
    once, many = (latency_ms(deployed, noise_pictures(n, size).to(device)) for n in BATCHES)
    return TowerRow(
        backbone=name,
        parameters=count_parameters(deployed.parameters()),
        gmacs=gmacs,
        latency_ms_batch1=once,
        latency_ms_batch64=many,
        patches=patches,
        channels=channels,
        width=int(backbone.head_hidden_size),  # type: ignore[arg-type]
        reparameterised=deployed.state_dict().keys() != backbone.state_dict().keys(),
        note=note,
    )


# --------------------------------------------------------------------------- the table


def _caption(size: int, device: str) -> str:
    return (
        f"Image towers without projection, {size} x {size} pixels, re-parameterised where they can "
        f"be; latency in fp32, median of up to 30 calls, on {device}."
    )


def _number(value: float | None, decimals: int, *, per: float = 1) -> str:
    return _DASH if value is None else f"{value / per:,.{decimals}f}"


def _notes(rows: Iterable[TowerRow]) -> list[str]:
    return [f"{row.backbone}: {row.note}" for row in rows if row.note]


def print_table(rows: Sequence[TowerRow], caption: str) -> None:
    """The table on standard output, and below it why numbers are missing."""
    from rich.console import Console
    from rich.table import Table

    from harness.launch.preview import PIPE_WIDTH

    table = Table(box=None, pad_edge=False)
    for heading in _COLUMNS:
        table.add_column(heading, justify="left" if heading == "backbone" else "right")
    for row in rows:
        table.add_row(*(cell(row) for cell in _COLUMNS.values()), style="red" * bool(row.note))
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(table)
    for line in [caption, *_notes(rows)]:
        console.print(line, markup=False, highlight=False)


def csv_table(rows: Sequence[TowerRow], size: int, device: str) -> bytes:
    """The rows with their numbers in full; size and device are columns of their own."""
    from harness.document.escaping import csv_field

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*(field.name for field in fields(TowerRow)), "size", "device"])
    for row in rows:
        writer.writerow([csv_field(value) for value in [*asdict(row).values(), size, device]])
    return out.getvalue().encode()


def markdown_table(rows: Sequence[TowerRow], caption: str) -> bytes:
    """The table as Markdown, with its caption and why numbers are missing."""
    from harness.document.escaping import markdown

    lines = [
        "| " + " | ".join(_COLUMNS) + " |",
        "|---" + "|--:" * (len(_COLUMNS) - 1) + "|",
        *(
            "| " + " | ".join(markdown(cell(row)) for cell in _COLUMNS.values()) + " |"
            for row in rows
        ),
    ]
    notes = [f"- {markdown(note)}" for note in _notes(rows)]
    return "\n".join([markdown(caption), "", *lines, *([""] if notes else []), *notes, ""]).encode()


if __name__ == "__main__":
    sys.exit(main())
