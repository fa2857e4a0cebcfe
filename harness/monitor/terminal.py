"""How runs stand, on a terminal: one table, one total, for status and for a launch that is watched.

Reads and never writes, so it may watch runs of any executor, of another launcher too.  A launch is
watched in a thread of its own: a table on a terminal, else lines.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from harness import metrics
from harness.document.text import visible_line
from harness.errors import HarnessError, RecordError, one_line
from harness.launch.backlog import Say
from harness.launch.slurm.places import QueuePlace
from harness.launch.slurm.rehearse import what_went_wrong
from harness.launch.slurm.submissions import submissions
from harness.monitor.logs import log_files, node_of
from harness.monitor.points import PointSnapshot, alike_failures, by_point, leading_metric
from harness.monitor.snapshot import RunSnapshot, RunState, SnapshotReader, Summary
from harness.planning.costs import duration
from harness.planning.plan import Step
from harness.store.manifest import Manifest, manifest_names, read_manifest
from harness.store.record import Store

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

REFRESH_SECONDS = 1.0
PROGRESS_SECONDS = 30.0
"""Between two progress lines when the output is not a terminal."""
ROWS_SHOWN = 40
_STYLES = {
    RunState.DONE: "green",
    RunState.FAILED: "red",
    RunState.NEW: "dim",
    RunState.INTERRUPTED: "dim",
}


def total(snapshots: Sequence[RunSnapshot]) -> str:
    """`3/15 done, 2 running, 1 failed (bug), 9 queued (Priority); 812 samples/s, 7 min left`."""
    summary = Summary.of(snapshots)
    parts = [f"{summary.states.get(RunState.DONE, 0)}/{summary.runs} done"]
    for state, count in summary.states.items():
        if state is not RunState.DONE:
            reasons = ", ".join(map(visible_line, summary.reasons.get(state, ())))
            parts.append(f"{count} {state}" + (f" ({reasons})" if reasons else ""))
    more = [] if summary.rate is None else [f"{summary.rate:,.0f} samples/s"]
    more += [f"{duration(summary.left)} left at this pace"] if summary.left else []
    more += [f"{hours:.3g} {name}" for name, hours in summary.hours.items()]
    return ", ".join(parts) + ("; " + ", ".join(more) if more else "")


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table(snapshots: Sequence[RunSnapshot], rows: int = ROWS_SHOWN, *, live: bool = False) -> Table:
    """A row a run, those that ask for attention first, at most `rows`, the others in one line.

    Args:
        live: a line a row however long the label, and how long the runs wait for their pictures.
    """
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False)
    made.add_column("run", overflow="ellipsis", ratio=1 if live else None, no_wrap=live)
    numbers = ["done", "samples/s", *(["data wait"] if live else []), "loss", "left"]
    for head in ("seed", "key", "state", *numbers):
        made.add_column(head, justify="left" if head in {"key", "state"} else "right", no_wrap=live)
    order, styles = list(RunState), _STYLES if live else {}
    ordered = sorted(snapshots, key=lambda one: order.index(one.state))
    for one in ordered[:rows]:
        cells = _numbers(one)
        told = (one.run.label, one.run.seed, one.run.key, one.words)
        about = [Text(visible_line(word)) for word in told]
        made.add_row(*about, *(cells[head] for head in numbers), style=styles.get(one.state, ""))
    rest = Counter(one.state for one in ordered[rows:])
    if rest:
        made.add_row(
            "and " + ", ".join(f"{n} {state}" for state, n in rest.items()),
            style=styles.get(RunState.NEW, ""),
        )
    return made


def _numbers(one: RunSnapshot) -> dict[str, str]:
    return {
        "done": f"{one.share:.0%}",
        "samples/s": _or_dash(one.rate, ",.0f"),
        "data wait": _or_dash(one.data_wait, ".0%"),
        "loss": _or_dash(one.loss, ".3f"),
        "left": "-" if one.left is None else duration(one.left),
    }


# --------------------------------------------------------------------------- sweeps


def sweep_lines(
    store: Store, reader: SnapshotReader, places: Mapping[str, QueuePlace] | None = None
) -> list[str]:
    """A line a sweep, and one for all of them, in which a run of two sweeps counts once."""
    names = manifest_names(store)
    width = max(map(len, [*names, "all"]))
    lines: list[str] = []
    everything: dict[tuple[str, str], RunSnapshot] = {}
    for name in names:
        try:
            found = reader.read(read_manifest(store, name).runs, places)
        except HarnessError as error:
            lines.append(f"{name:{width}}  {visible_line(one_line(error))}")
            continue
        everything |= {(one.run.key, one.run.evaluation_key): one for one in found}
        lines.append(f"{name:{width}}  {total(found)}")
    if len(names) > 1:
        lines.append(f"{'all':{width}}  {total(list(everything.values()))}")
    return lines


def sweep_page(
    store: Store, manifest: Manifest, snapshots: Sequence[RunSnapshot]
) -> list[RenderableType]:
    """The table, the total, a line a failure, and what the scheduler's side has to say."""
    return [
        table(snapshots),
        total(snapshots),
        *failure_lines(store, snapshots),
        *submission_notes(store, manifest.sweep.name, snapshots),
    ]


