"""From Python: the table of runs, reports and launches, and what importing them costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_records import T2I, Records, runs_by, sweep_of

import harness
from harness.api import load, report, run
from harness.commands import functions
from harness.config import Runtime
from harness.errors import ConfigError, InterruptedRun, RecordError, SweepError
from harness.store.manifest import write_manifest

LAYERS = "model.text.layers"
REPOSITORY = Path(harness.__file__).parent.parent


@pytest.fixture
def root(records: Records) -> Path:
    """A store with a sweep `depths`: two depths, two seeds, one run failed."""
    sweep = replace(sweep_of({LAYERS: [1, 12]}, metrics=[T2I]), seeds=[0, 1], name="depths")
    runs, _ = runs_by(sweep)
    for number, one in enumerate(runs[:-1]):
        records.done(one, t2i=0.25 + 0.125 * number, parameters=1_000 * (number + 1))
    records.failed(runs[-1])
    write_manifest(records.store, sweep, runs, Runtime(), ["sweep"])
    return records.store.root


def test_a_row_a_run_with_axes_seed_metrics_cost_and_key(root: Path) -> None:
    table = load("depths", root)

    assert isinstance(table, pd.DataFrame)
    assert list(table["seed"]) == [0, 1, 0, 1]
    assert list(table[LAYERS]) == [1, 1, 12, 12]
    assert list(table[T2I][:3]) == [0.25, 0.375, 0.5]
    assert np.isnan(table[T2I][3])
    assert list(table["cost/parameters/inference_without_embeddings"][:3]) == [1000, 2000, 3000]
    assert list(table["state"]) == ["done", "done", "done", "failed"]
    assert "loss is NaN at step 41" in table["reason"][3]
    assert all((root / "results" / "runs" / key).is_dir() for key in table["key"])
    assert table[LAYERS].dtype.kind == "i"
    assert table[T2I].dtype == "float64"
    assert list(table["training_seconds"][:3]) == [20.0] * 3


def test_the_table_is_runs_csv(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = report("depths", root, out=root / "elsewhere")

    assert folder == root / "elsewhere"
    assert (folder / "report.html").is_file()
    written = pd.read_csv(folder / "runs.csv")
    table = load("depths", str(root))
    assert list(written.columns) == list(table.columns)
    assert list(written["key"]) == list(table["key"])
    assert np.allclose(written[T2I], table[T2I], equal_nan=True)
    monkeypatch.setattr(functions, "build_named", lambda *given: None)
    assert report("depths", root) == root / "reports" / "depths"


def test_a_name_that_is_not_there_names_the_nearest(root: Path, tmp_path: Path) -> None:
    for function in (load, report):
        line = r"^unknown sweep 'depth'; nearest: depths; allowed: depths$"
        with pytest.raises(RecordError, match=line):
            function("depth", root)
    with pytest.raises(RecordError, match="no sweep is on file in"):
        load("depths", tmp_path / "nothing")


def test_importing_costs_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, harness, harness.api\n"
        "assert harness.load is harness.api.load\n"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "try: harness.lod\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'harness' has no attribute 'lod'\n"


def test_loading_needs_no_torch() -> None:
    code = (
        "import sys, harness\n"
        "print(len(harness.load('ablation_text_depth', 'reports/example/records')))\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert int(done.stdout) > 0


# --------------------------------------------------------------------------- launching


def test_a_launch_says_what_the_command_would_be_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(functions, "run_command", lambda args: asked.append(args) or 3)

    table = run(
        "sweeps/depths.py",
        {"train.lr": np.float32(0.1), "evaluate.splits": ("test",), "data.path": Path("a b"),
         "train.grad_clip": None, "data.source": "folder", "runtime.workers": np.int64(2)},
        root=root, seeds=np.arange(2), slots=2, only="layers=*", report_only=True, base=None,
    )  # fmt: skip

    (args,) = asked
    assert len(table) == 4
    assert args.overrides == [
        "train.lr=0.1", 'evaluate.splits=["test"]', 'data.path="a b"', "train.grad_clip=null",
        'data.source="folder"', "runtime.workers=2",
    ]  # fmt: skip
    assert (args.seeds, args.slots, args.only) == ([0, 1], 2, "layers=*")
    assert (args.report_only, args.base, args.sweep) == (True, None, "sweeps/depths.py")
    assert args.words[:3] == ["-m", "harness.sweep", "sweeps/depths.py"]


def test_a_launch_is_loaded_by_the_name_it_was_given(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "run_command", lambda args: 0)
    assert len(run("elsewhere.py", root=root, name="depths")) == 4


def test_what_ends_a_launch_is_raised(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SweepError, match="unknown sweep 'smoek'; nearest: smoke"):
        run("smoek", root=root)
    with pytest.raises(ConfigError, match=r"here it is train\.lr"):
        run("smoke", {"learning_rate": 1}, root=root)
    with pytest.raises(ConfigError, match=r"unknown keyword 'slotz'; nearest: slots.*slots=2$"):
        run("smoke", root=root, slotz=2)
    with pytest.raises(ConfigError, match="a plan is for the command line"):
        run("smoke", root=root, dry_run=True)
    monkeypatch.setattr(functions, "run_command", lambda args: 130)
    with pytest.raises(InterruptedRun, match="the same call goes on"):
        run("smoke", root=root)
    monkeypatch.setattr(functions, "run_command", lambda args: 2)
    with pytest.raises(ConfigError, match="was not launched"):
        run("smoke", root=root)


@pytest.mark.parametrize(
    ("called", "line"),
    [
        (lambda: run("smoke", seed=[0]), r"run\(\): unknown keyword 'seed'; nearest: seeds.*"
         r"; allowed: .*max_seeds.*; write seeds=\[0\]$"),
        (lambda: run("smoke", sed=None), "nearest: seeds"),
        (lambda: run("smoke", seeds=3), r"seeds = 3: a list of integers .* seeds=\[0, 1, 2\]"),
        (lambda: run("smoke", seeds=[0, -1]), "'-1' is no integer from 0 on"),
        (lambda: load("x", deploy=True), r"load\(\): .*'deploy'; nearest: deployed; allowed: .*"),
        (lambda: report("x", output="y"), r"report\(\): .*; write out='y'$"),
    ],
)  # fmt: skip
def test_a_misspelt_keyword_names_the_nearest(called: Callable[[], object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        called()


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    page = Path("docs/python.md").read_text(encoding="utf-8")
    blocks = page.split("```python\n")[1:3]
    names: dict[str, object] = {}
    for block in blocks:
        exec(block.partition("```")[0], names)
    wide = names["wide"]
    assert isinstance(wide, pd.DataFrame)
    assert 12 in wide.columns
    assert json.dumps(list(map(int, wide.index)))
