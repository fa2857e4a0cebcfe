"""The command line: what it prints, what it leaves behind, and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import harness
from harness.commands.sweep import main
from harness.config import Runtime
from harness.config.sweep import expand
from harness.config.sweep_files import load_sweep
from harness.store.manifest import read_manifest, write_manifest
from harness.store.record import Store
from tests.conftest import write_shapes

REPOSITORY = Path(harness.__file__).parent.parent
SHADOW = Path(__file__).parent / "launch" / "shadow"
HEAVY = ("torch", "timm", "open_clip", "pandas", "seaborn", "scipy", "optuna", "submitit")

#: A sweep with a data source of its own, so that a run's worker has to know the file too.
TINY = '''"""Is two more than one?"""

from harness.bases import SMALL
from harness.config import override
from harness.data.catalog import SOURCES
from harness.data.dataset import DataSet, Split
from harness.space import Show, Sweep, product


class Tiny(DataSet):
    def read(self, image):
        raise KeyError(image)


@SOURCES.register("tiny")
def tiny(data, cache):
    train = Split(("a", "b", "c"), (("an a",), ("a b",), ("a c",)))
    test = Split(("d",), (("a d",),))
    splits = {"train": train, "test": test}
    return Tiny("tiny", fingerprint="0" * 64, evaluation_fingerprint="1" * 64, splits=splits)


SWEEP = Sweep(
    base=override(SMALL, {"data.source": "tiny", "train.batch_size": 2}),
    points=product({"model.text.layers": [1, 2]}),
    seeds=[0, 1],
    show=Show(x="model.text.layers", metrics=["test/mean_recall"]),
)
'''


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.py"
    file.write_text(TINY)
    return file


# --------------------------------------------------------------------------- light and early


@pytest.mark.parametrize("arguments", [["--help"], ["smoke", "--dry-run"]])
def test_answers_without_any_heavy_import(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from harness.commands.sweep import main\n"
        "try:\n"
        f"    code = main([*{arguments!r}, '--root', {str(tmp_path)!r}])\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        f"print('exit', code, 'heavy', sorted({{*{HEAVY!r}}} & set(sys.modules)))"
    )
    done = run([sys.executable, "-c", code], cwd=REPOSITORY)
    assert done.stdout.splitlines()[-1] == "exit 0 heavy []"


def test_help_lists_sweeps_with_their_question_and_bases(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.py").write_text('"""Is mine better?\n\nMore words.\n"""\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert end.value.code == 0
    assert "mine Is mine better?" in lines
    assert any(line.startswith("cc3m shards, resnet18 at 224 px, 84,690,570") for line in lines)


def test_a_dry_run_prints_every_run_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["smoke", "--dry-run", "--root", str(tmp_path), "--seeds", "3,5"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    wanted = [["layers=1", "3"], ["layers=1", "5"], ["layers=2", "3"], ["layers=2", "5"]]
    assert [row for row in rows if row and row[0].startswith("layers=")] == wanted
    assert list(tmp_path.iterdir()) == []


def test_the_plan_says_what_opening_the_data_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_shapes(tmp_path / "shapes")
    rows = [line.split(",") for line in (folder / "captions.csv").read_text().splitlines()]
    no_splits = "".join(f"{row[0]},{row[2]}\n" for row in rows)
    (folder / "captions.csv").write_text(no_splits)
    words = ["data.source=folder", f"data.path={folder}", "train.batch_size=8"]
    assert main(["smoke", "--dry-run", "--root", str(tmp_path), *words]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    origins = [note for note in notes if "leakage" not in note]
    assert origins == [
        "note: shapes: no split is named: pictures are split by the SHA-256 of each picture's "
        "name, about 80 : 10 : 10"
    ]
    assert "4 pictures of test and of train, such as 064.png = 016.png" in "".join(notes)


def test_the_plan_says_that_a_warm_up_is_longer_than_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["smoke", "--dry-run", "--root", str(tmp_path), "train.samples=160"]
    for warm_up, told in ((160, False), (2_000, True)):
        assert main([*words, f"train.warmup_samples={warm_up}"]) == 0
        note = "note: train.warmup_samples = 2,000 is more than train.samples = 160: the learning"
        assert (note in capsys.readouterr().out) is told


def test_only_chooses_by_label_or_by_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["smoke", "--dry-run", "--root", str(tmp_path)]
    assert main([*command, "--only", "*=2"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("layers"))
    assert main([*command, "--only", row.split()[2][:6]]) == 0
    again = [line for line in capsys.readouterr().out.splitlines() if line.startswith("layers")]
    assert again == [row]


def test_only_chooses_by_one_axis_of_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "two_axes.py"
    axes = '{"train.lr": [0.1, 0.2], "model.text.layers": [1, 12]}'
    file.write_text(
        '"""Which?"""\n'
        "from harness.bases import SMALL\n"
        "from harness.space import Show, Sweep, product\n"
        f"SWEEP = Sweep(base=SMALL, points=product({axes}),\n"
        '    show=Show(x="train.lr", metrics=["test/mean_recall"]))\n'
    )
    command = [str(file), "--dry-run", "--root", str(tmp_path)]
    for pattern, labels in [
        ("layers=12*", ["lr=0.1, layers=12", "lr=0.2, layers=12"]),
        ("layers=1", ["lr=0.1, layers=1", "lr=0.2, layers=1"]),
        ("lr=0.1", ["lr=0.1, layers=1", "lr=0.1, layers=12"]),
    ]:
        assert main([*command, "--only", pattern]) == 0
        rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("lr=")]
        assert [row.split("  ")[0] for row in rows] == labels


BRACKETS = '''"""Which crops and names?"""
from harness.bases import SMALL
from harness.space import Show, Sweep, points

SWEEP = Sweep(
    base=SMALL,
    points=points(
        {"data.crop_scale": (0.5, 1.0)},
        {"data.crop_scale": [0.75, 1.0]},
        {"data.crop_scale": (1.0, 1.0)},
        {"train.lr": 0.12345678},
        {"model.text.layers": 2, "model.text.init": "first of 3"},
    ),
    show=Show(
        x="train.lr",
        metrics=["test/mean_recall"],
        names={"a* [/b] %s": {"data.crop_scale": (1, 1)}},
    ),
)
'''


def test_only_takes_back_every_label_that_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "brackets.py"
    file.write_text(BRACKETS)
    command = [str(file), "--dry-run", "--root", str(tmp_path)]
    assert main(command) == 0
    labels = [line.split("  ")[0] for line in _rows(capsys)]
    assert len(set(labels)) == 6
    assert "a* [/b] %s" in labels
    assert "layers=3, init=None" not in labels
    for label in labels:
        for pattern in (
            label,
            f"{label} seed 0",
            f"  {label} ",
            f"{label[:-1]}\N{HORIZONTAL ELLIPSIS}",
        ):
            assert main([*command, "--only", pattern]) == 0
            assert label in [line.split("  ")[0] for line in _rows(capsys)], pattern


def _rows(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a printed plan that are of runs."""
    return [line for line in capsys.readouterr().out.splitlines() if " new " in line]