# --------------------------------------------------------------------------- points

#: A mark a seed; the second of each is for a terminal that has no such sign.
_MARKS = {
    RunState.DONE: ("\u25cf", "#"),
    RunState.RUNNING: ("\u25d0", ">"),
    RunState.FAILED: ("\u2717", "x"),
    RunState.DEAD: ("\u2620", "X"),
    RunState.STALE: ("?", "?"),
    RunState.HELD: ("!", "!"),
    RunState.INTERRUPTED: ("\u25cc", "-"),
    RunState.CANCELLED: ("\u2212", "-"),
    RunState.PRUNED: ("\u2212", "-"),
    RunState.STARTING: ("\u25cb", "o"),
    RunState.QUEUED: ("\u25cb", "o"),
    RunState.NEW: ("\u00b7", "."),
}
#: States that nobody waits to see.
_LATER = (RunState.DONE, RunState.STARTING, RunState.QUEUED, RunState.NEW)
_FAILURES_SHOWN = 4
_AROUND = 4
"""Lines of a page of points besides the points, failures and notes."""


def points_page(
    store: Store, manifest: Manifest, snapshots: Sequence[RunSnapshot], console: Console
) -> list[RenderableType]:
    """What fits on one screen: totals, what the marks mean, a line a point, failures by cause."""
    from rich.text import Text

    failures = failure_lines(store, snapshots)
    notes = [*failures[:_FAILURES_SHOWN], *submission_notes(store, manifest.sweep.name, snapshots)]
    if len(failures) > _FAILURES_SHOWN:
        notes.insert(_FAILURES_SHOWN, f"and {len(failures) - _FAILURES_SHOWN} more causes")
    rows = max(3, console.height - _AROUND - len(notes))
    lines = [
        Text(f"{manifest.sweep.name}: {total(snapshots)}"),
        Text(_legend(snapshots, console.encoding), style="dim"),
    ]
    below = [Text(note) for note in notes]
    for line in (*lines, *below):
        line.no_wrap, line.overflow = True, "ellipsis"
    return [*lines, _points_table(manifest, snapshots, rows, console.encoding), *below]


