"""What every executor shares: the protocol, the backlog of a launch, and stopping.

The truth about a run is in its directory, so the backlog asks the files before each start: another
launcher may have taken the run, finished it or died.  Knows no process, no GPU and no scheduler.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Any, Protocol

from harness.config import RunConfig
from harness.costs import NOMINAL_GMACS_PER_SECOND, training_gmacs
from harness.errors import ConfigError, HarnessError, one_line
from harness.lease import Lease, LeaseHeld
from harness.plan import TRANSIENT, Step
from harness.record import RunDir, State, Status, Store, read_json
from harness.space import Run

POLL_SECONDS = 2.0
"""Between two looks at the files of a run that another launcher holds."""
RETRY_AT_ONCE = frozenset({"killed", "interrupted"})
"""Failures that say nothing against the run: tried once more in the same launch, after the rest."""
INSIST_SECONDS = 1.0
"""A second signal this much later means it; an earlier one is a wrapper's copy of the first."""

Say = Callable[[str], None]


class Source(Protocol):
    """Where an executor gets its steps from, one at a time, and to whom it tells how they ended."""

    def __len__(self) -> int:
        """How many steps may still come, those handed out not counted; 0: no more ever."""
        ...

    def take(self) -> Step | None:
        """The step to start now, its intent on disk; None if there is none at the moment."""
        ...

    def held(self, step: Step) -> None:
        """Another launcher runs this step."""
        ...

    def ended(self, step: Step, failure: str | None) -> None:
        """This step ended, well if `failure` is None."""
        ...

    def look_elsewhere(self) -> None:
        """Look at what changes without being told; called often, so it limits itself."""
        ...


class Executor(AbstractContextManager[Any], Protocol):
    """Runs what a plan left pending; leaving the context ends every process it started."""

    def preflight(self, configs: Sequence[RunConfig]) -> list[str]:
        """One line for each thing that would make a run fail at its start; starts no run."""
        ...

    def launch(self, source: Source, say: Say) -> None:
        """Run every step there is; return when there are no more or a stop was asked for.

        `say` prints a line for what no run's file can tell.  A run that fails, or whose process
        dies, leaves its record in its directory and never ends the launch.
        """
        ...


# --------------------------------------------------------------------------- stopping


class Stop:
    """A flag that signal handlers raise and everybody else only reads."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Whether a stop was asked for: what a run calls between two steps."""
        return self.asked

    def ask(self) -> None:
        """Ask for a stop; from now on calling the flag gives true."""
        self.asked = True


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM raise `stop`; when repeated they raise KeyboardInterrupt."""
    first: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        stop.ask()
        first.append(time.monotonic())
        if first[-1] - first[0] > INSIST_SECONDS:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# --------------------------------------------------------------------------- cost


def estimate(step: Step) -> float:
    """Seconds left of a step in one slot: the plan's, else at the nominal speed of a CPU core."""
    if step.seconds is not None:
        return step.seconds
    left = max(0, step.run.config.train.samples - step.status.samples_seen)
    return training_gmacs(step.run.config, left) / NOMINAL_GMACS_PER_SECOND


# --------------------------------------------------------------------------- failures


def record_failure(
    directory: RunDir,
    evaluation_key: str,
    *,
    attempt: int,
    since: float,
    failure: str,
    error: str,
) -> None:
    """File a failure that the run could not file itself (it was killed, or never began).

    Nothing is written if the run recorded a failure of its own after `since` (seconds of the
    epoch), or is done.  Raises LeaseHeld when somebody has taken the run over already.
    """
    with Lease(directory.lease_file):
        written = read_json(directory.status_file) or {}
        recorded = written.get("state") == State.FAILED.value and written["beat"] >= since
        if recorded or directory.status(evaluation_key).state is State.DONE:
            return
        directory.write_status(
            State.FAILED,
            failure=failure,
            error=error,
            attempt=attempt,
            samples_seen=int(written.get("samples_seen", 0)),
            log=str(directory.log_file(attempt)),
        )


# --------------------------------------------------------------------------- the backlog


