"""The command that searches: what it checks, leaves behind and survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

import harness
from harness.commands.sweep import main
from harness.store.manifest import read_manifest
from harness.store.record import Store
from harness.store.trials import Ledger, Outcome

SHADOW = Path(__file__).parent / "shadow"
HEAVY = ("torch", "timm", "open_clip", "pandas", "seaborn", "scipy", "optuna", "submitit")

TINY = '''"""Which learning rate?"""

from harness.bases import SMALL
from harness.config import override
from harness.data.catalog import SOURCES
from harness.data.dataset import DataSet, Split
from harness.searchspace import Asha, Choice, Integers, Search, Uniform
from harness.space import Show, Sweep, points


class Tiny(DataSet):
    def read(self, image):
        raise KeyError(image)


@SOURCES.register("tiny")
def tiny(data, cache):
    names = {"train": ("a", "b", "c"), "validation": ("d", "e"), "test": ("f", "g")}
    splits = {s: Split(n, [(f"an {name}",) for name in n]) for s, n in names.items()}
    return Tiny("tiny", fingerprint="0" * 64, evaluation_fingerprint="1" * 64, splits=splits)


SWEEP = Sweep(
    base=override(
        SMALL,
        {"data.source": "tiny", "train.batch_size": 2, "train.samples": 1000},
    ),
    search=Search(
        space={"train.lr": Uniform(1e-4, 1e-1, log=True), "model.text.layers": Integers(1, 4)},
        objectives="validation/mean_recall",
        trials=12,
        pruner=Asha(first=200, reduction=2),
        confirm=(7, 8),
    ),
    show=Show(x="train.lr", metrics=["*/mean_recall"]),
)
'''


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.py"
    file.write_text(TINY)
    return file


def command(tiny: Path, *more: str) -> list[str]:
    words = [sys.executable, "-m", "harness.sweep", str(tiny), "--slots", "2"]
    return [*words, "--root", str(tiny.parent / "out"), *more]


def fakes() -> dict[str, str]:
    reports = Path(__file__).parents[1] / "launch" / "shadow" / "harness"  # fakes of them
    behind = os.pathsep.join([str(reports), str(Path(harness.__file__).parent)])
    return {**os.environ, "PYTHONPATH": str(SHADOW), "REAL_HARNESS": behind}


def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=cwd, env=fakes(), capture_output=True, text=True, timeout=240, check=False
    )


def ledger(tiny: Path) -> Ledger:
    return Ledger.of(Store(tiny.parent / "out"), "tiny")


def is_over(tiny: Path, enough: int) -> bool:
    return sum(trial.over for trial in ledger(tiny)) >= enough


def trained(tiny: Path) -> list[str]:
    return (tiny.parent / "out" / "trained.txt").read_text().split()


# --------------------------------------------------------------------------- before anything starts


def test_a_dry_run_says_what_would_be_searched_without_any_heavy_import(tiny: Path) -> None:
    code = (
        "import sys\n"
        "from harness.commands.sweep import main\n"
        f"code = main({command(tiny, '--dry-run')[3:]!r})\n"
        f"print('exit', code, 'heavy', sorted({{*{HEAVY!r}}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "train.lr 0.0001..0.1 (log) 0.002" in lines
    assert "Asha: a trial may be stopped at 200, 400, 800 of 1,000 samples" in lines
    assert lines[-1] == "exit 0 heavy []"
    assert not (tiny.parent / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"train.lr"', '"train.Ir"', "unknown field 'train.Ir'; nearest: train.lr"),
        ("Uniform(1e-4, 1e-1", "Uniform(1e-1, 1e-1", "train.lr: 0.1..0.1 is empty"),
        (
            '"validation/mean_recall"',
            '"validation/mean_recal"',
            "no run reports it: unknown objective 'validation/mean_recal'; nearest: "
            "validation/mean_recall",
        ),
        ("Integers(1, 4)", 'Choice("a", 2)', "model.text.layers = 'a': an integer is wanted"),
        (
            '"model.text.layers": Integers(1, 4)',
            '"train.samples": Integers(100, 400)',
            "train.samples is searched, and so a rung",
        ),
        ("trials=12", "trials=12, sampler='tpex'", "unknown sampler 'tpex'; nearest: tpe"),
    ],
)
def test_a_search_that_cannot_be_begun_is_refused_in_one_line(
    tiny: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    tiny.write_text(tiny.read_text().replace(old, new))
    assert main([*command(tiny, "--dry-run")[3:]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["train.lr=0.1"], "train.lr is set by this search and cannot be overridden"),
        (["--seeds", "1,2"], "--seeds is for a list of runs; tiny is a search"),
        (["--only", "x"], "--only is for a list of runs"),
        (["--rerun", "failed"], "--rerun is for a list of runs"),
        (["--executor", "slurm", "--rehearse"], "--rehearse is for a list of runs"),
        (["--executor", "slurm", "--pack", "2"], "--pack is for a list of runs"),
        (["--executor", "slurm", "--slots", "0"], "--slots 0: at least one slot is wanted"),
    ],
)
def test_what_a_search_has_no_use_for_is_refused(
    tiny: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert main([*command(tiny, "--dry-run", *more)[3:]]) == 2
    assert words in capsys.readouterr().err


def test_on_a_cluster_a_dry_run_shows_the_script_of_a_trial(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tiny, "--executor", "slurm", "--dry-run")[3:]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "12 of 12 trials to begin in 2 slots" in said
    script = said.partition("the sbatch script of a trial would be:\n")[2]
    assert "#SBATCH --array=0-0" in script
    assert not (tiny.parent / "out").exists()


# --------------------------------------------------------------------------- from end to end


@pytest.mark.slow
def test_the_command_searches_confirms_and_then_has_nothing_to_do(tiny: Path) -> None:
    done = run(command(tiny), tiny.parent)
    assert (done.returncode, done.stderr) == (0, "")
    trials = list(ledger(tiny))
    assert len(trials) == 12
    assert {t.outcome for t in trials} <= {Outcome.COMPLETE, Outcome.PRUNED}
    store = Store(tiny.parent / "out")
    assert {run.key for run in read_manifest(store, "tiny").runs} == {t.key for t in trials}
    confirmed = read_manifest(store, "tiny_confirmed")
    assert [run.seed for run in confirmed.runs] == [7, 8, 7, 8]
    assert list(confirmed.sweep.show.metrics) == ["test/mean_recall"]
    before = trained(tiny)
    again = run(command(tiny), tiny.parent)
    assert again.returncode == 0
    assert trained(tiny) == before
    other = run(command(tiny, "train.weight_decay=0.3"), tiny.parent)
    assert other.returncode == 2
    assert '- "base.train.weight_decay": 0.1; + "base.train.weight_decay": 0.3' in other.stderr


@pytest.mark.slow
@pytest.mark.thorough
def test_killed_controllers_and_workers_cost_no_trial_and_double_none(tiny: Path) -> None:
    for enough in (2, 5, 8):
        controller = subprocess.Popen(
            command(tiny), cwd=tiny.parent, env=fakes(), stdout=subprocess.DEVNULL
        )
        wait_until(partial(is_over, tiny, enough))
        if enough > 2:
            psutil.Process(controller.pid).children()[0].send_signal(signal.SIGKILL)
            time.sleep(0.3)
        controller.kill()
        controller.wait()
    done = run(command(tiny), tiny.parent)
    assert (done.returncode, done.stderr) == (0, "")
    trials = list(ledger(tiny))
    assert len(trials) == len({trial.key for trial in trials}) == 12
    assert {t.outcome for t in trials} <= {Outcome.COMPLETE, Outcome.PRUNED}
    ends = trained(tiny)
    assert len(ends) == len(set(ends))
    complete = {trial.key for trial in trials if trial.outcome is Outcome.COMPLETE}
    assert complete <= set(ends)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_second_controller_is_refused_while_the_first_lives(tiny: Path) -> None:
    first = subprocess.Popen(command(tiny), cwd=tiny.parent, env=fakes(), stdout=subprocess.DEVNULL)
    wait_until(lambda: len(ledger(tiny)) > 0)
    second = run(command(tiny), tiny.parent)
    first.terminate()
    assert (second.returncode, "is being run by process" in second.stderr) == (2, True)
    assert first.wait(timeout=280) == 130


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 280
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what the test waits for did not come")
        time.sleep(0.05)
