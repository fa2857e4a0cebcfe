"""Where in the queue runs are: what was submitted, beside what the scheduler lists.

A job that one listing lacks is not gone for that: it is asked for by its number before a submission
is closed, and whose it is decides who may close it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from harness.errors import RecordError
from harness.launch.slurm import scheduler
from harness.launch.slurm.scheduler import CALL_SECONDS, Listing, QueuedTask, Silent
from harness.launch.slurm.submissions import REPORT, Submission, look_anew, submissions
from harness.store.record import Store

Followers = Mapping[str, frozenset[str]]
"""Number of a job -> the sweeps whose report jobs wait for it."""


@dataclass(frozen=True)
class QueuePlace:
    """Where in the queue a run is: its submission, and its task if the scheduler lists it.

    Attributes:
        number: of the array; None if it was never written down.
        reports: the sweeps whose report jobs wait for it.
    """

    submission: Submission
    array: int
    index: int
    task: QueuedTask | None
    number: str | None
    reports: frozenset[str] = frozenset()

    @property
    def owner(self) -> int:
        """The user whose job it is, where that is another one; else -1."""
        intent = self.submission.read()
        return -1 if intent.is_mine else intent.owner

    @property
    def unsure(self) -> bool:
        """Whether nobody knows that the scheduler ever took it."""
        return self.task is None and self.number is None

    def lacks_report_of(self, sweep: str) -> bool:
        """Whether it is in the queue without a job that writes the report of `sweep` after it.

        Of the trials of a search, which reports itself, that is nobody's job.
        """
        return not self.unsure and sweep not in self.reports and bool(self.submission.read().report)

    @property
    def waits(self) -> bool:
        """Whether it is this user's, and known not to have begun."""
        return self.owner == -1 and self.task is not None and self.task.state == "PENDING"


@dataclass(frozen=True)
class Queue:
    """What of all that was submitted under a root is in the queue or running there, or may be.

    Attributes:
        listing: what the scheduler lists; None: it could not be asked, and `fault` says why.
        submissions: those of which something may be in the queue.
        places: by the keys of the runs.
    """

    listing: Listing | None
    fault: str
    submissions: tuple[Submission, ...]
    places: dict[str, QueuePlace]


def look(
    store: Store,
    say: Callable[[str], None] = lambda line: None,
    *,
    seconds: float = CALL_SECONDS,
    by_number: bool = False,
    close: bool = False,
) -> Queue:
    """Ask the scheduler, once, for the jobs of all who have submitted under this root.

    When it could not be asked, every run of an open submission may be in the queue.

    Args:
        say: told of a submission that cannot be read, and is left out.
        by_number: ask for what the listing lacks of this user's jobs by number.
        close: do so, write down numbers that never were, and close what nothing is left of: that
            is for the holder of `submitting`.
    """
    there = tuple(_open_submissions(store, say))
    try:
        owners = {one.read().owner for one in there if not one.read().is_mine}
        listing, fault = scheduler.queue(owners, seconds=seconds), ""
    except Silent as error:
        return _queue_of(there, None, str(error))
    for submission in there:
        if (by_number or close) and submission.read().is_mine:
            _find_jobs(submission, listing, note=close)
    queue = _queue_of(there, listing, fault)
    if close:
        _close_the_empty(queue)
    return queue


def unasked(store: Store, say: Callable[[str], None]) -> Queue:
    """The same where there is no scheduler to be asked."""
    return _queue_of(tuple(_open_submissions(store, say)), None, "")


def _open_submissions(store: Store, say: Callable[[str], None]) -> Iterator[Submission]:
    for submission in submissions(store):
        if submission.open:
            try:
                submission.read()
                yield submission
            except RecordError as error:
                say(
                    f"{error}: what it has in the queue is not known; move {submission.folder} away"
                )


def _find_jobs(submission: Submission, listing: Listing, *, note: bool) -> None:
    """Bring the numbers on record and `listing` together.

    Jobs that are listed and were never written down are, if `note`; those that were and are not
    listed are asked for by number.
    """
    intent = submission.read()
    parts: dict[int | str, str] = {i: array.name for i, array in enumerate(intent.arrays)}
    if intent.report is not None:
        parts[REPORT] = intent.report
    if any(submission.job(part) is None for part in parts):
        look_anew(submission.folder)  # or a number may be there, and not be seen
    for part, name in parts.items():
        known, listed = submission.job(part), listing.job_id(name)
        if known is None and listed is not None and note:
            submission.note_job(part, listed)
        elif known is not None and listed is None:
            scheduler.add_by_number(listing, known, name)


def _queue_of(there: tuple[Submission, ...], listing: Listing | None, fault: str) -> Queue:
    followers: dict[str, frozenset[str]] = {}
    for submission in there:
        intent = submission.read()
        if intent.report and (listing is None or listing.hidden or listing.has(intent.report)):
            for number in submission.report_waits_for():
                followers[number] = followers.get(number, frozenset()) | {intent.sweep}
    places = {k: place for one in there for k, place in _places(one, listing, followers)}
    return Queue(listing, fault, there, places)


def _places(
    submission: Submission, listing: Listing | None, followers: Followers
) -> Iterator[tuple[str, QueuePlace]]:
    intent = submission.read()
    unseen = listing is None or (listing.hidden and not intent.is_mine)
    for array_number, array in enumerate(intent.arrays):
        tasks = {} if listing is None else listing.tasks(array.name)
        any_may_live = unseen or (listing is not None and array.name in listing.unread)
        number = submission.job(array_number)
        reports = followers.get(number or "", frozenset())
        for index, keys in enumerate(array.tasks):
            task = tasks.get(index)
            if (any_may_live and task is None) or (task is not None and not task.over):
                place = QueuePlace(submission, array_number, index, task, number, reports)
                yield from ((key, place) for key in keys)


def _close_the_empty(queue: Queue) -> None:
    """Close the submissions of this user of which nothing is listed any more."""
    assert queue.listing is not None
    left = {place.submission.folder for place in queue.places.values()}
    for submission in queue.submissions:
        intent = submission.read()
        alive = submission.folder in left or queue.listing.has(intent.report or "")
        if intent.is_mine and not alive:
            submission.close()
