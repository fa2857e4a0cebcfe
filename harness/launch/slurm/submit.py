"""Steps of a plan to arrays in the queue: what is missing and not there already, in few calls.

Everything that a job needs is on disk before sbatch is called, under a name that finds the job
again; a run is in one live job at most, whoever types the command, and however often.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from harness.config import Runtime
from harness.config.pipes import check_pipes
from harness.errors import ConfigError, HarnessError, refuse_controls
from harness.launch.backlog import Say, estimate, job_of, name_of, set_aside
from harness.launch.executor import Assignment
from harness.launch.profiles import Profile
from harness.launch.slurm import rehearse, scheduler, script
from harness.launch.slurm.freeze import Frozen, freeze
from harness.launch.slurm.frozen_check import fault_of
from harness.launch.slurm.policy import bad_nodes
from harness.launch.slurm.scheduler import Limits, Listing, Silent
from harness.launch.slurm.script import BatchJob, Refused
from harness.launch.slurm.submissions import (
    REPORT,
    Array,
    Intent,
    QueuePlace,
    Submission,
    folder_of,
    newest,
    queued,
    submitting,
)
from harness.planning.plan import Action, Rerun, Step
from harness.store.lease import LeaseHeld
from harness.store.record import Store

REPORT_SECONDS = 3600
REPORT_MEMORY = "4G"
_LOOK_AGAIN_SECONDS = 5.0


class HeldBack(HarnessError):
    """The sweep holds itself back: its first tasks died of the same error."""

    exit_code = 3


@dataclass(frozen=True)
class JobOrder(Assignment):
    """An assignment that is to be submitted, and how.

    Attributes:
        rehearse: whether a rehearsal must go well first.
        frozen: the code that is to run; None: that of the calling process, as it is now.
        round: how many submissions before this one followed each other by themselves.
    """

    profile: Profile = field(default_factory=Profile)
    rehearse: bool = False
    frozen: Frozen | None = None
    round: int = 0

    @classmethod
    def again(cls, intent: Intent) -> JobOrder:
        """That of an earlier submission, with the code that it had."""
        file = None if intent.sweep_file is None else Path(intent.sweep_file)
        return cls(
            store=Store(Path(intent.root)),
            runtime=intent.runtime,
            sweep=intent.sweep,
            sweep_file=file,
            report=intent.report_command or None,
            profile=intent.profile,
            frozen=Frozen(Path(intent.code), file, intent.code_sha256),
            round=intent.round,
            waves=intent.waves,
        )


@dataclass(frozen=True)
class Submitted:
    """What came of an order.

    Attributes:
        submission: None if nothing had to be submitted.
        arrays: number of each array -> how many jobs it has.
        places: where in the queue the runs are that were there before.
        left: runs that sbatch did not take, and its words.
    """

    submission: Submission | None
    arrays: Mapping[str, int]
    keys: frozenset[str]
    places: Mapping[str, QueuePlace]
    report: str | None = None
    left: tuple[str, ...] = ()
    rehearsal: str | None = None


# --------------------------------------------------------------------------- checks


def with_processes(profile: Profile, runtime: Runtime, *, given: bool) -> Runtime:
    """`runtime` with a process for each GPU of a job, unless the number is the user's word.

    Raises:
        ConfigError: the processes of a run cannot be spread over the nodes.
    """
    if profile.pack > 1 and profile.nodes > 1:
        raise ConfigError(
            f"pack = {profile.pack} with nodes = {profile.nodes}: several runs side by side are "
            "for one node"
        )
    processes = runtime.processes
    if not given and profile.pack == 1:
        processes = profile.nodes * max(1, profile.gpus)
    if processes % profile.nodes:
        raise ConfigError(
            f"runtime.processes = {processes} cannot be spread over nodes = {profile.nodes}"
        )
    return runtime.model_copy(update={"processes": processes})


def check_time(profile: Profile, runtime: Runtime) -> None:
    """ConfigError when the time limit leaves no room for a single checkpoint."""
    room = profile.time - profile.warning_seconds
    if room < runtime.checkpoint_seconds:
        raise ConfigError(
            f"time = {profile.time_text(profile.time)} with {profile.warning_seconds} s to save "
            f"in leaves {room} s, less than one checkpoint interval (runtime.checkpoint_seconds "
            f"= {runtime.checkpoint_seconds:g}): such a run never ends"
        )


def check_not_held(store: Store, sweep: str, rerun: Rerun) -> None:
    """HeldBack, saying why, until failed runs are asked for again."""
    last = newest(store, sweep)
    reason = None if last is None else last.held()
    if reason is not None and rerun not in {Rerun.FAILED, Rerun.ALL}:
        raise HeldBack(
            f"{sweep} holds itself back: {reason}; when that is mended, the same command with "
            "--rerun failed goes on"
        )


# --------------------------------------------------------------------------- submission


def submit(steps: Sequence[Step], order: JobOrder, say: Say) -> Submitted:
    """Put the pending steps in the queue that are not there already.

    Raises:
        NoScheduler, Refused, Silent: nothing was submitted.
        ConfigError: the time limit is too short, or the queue has no room.
    """
    scheduler.require()
    check_time(order.profile, order.runtime)
    with submitting(order.store):
        listing = _listing(say)
        places = queued(order.store, listing)
        wanted = [
            step
            for step in steps
            if step.pending and step.action is not Action.ATTACH and step.run.key not in places
        ]
        wanted = [step for step in wanted if _prepared(step, order.store, say)]
        there = {s.run.key: places[s.run.key] for s in steps if s.pending and s.run.key in places}
        _release(there.values(), say)
        if not wanted:
            return Submitted(None, {}, frozenset(), there)
        limits = scheduler.limits(order.profile.qos)
        return replace(_submit(wanted, order, limits, listing, say), places=there)


def preview(steps: Sequence[Step], order: JobOrder) -> str:
    """The script of the first array, as it would be handed to sbatch; needs no SLURM."""
    check_time(order.profile, order.runtime)
    pending = [step for step in steps if step.pending] or list(steps)
    frozen = Frozen(order.store.root / "results" / "code" / "HASH", order.sweep_file, "HASH")
    intent = _intent(pending, order, frozen, Limits(), Listing())
    submission = Submission(folder_of(order.store, order.sweep) / "ID")
    return script.script(_job_of(intent, submission, 0, frozen, (), ()))


def _listing(say: Say) -> Listing | None:
    try:
        return scheduler.queue()
    except Silent as error:
        say(f"{error}; what was submitted before is taken to be in the queue")
        return None


def _release(places: Iterable[QueuePlace], say: Say) -> None:
    """Let jobs begin that SLURM holds since a node could not launch them: that was asked for."""
    jobs = sorted({p.task.job for p in places if p.task is not None and p.task.launch_failed})
    if not jobs:
        return
    try:
        scheduler.release(jobs)
    except Silent as error:
        say(f"{len(jobs)} jobs are held since their launch failed ({error})")
    else:
        say(f"{len(jobs)} jobs that were held since their launch failed may begin")


def _prepared(step: Step, store: Store, say: Say) -> bool:
    """Whether the run's directory is ready for a job: what is to be made anew is set aside."""
    directory = store.run_dir(step.run.key)
    try:
        if step.from_scratch and directory.path.exists():
            set_aside(directory)
        directory.write_intent(step.run.config, job_of(step.run))
    except LeaseHeld:
        return False
    except (HarnessError, OSError) as error:
        say(f"{name_of(step)} cannot be submitted: {error}")
        return False
    return True


