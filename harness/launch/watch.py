"""The live view of a launch, read from the runs' own files: a table on a terminal, else lines.

Reads and never writes, so it may watch runs of any executor, of another launcher too.  Runs in a
thread of its own and knows nothing of processes.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from harness.costs import training_gmacs
from harness.errors import RecordError, one_line
from harness.launch.base import Say, name_of
from harness.plan import Step
from harness.record import State, Status, Store

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

REFRESH_SECONDS = 1.0
PROGRESS_SECONDS = 30.0
"""Between two progress lines when the output is not a terminal."""
_SHOWN_FIRST = {
    State.RUNNING: 0,
    State.FAILED: 1,
    State.INTERRUPTED: 2,
    State.NEW: 3,
    State.DONE: 4,
}


@dataclass(frozen=True)
class Row:
    """What is known of one run of the launch at this moment."""

    step: Step
    status: Status

    @property
    def state(self) -> State:
        """What the run's files say now."""
        return self.status.state

    @property
    def phase(self) -> str:
        """The state, and while running what it is at: prepare, train, evaluate."""
        phase = self._detail("phase")
        return str(phase) if self.state is State.RUNNING and phase else self.state.value

    @property
    def share(self) -> float:
        """Share of the samples that is done, in [0, 1]."""
        if self.state is State.DONE:
            return 1.0
        return min(1.0, self.status.samples_seen / self.step.run.config.train.samples)

    @property
    def rate(self) -> float | None:
        """Samples a second, while it trains."""
        return self._number("samples_per_second")

    @property
    def data_wait(self) -> float | None:
        """Share of the time spent waiting for pictures, in [0, 1]."""
        return self._number("data_wait")

    @property
    def loss(self) -> float | None:
        """The last total loss that was written down."""
        return self._number("loss", running=False)

    @property
    def eta(self) -> float | None:
        """Seconds to the end of its training."""
        return self._number("eta_seconds")

    @property
    def gmacs_left(self) -> float:
        """Work left, in GMACs of training; none for a failed run."""
        if self.state in {State.DONE, State.FAILED}:
            return 0.0
        config = self.step.run.config
        return training_gmacs(config, max(0, config.train.samples - self.status.samples_seen))

    @property
    def gmacs_per_second(self) -> float:
        """Its pace, so that runs of different cost can be added up."""
        config = self.step.run.config
        return (self.rate or 0.0) * training_gmacs(config, 1)

    def _number(self, name: str, *, running: bool = True) -> float | None:
        value = self._detail(name)
        if running and self.state is not State.RUNNING:
            return None
        return float(value) if isinstance(value, (int, float)) else None

    def _detail(self, name: str) -> Any:
        return (self.status.details or {}).get(name)


class Watch:
    """The rows of a launch, read anew at each look; what is done is read once.

    `steps` may change between two looks.
    """

    def __init__(self, steps: Sequence[Step], store: Store) -> None:
        self._steps = steps
        self._store = store
        self._done: dict[str, Row] = {}

    def look(self) -> list[Row]:
        """The rows now, in the order of the plan."""
        return [self._row(step) for step in tuple(self._steps) if step.pending]

    def _row(self, step: Step) -> Row:
        key = step.run.key
        if key in self._done:
            return self._done[key]
        row = Row(step, self._status(step))
        # A run that is to be done again still has its old result until it is set aside.
        if row.state is State.DONE and not step.from_scratch:
            self._done[key] = row
        return row

    def _status(self, step: Step) -> Status:
        try:
            return self._store.run_dir(step.run.key).status(step.run.config.evaluation_key)
        except RecordError as error:
            return Status(State.FAILED, failure=error.failure, error=one_line(error))


# --------------------------------------------------------------------------- words


def time_left(rows: Sequence[Row]) -> float | None:
    """Seconds to the end of the launch: the work left at the present pace of all running runs."""
    pace = sum(row.gmacs_per_second for row in rows)
    if pace <= 0:
        return None
    return max([sum(row.gmacs_left for row in rows) / pace, *(row.eta or 0.0 for row in rows)])


def total_line(rows: Sequence[Row]) -> str:
    """`3/15 done, 2 running, 1 failed, 9 to do, 7 min left`."""
    states = Counter(row.state for row in rows)
    parts = [f"{states[State.DONE]}/{len(rows)} done"]
    parts += [f"{states[s]} {s.value}" for s in (State.RUNNING, State.FAILED) if states[s]]
    waiting = states[State.NEW] + states[State.INTERRUPTED]
    parts += [f"{waiting} to do"] if waiting else []
    left = time_left(rows)
    parts += [f"{duration(left)} left"] if left is not None else []
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`8 s`, `12 min`, `3.5 h`, `2.1 days`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _cells(row: Row) -> list[str]:
    return [
        row.step.run.label,
        str(row.step.run.seed),
        row.step.run.key,
        row.phase if row.state is not State.FAILED else f"failed: {row.status.failure}",
        f"{row.share:.0%}",
        _or_dash(row.rate, ",.0f"),
        _or_dash(row.data_wait, ".0%"),
        _or_dash(row.loss, ".3f"),
        "-" if row.eta is None else duration(row.eta),
    ]


