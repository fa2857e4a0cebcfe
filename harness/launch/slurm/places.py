"""Where in the queue runs are: what was submitted, beside what the scheduler lists.

A job that one listing lacks is not gone for that: it is asked for by its number before a submission
is closed, and whose it is decides who may close it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.errors import RecordError
from harness.launch.slurm import scheduler
from harness.launch.slurm.scheduler import CALL_SECONDS, Listing, QueuedTask
from harness.launch.slurm.submissions import REPORT, Intent, Submission, submissions
from harness.store.record import Store


@dataclass(frozen=True)
class QueuePlace:
    """Where in the queue a run is: its submission, and its task if the scheduler lists it."""

    submission: Submission
    array: int
    index: int
    task: QueuedTask | None
    owner: int = -1
    """The user whose job it is, where that is another one."""

    @property
    def unsure(self) -> bool:
        """Whether nobody knows that the scheduler ever took it."""
        return self.task is None and self.submission.job(self.array) is None


def open_submissions(
    store: Store, say: Callable[[str], None] = lambda line: None, sweep: str | None = None
) -> Iterator[tuple[Submission, Intent]]:
    """Those, of one sweep or of all, of which something may be in the queue.

    One that cannot be read is told and left out.
    """
    for submission in submissions(store, sweep):
        if submission.open:
            try:
                yield submission, submission.read()
            except RecordError as error:
                say(
                    f"{error}: what it has in the queue is not known; move {submission.folder} away"
                )


def look(store: Store, *, seconds: float = CALL_SECONDS) -> Listing:
    """The jobs of all who have submitted under this root; Silent as `ask`."""
    owners = {intent.owner for _, intent in open_submissions(store) if not intent.is_mine}
    return scheduler.queue(owners, seconds=seconds)


def find_jobs(submission: Submission, intent: Intent, listing: Listing) -> None:
    """Bring the numbers on record and `listing` together.

    Jobs that are listed and were never written down are; those that were and are not listed are
    asked for by number.
    """
    parts: dict[int | str, str] = {i: array.name for i, array in enumerate(intent.arrays)}
    if intent.report is not None:
        parts[REPORT] = intent.report
    for part, name in parts.items():
        known, listed = submission.job(part), listing.job_id(name)
        if known is None and listed is not None:
            submission.note_job(part, listed)
        elif known is not None and listed is None:
            scheduler.add_by_number(listing, known, name)


def queued(
    store: Store,
    listing: Listing | None,
    *,
    close: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, QueuePlace]:
    """Key -> place of every run that is in the queue or running there, or may be.

    Without a listing, when the scheduler could not be asked, that is every run of an open
    submission.  With one, numbers that were never written down are, and submissions of this user
    of which nothing is left are closed, unless `close` is false: that is for the holder of
    `submitting`.
    """
    found: dict[str, QueuePlace] = {}
    for submission, intent in open_submissions(store, say):
        mine = close and intent.is_mine
        if listing is not None and mine:
            find_jobs(submission, intent, listing)
        places = list(_places(submission, intent, listing))
        found.update(places)
        if listing is not None and mine and not places and not listing.has(intent.report or ""):
            submission.close()
    return found


def _places(
    submission: Submission, intent: Intent, listing: Listing | None
) -> Iterator[tuple[str, QueuePlace]]:
    owner = -1 if intent.is_mine else intent.owner
    unseen = listing is None or (listing.hidden and not intent.is_mine)
    for number, array in enumerate(intent.arrays):
        tasks = {} if listing is None else listing.tasks(array.name)
        any_may_live = unseen or (listing is not None and array.name in listing.unread)
        for index, keys in enumerate(array.tasks):
            task = tasks.get(index)
            if (any_may_live and task is None) or (task is not None and not task.over):
                for key in keys:
                    yield key, QueuePlace(submission, number, index, task, owner)
