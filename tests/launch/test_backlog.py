"""The backlog asks the files before each start, because another launcher may have been there."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from launch_cases import family, finish, runs_of, status

from harness.config import override
from harness.config.sweep import SweepFile
from harness.files import read_json
from harness.launch.attempt import record_failure
from harness.launch.backlog import Backlog, estimate
from harness.launch.processes import Stop, stop_on_signals
from harness.planning.plan import Action, Rerun, Step, make_plan
from harness.store.lease import Lease, LeaseHeld
from harness.store.record import Store
from harness.store.state import State, Status

Plan = Callable[..., list[Step]]


def silent(line: str) -> None:
    raise AssertionError(line)


def test_intent_is_on_disk_before_a_run_is_handed_out(steps: Plan, store: Store) -> None:
    planned = steps({"a": "done"})
    assert Backlog(planned, store, silent).take() is planned[0]
    directory = store.run_dir(planned[0].run.key)
    assert directory.read_config() == planned[0].run.config
    assert read_json(directory.path / "job.json")["label"] == "a"


def test_runs_that_see_the_same_pictures_start_together_the_longest_first(store: Store) -> None:
    runs = [replace(run, seed=i % 2) for i, run in enumerate(runs_of("abcd"))]
    runs = [replace(r, config=override(r.config, {"seed": r.seed})) for r in runs]
    for alike, order in ((False, "abcd"), (True, "acbd")):
        backlog = Backlog(make_plan(runs, store), store, silent, alike=alike)
        taken = iter(backlog.take, None)
        assert "".join(step.run.label for step in taken) == order


def test_a_run_that_another_launcher_finished_is_not_started(steps: Plan, store: Store) -> None:
    planned = steps({"a": "done", "b": "done"})
    backlog = Backlog(planned, store, silent)
    finish(store, planned[0])
    assert backlog.take() is planned[1]
    assert len(backlog) == 0


def test_a_run_that_another_launcher_holds_waits(steps: Plan, store: Store) -> None:
    planned = steps({"a": "done"})
    backlog = Backlog(planned, store, silent)
    with Lease(store.run_dir(planned[0].run.key).lease_file):
        assert backlog.take() is None
        backlog.look_elsewhere()
        assert (backlog.take(), len(backlog)) == (None, 1)


@pytest.mark.parametrize(("failure", "left"), [("diverged", 0), ("killed", 1)])
def test_a_failure_elsewhere_counts_as_one_here(
    failure: str, left: int, steps: Plan, store: Store
) -> None:
    planned = steps({"a": "done"})
    backlog = Backlog(planned, store, silent)
    backlog.take()
    backlog.held(planned[0])
    store.run_dir(planned[0].run.key).write_status(State.FAILED, failure=failure)
    backlog.look_elsewhere()
    assert len(backlog) == left


@pytest.mark.parametrize("state", [State.INTERRUPTED, State.FAILED])
def test_a_run_that_was_called_off_elsewhere_is_not_begun_here(
    state: State, steps: Plan, store: Store
) -> None:
    planned = steps({"a": "done"})
    backlog = Backlog(planned, store, silent)
    directory = store.run_dir(planned[0].run.key)
    directory.write_intent(planned[0].run.config, {})
    with Lease(directory.lease_file):
        assert backlog.take() is None
        directory.request_stop("cancelled")
        directory.write_status(state, failure="killed")
    backlog.look_elsewhere()
    assert (backlog.take(), len(backlog)) == (None, 0)
    assert directory.stop_requested() == "cancelled"


def test_a_rerun_by_two_launchers_sets_the_old_result_aside_once(steps: Plan, store: Store) -> None:
    planned = steps({"a": "done"})
    store.run_dir(planned[0].run.key).write_intent(planned[0].run.config, {})
    finish(store, planned[0])
    again = steps({"a": "done"}, Rerun.ALL)
    ours, theirs = Backlog(again, store, silent), Backlog(again, store, silent)
    assert theirs.take() is again[0]
    finish(store, again[0])
    assert ours.take() is None
    assert [path.name for path in (store.runs / "superseded").iterdir()] == [
        f"{again[0].run.key}.1"
    ]


def test_a_directory_that_cannot_be_trusted_is_said_and_left(steps: Plan, store: Store) -> None:
    planned = steps({"a": "done"})
    said: list[str] = []
    backlog = Backlog(planned, store, said.append)
    store.run_dir(planned[0].run.key).path.mkdir(parents=True)
    store.run_dir(planned[0].run.key).result_file.write_text("{")
    assert backlog.take() is None
    assert "is not valid JSON" in said[0]


class TestParents:
    """Two children of one parent, in the order in which they are handed out."""

    @pytest.fixture
    def planned(self, store: Store) -> list[Step]:
        return make_plan(family(), store)

    def test_children_wait_until_their_parent_has_a_result(
        self, planned: list[Step], store: Store
    ) -> None:
        parent, *children = planned
        backlog = Backlog(planned[::-1], store, silent)
        assert backlog.take() is parent
        assert (backlog.take(), len(backlog)) == (None, 2)
        finish(store, parent)
        assert backlog.take() is None
        backlog.ended(parent, None)
        assert [backlog.take(), backlog.take()] == children[::-1]

    def test_a_parent_made_again_is_waited_for_though_it_has_a_result(
        self, planned: list[Step], store: Store
    ) -> None:
        store.run_dir(planned[0].run.key).write_intent(planned[0].run.config, {})
        finish(store, planned[0])
        parent, *children = make_plan(family(), store, Rerun.ALL)
        backlog = Backlog([parent, *children], store, silent)
        assert backlog.take() is parent
        assert store.run_dir(parent.run.key).result() is None
        assert backlog.take() is None

    def test_a_parent_that_another_launcher_holds_is_waited_for(
        self, planned: list[Step], store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("harness.launch.backlog.POLL_SECONDS", 0.0)
        backlog = Backlog(planned, store, silent)
        with Lease(store.run_dir(planned[0].run.key).lease_file):
            assert backlog.take() is None
            finish(store, planned[0])
        backlog.look_elsewhere()
        assert backlog.take() is planned[1]

    def test_a_parent_that_is_tried_once_more_is_waited_for(
        self, planned: list[Step], store: Store
    ) -> None:
        backlog = Backlog(planned, store, silent)
        assert backlog.take() is planned[0]
        backlog.ended(planned[0], "killed")
        assert backlog.take() is planned[0]
        assert backlog.take() is None

    def test_children_of_a_parent_that_failed_are_given_up_in_a_line_each(
        self, planned: list[Step], store: Store
    ) -> None:
        said: list[str] = []
        backlog = Backlog(planned, store, said.append)
        backlog.take()
        store.run_dir(planned[0].run.key).write_status(
            State.FAILED, failure="diverged", error="loss is NaN"
        )
        backlog.ended(planned[0], "diverged")
        assert (backlog.take(), len(backlog)) == (None, 0)
        end = f"cannot be started: its parent {planned[0].run.key} failed (diverged): loss is NaN"
        assert [line.partition(") ")[2] for line in said] == [end, end]
        assert not store.run_dir(planned[1].run.key).path.exists()

    def test_the_intent_names_the_sweep_file(self, store: Store) -> None:
        run = replace(runs_of(["a"])[0], source=SweepFile("/sweeps/a.py", "ab" * 32))
        Backlog(make_plan([run], store), store, silent).take()
        job = read_json(store.run_dir(run.key).path / "job.json")
        assert job["sweep"] == {"path": "/sweeps/a.py", "sha256": "ab" * 32, "seal": ""}


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_only_raises_the_flag(
        self, number: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("harness.launch.processes.INSIST_SECONDS", math.inf)
        stop, before = Stop(), signal.getsignal(number)
        with stop_on_signals(stop):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # a copy from a wrapper such as make
        assert stop()
        assert signal.getsignal(number) is before

    def test_insisting_interrupts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("harness.launch.processes.INSIST_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt), stop_on_signals(Stop()):
            os.kill(os.getpid(), signal.SIGINT)


class TestEstimate:
    def step(self, seconds: float | None) -> Step:
        run = runs_of(["a"])[0]
        return Step(run, Status(State.NEW, samples_seen=1), Action.RUN, "", seconds)

    def test_the_plan_knows_the_speed(self) -> None:
        assert estimate(self.step(12.5)) == 12.5

    def test_nothing_finished_tells_the_speed(self) -> None:
        # resnet18 at 224 px: 1.814 GMACs; text 12 layers of width 512 with 16 tokens:
        # 12 * 16 * (12 * 512**2 + 2 * 16 * 512) + 512 * 512 = 0.607 GMACs; thrice that, for the
        # 1,000 samples left of 1,001, at 12 GMACs/s.
        assert estimate(self.step(None)) == pytest.approx(3 * 1000 * 2.4214 / 12, rel=1e-3)


class TestRecordFailure:
    def record(self, store: Store, step: Step, since: float) -> None:
        record_failure(
            store.run_dir(step.run.key),
            step.run.config.evaluation_key,
            attempt=3,
            since=since,
            failure="killed",
            error="killed by SIGKILL",
        )

    def test_what_the_run_could_not_say_itself(self, steps: Plan, store: Store) -> None:
        (step,) = steps({"a": "done"})
        directory = store.run_dir(step.run.key)
        directory.write_status(State.RUNNING, attempt=3, samples_seen=640)
        self.record(store, step, since=0.0)
        seen = status(store, step)
        assert (seen.state, seen.failure, seen.samples_seen) == (State.FAILED, "killed", 640)
        assert seen.details is not None
        assert seen.details["log"] == str(directory.log_file(3))
        assert not directory.lease_file.exists()

    def test_the_runs_own_words_stand(self, steps: Plan, store: Store) -> None:
        (step,) = steps({"a": "done"})
        store.run_dir(step.run.key).write_status(State.FAILED, failure="data", error="no pictures")
        self.record(store, step, since=0.0)
        assert status(store, step).failure == "data"

    def test_but_not_those_of_an_earlier_attempt(self, steps: Plan, store: Store) -> None:
        (step,) = steps({"a": "done"})
        store.run_dir(step.run.key).write_status(State.FAILED, failure="data", error="no pictures")
        self.record(store, step, since=1e12)
        assert status(store, step).failure == "killed"

    def test_a_finished_run_stays_finished(self, steps: Plan, store: Store) -> None:
        (step,) = steps({"a": "done"})
        finish(store, step)
        self.record(store, step, since=0.0)
        assert not store.run_dir(step.run.key).status_file.exists()

    def test_a_run_taken_over_is_left_alone(self, steps: Plan, store: Store) -> None:
        (step,) = steps({"a": "done"})
        with Lease(store.run_dir(step.run.key).lease_file), pytest.raises(LeaseHeld):
            self.record(store, step, since=0.0)
