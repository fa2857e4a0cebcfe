"""The live view says what the runs' own files say."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from harness.monitor.snapshot import RunSnapshot, SnapshotReader, time_left
from harness.monitor.terminal import Lines, change_line, live_table, progress_line, total
from harness.planning.costs import duration
from harness.planning.plan import Step
from harness.store.lease import Lease
from harness.store.record import Store
from harness.store.state import State

Plan = Callable[..., list[Step]]


def train(store: Store, step: Step, samples_seen: int) -> Lease:
    """Make a run look like one that trains at 50 samples/s; enter the lease to make it live."""
    directory = store.run_dir(step.run.key)
    directory.write_status(
        State.RUNNING,
        attempt=1,
        samples_seen=samples_seen,
        samples_per_second=50.0,
        data_wait=0.25,
        loss=3.14159,
        eta_seconds=10.0,
        phase="train",
    )
    return Lease(directory.lease_file)


def look(store: Store, planned: list[Step]) -> list[RunSnapshot]:
    return SnapshotReader(store).read([step.run for step in planned])


def screen(store: Store, planned: list[Step], height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=110)
    with console.capture() as capture:
        console.print(live_table(look(store, planned), height))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_a_row_shows_pace_wait_loss_and_time_left(steps: Plan, store: Store) -> None:
    planned = steps({"layers=1": "", "layers=2": ""})  # 1,002 and 1,001 samples
    with train(store, planned[0], 501):
        lines = screen(store, planned, height=10)
    key, other = planned[0].run.key, planned[1].run.key
    assert lines == [
        "run seed key state done samples/s data wait loss left",
        f"layers=1 0 {key} train 50% 50 25% 3.142 10 s",
        f"layers=2 0 {other} new 0% - - - -",
        "0/2 done, 1 running, 1 new; 50 samples/s, 30 s left at this pace",
    ]


def test_many_rows_are_summed_up_and_the_running_come_first(steps: Plan, store: Store) -> None:
    planned = steps(dict.fromkeys("abcdef", ""))
    store.run_dir(planned[1].run.key).write_status(State.FAILED, failure="diverged", error="NaN")
    with train(store, planned[4], 0):
        lines = screen(store, planned, height=3)
    assert [line.split()[0] for line in lines[1:3]] == ["e", "b"]
    assert "failed: diverged" in lines[2]
    assert lines[3] == "and 4 new"
    assert lines[4].startswith("0/6 done, 1 running, 1 failed (diverged), 4 new; ")


def test_time_left_is_the_work_left_at_the_pace_of_all_running_runs(
    steps: Plan, store: Store
) -> None:
    planned = steps({"a": "", "b": "", "c": ""})  # 1,003, 1,002 and 1,001 samples
    assert time_left(look(store, planned)) is None
    with train(store, planned[0], 3), train(store, planned[1], 2):
        # 3,001 samples left of equal cost, at 100 samples/s.
        assert time_left(look(store, planned)) == pytest.approx(30.01)


def test_a_run_cut_off_is_not_shown_as_running(steps: Plan, store: Store) -> None:
    planned = steps({"a": ""})
    train(store, planned[0], 501)
    assert "stale 50% - - 3.142 -" in screen(store, planned, height=5)[1]


class TestLines:
    def lines(self, planned: list[Step], store: Store) -> tuple[Lines, io.StringIO, list[float]]:
        out, clock = io.StringIO(), [0.0]
        return Lines(lambda: look(store, planned), out, lambda: clock[0]), out, clock

    def test_a_line_for_each_change_of_state_and_none_between(
        self, steps: Plan, store: Store
    ) -> None:
        planned = steps({"a": "", "b": ""})
        lines, out, _ = self.lines(planned, store)
        with train(store, planned[0], 10):
            lines.look()
            lines.look()
        store.run_dir(planned[0].run.key).write_status(
            State.FAILED, failure="data", error="no pictures", log="logs/attempt-1.txt"
        )
        lines.look()
        assert [line.partition(" ")[2] for line in out.getvalue().splitlines()] == [
            f"a seed 0 ({planned[0].run.key}): running",
            f"a seed 0 ({planned[0].run.key}): failed (data): no pictures; log: logs/attempt-1.txt",
        ]

    def test_a_progress_line_every_thirty_seconds(self, steps: Plan, store: Store) -> None:
        planned = steps({"a": ""})
        lines, out, clock = self.lines(planned, store)
        for clock[0] in (0.0, 29.0, 31.0, 59.0, 61.5):
            lines.look()
        assert [line.partition(" ")[2] for line in out.getvalue().splitlines()] == [
            "0/1 done, 1 new",
            "0/1 done, 1 new",
        ]

    def test_progress_names_the_running_runs(self, steps: Plan, store: Store) -> None:
        planned = steps({"a": ""})  # 1,001 samples
        with train(store, planned[0], 501):
            rows = look(store, planned)
            assert progress_line(rows) == (
                "0/1 done, 1 running; 50 samples/s, 10 s left at this pace; "
                "a seed 0 50% (50 samples/s, loss 3.142)"
            )
            assert change_line(rows[0]) == f"a seed 0 ({planned[0].run.key}): running"
            assert total(rows) == "0/1 done, 1 running; 50 samples/s, 10 s left at this pace"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (720, "12 min"), (12_600, "3.5 h"), (181_440, "2.1 days")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
