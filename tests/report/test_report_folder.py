"""The report folder as a whole: what it says, what it holds, and that it is the same twice."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from markdown_it import MarkdownIt
from report_records import (
    COMMIT,
    I2T,
    IMAGES,
    PROTOCOL,
    ROLE,
    T2I,
    Records,
    depth_sweep,
    edit_json,
    fill,
    metric,
    runs_by,
    sweep_of,
)

from harness.config.sweep import expand
from harness.errors import HarnessError
from harness.figures import style
from harness.figures.base import SWEEP, Drawing, Sheet
from harness.report import folder
from harness.report.folder import build


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_a_sweep_with_every_kind_of_hole(records: Records, tmp_path: Path) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((1, 2), (2, 1), (8, 0), (8, 1)))
    records.failed(at(2, 1), error="Traceback\n  loss is NaN | at step 41")
    records.running(at(8, 0))
    records.interrupted(at(8, 1))

    result = build(sweep, runs, records.store, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()

    assert (result.complete, result.holes, result.failed) == (False, 4, 1)
    assert text.startswith("# How shallow can it be?\n")
    failed = section(text, "Failed runs")
    assert f"`results/runs/{at(2, 1).key}/logs/attempt-2.txt` | 2 |" in failed
    assert "| layers=2 | 1 | diverged | loss is NaN \\| at step 41 |" in failed
    unfinished = section(text, "Not finished")
    assert "| layers=1 | 2 | not started | 0 | 10,000 |" in unfinished
    assert "| layers=8 | 0 | running | 6,000 | 10,000 |" in unfinished
    assert "| layers=8 | 1 | interrupted | 6,000 | 10,000 |" in unfinished
    protocol = section(text, "Protocol")
    assert "Fingerprint of the data: `f00dfeedf00d`" in protocol
    assert "precision fp32, device cpu, seeds 0, 1, 2" in protocol
    assert "Every run sees 10,000 samples of openmoji in batches of 100" in protocol
    assert f"Commit: `{COMMIT[:12]}`" in protocol
    assert "| layers=4 | 3 | 20.0 | 2.0 | 500 | 12.5 |" in section(text, "Time")
    assert all(f"`{run.key}`" in section(text, "Runs") for run in runs)


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_a_number_of_a_term_that_is_off_is_no_hole(
    records: Records, tmp_path: Path, baseline: float
) -> None:
    sweep = sweep_of(
        {"objective.token.weight": [0.0, 0.5]},
        metrics=[T2I, "test/grounding"],
        baseline={"objective.token.weight": baseline},
        delta="column",
    )
    split = {**PROTOCOL["splits"]["test"], "measured": ["token"]}
    measured = {
        **PROTOCOL,
        "metrics": {**PROTOCOL["metrics"], "grounding": 1, "grounding_gap": 1},
        "terms": {"test": split},
    }
    for run in expand(sweep):
        on = run.config.objective.token.weight > 0
        of_term = {
            "test/grounding": metric(0.6 + 0.01 * run.seed, IMAGES, 0.5),
            "test/grounding_gap": metric(0.001 * run.seed, IMAGES, None),
        }
        records.done(
            run, t2i=0.3, metrics=of_term if on else {}, protocol=measured if on else PROTOCOL
        )

    result = build(sweep, expand(sweep), records.store, tmp_path / "report")

    assert (result.complete, result.holes) == (True, 0)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "missing" not in text
    letter = "<sup>a</sup> " if not baseline else ""  # else others come before it
    assert f"{letter}of the loss term token, which is off in this run" in text
    differs = "\u0394 test grounding" in text
    assert differs is bool(baseline), "without the term, nothing to be the difference to"
    assert "no seed has both" not in text


@pytest.mark.usefixtures("no_figures")
def test_the_parts_of_a_step_stand_in_the_table_of_times(records: Records, tmp_path: Path) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs = expand(sweep)
    fill(records, runs)
    for run in runs:
        edit_json(
            records.store.run_dir(run.key).result_file,
            lambda tree: tree["training"].update(parts={"forward": 8.0, "backward": 11.0}),
        )

    build(sweep, runs, records.store, tmp_path / "report")

    text = (tmp_path / "report" / "report.md").read_text()
    assert "| layers=4 | 3 | 20.0 | 8.0 | 11.0 | 2.0 | 500 | 12.5 |" in section(text, "Time")
    first = (tmp_path / "report" / "runs.csv").read_text().splitlines()[0]
    assert "forward_seconds,backward_seconds" in first


@pytest.mark.usefixtures("no_figures")
def test_suspicious_accuracies_are_noted(records: Records, tmp_path: Path) -> None:
    sweep = depth_sweep(metrics=[T2I, ROLE])
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((4, 0), (4, 1)))
    for seed in (0, 1):
        odd = "class names may be in another order than the labels"
        section_of = {"images": 100, "warnings": [odd, "accuracy 0.3 is within 3 of chance"]}
        records.done(
            at(4, seed),
            t2i=0.38,
            role=0.40,
            metrics={
                f"pets/{kind}": metric(0.4, 100, 0.1) for kind in ("acc1", "mean_per_class_recall")
            }
            | {"pets/acc5": metric(0.5, 100, 0.5)},
            protocol={**PROTOCOL, "class_folders": {"pets": section_of}},
        )

    build(sweep, runs, records.store, tmp_path / "report")

    lead = (tmp_path / "report" / "report.md").read_text().partition("## ")[0]
    assert "At chance (within 3 standard errors, or below): role acc@1 in 2 of 15 runs." in lead
    assert f"pets, layers=4, seed 0 and 1 more run: {odd}." in lead


@pytest.mark.usefixtures("no_figures")
def test_the_protocol_repeats_what_opening_the_data_decided(
    records: Records, tmp_path: Path
) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs)
    for run in runs[:2]:
        directory = records.store.run_dir(run.key)
        result = directory.result() or {}
        result["training"]["data"] = {"notes": ["2 tables are pooled"], "splits": {}}
        directory.write_result(result)

    build(sweep, runs, records.store, tmp_path / "report")
    protocol = section((tmp_path / "report" / "report.md").read_text(), "Protocol")
    assert protocol.count("Note on the data: 2 tables are pooled") == 1


def test_the_same_records_give_the_same_bytes(records: Records, tmp_path: Path) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((2, 1),))
    records.failed(at(2, 1))

    build(sweep, runs, records.store, tmp_path / "one")
    build(sweep, runs, records.store, tmp_path / "two")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")

    assert set(one) == {
        "report.md",
        "report.html",
        "report.pdf",
        "table.tex",
        "appendix.tex",
        "table.csv",
        "runs.csv",
        "manifest.json",
        *(
            f"figures/{name}.{kind}"
            for name in (
                "metric_vs_axis",
                "trade_off",
                "training_curves",
            )
            for kind in ("pdf", "svg", "png", "csv")
        ),
    }
    assert {name for name in one if one[name] != two[name]} == set()


def test_a_figure_is_one_registered_function(records: Records, tmp_path: Path) -> None:
    sweep = depth_sweep(metrics=[T2I])
    runs, _ = runs_by(sweep)
    fill(records, runs)

    @SWEEP.register("seeds_by_point", place=0)
    def draw(sheet: Sheet) -> Drawing | None:
        figure, (ax,) = style.panels(1)
        counts = [len(row.seeds) for row in sheet.collection.points]
        ax.bar(range(len(counts)), counts)
        return Drawing("How many seeds each point has.", figure, "n\n3\n")

    build(sweep, runs, records.store, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    page = (tmp_path / "report" / "report.html").read_text()

    assert text.index("(figures/seeds_by_point.png)") < text.index("(figures/metric_vs_axis.png)")
    assert "How many seeds each point has." in text
    assert "How many seeds each point has." in page
    written = {file.name for file in (tmp_path / "report" / "figures").glob("seeds_by_point.*")}
    assert written == {f"seeds_by_point.{kind}" for kind in ("pdf", "svg", "png", "csv")}
    manifest = json.loads((tmp_path / "report" / "manifest.json").read_text())
    assert "figures/seeds_by_point.csv" in manifest["files"]


def test_the_manifest_names_every_run_and_every_file(records: Records, tmp_path: Path) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    records.done(at(1, 0), t2i=0.3)
    out = tmp_path / "report"

    result = build(sweep, runs, records.store, out)
    manifest = json.loads((out / "manifest.json").read_text())

    assert [run["key"] for run in manifest["runs"]] == [run.key for run in runs]
    assert [run["used"] for run in manifest["runs"]] == [True] + [False] * 14
    on_disk = records.store.run_dir(at(1, 0).key).result_file.read_bytes()
    digest = hashlib.sha256(on_disk).hexdigest()
    assert manifest["runs"][0]["inputs"]["result.json"] == digest
    written = {n: hashlib.sha256(d).hexdigest() for n, d in contents(out).items()}
    assert written.pop("manifest.json")
    assert manifest["files"] == written
    assert {file.relative_to(out).as_posix() for file in result.files} == set(contents(out))


def test_files_of_an_earlier_report_go_and_foreign_files_stay(
    records: Records, tmp_path: Path
) -> None:
    sweep = depth_sweep()
    runs, at = runs_by(sweep)
    out = tmp_path / "report"
    for layers in (1, 2):
        records.done(at(layers, 0), t2i=0.3)
    build(sweep, runs, records.store, out)
    (out / "notes.txt").write_text("mine")
    assert (out / "figures" / "metric_vs_axis.svg").exists()

    for layers in (1, 2):
        records.store.run_dir(at(layers, 0).key).set_aside()
    build(sweep, runs, records.store, out)

    assert set(contents(out)) == {
        "report.md", "report.html", "report.pdf", "table.tex", "appendix.tex", "table.csv",
        "runs.csv", "manifest.json", "notes.txt",
    }  # fmt: skip


def test_a_manifest_cannot_send_the_broom_elsewhere(records: Records, tmp_path: Path) -> None:
    sweep = depth_sweep()
    runs, _ = runs_by(sweep)
    out, outside = tmp_path / "report", tmp_path / "precious"
    outside.write_text("keep")
    out.mkdir()
    files = {"../precious": "", str(outside): ""}
    (out / "manifest.json").write_text(json.dumps({"files": files}))

    build(sweep, runs, records.store, out)

    assert outside.read_text() == "keep"


def test_a_complete_sweep_says_so(records: Records, tmp_path: Path) -> None:
    sweep = sweep_of({"model.text.layers": [1, 2]}, metrics=[T2I])
    runs = expand(sweep, seeds=[0, 1])
    for run in runs:
        records.done(run, t2i=0.3 + 0.01 * run.seed)

    result = build(sweep, runs, records.store, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()

    assert (result.complete, result.holes, result.failed) == (True, 0, 0)
    assert "Failed runs" not in text
    assert "Not finished" not in text
    assert "**Note.**" not in text


def test_mixed_code_is_warned_of(records: Records, tmp_path: Path) -> None:
    sweep = sweep_of({"model.text.layers": [1, 2]}, metrics=[T2I])
    runs = expand(sweep, seeds=[0])
    records.done(runs[0], t2i=0.3, code="a" * 12)
    records.done(runs[1], t2i=0.3, code="b" * 12)

    build(sweep, runs, records.store, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()

    assert "2 versions of the code (aaaaaaaaaaaa, bbbbbbbbbbbb)" in text


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_foreign_words_break_no_format(records: Records, tmp_path: Path) -> None:
    weird = "a|b_c & <i>d</i> $e$ `f`\n# g \u4e2d \\ [h](i) {{ j }} {% k %} 100%"
    sweep = depth_sweep(metrics=[T2I], labels={"model.text.layers": weird})
    sweep = replace(sweep, question=weird, name="we/ird_{name}")
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((2, 1),))
    records.failed(at(2, 1), failure="bug", error=f"ValueError: {weird}")

    build(sweep, runs, records.store, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)

    headings = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    assert headings[1:] == [
        "All metrics", "Further figures", "Missing results", "Failed runs", "Published figures",
        "Protocol", "Time", "Runs",
    ]  # fmt: skip
    inline = [child for token in tokens for child in token.children or []]
    tags = [t.content.strip() for t in [*tokens, *inline] if t.type.startswith("html")]
    details = r"</details>|<details><summary>[\w ,]*</summary>"
    assert not [tag for tag in tags if not re.fullmatch(rf"</?(sup|sub|ins)>|{details}", tag)]
    assert {t.attrs["href"] for t in inline if t.type == "link_open"} <= {
        "report.html", "report.pdf", "table.tex", "appendix.tex", "table.csv", "runs.csv",
        *(f"figures/{f.name}" for f in (tmp_path / "report" / "figures").iterdir()),
    }  # fmt: skip
    tex = (tmp_path / "report" / "table.tex").read_text()
    assert r"\label{tab:we-ird-name}" in tex
    body = re.sub(r"\\label\{tab:we-ird-name\}|\$_\{\\pm [^$]*\$", "", tex)
    assert not re.search(r"(?<!\\)[_#]", body)


# ---- what leads


def test_the_lead_is_at_most_fourteen_lines_and_says_nothing_twice(
    records: Records, tmp_path: Path
) -> None:
    sweep = depth_sweep(metrics=[T2I, I2T], primary=T2I, margin=3.0)
    runs, at = runs_by(sweep)
    fill(records, runs, skip=((2, 1),))
    records.failed(at(2, 1))

    build(sweep, runs, records.store, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()

    lead, rest = text.split("\n## ", 1)
    lines = [line for line in lead.splitlines() if line and not line.startswith("|")]
    assert len(lines) <= 14
    assert lines[0] == "# How shallow can it be?"
    assert lines[2].startswith("12 layers are enough: at most ")
    assert lines[3] == (
        "Design: 5 points x 3 seeds; 10,000 samples of openmoji a run; primary metric: T2I R@1 "
        "(margin 3)."
    )
    assert sum(line.startswith("![") for line in lines) == 1
    assert any(line.startswith("Undecided: whether ") for line in lines)
    assert "> **Note.** Results of 1 of 15 runs are missing" in lead
    assert lead.count("\n| ") == 2 + 5 + 1, "one table"
    sentences = [each for each in re.split(r"(?<=[.:;]) |\n", text) if len(each) > 40]
    assert not {each for each in sentences if sentences.count(each) > 1 and "Files:" not in each}
    assert "is enough" not in rest


# ---- the folder


def test_two_builders_do_not_interleave(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = depth_sweep()
    runs, _ = runs_by(sweep)
    monkeypatch.setattr(folder, "_LOCK_SECONDS", 0.01)

    with FileLock(tmp_path / ".report.lock"), pytest.raises(HarnessError, match="another process"):
        build(sweep, runs, records.store, tmp_path / "report")

    assert not (tmp_path / "report").exists()


def test_importing_the_report_is_cheap() -> None:
    code = (
        "import sys, harness.report; "
        "print([m for m in ('pandas', 'seaborn', 'scipy', 'matplotlib', 'torch') "
        "if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_reading_records_needs_no_torch() -> None:
    code = "import sys, harness.results.collect; print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