def test_two_sweep_files_of_one_stem_do_not_share_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name / "brackets.py" for name in ("a", "b", "copy")]
    for file in files:
        file.parent.mkdir()
        file.write_text(BRACKETS if file.parent.name != "b" else BRACKETS.replace("0.75", "0.8"))
    store = Store(tmp_path)
    sweep = load_sweep(str(files[0]))
    write_manifest(store, sweep, expand(sweep), Runtime(), [])
    dry = ["--dry-run", "--root", str(tmp_path)]
    assert main([str(files[0]), *dry]) == 0
    assert main([str(files[2]), *dry]) == 0
    capsys.readouterr()
    assert main([str(files[1]), *dry]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"'brackets' is on file in {tmp_path} for {files[0]}" in line
    assert "--name NAME gives it" in line
    assert main([str(files[1]), *dry, "--name", "brackets-b"]) == 0
    assert main([str(files[1]), *dry, "--name", "../up"]) == 2
    files[0].write_text(f"{BRACKETS}# edited\n")
    assert main([str(files[0]), *dry]) == 0, "the file itself may change"
    files[0].unlink()
    assert main([str(files[1]), *dry]) == 0, "a file that was moved and changed keeps its name"


# --------------------------------------------------------------------------- errors that teach


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["smoek"], "unknown sweep 'smoek'; nearest: smoke"),
        (["nowhere/x.py"], "no sweep file at nowhere/x.py"),
        (["smoke", "--dryrun"], "unknown option '--dryrun'; nearest: --dry-run"),
        (["smoke", "train.lrr=1"], "unknown field 'train.lrr'; nearest: train.lr"),
        (["smoke", "train"], "'train' is not of the form path=value"),
        (["smoke", "train.lr=fast"], "train.lr = 'fast': a number is wanted"),
        (["smoke", "train.samples", "20"], "write train.samples=20"),
        (["smoke", "--train.samples=20"], "is a field and no option; write train.samples=20"),
        (["smoke", "--train.samples", "20"], "is a field and no option; write train.samples=20"),
        (["smoke", "--runtime.workers", "2"], "write runtime.workers=2"),
        (["smoke", "learning_rate=1"], "unknown field 'learning_rate'; here it is train.lr"),
        (["smoke", "train.lr=NaN"], "NaN is not a value a configuration can hold"),
        (["smoke", "runtime.thread=1"], "unknown field 'runtime.thread'; nearest: runtime.threads"),
        (["smoke", "model.text.layers=3"], "model.text.layers is an axis of this sweep"),
        (["smoke", "--base", "tiny"], "unknown base 'tiny'"),
        (["smoke", "--base", "cc3m"], "data.path"),
        (["smoke", "--seeds", "0,x"], "'0,x' is not a list of integers such as 0,1,2"),
        (["smoke", "--seeds", ""], "'' is not a list of integers such as 0,1,2: '' is no integer"),
        (["smoke", "--seeds", "0-3"], "'0-3' is no integer from 0 on; nearest: 0,1,2,3"),
        (["smoke", "--seeds", "0 1"], "'0 1' is no integer from 0 on; nearest: 0,1"),
        (["smoke", "--seeds=0,-1"], "'-1' is no integer from 0 on; nearest: 0,1"),
        (["smoke", "--only", "layers=3"], "unknown run 'layers=3'; nearest: layers="),
        (["smoke", "--rerun", "some"], "invalid choice: 'some'"),
        (["smoke", "--slots", "0"], "--slots 0: at least one slot is wanted"),
        (["smoke", "--executor", "inline", "--slots", "2"], "--slots is for --executor local"),
        (["smoke", "--executor", "slrum"], "unknown executor 'slrum'; nearest: slurm"),
        (["smoke", "--pack", "2"], "--pack is for --executor slurm"),
        (["smoke", "--prefix", "ssh a"], "--prefix is for --executor prefix"),
        (
            ["smoke", "--executor", "slurm", "--slots", "2"],
            "--slots is for --executor local",
        ),
        (
            ["smoke", "model.image.backbone=resnet81"],
            "unknown backbone 'resnet81'; nearest: resnet18",
        ),
        (["smoke", 'evaluate.splits=["tets"]'], "unknown split 'tets'; nearest: test"),
        (["smoke", 'evaluate.splits=["vaildation"]'], "unknown split 'vaildation'; nearest: val"),
        (["smoke", "train.batch_size=100000"], "train.batch_size = 100000 is more than the"),
        (["smoke", "data.source=webdata"], "unknown data source 'webdata'"),
        (["smoke", "model.text.init=half of 12"], "'half of 12' is not understood; allowed are"),
        (
            ["smoke", "model.text.init=first of 2"],
            "layers=2: model.text.init = 'first of 2': a tower of 2 layers can start from a deeper",
        ),
        (["smoke", "model.text.init=even of run 1a2b"], "holds no run, and so not '1a2b'"),
        (
            ["smoke", "objective.mlm.weight=1", "objective.mlm.stages=[1]"],
            "layers=1: objective.mlm.stages = [1] names block 1, which a text tower of 1 layers",
        ),
        ([], "the following arguments are required: NAME|PATH"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_code_2(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*arguments, "--dry-run", "--root", str(tmp_path)])
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert told.err.startswith("error: ")
    assert line in told.err
    assert told.err.count("\n") == 1


