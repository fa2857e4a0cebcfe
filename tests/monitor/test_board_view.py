"""What the board knows: the same words and numbers as the status command, and curves and logs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from board_cases import ERROR, EVIL, QUESTION, SWEEP, Root

from harness.config import Runtime
from harness.config.sweep import expand
from harness.errors import RecordError
from harness.monitor.logs import NumberLog, tail, thinned
from harness.monitor.snapshot import SnapshotReader
from harness.monitor.terminal import total
from harness.monitor.web import view
from harness.monitor.web.view import Board
from harness.store.manifest import write_manifest
from harness.store.state import State
from harness.store.trials import Ledger, Origin, Outcome, Trial


@pytest.fixture
def board(root: Root, monkeypatch: pytest.MonkeyPatch) -> Board:
    monkeypatch.setattr(view, "LOOK_SECONDS", 0.0)
    return Board(root.store)


class TestOverview:
    def test_a_sweep_is_a_line_of_numbers(self, board: Board, root: Root) -> None:
        found = board.overview()
        (sweep,) = found["sweeps"]
        assert (found["root"], sweep["name"], sweep["question"]) == (
            str(root.path),
            "depth",
            QUESTION,
        )
        assert sweep["states"] == {"running": 1, "failed": 1, "new": 1, "done": 1}
        assert (sweep["failures"], sweep["runs"], sweep["rate"]) == ({"bug": 1}, 4, 50.0)
        # 36 s of two cores that finished; 500 samples at 50 a second on two cores so far.
        assert sweep["hours"] == {"core-hours": pytest.approx(2 * (36 + 10) / 3600)}
        assert sweep["search"] is False

    def test_it_says_what_the_status_command_says(self, board: Board, root: Root) -> None:
        words = total(SnapshotReader(root.store).read(root.runs))
        assert words.startswith("1/4 done, 1 running, 1 failed (bug), 1 new; 50 samples/s, ")
        (sweep,) = board.overview()["sweeps"]
        assert f"{sum(sweep['hours'].values()):.3g} core-hours" in words

    def test_a_run_of_two_sweeps_counts_once_in_all(self, board: Board, root: Root) -> None:
        other = replace(SWEEP, name="again")
        write_manifest(root.store, other, root.runs[:2], Runtime(), ["x"])
        found = board.overview()
        assert [sweep["runs"] for sweep in found["sweeps"]] == [2, 4]
        assert (found["all"]["runs"], found["all"]["rate"]) == (4, 50.0)

    def test_a_sweep_that_cannot_be_read_says_why_and_hides_no_other(
        self, board: Board, root: Root
    ) -> None:
        root.store.manifest_file("broken").write_text("{")
        broken, depth = board.overview()["sweeps"]
        assert "is not valid JSON" in broken["problem"]
        assert depth["runs"] == 4

    def test_nothing_is_written(self, board: Board, root: Root) -> None:
        before = root.files()
        board.overview()
        board.sweep("depth")
        board.sweep_curves("depth", "loss")
        for run in root.runs[:3]:
            board.run(run.key)
            board.run_curves(run.key)
            board.run_log(run.key, None)
        # The lease is the test's own, which renews it.
        lease = str(root.directory(root.going_on).lease_file)
        after = root.files()
        assert {**after, lease: before[lease]} == before


class TestSweep:
    def test_a_run_is_a_row(self, board: Board, root: Root) -> None:
        found = board.sweep("depth")
        assert [metric["words"] for metric in found["metrics"]] == ["mean recall"]
        rows = {row["key"]: row for row in found["runs"]}
        done, running, failed, new = (rows[run.key] for run in root.runs)
        assert (done["label"], done["state"], done["values"]) == (EVIL, "done", [0.25])
        assert (running["state"], running["share"], running["loss"]) == ("running", 0.5, 1.5)
        assert (failed["words"], failed["error"]) == ("failed: bug", ERROR)
        assert (new["state"], new["beat"], new["values"]) == ("new", None, [None])

    def test_a_point_has_the_mean_of_the_seeds_that_are_done(
        self, board: Board, root: Root
    ) -> None:
        seeds = [*root.runs, *expand(SWEEP, seeds=[1, 2])]
        write_manifest(root.store, SWEEP, seeds, Runtime(), ["x"])
        second_seed = next(run for run in seeds[4:] if run.point == root.done.point)
        result = root.directory(root.done).result()
        assert result is not None
        (evaluation,) = result["evaluations"].values()
        found = {"test/mean_recall": {"value": 0.35, "n": 40, "chance": 0.01}}
        mine = {second_seed.config.evaluation_key: {**evaluation, "metrics": found}}
        root.directory(second_seed).write_result({**result, "evaluations": mine})

        first, second, *_ = board.sweep("depth")["points"]

        assert (first["label"], [seed["state"] for seed in first["seeds"]]) == (
            EVIL,
            ["done", "done", "new"],
        )
        (value,) = first["values"]
        assert value == {
            "mean": pytest.approx(0.3),
            "sd": pytest.approx(0.0707, abs=1e-4),
            "seeds": 2,
        }
        assert second["values"] == [None]
        assert second["share"] == pytest.approx(0.5 / 3, abs=1e-4)

    def test_failures_are_told_by_their_cause(self, board: Board, root: Root) -> None:
        for run, step in zip(root.runs[2:], (41, 7), strict=True):
            error = f"loss is NaN at step {step}"
            root.directory(run).write_status(
                State.FAILED, failure="diverged", error=error, attempt=1
            )

        (cause,) = board.sweep("depth")["failures"]

        assert (cause["failure"], cause["error"], cause["count"]) == (
            "diverged",
            "loss is NaN at step 41",
            2,
        )
        assert [run["key"] for run in cause["runs"]] == [run.key for run in root.runs[2:]]

    def test_the_way_to_the_report_or_how_to_make_it(self, board: Board, root: Root) -> None:
        report = board.sweep("depth")["report"]
        assert report == {"made": None, "command": "python -m harness.report depth"}
        file = root.path / "reports" / "depth" / "report.html"
        file.parent.mkdir(parents=True)
        file.write_text("x")
        assert board.sweep("depth")["report"]["made"] == pytest.approx(file.stat().st_mtime)

    def test_what_changes_on_disk_is_seen_at_the_next_look(self, board: Board, root: Root) -> None:
        board.sweep("depth")
        root.grow(600)
        rows = {row["key"]: row for row in board.sweep("depth")["runs"]}
        assert rows[root.going_on.key]["share"] == 0.6

    def test_a_number_of_all_training_logs(self, board: Board, root: Root) -> None:
        found = board.sweep_curves("depth", "loss")
        (curve,) = found["curves"]
        assert (curve["key"], curve["x"]) == (root.going_on.key, [100, 200, 300, 400, 500])
        assert curve["y"] == [1.9, 1.8, 1.7, 1.6, 1.5]
        assert found["names"] == ["loss", "terms/instance", "lr"]

    @pytest.mark.parametrize("name", ["deep", "../sweeps/depth", "depth.json", ""])
    def test_there_are_no_other_sweeps(self, board: Board, name: str) -> None:
        with pytest.raises(RecordError, match="unknown sweep"):
            board.sweep(name)

    def test_a_search_says_how_far_it_is_and_its_best_trial(self, board: Board, root: Root) -> None:
        ledger = Ledger.of(root.store, "depth")
        ledger.define({}, {"objectives": ["validation/mean_recall"], "trials": 12})
        for number, run in enumerate(root.runs[:3]):
            value = (0.1, 0.3, 0.2)[number]
            ledger.write(
                Trial(number, run.key, {}, Origin.SAMPLER, Outcome.COMPLETE, values=(value,))
            )
        ledger.write(Trial(3, root.runs[3].key, {}, Origin.SAMPLER))
        found = board.sweep("depth")["search"]
        assert (found["over"], found["wanted"]) == (3, 12)
        assert (found["trial"], found["run"], found["best"]) == (1, root.runs[1].key, [0.3])
        assert [goal["words"] for goal in found["objectives"]] == ["validation mean recall"]
        assert board.overview()["sweeps"][0]["search"] is True
        ledger.write(
            Trial(3, root.runs[3].key, {}, Origin.SAMPLER, Outcome.COMPLETE, values=(0.4,))
        )
        assert board.sweep("depth")["search"]["trial"] == 3


class TestRun:
    def test_all_there_is_on_a_run(self, board: Board, root: Root) -> None:
        found = board.run(root.done.key)
        assert (found["sweeps"], found["state"], found["samples"]) == (["depth"], "done", 1000)
        assert (found["config"]["model"]["text"]["layers"], found["node"]) == (1, "n3")
        values = {metric["name"]: metric["value"] for metric in found["result"]["metrics"]}
        assert values == {"test/mean_recall": 0.25, "test/colour/acc5": None}
        assert found["problems"] == []
        assert board.run(root.failed.key)["trace"] == f"Traceback\n{ERROR}"

    def test_a_file_that_is_broken_is_a_problem_of_its_own(self, board: Board, root: Root) -> None:
        (root.directory(root.failed).path / "provenance.json").write_text("[1")
        found = board.run(root.failed.key)
        assert any("provenance.json is not valid JSON" in line for line in found["problems"])

    def test_a_run_that_no_sweep_has_is_known_by_its_directory(
        self, board: Board, root: Root
    ) -> None:
        root.store.manifest_file("depth").unlink()
        found = board.run(root.failed.key)
        assert (found["sweeps"], found["label"]) == ([], root.failed.label)

    @pytest.mark.parametrize("key", ["../../etc", "0" * 12, "0123456789ab/..", "", "superseded"])
    def test_there_are_no_other_runs(self, board: Board, key: str) -> None:
        for ask in (board.run, board.run_curves, lambda key: board.run_log(key, None)):
            with pytest.raises(RecordError, match="there is no run"):
                ask(key)

    def test_a_log_is_one_of_the_runs_own(self, board: Board, root: Root) -> None:
        key = root.going_on.key
        found = board.run_log(key, None)
        assert found["file"].endswith("logs/attempt-1.txt")
        assert found["text"].startswith("first line\nred <script>")
        for name in ("../config.json", "/etc/passwd", "..", "", "attempt-2.txt"):
            with pytest.raises(RecordError, match="unknown log"):
                board.run_log(key, name)

    def test_a_run_that_printed_nothing_has_an_empty_log(self, board: Board, root: Root) -> None:
        assert board.run_log(root.done.key, None)["text"] == ""


class TestNumberLog:
    def test_what_was_appended_is_read_on_and_half_a_line_waits(self, tmp_path: Path) -> None:
        file = tmp_path / "metrics.jsonl"
        log = NumberLog(file)
        assert log.columns() == {}
        file.write_text('{"samples_seen": 1, "loss": 3.0}\n{"samples_seen": 2, "lo')
        assert list(log.columns()["loss"]) == [3.0]
        with file.open("a") as more:
            more.write('ss": 2.0, "metrics": {"acc": 0.5}}\n')
        columns = log.columns()
        assert list(columns["samples_seen"]) == [1.0, 2.0]
        drawn = thinned(columns, ["loss", "acc"], 10)
        assert drawn["series"] == {"loss": [3, 2], "acc": [None, 0.5]}

    def test_a_log_that_was_rewound_begins_anew(self, tmp_path: Path) -> None:
        file = tmp_path / "metrics.jsonl"
        log = NumberLog(file)
        file.write_text("".join(f'{{"samples_seen": {i}, "loss": 1}}\n' for i in range(9)))
        assert len(log.columns()["loss"]) == 9
        file.write_text('{"samples_seen": 0, "loss": 7}\n')
        assert list(log.columns()["loss"]) == [7.0]

    def test_lines_that_are_no_numbers_are_left_out(self, tmp_path: Path) -> None:
        file = tmp_path / "metrics.jsonl"
        file.write_text(
            'torn\n[1]\n{"loss": 1}\n{"samples_seen": 5, "loss": NaN, "ok": true, "text": "x"}\n'
        )
        columns = NumberLog(file).columns()
        assert sorted(columns) == ["loss", "samples_seen"]
        assert json.dumps(thinned(columns, ["loss"], 10), allow_nan=False).count("null") == 1

    def test_of_a_long_log_every_nth_line_and_the_last_are_drawn(self, tmp_path: Path) -> None:
        file = tmp_path / "metrics.jsonl"
        lines = (f'{{"samples_seen": {i}, "loss": {i}}}\n' for i in range(2_501))
        file.write_text("".join(lines))
        drawn = thinned(NumberLog(file).columns(), ["loss"], 1_000)
        assert (drawn["lines"], drawn["every"], len(drawn["x"])) == (2_501, 3, 835)
        assert (drawn["x"][1], drawn["x"][-1], drawn["series"]["loss"][-1]) == (3, 2_500, 2_500)


def test_the_end_of_a_log_is_as_a_terminal_would_leave_it(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_bytes(b"\x1b]0;title\x07start\n 10%\r 20%\r 30%\nbell\x07 \xff\x1b[1mbold\x1b[0m\n")
    assert tail(file)["text"] == "start\n 30%\nbell\ufffd \\xffbold\n"
    file.write_text("".join(f"line {i}\n" for i in range(20_000)))
    found = tail(file)
    assert found["cut"]
    assert found["text"].startswith("line ")
    assert found["text"].endswith("line 19999\n")
    assert len(found["text"]) <= 64 * 1024
