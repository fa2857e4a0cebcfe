"""How the runs of a sweep stand: what their files say, and their places in a scheduler's queue.

What a command that shows runs and a page that does share.  Writes nothing under the root, not even
for a moment, so it serves somebody who may only read there.  Torch-free.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import RecordError, one_line
from harness.launch.slurm import scheduler
from harness.launch.slurm.ledger import Place, queued, submissions
from harness.launch.slurm.scheduler import Silent
from harness.launch.watch import Row, duration, time_left
from harness.lease import Onlooker
from harness.plan import Action, Step
from harness.record import RunDir, State, Status, Store, read_json
from harness.space import Run

#: The states, those that ask for attention first.
ORDER = (
    "running",
    "failed",
    "stale",
    "HELD",
    "interrupted",
    "cancelled",
    "pruned",
    "starting",
    "queued",
    "new",
    "done",
)
ASK_SECONDS = 10.0
_PRUNED = "pruned"
_TAIL_BYTES = 8192
#: Files of a run that decide how it stands; a lease, which tells by the clock, is not among them.
_FILES = ("result.json", "status.json", "stop.json", "ends.json", "provenance.json")
#: Those that do in a state, the first of the above: a finished run's result is the last word.
_FILES_OF = {State.DONE: _FILES[:1]}


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
class Known:
    """One run: its files, and its place in the queue if it has one."""

    row: Row
    place: Place | None
    ends: Mapping[str, int]
    stop: str | None
    spent: Spent | None = None
    finished: Finished | None = None

    @property
    def loss(self) -> float | None:
        """The last total loss that was written down."""
        return self.row.loss if self.finished is None else self.finished.final_loss

    @property
    def beat(self) -> float | None:
        """When it last said how it stands, seconds of the epoch."""
        if self.finished is not None:
            return self.finished.time
        beat = (self.row.status.details or {}).get("beat")
        return float(beat) if isinstance(beat, (int, float)) else None

    @property
    def state(self) -> str:
        """One word: what `ORDER` lists."""
        if self.row.state in {State.RUNNING, State.DONE, State.FAILED} and not self._goes_on:
            return self.row.state.value
        if self.place is not None and self.place.task is not None:
            words = self.place.task.words.partition(" ")[0]
            return {"running": "starting", "HELD": "HELD"}.get(words, "queued")
        if self.place is not None:
            return "queued"
        if self.stop is not None:
            return _PRUNED if self.stop == _PRUNED else "cancelled"
        if self._fell_silent:
            return "stale"
        return self.row.state.value

    @property
    def _goes_on(self) -> bool:
        """Whether a failed run is in the queue again."""
        return self.row.state is State.FAILED and self.place is not None

    @property
    def _fell_silent(self) -> bool:
        """Whether it was running by its own last word, and nobody holds it now."""
        last = (self.row.status.details or {}).get("state")
        return self.row.state is State.INTERRUPTED and last == State.RUNNING.value

    @property
    def words(self) -> str:
        """The state, with why."""
        state = self.state
        if state == "running":
            return self.row.phase
        if state == "failed":
            return f"failed: {self.row.status.failure or 'bug'}"
        if state in {"queued", "HELD", "starting"}:
            text = "queued (the scheduler is silent)"
            if self.place is not None and self.place.task is not None:
                text = self.place.task.words.replace("running", "starting")
        elif state == "cancelled":
            text = str(self.stop)
        else:
            text = state
        counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in self.ends.items())
        return f"{text}; before: {counts}" if counts else text


class Lookout:
    """Looks at runs again and again; files that did not change are not read again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lives = Onlooker()
        self._known: dict[tuple[str, str], tuple[Any, Known]] = {}

    def know(self, runs: Sequence[Run], places: Mapping[str, Place]) -> list[Known]:
        """What is known of each run now."""
        return [self._look(run, places.get(run.key)) for run in runs]

    def _look(self, run: Run, place: Place | None) -> Known:
        directory = self._store.run_dir(run.key)
        index = (run.key, run.evaluation_key)
        before = self._known.get(index)
        if before is not None and before[0] == (run.label, place, *_signs(directory, before[1])):
            return before[1]
        files = _signs(directory)
        known = self._read(run, directory, place)
        signs = (run.label, place, *files[: len(_FILES_OF.get(known.row.state, _FILES))])
        if sign(directory.lease_file) is None:  # a lease goes stale by the clock
            self._known[index] = (signs, known)
        return known

    def _read(self, run: Run, directory: RunDir, place: Place | None) -> Known:
        try:
            status = directory.status(run.evaluation_key, lives=self._lives)
            row = _row(run, status)
            if status.state is State.DONE:
                return _finished(directory, row, place)
            spent = _spent(directory, status)
            if status.state is State.RUNNING:
                return Known(row, place, {}, None, spent)
            ends = Counter(str(end["class"]) for end in directory.ends() if not end.get("final"))
            return Known(row, place, ends, directory.stop_requested(), spent)
        except (RecordError, OSError) as error:
            return _unreadable(run, place, one_line(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"{directory.path} holds a record that is not whole ({one_line(error)})"
            return _unreadable(run, place, text)


def _unreadable(run: Run, place: Place | None, error: str) -> Known:
    status = Status(State.FAILED, failure=RecordError.failure, error=error)
    return Known(_row(run, status), place, {}, None)


def _row(run: Run, status: Status) -> Row:
    return Row(Step(run, status, Action.SKIP, "", None), status)


def _signs(directory: RunDir, known: Known | None = None) -> list[tuple[int, int, int] | None]:
    """What changes when how the run stands does."""
    names = _FILES if known is None else _FILES_OF.get(known.row.state, _FILES)
    return [sign(directory.path / name) for name in names]


def sign(file: Path) -> tuple[int, int, int] | None:
    """What changes when `file` does; None when it is not there, or cannot be looked at."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _finished(directory: RunDir, row: Row, place: Place | None) -> Known:
    time, result = directory.result_file.stat().st_mtime, directory.result()
    if result is None:
        raise RecordError(f"{directory.result_file} was taken away")
    training = result["training"]
    found = result["evaluations"][row.step.run.evaluation_key]["metrics"]
    values = {name: entry["value"] for name, entry in found.items()}
    finished = Finished(values, training.get("final_loss"), time)
    seconds = training["seconds"] + training.get("evaluation_seconds", 0.0)
    return Known(row, place, {}, None, _spent_of(seconds, training), finished)


# --------------------------------------------------------------------------- device time


def _spent(directory: RunDir, status: Status) -> Spent | None:
    seconds = _seconds(status) or _seconds_by_the_log(directory)
    attempts = (read_json(directory.path / "provenance.json") or {"attempts": []})["attempts"]
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
        with directory.metrics_file.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            written = json.loads(line)
            return float(written["samples_seen"] / written["samples_per_second"])
        except (ValueError, KeyError, TypeError, ZeroDivisionError):
            continue  # torn, or of another writer
    return None


def device_hours(known: Iterable[Known]) -> dict[str, float]:
    """`GPU-hours` and `core-hours` behind what the runs have, a run of two sweeps counted once."""
    hours: dict[str, float] = {}
    once = {one.row.step.run.key: one for one in known}
    for one in once.values():
        if one.spent is not None:
            name = "GPU-hours" if one.spent.on_gpu else "core-hours"
            hours[name] = hours.get(name, 0.0) + one.spent.hours
    return hours


# --------------------------------------------------------------------------- the queue


def places_in_queue(store: Store, say: Callable[[str], None]) -> dict[str, Place]:
    """Where in the queue runs are; the scheduler is asked once, and only if something may be."""
    if not any(submission.open for submission in submissions(store)):
        return {}
    if not scheduler.installed():
        say("there is no SLURM here: what waits in its queue is not known")
        return queued(store, None)
    try:
        return queued(store, scheduler.queue(seconds=ASK_SECONDS), close=False)
    except Silent as error:
        say(f"{error}: what waits in the queue is as it was submitted")
        return queued(store, None)


# --------------------------------------------------------------------------- words


def total(known: Sequence[Known]) -> str:
    """`3/15 done, 2 running, 1 failed (bug), 9 queued (Priority); 812 samples/s, 7 min left`."""
    counts = Counter(one.state for one in known)
    parts = [f"{counts.pop('done', 0)}/{len(known)} done"]
    for state in ORDER:
        if counts[state]:
            parts.append(f"{counts[state]} {state}{_reasons(known, state)}")
    rates = [one.row.rate for one in known if one.row.rate is not None]
    left = time_left([one.row for one in known])
    more = [f"{sum(rates):,.0f} samples/s"] if rates else []
    more += [f"{duration(left)} left at this pace"] if left else []
    more += [f"{hours:.3g} {name}" for name, hours in device_hours(known).items()]
    return ", ".join(parts) + ("; " + ", ".join(more) if more else "")


def _reasons(known: Iterable[Known], state: str) -> str:
    if state == "failed":
        reasons = [one.row.status.failure or "bug" for one in known if one.state == state]
    elif state in {"queued", "HELD"}:
        tasks = [one.place.task for one in known if one.state == state and one.place is not None]
        reasons = [task.reason for task in tasks if task is not None and task.reason]
    else:
        return ""
    names = ", ".join(dict.fromkeys(reasons))
    return f" ({names})" if names else ""


def node_of(directory: RunDir) -> str | None:
    """Where the last attempt of a run was, or is."""
    written = read_json(directory.path / "provenance.json")
    if written is None or not written["attempts"]:
        return None
    last = written["attempts"][-1]
    return str(last.get("slurm", {}).get("node") or last.get("host", "")) or None


# --------------------------------------------------------------------------- logs


def log_files(store: Store, directory: RunDir) -> list[Path]:
    """What the attempts of a run printed, the last one last; its job if the run never began."""
    files = sorted((directory.path / "logs").glob("attempt-*.txt"), key=_touched)
    return files or _job_logs(store, directory.key)


def _touched(file: Path) -> float:
    return file.stat().st_mtime


def _job_logs(store: Store, key: str) -> list[Path]:
    found: list[Path] = []
    for submission in submissions(store):
        for number, array in enumerate(submission.read().arrays):
            job = submission.job(number)
            for index, keys in enumerate(array.tasks):
                if key in keys and job is not None:
                    found += sorted(submission.logs.glob(f"{job}_{index}_*_log.out"))
    return found
