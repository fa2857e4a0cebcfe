"""One contract for every executor: what is pending gets run, and a failure is only a record."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from launch_cases import family, stand_in_for_ssh, status, trained, when

from harness.config import Runtime
from harness.launch.backlog import Backlog
from harness.launch.executor import Assignment, Executor
from harness.launch.executors.inline import InlineExecutor
from harness.launch.executors.local import LocalExecutor
from harness.launch.executors.prefix import PrefixExecutor, PrefixSlot
from harness.launch.processes import Stop
from harness.launch.slots import Slot
from harness.planning.plan import Rerun, Step, make_plan
from harness.store.lease import Lease
from harness.store.record import Store
from harness.store.state import State

Plan = Callable[..., list[Step]]


@pytest.fixture
def stop() -> Stop:
    return Stop()


@pytest.fixture(params=["inline", "local", "prefix"])
def executor(
    request: pytest.FixtureRequest,
    store: Store,
    stop: Stop,
    fake_run: None,
    fake_workers: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Executor:
    if request.param == "prefix":
        ssh = stand_in_for_ssh(tmp_path_factory.mktemp("bin"))
        return PrefixExecutor(
            Assignment(store, Runtime()), stop, [PrefixSlot(1, None, (ssh, "host"))]
        )
    if request.param == "inline":
        return InlineExecutor(Assignment(store, Runtime()), stop)
    return LocalExecutor(Assignment(store, Runtime()), stop, [Slot(1)])


def launch(executor: Executor, planned: list[Step]) -> list[str]:
    said: list[str] = []
    with executor:
        executor.launch(Backlog(planned, executor.work.store, said.append), said.append)
    return said


class TestExecutor:
    def test_runs_everything_longest_first(
        self, executor: Executor, steps: Plan, store: Store
    ) -> None:
        launch(executor, steps({"long": "done", "middle": "done", "short": "done"})[::-1])
        assert trained(store) == ["long seed 0", "middle seed 0", "short seed 0"]

    def test_a_parent_is_trained_before_its_children(
        self, executor: Executor, store: Store
    ) -> None:
        launch(executor, make_plan(family(), store)[::-1])
        assert trained(store)[0] == "layers=4 seed 0"
        assert len(trained(store)) == 3

    @pytest.mark.parametrize("behaviour", ["diverged", "bug", "disk_full"])
    def test_the_children_of_a_failed_parent_are_not_started(
        self, executor: Executor, store: Store, behaviour: str
    ) -> None:
        (store.root / "fake.json").write_text(json.dumps({"layers=4": behaviour}))
        said = launch(executor, make_plan(family(), store))
        assert trained(store) == []
        assert [" cannot be started: its parent " in line for line in said] == [True, True]

    def test_failures_are_filed_by_class_and_the_next_run_goes_on(
        self, executor: Executor, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "bug", "b": "diverged", "c": "disk_full", "d": "done"})
        launch(executor, planned)
        assert [(status(store, s).state, status(store, s).failure) for s in planned] == [
            (State.FAILED, "bug"),
            (State.FAILED, "diverged"),
            (State.FAILED, "disk_full"),
            (State.DONE, None),
        ]

    def test_the_log_of_an_unknown_failure_holds_its_traceback(
        self, executor: Executor, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "bug"})
        launch(executor, planned)
        log = store.run_dir(planned[0].run.key).log_file(1).read_text()
        assert "KeyError: 'no such thing'" in log

    def test_a_second_plan_has_nothing_left_to_do(
        self, executor: Executor, steps: Plan, store: Store
    ) -> None:
        launch(executor, steps({"a": "done", "b": "done"}))
        assert [step.pending for step in steps({"a": "done", "b": "done"})] == [False, False]

    def test_a_stop_saves_the_running_run_and_starts_no_other(
        self, executor: Executor, stop: Stop, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "wait 1", "b": "done"})
        thread = when(lambda: status(store, planned[0]).attempt == 1, stop.ask)
        launch(executor, planned)
        thread.join()
        assert [status(store, s).state for s in planned] == [State.INTERRUPTED, State.NEW]
        assert status(store, planned[0]).samples_seen == 5

    def test_a_rerun_keeps_the_old_result(
        self, executor: Executor, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "diverged"})
        launch(executor, planned)
        again = steps({"a": "done"}, Rerun.FAILED)
        launch(executor, again)
        old = store.runs / "superseded" / f"{planned[0].run.key}.1"
        assert '"failure": "diverged"' in (old / "status.json").read_text()
        assert not (old / "lease.json").exists()
        assert status(store, planned[0]).state is State.DONE

    def test_a_run_held_by_another_launcher_is_taken_over_when_it_lets_go(
        self, executor: Executor, steps: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        planned = steps({"a": "done", "b": "done"})
        held = Lease(store.run_dir(planned[0].run.key).lease_file)
        held.__enter__()
        monkeypatch.setattr("harness.launch.backlog.POLL_SECONDS", 0.05)
        monkeypatch.setattr("harness.launch.executors.inline.POLL_SECONDS", 0.05)
        release_when(lambda: trained(store) == ["b seed 0"], held, monkeypatch)
        launch(executor, planned)
        assert trained(store) == ["b seed 0", "a seed 0"]

    def test_preflight_tells_problems_and_starts_nothing(
        self, executor: Executor, steps: Plan, store: Store
    ) -> None:
        config = steps({"a": "done"})[0].run.config
        broken = config.model_copy(
            update={"data": config.data.model_copy(update={"path": "nowhere"})}
        )
        with executor:
            problems = executor.preflight([config, broken])
        assert problems == ["no picture at nowhere"]
        assert not store.runs.exists()

    def test_what_cannot_be_prepared_is_said_and_left(
        self, executor: Executor, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "done", "b": "done"})
        store.runs.mkdir(parents=True)
        store.run_dir(planned[0].run.key).path.write_text("a file is in the way")
        said = launch(executor, planned)
        assert trained(store) == ["b seed 0"]
        assert len(said) == 1
        assert said[0].startswith(f"a seed 0 ({planned[0].run.key}) cannot be started: ")


def release_when(
    condition: Callable[[], bool], held: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let go of a lease at the first look elsewhere at which `condition` is true."""
    from harness.launch.backlog import Backlog

    look = Backlog.look_elsewhere

    def release_then_look(self: Backlog) -> None:
        if condition() and held.is_mine():
            held.__exit__(None, None, None)
        look(self)

    monkeypatch.setattr(Backlog, "look_elsewhere", release_then_look)
