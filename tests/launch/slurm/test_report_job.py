"""The last job of a submission: what the scheduler lost is in the queue again, and nothing else."""

from __future__ import annotations

import hashlib
import json
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from behind import Behind
from fake_slurm import FakeSlurm
from launch_cases import finish as has_result

from harness.config import Runtime
from harness.errors import ConfigError
from harness.files import dump_json, seal, write_json
from harness.launch.attempt import record_failure
from harness.launch.executor import Assignment
from harness.launch.executors.slurm import SlurmExecutor
from harness.launch.profiles import Profile
from harness.launch.slurm import report_job
from harness.launch.slurm.launching import note_begin
from harness.launch.slurm.orders import JobOrder
from harness.launch.slurm.submissions import Submission, submissions
from harness.launch.slurm.submit import submit
from harness.planning.plan import Rerun, Step
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
    is_over(submission, slurm, state)
    before = {s.folder for s in submissions(Store(_root(submission)), "ablation")}
    report_job.submit_what_was_lost(submission, submission.read())
    after = submissions(Store(_root(submission)), "ablation")
    return sorted(key for s in after if s.folder not in before for key in s.read().keys)


def is_over(submission: Submission, slurm: FakeSlurm, state: str) -> None:
    """Every task of its first array has ended so, as the controller says it."""
    (array, *_) = submission.read().arrays
    name = f"ArrayJobId=101 ArrayTaskId=0-{len(array.tasks) - 1} JobName={array.name}"
    slurm.says("scontrol", f"JobId=101 {name} JobState={state} Reason=None\nMaxArraySize = 1001\n")


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


def test_one_directory_that_cannot_be_read_keeps_no_other_back(
    sent: tuple[Submission, list[str]], slurm: FakeSlurm, store: Store
) -> None:
    submission, (first, second) = sent
    (store.run_dir(first).path / "config.json").write_text("torn")
    assert again(submission, slurm, "FAILED") == [second]


def test_what_sbatch_never_took_is_submitted(
    steps: Plan, order: JobOrder, slurm: FakeSlurm
) -> None:
    slurm.says("scontrol", "MaxArraySize = 1\n")
    slurm.refuses(102, "Job violates accounting/QOS policy")
    done = submit(steps({"a": "done", "b": "done"}), order, print)
    assert done.submission is not None
    slurm.queue.unlink()
    (slurm.folder / "sbatch.refuses.102").unlink()
    assert again(done.submission, slurm, "RUNNING") == [*done.left[1:]]


def test_a_job_that_died_before_it_began_is_on_record_where_none_got_further(
    sent: tuple[Submission, list[str]], slurm: FakeSlurm, store: Store
) -> None:
    submission, (first, second) = sent
    _die(submission, 0)
    assert again(submission, slurm, "FAILED") == [second]
    status = store.run_dir(first).status()
    assert (status.failure, status.error) == (
        "launch",
        "its job died before it began (exit code 7): no such module",
    )
    assert (status.details or {})["log"] == str(submission.log(0, 0))


def test_and_goes_to_another_node_where_others_did(
    sent: tuple[Submission, list[str]], slurm: FakeSlurm, store: Store
) -> None:
    submission, keys = sent
    note_begin(submission, 0, 1, 0)
    _die(submission, 0)
    assert again(submission, slurm, "FAILED") == sorted(keys)
    (end,) = store.run_dir(keys[0]).ends()
    assert (end["class"], end["node"]) == ("launch", "n1")


def _die(submission: Submission, index: int) -> None:
    """Play a task of which only the shell was there."""
    (submission.folder / "launch").mkdir()
    (submission.folder / "launch" / f"0-{index}").write_text("7 0 n1\n")
    submission.log(0, index).write_text("no such module\n")


@pytest.mark.parametrize("state", ["CANCELLED", "RUNNING", "PENDING"])
def test_what_was_cancelled_or_is_not_over_is_left_alone(
    sent: tuple[Submission, list[str]], slurm: FakeSlurm, state: str
) -> None:
    assert again(sent[0], slurm, state) == []


def test_the_end_of_a_job_of_another_name_is_none_of_ours(
    sent: tuple[Submission, list[str]], slurm: FakeSlurm
) -> None:
    slurm.says("scontrol", "JobId=101 JobName=another JobState=FAILED Reason=None\n")
    slurm.says("sacct", "JobID|State|JobName\n101_0|FAILED|another\n101_1|FAILED|another\n")
    report_job.submit_what_was_lost(sent[0], sent[0].read())
    assert len(slurm.asked("sbatch")) == 2


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
    is_over(sent[0], slurm, "FAILED")
    slurm.fails("sbatch", "sbatch: error: the site is closed")
    report_job.main([str(sent[0].folder), "--sha256", sent[0].read().sha256])
    assert called[0][-1] == "--report-only"


