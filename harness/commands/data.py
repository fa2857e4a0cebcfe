"""Look at every picture of a data set once, make a small copy of it, or store what a teacher sees.

`python -m harness.data check DATA` and `python -m harness.data pack DATA` train nothing and import
no torch; `python -m harness.data teach TEACHER DATA` stores a teacher's embeddings.  Exit codes: 0
done, 2 the command or the data cannot be used, 3 more samples are unusable than is allowed, 130
interrupted (the same command goes on).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tarfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.shared import (
    command_parser,
    exit_code_of,
    print_table,
    seeds_of,
)
from harness.config import ClassFolder, RunConfig, Runtime, override, parse_assignment
from harness.config.pipes import allow_pipes
from harness.errors import ConfigError, DataError
from harness.files import home_path
from harness.store.provenance import usable_cores

if TYPE_CHECKING:
    from harness.data.dataset import DataSet

CLASSES = "classes"
BUILT_IN = ("openmoji",)
"""Sources whose data have no place of their own."""
SOURCES = ("folder", "shards", "stream", CLASSES)
_SHOWN = 12
_SHOWN_CLASSES = 60
_PROBED = 200
_DEFAULTS = Runtime()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: _command(argv), stopped=lambda: "stopped; the same command goes on")


def _command(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    return int(args.command(args))


# --------------------------------------------------------------------------- the command line


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ConfigError for one that is not understood, SystemExit after --help."""
    parser = command_parser("data", __doc__)
    commands = parser.add_subparsers(required=True, metavar="check|pack|teach")
    check, pack, teach = (
        commands.add_parser(name, help=about, description=more, allow_abbrev=False)
        for name, about, more in _COMMANDS
    )
    check.set_defaults(command=check_data)
    add = check.add_argument
    add("--out", type=Path, metavar="FILE", help="the list (JSON) here as well")
    add("--json", action="store_true", help="print what was found as JSON")
    add("--again", action="store_true", help="index shards, or a large folder, anew")
    pack.set_defaults(command=pack_data)
    add = pack.add_argument
    add("--size", type=int, required=True, metavar="PIXELS", help="of the shortest side")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add("--shard-samples", type=int, default=10_000, metavar="N", help="pictures a shard (10,000)")
    add("--format", choices=("jpeg", "png"), default="jpeg", help="of what is made smaller (jpeg)")
    teach.set_defaults(command=teach_data)
    add = teach.add_argument
    add("teacher", help="'run KEY', ./clip or ViT-B-32:FILE, as teacher.models")
    add("--root", type=Path, default=Path(), metavar="DIR", help="holds results/")
    add("--sweep", type=Path, metavar="PATH", help="file that registers its parts")
    add("--views", type=int, default=1, metavar="K", help="epochs whose crops are embedded (1)")
    add("--seeds", type=seeds_of, default=[0], metavar="0,1,..", help="of the runs (0)")
    add("--set", metavar="FIELD=VALUE", nargs="+", default=[], help="as the runs have data.FIELD")
    for command in (check, pack, teach):
        _add_common(command)
    args = parser.parse_args(argv)
    _check_numbers(args)
    return args


_COMMANDS = (
    (
        "check",
        "count the usable samples of each shard, and list the others for later runs",
        "Decode every picture; the list of what is broken is read by later runs.",
    ),
    (
        "pack",
        "make shards of small pictures",
        "Write shards (source=shards) whose pictures are at most --size large.",
    ),
    (
        "teach",
        "store a teacher's embeddings for runs with teacher.views",
        "Embed every training sample as runs with these seeds see it in each epoch.",
    ),
)
"""Name, what it does, and the same in a sentence."""


def _add_common(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    share, pixels = _DEFAULTS.max_bad_fraction, _DEFAULTS.max_pixels
    add("data", help="folder, table, tar files or URLs, as data.path has them")
    add("--source", choices=SOURCES, help="as data.source has it, or classes for a zero-shot test "
        "set; else as the data look")  # fmt: skip
    add("--workers", type=int, default=usable_cores(), metavar="N", help="processes (one a core)")
    add("--max-bad-fraction", type=float, default=share, metavar="SHARE", help="of unusable "
        f"samples that is allowed ({share:g})")  # fmt: skip
    add("--max-pixels", type=int, default=pixels, metavar="N", help="larger pictures are not "
        f"decoded ({pixels:,})")  # fmt: skip
    add("--columns", metavar="FIELD=COLUMN", nargs="+", default=[], help="as data.columns has "
        "them: image=img caption=description split=fold")  # fmt: skip
    add("--cache", metavar="DIR", help="as runtime.cache has it")


def _check_numbers(args: argparse.Namespace) -> None:
    for name in ("workers", "size", "shard_samples", "max_pixels", "views"):
        value = getattr(args, name, 1)
        if value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value} is less than 1")
    if not 0 <= args.max_bad_fraction <= 1:
        raise ConfigError(f"--max-bad-fraction {args.max_bad_fraction:g} is not between 0 and 1")


