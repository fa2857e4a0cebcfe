"""What a job leaves behind, whatever ends it: its runs' records, and its place in the queue."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fake_slurm import FakeSlurm
from launch_cases import status, trained, when

from harness.config import ImageTower, Model, RunConfig, Train
from harness.config.sweep import Run
from harness.files import read_json
from harness.launch.profiles import Profile
from harness.launch.slurm import supervisor as module
from harness.launch.slurm.array_task import ArrayTask
from harness.launch.slurm.orders import JobOrder
from harness.launch.slurm.submissions import Submission
from harness.launch.slurm.submit import submit
from harness.launch.slurm.supervisor import Aftermath, Supervisor, _Signals, same_death
from harness.planning.plan import Step, make_plan
from harness.store.record import Store
from harness.store.state import State

Plan = Callable[..., list[Step]]
pytestmark = pytest.mark.usefixtures("fake_workers")


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def job(order: JobOrder, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ArrayTask]:
    """`job(steps, restarts=1, pack=2)`: these steps, submitted as they are, and task 0 begun."""

    def begin(
        steps: list[Step],
        *,
        restarts: int = 0,
        index: int = 0,
        submission: Any = None,
        **profile: Any,
    ) -> ArrayTask:
        if submission is None:
            submitted = submit(steps, replace(order, profile=Profile(**profile)), print)
            submission = submitted.submission
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "101")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(index))
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        monkeypatch.setenv("SLURMD_NODENAME", "n1")
        return ArrayTask.of_environment(submission, 0, submission.read().sha256)

    return begin


def run(task: ArrayTask) -> int:
    return Supervisor(task, _Signals()).supervise()


def classes(store: Store, step: Step) -> list[str]:
    return [end["class"] for end in store.run_dir(step.run.key).ends()]


class TestEnds:
    def test_runs_of_a_task_are_run(self, job: Any, steps: Plan, store: Store) -> None:
        task = job(steps({"a": "done", "b": "done"}), pack=2)
        assert run(task) == 0
        assert sorted(trained(store)) == ["a seed 0", "b seed 0"]
        assert task.submission.has_ended(0, 0, 0)

    def test_runs_of_a_job_share_their_pictures_where_the_profile_says_so(
        self, job: Any, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "done", "b": "done"})
        assert run(job(planned, pack=2, share_data=True)) == 0
        files = [store.run_dir(step.run.key).path / "provenance.json" for step in planned]
        folders = {(read_json(file) or {})["attempts"][0]["shared"] for file in files}
        assert len(folders) == 1
        assert not Path(folders.pop()).exists()

    def test_a_run_that_is_done_is_not_run_again(self, job: Any, steps: Plan, store: Store) -> None:
        task = job(steps({"a": "done"}))
        run(task)
        assert run(task) == 0
        assert trained(store) == ["a seed 0"]

    @pytest.mark.thorough
    def test_a_killed_worker_is_replaced_and_its_run_goes_on(
        self, job: Any, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "killed 2"})
        assert run(job(planned)) == 0
        assert classes(store, planned[0]) == ["killed"]
        assert trained(store) == ["a seed 0"]

    @pytest.mark.thorough
    def test_a_run_that_is_always_killed_is_given_up(
        self, job: Any, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "killed 99"})
        assert run(job(planned, max_retries=1)) == 1
        seen = status(store, planned[0])
        assert (seen.state, seen.failure) == (State.FAILED, "killed")
        assert seen.error == "killed by SIGKILL; 2 times, and max_retries = 1"

    @pytest.mark.parametrize(
        "behaviour",
        ["bug", *(pytest.param(n, marks=pytest.mark.thorough) for n in ("diverged", "disk_full"))],
    )
    def test_what_would_happen_again_is_left(
        self, job: Any, steps: Plan, store: Store, slurm: FakeSlurm, behaviour: str
    ) -> None:
        planned = steps({"a": behaviour, "b": "done"})
        assert run(job(planned, pack=2)) == 1
        assert (classes(store, planned[0]), trained(store)) == ([behaviour], ["b seed 0"])
        assert not any("requeue" in call for call in slurm.asked("scontrol"))

    def test_lack_of_memory_is_met_with_smaller_parts_of_the_same_batch(
        self, job: Any, steps: Plan, store: Store
    ) -> None:
        steps({"a": "memory 2"})
        vit = Model(image=ImageTower(backbone="vit_tiny_patch16_224"))
        config = RunConfig(model=vit, train=Train(samples=1000, batch_size=24))
        planned = make_plan([Run("a", {}, 0, config)], store)
        assert run(job(planned)) == 0
        assert [end["micro_batch"] for end in store.run_dir(config.run_key).ends()] == [None, 12]
        assert trained(store) == ["a seed 0"]

    def test_a_model_that_cannot_have_smaller_parts_stops_and_says_so(
        self, job: Any, steps: Plan, store: Store
    ) -> None:
        steps({"a": "memory 2"})
        resnet = Model(image=ImageTower(backbone="resnet18"))
        planned = make_plan([Run("a", {}, 0, RunConfig(model=resnet))], store)
        assert run(job(planned)) == 1
        seen = status(store, planned[0])
        assert (seen.failure, seen.error) == (
            "out_of_memory",
            "MemoryError: no memory left; smaller parts of a batch are no way out: "
            "its BatchNorm sees the whole batch",
        )
        assert run(job(planned, submission=newest(store))) == 1
        assert trained(store) == []

    def test_a_run_that_was_called_off_is_not_begun(
        self, job: Any, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "done", "b": "done"})
        task = job(planned, pack=2)
        store.run_dir(planned[0].run.key).request_stop("cancelled")
        assert run(task) == 0  # nothing that anybody wants is left
        assert trained(store) == ["b seed 0"]


def newest(store: Store) -> Submission:
    from harness.launch.slurm.submissions import submissions

    return list(submissions(store))[-1]


class TestReport:
    """The last task to end sees to it that a report follows."""

    @pytest.mark.parametrize("refused", [True, False])
    def test_what_sbatch_never_took_is_submitted_and_what_somebody_cancelled_is_not(
        self, job: Any, steps: Plan, slurm: FakeSlurm, refused: bool
    ) -> None:
        planned = steps({"a": "done", "b": "done"})
        if refused:
            slurm.refuses(102, "Job violates accounting/QOS policy")
        first = job(planned)
        (slurm.folder / "sbatch.refuses.102").unlink(missing_ok=True)
        array = slurm.queue.read_text().splitlines()[0]
        slurm.queue.write_text(f"{array}\n")
        assert run(first) == 0
        assert first.submission.job("report") == (None if refused else "102")
        assert run(job(planned, submission=first.submission, index=1)) == 0
        assert first.submission.job("report") == "102"
        assert slurm.option(102, "dependency") == "afterany:101"
        assert len(slurm.asked("sbatch")) == (3 if refused else 2)


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "state", "failure", "requeued"),
        [
            (signal.SIGTERM, "RUNNING", "preempted", True),
            (signal.SIGTERM, "PREEMPTED", "preempted", False),
            (signal.SIGTERM, "PENDING", "preempted", False),
            (signal.SIGTERM, "CANCELLED", "cancelled", False),
            (signal.SIGUSR2, "RUNNING", "time_limit", True),
        ],
    )
    def test_the_state_is_saved_and_the_job_goes_back_unless_it_was_cancelled(
        self, job: Any, steps: Plan, store: Store, slurm: FakeSlurm,
        number: int, state: str, failure: str, requeued: bool,
    ) -> None:  # fmt: skip
        planned = steps({"a": "wait 1"})
        task = job(planned)
        slurm.says("scontrol", f"   JobState={state} Reason=None\n")
        begun = lambda: status(store, planned[0]).attempt == 1  # noqa: E731
        thread = when(begun, lambda: os.kill(os.getpid(), number))
        assert run(task) == 1
        thread.join()
        assert status(store, planned[0]).samples_seen == 5
        assert classes(store, planned[0]) == [failure]
        assert ("requeue 101_0" in slurm.asked("scontrol")) is requeued

    def test_a_silent_scheduler_leaves_it_to_the_next_command(
        self, job: Any, steps: Plan, store: Store, slurm: FakeSlurm
    ) -> None:
        planned = steps({"a": "wait 1"})
        task = job(planned)
        slurm.fails("scontrol")
        begun = lambda: status(store, planned[0]).attempt == 1  # noqa: E731
        thread = when(begun, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run(task) == 1
        thread.join()
        assert status(store, planned[0]).state is State.INTERRUPTED

    @pytest.mark.thorough
    def test_the_next_start_of_the_job_goes_on(
        self, job: Any, steps: Plan, store: Store, slurm: FakeSlurm
    ) -> None:
        planned = steps({"a": "wait 1"})
        task = job(planned)
        slurm.says("scontrol", "   JobState=RUNNING\n")
        begun = lambda: status(store, planned[0]).attempt == 1  # noqa: E731
        thread = when(begun, lambda: os.kill(os.getpid(), signal.SIGUSR2))
        run(task)
        thread.join()
        assert run(job(planned, submission=task.submission, restarts=1)) == 0
        assert trained(store) == ["a seed 0"]


class TestHoldingBack:
    def test_a_sweep_whose_first_tasks_die_of_the_same_error_leaves_the_rest(
        self, job: Any, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "bug", "b": "bug", "c": "bug", "d": "done"})
        task = job(planned)
        for index in range(4):
            assert run(job(planned, submission=task.submission, index=index)) == 1
        assert task.submission.held() == (
            "the first 3 tasks died of the same error (bug): KeyError: 'no such thing'"
        )
        assert status(store, planned[3]).state is State.NEW

    @pytest.mark.parametrize(
        ("deaths", "held"),
        [
            (["bug: x 1", "bug: x 2", "bug: x 3"], True),
            (["bug: x", "bug: y", "bug: x"], False),
            (["bug: x", "bug: x"], False),
            (["killed: x", "killed: x", "killed: x"], False),
            (["done", "bug: x", "bug: x", "bug: x"], False),
        ],
    )
    def test_numbers_do_not_make_errors_different(self, deaths: list[str], held: bool) -> None:
        ends = [{"runs": {"k": _said(death)}} for death in deaths]
        assert (same_death(ends, 10) is not None) is held


def _said(death: str) -> dict[str, str | None]:
    failure, _, error = death.partition(": ")
    if failure == "done":
        return {"state": "done", "failure": None, "error": None}
    return {"state": "failed", "failure": failure, "error": error}


def test_a_name_that_only_means_this_machine_is_none_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SLURM_LAUNCH_NODE_IPADDR", raising=False)
    for own, address in (("127.0.1.1", "10.1.2.3"), ("10.9.9.9", "node7")):
        probe = mock.MagicMock()
        probe.__enter__.return_value.getsockname.return_value = ("10.1.2.3", 5)
        monkeypatch.setattr(module.socket, "gethostname", lambda: "node7")
        monkeypatch.setattr(module.socket, "gethostbyname", lambda name, own=own: own)
        monkeypatch.setattr(module.socket, "socket", lambda *kind, probe=probe: probe)
        assert module._address() == address


class TestNodes:
    def test_a_node_without_the_gpu_it_promised_is_left(
        self, job: Any, steps: Plan, store: Store, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "gpus_of_machine", list)
        planned = steps({"a": "done"})
        assert run(job(planned, gpus=1)) == 1
        assert classes(store, planned[0]) == ["node_failure"]
        assert slurm.asked("scontrol")[-2:] == [
            "requeue 101_0",
            "update JobId=101_0 ExcNodeList=n1",
        ]

    def test_an_attempt_that_left_no_word_is_accounted_for(
        self, job: Any, steps: Plan, store: Store, slurm: FakeSlurm
    ) -> None:
        planned = steps({"a": "done"})
        task = job(planned)
        _leave_without_a_word(store, planned[0])
        slurm.says("sacct", "101_0|NODE_FAIL\n")
        assert run(task) == 0
        assert classes(store, planned[0]) == ["node_failure"]


def _leave_without_a_word(store: Store, step: Step) -> None:
    directory = store.run_dir(step.run.key)
    here = {"array": "101", "index": "0", "node": "n7"}
    attempt = directory.add_provenance({"slurm": here, "micro_batch": None})
    directory.write_status(State.RUNNING, attempt=attempt, samples_seen=7)


class TestAfterwards:
    """The batch script, when the supervisor was killed with everything else."""

    @pytest.mark.parametrize(
        ("code", "printed", "failure"),
        [
            (137, "slurmstepd: error: Exceeded job memory limit", "out_of_memory"),
            (137, "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0", "out_of_memory"),
            (137, "", "killed"),
            (143, "", "preempted"),
        ],
    )
    def test_the_end_is_put_on_record_and_the_job_in_the_queue(
        self, job: Any, steps: Plan, store: Store, slurm: FakeSlurm,
        code: int, printed: str, failure: str,
    ) -> None:  # fmt: skip
        planned = steps({"a": "done"})
        task = job(planned)
        (task.submission.logs / "101_0_0_log.out").write_text(
            f"Exceeded job memory limit\ntask 101_0 of submission x\n{printed}\n"
        )
        _leave_without_a_word(store, planned[0])
        slurm.says("scontrol", "   JobState=RUNNING\n")
        Aftermath(task, code).tidy()
        assert classes(store, planned[0]) == [failure]
        assert "requeue 101_0" in slurm.asked("scontrol")

    def test_a_cancelled_job_stays_cancelled(
        self, job: Any, steps: Plan, store: Store, slurm: FakeSlurm
    ) -> None:
        planned = steps({"a": "done"})
        task = job(planned)
        _leave_without_a_word(store, planned[0])
        slurm.says("scontrol", "   JobState=CANCELLED\n")
        Aftermath(task, 143).tidy()
        assert "requeue 101_0" not in slurm.asked("scontrol")

    def test_memory_that_does_not_suffice_to_begin_is_not_tried_again(
        self, job: Any, steps: Plan, store: Store, slurm: FakeSlurm
    ) -> None:
        planned = steps({"a": "done"})
        task = job(planned)
        (task.submission.logs / "101_0_0_log.out").write_text("Exceeded job memory limit")
        Aftermath(task, 137).tidy()
        seen = status(store, planned[0])
        assert (seen.state, seen.failure) == (State.FAILED, "out_of_memory")
        assert "requeue 101_0" not in slurm.asked("scontrol")

    def test_there_is_nothing_to_do_after_a_supervisor_that_ended_by_itself(
        self, job: Any, steps: Plan, store: Store, slurm: FakeSlurm
    ) -> None:
        planned = steps({"a": "bug"})
        task = job(planned)
        run(task)
        Aftermath(task, 1).tidy()
        assert classes(store, planned[0]) == ["bug"]
