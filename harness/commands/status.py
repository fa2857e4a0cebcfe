"""How the runs of a sweep are; without a name, all sweeps in a line each.

`python -m harness.status [NAME] [options]`, from any shell and machine that sees the folder, with
or without a scheduler: the runs are those of the sweep's manifest, their states are in their own
directories, and a scheduler, asked once, only tells why those in its queue are waiting.  Exit
codes: 0, 2 the command is wrong, 3 not all was called off, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from harness.commands.shared import (
    command_parser,
    exit_code_of,
    of_a_sweep_file,
    store_of,
    under_a_root,
)
from harness.config.sweep_files import load_sweep
from harness.errors import ConfigError, RecordError
from harness.launch.slurm import scheduler
from harness.launch.slurm.places import QueuePlace
from harness.monitor.logs import log_files, tail
from harness.monitor.snapshot import SnapshotReader, queue_of
from harness.monitor.terminal import points_page, sweep_lines, sweep_page
from harness.store.manifest import Manifest, manifest_names, read_manifest
from harness.store.record import Store

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESH_SECONDS = 2.0
LINES_SHOWN = 100
PIPE_WIDTH = 160


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: run_command(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("status", __doc__, under_a_root(), of_a_sweep_file("sweep_file"))
    add = parser.add_argument
    add("sweep", metavar="NAME", nargs="?", help="a sweep that was launched under the root")
    add("--watch", action="store_true", help="look again and again, until interrupted")
    add("--logs", metavar="KEY", help="what the run printed last; the start of a key will do")
    add("--cancel", metavar="KEY", nargs="*", help="stop runs, which keep what they have; or --all")
    add("--all", action="store_true", help="with --cancel: every run of the sweep")
    add("--retry", metavar="KEY", nargs="+", help="submit failed runs again, from their beginning")
    return parser


def run_command(args: argparse.Namespace) -> int:
    """Show, or do what was asked for."""
    store = store_of(args)
    if args.sweep_file is not None:
        load_sweep(str(args.sweep_file))
    if args.logs is not None:
        return show_log(store, args.logs)
    if args.sweep is None:
        if args.cancel is not None or args.retry or args.all:
            raise ConfigError("--cancel and --retry want the NAME of a sweep")
        return show_all(store, watch=args.watch)
    manifest = read_manifest(store, args.sweep)
    if args.all and args.cancel is None:
        raise ConfigError("--all is for --cancel")
    if args.cancel is not None:
        return _cancel(args, store, manifest)
    if args.retry:
        return _retry(args, store, manifest)
    return show(store, args.sweep, watch=args.watch)


def _cancel(args: argparse.Namespace, store: Store, manifest: Manifest) -> int:
    from harness.launch.slurm.recall import cancel

    find = partial(queue_of, store, _to_stderr)
    done = cancel(manifest, args.cancel, store, find, _to_stderr, everything=args.all)
    print("\n".join(done.lines))
    return done.exit_code


def _retry(args: argparse.Namespace, store: Store, manifest: Manifest) -> int:
    from harness.launch.executors.slurm import words
    from harness.launch.slurm.recall import retry

    done, order = retry(manifest, args.retry, store, _to_stderr, args.sweep_file)
    print("\n".join(words(done, order)))
    return done.exit_code


# --------------------------------------------------------------------------- showing


Look = Callable[[Mapping[str, QueuePlace]], "Sequence[RenderableType]"]


def show_all(store: Store, *, watch: bool = False) -> int:
    """A line a sweep, and one for all of them, once or until interrupted."""
    if not manifest_names(store):
        raise RecordError(f"no sweep was launched under {store.root}")
    reader = SnapshotReader(store)
    if watch:
        from rich.text import Text

        return _watch(store, lambda places: [Text(x) for x in sweep_lines(store, reader, places)])
    print("\n".join(sweep_lines(store, reader, queue_of(store, _to_stderr).places)))
    return 0


def show(store: Store, name: str, *, watch: bool) -> int:
    """The runs of a sweep once, or its points on one screen until interrupted."""
    reader = SnapshotReader(store)

    console = _console()

    def look(places: Mapping[str, QueuePlace]) -> list[RenderableType]:
        manifest = read_manifest(store, name)  # that of a search grows
        snapshots = reader.read(manifest.runs, places)
        if watch:
            return points_page(store, manifest, snapshots, console)
        return sweep_page(store, manifest, snapshots)

    if watch:
        return _watch(store, look, console)
    for part in look(queue_of(store, _to_stderr).places):
        console.print(part)
    return 0


def _console() -> Console:
    from harness.document.terminal import PlainConsole

    return PlainConsole(pipe_width=PIPE_WIDTH)


def _watch(store: Store, look: Look, console: Console | None = None) -> NoReturn:
    """What `look` shows, again and again in the same place; ends with KeyboardInterrupt."""
    from rich.console import Group
    from rich.live import Live

    places, asked = queue_of(store, _to_stderr).places, time.monotonic()
    with Live(console=console or _console(), auto_refresh=False) as live:
        while True:
            if time.monotonic() - asked >= scheduler.POLL_SECONDS:
                places = queue_of(store, lambda line: None).places
                asked = time.monotonic()
            live.update(Group(*look(places)), refresh=True)
            time.sleep(REFRESH_SECONDS)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


# --------------------------------------------------------------------------- logs


def show_log(store: Store, name: str) -> int:
    """The end of what the last attempt of a run printed, or its job if the run never began."""
    directory = store.find(name)
    files = log_files(store, directory)
    if not files:
        raise RecordError(f"run {directory.key} {directory.status().how} and has printed nothing")
    print(f"{files[-1]}:")
    print("\n".join(tail(files[-1])["text"].splitlines()[-LINES_SHOWN:]))
    return 0
