"""`python -m harness.status`: how runs are, from their files, and what can be done about them."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, Group

from harness.commands.status import main
from harness.config import RunConfig, Runtime, override
from harness.config.sweep import Run, Show, Sweep, expand, product
from harness.launch.slurm.orders import JobOrder
from harness.launch.slurm.submissions import submissions
from harness.launch.slurm.submit import submit
from harness.monitor.snapshot import SnapshotReader
from harness.monitor.terminal import points_page
from harness.planning.plan import make_plan
from harness.store.lease import Lease
from harness.store.manifest import read_manifest, write_manifest
from harness.store.record import Store
from harness.store.state import State
from harness.store.trials import Ledger, Origin, Outcome, Trial

sys.path.insert(0, str(Path(__file__).parent / "launch" / "slurm"))
from fake_slurm import FakeSlurm

SWEEP = Sweep(
    base=override(RunConfig(), {"train.samples": 1000}),
    points=product({"model.text.layers": [1, 2, 3, 4]}),
    seeds=[0],
    show=Show(x="model.text.layers", metrics=["test/mean_recall"]),
    name="depth",
    question="How deep?",
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def runs(store: Store) -> list[Run]:
    """Four runs on file, none begun."""
    found = expand(SWEEP)
    write_manifest(store, SWEEP, found, Runtime(), ["python"])
    return found


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "fake-slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    return fake


@pytest.fixture
def submitted(runs: list[Run], store: Store, slurm: FakeSlurm) -> list[Run]:
    """The four runs, in the queue as 101_0 to 101_3, the report as 102."""
    order = JobOrder(store, Runtime(), "depth", report=("-m", "x"))
    submit(make_plan(runs, store), order, print)
    return runs


def status(store: Store, *words: str) -> int:
    return main([*words, "--root", str(store.root)])


def screen_of(
    store: Store, name: str, width: int, height: int, encoding: str = "utf-8"
) -> list[str]:
    """What `--watch` draws on a terminal of that size, line by line."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=out, width=width, height=height, highlight=False)
    manifest = read_manifest(store, name)
    snapshots = SnapshotReader(store).read(manifest.runs)
    console.print(Group(*points_page(store, manifest, snapshots, console)))
    out.seek(0)
    return [line.rstrip() for line in out.read().splitlines()]


def finish(store: Store, run: Run, metrics: Mapping[str, object] | None = None) -> None:
    store.run_dir(run.key).write_result(
        {
            "code": "",
            "training": {"samples_seen": 1000, "seconds": 10.0},
            "cost": {},
            "evaluations": {run.config.evaluation_key: {"metrics": metrics or {}}},
        }
    )


def place(store: Store, run: Run) -> int:
    """The index of the task of a run."""
    tasks = next(submissions(store)).read().arrays[0].tasks
    return [task[0] for task in tasks].index(run.key)


def lines(text: str) -> dict[str, str]:
    """Key -> row of the table, blanks folded."""
    rows = [" ".join(line.split()) for line in text.splitlines() if line.startswith("layers=")]
    return {row.split()[2]: row for row in rows if not row.split()[2].startswith("(")}


