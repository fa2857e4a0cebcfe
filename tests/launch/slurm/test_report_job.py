"""The last job of a submission: what the scheduler lost is in the queue again, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from harness.launch.attempt import record_failure
from harness.launch.slurm import report_job
from harness.launch.slurm.submissions import Submission, submissions
from harness.launch.slurm.submit import JobOrder, submit
from harness.planning.plan import Step
from harness.store.record import Store

Plan = Callable[..., list[Step]]


@pytest.fixture
def sent(steps: Plan, order: JobOrder, slurm: FakeSlurm) -> tuple[Submission, list[str]]:
    """A submission of two runs that has left the queue, and the keys of the runs."""
    planned = steps({"a": "done", "b": "done"})
    done = submit(planned, order, print)
    slurm.queue.unlink()
    assert done.submission is not None
    return done.submission, [step.run.key for step in planned]


def again(submission: Submission, slurm: FakeSlurm, state: str) -> list[str]:
    """Keys of the runs that are submitted again when their jobs ended so."""
    slurm.says("scontrol", f"JobId=101 JobState={state} Reason=None\nMaxArraySize = 1001\n")
    before = {s.folder for s in submissions(Store(_root(submission)), "ablation")}
    report_job.submit_what_was_lost(submission, submission.read())
    after = submissions(Store(_root(submission)), "ablation")
    return sorted(key for s in after if s.folder not in before for key in s.read().keys)


def _root(submission: Submission) -> Path:
    return Path(submission.read().root)


def test_runs_whose_jobs_slurm_killed_at_launch_go_back_with_the_code_they_had(
    sent: tuple[Submission, list[str]], slurm: FakeSlurm
) -> None:
    submission, keys = sent
    assert again(submission, slurm, "FAILED") == sorted(keys)
    assert slurm.option(104, "dependency") == "afterany:103"
    (newer,) = [s for s in submissions(Store(_root(submission)), "ablation") if s.read().round]
    assert (newer.read().round, newer.read().code) == (1, submission.read().code)
    assert newer.read().report_command == submission.read().report_command


@pytest.mark.parametrize("state", ["CANCELLED", "RUNNING", "PENDING"])
def test_what_was_cancelled_or_is_not_over_is_left_alone(
    sent: tuple[Submission, list[str]], slurm: FakeSlurm, state: str
) -> None:
    assert again(sent[0], slurm, state) == []


def test_an_end_that_the_scheduler_does_not_tell_is_no_reason(
    sent: tuple[Submission, list[str]], slurm: FakeSlurm
) -> None:
    for name in ("scontrol", "sacct"):
        slurm.fails(name)
    report_job.submit_what_was_lost(sent[0], sent[0].read())
    assert len(slurm.asked("sbatch")) == 2


def test_runs_that_failed_or_were_called_off_are_left_alone(
    sent: tuple[Submission, list[str]], slurm: FakeSlurm, steps: Plan, store: Store
) -> None:
    submission, (first, second) = sent
    config = store.run_dir(first).read_config()
    record_failure(
        store.run_dir(first), config.evaluation_key, attempt=1, since=time.time(),
        failure="diverged", error="loss is NaN",
    )  # fmt: skip
    store.run_dir(second).request_stop("cancelled")
    assert again(submission, slurm, "FAILED") == []


def test_it_is_done_a_bounded_number_of_times(
    steps: Plan, order: JobOrder, slurm: FakeSlurm
) -> None:
    done = submit(steps({"a": "done"}), replace(order, round=report_job.ROUNDS), print)
    slurm.queue.unlink()
    assert done.submission is not None
    assert again(done.submission, slurm, "FAILED") == []


def test_the_report_is_written_whatever_came_of_it(
    sent: tuple[Submission, list[str]], slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(report_job.os, "execv", lambda program, words: called.append(words))
    slurm.says("scontrol", "JobId=101 JobState=FAILED Reason=None\n")
    slurm.fails("sbatch", "sbatch: error: the site is closed")
    report_job.main([str(sent[0].folder), "--sha256", sent[0].read().sha256])
    assert called[0][-1] == "--report-only"