def _submit(
    steps: Sequence[Step], order: JobOrder, limits: Limits, listing: Listing | None, say: Say
) -> Submitted:
    frozen = order.frozen or freeze(order.store, order.sweep_file)
    if fault := fault_of(str(frozen.path), frozen.sha256):
        raise HarnessError(f"frozen code is not run: {fault}; submit the sweep anew")
    rehearsal = _submit_rehearsal(steps, order, frozen) if order.rehearse else None
    intent = _intent(steps, order, frozen, limits, listing or Listing())
    submission = Submission(folder_of(order.store, order.sweep) / intent.id)
    submission.write(intent)
    failed = bad_nodes(end for s in steps for end in order.store.run_dir(s.run.key).ends())
    exclude = scheduler.avoidable(failed, intent.profile.partition)
    jobs: dict[str, str] = {}
    left: tuple[str, ...] = ()
    for number, array in enumerate(intent.arrays):
        after = tuple(jobs[name] for name in array.after if name in jobs)
        try:
            job = _job_of(intent, submission, number, frozen, after, exclude)
            only_after = () if rehearsal is None else (rehearsal,)
            job_id = _sbatch(replace(job, only_after=only_after))
        except (Refused, Silent) as error:
            if not jobs:
                if isinstance(error, Refused):
                    shutil.rmtree(submission.folder)
                raise
            left = (str(error), *_keys(intent.arrays[number:]))
            say(f"{error}; {len(left) - 1} runs are left for the same command to submit")
            break
        jobs[array.name] = job_id
        submission.note_job(number, job_id)
    report = _submit_report(intent, submission, frozen, tuple(jobs.values()), say)
    arrays = {jobs[a.name]: len(a.tasks) for a in intent.arrays if a.name in jobs}
    keys = frozenset(intent.keys - set(left))
    return Submitted(submission, arrays, keys, {}, report, left, rehearsal)


