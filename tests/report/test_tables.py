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
from report_records import (
    DEPTHS,
    I2T,
    PROTOCOL,
    T2I,
    Records,
    depth_sweep,
    fill,
    metric,
    runs_by,
    sweep_of,
)
from scipy import stats

from harness.config.sweep import Run, Sweep, expand, points
from harness.document.blocks import Document
from harness.document.latex import to_latex
from harness.document.markdown import to_markdown
from harness.document.table import Mark, Table, TableCell
from harness.document.text import flat
from harness.errors import SweepError
from harness.report.columns import settings_by_name
from harness.report.csv_files import statistics_csv
from harness.report.tables import MOST_ROWS, Tables, build_tables, headings_of
from harness.results.collect import Collection, collect
from harness.results.findings import ReportFindings, find
from harness.results.sections import sections_of


def tabulate(
    sweep: Sweep, runs: list[Run], records: Records
) -> tuple[Collection, ReportFindings, Tables]:
    collection = collect(sweep, runs, records.store)
    findings = find(collection)
    return collection, findings, build_tables(collection, findings)


def column(table: Table | None, *heads: str) -> list[str]:
    """The letters of each cell of a column, those after its number too."""
    assert table is not None
    index = [column.heads for column in table.columns].index(heads)
    return [letters(row[index]) for row in (*table.rows, *table.footer)]


def letters(cell: TableCell) -> str:
    return flat((flat(cell.text), *cell.after))


RECALL = "Retrieval R@1 (%)"


def test_cells_by_hand(records: Records) -> None:
    sweep = depth_sweep(labels={"model.text.layers": "text layers"})
    runs, _ = runs_by(sweep)
    fill(records, runs)

    _, _, tables = tabulate(sweep, runs, records)

    table = tables.lead
    assert column(table, "text layers") == ["1", "2", "4", "8", "12", "chance"]
    assert column(table, "parameters (M)", "image + text")[:2] == ["0.40 + 0.60", "0.40 + 0.80"]
    # 4 layers: mean 0.383, standard deviation 0.003
    means = column(table, RECALL, "T2I")
    assert means[2] == "38.3\u00b10.3*"
    assert means[-1] == "0.5"
    # differences to 12 layers: -2.0, -1.9, -1.8 points
    differences = column(tables.every, RECALL, "\u0394 T2I")
    assert differences[2] == "\u22121.9 [\u22122.1, \u22121.7]*"
    assert differences[4] == "baseline"
    assert table.footnotes == ()
    assert table.remarks == ("Every row: 30.0 M MACs.",)


@pytest.mark.parametrize(
    ("spread", "shown", "words"),
    [
        ("sd", "38.3\u00b10.3*", "subscript: standard deviation over seeds"),
        # 0.003 / sqrt 3, and 4.302653 times that
        ("se", "38.3\u00b10.2*", "subscript: standard error over seeds"),
        ("ci", "38.3\u00b10.7*", "half-width of the 95 % t-interval"),
    ],
)
def test_the_spread_is_a_choice_and_stated_once(
    records: Records, spread: str, shown: str, words: str
) -> None:
    sweep = depth_sweep(spread=spread)
    runs, _ = runs_by(sweep)
    fill(records, runs)

    table = tabulate(sweep, runs, records)[2].lead

    assert column(table, RECALL, "T2I")[2] == shown
    assert table.caption.count(words) == 1


@pytest.mark.parametrize("field", ["spread", "delta"])
def test_another_word_for_a_choice_names_the_nearest(field: str) -> None:
    with pytest.raises(SweepError, match=rf"unknown {field} 'colum'"):
        depth_sweep(**{field: "colum"})


def test_the_caption_states_seeds_and_marks(records: Records) -> None:
    sweep = depth_sweep()
    runs, _ = runs_by(sweep)
    fill(records, runs)

    tables = tabulate(sweep, runs, records)[2]

    assert tables.lead.caption == (
        "Mean over 3 seeds; subscript: standard deviation over seeds. Bold: best; underlined: "
        "second. *: differs from 12 layers (Holm, 10 tests, p < 0.05)."
    )
    assert tables.every is not None
    assert "by one linear model of all points and seeds" in tables.every.caption
    assert "significant, p < 0.05 (Holm, 10 tests)" in tables.every.caption


def marked(table: Table, mark: Mark) -> list[str]:
    return [flat(cell.text) for row in table.rows for cell in row if cell.mark is mark]