def _points_table(
    manifest: Manifest, snapshots: Sequence[RunSnapshot], rows: int, encoding: str
) -> Table:
    """A row a point, at most `rows`: those that go on or failed first, the others in one line."""
    from rich.table import Table
    from rich.text import Text

    metric = leading_metric(manifest.sweep.show, snapshots)
    named = "" if metric is None else f"{metrics.display(metric)} ({metrics.unit(metric)})"
    made = Table(box=None, pad_edge=False)
    made.add_column("point", overflow="ellipsis", no_wrap=True, ratio=1)
    made.add_column("seeds", no_wrap=True)
    for head in ("done", named, "left"):
        made.add_column(head, justify="right", no_wrap=True)
    points = by_point(snapshots)
    chosen = points if len(points) <= rows else _most_wanted(points, rows - 1)
    for point in chosen:
        left = "-" if point.left is None else duration(point.left)
        value = "-" if metric is None else _value(point, metric)
        seeds = "".join(_mark(one, encoding) for one in point.runs)
        style = "green" if point.is_done else ""
        made.add_row(
            Text(visible_line(point.label)), seeds, f"{point.share:.0%}", value, left, style=style
        )
    rest = [one for point in points if point not in chosen for one in point.runs]
    if rest:
        states = Counter(one.state for one in rest)
        told = ", ".join(f"{n} {state}" for state, n in states.items())
        made.add_row(f"and {len(points) - len(chosen)} more points: {told}", style="dim")
    return made


def _most_wanted(points: Sequence[PointSnapshot], rows: int) -> list[PointSnapshot]:
    """Points whose runs go on or ask for attention, then those with results; in their order."""
    order = [state for state in RunState if state not in _LATER] + list(_LATER)
    urgency = [min(order.index(one.state) for one in point.runs) for point in points]
    wanted = sorted(range(len(points)), key=lambda index: urgency[index])[:rows]
    return [points[index] for index in sorted(wanted)]


def _value(point: PointSnapshot, metric: str) -> str:
    """`34.2 \u00b1 1.1`, with how many seeds where not all are done."""
    found = point.values(metric)
    if found is None:
        return "-"
    scale = metrics.scale(metric)
    spread = "" if found.sd is None else f" \u00b1 {found.sd * scale:.1f}"
    count = "" if found.seeds == len(point.runs) else f" ({found.seeds} of {len(point.runs)})"
    return f"{found.mean * scale:.1f}{spread}{count}"


def _mark(one: RunSnapshot, encoding: str) -> str:
    return _MARKS[one.state][0 if _can_write(encoding) else 1]


