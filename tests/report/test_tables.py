"""What a reader of the table is told, cell by cell, and that every format says the same."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace

import pandas as pd
import pytest
import statsmodels.formula.api as smf
from report_records import DEPTHS, I2T, T2I, Records, depth_sweep, fill, runs_by, sweep_of
from scipy import stats

from harness.config.sweep import Run, Sweep, expand, points
from harness.document.blocks import Document
from harness.document.latex import to_latex
from harness.document.markdown import to_markdown
from harness.document.table import Mark, Table
from harness.report.tables import build_table, statistics_csv
from harness.results.collect import Collection, collect
from harness.results.findings import ReportFindings, find


def tabulate(
    sweep: Sweep, runs: list[Run], records: Records
) -> tuple[Collection, ReportFindings, Table]:
    collection = collect(sweep, runs, records.store)
    findings = find(collection)
    return collection, findings, build_table(collection, findings)


def column(table: Table, *heads: str) -> list[str]:
    index = [column.heads for column in table.columns].index(heads)
    return [row[index].text for row in (*table.rows, *table.footer)]


def test_cells_by_hand(records: Records) -> None:
    sweep = depth_sweep(labels={"model.text.layers": "text layers"})
    runs, _ = runs_by(sweep)
    fill(records, runs)

    _, _, table = tabulate(sweep, runs, records)

    assert column(table, "text layers") == ["1", "2", "4", "8", "12", "chance"]
    assert column(table, "Parameters (M)", "without emb.") == [
        "0.50", "0.70", "1.10", "1.90", "2.70", "",
    ]  # fmt: skip
    # 4 layers: mean 0.383, standard deviation 0.003: half-width 4.302653 x 0.003 / sqrt 3
    means = column(table, "T2I R@1 (%)", "mean")
    assert means[2] == "38.3 \u00b1 0.7"
    assert means[-1] == "0.5"
    # differences to 12 layers: -2.0, -1.9, -1.8 points
    differences = column(table, "T2I R@1 (%)", "\u0394 to baseline")
    assert differences[2] == "\u22121.9 [\u22122.1, \u22121.7]*"
    assert differences[4] == "baseline"
    assert table.footnotes == ()


def test_the_caption_states_seeds_interval_and_bold(records: Records) -> None:
    sweep = depth_sweep()
    runs, _ = runs_by(sweep)
    fill(records, runs)

    caption = tabulate(sweep, runs, records)[2].caption

    assert "How shallow can it be?" in caption
    assert "n = 3 seeds (0, 1, 2)" in caption
    assert "half-width of the 95 % t-interval" in caption
    assert "by one linear model of all points and seeds" in caption
    assert "significant, p < 0.05 after Holm's correction (10 tests)" in caption


def two_points(records: Records, low: list[float], high: list[float]) -> Table:
    """The table of 1 layer against its baseline of 12 layers."""
    sweep = sweep_of(
        {"model.text.layers": [12, 1]}, metrics=[T2I], baseline={"model.text.layers": 12}
    )
    runs = expand(sweep)
    for run in runs:
        values = high if run.config.model.text.layers == 1 else low
        records.done(run, t2i=values[run.seed])
    return tabulate(sweep, runs, records)[2]


def bold(table: Table) -> list[str]:
    return [entry.text for row in table.rows for entry in row if entry.mark is Mark.BEST]


def test_bold_is_the_best_of_its_column_told_from_all_others(records: Records) -> None:
    table = two_points(records, [0.30, 0.31, 0.32], [0.35, 0.361, 0.372])

    assert bold(table) == ["36.1 \u00b1 2.7"]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        # better on average, yet the paired interval holds zero
        ([0.30, 0.31, 0.32], [0.35, 0.30, 0.37]),
        # the same difference at every seed: no spread to judge by
        ([0.30, 0.31, 0.32], [0.35, 0.36, 0.37]),
    ],
)
def test_nothing_else_is_bold(records: Records, low: list[float], high: list[float]) -> None:
    assert bold(two_points(records, low, high)) == []


def test_a_difference_that_excludes_zero_never_prints_as_if_it_held_it(records: Records) -> None:
    # differences 0.02, 0.03, 0.04 points: interval [0.005, 0.055]
    table = two_points(records, [0.3, 0.3, 0.3], [0.3002, 0.3003, 0.3004])

    shown = column(table, "T2I R@1 (%)", "\u0394 to baseline")[1]
    assert shown == "+0.03 [0.01, 0.05]*"


def test_holes_are_dashes_with_footnotes(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((2, 1), (8, 0), (8, 1), (8, 2)))
    records.failed(at(2, 1))

    _, _, table = tabulate(sweep, runs, records)

    means = column(table, "T2I R@1 (%)", "mean")
    assert (means[1], means[3]) == ("\u2014", "\u2014")
    assert table.footnotes == (
        "2 of 3 seeds: seed 1 failed (diverged): loss is NaN at step 41",
        "2 of 3 seeds in common (0, 2)",
        "cost is known once a seed is done",
        "0 of 3 seeds: seeds 0, 1, 2 not run",
        "no seed has both this value and the baseline's",
    )


def test_one_seed_has_no_interval_and_the_caption_says_so(records: Records) -> None:
    sweep = depth_sweep()
    runs = expand(sweep, seeds=[0])
    fill(records, runs)

    _, _, table = tabulate(sweep, runs, records)

    assert column(table, "T2I R@1 (%)", "mean")[0] == "30.0"
    assert column(table, "T2I R@1 (%)", "\u0394 to baseline")[0] == "\u221210.0"
    assert "nothing can be said of other seeds" in table.caption
    assert bold(table) == []


def test_without_a_baseline_there_is_no_difference_column(records: Records) -> None:
    sweep = sweep_of({"model.text.layers": [1, 2]})
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3)

    _, _, table = tabulate(sweep, runs, records)

    assert [c.heads for c in table.columns if c.heads[0].startswith("T2I")] == [("T2I R@1 (%)",)]


# ---- formats


def test_markdown_has_one_row_a_point_and_equal_columns(records: Records) -> None:
    sweep = depth_sweep()
    runs, _ = runs_by(sweep)
    fill(records, runs, skip=((4, 1),))

    _, _, table = tabulate(sweep, runs, records)
    rows = [
        line for line in to_markdown(Document("t", (table,))).splitlines() if line.startswith("|")
    ]

    assert len(rows) == 2 + 5 + 1
    assert {line.count("|") for line in rows} == {len(table.columns) + 1}
    assert "\u2014 <sup>a</sup>" in rows[4]
    assert "<sup>a</sup> 2 of 3 seeds: seed 1 not run" in to_markdown(Document("t", (table,)))


def test_latex_is_balanced_and_every_row_has_all_columns(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((4, 1),))
    records.failed(at(4, 1), error="100 % of {x} & $y_1$ | \\oops \u4e2d\nsecond line")

    _, _, table = tabulate(sweep, runs, records)
    tex = to_latex(Document("t", (table,)))

    assert balanced(tex)
    body = tex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns) - 1}
    assert r"100 \% of \{x\} \& \$y\_1\$ \textbar{} \textbackslash{}oops \texttt{U+4E2D}" in tex
    begun, ended = (re.findall(rf"\\{word}\{{(.*?)\}}", tex) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    assert r"\label{tab:made-up}" in tex


def test_a_wide_latex_table_sets_each_difference_under_its_mean(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I, I2T, "test/mean_recall", "test/role/acc1"])
    runs, _ = runs_by(sweep)
    fill(records, runs)

    tex = to_latex(Document("t", (tabulate(sweep, runs, records)[2],)))

    assert balanced(tex)
    assert r"\begin{table*}" in tex
    assert r"\begin{tabular}{@{}lrrrrrr@{}}" in tex
    lines = tex.split(r"\midrule")[1].strip().splitlines()
    assert lines[6].startswith(r"4 & 1.10 & 1.60 & 38.3 $\pm$ 0.7 & ")
    assert lines[7].startswith(r" &  &  & $-$1.9 {[}$-$2.1, $-$1.7{]}* & ")
    assert lines[8] == r"\addlinespace"
    assert "Second lines: $\\Delta$ to baseline." in tex


def test_a_value_that_the_point_does_not_set_is_the_bases_in_parentheses(
    records: Records,
) -> None:
    sweep = sweep_of({"model.text.layers": [12]}, metrics=[T2I])
    sweep = replace(sweep, points=sweep.points + points({"model.embed_dim": 64}))
    runs = expand(sweep)

    table = tabulate(sweep, runs, records)[2]

    assert column(table, "layers") == ["12", "(12)"]
    assert column(table, "embed_dim") == ["(512)", "64"]
    assert "In parentheses: the base's own value" in table.caption


def balanced(tex: str) -> bool:
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", tex):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def test_csv_holds_every_metric_in_full_precision(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((8, 1),))

    collection, findings, _ = tabulate(sweep, runs, records)
    rows = list(csv.DictReader(io.StringIO(statistics_csv(collection, findings))))

    assert len(rows) == 5 * len(collection.metrics)
    row = next(r for r in rows if r["model.text.layers"] == "4" and r["metric"] == T2I)
    mean, expected = sum(DEPTHS[4]) / 3, stats.ttest_rel(DEPTHS[4], DEPTHS[12])
    frame = pd.DataFrame(
        {"depth": depth, "seed": seed, "y": value}
        for depth, values in DEPTHS.items()
        for seed, value in enumerate(values)
        if depth != 8  # it is far noisier than the others, and judged by its own seeds
    )
    fitted = smf.ols("y ~ C(depth, Treatment(12)) + C(seed)", frame).fit()
    four = "C(depth, Treatment(12))[T.4]"
    assert math.isclose(float(row["mean"]), mean, rel_tol=1e-15)
    assert float(row["p"]) == pytest.approx(fitted.pvalues[four], rel=1e-9)
    interval = fitted.conf_int().loc[four]
    assert float(row["diff_low"]) == pytest.approx(interval[0], rel=1e-9)
    assert float(row["diff_high"]) == pytest.approx(interval[1], rel=1e-9)
    assert float(row["df"]) == fitted.df_resid
    assert math.isclose(float(row["p_seeds"]), expected.pvalue, rel_tol=1e-9)
    assert row["family"] == "secondary"
    assert (row["n_seeds"], row["seeds"], row["baseline"]) == ("3", "0 1 2", "layers=12")
    assert row["keys"] == " ".join(at(4, seed).key for seed in range(3))
    hole = next(r for r in rows if r["model.text.layers"] == "8" and r["metric"] == I2T)
    assert (hole["mean"], hole["n_seeds"]) == ("", "2")
    assert hole["hole"] == "2 of 3 seeds: seed 1 not run"