def test_the_best_is_bold_and_the_second_underlined_by_mean(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs)

    table = tabulate(sweep, runs, records)[2].lead

    assert (marked(table, Mark.BEST), marked(table, Mark.SECOND)) == (["40.2"], ["39.9"])


def test_of_an_error_the_least_is_best(records: Records) -> None:
    sweep = sweep_of({"model.text.layers": [1, 2, 4]}, metrics=["test/role/ece"])
    runs = expand(sweep)
    for run in runs:
        error = {"test/role/ece": metric(0.1 * run.config.model.text.layers, 150, None)}
        measured = {**PROTOCOL, "metrics": {**PROTOCOL["metrics"], "ece": 1}}
        records.done(run, t2i=0.3, metrics=error, protocol=measured)

    table = tabulate(sweep, runs, records)[2].lead

    assert (marked(table, Mark.BEST), marked(table, Mark.SECOND)) == (["10.0"], ["20.0"])


def test_equal_means_share_their_mark_and_all_equal_ones_have_none(records: Records) -> None:
    sweep = sweep_of({"model.text.layers": [1, 2, 4, 8]}, metrics=[T2I, I2T])
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.5 if run.config.model.text.layers > 2 else 0.4, i2t=0.3)

    table = tabulate(sweep, runs, records)[2].lead

    assert (marked(table, Mark.BEST), marked(table, Mark.SECOND)) == (["50.0"] * 2, ["40.0"] * 2)


def test_only_the_primary_metric_is_starred_where_one_is_declared(records: Records) -> None:
    sweep = depth_sweep(primary=I2T)
    runs, _ = runs_by(sweep)
    fill(records, runs)

    table = tabulate(sweep, runs, records)[2].lead

    assert not any("*" in cell for cell in column(table, RECALL, "T2I"))
    assert [cell[-1] for cell in column(table, RECALL, "I2T")[:4]] == ["*", "*", "*", "8"]


def test_ties_are_marked_on_request_alone(records: Records) -> None:
    sweep = depth_sweep(ties=True)
    runs, _ = runs_by(sweep)
    fill(records, runs)

    table = tabulate(sweep, runs, records)[2].lead

    tied = [cell.endswith("\u2248") for cell in column(table, RECALL, "T2I")[:5]]
    assert tied == [False, False, False, True, True]
    assert "\u2248: not distinguishable from the best of its column" in table.caption
    plain = tabulate(depth_sweep(), runs, records)[2].lead
    assert not any("\u2248" in cell for cell in column(plain, RECALL, "T2I"))


def test_columns_are_those_asked_for_in_their_order(records: Records) -> None:
    sweep = depth_sweep(columns=["test/role/acc1", "cost/parameters", T2I, "cost/gmacs/text"])
    runs, _ = runs_by(sweep)
    fill(records, runs)

    tables = tabulate(sweep, runs, records)[2]

    assert [c.heads for c in tables.lead.columns] == [
        ("layers",),
        ("parameters (M)", "image + text"),
        ("text tower GMACs (GMACs)",),
        ("Zero-shot classification (%)", "role acc@1"),
        ("Retrieval (%)", "T2I R@1"),
    ]
    assert column(tables.lead, "parameters (M)", "image + text")[0] == "0.40 + 0.60"
    assert tables.every is not None
    heads = [c.heads[-1] for c in tables.every.columns]
    assert heads == ["layers", "\u0394 T2I", "I2T", "\u0394 I2T"]


@pytest.mark.parametrize(("delta", "lines"), [("column", 1), ("line", 2)])
def test_differences_stand_in_a_column_or_on_a_line_where_asked(
    records: Records, delta: str, lines: int
) -> None:
    sweep = depth_sweep(metrics=[T2I], delta=delta)
    runs, _ = runs_by(sweep)
    fill(records, runs)

    table = tabulate(sweep, runs, records)[2].lead

    cells = table.rows[2][-1].lines
    assert (letters(cells[-1]), len(cells)) == ("\u22121.9 [\u22122.1, \u22121.7]*", lines)
    assert "\u0394: difference to 12 layers" in table.caption