def _can_write(encoding: str) -> bool:
    try:
        "".join(sign for sign, _ in _MARKS.values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _legend(snapshots: Sequence[RunSnapshot], encoding: str) -> str:
    """What the marks that are there mean."""
    states = {one.state: one for one in snapshots}
    there = [state for state in RunState if state in states]
    return "  ".join(f"{_mark(states[state], encoding)} {state}" for state in there)


def submission_notes(store: Store, sweep: str, snapshots: Sequence[RunSnapshot]) -> list[str]:
    """The submissions that hold themselves back, the rehearsal that went wrong, no report job."""
    held = [(one.folder.name, one.held()) for one in submissions(store, sweep)]
    notes = [f"submission {name} holds itself back: {why}" for name, why in held if why is not None]
    places = [one.place for one in snapshots if one.place is not None]
    alone = sum(place.lacks_report_of(sweep) for place in places)
    if alone:
        notes.append(
            f"no job in the queue writes the report on {alone} of these runs when they are over: "
            "the command that submitted them brings one, or they are reported by hand"
        )
    return [visible_line(note) for note in [*notes, *what_went_wrong(store, sweep)]]


def failure_lines(store: Store, snapshots: Iterable[RunSnapshot]) -> list[str]:
    """`layers=4 seed 0 (1a2b3c4d5e6f) on n3: bug: KeyError: 'x'; log: ...`; the same cause once."""
    return [_failure_line(store, *group) for group in alike_failures(snapshots)]


def _failure_line(store: Store, first: RunSnapshot, *others: RunSnapshot) -> str:
    directory = store.run_dir(first.run.key)
    printed = [first.log, *log_files(store, directory)[-1:]]
    log = next((f"; log: {file}" for file in printed if file), "")
    try:
        node = node_of(directory)
    except RecordError:  # which is the failure, or beside it
        node = None
    return visible_line(
        f"{_name(first)}{f' on {node}' if node else ''}"
        f"{f' and {len(others)} more' if others else ''}: "
        f"{first.status.failure}: {first.status.error}{log}"
    )


def _name(one: RunSnapshot) -> str:
    return f"{one.run.label} seed {one.run.seed} ({one.run.key})"


# --------------------------------------------------------------------------- a launch


@contextmanager
def watching(
    steps: Sequence[Step],
    store: Store,
    places: Callable[[], Mapping[str, QueuePlace]] = dict,
) -> Iterator[Say]:
    """Show the pending runs of a plan until left; yields a function that prints a line beside.

    Args:
        steps: may change meanwhile.
        places: where in a scheduler's queue runs are, as far as is known.
    """
    reader = SnapshotReader(store)

    def look() -> list[RunSnapshot]:
        return reader.read([step.run for step in tuple(steps) if step.pending], places())

    if sys.stdout.isatty():
        from harness.document.terminal import PlainConsole

        with _on_terminal(look, PlainConsole()) as say:
            yield say
    else:
        with _as_lines(look, sys.stdout) as say:
            yield say


Look = Callable[[], Sequence[RunSnapshot]]


def live_table(snapshots: Sequence[RunSnapshot], height: int) -> Table:
    """The table of a launch in at most `height` rows, the total below."""
    rows = len(snapshots) if len(snapshots) <= height else max(1, height - 1)
    made = table(snapshots, rows, live=True)
    made.caption, made.caption_justify = total(snapshots), "left"
    return made


@contextmanager
def _on_terminal(look: Look, console: Console) -> Iterator[Say]:
    from rich.live import Live

    def shown() -> Table:
        return live_table(look(), max(4, console.height - 6))

    with Live(get_renderable=shown, console=console, refresh_per_second=1 / REFRESH_SECONDS):
        yield lambda line: console.print(line)


class Lines:
    """Prints a line whenever a run changes its state, and now and then how far the launch is."""

    def __init__(self, look: Look, out: TextIO, clock: Callable[[], float]) -> None:
        self._look = look
        self._out = out
        self._clock = clock
        self._states = {one.run.key: one.state for one in look()}
        self._last_progress = clock()

    def say(self, line: str) -> None:
        """Print a line with the time of day before it; what nobody can read stops no launch."""
        with suppress(OSError):
            print(f"{time.strftime('%H:%M:%S')} {line}", file=self._out, flush=True)

    def look(self) -> None:
        """Look at the files once and print what is new."""
        snapshots = self._look()
        for one in snapshots:
            if self._states.get(one.run.key, RunState.NEW) is not one.state:
                self._states[one.run.key] = one.state
                self.say(change_line(one))
        if self._clock() - self._last_progress >= PROGRESS_SECONDS:
            self._last_progress = self._clock()
            self.say(progress_line(snapshots))


def change_line(one: RunSnapshot) -> str:
    """`layers=4 seed 0 (1a2b3c4d5e6f): failed (killed): killed by SIGKILL; log: ...`."""
    if one.state is not RunState.FAILED:
        return visible_line(f"{_name(one)}: {one.state}")
    return visible_line(f"{_name(one)}: {one.status.how}{f'; log: {one.log}' * bool(one.log)}")


def progress_line(snapshots: Sequence[RunSnapshot]) -> str:
    """The total, and the running runs with their share, pace and loss."""
    running = [
        f"{visible_line(one.run.label)} seed {one.run.seed} {one.share:.0%}"
        f" ({_or_dash(one.rate, ',.0f')} samples/s, loss {_or_dash(one.loss, '.3f')})"
        for one in snapshots
        if one.state is RunState.RUNNING
    ]
    return "; ".join([total(snapshots), *running])


@contextmanager
def _as_lines(look: Look, out: TextIO) -> Iterator[Say]:
    lines = Lines(look, out, time.monotonic)
    over = threading.Event()

    def keep_looking() -> None:
        while not over.wait(REFRESH_SECONDS):
            lines.look()

    thread = threading.Thread(target=keep_looking, name="watch", daemon=True)
    thread.start()
    try:
        yield lines.say
    finally:
        over.set()
        thread.join()
        lines.look()