# --------------------------------------------------------------------------- on a terminal


def render(rows: Sequence[Row], *, height: int) -> Table:
    """The table: running runs first, at most `height` rows, the others in one line, a total."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, caption=total_line(rows), caption_justify="left")
    table.add_column("run", overflow="ellipsis", no_wrap=True, ratio=1)
    table.add_column("seed", justify="right")
    table.add_column("key", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for head in ("done", "samples/s", "data wait", "loss", "left"):
        table.add_column(head, justify="right", no_wrap=True)
    ordered = sorted(rows, key=lambda row: _SHOWN_FIRST[row.state])
    room = len(rows) if len(rows) <= height else max(1, height - 1)
    for row in ordered[:room]:
        table.add_row(*_cells(row), style=_STYLES.get(row.state, ""))
    rest = Counter(row.state.value for row in ordered[room:])
    if rest:
        words = ", ".join(f"{count} {state}" for state, count in rest.items())
        table.add_row(f"and {words}", style="dim")
    return table


_STYLES = {State.DONE: "green", State.FAILED: "red", State.NEW: "dim", State.INTERRUPTED: "dim"}


@contextmanager
def _on_terminal(watch: Watch, console: Console) -> Iterator[Say]:
    from rich.live import Live

    def table() -> Table:
        return render(watch.look(), height=max(4, console.height - 6))

    with Live(get_renderable=table, console=console, refresh_per_second=1 / REFRESH_SECONDS):
        yield lambda line: console.print(line, markup=False, highlight=False)


# --------------------------------------------------------------------------- as lines


class Lines:
    """Prints a line whenever a run changes its state, and now and then how far the launch is."""

    def __init__(self, watch: Watch, out: TextIO, clock: Callable[[], float]) -> None:
        self._watch = watch
        self._out = out
        self._clock = clock
        self._states: dict[str, State] = {row.step.run.key: row.state for row in watch.look()}
        self._last_progress = clock()

    def say(self, line: str) -> None:
        """Print a line with the time of day before it."""
        print(f"{time.strftime('%H:%M:%S')} {line}", file=self._out, flush=True)

    def look(self) -> None:
        """Look at the files once and print what is new."""
        rows = self._watch.look()
        for row in rows:
            if self._states.get(row.step.run.key, State.NEW) is not row.state:
                self._states[row.step.run.key] = row.state
                self.say(change_line(row))
        if self._clock() - self._last_progress >= PROGRESS_SECONDS:
            self._last_progress = self._clock()
            self.say(progress_line(rows))


def change_line(row: Row) -> str:
    """`layers=4 seed 0 (1a2b3c4d5e6f): failed (killed): killed by SIGKILL; log: ...`."""
    line = f"{name_of(row.step)}: {row.state.value}"
    if row.state is State.FAILED:
        line += f" ({row.status.failure}): {row.status.error}"
        log = _log_of(row.status.details)
        line += f"; log: {log}" if log else ""
    return line


def progress_line(rows: Sequence[Row]) -> str:
    """The total, and the running runs with their share, pace and loss."""
    running = [
        f"{row.step.run.label} seed {row.step.run.seed} {row.share:.0%}"
        f" ({_or_dash(row.rate, ',.0f')} samples/s, loss {_or_dash(row.loss, '.3f')})"
        for row in rows
        if row.state is State.RUNNING
    ]
    return "; ".join([total_line(rows), *running])


def _log_of(details: Mapping[str, Any] | None) -> str | None:
    return None if details is None else details.get("log")


@contextmanager
def _as_lines(watch: Watch, out: TextIO) -> Iterator[Say]:
    lines = Lines(watch, out, time.monotonic)
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


@contextmanager
def watching(steps: Sequence[Step], store: Store) -> Iterator[Say]:
    """Show the pending runs of a plan until left; yields a function that prints a line beside."""
    watch = Watch(steps, store)
    if sys.stdout.isatty():
        from rich.console import Console

        with _on_terminal(watch, Console()) as say:
            yield say
    else:
        with _as_lines(watch, sys.stdout) as say:
            yield say