def test_a_table_of_components_has_checks_and_the_order_of_its_names(records: Records) -> None:
    mlm, token = "objective.mlm.weight", "objective.token.weight"
    names = {
        "CLIP": {mlm: 0.0, token: 0.0},
        "with tokens": {mlm: 0.0, token: 0.5},
        "with words": {mlm: 0.25, token: 0.0},
        "with both": {mlm: 0.25, token: 0.5},
    }
    sweep = sweep_of({mlm: [0.25, 0.0], token: [0.5, 0.0]}, metrics=[T2I], names=names,
                     labels={mlm: "MLM", token: "tokens"})  # fmt: skip
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3)

    table = tabulate(sweep, runs, records)[2].lead

    assert column(table, "")[:4] == list(names)
    assert column(table, "MLM") == ["\u2013", "\u2013", "\u2713", "\u2713", ""]
    assert column(table, "tokens") == ["\u2013", "\u2713", "\u2013", "\u2713", ""]
    assert table.footnotes == ("\u2713: 0.25", "\u2713: 0.5")


def test_names_stand_for_axes_that_are_no_components(records: Records) -> None:
    rate, depth = "train.lr", "model.text.layers"
    names = {f"{way}, {n} layers": {rate: lr, depth: n} for n in (2, 4)
             for way, lr in (("slow", 1e-4), ("fast", 1e-3))}  # fmt: skip
    sweep = sweep_of({rate: [1e-4, 1e-3], depth: [2, 4]}, metrics=[T2I], names=names)
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3)

    tables = tabulate(sweep, runs, records)[2]

    assert [c.heads[-1] for c in tables.lead.columns if not c.numeric] == [""]
    assert column(tables.lead, "")[:4] == list(names)
    settings = settings_by_name(collect(sweep, runs, records.store))
    assert column(settings, "what it sets")[1] == "lr 0.001 and 2 layers"
    part = replace(sweep, show=replace(sweep.show, names=dict([*names.items()][:2])))
    lead = tabulate(part, expand(part), records)[2].lead
    assert [c.heads[-1] for c in lead.columns][:3] == ["", "layers", "lr"]


def test_a_rule_stands_between_the_values_of_the_outer_axis(records: Records) -> None:
    sweep = sweep_of({"model.embed_dim": [64, 128], "model.text.layers": [1, 2, 4]}, metrics=[T2I],
                     x="model.text.layers", hue="model.embed_dim")  # fmt: skip
    sweep = replace(sweep, show=replace(sweep.show, x="model.text.layers"))
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3)

    table = tabulate(sweep, runs, records)[2].lead

    assert [len(group.rows) for group in table.groups] == [3, 3]
    assert [c.heads for c in table.columns][:2] == [("embed_dim",), ("layers",)]


def test_a_difference_that_excludes_zero_never_prints_as_if_it_held_it(records: Records) -> None:
    # differences 0.02, 0.03, 0.04 points: interval [0.005, 0.055]
    sweep = sweep_of(
        {"model.text.layers": [12, 1]}, metrics=[T2I], baseline={"model.text.layers": 12}
    )
    runs = expand(sweep)
    for run in runs:
        added = [0.0002, 0.0003, 0.0004][run.seed] if run.config.model.text.layers == 1 else 0.0
        records.done(run, t2i=0.3 + added)

    table = tabulate(sweep, runs, records)[2].every

    assert column(table, "Retrieval (%)", "\u0394 T2I R@1")[1] == "+0.03 [0.01, 0.05]*"


def test_holes_are_dashes_with_footnotes(records: Records) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((2, 1), (8, 0), (8, 1), (8, 2)))
    records.failed(at(2, 1))

    _, _, tables = tabulate(sweep, runs, records)

    means = column(tables.lead, RECALL, "T2I")
    assert (means[1], means[3]) == ("\u2014", "\u2014")
    assert tables.lead.footnotes == (
        "2 of 3 seeds: seed 1 failed (diverged): loss is NaN at step 41",
        "cost is known once a seed is done",
        "0 of 3 seeds: seeds 0, 1, 2 not run",
    )
    assert tables.every is not None
    assert tables.every.footnotes == (
        "2 of 3 seeds in common (0, 2)",
        "no seed has both this value and the baseline's",
    )


def test_one_seed_has_no_spread_and_the_caption_says_so(records: Records) -> None:
    sweep = depth_sweep()
    runs = expand(sweep, seeds=[0])
    fill(records, runs)

    _, _, tables = tabulate(sweep, runs, records)

    assert column(tables.lead, RECALL, "T2I")[0] == "30.0"
    assert column(tables.every, RECALL, "\u0394 T2I")[0] == "\u221210.0"
    assert tables.lead.caption.startswith("One seed, so no spread.")


def test_without_a_baseline_there_is_no_second_table(records: Records) -> None:
    sweep = sweep_of({"model.text.layers": [1, 2]})
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3)

    assert tabulate(sweep, runs, records)[2].every is None


