"""Sweeps with nothing to test, or whose question cannot be put: said in a line, on a whole page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_records import T2I, Records, sweep_of

from harness.config.sweep import Sweep, expand
from harness.report import build

LAYERS = "model.text.layers"
NOTHING = "Nothing to test: no two points of the sweep have a number to compare."


def a_sweep(*, layers: tuple[int, ...] = (1, 2), seeds: int = 3, **show: Any) -> Sweep:
    """T2I R@1 at some depths, the last of which is the baseline."""
    shown = {"metrics": [T2I], "primary": T2I, "margin": 2.0, **show}
    made = sweep_of({LAYERS: list(layers)}, baseline={LAYERS: layers[-1]}, **shown)
    return replace(made, seeds=range(seeds))


def page(records: Records, sweep: Sweep, out: Path, *, spread: float = 0.01) -> list[str]:
    """The lines of a report of finished runs; `spread`: what a seed adds."""
    runs = expand(sweep)
    for run in runs:
        layers = run.config.model.text.layers
        records.done(run, t2i=0.3 + 0.1 * (layers > 1) + spread * run.seed * layers)
    assert build(sweep, runs, records.store, out).complete
    return re.sub(r"\\(.)", r"\1", (out / "report.md").read_text()).splitlines()


@pytest.mark.parametrize(
    ("sweep", "spread", "lines"),
    [
        (
            a_sweep(seeds=1),
            0.01,
            [
                "T2I R@1: nothing to test. One seed says nothing of other seeds: "
                "1 layer \u221210.0.",
            ],
        ),
        (
            a_sweep(),
            0.0,
            [
                "T2I R@1: nothing to test. All seeds agree exactly, so there is nothing to test.",
            ],
        ),
        (a_sweep(layers=(2,)), 0.01, [NOTHING]),
        (a_sweep(layers=(2,), seeds=1), 0.01, [NOTHING]),
        (
            a_sweep(primary="test/mean_recal"),
            0.01,
            [
                "> **Note.** made_up: no verdict on the primary metric: primary: unknown metric "
                "'test/mean_recal'; nearest: test/mean_recall"
            ],
        ),
        (
            a_sweep(primary="test/*_retrieval_recall@1"),
            0.01,
            [
                "> **Note.** made_up: no verdict on the primary metric: primary = "
                "'test/*_retrieval_recall@1' is 2 metrics: test/image_retrieval_recall@1, "
                "test/text_retrieval_recall@1"
            ],
        ),
    ],
    ids=["one seed", "equal seeds", "one point", "one run", "none records it", "two match it"],
)
def test_what_cannot_be_tested_is_said(
    records: Records, tmp_path: Path, sweep: Sweep, spread: float, lines: list[str]
) -> None:
    told = page(records, sweep, tmp_path / "report", spread=spread)
    for line in lines:
        assert any(found.startswith(line) for found in told)
    significant = [line for line in told if "significant" in line and "Filled" not in line]
    assert not significant or "no verdict" in lines[0]


def test_without_a_primary_metric_no_other_is_secondary(records: Records, tmp_path: Path) -> None:
    told = page(records, a_sweep(primary=None, margin=None), tmp_path / "report")
    assert any("No primary metric is declared" in line for line in told)
    assert not any("secondary" in line for line in told)
