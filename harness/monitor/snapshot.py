"""How a run stands: one value, from its files, the clock, and its place in a scheduler's queue.

The files decide; the queue only tells why a run that does not go on is waiting.  Writes nothing
under the root, not even for a moment, so it serves somebody who may only read there.  Torch-free.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.config.sweep import Run
from harness.errors import RecordError, one_line, whole
from harness.files import open_regular
from harness.launch.slurm import scheduler
from harness.launch.slurm.places import (
    CANCELLED,
    DEAD,
    HELD,
    Departure,
    Departures,
    Queue,
    QueuePlace,
    look,
)
from harness.launch.slurm.submissions import submissions
from harness.planning.costs import training_gmacs
from harness.store.lease import ReadOnlyLease
from harness.store.record import RunDir, Store
from harness.store.state import State, Status
from harness.store.trials import PRUNED


class RunState(StrEnum):
    """How a run stands, in a word; those that ask for attention first."""

    RUNNING = "running"
    FAILED = "failed"
    DEAD = "dead"
    """Its job left the queue, and its files say nothing of that."""
    STALE = "stale"
    """It was running by its own last word, and nobody holds it."""
    HELD = "HELD"
    """The scheduler will not start it until somebody releases it, or the sweep holds it back."""
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    PRUNED = "pruned"
    STARTING = "starting"
    """Its job runs, and its files do not say so yet."""
    QUEUED = "queued"
    NEW = "new"
    DONE = "done"


ASK_SECONDS = 10.0
_GONE = {CANCELLED: RunState.CANCELLED, HELD: RunState.HELD, DEAD: RunState.DEAD}
_WAITING = frozenset({RunState.QUEUED, RunState.HELD, RunState.STARTING})
_TAIL_BYTES = 8192
#: Files that decide how a run stands; a lease, which tells by the clock, is not among them.
_FILES = ("result.json", "status.json", "stop.json", "ends.json", "provenance.json")


@dataclass(frozen=True)
class Spent:
    """Device time behind what a run has: work lost with a killed attempt is not in it."""

    seconds: float
    devices: int
    """GPUs, or cores of a CPU, that it had at a time."""
    on_gpu: bool

    @property
    def hours(self) -> float:
        """Hours of one device."""
        return self.seconds * self.devices / 3600


@dataclass(frozen=True)
class Finished:
    """What is shown of a result beside how it came about."""

    metrics: Mapping[str, float | None]
    final_loss: float | None
    time: float
    """When it was written, seconds of the epoch by the clock of the file system."""


@dataclass(frozen=True)
class RunSnapshot:
    """One run at this moment: its files, and its place in the queue if it has one."""

    run: Run
    status: Status
    place: QueuePlace | None = None
    ends: Mapping[str, int] = field(default_factory=dict)
    """What cut attempts short, class -> times."""
    stop: str | None = None
    """Why it was asked to stop."""
    spent: Spent | None = None
    finished: Finished | None = None
    departure: Departure | None = None
    """How it left the queue, of a run that never began."""

    @property
    def state(self) -> RunState:
        """How it stands, in a word."""
        own = RunState(self.status.state.value)
        again = own is RunState.FAILED and self.place is not None
        if own in {RunState.RUNNING, RunState.DONE, RunState.FAILED} and not again:
            return own
        if self.place is not None:
            words = "" if self.place.task is None else self.place.task.words.partition(" ")[0]
            in_queue = {"running": RunState.STARTING, "HELD": RunState.HELD}
            return in_queue.get(words, RunState.QUEUED)
        if self.stop is not None:
            return RunState.PRUNED if self.stop == PRUNED else RunState.CANCELLED
        if self.departure is not None:
            return _GONE[self.departure.how]
        fell_silent = self._detail("state") == State.RUNNING.value
        return RunState.STALE if own is RunState.INTERRUPTED and fell_silent else own

    @property
    def words(self) -> str:
        """The state, with why; while running what it is at: prepare, train, evaluate."""
        state = self.state
        if state is RunState.RUNNING:
            return str(self._detail("phase") or state)
        if state is RunState.FAILED:
            return f"failed: {self.failure}"
        text = str(state)
        if self.place is None and self.departure is not None and self.stop is None:
            text = f"{state}: {self.departure.why}"
        elif state in _WAITING:
            task = None if self.place is None else self.place.task
            unsure = self.place is not None and self.place.unsure
            text = "submitted without an answer" if unsure else "queued (the scheduler is silent)"
            text = text if task is None else task.words.replace("running", "starting")
        elif state is RunState.CANCELLED and self.stop is not None:
            text = self.stop
        counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in self.ends.items())
        return f"{text}; before: {counts}" if counts else text

    @property
    def failure(self) -> str:
        """The class of what a failed run died of."""
        return self.status.failure or "bug"

    @property
    def log(self) -> str | None:
        """The log that the run itself names."""
        log = self._detail("log")
        return None if log is None else str(log)

    @property
    def share(self) -> float:
        """Share of the samples that is done, in [0, 1]."""
        if self.status.state is State.DONE:
            return 1.0
        return min(1.0, self.status.samples_seen / self.run.config.train.samples)

    @property
    def rate(self) -> float | None:
        """Samples a second, while it trains."""
        return self._number("samples_per_second")

    @property
    def data_wait(self) -> float | None:
        """Share of the time spent waiting for pictures, in [0, 1]."""
        return self._number("data_wait")

    @property
    def left(self) -> float | None:
        """Seconds to the end of its training."""
        return self._number("eta_seconds")

    @property
    def loss(self) -> float | None:
        """The last total loss that was written down."""
        if self.finished is not None:
            return self.finished.final_loss
        return self._number("loss", running=False)

    @property
    def beat(self) -> float | None:
        """When it last said how it stands, seconds of the epoch."""
        if self.finished is not None:
            return self.finished.time
        return self._number("beat", running=False)

    @property
    def gmacs_left(self) -> float:
        """Work left, in GMACs of training; none for a failed run."""
        if self.status.state in {State.DONE, State.FAILED}:
            return 0.0
        left = max(0, self.run.config.train.samples - self.status.samples_seen)
        return training_gmacs(self.run.config, left)

    @property
    def gmacs_per_second(self) -> float:
        """Its pace, so that runs of different cost can be added up."""
        return (self.rate or 0.0) * training_gmacs(self.run.config, 1)

    def _number(self, name: str, *, running: bool = True) -> float | None:
        value = self._detail(name)
        if running and self.status.state is not State.RUNNING:
            return None
        return float(value) if isinstance(value, (int, float)) else None

    def _detail(self, name: str) -> Any:
        return (self.status.details or {}).get(name)


# --------------------------------------------------------------------------- several runs


@dataclass(frozen=True)
class Summary:
    """Several runs in a few numbers."""

    runs: int
    states: Mapping[RunState, int]
    reasons: Mapping[RunState, Mapping[str, int]]
    """Of failed runs the classes, of waiting ones what the scheduler says; each how often."""
    rate: float | None
    """Samples a second, of all that train."""
    left: float | None
    """Seconds to the end: the work left at the present pace of all running runs."""
    hours: Mapping[str, float]
    """`GPU-hours` and `core-hours` behind what the runs have."""
    beat: float | None

    @classmethod
    def of(cls, snapshots: Sequence[RunSnapshot]) -> Summary:
        """Of these runs; one that two sweeps share is for the caller to give once."""
        states = Counter(one.state for one in snapshots)
        reasons: dict[RunState, Counter[str]] = {}
        for one in snapshots:
            reason = _reason(one)
            if reason:
                reasons.setdefault(one.state, Counter())[reason] += 1
        rates = [one.rate for one in snapshots if one.rate is not None]
        return cls(
            runs=len(snapshots),
            states={state: states[state] for state in RunState if states[state]},
            reasons=reasons,
            rate=sum(rates) if rates else None,
            left=time_left(snapshots),
            hours=device_hours(snapshots),
            beat=max((one.beat for one in snapshots if one.beat is not None), default=None),
        )


def _reason(one: RunSnapshot) -> str | None:
    if one.state is RunState.FAILED:
        return one.failure
    waits = one.state in {RunState.QUEUED, RunState.HELD} and one.place is not None
    return one.place.task.reason if waits and one.place and one.place.task else None


def time_left(snapshots: Sequence[RunSnapshot]) -> float | None:
    """Seconds to the end of all; None while none of them trains."""
    pace = sum(one.gmacs_per_second for one in snapshots)
    if pace <= 0:
        return None
    longest = max(one.left or 0.0 for one in snapshots)
    return max(sum(one.gmacs_left for one in snapshots) / pace, longest)


def device_hours(snapshots: Iterable[RunSnapshot]) -> dict[str, float]:
    """`GPU-hours` and `core-hours`, a run that stands in two protocols counted once."""
    hours: dict[str, float] = {}
    for one in {one.run.key: one for one in snapshots}.values():
        if one.spent is not None:
            name = "GPU-hours" if one.spent.on_gpu else "core-hours"
            hours[name] = hours.get(name, 0.0) + one.spent.hours
    return hours


# --------------------------------------------------------------------------- reading


class SnapshotReader:
    """Looks at runs again and again; files that did not change are not read again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lives = ReadOnlyLease()
        self._departures = Departures(store)
        self._read_before: dict[tuple[str, str], tuple[Any, RunSnapshot]] = {}

    def read(
        self, runs: Sequence[Run], places: Mapping[str, QueuePlace] | None = None
    ) -> list[RunSnapshot]:
        """How each run stands now; `places` is where in the queue runs are, by key."""
        found = [self._look(run, (places or {}).get(run.key)) for run in runs]
        unplaced = {one.run.key for one in found if one.state is RunState.NEW}
        gone = self._departures.of(unplaced)
        return [
            replace(one, departure=gone[one.run.key]) if one.run.key in gone else one
            for one in found
        ]

    def _look(self, run: Run, place: QueuePlace | None) -> RunSnapshot:
        directory = self._store.run_dir(run.key)
        index = (run.key, run.evaluation_key)
        signs, before = self._read_before.get(index, (None, None))
        if before is not None and signs == (run.label, place, *_signs(directory, before)):
            return before
        files = _signs(directory)
        now = self._read(run, directory, place)
        if sign(directory.lease_file) is None:  # a lease goes stale by the clock
            signs = (run.label, place, *files[: len(_deciding(now))])
            self._read_before[index] = (signs, now)
        return now

    def _read(self, run: Run, directory: RunDir, place: QueuePlace | None) -> RunSnapshot:
        try:
            with whole(directory.path):
                return self._read_whole(run, directory, place)
        except (RecordError, OSError) as error:
            failed = Status(State.FAILED, failure=RecordError.failure, error=one_line(error))
            return RunSnapshot(run, failed, place)

    def _read_whole(self, run: Run, directory: RunDir, place: QueuePlace | None) -> RunSnapshot:
        written = sign(directory.result_file)
        status, result = directory.look(run.evaluation_key, lives=self._lives)
        if result is not None and written is not None and status.state is State.DONE:
            return _finished(run, status, place, result, written[0] / 1e9)
        spent = _spent(directory, status)
        if status.state is State.RUNNING:
            return RunSnapshot(run, status, place, spent=spent)
        ends = Counter(str(end["class"]) for end in directory.ends() if not end.get("final"))
        return RunSnapshot(run, status, place, ends, directory.stop_requested(), spent)


