"""The blocks of docs/contributing.md are one sweep file: one file for each thing that is added."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.files import read_json
from tests.conftest import write_shapes

PAGE = Path(__file__).parents[1] / "docs" / "contributing.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("contributing")
    (root / "mine.py").write_text('"""Is a page true?"""\n\n' + "\n".join(BLOCKS))
    words = ["mine.py", "--root", str(root), "--executor", "told"]
    words += [f"data.path={write_shapes(root / 'data')}", "runtime.log_samples=8"]
    command = [sys.executable, "-m", "harness.sweep", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (root / "said").write_text(done.stdout + done.stderr)
    return root


def recorded(root: Path, name: str) -> list[dict[str, Any]]:
    """A file of every run as it is: what the sweep file registers is not known here."""
    return [read_json(file) for file in sorted(root.glob(f"results/runs/*/{name}"))]


def test_the_executor_ran_them(root: Path) -> None:
    assert "2 runs to go" in (root / "said").read_text()


def test_backbone_term_and_source_are_fields_of_the_run(root: Path) -> None:
    configs = [entry["config"] for entry in recorded(root, "config.json")]
    assert sorted(c["objective"]["spread"]["weight"] for c in configs) == [0.0, 0.5]
    assert {c["model"]["image"]["backbone"] for c in configs} == {"two_convolutions"}
    assert {c["data"]["repeated"]["times"] for c in configs} == {2}


def test_metrics_are_recorded_with_what_they_are(root: Path) -> None:
    for result in recorded(root, "result.json"):
        (entry,) = result["evaluations"].values()
        assert 0 <= entry["metrics"]["test/within_half"]["value"] <= 1
        assert entry["metrics"]["test/worst_rank"]["direction"] == "lower"
    assert "worst rank" in (root / "reports" / "mine" / "report.md").read_text()


def test_the_figure_stands_in_the_report(root: Path) -> None:
    assert "Runs by point." in (root / "reports" / "mine" / "report.md").read_text()
    assert read_json(root / "reports" / "mine" / "manifest.json")
