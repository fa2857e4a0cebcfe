"""The last job of a submission: what the scheduler lost goes back to it, then the report.

    python -m harness.launch.slurm.report_job FOLDER --sha256 HASH

A job can leave the queue without a word of its own: SLURM kills one that it cannot start, a site
requeues none, a node dies as its job ends.  Runs that this happened to are submitted again, a
bounded number of times; those that somebody cancelled are not, nor those of which the scheduler
does not know how they ended.  The report is written in either case, with holes if need be; where a
wave of runs is over and another follows from it, that one is submitted instead, as this one was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import HarnessError, one_line
from harness.launch.executor import REPORT_ONLY
from harness.launch.own_process import begin_process
from harness.launch.slurm.array_task import ArrayTask, say
from harness.launch.slurm.launching import FAILURE, has_begun
from harness.launch.slurm.orders import JobOrder
from harness.launch.slurm.places import CANCELLED, Departures
from harness.launch.slurm.submissions import (
    AFTER,
    Intent,
    Submission,
    look_anew,
    look_anew_at,
    submissions,
)
from harness.launch.slurm.submit import submit
from harness.planning.plan import Action, Step

ON_FINISH_SECONDS = 600
"""How long `on_finish` of a profile may take."""
ROUNDS = 3
"""Submissions of the same runs that follow the first one by themselves."""


def main(argv: Sequence[str] | None = None) -> int:
    """Submit what was lost, and become the command that writes the report."""
    begin_process()
    parser = argparse.ArgumentParser(prog="python -m harness.launch.slurm.report_job")
    parser.add_argument("folder", type=Path, help="of the submission")
    parser.add_argument("--sha256", required=True, help="of what was submitted")
    args = parser.parse_args(argv)
    submission = Submission(args.folder)
    intent = submission.read_as(args.sha256)
    intent.begin()
    see_what_other_nodes_wrote(submission, intent)
    try:
        submit_what_was_lost(submission, intent)
    except (HarnessError, OSError) as error:
        say(f"what was lost is not in the queue again: {one_line(error)}")
    words = [sys.executable, *_words(submission, intent)]
    if not intent.profile.on_finish:
        os.execv(sys.executable, words)
    code = subprocess.run(words, check=False).returncode
    if not _goes_on(submission, intent):
        _tell_the_end(intent, code)
    return code


def see_what_other_nodes_wrote(submission: Submission, intent: Intent) -> None:
    """Nothing that a run or a task has said a moment ago, elsewhere, is missed."""
    look_anew(*(submission.folder / name for name in ("", "begun", "launch", "ended")))
    for key in {*intent.keys, *intent.awaits}:
        look_anew_at(intent.store.run_dir(key))


def _goes_on(submission: Submission, intent: Intent) -> bool:
    """Whether runs of the sweep are in the queue again, or those that follow."""
    others = submissions(intent.store, intent.sweep)
    return any(one.open and one.folder.name > submission.folder.name for one in others)


def _tell_the_end(intent: Intent, code: int) -> None:
    """Run what the profile wants at the end; that it fails is a line."""
    report = Path(intent.root) / "reports" / intent.sweep
    told = {"HARNESS_SWEEP": intent.sweep, "HARNESS_REPORT": str(report)}
    try:
        done = subprocess.run(
            ["bash", "-c", "\n".join(intent.profile.on_finish)],
            env={**os.environ, **told, "HARNESS_EXIT_CODE": str(code)},
            timeout=ON_FINISH_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"on_finish: {one_line(error)}")
    else:
        say(f"on_finish: exit code {done.returncode}")


def _words(submission: Submission, intent: Intent) -> list[str]:
    """The command that writes the report, or submits the next wave if there is one."""
    if not intent.waves or submission.held() is not None:
        return [*intent.report_command]
    words = [word for word in intent.report_command if word != REPORT_ONLY]
    return [*words, "--executor", "slurm", AFTER, str(submission.folder)]


def submit_what_was_lost(submission: Submission, intent: Intent) -> None:
    """Put runs back in the queue whose jobs left it and should not have, or never were in it.

    Those whose jobs died before they began are put on record, and back in the queue where other
    jobs of the submission did begin.
    """
    again = intent.round < ROUNDS and submission.held() is None
    departures = Departures(intent.store)
    lost = [step for task in _tasks(submission, intent) for step in _lost(task, departures, again)]
    if not again or not lost:
        return
    say(f"{len(lost)} runs lost their jobs, or never had any: submitted again")
    submit(lost, replace(JobOrder.again(intent), round=intent.round + 1), say)


def _tasks(submission: Submission, intent: Intent) -> list[ArrayTask]:
    """Every task of the submission, with the job that it had, if any."""
    return [
        ArrayTask(submission, number, index, f"{job}_{index}" if job else "", 0, node="")
        for number, array in enumerate(intent.arrays)
        for job in [submission.job(number)]
        for index in range(len(array.tasks))
    ]


def _lost(task: ArrayTask, departures: Departures, again: bool) -> list[Step]:
    """The runs of a task that are to be submitted again, if any are."""
    steps = [step for step in task.to_do() if step.action is not Action.ATTACH]
    if not steps or not task.job:
        return steps
    gone = departures.of_task(task.submission, task.array, task.index)
    if gone is None or gone.end in {None, CANCELLED}:
        return []
    if gone.death is None:
        return steps
    again = again and has_begun(task.submission)
    task = replace(task, node=gone.death.node)
    for step in steps:
        if again:
            task.add_end(step.run, FAILURE, gone.why)
        else:
            task.fail(step.run, FAILURE, gone.why, gone.death.log)
    return steps if again else []


if __name__ == "__main__":
    sys.exit(main())
