"""How runs left the queue whose own files say nothing of it: cancelled, held back, or dead.

Reads and asks; decides nothing, so it serves whoever only looks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from harness.errors import RecordError
from harness.launch.slurm import scheduler
from harness.launch.slurm.launching import launch_death
from harness.launch.slurm.scheduler import Listing
from harness.launch.slurm.submissions import Intent, Submission, submissions
from harness.store.record import Store

CANCELLED, HELD, DEAD = "cancelled", "held", "dead"


@dataclass(frozen=True)
class Departure:
    """How a run left the queue: CANCELLED, HELD (back, by the sweep itself) or DEAD, and why."""

    how: str
    why: str


class Departures:
    """Asks again and again, of submissions that do not change; each answer of a task is final."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._intents: dict[str, Intent | None] = {}
        self._answers: dict[tuple[str, int], Listing] = {}

    def of(self, keys: Collection[str]) -> dict[str, Departure]:
        """Key -> departure, of the runs that were submitted and have no place in the queue."""
        wanted, found = set(keys), {}
        for submission, intent in self._newest_first() if wanted else ():
            for key in wanted & intent.keys:
                wanted.remove(key)
                departure = self._judge(submission, intent, *_task_of(intent, key))
                if departure is not None:
                    found[key] = departure
        return found

    def _newest_first(self) -> Iterator[tuple[Submission, Intent]]:
        for submission in reversed(list(submissions(self._store))):
            name = str(submission.folder)
            if name not in self._intents:
                try:
                    self._intents[name] = submission.read()
                except RecordError:
                    self._intents[name] = None  # that is told where it matters
            intent = self._intents[name]
            if intent is not None and not intent.rehearsal:
                yield submission, intent

    def _judge(
        self, submission: Submission, intent: Intent, array: int, index: int
    ) -> Departure | None:
        number = submission.job(array)
        if number is None:
            return None  # it was never in the queue
        death = launch_death(submission, array, index)
        if death is not None:
            return Departure(DEAD, death.error)
        if submission.held() is not None:
            return Departure(HELD, "by the sweep itself")
        job, state = f"{number}_{index}", self._state(number, intent.arrays[array].name, index)
        if state is not None and not scheduler.is_over(state):
            return None
        if state is not None and scheduler.ENDED[state] == CANCELLED:
            return Departure(CANCELLED, f"job {job} was taken out of the queue")
        return Departure(DEAD, f"job {job} left the queue without a word ({state or 'how?'})")

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


def _task_of(intent: Intent, key: str) -> tuple[int, int]:
    """Array and index of the task that a run is in."""
    return next(
        (number, index)
        for number, array in enumerate(intent.arrays)
        for index, keys in enumerate(array.tasks)
        if key in keys
    )
