"""Steps of a plan to arrays in the queue: what is missing and not there already, in few calls.

Everything that a job needs is on disk before sbatch is called, under a name that finds the job
again; a run is in one live job at most, whoever types the command, and however often.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.errors import ConfigError, HarnessError, one_line
from harness.launch.backlog import Say, job_of, name_of, set_aside
from harness.launch.slurm import rehearse, scheduler, script
from harness.launch.slurm.freeze import Frozen, freeze, size_of_code
from harness.launch.slurm.frozen_check import fault_of
from harness.launch.slurm.limits import Limits, alive, limits
from harness.launch.slurm.orders import (
    JobOrder,
    Submitted,
    array_job,
    check_time,
    intent_of,
    report_job,
    safe_name,
)
from harness.launch.slurm.places import Queue, QueuePlace, look, take_out
from harness.launch.slurm.policy import bad_nodes
from harness.launch.slurm.scheduler import Listing, Silent
from harness.launch.slurm.script import BatchJob, Refused
from harness.launch.slurm.submissions import (
    REPORT,
    Array,
    Intent,
    Submission,
    folder_of,
    look_anew,
    look_anew_at,
    submitting,
)
from harness.planning.plan import Action, Step
from harness.store.lease import LeaseHeld
from harness.store.record import Store
from harness.store.state import State

_LOOK_AGAIN_SECONDS = 5.0
_RUN_BYTES = 32 << 10
"""Of a run's intent, in blocks of the file system, and its part of a submission."""


class NotWritten(HarnessError):
    """The file system does not take what a submission puts on file before it is one."""

    failure = "disk_full"
    exit_code = 3


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
        queue = look(order.store, say, close=True)
        if queue.listing is None:
            say(f"{queue.fault}; what was submitted before is taken to be in the queue")
        pending = [step for step in steps if step.pending]
        if order.move:
            take_out({step.run.key for step in pending}, queue.places, say)
        there = {s.run.key: queue.places[s.run.key] for s in pending if s.run.key in queue.places}
        wanted = [s for s in pending if s.action is not Action.ATTACH and s.run.key not in there]
        _check_room(order, len(wanted))
        wanted = [step for step in wanted if _prepared(step, order.store, say)]
        _release(there.values(), say)
        bounds = limits(order.profile)
        done = Submitted(None, {}, frozenset(), {})
        if wanted:
            done = _submit_fewer(wanted, order, bounds, queue.listing or Listing(), say)
        done = replace(done, places=there)
        return replace(done, report=_submit_report(order, done, queue, bounds, say))


def _written(order: JobOrder, intent: Intent) -> Submission:
    """The submission of `intent`, on disk."""
    submission = Submission(folder_of(order.store, order.sweep) / intent.id)
    submission.write(intent)
    return submission


def preview(steps: Sequence[Step], order: JobOrder) -> str:
    """The script of the first array, as it would be handed to sbatch; needs no SLURM."""
    check_time(order.profile, order.runtime)
    pending = [step for step in steps if step.pending] or list(steps)
    frozen = Frozen(order.store.root / "results" / "code" / "HASH", order.sweep_file, "HASH")
    submission = Submission(folder_of(order.store, order.sweep) / "ID")
    return script.script(array_job(intent_of(pending, order, frozen), submission, 0))


def _check_room(order: JobOrder, runs: int) -> None:
    """NotWritten where the file system has no room for the code and the runs' intents."""
    place = order.store.root / "results"
    wanted = runs * _RUN_BYTES + (0 if order.frozen is not None else size_of_code())
    free = shutil.disk_usage(place).free
    if runs and free < wanted:
        raise NotWritten(
            f"{place} has {free / 1e6:,.1f} MB free, and {wanted / 1e6:,.1f} MB are "
            f"wanted for the code and {runs} runs: free {(wanted - free) / 1e6:,.1f} MB, and for "
            "their checkpoints; nothing was submitted"
        )


