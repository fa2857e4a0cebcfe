"""The README and the pages below it are true: figures, links, commands and examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.api import load
from harness.commands import commands
from harness.config.sweep_files import load_sweep, shipped_sweeps

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def test_it_is_read_in_three_minutes() -> None:
    assert sum(1 for word in README.split() if re.search(r"\w", word)) <= 1_100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)\)|src=\"([^\"]+)\"", text)
    local = [a or b for a, b in links if "://" not in (a or b)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_those_there_are(page: Path) -> None:
    named = set(re.findall(r"python -m harness\.(\w+)", page.read_text(encoding="utf-8")))
    assert named <= {*commands(), "COMMAND"}


def test_the_first_table_is_the_tracked_examples() -> None:
    runs = load("ablation_text_depth", root=ROOT / "reports" / "example" / "records")
    runs["acc1"] = runs[[f"test/{task}/acc1" for task in ("role", "gender", "skin_tone")]].mean(
        axis=1
    )
    rows = re.findall(r"^\| \**(\d+)\** \| ([\d.]+) \| (.*?) \| (.*?) \|$", README, re.M)
    assert len(rows) == 5
    for layers, parameters, *cells in rows:
        of_point = runs[runs["model.text.layers"] == int(layers)]
        assert float(parameters) == round(of_point["cost/parameters/inference"].mean() / 1e6, 2)
        for metric, cell in zip(("test/mean_recall", "acc1"), cells, strict=True):
            values = 100 * of_point[metric]
            assert cell.strip("*") == f"{values.mean():.1f} ± {values.std():.1f}"


def test_its_verdict_is_the_reports() -> None:
    page = (ROOT / "reports" / "example" / "report.md").read_text(encoding="utf-8")
    verdict = re.search(r"layers are enough: at most .*? below the best \(margin \d\)", README)
    assert verdict is not None
    assert verdict[0] in page


def test_its_sweep_is_a_sweep(tmp_path: Path) -> None:
    code = re.search(r"```python\n(\"\"\".*?)```", README, re.S)
    assert code is not None
    (tmp_path / "my_sweep.py").write_text(code[1])
    assert len(load_sweep(str(tmp_path / "my_sweep.py")).points) == 6


def test_every_sweep_is_listed() -> None:
    listed = README[README.index("## Sweeps") : README.index("## Why trust it")]
    assert {name for name in shipped_sweeps() if f"`{name}`" not in listed} == set()