def _opened(args: argparse.Namespace) -> tuple[DataSet, Runtime]:
    from harness.data.catalog import cache_dir, find_data, open_class_folder
    from harness.data.sources.folder import open_folder
    from harness.data.sources.shards import Shards

    allow_pipes([args.data])
    source = args.source or looks_like(args.data)
    runtime = Runtime(cache=args.cache, max_pixels=args.max_pixels)
    if source == CLASSES:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(args.data).stem) or CLASSES
        return open_class_folder(ClassFolder(name=name, path=args.data), runtime), runtime
    columns = columns_of(args)
    config = override(RunConfig(), {"data.source": source, "data.path": args.data, **columns})
    if source == "folder" and getattr(args, "again", False):
        open_folder(args.data, config.data.columns, cache=cache_dir(runtime), again=True)
    data = find_data(config.data, runtime)
    if isinstance(data, Shards):
        with _progress("indexing", "shards") as progress:
            data.make_index(
                jobs=args.workers, progress=progress, again=getattr(args, "again", False)
            )
    return data, runtime


def columns_of(args: argparse.Namespace) -> dict[str, object]:
    """Fields of `data.columns` as they were given."""
    return dict(parse_assignment(f"data.columns.{text}") for text in args.columns)


def looks_like(path: str) -> str:
    """The source that reads `path`: a URL is streamed, tar files are shards, the rest a folder.

    Of folders and tars, those with a class for each picture and no captions are classes.
    """
    from harness.config.pipes import SEPARATOR
    from harness.data.class_sets import looks_labelled
    from harness.data.shard_list import has_shards, is_remote

    first = path.split(SEPARATOR)[0].strip()
    if is_remote(first):
        return "stream"
    folder = home_path(first.removeprefix("file://"))
    if folder.exists() and looks_labelled(folder):
        return CLASSES
    if not folder.is_dir():
        return "shards" if ".tar" in first and not _has_rows(folder) else "folder"
    return "shards" if has_shards(folder) else "folder"


def _has_rows(archive: Path) -> bool:
    """Whether a tar is a folder that was packed: a table, or no caption, among its first files."""
    from harness.data.tables import TABLE_SUFFIXES

    beside = (".txt", ".json")
    tables = tuple(suffix for suffix in TABLE_SUFFIXES if suffix not in beside)
    try:
        with tarfile.open(archive) as tar:
            names = [member.name.lower() for member in islice(tar, _PROBED) if member.isfile()]
        return any(n.endswith(tables) for n in names) or not any(n.endswith(beside) for n in names)
    except (OSError, tarfile.TarError, EOFError):
        return False


# --------------------------------------------------------------------------- check


def check_data(args: argparse.Namespace) -> int:
    """Look at everything, keep the list of what is broken, tell all; the exit code."""
    from harness.data.account import RefusedData
    from harness.data.tools.summary import summary_of_refused

    try:
        return _check(args)
    except DataError as error:
        tree = summary_of_refused(error)
        if args.json:
            print(json.dumps(tree, indent=1))
        elif isinstance(error, RefusedData):
            _print_summary(tree)
        raise


def _check(args: argparse.Namespace) -> int:
    from harness.data.catalog import cache_dir
    from harness.data.duplicates import keep_duplicates
    from harness.data.quarantine import write_quarantine
    from harness.data.tools.scan import scan
    from harness.data.tools.summary import summary_of

    data, runtime = _opened(args)
    with _progress("decoding", "pictures") as progress:
        found = scan(data, max_pixels=args.max_pixels, workers=args.workers, progress=progress)
    file = write_quarantine(cache_dir(runtime), data, args.max_pixels, found.bad)
    keep_duplicates(data, cache_dir(runtime), found.duplicates)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, args.out)
    tree = summary_of(data, found)
    share = 1 - tree["usable"] / max(1, tree["seen"])
    too_many = share > args.max_bad_fraction
    if args.json:
        print(json.dumps(tree, indent=1))
        return 3 if too_many else 0
    _print_summary(tree)
    print(f"fingerprint: train {data.fingerprint[:12]}, rest {data.evaluation_fingerprint[:12]}")
    print(f"list: {file}")
    lost = f"{tree['seen'] - tree['usable']:,} of {tree['seen']:,} rows"
    verdict = f"{share:.2%} unusable, {args.max_bad_fraction:.2%} allowed ({lost})"
    print(("not usable: " if too_many else "usable: ") + verdict)
    return 3 if too_many else 0