class Backlog:
    """The runs of one launch that are not running in it: those to start, those held elsewhere.

    A run that starts from another's weights is not handed out while that one is in the launch, and
    given up when it left without a result.

    Args:
        intended: the intents are on disk already, and a run that was asked to stop since then is
            not begun; else a launch is the wish that it run.
    """

    def __init__(
        self, steps: Sequence[Step], store: Store, say: Say, *, intended: bool = False
    ) -> None:
        parents = {step.waits_for for step in steps if step.pending}
        pending = sorted(
            (step for step in steps if step.pending),
            key=lambda step: (step.run.key in parents, estimate(step)),
            reverse=True,
        )
        self._store = store
        self._say = say
        self._intended = intended
        self._to_start = deque(pending)
        self._elsewhere: dict[str, Step] = {}
        self._handed_out: set[str] = set()
        self._retried: Counter[str] = Counter()
        self._planned_inodes = {step.run.key: self._inode(step) for step in pending}
        self._next_look = 0.0

    def __len__(self) -> int:
        return len(self._to_start) + len(self._elsewhere)

    def __contains__(self, key: object) -> bool:
        return any(step.run.key == key for step in (*self._to_start, *self._elsewhere.values()))

    def add(self, step: Step) -> None:
        """One more pending step, to come last."""
        self._planned_inodes[step.run.key] = self._inode(step)
        self._to_start.append(step)

    def take(self) -> Step | None:
        """The longest run to start now, its intent on disk; None if there is none at the moment."""
        waiting: list[Step] = []
        try:
            while self._to_start:
                step = self._to_start.popleft()
                try:
                    if self._waits(step, waiting):
                        waiting.append(step)
                    elif self._prepare(step):
                        self._handed_out.add(step.run.key)
                        return step
                except LeaseHeld:
                    self.held(step)
                except (HarnessError, OSError) as error:
                    self._say(f"{name_of(step)} cannot be started: {one_line(error)}")
            return None
        finally:
            self._to_start.extendleft(reversed(waiting))

    def held(self, step: Step) -> None:
        """Another launcher runs this step: wait for it, and take it over should it die."""
        self._handed_out.discard(step.run.key)
        self._elsewhere[step.run.key] = step

    def ended(self, step: Step, failure: str | None) -> None:
        """This step ended, well if `failure` is None.

        One that failed comes up once more, last, if the failure was not its own doing.
        """
        self._handed_out.discard(step.run.key)
        if failure in RETRY_AT_ONCE and not self._retried[step.run.key]:
            self._retried[step.run.key] += 1
            self._to_start.append(step)

    def look_elsewhere(self) -> None:
        """Look at the runs that others hold, at most every `POLL_SECONDS`."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + POLL_SECONDS
        for key, step in list(self._elsewhere.items()):
            try:
                status = self._status(step)
            except (HarnessError, OSError) as error:
                self._say(f"{name_of(step)} cannot be read: {one_line(error)}")
                del self._elsewhere[key]
                continue
            if status.state is not State.RUNNING:
                del self._elsewhere[key]
                self._freed(step, status)

    def _freed(self, step: Step, status: Status) -> None:
        if self._store.run_dir(step.run.key).stop_requested() is not None:
            return  # it was called off while the other one had it
        if status.state is State.FAILED:
            self.ended(step, status.failure or "bug")
        elif status.state is not State.DONE:
            self._to_start.append(step)

    def _waits(self, step: Step, waiting: Sequence[Step]) -> bool:
        """Whether the step's parent may yet get a result; ConfigError when it has none and no hope.

        A parent that is to be made anew has its old result until it is handed out.
        """
        key = step.waits_for
        if key is None:
            return False
        in_launch = {other.run.key for other in (*self._to_start, *waiting)}
        if key in in_launch | self._handed_out | set(self._elsewhere):
            return True
        parent = self._store.run_dir(key)
        if parent.result() is None:
            raise ConfigError(f"its parent {key} {parent.status().how}")
        return False

    def _prepare(self, step: Step) -> bool:
        status = self._status(step)
        if status.state is State.RUNNING:
            self.held(step)
            return False
        directory = self._store.run_dir(step.run.key)
        if step.from_scratch and self._is_as_planned(step):
            self._set_aside(step, directory)
        elif status.state is State.DONE or _failed_for_good(status):
            return False
        if self._intended:
            return directory.stop_requested() is None
        directory.write_intent(step.run.config, job_of(step.run))
        return True

    def _set_aside(self, step: Step, directory: RunDir) -> None:
        with Lease(directory.lease_file):
            if self._is_as_planned(step):
                moved = RunDir(directory.set_aside())
                moved.lease_file.unlink(missing_ok=True)

    def _is_as_planned(self, step: Step) -> bool:
        """Whether the directory is the one the plan saw: another launcher may have moved it."""
        inode = self._inode(step)
        return inode is not None and inode == self._planned_inodes[step.run.key]

    def _inode(self, step: Step) -> int | None:
        try:
            return os.stat(self._store.run_dir(step.run.key).path).st_ino
        except FileNotFoundError:
            return None

    def _status(self, step: Step) -> Status:
        return self._store.run_dir(step.run.key).status(step.run.config.evaluation_key)


def job_of(run: Run) -> dict[str, Any]:
    """Why a run's directory exists: what its job.json says."""
    source = {} if run.source is None else {"sweep": asdict(run.source)}
    return {"label": run.label, "seed": run.seed, "command": shlex.join(sys.argv), **source}


def _failed_for_good(status: Status) -> bool:
    return status.state is State.FAILED and status.failure not in TRANSIENT


def name_of(step: Step) -> str:
    """`layers=4 seed 0 (1a2b3c4d5e6f)`."""
    return f"{step.run.label} seed {step.run.seed} ({step.run.key})"