def _deciding(snapshot: RunSnapshot) -> Sequence[str]:
    """The files that may change how it stands: a finished run's result is the last word."""
    return _FILES[:1] if snapshot.status.state is State.DONE else _FILES


def _signs(
    directory: RunDir, before: RunSnapshot | None = None
) -> list[tuple[int, int, int] | None]:
    names = _FILES if before is None else _deciding(before)
    return [sign(directory.path / name) for name in names]


def sign(file: Path) -> tuple[int, int, int] | None:
    """What changes when `file` does; None when it is not there, or cannot be looked at."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _finished(
    run: Run, status: Status, place: QueuePlace | None, result: Mapping[str, Any], time: float
) -> RunSnapshot:
    training = result["training"]
    found = result["evaluations"][run.evaluation_key]["metrics"]
    values = {name: entry["value"] for name, entry in found.items()}
    finished = Finished(values, training.get("final_loss"), time)
    seconds = training["seconds"] + training.get("evaluation_seconds", 0.0)
    spent = _spent_of(seconds, training)
    return RunSnapshot(run, status, place, spent=spent, finished=finished)


def _spent(directory: RunDir, status: Status) -> Spent | None:
    seconds = _seconds(status) or _seconds_by_the_log(directory)
    attempts = directory.provenance()
    return _spent_of(seconds, attempts[-1]) if seconds and attempts else None


def _spent_of(seconds: float, about: Mapping[str, Any]) -> Spent:
    """`about` says on what: an entry of the result, or of the provenance."""
    processes = int(about.get("processes") or 1)
    on_gpu = about.get("device", "cpu") != "cpu"
    devices = processes if on_gpu else processes * int(about.get("threads") or 1)
    return Spent(float(seconds), devices, on_gpu)


def _seconds(status: Status) -> float | None:
    details = status.details or {}
    if details.get("seconds"):
        return float(details["seconds"])
    rate = details.get("samples_per_second")
    return status.samples_seen / rate if rate else None


def _seconds_by_the_log(directory: RunDir) -> float | None:
    """Seconds of training up to the last line of the training log; the file may be long."""
    try:
        with open_regular(directory.metrics_file) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            written = json.loads(line)
            return float(written["samples_seen"] / written["samples_per_second"])
        except (ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError):
            continue  # torn, or of another writer
    return None


# --------------------------------------------------------------------------- the queue


def queue_of(store: Store, say: Callable[[str], None]) -> Queue:
    """What is in the queue; the scheduler is asked once, and only if something may be."""
    if not any(submission.open for submission in submissions(store)):
        return Queue(None, "", (), {})
    queue = look(store, say, seconds=ASK_SECONDS)
    if not scheduler.installed():
        say("there is no SLURM here: what waits in its queue is not known")
    elif queue.fault:
        say(f"{queue.fault}: what waits in the queue is as it was submitted")
    return queue
