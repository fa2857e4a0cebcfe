"""One table value in five formats: the same words and marks in each, and nothing that is markup."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.report.formats import to_csv, to_html, to_latex, to_markdown, to_typst
from harness.report.table import Column, Entry, Mark, RowGroup, Table, stacked

WEIRD = [
    "</td><script>alert(1)</script>",
    'R&D "50 %" $x_1^2$ #let {y} ~ \\input{/etc/passwd}',
    "#panic() *b* _i_ `c` @ref <label> $ - [x] // /* \\u{41}",
    "line\nbreak\r\n\u2028and\ttab",
    '=HYPERLINK("http://x") caf\u00e9 \u4e2d\u6587 \U0001f600 \u00b1 \u2212 \u202eevil',
]


def table_of(words: str) -> Table:
    """Two groups of rows under headings of three levels, with every mark, a hole and a footer."""
    number = ("Retrieval", "T2I R@1 (%)")
    return Table(
        columns=(
            Column((words,), numeric=False),
            Column((*number, "mean"), notes=(f"on {words}",)),
            Column((*number, "\u0394 to baseline"), below=True),
            Column(("Zero-shot", words)),
        ),
        groups=(
            RowGroup(
                (
                    (
                        Entry(words),
                        Entry("41.0 \u00b1 0.8", 41.0, 40.2, 41.8, 3, Mark.BEST, keys=("k1", "k2")),
                        Entry("+1.2 [0.3, 2.1]*", 1.2, 0.3, 2.1, 3),
                        Entry("7.0", 7.0, mark=Mark.TIED),
                    ),
                ),
                title=words,
            ),
            RowGroup(
                (
                    (
                        Entry("base"),
                        Entry("\u2014", notes=(f"2 of 3 seeds: {words}",), keys=("k3",)),
                        Entry("baseline"),
                        Entry("6.5", 6.5, mark=Mark.SECOND),
                    ),
                ),
                title="second sweep",
            ),
        ),
        footer=((Entry("chance"), Entry("0.5"), Entry(), Entry("")),),
        caption=f"What of {words}?",
        label="tab:a-b",
        remarks=(words,),
    )


def flat(words: str) -> str:
    from harness.report.text import one_line

    return one_line(words)


# ---- the value


def test_headings_span_the_neighbours_that_share_them() -> None:
    header = table_of("w").header()

    assert [[(s.text, s.first, s.width) for s in row] for row in header] == [
        [("", 0, 1), ("Retrieval", 1, 2), ("", 3, 1)],
        [("", 0, 1), ("T2I R@1 (%)", 1, 2), ("Zero-shot", 3, 1)],
        [("w", 0, 1), ("mean", 1, 1), ("\u0394 to baseline", 2, 1), ("w", 3, 1)],
    ]


def test_equal_headings_under_different_ones_are_two() -> None:
    table = Table((Column(("a", "x")), Column(("b", "x"))), (), "", "")

    assert [span.width for row in table.header() for span in row] == [1, 1, 1, 1]


def test_footnotes_are_numbered_by_appearance_and_each_once() -> None:
    row = (Entry("1", notes=("second", "first")), Entry("2", notes=("first",)))
    table = Table((Column(("a",), notes=("first",)), Column(("b",))), (RowGroup((row,)),), "", "")

    assert table.footnotes == ("first", "second")
    assert table.numbers(row[0].notes) == (2, 1)


def test_stacking_puts_a_difference_under_its_mean() -> None:
    table = stacked(table_of("w"))

    assert [column.heads[-1] for column in table.columns] == ["w", "mean", "w"]
    assert [line.text for line in table.rows[0][1].lines] == ["41.0 \u00b1 0.8", "+1.2 [0.3, 2.1]*"]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells under 2 columns"):
        Table((Column(("a",)), Column(("b",))), (RowGroup(((Entry("1"),),)),), "", "")


# ---- HTML


class Reader(HTMLParser):
    """What a browser would see: tags, and the text between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("words", WEIRD)
