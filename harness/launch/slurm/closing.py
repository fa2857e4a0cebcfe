"""The job that writes a sweep's report: one that waits for every job any wanted run is in.

It belongs to the sweep and not to an array: the command that finds none in the queue that waits for
all of them submits one, whoever put the runs there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.launch.backlog import Say
from harness.launch.profiles import Profile
from harness.launch.slurm.limits import Limits
from harness.launch.slurm.orders import JobOrder, Submitted
from harness.launch.slurm.places import Queue
from harness.launch.slurm.scheduler import Silent
from harness.launch.slurm.script import BatchJob, Refused
from harness.launch.slurm.submissions import REPORT, Submission

REPORT_SECONDS = 3600
REPORT_MEMORY = "4G"
#: Of a profile's own options of sbatch, those that ask for nothing a report does not need.
_LIGHT_EXTRA = frozenset(
    {"comment", "get-user-env", "licenses", "mail-type", "mail-user", "nice", "priority", "wckey"}
)


def waited_for(done: Submitted) -> tuple[str, ...]:
    """Numbers of the jobs that wanted runs are in, which were there before or are new."""
    there = {place.number for place in done.places.values() if place.number is not None}
    return tuple(sorted({*done.arrays, *there}, key=int))


def report_home(
    order: JobOrder, done: Submitted, queue: Queue, new: Callable[[], Submission]
) -> Submission | None:
    """The submission whose report job is to be submitted; None when nothing lacks one.

    That is the one just made, else one of the sweep that has lost its own, else a `new` one.
    """
    if order.report is None or not waited_for(done):
        return None
    if done.submission is not None:
        return done.submission
    if queue.listing is None:
        return None  # one may be there
    lost: Submission | None = None
    for submission in queue.submissions:
        intent = submission.read()
        if not intent.is_mine or intent.sweep != order.sweep or intent.report is None:
            continue
        if not queue.listing.has(intent.report):
            lost = submission
        elif submission.report_waits_for() >= set(waited_for(done)):
            return None
    return lost or new()


def follow(
    submission: Submission,
    after: Sequence[str],
    limits: Limits,
    send: Callable[[BatchJob], str],
    say: Say,
) -> str | None:
    """The number of the job that writes the report when the jobs `after` are over."""
    intent = submission.read()
    frozen = JobOrder.again(intent).frozen
    assert frozen is not None
    job = BatchJob(
        name=str(intent.report),
        command=(
            *("-m", "harness.launch.slurm.report_job", str(submission.folder)),
            *("--sha256", intent.sha256),
        ),
        profile=_light(intent.profile, limits),
        frozen=frozen,
        cwd=intent.cwd,
        logs=submission.logs,
        after=tuple(after),
    )
    try:
        number = send(job)
    except (Refused, Silent) as error:
        say(f"no report job: {error}; the same command submits one, or writes the report itself")
        return None
    submission.note_job(REPORT, number, after)
    return number


def _light(profile: Profile, limits: Limits) -> Profile:
    """What the job asks for: as the runs, but no GPU and little of everything."""
    seconds = min(REPORT_SECONDS, limits.report_seconds or REPORT_SECONDS)
    changes: dict[str, object] = {
        "gpus": 0,
        "nodes": 1,
        "cpus": 1,
        "pack": 1,
        "time": seconds,
        "memory": profile.memory and REPORT_MEMORY,
        "extra": {k: v for k, v in profile.extra.items() if k in _LIGHT_EXTRA},
    }
    if profile.report_partition is not None:
        changes |= {"partition": profile.report_partition, "qos": None, "constraint": None}
    return profile.model_copy(update=changes)
