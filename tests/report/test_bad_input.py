"""Sweeps with nothing to test, or whose question cannot be put: said in a line, on a whole page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from report_records import PROTOCOL, ROLE, T2I, Records, metric, sweep_of

from harness.config.sweep import Sweep, expand
from harness.report.folder import build

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


@pytest.mark.usefixtures("no_figures")
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


SIGNS = "a_b & 50 % #1 $x$ <i> | {y} \\z ~ ^ \u6a21\u578b \u043c\u043e\u0434\u0435\u043b\u044c"


@pytest.mark.usefixtures("no_figures")
def test_a_page_of_many_metrics_classes_holes_and_signs(records: Records, tmp_path: Path) -> None:
    """40 points of one seed, 500 class names, 9 further tasks, every third run failed."""
    rates = [1e-4 * n for n in range(1, 41)]
    more = [f"test/task_{n}/acc1" for n in range(9)]
    sweep = sweep_of({"train.lr": rates}, metrics=[T2I, ROLE, *more], primary=T2I, margin=1.0,
                     baseline={"train.lr": rates[0]}, labels={"train.lr": SIGNS})  # fmt: skip
    sweep = replace(sweep, seeds=range(1), question=f"What of {SIGNS}?")
    runs = expand(sweep)
    for place, run in enumerate(runs):
        if place % 3 == 2:
            records.failed(run, error=f"ValueError: {SIGNS} {place}")
        else:
            found, protocol = tasks_of(more, classes=500, value=0.3 + 0.01 * place)
            records.done(run, t2i=0.3 + 0.01 * place, metrics=found, protocol=protocol)

    result = build(sweep, runs, records.store, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()

    assert (result.holes, result.failed) == (13, 13)
    lead, rest = text.split("\n## ", 1)
    assert len([line for line in lead.splitlines() if line and line[0] not in "|<"]) <= 14
    shown = [line for line in lead.splitlines() if line.startswith("| ")]
    assert len(shown) == 2 + 40 + 1, "a row a point below its headings, and chance"
    assert len({line.count("|") - line.count("\\|") for line in shown}) == 1
    assert "500 classes" in rest
    assert "name 499" not in text, "class names are counted, not listed"
    assert len(PdfReader(tmp_path / "report" / "report.pdf").pages) <= 12


def tasks_of(
    names: list[str], *, classes: int, value: float
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The metrics of tasks so named, and the protocol that asks for them."""
    places = [name.rpartition("/")[0] for name in names]
    found = {f"{place}/{kind}": metric(value, 150, 1 / classes)
             for place in places for kind in ("acc1", "acc5", "mean_per_class_recall")}  # fmt: skip
    words = [f"name {n}" for n in range(classes)]
    tasks = {
        place.partition("/")[2]: {"classnames": words, "templates": ["{c}"]} for place in places
    }
    labelled = {**PROTOCOL["splits"]["test"]["labelled"], **dict.fromkeys(tasks, 150)}
    split = {**PROTOCOL["splits"]["test"], "labelled": labelled}
    return found, {**PROTOCOL, "tasks": {**PROTOCOL["tasks"], **tasks}, "splits": {"test": split}}


@pytest.mark.usefixtures("no_figures")
def test_without_a_primary_metric_no_other_is_secondary(records: Records, tmp_path: Path) -> None:
    told = page(records, a_sweep(primary=None, margin=None), tmp_path / "report")
    assert any("No primary metric is declared" in line for line in told)
    assert not any("secondary" in line for line in told)
