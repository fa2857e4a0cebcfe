"""An executor on a cluster: each step a job of its own, submitted as soon as it is handed out.

For a launch that decides as it goes on, such as a search.  How a run is, its files say; the
scheduler is asked now and then for jobs that left its queue without a word.  What is in the queue
stays there when the launch is stopped or killed, and the next one takes it up.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from harness.config import RunConfig
from harness.errors import HarnessError, one_line
from harness.launch.base import Say, Source, Stop, name_of
from harness.launch.local import LocalExecutor, Slot
from harness.launch.slurm import scheduler
from harness.launch.slurm.freeze import freeze
from harness.launch.slurm.ledger import Submission, queued
from harness.launch.slurm.policy import why_stop
from harness.launch.slurm.scheduler import Silent
from harness.launch.slurm.submit import Order, check_time, submit
from harness.plan import Action, Step
from harness.record import RunDir, State, Status

LOOK_SECONDS = 2.0
"""Between two looks at the files of the runs that are in the queue."""
_TICK_SECONDS = 0.25


@dataclass(frozen=True)
class _Submitted:
    """A step in the queue, or running there."""

    step: Step
    submission: Submission
    since: float
    """When it was submitted or found there, by the clock of this process."""


class SlurmExecutor:
    """Submits whatever its source hands out, until the source is empty and all of it has ended.

    Args:
        order: for every submission; the code is frozen once, when the context is entered.
    """

    def __init__(self, order: Order, stop: Stop) -> None:
        self._order = order
        self._stop = stop
        self._there: dict[str, _Submitted] = {}
        self._waiting: list[Step] = []
        """Handed out, and not taken by the scheduler yet."""
        self._gone: set[str] = set()
        """Keys that the scheduler did not list when it was last asked."""
        self._asked = time.monotonic()
        self._try_again = float("-inf")
        """When the scheduler, which had no room, is to be tried next."""

    def __enter__(self) -> SlurmExecutor:
        scheduler.require()
        check_time(self._order.profile, self._order.runtime)
        frozen = self._order.frozen or freeze(self._order.store, self._order.sweep_file)
        self._order = replace(self._order, frozen=frozen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing of it runs on this machine."""

    def preflight(self, configs: Sequence[RunConfig]) -> list[str]:
        """See Executor; jobs with GPUs are not tried on this machine, which may have none."""
        if self._order.profile.gpus:
            return []
        runtime = self._order.runtime.model_copy(update={"device": "cpu"})
        order = self._order
        with LocalExecutor(order.store, runtime, [Slot(1)], self._stop, order.sweep_file) as here:
            return here.preflight(configs)

    # ---- launch

    def launch(self, source: Source, say: Say) -> None:
        """See Executor; a launch that is stopped leaves its jobs in the queue."""
        while not self._stop():
            while (step := source.take()) is not None:
                self._waiting.append(step)
            self._submit(source, say)
            if not self._there and not self._waiting and not len(source):
                return
            self._pause()
            self._look(source, say)
            source.look_elsewhere()
        say(f"stopping: {len(self._there)} runs stay in the queue or go on there")

    def _pause(self) -> None:
        until = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < until and not self._stop():
            time.sleep(_TICK_SECONDS)

    # ---- into the queue

    def _submit(self, source: Source, say: Say) -> None:
        """Hand the waiting steps to the scheduler; one that has no room is asked again later.

        Raises:
            HarnessError: it takes nothing, and nothing of this launch is in the queue.
        """
        if not self._waiting or (self._there and time.monotonic() < self._try_again):
            return
        steps = {step.run.key: step for step in self._waiting}
        later = time.monotonic() + scheduler.POLL_SECONDS
        try:
            done = submit([_to_run(step) for step in steps.values()], self._order, say)
        except HarnessError as error:
            if not self._there:
                raise
            self._try_again = later
            say(f"{one_line(error)}; {len(steps)} runs wait to be submitted")
            return
        there = {key: place.submission for key, place in done.places.items()}
        if done.submission is not None:
            there |= dict.fromkeys(done.keys, done.submission)
        self._waiting = [steps.pop(key) for key in done.left if key in steps]
        if self._waiting:
            self._try_again = later
        for key, step in steps.items():
            if key in there:
                self._there[key] = _Submitted(step, there[key], time.monotonic())
            elif self._status(step).state is State.RUNNING:
                source.held(step)
            else:
                source.ended(step, "disk_full")  # its intent could not be written, which was said

    # ---- out of it

    def _look(self, source: Source, say: Say) -> None:
        """Tell the source of the runs that have ended."""
        self._ask(say)
        for key, there in list(self._there.items()):
            try:
                ended, failure = self._how(there)
            except (HarnessError, OSError) as error:
                say(f"{name_of(there.step)} cannot be read: {one_line(error)}")
                ended, failure = True, "record"
            if ended:
                del self._there[key]
                self._gone.discard(key)
                source.ended(there.step, failure)

    def _how(self, there: _Submitted) -> tuple[bool, str | None]:
        """Whether the run has ended for good, and its failure."""
        directory = self._order.store.run_dir(there.step.run.key)
        status = self._status(there.step)
        if status.state is State.DONE:
            return True, None
        if status.state is State.RUNNING:
            return False, None
        if (reason := directory.stop_requested()) is not None:
            return True, reason
        if self._is_given_up(directory, there.submission):
            return True, status.failure or "bug"
        if there.step.run.key in self._gone:
            return True, status.failure or "killed"
        return False, None

    def _is_given_up(self, directory: RunDir, submission: Submission) -> bool:
        """Whether the job, which may start a run several times, is not to start it again."""
        ends = [e for e in directory.ends() if e.get("submission") == submission.folder.name]
        return why_stop(ends, self._order.profile) is not None

    def _ask(self, say: Say) -> None:
        """Ask the scheduler, if it is time, which of the runs it has still."""
        now = time.monotonic()
        if not self._there or now - self._asked < scheduler.POLL_SECONDS:
            return
        self._asked = now
        try:
            places = queued(self._order.store, scheduler.queue(), close=False)
        except Silent as error:
            say(str(error))
            return
        self._gone = {
            key
            for key, there in self._there.items()
            if key not in places and now - there.since >= LOOK_SECONDS
        }
        for key, there in self._there.items():
            task = places[key].task if key in places else None
            if task is not None and task.launch_failed:
                say(f"{name_of(there.step)}: {task.words}; the same command lets it begin")

    def _status(self, step: Step) -> Status:
        return self._order.store.run_dir(step.run.key).status(step.run.config.evaluation_key)


def _to_run(step: Step) -> Step:
    """A step that another launcher had when it was planned, and has no more."""
    return replace(step, action=Action.RESUME) if step.action is Action.ATTACH else step