def _release(places: Iterable[QueuePlace], say: Say) -> None:
    """Let jobs begin that SLURM holds since a node could not launch them: that was asked for."""
    own = (p.task for p in places if p.task is not None and p.owner == -1)
    jobs = sorted({task.job for task in own if task.launch_failed})
    if not jobs:
        return
    try:
        scheduler.release(jobs)
    except Silent as error:
        say(f"{len(jobs)} jobs are held since their launch failed ({error})")
    else:
        say(f"{len(jobs)} jobs that were held since their launch failed may begin")


def _prepared(step: Step, store: Store, say: Say) -> bool:
    """Whether the run's directory is ready for a job: what is to be made anew is set aside.

    Not that of a run which somebody has begun or finished since it was planned.
    """
    directory = store.run_dir(step.run.key)
    look_anew_at(directory)
    try:
        now = directory.status(step.run.config.evaluation_key).state
        if now in {State.RUNNING, State.DONE} and now is not step.status.state:
            return False
        if step.from_scratch and directory.path.exists():
            set_aside(directory)
        directory.write_intent(step.run.config, job_of(step.run))
    except LeaseHeld:
        return False
    except HarnessError as error:
        say(f"{name_of(step)} cannot be submitted: {error}")
        return False
    except OSError as error:  # the others would not fare better, and a part is worse than none
        told = f"{name_of(step)} cannot be submitted: {one_line(error)}"
        raise NotWritten(f"{told}; nothing was submitted") from error
    return True