def test_html_shows_any_text_and_makes_no_tag_of_it(words: str) -> None:
    reader = Reader()
    reader.feed(to_html(table_of(words), link=lambda keys: f"#{words}"))

    allowed = [
        "table",
        "caption",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "th",
        "td",
        "sup",
        "strong",
        "u",
        "a",
        "br",
        "p",
        "ol",
        "li",
    ]
    assert {tag for tag, _ in reader.tags} <= set(allowed)
    assert flat(words) in reader.texts
    assert f"2 of 3 seeds: {flat(words)}" in reader.texts
    hrefs = {attributes["href"] for tag, attributes in reader.tags if tag == "a"}
    assert hrefs == {f"#{flat(words)}"}


def test_html_cells_carry_value_runs_and_mark() -> None:
    reader = Reader()
    reader.feed(to_html(table_of("w")))

    cells = [attributes for tag, attributes in reader.tags if tag == "td"]
    assert cells[1] == {"class": "number best", "data-value": "41.0", "data-runs": "k1 k2"}
    assert cells[3] == {"class": "number tied", "data-value": "7.0"}
    assert cells[5] == {"class": "number", "data-runs": "k3"}, "a hole has no value"
    spans = [attributes.get("colspan") for tag, attributes in reader.tags if tag == "th"]
    assert spans[:6] == [None, "2", None, None, "2", None]


# ---- LaTeX


def test_latex_groups_rows_and_spans_headings() -> None:
    tex = to_latex(table_of("w"))

    assert r" & \multicolumn{2}{c}{Retrieval} &  \\" in tex
    assert r"\cmidrule(lr){2-3}" in tex
    assert r"\multicolumn{4}{@{}l}{\textit{second sweep}} \\" in tex
    assert r"\textbf{41.0 $\pm$ 0.8}" in tex
    assert r"\underline{6.5}" in tex
    assert r"7.0\rlap{$^\approx$}" in tex


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
@pytest.mark.parametrize("words", WEIRD)
def test_latex_compiles_as_it_is(words: str, tmp_path: Path) -> None:
    body = to_latex(table_of(words))
    paper = "\\documentclass[twocolumn]{article}\\usepackage{booktabs}\\begin{document}"
    (tmp_path / "paper.tex").write_text(f"{paper}\n{body}\\end{{document}}\n")

    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
    )

    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").exists()


# ---- Typst


@pytest.mark.parametrize("words", WEIRD)
@pytest.mark.parametrize("stack", [False, True])
def test_typst_compiles_and_shows_any_text(words: str, stack: bool) -> None:
    typst = pytest.importorskip("typst")

    source = to_typst(table_of(words), stack=stack) + "\nSee @tab:a-b.\n"
    pdf = typst.compile(source.encode())

    assert pdf.startswith(b"%PDF")


def test_typst_has_no_bare_word() -> None:
    source = to_typst(table_of(WEIRD[2]))

    bare = re.sub(r'"(?:\\.|[^"\\])*"', '""', source)
    assert "panic" not in bare
    assert "@ref" not in bare
    assert "//" not in bare


# ---- Markdown and CSV


def test_markdown_marks_and_groups() -> None:
    lines = to_markdown(table_of("w")).splitlines()

    assert "| **w** |  |  |  |" in lines
    assert "| w | **41.0 \u00b1 0.8** | +1.2 [0.3, 2.1]\\* | 7.0 \u2248 |" in lines
    assert "| base | \u2014 <sup>2</sup> | baseline | <ins>6.5</ins> |" in lines


@pytest.mark.parametrize("words", WEIRD)
def test_csv_gives_back_every_number_with_its_runs(words: str) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(table_of(words)), newline="")))

    assert len(rows) == 6
    first = rows[0]
    assert (float(first["value"]), float(first["low"]), float(first["high"])) == (41.0, 40.2, 41.8)
    assert (first["n"], first["mark"], first["runs"]) == ("3", "best", "k1 k2")
    assert rows[3]["value"] == ""
    assert not any(value.startswith(("=", "+", "-", "@")) for row in rows for value in row.values())
