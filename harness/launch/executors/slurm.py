"""Runs as jobs of a SLURM cluster, each followed by what its files say of it.

A sweep is submitted as arrays, and the command is over unless it is told to stay.  Of a search, or
whatever else decides as it goes on, each step is a job of its own, submitted as soon as it is
handed out; the scheduler is asked now and then for jobs that left its queue without a word.  What
is in the queue stays there when a launch is stopped or killed, and the next one takes it up.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from harness.config import RunConfig
from harness.errors import ConfigError, HarnessError, one_line, user_name
from harness.launch.backlog import Say, StepSource, name_of
from harness.launch.executor import EXECUTORS, SHARE, SLOTS, Assignment, Executor, Option, Watching
from harness.launch.executors.local import LocalExecutor
from harness.launch.processes import Stop
from harness.launch.profiles import DEFAULT, load_profile
from harness.launch.slots import Capacity, Slot, cores_of_a_job
from harness.launch.slurm import scheduler, script
from harness.launch.slurm.freeze import freeze
from harness.launch.slurm.orders import (
    JobOrder,
    Submitted,
    check_not_held,
    check_time,
    with_environment,
    with_processes,
)
from harness.launch.slurm.places import QueuePlace, look
from harness.launch.slurm.policy import why_stop
from harness.launch.slurm.submissions import AFTER, Submission, look_anew_at
from harness.launch.slurm.submit import preview, submit
from harness.planning.plan import Action, Rerun, Step
from harness.store.record import RunDir
from harness.store.state import State, Status

LOOK_SECONDS = 2.0
"""Between two looks at the files of the runs that are in the queue."""
TRIALS_IN_QUEUE = 8
"""At a time, of a search: the more there are, the less each knows of the others."""
_TICK_SECONDS = 0.25

PROFILE = Option("--profile", "what a job asks for (profiles.toml)", {"metavar": "NAME"})
PACK = Option("--pack", "runs side by side in one job", {"type": int, "metavar": "K"})
NODES = Option("--nodes", "nodes of a job, which train one run", {"type": int, "metavar": "N"})
GPUS = Option("--gpus", "GPUs of a job on each node", {"type": int, "metavar": "G"})
REHEARSE = Option("--rehearse", "each distinct run for 20 steps first", {"action": "store_true"})
FOLLOWING = Option(AFTER, "submit what follows from the submission in DIR", {"metavar": "DIR"})
MOVE = Option("--move", "submit anew what waits in the queue", {"action": "store_true"})
WATCH = Option("--watch", "stay, and report in the end", {"action": "store_true"})


@dataclass(frozen=True)
class _Queued:
    """A step in the queue, or running there."""

    step: Step
    submission: Submission
    since: float
    """When it was submitted or found there, by the clock of this process."""


@EXECUTORS.register("slurm")
class SlurmExecutor(Executor):
    """Submits whatever its source hands out, until the source is empty and all of it has ended.

    Args:
        work: for every submission; the code is frozen once, when the context is entered.
        trials: of a search, in the queue at a time.
        stay: until the runs of a sweep are over.
        before: keys of the runs that the next ones follow from: with one of them left there is
            nothing to follow yet.
    """

    options = (SLOTS, PROFILE, PACK, SHARE, NODES, GPUS, REHEARSE, MOVE, WATCH, FOLLOWING)
    work: JobOrder

    def __init__(
        self,
        work: JobOrder,
        stop: Stop | None = None,
        *,
        trials: int = TRIALS_IN_QUEUE,
        stay: bool = False,
        before: Collection[str] = (),
    ) -> None:
        super().__init__(work, stop)
        self._trials = trials
        self._stay = stay
        self._before = before
        self._there: dict[str, _Queued] = {}
        self._waiting: list[Step] = []
        """Handed out, and not taken by the scheduler yet."""
        self._gone: set[str] = set()
        """Keys that the scheduler did not list when it was last asked."""
        self._asked = time.monotonic()
        self._try_again = float("-inf")
        """When the scheduler, which had no room, is to be tried next."""

    @classmethod
    def of(cls, work: Assignment, args: Namespace) -> Self:
        """See Executor."""
        if (folder := FOLLOWING.value(args)) is not None:
            return cls._following(Submission(Path(folder)))
        changes = {option.name: option.value(args) for option in (PACK, SHARE, NODES, GPUS)}
        profile = load_profile(PROFILE.value(args), **changes)
        profile = with_environment(profile, lambda line: print(line, file=sys.stderr))
        runtime = with_processes(profile, work.runtime, given="processes" in work.given)
        slots = SLOTS.value(args)
        if slots is not None and not work.search:
            raise ConfigError("--slots is for --executor local; --pack is SLURM's")
        for option in (REHEARSE, PACK, SHARE, MOVE) if work.search else ():
            if profile.pack > 1 if option is PACK else option.value(args):
                raise ConfigError(f"{option.flag} is for a list of runs; {work.sweep} is a search")
        trials = min(profile.parallel, TRIALS_IN_QUEUE) if slots is None else int(slots)
        if trials < 1:
            raise ConfigError(f"--slots {trials}: at least one slot is wanted")
        order = JobOrder(
            **{**vars(work), "runtime": runtime, "share_data": profile.share_data},
            profile=profile,
            profile_name=PROFILE.value(args) or DEFAULT,
            rehearse=bool(REHEARSE.value(args)),
            move=bool(MOVE.value(args)),
        )
        return cls(order, trials=trials, stay=bool(WATCH.value(args)))

    @classmethod
    def _following(cls, submission: Submission) -> Self:
        intent = submission.read()
        if not submission.is_own():
            raise ConfigError(f"{submission.folder} is not a submission of yours")
        return cls(JobOrder.again(intent), before=intent.keys | set(intent.awaits))

    @property
    def side_by_side(self) -> int:
        """See Executor."""
        return self.work.profile.pack

    def capacity(self, runs: int) -> Capacity:
        """See Executor."""
        profile, runtime = self.work.profile, self.work.runtime
        slots = max(1, min(runs, profile.pack * profile.parallel))
        on_gpu, pace = profile.gpus > 0, profile.pace(runtime.processes)
        cores = cores_of_a_job(runtime, profile.cpus, on_gpu=on_gpu)
        return Capacity(self._trials if self.work.search else slots, cores, on_gpu, pace)

    def script(self, steps: Sequence[Step]) -> str:
        """See Executor."""
        what = "a trial" if self.work.search else "the first array"
        text = preview(steps, self.work)
        said = script.verdict(text)
        asked = "" if said is None else f"\n\nthe scheduler says of it: {said}"
        return f"the sbatch script of {what} would be:\n\n{text}{asked}"

    # ---- a sweep

    def carry_out(
        self,
        steps: Sequence[Step],
        put_on_file: Callable[[], None],
        watching: Watching,
        rerun: Rerun,
    ) -> int | None:
        """See Executor; unless it is to stay, the command is over when all is in the queue."""
        scheduler.require()
        put_on_file()
        pending = [step for step in steps if step.pending]
        if not pending or any(step.run.key in self._before for step in pending):
            return None
        check_not_held(self.work.store, self.work.sweep, rerun)
        submitted = submit(steps, self.work, lambda line: print(line, file=sys.stderr))
        for line in words(submitted, self.work):
            print(line)
        if not self._stay:
            return submitted.exit_code
        self._follow(pending, watching)
        return None

    def _follow(self, steps: Sequence[Step], watching: Watching) -> None:
        """Stay until none of these is in the queue or running; the files say how far they are."""
        places: dict[str, QueuePlace] = {}
        with watching(steps, self.work.store, lambda: places) as say:
            while not {self._status(step).state for step in steps} <= {State.DONE, State.FAILED}:
                time.sleep(scheduler.POLL_SECONDS)
                queue = look(self.work.store, by_number=True)
                if queue.listing is None:
                    say(queue.fault)
                    continue
                places = queue.places
                running = any(self._status(step).state is State.RUNNING for step in steps)
                if not running and not any(step.run.key in places for step in steps):
                    break
        for step in steps:
            look_anew_at(self.work.store.run_dir(step.run.key))  # a report follows

    # ---- steps handed out one by one

    def __enter__(self) -> Self:
        scheduler.require()
        check_time(self.work.profile, self.work.runtime)
        frozen = self.work.frozen or freeze(self.work.store, self.work.sweep_file)
        self.work = replace(self.work, frozen=frozen)
        return self

    def preflight(self, configs: Sequence[RunConfig]) -> list[str]:
        """See Executor; jobs with GPUs are not tried on this machine, which may have none."""
        if self.work.profile.gpus:
            return []
        runtime = self.work.runtime.model_copy(update={"device": "cpu"})
        with LocalExecutor(replace(self.work, runtime=runtime), self.stop, [Slot(1)]) as here:
            return here.preflight(configs)

    def launch(self, source: StepSource, say: Say) -> None:
        """See Executor; a launch that is stopped leaves its jobs in the queue."""
        while not self.stop():
            while (step := source.take()) is not None:
                self._waiting.append(step)
            self._submit(source, say)
            if not self._there and not self._waiting and not len(source):
                return
            until = time.monotonic() + LOOK_SECONDS
            while time.monotonic() < until and not self.stop():
                time.sleep(_TICK_SECONDS)
            self._look(source, say)
            source.look_elsewhere()
        say(f"stopping: {len(self._there)} runs stay in the queue or go on there")

    # ---- into the queue

    def _submit(self, source: StepSource, say: Say) -> None:
        """Hand the waiting steps to the scheduler; one that has no room is asked again later.

        Raises:
            HarnessError: it takes nothing, and nothing of this launch is in the queue.
        """
        if not self._waiting or (self._there and time.monotonic() < self._try_again):
            return
        steps = {step.run.key: step for step in self._waiting}
        later = time.monotonic() + scheduler.POLL_SECONDS
        try:
            done = submit([_to_run(step) for step in steps.values()], self.work, say)
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
                self._there[key] = _Queued(step, there[key], time.monotonic())
            else:
                self._not_submitted(step, source)

    def _not_submitted(self, step: Step, source: StepSource) -> None:
        """Somebody else has begun or finished it, or its directory cannot be trusted (was said)."""
        try:
            state = self._status(step).state
        except (HarnessError, OSError):
            state = State.FAILED
        if state is State.RUNNING:
            source.held(step)
        else:
            source.ended(step, None if state is State.DONE else "record")

    # ---- out of it

    def _look(self, source: StepSource, say: Say) -> None:
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

    def _how(self, there: _Queued) -> tuple[bool, str | None]:
        """Whether the run has ended for good, and its failure."""
        directory = self.work.store.run_dir(there.step.run.key)
        gone = directory.key in self._gone
        if gone:
            look_anew_at(directory)  # its last word may be there, and not be seen
        status = self._status(there.step)
        if status.state is State.DONE:
            return True, None
        if status.state is State.RUNNING:
            return False, None
        if (reason := directory.stop_requested()) is not None:
            return True, reason
        if self._is_given_up(directory, there.submission):
            return True, status.failure or "bug"
        if gone:
            return True, status.failure or "killed"
        return False, None

    def _is_given_up(self, directory: RunDir, submission: Submission) -> bool:
        """Whether the job, which may start a run several times, is not to start it again."""
        ends = [e for e in directory.ends() if e.get("submission") == submission.folder.name]
        return why_stop(ends, self.work.profile) is not None

    def _ask(self, say: Say) -> None:
        """Ask the scheduler, if it is time, which of the runs it has still."""
        now = time.monotonic()
        if not self._there or now - self._asked < scheduler.POLL_SECONDS:
            return
        self._asked = now
        queue = look(self.work.store, by_number=True)
        if queue.listing is None:
            say(queue.fault)
            return
        places = queue.places
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
        return self.work.store.run_dir(step.run.key).status(step.run.config.evaluation_key)


def _to_run(step: Step) -> Step:
    """A step that another launcher had when it was planned, and has no more."""
    return replace(step, action=Action.RESUME) if step.action is Action.ATTACH else step


# --------------------------------------------------------------------------- words


def words(submitted: Submitted, order: JobOrder) -> list[str]:
    """What was submitted, what was there already, and what to type next."""
    lines = _there(submitted)
    if submitted.submission is None:
        lines.append("nothing to submit")
        lines += _differing(submitted, order)
    else:
        arrays = ", ".join(f"{job} ({count} jobs)" for job, count in submitted.arrays.items())
        lines.append(f"submitted {len(submitted.keys)} runs of {order.sweep}: array {arrays}")
        if submitted.rehearsal is not None:
            lines.append(f"they wait for job {submitted.rehearsal}, the rehearsal, to go well")
    if submitted.report is not None:
        folder = order.store.root / "reports" / order.sweep
        lines.append(f"report job {submitted.report} follows them: {folder / 'report.md'}")
    here = "" if order.store.root.samefile(".") else f" --root {order.store.root}"
    status = f"python -m harness.status {order.sweep}{here}"
    return [
        *lines,
        f"how they are:        {status}",
        f"what a run printed:  {status} --logs KEY",
        f"call them off:       {status} --cancel --all",
        "what was left over:  the same command again",
    ]


def _there(submitted: Submitted) -> list[str]:
    """What of the runs was there before, why it waits, and whose it is."""
    places = [place for place in submitted.places.values() if not place.unsure]
    tasks = [place.task for place in places]
    running = sum(task is not None and task.state == "RUNNING" for task in tasks)
    counts = {"running": running, "queued": len(places) - running}
    lines = [f"there already: {', '.join(f'{n} {what}' for what, n in counts.items() if n)}"]
    lines = lines if places else []
    why = Counter(task.reason for task in tasks if task is not None and task.state != "RUNNING")
    lines += [f"what they wait for:  {n} x {reason}" for reason, n in why.items() if reason]
    others = Counter(place.owner for place in places if place.owner != -1)
    lines += [
        f"{count} of them are jobs of {user_name(owner)}, whose runs they stay"
        for owner, count in others.items()
    ]
    if submitted.unsure:
        lines.append(
            f"{submitted.unsure} runs were handed to sbatch, which gave no answer: whether they "
            "are queued is not known; the same command asks when the scheduler answers"
        )
    return lines


def _differing(submitted: Submitted, order: JobOrder) -> list[str]:
    """That runs wait with another profile than the one that was asked for."""
    intents = [place.submission.read() for place in submitted.places.values() if place.waits]
    names = Counter(
        intent.profile_name or "of another name"
        for intent in intents
        if intent.profile != order.profile
    )
    return [
        f"{count} of them wait with profile {name} and not {order.profile_name}: {MOVE.flag} takes "
        "them out of the queue and submits them anew"
        for name, count in names.items()
    ]
