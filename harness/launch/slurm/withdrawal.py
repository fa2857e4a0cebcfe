"""Jobs taken out of the queue again: those whose numbers and names we have alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from harness.launch.backlog import Say
from harness.launch.slurm import scheduler
from harness.launch.slurm.places import QueuePlace
from harness.launch.slurm.scheduler import Silent
from harness.launch.slurm.submissions import REPORT, Intent, Submission

Jobs = dict[str, list[str | None]]
"""Name -> the jobs of that name; None: one whose number is not known."""


def jobs_to_cancel(keys: Collection[str], places: Mapping[str, QueuePlace]) -> Jobs:
    """The tasks of arrays all of whose runs that are in the queue are among `keys`."""
    jobs: Jobs = {}
    intents: dict[Path, Intent] = {}
    for key in keys:
        place = places.get(key)
        if place is None:
            continue
        folder = place.submission.folder
        intent = intents.setdefault(folder, intents.get(folder) or place.submission.read())
        array, number = intent.arrays[place.array], place.submission.job(place.array)
        alive = {other for other in array.tasks[place.index] if other in places}
        if alive <= {*keys} and key == min(alive):
            job = None if number is None else f"{number}_{place.index}"
            jobs.setdefault(array.name, []).append(job)
    return jobs


def report_job_of(submission: Submission, intent: Intent) -> Jobs:
    """The job that writes the report, if there is one."""
    number = submission.job(REPORT)
    return {} if number is None or intent.report is None else {intent.report: [number]}


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
    waiting = {
        key: place
        for key in keys
        if (place := places.get(key)) is not None
        and place.owner == -1
        and place.task is not None
        and place.task.state == "PENDING"
    }
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
            withdraw(report_job_of(submission, submission.read()), say)
            submission.close()
    say(f"{sum(map(len, jobs.values()))} jobs are taken out of the queue")
