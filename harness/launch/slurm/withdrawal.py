"""Jobs taken out of the queue again: those whose numbers and names we have alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from harness.launch.backlog import Say
from harness.launch.slurm import scheduler
from harness.launch.slurm.places import QueuePlace
from harness.launch.slurm.scheduler import Silent
from harness.launch.slurm.submissions import REPORT, Submission

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