def _submit_fewer(
    steps: Sequence[Step], order: JobOrder, limits: Limits, listing: Listing, say: Say
) -> Submitted:
    """Submit the steps, in fewer jobs of more runs each where sbatch finds them too many."""
    room = limits.room(listing, report=order.report is not None)
    if room is not None and room < 1:
        raise ConfigError(
            f"the queue takes {limits.jobs} jobs of yours and has {alive(listing)}: there is no "
            "room; the same command submits when there is"
        )
    while True:
        each = _runs_per_task(len(steps), order.profile.pack, room)
        jobs = -(-len(steps) // each)
        try:
            return _submit(steps, order, each, limits.array, say)
        except Refused as error:
            if order.rehearse or not error.too_many:
                raise
            if jobs == 1:
                raise Refused(f"{error}; the same command submits when there is room") from None
            room = jobs // 2
            say(f"{error}: not {jobs} jobs, tried with {room}")


def _submit(
    steps: Sequence[Step], order: JobOrder, per_task: int, array_size: int, say: Say
) -> Submitted:
    frozen = order.frozen or freeze(order.store, order.sweep_file)
    if fault := fault_of(str(frozen.path), frozen.sha256):
        raise HarnessError(f"frozen code is not run: {fault}; submit the sweep anew")
    rehearsal = _submit_rehearsal(steps, order, frozen) if order.rehearse else None
    intent = intent_of(steps, order, frozen, per_task, array_size)
    submission = _written(order, intent)
    failed = bad_nodes(end for s in steps for end in order.store.run_dir(s.run.key).ends())
    exclude = scheduler.avoidable(failed, intent.profile.partition)
    jobs: dict[str, str] = {}
    left: tuple[str, ...] = ()
    for number, array in enumerate(intent.arrays):
        job = replace(
            array_job(intent, submission, number),
            after=tuple(jobs[name] for name in array.after if name in jobs),
            only_after=() if rehearsal is None else (rehearsal,),
            exclude=exclude,
        )
        try:
            jobs[array.name] = _sbatch(job)
        except (Refused, Silent) as error:
            if not jobs:
                if isinstance(error, Refused):
                    shutil.rmtree(submission.folder)
                raise
            rest = [key for each in intent.arrays[number:] for task in each.tasks for key in task]
            left = (str(error), *rest)
            say(f"{error}; {len(left) - 1} runs are left for the same command, or the report job")
            break
        submission.note_job(number, jobs[array.name])
    arrays = {jobs[a.name]: len(a.tasks) for a in intent.arrays if a.name in jobs}
    keys = frozenset(intent.keys - set(left))
    return Submitted(submission, arrays, keys, {}, None, left, rehearsal)


def _submit_rehearsal(steps: Sequence[Step], order: JobOrder, frozen: Frozen) -> str:
    """The number of the job in which the runs of `steps` are rehearsed."""
    runs = rehearse.short_runs(step.run for step in steps)
    intent = intent_of((), replace(order, report=None), frozen)
    store = rehearse.store_of(order.store, intent.id)
    name = f"{intent.sweep}-{intent.id}-{rehearse.SUFFIX}"
    array = Array(safe_name(name), (tuple(run.key for run in runs),))
    intent = replace(intent, arrays=(array,), root=str(store.root), rehearsal=True)
    for run in runs:
        store.run_dir(run.key).write_intent(run.config, job_of(run))
    submission = _written(order, intent)
    try:
        number = _sbatch(array_job(intent, submission, 0))
    except Refused:
        shutil.rmtree(submission.folder)
        raise
    submission.note_job(0, number)
    return number


def _runs_per_task(runs: int, pack: int, room: int | None) -> int:
    """When the queue takes fewer tasks than there are runs, a task has several, in turn."""
    least = pack if room is None else max(pack, -(-runs // room))
    return -(-least // pack) * pack


def _sbatch(job: BatchJob) -> str:
    """Submit a job; when sbatch does not answer, look whether it was taken before a second try."""
    try:
        return script.submit(job)
    except Silent:
        time.sleep(_LOOK_AGAIN_SECONDS)
        number = scheduler.queue().job_id(job.name)
        return number if number is not None else script.submit(job)


# --------------------------------------------------------------------------- the report


def _submit_report(
    order: JobOrder, done: Submitted, queue: Queue, limits: Limits, say: Say
) -> str | None:
    """The number of a job that writes the report, where none waits for all the wanted runs.

    It belongs to the sweep and not to an array: it waits for every job that any of them is in,
    whoever put it in the queue.
    """
    there = {place.number for place in done.places.values() if place.number is not None}
    after = sorted({*done.arrays, *there}, key=int)
    if order.report is None or not after:
        return None
    home = done.submission or _report_home(order, done, queue, after)
    return None if home is None else _follow(home, after, limits, say)


def _follow(submission: Submission, after: Sequence[str], limits: Limits, say: Say) -> str | None:
    try:
        number = _sbatch(report_job(submission, after, limits))
    except (Refused, Silent) as error:
        say(f"no report job: {error}; the same command submits one, or writes the report itself")
        return None
    submission.note_job(REPORT, number, after)
    return number


def _report_home(
    order: JobOrder, done: Submitted, queue: Queue, after: Sequence[str]
) -> Submission | None:
    """A submission of the sweep that has lost its report job, else a new one of no run.

    None where a report job waits for all the jobs `after`, or may do.
    """
    if queue.listing is None:
        return None
    lost: Submission | None = None
    for submission in queue.submissions:
        intent = submission.read()
        if not intent.is_mine or intent.sweep != order.sweep or intent.report is None:
            continue
        if not queue.listing.has(intent.report):
            lost = submission
        elif submission.report_waits_for() >= {*after}:
            return None
    if lost is not None:
        return lost
    frozen = order.frozen or freeze(order.store, order.sweep_file)
    intent = replace(intent_of((), order, frozen), awaits=tuple(sorted(done.places)))
    return _written(order, intent)


def submit_missing_report(submission: Submission, say: Say) -> None:
    """From the last job of a submission, where sbatch took no report job when it was made.

    One that was taken and is gone was cancelled, and is not made again.
    """
    intent = submission.read()
    look_anew(submission.folder)
    if intent.report is None or submission.job(REPORT) is not None:
        return
    with submitting(intent.store):
        queue = look(intent.store, say)
        own = [p for p in queue.places.values() if p.submission.folder == submission.folder]
        if queue.listing is None or queue.listing.has(intent.report):
            return
        alone = {p.number for p in own if p.number and p.lacks_report_of(intent.sweep)}
        after = sorted(alone, key=int)
        number = _follow(submission, after, limits(intent.profile), say) if after else None
        if number is not None:
            say(f"job {number} writes the report: there was none")