def _submit_rehearsal(steps: Sequence[Step], order: JobOrder, frozen: Frozen) -> str:
    """The number of the job in which the runs of `steps` are rehearsed."""
    runs = rehearse.short_runs(step.run for step in steps)
    blank = replace(order, report=None)
    intent = _intent([], blank, frozen, Limits(), Listing())
    store = rehearse.store_of(order.store, intent.id)
    name = f"{intent.sweep}-{intent.id}-{rehearse.SUFFIX}"
    array = Array(_safe(name), (tuple(run.key for run in runs),))
    intent = replace(intent, arrays=(array,), root=str(store.root), rehearsal=True)
    for run in runs:
        store.run_dir(run.key).write_intent(run.config, job_of(run))
    submission = Submission(folder_of(order.store, order.sweep) / intent.id)
    submission.write(intent)
    try:
        number = _sbatch(_job_of(intent, submission, 0, frozen, (), ()))
    except Refused:
        shutil.rmtree(submission.folder)
        raise
    submission.note_job(0, number)
    return number


def _keys(arrays: Sequence[Array]) -> list[str]:
    return [key for array in arrays for task in array.tasks for key in task]


def _intent(
    steps: Sequence[Step], order: JobOrder, frozen: Frozen, limits: Limits, listing: Listing
) -> Intent:
    now = datetime.now()  # to the microsecond: submissions are ordered by it
    refuse_controls("the working directory", os.getcwd())
    own_id = f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    name = _safe(f"{order.sweep}-{own_id}")
    report = order.report is not None
    return Intent(
        id=own_id,
        sweep=order.sweep,
        arrays=_arrays(steps, order.profile.pack, limits, listing, name, report=report),
        profile=order.profile,
        runtime=order.runtime,
        root=str(order.store.root),
        code=str(frozen.path),
        sweep_file=None if frozen.sweep is None else str(frozen.sweep),
        cwd=os.getcwd(),
        command=shlex.join(sys.argv),
        created=round(now.timestamp(), 3),
        report=f"{name}-{REPORT}" if report else None,
        report_command=tuple(
            str(frozen.sweep) if word == str(order.sweep_file) else word
            for word in order.report or ()
        ),
        round=order.round,
        by={"host": socket.gethostname(), "pid": os.getpid(), "uid": os.getuid()},
        code_sha256=frozen.sha256,
        waves=order.waves,
        pipes=tuple(dict.fromkeys(p for s in steps for p in check_pipes(s.run.config.data.path))),
    )


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _arrays(
    steps: Sequence[Step],
    pack: int,
    limits: Limits,
    listing: Listing,
    name: str,
    *,
    report: bool,
) -> tuple[Array, ...]:
    """Runs of similar length share a task; those that need another's weights come after it.

    When the queue takes fewer tasks than there are runs, a task has several, one after the other.
    """
    here = {step.run.key for step in steps}
    waves = [[s for s in steps if here.isdisjoint(s.waits_for) is first] for first in (True, False)]
    per_task = _runs_per_task(len(steps), pack, limits, listing, report=report)
    arrays: list[Array] = []
    for wave in waves:
        after = tuple(array.name for array in arrays)
        longest_first = sorted(wave, key=estimate, reverse=True)
        keys = [step.run.key for step in longest_first]
        tasks = [tuple(keys[i : i + per_task]) for i in range(0, len(keys), per_task)]
        for first in range(0, len(tasks), limits.array):
            chunk = tuple(tasks[first : first + limits.array])
            arrays.append(Array(f"{name}-{len(arrays)}", chunk, after))
    return tuple(arrays)


