"""Steps handed out one by one to a cluster: queued once, and ended when their files say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from behind import Behind
from fake_slurm import FakeSlurm
from launch_cases import finish

from harness.config import Runtime
from harness.errors import ConfigError
from harness.launch.backlog import Backlog
from harness.launch.executors import slurm as module
from harness.launch.executors.slurm import SlurmExecutor
from harness.launch.processes import Stop
from harness.launch.profiles import Profile
from harness.launch.slurm import scheduler
from harness.launch.slurm.freeze import freeze
from harness.launch.slurm.orders import JobOrder
from harness.launch.slurm.script import Refused
from harness.launch.slurm.submissions import submissions
from harness.planning.plan import Action, Rerun, Step
from harness.store.record import Store
from harness.store.state import State

Plan = Callable[..., list[Step]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def order(store: Store, slurm: FakeSlurm, tmp_path: Path) -> JobOrder:

    return JobOrder(store, Runtime(), "s", frozen=freeze(store, None))


class Cluster(Backlog):
    """A backlog that plays what happens on the cluster whenever it is looked around.

    `script` is called with the number of the look, from 1.
    """

    def __init__(self, steps: list[Step], store: Store, script: Callable[[int], None]) -> None:
        super().__init__(steps, store, print)
        self.told: list[tuple[str, str | None]] = []
        self._script, self._looks = script, 0

    def look_elsewhere(self) -> None:
        self._looks += 1
        assert self._looks < 50, "the launch does not end"
        self._script(self._looks)
        super().look_elsewhere()

    def ended(self, step: Step, failure: str | None) -> None:
        self.told.append((step.run.label, failure))
        super().ended(step, failure)


def launch(
    steps: list[Step], order: JobOrder, script: Callable[[int], None], stop: Stop | None = None
) -> tuple[Cluster, list[str]]:
    said: list[str] = []
    source = Cluster(steps, order.store, script)
    with SlurmExecutor(order, stop or Stop()) as executor:
        executor.launch(source, said.append)
    return source, said


def submitted(store: Store) -> list[list[str]]:
    """The keys of each submission."""
    return [sorted(submission.read().keys) for submission in submissions(store)]


def test_a_step_is_a_job_and_ends_with_its_result(
    steps: Plan, order: JobOrder, store: Store, slurm: FakeSlurm
) -> None:
    a, b = steps({"a": "done", "b": "done"})

    def script(look: int) -> None:
        if look == 2:
            finish(store, b)
        if look == 4:
            finish(store, a)

    source, said = launch([a, b], order, script)
    assert source.told == [("b", None), ("a", None)]
    assert submitted(store) == [sorted([a.run.key, b.run.key])]
    assert slurm.option(101, "array") == "0-1%2"
    assert said == []


def test_a_run_that_failed_for_good_ends_when_its_job_has_given_it_up(
    steps: Plan, order: JobOrder, store: Store
) -> None:
    (a,) = steps({"a": "done"})
    directory = store.run_dir(a.run.key)

    def script(look: int) -> None:
        (submission,) = submissions(store)
        if look == 1:  # as a worker that died; the job starts it again
            directory.write_status(State.FAILED, failure="killed", error="SIGKILL")
            directory.add_end("killed", "SIGKILL", submission=submission.folder.name)
        if look == 3:
            directory.write_status(State.FAILED, failure="diverged", error="NaN")
            directory.add_end("diverged", "NaN", submission=submission.folder.name)

    source, _ = launch([a], order, script)
    assert source.told == [("a", "diverged")]


def test_a_job_that_left_the_queue_without_a_word_is_submitted_once_more(
    steps: Plan, order: JobOrder, store: Store, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.0)
    (a,) = steps({"a": "done"})

    def script(look: int) -> None:
        if look == 2:
            slurm.queue.write_text("")
        if look == 5:
            finish(store, a)

    source, _ = launch([a], order, script)
    assert source.told == [("a", "killed"), ("a", None)]
    assert submitted(store) == [[a.run.key]] * 2


def test_a_run_that_is_called_off_before_it_began_has_ended(
    steps: Plan, order: JobOrder, store: Store
) -> None:
    (a,) = steps({"a": "done"})
    source, _ = launch([a], order, lambda look: store.run_dir(a.run.key).request_stop("cancelled"))
    assert source.told == [("a", "cancelled")]
    assert len(submitted(store)) == 1


def test_a_launch_that_is_stopped_leaves_its_jobs_and_the_next_takes_them_up(
    steps: Plan, order: JobOrder, store: Store, slurm: FakeSlurm
) -> None:
    (a,) = steps({"a": "done"})
    stop = Stop()
    source, said = launch([a], order, lambda look: stop.ask(), stop)
    assert said == ["stopping: 1 runs stay in the queue or go on there"]
    assert slurm.asked("scancel") == []
    source, _ = launch([a], order, lambda look: finish(store, a))
    assert source.told == [("a", None)]
    assert len(slurm.asked("sbatch")) == 1


def test_a_step_that_was_running_when_it_was_planned_can_be_submitted(
    steps: Plan, order: JobOrder, store: Store
) -> None:
    (a,) = steps({"a": "done"})
    source, _ = launch([replace(a, action=Action.ATTACH)], order, lambda look: finish(store, a))
    assert source.told == [("a", None)]
    assert submitted(store) == [[a.run.key]]


def test_what_the_queue_refuses_at_first_ends_the_launch_with_its_words(
    steps: Plan, order: JobOrder, slurm: FakeSlurm
) -> None:
    slurm.refuses(101, "Invalid qos specification")
    with pytest.raises(Refused, match="Invalid qos"):
        launch(steps({"a": "done"}), order, lambda look: None)


def test_what_the_queue_has_no_room_for_waits(
    steps: Plan, order: JobOrder, store: Store, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.0)
    a, b = steps({"a": "done", "b": "done"})
    slurm.refuses(102, "Job violates accounting/QOS policy")

    def script(look: int) -> None:
        if look == 1:
            source.add(b)
        if look == 3:
            (slurm.folder / "sbatch.refuses.102").unlink()
        if look == 6:
            finish(store, a)
            finish(store, b)

    said: list[str] = []
    source = Cluster([a], store, script)
    with SlurmExecutor(order, Stop()) as executor:
        executor.launch(source, said.append)
    assert sorted(source.told) == [("a", None), ("b", None)]
    assert submitted(store) == [[a.run.key], [b.run.key]]
    assert "QOS policy" in said[0]
    assert said[0].endswith("; 1 runs wait to be submitted")


def test_a_time_limit_without_room_for_a_checkpoint_is_refused_before_anything(
    steps: Plan, order: JobOrder, slurm: FakeSlurm
) -> None:
    short = replace(order, profile=Profile(time=1))
    with pytest.raises(ConfigError, match="less than one checkpoint interval"):
        launch(steps({"a": "done"}), short, lambda look: None)
    assert slurm.asked("sbatch") == []


def test_who_stays_outlasts_a_controller_that_is_down(
    steps: Plan, order: JobOrder, store: Store, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (a,) = steps({"a": "done"})
    said: list[str] = []
    down, back = (lambda: slurm.fails("squeue")), (lambda: slurm.works("squeue"))
    looks = iter((down, back, lambda: finish(store, a)))
    sleep = time.sleep

    def wait(seconds: float) -> None:
        next(looks)() if seconds == scheduler.POLL_SECONDS else sleep(seconds)

    monkeypatch.setattr(module.time, "sleep", wait)
    executor = SlurmExecutor(order, stay=True)
    watching = lambda *_: nullcontext(said.append)  # noqa: E731
    assert executor.carry_out([a], lambda: None, watching, Rerun.MISSING) is None
    assert said == ["squeue: it does not work"]
    assert next(looks, None) is None


def test_a_result_that_is_not_seen_yet_is_no_death(
    steps: Plan, order: JobOrder, store: Store, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.0)
    (a,) = steps({"a": "done"})

    def script(look: int) -> None:
        if look == 2:
            behind = Behind(store.root, monkeypatch)
            behind.elsewhere(lambda: finish(store, a))
            slurm.queue.write_text("")
            assert store.run_dir(a.run.key).result() is None, "as NFS may have it"

    source, _ = launch([a], order, script)
    assert source.told == [("a", None)]
    assert submitted(store) == [[a.run.key]]


def test_who_stays_reports_on_what_is_there_and_not_on_what_was(
    steps: Plan, order: JobOrder, store: Store, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (a,) = steps({"a": "done"})
    sleep = time.sleep

    def wait(seconds: float) -> None:
        if seconds != scheduler.POLL_SECONDS:
            return sleep(seconds)
        behind = Behind(store.root, monkeypatch)
        behind.elsewhere(lambda: finish(store, a))
        return slurm.queue.write_text("") and None

    monkeypatch.setattr(module.time, "sleep", wait)
    executor = SlurmExecutor(order, stay=True)
    watching = lambda *_: nullcontext(print)  # noqa: E731
    assert executor.carry_out([a], lambda: None, watching, Rerun.MISSING) is None
    assert store.run_dir(a.run.key).result() is not None


def test_who_stays_does_not_leave_what_one_listing_lacks(
    steps: Plan, order: JobOrder, store: Store, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (a,) = steps({"a": "done"})

    def lacking() -> None:
        (submission,) = submissions(store)
        slurm.queue.write_text("")
        job = f"JobId=101 ArrayJobId=101 ArrayTaskId=0 JobName={submission.read().arrays[0].name}"
        slurm.says("scontrol", f"{job} JobState=PENDING\n")

    looks = iter((lacking, lambda: finish(store, a)))
    sleep = time.sleep
    monkeypatch.setattr(
        module.time,
        "sleep",
        lambda seconds: next(looks)() if seconds == scheduler.POLL_SECONDS else sleep(seconds),
    )
    executor = SlurmExecutor(order, stay=True)
    watching = lambda *_: nullcontext(print)  # noqa: E731
    assert executor.carry_out([a], lambda: None, watching, Rerun.MISSING) is None
    assert next(looks, None) is None
