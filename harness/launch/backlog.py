"""The runs of a launch that are still to be started, and what an executor asks of them.

The truth about a run is in its directory, so the backlog asks the files before each start: another
launcher may have taken the run, finished it or died.  Knows no process, no GPU and no scheduler.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from harness.config import RunConfig, Runtime
from harness.config.sweep import Run
from harness.data.pictured import PictureSpec
from harness.errors import ConfigError, HarnessError, one_line
from harness.planning.costs import NOMINAL_GMACS_PER_SECOND, training_gmacs
from harness.planning.plan import TRANSIENT, Step
from harness.store.lease import Lease, LeaseHeld
from harness.store.record import RunDir, Store
from harness.store.state import State, Status

POLL_SECONDS = 2.0
"""Between two looks at the files of a run that another launcher holds."""
RETRY_AT_ONCE = frozenset({"killed", "interrupted"})
"""Failures that say nothing against the run: tried once more in the same launch, after the rest."""

Say = Callable[[str], None]


class StepSource(Protocol):
    """Where an executor gets its steps from, one at a time, and to whom it tells how they ended."""

    def __len__(self) -> int:
        """How many steps may still come, those handed out not counted; 0: no more ever."""

    def take(self) -> Step | None:
        """The step to start now, its intent on disk; None if there is none at the moment."""

    def held(self, step: Step) -> None:
        """Another launcher runs this step."""

    def ended(self, step: Step, failure: str | None) -> None:
        """This step ended, well if `failure` is None."""

    def look_elsewhere(self) -> None:
        """Look at what changes without being told; called often, so it limits itself."""


# --------------------------------------------------------------------------- cost


def estimate(step: Step) -> float:
    """Seconds left of a step in one slot: the plan's, else at the nominal speed of a CPU core."""
    if step.seconds is not None:
        return step.seconds
    left = max(0, step.run.config.train.samples - step.status.samples_seen)
    return training_gmacs(step.run.config, left) / NOMINAL_GMACS_PER_SECOND


# --------------------------------------------------------------------------- runs that see the same


def stream_of(config: RunConfig) -> str:
    """The same for runs that see the same pictures, as far as configurations tell."""
    return PictureSpec.of(config, Runtime()).key


def those_alike_together(steps: Sequence[Step]) -> list[Step]:
    """Steps in their order, but that those whose runs see the same pictures follow the first."""
    groups: dict[str, list[Step]] = {}
    for step in steps:
        groups.setdefault(stream_of(step.run.config), []).append(step)
    return [step for group in groups.values() for step in group]


# --------------------------------------------------------------------------- the backlog


class Backlog:
    """The runs of one launch that are not running in it: those to start, those held elsewhere.

    A run that needs another's weights is not handed out while that one is in the launch, and
    given up when it left without a result.

    Args:
        intended: the intents are on disk already, and a run that was asked to stop since then is
            not begun; else a launch is the wish that it run.
        alike: runs that see the same pictures are started together.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        store: Store,
        say: Say,
        *,
        intended: bool = False,
        alike: bool = False,
    ) -> None:
        parents = {key for step in steps if step.pending for key in step.waits_for}
        pending = sorted(
            (step for step in steps if step.pending),
            key=lambda step: (step.run.key in parents, estimate(step)),
            reverse=True,
        )
        pending = those_alike_together(pending) if alike else pending
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
        """Whether a parent of it may yet get a result; ConfigError when one has none and no hope.

        A parent that is to be made anew has its old result until it is handed out.
        """
        if not step.waits_for:
            return False
        coming = {other.run.key for other in (*self._to_start, *waiting)}
        coming |= self._handed_out | set(self._elsewhere)
        for key in step.waits_for:
            parent = self._store.run_dir(key)
            if key not in coming and parent.result() is None:
                raise ConfigError(f"its parent {key} {parent.status().how}")
        return not coming.isdisjoint(step.waits_for)

    def _prepare(self, step: Step) -> bool:
        status = self._status(step)
        if status.state is State.RUNNING:
            self.held(step)
            return False
        directory = self._store.run_dir(step.run.key)
        if step.from_scratch and self._is_as_planned(step):
            set_aside(directory, lambda: self._is_as_planned(step))
        elif status.state is State.DONE or _failed_for_good(status):
            return False
        if self._intended:
            return directory.stop_requested() is None
        directory.write_intent(step.run.config, job_of(step.run))
        return True

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


def set_aside(directory: RunDir, still: Callable[[], bool] = lambda: True) -> None:
    """Move a run that is to be made anew out of the way, if it is `still` the one that was meant.

    Raises LeaseHeld when somebody runs it.
    """
    with Lease(directory.lease_file):
        if still():
            RunDir(directory.set_aside()).lease_file.unlink(missing_ok=True)


def job_of(run: Run) -> dict[str, Any]:
    """Why a run's directory exists: what its job.json says."""
    source = {} if run.source is None else {"sweep": asdict(run.source)}
    return {"label": run.label, "seed": run.seed, "command": shlex.join(sys.argv), **source}


def _failed_for_good(status: Status) -> bool:
    return status.state is State.FAILED and status.failure not in TRANSIENT


def name_of(step: Step) -> str:
    """`layers=4 seed 0 (1a2b3c4d5e6f)`."""
    return f"{step.run.label} seed {step.run.seed} ({step.run.key})"