def _runs_per_task(runs: int, pack: int, limits: Limits, listing: Listing, *, report: bool) -> int:
    if limits.jobs is None:
        return pack
    there = sum(not task.over for tasks in listing.jobs.values() for task in tasks.values())
    room = limits.jobs - there - int(report)
    if room < 1:
        raise ConfigError(
            f"the queue takes {limits.jobs} jobs of yours and has {there}: there is no room; the "
            "same command submits when there is"
        )
    least = -(-runs // room)
    return -(-max(pack, least) // pack) * pack


def _job_of(
    intent: Intent,
    submission: Submission,
    number: int,
    frozen: Frozen,
    after: tuple[str, ...],
    exclude: tuple[str, ...],
) -> BatchJob:
    array, profile = intent.arrays[number], intent.profile
    module = "harness.launch.slurm.supervisor"
    command = ("-m", module, str(submission.folder), str(number), "--sha256", intent.sha256)
    several_nodes = profile.nodes > 1
    processes = intent.runtime.processes // profile.nodes if several_nodes else 1
    cpus = profile.cpus if several_nodes else profile.cpus * intent.runtime.processes * profile.pack
    return BatchJob(
        name=array.name,
        command=command,
        afterwards=(*command, "--after"),
        profile=profile.model_copy(update={"cpus": cpus}),
        frozen=frozen,
        cwd=intent.cwd,
        logs=submission.logs,
        count=len(array.tasks),
        processes=processes,
        after=after,
        exclude=exclude,
    )


def _submit_report(
    intent: Intent, submission: Submission, frozen: Frozen, jobs: tuple[str, ...], say: Say
) -> str | None:
    """The number of the job that writes the report when `jobs` are over, whatever came of them."""
    if intent.report is None or not jobs:
        return None
    profile = intent.profile
    light: dict[str, object] = {"gpus": 0, "nodes": 1, "cpus": 1, "pack": 1}
    light |= {"time": REPORT_SECONDS, "memory": profile.memory and REPORT_MEMORY}
    if profile.report_partition is not None:
        light |= {"partition": profile.report_partition, "qos": None, "constraint": None}
    job = BatchJob(
        name=intent.report,
        command=(
            *("-m", "harness.launch.slurm.report_job", str(submission.folder)),
            *("--sha256", intent.sha256),
        ),
        profile=profile.model_copy(update=light),
        frozen=frozen,
        cwd=intent.cwd,
        logs=submission.logs,
        after=jobs,
    )
    try:
        number = _sbatch(job)
    except (Refused, Silent) as error:
        say(f"no report job: {error}; the same command writes the report when the runs are done")
        return None
    submission.note_job(REPORT, number)
    return number


def _sbatch(job: BatchJob) -> str:
    """Submit a job; when sbatch does not answer, look whether it was taken before a second try."""
    try:
        return script.submit(job)
    except Silent:
        time.sleep(_LOOK_AGAIN_SECONDS)
        number = scheduler.queue().job_id(job.name)
        return number if number is not None else script.submit(job)
