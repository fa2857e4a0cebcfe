"""Where in the queue runs are, how they left it, and how they are taken out of it.

A job that one listing lacks is not gone for that: it is asked for by its number before a submission
is closed, and whose it is decides who may close it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import RecordError
from harness.launch.backlog import Say
from harness.launch.slurm import scheduler
from harness.launch.slurm.launching import LaunchDeath, launch_death
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
    say: Say = lambda line: None,
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


def _open_submissions(store: Store, say: Say) -> Iterator[Submission]:
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


# --------------------------------------------------------------------------- gone from it

CANCELLED, HELD, DEAD = "cancelled", "held", "dead"


@dataclass(frozen=True)
class Departure:
    """How a run left the queue whose files say nothing of it.

    Attributes:
        how: CANCELLED, HELD (back, by the sweep itself) or DEAD.
        end: the class of how its job ended, by the scheduler; None: it does not tell.
        death: how its job died before it began, if it did.
    """

    how: str
    why: str
    end: str | None = None
    death: LaunchDeath | None = None


class Departures:
    """Asks again and again, of submissions that do not change; each answer of a task is final."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._submissions: dict[Path, Submission] = {}
        self._answers: dict[tuple[str, int], Listing] = {}

    def of(self, keys: Collection[str]) -> dict[str, Departure]:
        """Key -> departure, of the runs that were submitted and have no place in the queue."""
        wanted, found = set(keys), {}
        for submission in self._newest_first() if wanted else ():
            intent = submission.read()
            for key in wanted & intent.keys:
                wanted.remove(key)
                departure = self.of_task(submission, *intent.task_of(key))
                if departure is not None:
                    found[key] = departure
        return found

    def _newest_first(self) -> Iterator[Submission]:
        for found in reversed(list(submissions(self._store))):
            submission = self._submissions.setdefault(found.folder, found)
            with suppress(RecordError):  # that is told where it matters
                if not submission.read().rehearsal:
                    yield submission

    def of_task(self, submission: Submission, array: int, index: int) -> Departure | None:
        """That of a task; None if it is in the queue, or never was."""
        number = submission.job(array)
        if number is None:
            return None
        job = f"{number}_{index}"
        state = self._state(number, submission.read().arrays[array].name, index)
        if state is not None and not scheduler.is_over(state):
            return None
        end = None if state is None else scheduler.ENDED[state]
        death = launch_death(submission, array, index)
        if death is not None:
            return Departure(DEAD, death.error, end, death)
        if submission.held() is not None:
            return Departure(HELD, "by the sweep itself", end)
        if end == CANCELLED:
            return Departure(CANCELLED, f"job {job} was taken out of the queue", end)
        return Departure(DEAD, f"job {job} left the queue without a word ({state or 'how?'})", end)

    def _state(self, number: str, name: str, index: int) -> str | None:
        """The last state of a task, by the controller or else by accounting."""
        listing = self._answers.setdefault((name, int(number)), Listing())
        if index not in listing.tasks(name) and scheduler.installed():
            scheduler.add_by_number(listing, number, name)
            if index not in listing.tasks(name):
                scheduler.add_from_accounting(listing, number, name)
        task = listing.tasks(name).get(index)
        if task is None:  # of an array that is known, one that was cancelled as it waited
            return "CANCELLED" if listing.tasks(name) else None
        if not task.over:
            del listing.jobs[name][index]
        return task.state


# --------------------------------------------------------------------------- taken out of it

Jobs = dict[str, list[str | None]]
"""Name -> the jobs of that name; None: one whose number is not known."""


def jobs_to_cancel(keys: Collection[str], places: Mapping[str, QueuePlace]) -> Jobs:
    """The tasks of arrays all of whose runs that are in the queue are among `keys`."""
    jobs: Jobs = {}
    for key in keys:
        place = places.get(key)
        if place is None:
            continue
        array = place.submission.read().arrays[place.array]
        alive = {other for other in array.tasks[place.index] if other in places}
        if alive <= {*keys} and key == min(alive):
            job = None if place.number is None else f"{place.number}_{place.index}"
            jobs.setdefault(array.name, []).append(job)
    return jobs


def report_job_of(submission: Submission) -> Jobs:
    """The job that writes the report, if there is one."""
    number, name = submission.job(REPORT), submission.read().report
    return {} if number is None or name is None else {name: [number]}


def withdraw(jobs: Jobs, say: Say) -> tuple[int, int]:
    """Cancel jobs; returns how many, and how many the scheduler may have still."""
    done = left = 0
    for name, numbers in jobs.items():
        known = [number for number in numbers if number is not None]
        try:
            scheduler.cancel(known, name)
        except Silent as error:
            say(f"{name}: {error}")
            known = []
        done += len(known)
        left += len(numbers) - len(known)
    return done, left


def take_out(keys: Collection[str], places: dict[str, QueuePlace], say: Say) -> None:
    """Take this user's runs that wait out of the queue and of `places`, to be submitted anew.

    With the last of a submission goes its report job.  Silent where the scheduler does not obey.
    """
    waiting = {key: places[key] for key in keys if key in places and places[key].waits}
    jobs = jobs_to_cancel(waiting, places)
    for name, numbers in jobs.items():
        scheduler.cancel([number for number in numbers if number is not None], name)
    moved = {number for numbers in jobs.values() for number in numbers}
    for key, place in waiting.items():
        if place.task is not None and place.task.job in moved:
            del places[key]
    left = {place.submission.folder for place in places.values()}
    for submission in {p.submission.folder: p.submission for p in waiting.values()}.values():
        if submission.folder not in left:
            withdraw(report_job_of(submission), say)
            submission.close()
    say(f"{sum(map(len, jobs.values()))} jobs are taken out of the queue")
