"""The command: `python -m harness.status [NAME] [options]`: how the runs of a sweep are.

From any shell and machine that sees the folder, with or without a scheduler: the runs are those of
the sweep's manifest, their states are in their own directories, and a scheduler, asked once, only
tells why those in its queue are waiting.  Exit codes: 0, 2 the command is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from harness.commands.shared import Parser, exit_code_of
from harness.errors import ConfigError, RecordError, unknown
from harness.launch.slurm import scheduler
from harness.launch.slurm.scheduler import Silent
from harness.launch.slurm.submissions import REPORT, Intent, QueuePlace, Submission, submissions
from harness.ledger import Ledger
from harness.manifest import Manifest, manifest_names, read_manifest
from harness.monitor.logs import log_files
from harness.monitor.snapshot import SnapshotReader, places_in_queue
from harness.monitor.terminal import sweep_lines, sweep_page
from harness.plan import Rerun, make_plan
from harness.record import State, Store
from harness.space import Run
from harness.sweep_files import load_sweep

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESH_SECONDS = 2.0
LINES_SHOWN = 100
PIPE_WIDTH = 160


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: run_command(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.status",
        description="How the runs of a sweep are; without a name, all sweeps in a line each.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("sweep", metavar="NAME", nargs="?", help="a sweep that was launched under the root")
    add("--watch", action="store_true", help="look again and again, until interrupted")
    add("--logs", metavar="KEY", help="what the run printed last; the start of a key will do")
    add("--cancel", metavar="KEY", nargs="*", help="stop runs, which keep what they have; or --all")
    add("--all", action="store_true", help="with --cancel: every run of the sweep")
    add("--retry", metavar="KEY", nargs="+", help="submit failed runs again, from their beginning")
    add("--root", type=Path, default=Path(), metavar="DIR", help="holds results/ and reports/")
    return parser


def run_command(args: argparse.Namespace) -> int:
    """Show, or do what was asked for."""
    store = Store(args.root.resolve())
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
        return cancel(store, manifest, args.cancel, everything=args.all)
    if args.retry:
        return retry(store, manifest, args.retry)
    return show(store, args.sweep, watch=args.watch)


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
    print("\n".join(sweep_lines(store, reader, places_in_queue(store, _to_stderr))))
    return 0


def show(store: Store, name: str, *, watch: bool) -> int:
    """The table of a sweep, once or until interrupted."""
    reader = SnapshotReader(store)

    def look(places: Mapping[str, QueuePlace]) -> list[RenderableType]:
        manifest = read_manifest(store, name)  # that of a search grows
        return sweep_page(store, manifest, reader.read(manifest.runs, places))

    if watch:
        return _watch(store, look)
    console = _console()
    for part in look(places_in_queue(store, _to_stderr)):
        console.print(part)
    return 0


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def _watch(store: Store, look: Look) -> NoReturn:
    """What `look` shows, again and again in the same place; ends with KeyboardInterrupt."""
    from rich.console import Group
    from rich.live import Live

    places, asked = places_in_queue(store, _to_stderr), time.monotonic()
    with Live(console=_console(), auto_refresh=False) as live:
        while True:
            if time.monotonic() - asked >= scheduler.POLL_SECONDS:
                places = places_in_queue(store, lambda line: None)
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
    lines = files[-1].read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    print("\n".join(lines[-LINES_SHOWN:]))
    return 0


# --------------------------------------------------------------------------- acting


def choose(manifest: Manifest, names: Sequence[str]) -> list[Run]:
    """The runs of the sweep whose keys begin so, each name with one."""
    keys = {run.key: run for run in manifest.runs}
    chosen: list[Run] = []
    for name in names:
        found = [key for key in keys if key.startswith(name)]
        if not found:
            raise RecordError(unknown("run", name, keys))
        if len(found) > 1:
            raise RecordError(f"{name!r} begins the keys of {len(found)} runs: {', '.join(found)}")
        chosen.append(keys[found[0]])
    return chosen


def cancel(store: Store, manifest: Manifest, names: Sequence[str], *, everything: bool) -> int:
    """Ask runs to stop, and take their jobs out of the queue: those whose numbers we have alone."""
    if bool(names) == everything:
        raise ConfigError("--cancel wants the keys of runs, or --all")
    runs = list(manifest.runs) if everything else choose(manifest, names)
    places = places_in_queue(store, _to_stderr)
    asked = [run for run in runs if _ask_to_stop(store, run, places)]
    jobs = _jobs_to_cancel(asked, places)
    if everything:
        for submission in submissions(store, manifest.sweep.name):
            jobs.update(_report_job(submission))
    for name, numbers in jobs.items():
        try:
            scheduler.cancel(numbers, name)
        except Silent as error:
            _to_stderr(f"{name}: {error}; its runs leave when they look into their directories")
    count = sum(map(len, jobs.values()))
    print(f"{len(asked)} runs are called off, {count} jobs taken out of the queue")
    return 0


def _ask_to_stop(store: Store, run: Run, places: Mapping[str, QueuePlace]) -> bool:
    directory = store.run_dir(run.key)
    state = directory.status(run.config.evaluation_key).state
    if state is not State.RUNNING and run.key not in places:
        return False
    directory.request_stop("cancelled")
    return True


def _jobs_to_cancel(runs: Sequence[Run], places: Mapping[str, QueuePlace]) -> dict[str, list[str]]:
    """Name of an array -> numbers of its jobs all of whose runs are called off."""
    keys = {run.key for run in runs}
    jobs: dict[str, list[str]] = {}
    intents: dict[Path, Intent] = {}
    for run in runs:
        place = places.get(run.key)
        if place is None:
            continue
        folder = place.submission.folder
        intent = intents.setdefault(folder, intents.get(folder) or place.submission.read())
        array, number = intent.arrays[place.array], place.submission.job(place.array)
        alive = {key for key in array.tasks[place.index] if key in places}
        if number is not None and alive <= keys and run.key == min(alive):
            jobs.setdefault(array.name, []).append(f"{number}_{place.index}")
    return jobs


def _report_job(submission: Submission) -> dict[str, list[str]]:
    number, name = submission.job(REPORT), submission.read().report
    there = submission.open and number is not None and name is not None
    return {str(name): [str(number)]} if there else {}


def retry(store: Store, manifest: Manifest, names: Sequence[str]) -> int:
    """Submit failed runs again as they were, with the code as it is now."""
    from harness.launch.executors.slurm import words
    from harness.launch.slurm.submit import JobOrder, submit

    if len(Ledger.of(store, manifest.sweep.name)):
        raise ConfigError(
            f"{manifest.sweep.name} is a search, to which a failed trial is a fact; its own "
            "command goes on with others"
        )
    runs = choose(manifest, names)
    for run in runs:
        status = store.run_dir(run.key).status(run.config.evaluation_key)
        if status.state in {State.DONE, State.RUNNING}:
            raise RecordError(f"run {run.key} {status.how}; --retry is for runs that failed")
    steps = [s for s in make_plan(runs, store, Rerun.FAILED) if s.run.key in {r.key for r in runs}]
    last = _last_submission(store, manifest, runs)
    intent = last.read()
    file = None
    if manifest.sweep.source is not None:
        file = Path(manifest.sweep.source.path)
        load_sweep(str(file))  # so that the modules it imports are frozen with it
    report = tuple(
        str(file) if word == intent.sweep_file else word for word in intent.report_command
    )
    order = replace(
        JobOrder.again(intent), sweep_file=file, report=report or None, frozen=None, round=0
    )
    for line in words(submit(steps, order, _to_stderr), order):
        print(line)
    return 0


def _last_submission(store: Store, manifest: Manifest, runs: Sequence[Run]) -> Submission:
    for submission in reversed(list(submissions(store, manifest.sweep.name))):
        if any(run.key in submission.read().keys for run in runs):
            return submission
    raise ConfigError(
        f"{', '.join(run.key for run in runs)} was never submitted to SLURM; the sweep's own "
        "command with --rerun failed tries it again"
    )


if __name__ == "__main__":
    sys.exit(main())