def _print_summary(tree: Mapping[str, Any]) -> None:
    """The tables of a check: files, splits, classes; then captions, notes and problems."""
    files, unread = tree["files"], [f for f in tree["files"] if f["reason"] is not None]
    shown = files if len(files) <= _SHOWN else unread[:_SHOWN]
    rows = [(f["file"], _count(f["rows"]), _count(f["used"]), f["reason"] or "") for f in shown]
    if len(files) > len(shown):
        rest = [f for f in files if f not in shown]
        used = _count(sum(f["used"] for f in rest))
        rows.append((f"{len(rest):,} more", _count(sum(f["rows"] for f in rest)), used, ""))
    _print_rows(("file", "rows", "used", "why not all"), rows)
    splits = [
        (name, _count(s["pictures"]), _count(s["captions"]), s["origin"])
        for name, s in tree["splits"].items()
    ]
    _print_rows(("split", "pictures", "captions", "by"), splits)
    classes = [(n, _count(c["pictures"]), c["prompt"]) for n, c in tree["classes"].items()]
    if len(classes) > _SHOWN_CLASSES:
        rest = [c["pictures"] for c in tree["classes"].values()][_SHOWN:]
        span = f"{min(rest):,} to {max(rest):,} each"
        classes = [*classes[:_SHOWN], (f"{len(rest):,} more", _count(sum(rest)), span)]
    _print_rows(("class", "pictures", "first prompt"), classes)
    for name, caption in tree["captions"].items():
        text = textwrap.shorten(caption["caption"], 100, placeholder=" ...")
        print(f"{name} caption: {caption['characters']:,} characters, {text!r}")
    for split, count in tree["duplicates"]["within"].items():
        what = "picture has" if count == 1 else "pictures have"
        print(f"repeated: {count:,} {what} the content of another in {split}")
    for note in tree["notes"]:
        print(f"note: {note}")
    _print_problems(tree["problems"])


def _count(number: int) -> str:
    return f"{number:,}"


def _print_rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from harness.document.table import plain_table

    if rows:
        numeric = {"rows", "used", "pictures", "captions"}
        print_table(plain_table(heads, rows, numeric=numeric))


def _print_problems(problems: Sequence[Mapping[str, Any]]) -> None:
    """One line a reason, the most frequent first, with the first place of each."""
    for problem in problems[:_SHOWN]:
        row = "" if problem["row"] is None else f":{problem['row']}"
        print(f"{problem['count']:>7,} x {problem['reason']} (such as {problem['file']}{row})")
    if len(problems) > _SHOWN:
        print(f"{'':7}   and {len(problems) - _SHOWN} more reasons")


# --------------------------------------------------------------------------- pack


def pack_data(args: argparse.Namespace) -> int:
    """Make the pack and say what it is; the exit code."""
    from harness.data.catalog import cache_dir
    from harness.data.tools.pack import left_out, making_of, pack

    data, runtime = _opened(args)
    if not any(any(split.captions) for split in data.splits.values()):
        raise ConfigError(f"{args.data} has no captions, and pack writes pictures with captions")
    making = making_of(
        data,
        size=args.size,
        shard_samples=args.shard_samples,
        form=args.format,
        max_pixels=args.max_pixels,
    )
    with _progress("packing", "pictures") as progress:
        whole = pack(
            data,
            making,
            args.out,
            cache=cache_dir(runtime),
            max_bad_fraction=args.max_bad_fraction,
            workers=args.workers,
            progress=progress,
        )
    lost, seen = left_out(data, whole)
    size = sum(shard.bytes for shard in whole.shards) / 1e6
    print(
        f"{args.out}: {whole.resized:,} pictures written anew at up to {args.size} pixels, "
        f"{whole.kept:,} kept as they were; {lost:,} of {seen:,} rows left out; "
        f"{len(whole.shards)} shards, {size:,.1f} MB"
    )
    for where, reason in whole.problems[:_SHOWN]:
        print(f"left out: {where}: {reason}")
    print(f"use it: data.source=shards data.path={args.out}")
    return 0


# --------------------------------------------------------------------------- teach


def teach_data(args: argparse.Namespace) -> int:
    """Store what a teacher makes of the data, for each seed; the exit code."""
    from harness.commands.teach import teach_seeds

    allow_pipes([args.data])
    built_in = args.data in BUILT_IN
    source = args.data if built_in else args.source or looks_like(args.data)
    fields = {"data.source": source, "data.path": None if built_in else args.data}
    with _progress("embedding", "samples") as progress:
        for line in teach_seeds(args, {**fields, **columns_of(args)}, progress):
            print(line)
    return 0


# --------------------------------------------------------------------------- progress


@contextmanager
def _progress(what: str, units: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how much is done: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        from harness.data.tools.jobs import ProgressLines

        yield ProgressLines(what, units)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from harness.document.terminal import PlainConsole

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(units))
    with Progress(*columns, TimeRemainingColumn(), console=PlainConsole(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