class TestShowing:
    def test_states_come_from_the_files(
        self, runs: list[Run], store: Store, capsys: pytest.CaptureFixture[str]
    ) -> None:
        done, running, failed, cut = runs
        finish(store, done)
        for run in (running, failed, cut):
            store.run_dir(run.key).write_intent(run.config, {})
        details = {"attempt": 1, "samples_seen": 500, "samples_per_second": 50.0}
        store.run_dir(running.key).write_status(State.RUNNING, phase="train", loss=1.5, **details)
        log = "/logs/attempt-1.txt"
        store.run_dir(failed.key).add_provenance({"host": "n3"})
        store.run_dir(failed.key).write_status(
            State.FAILED, failure="bug", error="KeyError: [0]", attempt=1, log=log
        )
        store.run_dir(cut.key).write_status(State.INTERRUPTED, attempt=1, samples_seen=250)
        store.run_dir(cut.key).add_end("preempted", "it was preempted")
        with Lease(store.run_dir(running.key).lease_file):
            assert status(store, "depth") == 0
        out = capsys.readouterr().out
        rows = lines(out)
        assert rows[running.key].split()[3:] == ["train", "50%", "50", "1.500", "-"]
        assert f"{done.key} done 100%" in rows[done.key]
        assert f"{failed.key} failed: bug" in rows[failed.key]
        assert f"{cut.key} interrupted; before: 1 preempted 25%" in rows[cut.key]
        assert f"layers=3 seed 0 ({failed.key}) on n3: bug: KeyError: [0]; log: {log}" in out
        assert "1/4 done, 1 running, 1 failed (bug), 1 interrupted" in out

    def test_an_error_that_many_runs_share_is_told_once(
        self, submitted: list[Run], store: Store, slurm: FakeSlurm,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        slurm.queue.write_text("")
        first, second, third, other = submitted
        for run, error in ((first, "no x"), (second, "no x"), (third, "no x"), (other, "no y")):
            store.run_dir(run.key).write_status(State.FAILED, failure="bug", error=error, attempt=1)
        assert status(store, "depth") == 0
        out = capsys.readouterr().out
        assert f"{first.label} seed 0 ({first.key}) and 2 more: bug: no x" in out
        assert f"{other.label} seed 0 ({other.key}): bug: no y" in out
        assert out.count("no x") == 1
        assert "log:" not in out

    def test_what_waits_says_why(
        self, submitted: list[Run], store: Store, slurm: FakeSlurm,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        name = next(submissions(store)).read().arrays[0].name
        held = place(store, submitted[0])
        others = ",".join(str(i) for i in range(4) if i != held)
        slurm.queue.write_text(
            f"101_{held}|{name}|PENDING|launch failed requeued held|\n"
            f"101_[{others}]|{name}|PENDING|Priority|\n"
        )
        assert status(store, "depth") == 0
        out = capsys.readouterr().out
        assert "HELD (launch failed requeued held)" in lines(out)[submitted[0].key]
        assert "0/4 done, 1 HELD (launch failed requeued held), 3 queued (Priority)" in out
        assert len(slurm.asked("squeue")) == 2  # one of them by the submission

    def test_a_scheduler_that_does_not_answer_is_said_and_kills_nobody(
        self, submitted: list[Run], store: Store, slurm: FakeSlurm,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        slurm.fails("squeue", "Unable to contact slurm controller")
        assert status(store, "depth") == 0
        captured = capsys.readouterr()
        assert "queued (the scheduler is silent)" in captured.out
        assert captured.err.startswith("squeue: Unable to contact slurm controller: what waits")

    def test_without_a_name_every_sweep_has_a_line(
        self, runs: list[Run], store: Store, capsys: pytest.CaptureFixture[str]
    ) -> None:
        finish(store, runs[0])
        assert status(store) == 0
        assert capsys.readouterr().out == "depth  1/4 done, 3 new; 0.00278 core-hours\n"

    def test_a_sweep_that_holds_itself_back_says_so(
        self, submitted: list[Run], store: Store, capsys: pytest.CaptureFixture[str]
    ) -> None:
        next(submissions(store)).hold("the first 3 tasks died of the same error (bug): KeyError")
        status(store, "depth")
        assert "holds itself back: the first 3 tasks died" in capsys.readouterr().out

    def test_a_rehearsal_that_left_no_word_is_a_folder_the_nodes_do_not_see(
        self, runs: list[Run], store: Store, slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
    ) -> None:
        order = JobOrder(store, Runtime(), "depth", report=("-m", "x"), rehearse=True)
        submit(make_plan(runs, store), order, print)
        slurm.queue.write_text("")
        submit([], order, print)
        capsys.readouterr()
        status(store, "depth")
        out = " ".join(capsys.readouterr().out.split())
        assert "the rehearsal, job 101, is over and has left no word in" in out
        assert "do the nodes see this folder?" in out


def _as_at_a_terminal() -> None:
    """The terminal is the process's own, and Ctrl-C is heard, as not in the background."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, *words: str) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
        self._ours, self.seen = ours, ""
        code = (
            "import harness.commands.status as s; s.REFRESH_SECONDS = 0.1; "
            "raise SystemExit(s.main())"
        )
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
            preexec_fn=_as_at_a_terminal,
        )  # fmt: skip
        os.close(theirs)

    def read_until(self, words: str, seconds: float = 240.0) -> None:
        """Read what is drawn until it holds `words`, or fail with what was."""
        end = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < end, self.seen
            self.read()

    def read(self) -> bool:
        """What there is now; whether there may be more."""
        ready, _, _ = select.select([self._ours], [], [], 0.5)
        try:
            data = os.read(self._ours, 65_536) if ready else b""
        except OSError:  # how Linux says that the other end is closed
            return False
        self.seen += data.decode()
        return True

    def press_ctrl_c(self) -> int:
        """As a user does; the exit code."""
        os.write(self._ours, b"\x03")
        end = time.monotonic() + 240.0
        while self.read() and self.process.poll() is None:
            assert time.monotonic() < end, self.seen
        self.read()
        os.close(self._ours)
        return self.process.wait(240)


class TestWatching:
    def test_a_sweep_is_drawn_again_as_its_runs_go_on_until_ctrl_c(
        self, runs: list[Run], store: Store
    ) -> None:
        terminal = Terminal("depth", "--watch", "--root", str(store.root))
        terminal.read_until("0/4 done")
        finish(store, runs[0])
        terminal.read_until("1/4 done")
        more = [*runs, *expand(SWEEP, seeds=[1])]
        write_manifest(store, SWEEP, more, Runtime(), ["python"])  # as a search does
        terminal.read_until("1/8 done")

        assert terminal.press_ctrl_c() == 130
        assert "\x1b[1A" in terminal.seen, "each page takes the place of the last"
        assert "Traceback" not in terminal.seen
        assert terminal.seen.rstrip().endswith("stopped")

    def test_a_screen_has_totals_first_and_a_line_a_point_with_a_mark_a_seed(
        self, store: Store
    ) -> None:
        points = product({"model.text.layers": list(range(1, 41))})
        sweep = replace(SWEEP, points=points, seeds=range(3))
        runs = expand(sweep)
        write_manifest(store, sweep, runs, Runtime(), ["python"])
        values = {runs[0].key: 0.25, runs[1].key: 0.35, runs[2].key: 0.3, runs[3].key: 0.5}
        for run in runs[:4]:
            finish(store, run, {"test/mean_recall": {"value": values[run.key]}})
        for run, error in ((runs[4], "NaN at step 4"), (runs[60], "NaN at step 9")):
            store.run_dir(run.key).write_status(
                State.FAILED, failure="diverged", error=error, attempt=1
            )

        lines = screen_of(store, "depth", width=100, height=30)

        assert len(lines) <= 29, "and the cursor"
        assert max(map(len, lines)) <= 100
        assert lines[0].startswith("depth: 4/120 done, 2 failed (diverged), 114 new")
        assert lines[1] == "\u2717 failed  \u00b7 new  \u25cf done"
        assert lines[2].split() == ["point", "seeds", "done", "mean", "recall", "(%)", "left"]
        rows = [" ".join(line.split()) for line in lines]
        assert "layers=1 \u25cf\u25cf\u25cf 100% 30.0 \u00b1 5.0 -" in rows
        assert "layers=2 \u25cf\u2717\u00b7 33% 50.0 (1 of 3) -" in rows
        assert any(row.startswith("layers=21 \u2717\u00b7\u00b7") for row in rows)
        assert any(row.startswith("and ") and row.endswith(" new") for row in rows)
        assert "and 1 more: diverged: NaN at step 4" in rows[-1]

    def test_a_terminal_of_few_letters_has_marks_too(self, runs: list[Run], store: Store) -> None:
        finish(store, runs[0])
        lines = screen_of(store, "depth", width=80, height=24, encoding="ascii")
        assert lines[1] == ". new  # done"
        assert [line.split()[1] for line in lines[3:7]] == ["#", ".", ".", "."]

    def test_without_a_name_all_sweeps_are_drawn_again(self, runs: list[Run], store: Store) -> None:
        terminal = Terminal("--watch", "--root", str(store.root))
        terminal.read_until("0/4 done")
        finish(store, runs[0])
        terminal.read_until("1/4 done")
        assert terminal.press_ctrl_c() == 130
        assert "Traceback" not in terminal.seen


class TestActing:
    def test_what_a_run_printed_last(
        self, runs: list[Run], store: Store, capsys: pytest.CaptureFixture[str]
    ) -> None:
        directory = store.run_dir(runs[0].key)
        directory.write_intent(runs[0].config, {})
        directory.log_file(1).parent.mkdir()
        directory.log_file(1).write_text("first\nlast\n")
        assert status(store, "--logs", runs[0].key[:6]) == 0
        assert capsys.readouterr().out == f"{directory.log_file(1)}:\nfirst\nlast\n"

    def test_of_a_run_that_never_began_what_its_job_printed(
        self, submitted: list[Run], store: Store, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log = next(submissions(store)).logs / f"101_{place(store, submitted[0])}_0_log.out"
        log.write_text("srun: no such module\n")
        assert status(store, "--logs", submitted[0].key) == 0
        assert capsys.readouterr().out == f"{log}:\nsrun: no such module\n"

    def test_one_run_is_called_off_by_its_own_job(
        self, submitted: list[Run], store: Store, slurm: FakeSlurm
    ) -> None:
        run = submitted[1]
        name = next(submissions(store)).read().arrays[0].name
        assert status(store, "depth", "--cancel", run.key[:8]) == 0
        assert slurm.asked("scancel") == [f"--name={name} 101_{place(store, run)}"]
        assert store.run_dir(run.key).stop_requested() == "cancelled"
        assert store.run_dir(submitted[0].key).stop_requested() is None

    def test_all_are_called_off_with_the_report_in_a_call_an_array(
        self, submitted: list[Run], store: Store, slurm: FakeSlurm,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        slurm.queue.write_text("7|foreign|RUNNING|None|n1\n" + slurm.queue.read_text())
        assert status(store, "depth", "--cancel", "--all") == 0
        calls = slurm.asked("scancel")
        assert sorted(calls[0].split()[1:]) == ["101_0", "101_1", "101_2", "101_3"]
        assert calls[1].endswith("-report 102")
        assert "4 runs are called off, 5 jobs taken out of the queue" in capsys.readouterr().out

    def test_a_controller_that_is_down_takes_nothing_out_of_the_queue(
        self, submitted: list[Run], store: Store, slurm: FakeSlurm,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        for name in ("squeue", "scancel"):
            slurm.fails(name, "error: Unable to contact slurm controller (connect failure)")
        assert status(store, "depth", "--cancel", "--all") == 3
        told = capsys.readouterr().out
        assert "4 runs are called off, 0 jobs taken out of the queue" in told
        assert "5 jobs may be in the queue still" in told

    def test_a_run_that_left_the_queue_before_it_began_is_never_new(
        self, submitted: list[Run], store: Store, slurm: FakeSlurm,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        submission = next(submissions(store))
        name = submission.read().arrays[0].name
        slurm.queue.write_text("")
        job = f"JobId=101 ArrayJobId=101 ArrayTaskId={{}} JobName={name} JobState={{}}\n"
        slurm.says("scontrol", job.format(0, "CANCELLED") + job.format(1, "NODE_FAIL"))
        columns = f"JobID|JobName|State\n101_2|{name}|TIMEOUT\n101_3|another|COMPLETED\n"
        slurm.says("sacct", columns)
        (submission.folder / "launch").mkdir()
        (submission.folder / "launch" / "0-3").write_text("127 0 n1\n")
        submission.log(0, 3).write_text("python: No such file\n")
        assert status(store, "depth") == 0
        told = " ".join(capsys.readouterr().out.split())
        for words in (
            "cancelled: job 101_0 was taken out of the queue",
            "dead: job 101_1 left the queue without a word (NODE_FAIL)",
            "dead: job 101_2 left the queue without a word (TIMEOUT)",
            "dead: its job died before it began (exit code 127): python: No such file",
            "0/4 done, 3 dead, 1 cancelled",
        ):
            assert words in told
        submission.hold("because")
        status(store, "depth")
        assert "3 HELD" in capsys.readouterr().out

    def test_a_failed_run_is_submitted_again_from_its_beginning(
        self, submitted: list[Run], store: Store, slurm: FakeSlurm,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        slurm.queue.write_text("")
        run = submitted[2]
        store.run_dir(run.key).write_status(State.FAILED, failure="bug", error="KeyError: 0")
        assert status(store, "depth", "--retry", run.key[:8]) == 0
        assert slurm.option(103, "array") == "0-0%1"
        assert (store.runs / "superseded" / f"{run.key}.1" / "status.json").exists()
        assert "submitted 1 runs of depth: array 103 (1 jobs)" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (["deep"], "unknown sweep 'deep'; nearest: depth"),
            (["depth", "--cancel"], "--cancel wants the keys of runs, or --all"),
            (["depth", "--cancel", "nokey"], "unknown run 'nokey'"),
            (["depth", "--all"], "--all is for --cancel"),
            (["--cancel", "--all"], "--cancel and --retry want the NAME of a sweep"),
            (["depth", "--wach"], "unknown option '--wach'; nearest: --watch"),
            (["--logs", "nokey"], "holds no run, and so not 'nokey'"),
        ],
    )
    def test_a_mistake_is_one_line(
        self, runs: list[Run], store: Store, capsys: pytest.CaptureFixture[str],
        words: list[str], error: str,
    ) -> None:  # fmt: skip
        assert status(store, *words) == 2
        told = capsys.readouterr().err
        assert error in told
        assert told.count("\n") == 1

    def test_a_run_that_was_never_submitted_is_for_its_own_command(
        self, runs: list[Run], store: Store, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert status(store, "depth", "--retry", runs[0].key) == 2
        assert "was never submitted to SLURM; the sweep's own" in capsys.readouterr().err

    def test_a_failed_trial_of_a_search_is_not_submitted_again(
        self, runs: list[Run], store: Store, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Ledger.of(store, "depth").write(Trial(0, runs[0].key, {}, Origin.SAMPLER, Outcome.FAILED))
        assert status(store, "depth", "--retry", runs[0].key) == 2
        assert "depth is a search, to which a failed trial is a fact" in capsys.readouterr().err