def test_of_many_points_the_best_and_the_baseline_lead(records: Records) -> None:
    sweep = sweep_of({"train.lr": [1e-4 * n for n in range(1, 61)]}, metrics=[T2I],
                     baseline={"train.lr": 1e-4})  # fmt: skip
    runs = expand(sweep, seeds=[0])
    for run in runs:
        records.done(run, t2i=100 * run.config.train.lr)

    tables = tabulate(sweep, runs, records)[2]

    assert column(tables.lead, "lr")[:2] == ["0.0001", "0.0022"]
    assert len(tables.lead.rows) == MOST_ROWS
    assert any("40 of 60 points" in flat(remark) for remark in tables.lead.remarks)
    assert tables.every is not None
    assert len(tables.every.rows) == 60


# ---- formats


def test_markdown_has_one_row_a_point_and_equal_columns(records: Records) -> None:
    sweep = depth_sweep()
    runs, _ = runs_by(sweep)
    fill(records, runs, skip=((4, 1),))

    table = tabulate(sweep, runs, records)[2].lead
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

    table = tabulate(sweep, runs, records)[2].lead
    tex = to_latex("t", (table,))

    assert balanced(tex)
    body = tex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns) - 1}
    assert r"\{x\} \& \$y\_1\$ \textbar{} \textbackslash{}oops \texttt{U+4E2D}" in tex
    begun, ended = (re.findall(rf"\\{word}\{{(.*?)\}}", tex) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    assert r"\label{tab:made-up}" in tex


def test_latex_sets_spread_and_star_at_one_place(records: Records) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs)

    tex = to_latex("t", (tabulate(sweep, runs, records)[2].lead,))

    assert r"4 & 0.40 + 1.20 & 38.3$_{\pm 0.3}^{*}$ \\" in tex
    assert r"12 & 0.40 + 2.80 & \textbf{40.2}$_{\pm 0.3}$ \\" in tex


def test_a_value_that_the_point_does_not_set_is_the_bases_in_parentheses(
    records: Records,
) -> None:
    sweep = sweep_of({"model.text.layers": [8]}, metrics=[T2I])
    sweep = replace(sweep, points=sweep.points + points({"model.embed_dim": 64}))
    runs = expand(sweep)

    table = tabulate(sweep, runs, records)[2].lead

    assert column(table, "layers")[:2] == ["8", "(12)"]
    assert column(table, "embed_dim")[:2] == ["(512)", "64"]
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


@pytest.mark.parametrize(
    ("names", "above", "below"),
    [
        (["openmoji_swap_role/text_score", "openmoji_swap_tone/text_score"],
         "Choices openmoji_swap text score (%)", ["role", "tone"]),
        (["winoground/text_score", "winoground/image_score"],
         "Choices score (%)", ["winoground text", "winoground image"]),
        (["winoground/text_score"], "Choices (%)", ["winoground text score"]),
        (["imagenet/acc1", "imagenet_r/acc1", "imagenet_a/acc1"],
         "Zero-shot classification acc@1 (%)", ["imagenet", "imagenet_r", "imagenet_a", "average"]),
        (["imagenet_r/acc1", "imagenet_a/acc1"],
         "Zero-shot classification imagenet acc@1 (%)", ["r", "a", "average"]),
        (["a_b/acc1", "a_b_c/acc1"], "Zero-shot classification a acc@1 (%)",
         ["b", "b_c", "average"]),
    ],
)  # fmt: skip
def test_words_that_all_of_a_section_share_stand_above_them(
    names: list[str], above: str, below: list[str]
) -> None:
    (section,) = sections_of(names)

    assert list(headings_of(section).values()) == [(above, head) for head in below]


def test_effects_are_told_of_the_metrics_that_have_some(records: Records) -> None:
    token, mlm = "objective.token.weight", "objective.mlm.weight"
    sweep = sweep_of(
        {token: [0.0, 0.5], mlm: [0.0, 0.5]},
        metrics=[T2I, "validation/grounding"],
        baseline={token: 0.0, mlm: 0.0},
    )
    runs = expand(sweep)
    for run in runs:
        records.done(run, t2i=0.3 + 0.001 * (run.seed * (1 + len(run.point)) % 3))
    collection = collect(sweep, runs, records.store)

    effects = build_tables(collection, find(collection)).effects

    assert effects is not None
    assert [column.heads[-1] for column in effects.columns] == ["", "T2I R@1 (%)"]