def test_a_configuration_edited_by_hand_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = load_sweep("smoke")
    from harness.config import Runtime
    from harness.launch.check import finisher

    first = expand(sweep, finish=finisher(Runtime()))[0]
    directory = Store(tmp_path).run_dir(first.key)
    directory.write_intent(first.config, {})
    file = directory.path / "config.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    assert main(["smoke", "--dry-run", "--root", str(tmp_path)]) == 2
    assert f"{file} was edited" in capsys.readouterr().err


# --------------------------------------------------------------------------- whole commands


def run(
    command: Sequence[str], *, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=280, check=False
    )


def fakes() -> dict[str, str]:
    """An environment in which harness.run and harness.report are the fakes of launch/shadow."""
    return {
        **os.environ,
        "PYTHONPATH": str(SHADOW),
        "REAL_HARNESS": str(Path(harness.__file__).parent),
    }


def command(tiny: Path, *more: str) -> list[str]:
    root = str(tiny.parent / "out")
    words = [sys.executable, "-m", "harness.sweep", str(tiny), "--root", root, "--slots", "1"]
    return [*words, *more]


def start(tiny: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(tiny, *more),
        cwd=tiny.parent,
        env=fakes(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def behave(tiny: Path, **behaviour: str) -> Path:
    """Tell the fake runs of 1 and of 2 layers what to do; returns the root."""
    root = tiny.parent / "out"
    root.mkdir(exist_ok=True)
    labels = {f"layers={name[-1]}": what for name, what in behaviour.items()}
    (root / "fake.json").write_text(json.dumps(labels))
    return root


def states(root: Path) -> list[str]:
    files = sorted(root.glob("results/runs/*/status.json"))
    return [json.loads(file.read_text())["state"] for file in files]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 280
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what the test waits for did not come")
        time.sleep(0.02)


def test_the_command_runs_everything_reports_and_then_has_nothing_to_do(tiny: Path) -> None:
    root = behave(tiny)
    first = run(command(tiny), cwd=tiny.parent, env=fakes())
    assert (first.returncode, first.stderr) == (0, "")
    report = (root / "reports" / "tiny" / "report.md").read_text()
    again = run(command(tiny), cwd=tiny.parent, env=fakes())
    assert again.returncode == 0
    assert "4 runs: 4 skip; nothing to do" in again.stdout
    assert "checking" not in again.stdout
    assert (root / "reports" / "tiny" / "report.md").read_text() == report
    assert len((root / "trained.txt").read_text().splitlines()) == 4


def test_a_failed_run_is_named_and_leaves_a_hole(tiny: Path) -> None:
    root = behave(tiny, layers1="diverged")
    done = run(command(tiny, "--seeds", "0"), cwd=tiny.parent, env=fakes())
    assert done.returncode == 3
    assert "layers=1 seed 0" in done.stderr
    assert "failed (diverged): loss is NaN at step 7; log: " in done.stderr
    assert "1 of 2 runs are missing" in done.stderr
    assert (root / "reports" / "tiny" / "report.md").exists()
    behave(tiny)
    again = run(command(tiny, "--seeds", "0", "--rerun", "failed"), cwd=tiny.parent, env=fakes())
    assert again.returncode == 0


def test_only_launches_a_part_and_the_report_covers_the_whole(tiny: Path) -> None:
    root = behave(tiny)
    done = run(command(tiny, "--only", "layers=2"), cwd=tiny.parent, env=fakes())
    assert done.returncode == 3
    assert "2 of 4 runs are missing" in done.stderr
    assert (root / "trained.txt").read_text() == "layers=2 seed 0\nlayers=2 seed 1\n"


def test_report_only_starts_nothing(tiny: Path) -> None:
    root = behave(tiny)
    done = run(command(tiny, "--report-only"), cwd=tiny.parent, env=fakes())
    assert (done.returncode, (root / "results").exists()) == (3, False)


def test_what_preflight_finds_is_printed_and_nothing_starts(tiny: Path) -> None:
    root = behave(tiny)
    done = run(command(tiny, "data.path=nowhere"), cwd=tiny.parent, env=fakes())
    assert done.returncode == 2
    assert set(done.stderr.splitlines()) == {"error: no picture at nowhere"}
    assert not (root / "results").exists()


def test_a_launched_sweep_is_on_file_before_its_runs_are(tiny: Path) -> None:
    root = behave(tiny, layers1="diverged", layers2="diverged")
    done = run(command(tiny, "--seeds", "0"), cwd=tiny.parent, env=fakes())
    assert done.returncode == 3
    manifest = read_manifest(Store(root), tiny.stem)
    assert [run.label for run in manifest.runs] == ["layers=1", "layers=2"]
    assert manifest.command[-2:] == ("--seeds", "0")


def test_an_interrupted_command_saves_every_run_and_says_how_to_go_on(tiny: Path) -> None:
    root = behave(tiny, layers1="wait 1", layers2="wait 1")
    driver = start(tiny, "--slots", "2", "--only", "layers=2")
    wait_until(lambda: states(root) == ["running", "running"])
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=280)
    assert driver.returncode == 130
    assert err.startswith("stopped; the same command goes on: python -m harness.sweep ")
    assert "Traceback" not in err
    assert states(root) == ["interrupted", "interrupted"]
    behave(tiny)
    assert run(command(tiny), cwd=tiny.parent, env=fakes()).returncode == 0


def test_after_a_killed_launcher_the_same_command_finishes(tiny: Path) -> None:
    root = behave(tiny, layers2="wait 1")
    driver = start(tiny)
    wait_until(lambda: states(root) == ["running"])
    driver.kill()
    driver.communicate(timeout=280)
    wait_until(lambda: states(root) == ["interrupted"])
    behave(tiny)
    done = run(command(tiny), cwd=tiny.parent, env=fakes())
    assert done.returncode == 0
    assert len((root / "trained.txt").read_text().splitlines()) == 4


@pytest.mark.thorough
def test_two_launches_at_once_train_each_run_once_and_both_end_well(tiny: Path) -> None:
    root = behave(tiny, layers1="sleep 0.3", layers2="sleep 0.3")
    drivers = [start(tiny, "--slots", "2") for _ in range(2)]
    told = [driver.communicate(timeout=280) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], told
    assert sorted((root / "trained.txt").read_text().splitlines()) == [
        "layers=1 seed 0",
        "layers=1 seed 1",
        "layers=2 seed 0",
        "layers=2 seed 1",
    ]


@pytest.mark.thorough
def test_a_run_of_a_launcher_that_dies_is_taken_over_by_the_other(tiny: Path) -> None:
    root = behave(tiny, layers2="wait 1")
    first = start(tiny, "--seeds", "0", "--only", "layers=2")
    wait_until(lambda: states(root) == ["running"])
    second = start(tiny, "--seeds", "0", "--only", "layers=2")
    assert second.stdout is not None
    wait_until(lambda: "checking" in second.stdout.readline())  # type: ignore[union-attr]
    first.kill()
    first.communicate(timeout=280)
    second.communicate(timeout=280)
    assert (root / "trained.txt").read_text() == "layers=2 seed 0\n"
