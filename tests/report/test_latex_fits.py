"""table.tex and appendix.tex within the text of each paper: compiled, and the log read.

TeX is a system's own package (Debian: texlive-latex-base texlive-latex-recommended); without it
these tests are skipped with the line that installs it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from report_records import I2T, PROTOCOL, ROLE, T2I, Records, metric, sweep_of

from harness.config.sweep import Run, Sweep, expand
from harness.document.latex import to_latex
from harness.document.layout import LAYOUTS, PaperLayout
from harness.document.table import Table
from harness.report.tables import Tables, build_tables
from harness.results.collect import collect
from harness.results.findings import find

EXAMPLES = Path(__file__).parents[2] / "reports" / "example"
PACKAGES = "texlive-latex-base texlive-latex-recommended"
LAYERS, RATE = "model.text.layers", "train.lr"
SIGNS = "a_b & 50 % #1 $x$ <i> | {y} \\z ~ ^"
FOREIGN = "\u6a21\u578b \u043c\u043e\u0434\u0435\u043b\u044c \u03bb \u00e9"
LONG = "a_very_long_name_of_a_point-that/nobody.would=print " + "x" * 40


@pytest.fixture(scope="session")
def tex() -> str:
    found = shutil.which("pdflatex")
    if found is None:
        pytest.skip(f"needs TeX: apt-get install {PACKAGES}")
    return found


def problems_of(tex: str, folder: Path, sources: dict[str, str], layout: PaperLayout) -> list[str]:
    """What the log says of boxes that leave the text, with `sources` set one after another."""
    two = layout.column < layout.text
    gap = layout.text - 2 * layout.column
    body = []
    for name, source in sources.items():
        (folder / name).write_text(source, encoding="utf-8")
        one = r"\onecolumn" if "longtable" in source else ""
        body.append(rf"\clearpage{one}\input{{{name}}}")
    paper = [
        rf"\documentclass{'[twocolumn]' if two else ''}{{article}}",
        r"\usepackage{booktabs,longtable,amssymb}",
        rf"\setlength{{\textwidth}}{{{layout.text}in}}\setlength{{\columnsep}}{{{gap:.3f}in}}",
        r"\setlength{\textheight}{8.875in}\setlength{\topmargin}{-0.5in}\vbadness=10000",
        r"\setlength{\oddsidemargin}{-0.4in}\begin{document}Text.",
        *body,
        r"\end{document}",
    ]
    (folder / "paper.tex").write_text("\n".join(paper))
    command = [tex, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-3000:]
    log = (folder / "paper.log").read_text(errors="replace")
    return re.findall(r"^(?:Overfull|LaTeX Warning: Float too large).*", log, flags=re.MULTILINE)


@pytest.mark.parametrize("example", ["", "components", "rivals"])
def test_the_examples_fit_the_narrowest_text(tex: str, tmp_path: Path, example: str) -> None:
    names = ("table.tex", "appendix.tex")
    sources = {name: (EXAMPLES / example / name).read_text(encoding="utf-8") for name in names}

    assert r"\resizebox" not in "".join(sources.values())
    assert problems_of(tex, tmp_path, sources, LAYOUTS["neurips"]) == []


def made(records: Records, sweep: Sweep, *, holes: Callable[[Run], bool] = lambda run: False,
         more: int = 0) -> Tables:  # fmt: skip
    """The tables of a sweep; `more`: metrics of further tasks, beside the usual ones."""
    runs = expand(sweep)
    tasks = [f"test/task_{n}/acc1" for n in range(more)]
    of = {f"task_{n}": {"classnames": ["a", "b"], "templates": ["{c}"]} for n in range(more)}
    labelled = {**PROTOCOL["splits"]["test"]["labelled"], **dict.fromkeys(of, 150)}
    split = {**PROTOCOL["splits"]["test"], "labelled": labelled}
    measured = {**PROTOCOL, "tasks": {**PROTOCOL["tasks"], **of}, "splits": {"test": split}}
    for place, run in enumerate(runs):
        value = 0.3 + 0.01 * run.seed + 0.1 * ((place * 7) % 5) / 5
        if holes(run):
            records.failed(run, error=f"ValueError: {SIGNS} {FOREIGN} {LONG}")
        else:
            of_tasks = {task: metric(value, 150, 0.5) for task in tasks}
            for task in tasks:
                place = task.rpartition("/")[0]
                of_tasks[f"{place}/mean_per_class_recall"] = of_tasks[task]
                of_tasks[f"{place}/acc5"] = metric(None, 150, None, "2 classes are fewer than 5")
            records.done(run, t2i=value, metrics=of_tasks, protocol=measured)
    show = replace(sweep.show, metrics=[*sweep.show.metrics, *tasks])
    collection = collect(replace(sweep, show=show), runs, records.store)
    return build_tables(collection, find(collection))


def one_axis(**show: object) -> Sweep:
    return sweep_of({LAYERS: [1, 2, 4, 12]}, baseline={LAYERS: 12}, **show)


def many_points(count: int, **show: object) -> Sweep:
    rates = [1e-4 * n for n in range(1, count + 1)]
    return replace(sweep_of({RATE: rates}, baseline={RATE: rates[0]}, **show), seeds=range(2))


def named(words: str) -> Sweep:
    points = {f"{words} {n}": {LAYERS: layers} for n, layers in enumerate([1, 2, 4, 12])}
    return replace(one_axis(names=points, labels={LAYERS: words}), question=words)


CASES: dict[str, Callable[[Records], Tables]] = {
    "holes": lambda r: made(r, one_axis(), holes=lambda run: run.seed == run.point[LAYERS] % 3),
    "all failed": lambda r: made(r, one_axis(), holes=lambda run: True),
    "12 metrics failed": lambda r: made(r, one_axis(), holes=lambda run: True, more=9),
    "one seed": lambda r: made(r, replace(one_axis(), seeds=range(1))),
    "one point": lambda r: made(r, sweep_of({LAYERS: [4]}, baseline={LAYERS: 4})),
    "40 points": lambda r: made(r, many_points(40, metrics=[T2I, I2T, ROLE])),
    "120 points": lambda r: made(r, many_points(120, metrics=[T2I, I2T, ROLE])),
    "12 metrics": lambda r: made(r, one_axis(metrics=[T2I, I2T, ROLE]), more=9),
    "12 metrics, 40 points": lambda r: made(r, many_points(40, metrics=[T2I, I2T, ROLE]), more=9),
    "differences in columns": lambda r: made(r, one_axis(delta="column"), more=4),
    "differences on lines": lambda r: made(r, many_points(30, delta="line", ties=True), more=4),
    "signs": lambda r: made(r, named(SIGNS)),
    "foreign names": lambda r: made(r, named(FOREIGN)),
    "long names": lambda r: made(r, named(LONG), holes=lambda run: run.seed == 1),
}


#: The widest text in one column, and the narrowest column; the others are like the second.
EVERY_TIME = ("neurips", "acl")
PAPERS = [
    pytest.param(LAYOUTS[name], id=name, marks=[] if name in EVERY_TIME else pytest.mark.thorough)
    for name in LAYOUTS
]


@pytest.mark.parametrize("layout", PAPERS)
@pytest.mark.parametrize("case", CASES)
def test_no_table_leaves_its_page(
    tex: str, records: Records, tmp_path: Path, case: str, layout: PaperLayout
) -> None:
    sources = dict(written(CASES[case](records), layout))

    assert problems_of(tex, tmp_path, sources, layout) == []


def written(tables: Tables, layout: PaperLayout) -> Iterator[tuple[str, str]]:
    """The two files as a report writes them."""
    given: dict[str, Table | None] = {"table": tables.lead, "appendix": tables.every}
    for name, table in given.items():
        if table is not None:
            yield f"{name}.tex", to_latex("t", (table,), layout)


def test_a_leading_table_is_a_float_and_a_long_one_goes_on(records: Records) -> None:
    tables = made(records, many_points(60))

    (_, table), (_, appendix) = written(tables, LAYOUTS["neurips"])

    assert r"\begin{longtable}" not in table
    assert r"\begin{longtable}" in appendix