def test_what_other_nodes_have_just_written_is_neither_lost_nor_a_hole(
    steps: Plan, order: JobOrder, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = planned = steps({"a": "done", "b": "done"})
    done = submit(planned, order, print)
    assert done.submission is not None
    folder = order.store.run_dir(second.run.key).path
    folder.joinpath("outcomes").mkdir()
    behind = Behind(order.store.root, monkeypatch)
    behind.elsewhere(lambda: has_result(order.store, first))
    behind.elsewhere(lambda: has_result(order.store, second))
    behind.elsewhere(lambda: folder.joinpath("outcomes", "key.npz").touch())
    slurm.queue.write_text("")
    is_over(done.submission, slurm, "FAILED")
    seen: list[bool] = []

    def reported(program: str, words: list[str]) -> None:
        store = order.store
        seen.extend(store.run_dir(step.run.key).result() is not None for step in planned)
        seen.append(folder.joinpath("outcomes", "key.npz").exists())
        raise SystemExit

    monkeypatch.setattr(report_job.os, "execv", reported)
    with pytest.raises(SystemExit):
        report_job.main([str(done.submission.folder), "--sha256", done.submission.read().sha256])
    assert seen == [True] * 3
    assert len(slurm.asked("sbatch")) == 2


def finish(submission: Submission, capfd: pytest.CaptureFixture[str]) -> str:
    """What the report job prints of its end."""
    report_job.main([str(submission.folder), "--sha256", submission.read().sha256])
    return capfd.readouterr().out


@pytest.mark.parametrize("failing", [False, True])
def test_what_a_profile_wants_at_the_end_comes_after_the_report(
    steps: Plan, order: JobOrder, slurm: FakeSlurm, capfd: pytest.CaptureFixture[str], failing: bool
) -> None:
    lines = ('echo "$HARNESS_SWEEP is over ($HARNESS_EXIT_CODE), see $HARNESS_REPORT"',)
    profile = Profile(on_finish=(*lines, "exit 5") if failing else lines)
    words = ("-c", "print('report'); raise SystemExit(3)")
    done = submit(steps({"a": "done"}), replace(order, profile=profile, report=words), print)
    slurm.queue.unlink()
    assert done.submission is not None
    is_over(done.submission, slurm, "CANCELLED")
    told = finish(done.submission, capfd)
    report = order.store.root / "reports" / "ablation"
    assert f"report\nablation is over (3), see {report}\n" in told
    assert told.rstrip().endswith(f"on_finish: exit code {5 if failing else 0}")
    is_over(done.submission, slurm, "FAILED")
    assert "is over" not in finish(done.submission, capfd), "what was lost is in the queue again"


# ---- the next wave


def waved(steps: Plan, order: JobOrder, slurm: FakeSlurm, label: str) -> Submission:
    """A submission of one run that other runs follow from."""
    done = submit(steps({label: "done"}), replace(order, waves=True), print)
    assert done.submission is not None
    slurm.queue.unlink()
    return done.submission


def following(submission: Submission) -> SlurmExecutor:
    words = Namespace(executor="slurm", after=str(submission.folder))
    store = Store(_root(submission))
    return SlurmExecutor.of(Assignment(store, Runtime(), "ablation"), words)


def carry_out(executor: SlurmExecutor, planned: list[Step]) -> int | None:
    return executor.carry_out(planned, lambda: None, lambda *_: nullcontext(print), Rerun.MISSING)


def test_the_last_job_of_a_wave_becomes_the_command_that_submits_the_next_one(
    steps: Plan, order: JobOrder, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(report_job.os, "execv", lambda program, words: called.append(words))
    submission = waved(steps, order, slurm, "a")
    is_over(submission, slurm, "COMPLETED")

    report_job.main([str(submission.folder), "--sha256", submission.read().sha256])

    assert "--report-only" not in called[0]
    assert called[0][-4:] == ["--executor", "slurm", "--after", str(submission.folder)]


def test_the_next_wave_is_submitted_as_the_last_one_was_and_followed_in_its_turn(
    steps: Plan, order: JobOrder, slurm: FakeSlurm
) -> None:
    first = waved(steps, order, slurm, "a")

    others = steps({"a": "done", "b": "done"})
    planned = [step for step in others if step.run.key not in first.read().keys]

    assert carry_out(following(first), planned) == 0

    second = list(submissions(Store(_root(first)), "ablation"))[-1].read()
    assert (second.code, second.profile) == (first.read().code, first.read().profile)
    assert (second.waves, second.report_command) == (True, first.read().report_command)
    assert len(slurm.asked("sbatch")) == 4


def test_a_wave_that_is_not_over_has_no_next_one(
    steps: Plan, order: JobOrder, slurm: FakeSlurm
) -> None:
    first = waved(steps, order, slurm, "a")

    assert carry_out(following(first), steps({"a": "done", "b": "done"})) is None
    assert len(slurm.asked("sbatch")) == 2


def test_what_an_older_version_wrote_is_the_users_own_all_the_same(
    steps: Plan, order: JobOrder, slurm: FakeSlurm
) -> None:
    first = waved(steps, order, slurm, "a")
    tree = json.loads((first.folder / "submission.json").read_text())
    for name in ("schema", "seal", "profile_name", "awaits"):
        tree.pop(name)
    told = f"submission {hashlib.sha256(dump_json(tree)).hexdigest()}"
    write_json(first.folder / "submission.json", {"schema": 1, "seal": seal(told), **tree})

    assert following(Submission(first.folder)).work.profile == order.profile


def test_the_submission_of_a_stranger_is_not_followed(
    steps: Plan, order: JobOrder, slurm: FakeSlurm
) -> None:
    first = waved(steps, order, slurm, "a")
    file = first.folder / "submission.json"
    file.write_text(file.read_text().replace('"cwd": "/', '"cwd": "/elsewhere/'))

    with pytest.raises(ConfigError, match="is not a submission of yours"):
        following(first)
