"""One document in four formats: the same words and marks in each, and nothing that is markup."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import typst
from markdown_it import MarkdownIt
from PIL import Image
from pypdf import PdfReader

from harness.document.blocks import (
    BulletList,
    Code,
    Details,
    Document,
    Figure,
    Note,
    Paragraph,
    Section,
)
from harness.document.html import to_html
from harness.document.latex import to_latex
from harness.document.layout import LAYOUTS
from harness.document.markdown import to_markdown
from harness.document.table import (
    Column,
    Mark,
    RowGroup,
    Table,
    TableCell,
    heading_lines,
    plain_table,
    split,
    stacked,
    width,
)
from harness.document.text import Inline, code, link, one_line, strong
from harness.document.typst import to_pdf, to_typst

WEIRD = [
    "</td><script>alert(1)</script>",
    'R&D "50 %" $x_1^2$ #let {y} ~ \\input{/etc/passwd}',
    "#panic() *b* _i_ `c` @ref <label> $ - [x] // /* \\u{41}",
    "line\nbreak\r\n\u2028and\ttab",
    '=HYPERLINK("http://x") caf\u00e9 \u4e2d\u6587 \U0001f600 \u00b1 \u2212 \u202eevil',
]


#: Left and right end of a paper's text, in points of a page.
TEXT = (99, 496)


@pytest.mark.parametrize("columns", [3, 8, 11, 14])
def test_a_table_of_a_paper_is_no_wider_than_its_text(columns: int, tmp_path: Path) -> None:
    heads = [Column(("model",), numeric=False)]
    heads += [Column(("Retrieval (%)", f"mean recall {n}")) for n in range(columns)]
    cells = [TableCell("a point of some name"), *[TableCell("+12.3 [10.1, 14.5]")] * columns]
    table = Table(tuple(heads), (RowGroup((tuple(cells),) * 4),), caption="All of it.", label="t")

    pages = seen(to_pdf(Document("Title", (table,))), tmp_path)

    dark = [np.asarray(page) < 128 for page in pages]
    assert all(not page[:, : TEXT[0] - 2].any() for page in dark)
    assert all(not page[:, TEXT[1] + 2 :].any() for page in dark)
    assert any(page[:, TEXT[0] : TEXT[1]].any() for page in dark)


def seen(paper: bytes, folder: Path) -> list[Image.Image]:
    """The pages of a paper in grey, a pixel a point."""
    count = len(PdfReader(io.BytesIO(paper)).pages)
    (folder / "paper.pdf").write_bytes(paper)
    source = folder / "pages.typ"
    shown = [f'#image("paper.pdf", page: {n + 1})' for n in range(count)]
    page = "#set page(width: auto, height: auto, margin: 0pt)\n"
    source.write_text(page + "\n#pagebreak()\n".join(shown))
    drawn = typst.compile(str(source), root=str(folder), format="png", ppi=72)
    listed = drawn if isinstance(drawn, list) else [drawn]
    return [Image.open(io.BytesIO(data)).convert("L") for data in listed]


def test_copied_latex_fits_the_paper_that_was_asked_for() -> None:
    heads = [Column((f"a heading {n}",)) for n in range(12)]
    table = Table(tuple(heads), (RowGroup(((TableCell("12.3"),) * 12,)),), caption="C", label="t")
    page = Document("Title", (table,))
    sources = {name: escape(to_latex("C", (table,), LAYOUTS[name])) for name in LAYOUTS}

    for name, source in sources.items():
        assert f"<template>{source}</template>" in to_html(page, layout=LAYOUTS[name]).decode()
    assert sources["neurips"] != sources["acl"]


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
                        TableCell(words),
                        TableCell("41.0 \u00b1 0.8", 41.0, Mark.BEST, keys=("k1", "k2")),
                        TableCell("+1.2 [0.3, 2.1]*", 1.2),
                        TableCell("7.0", 7.0, after=(Inline("\u00b10.5", "subscript"),)),
                    ),
                ),
                title=words,
            ),
            RowGroup(
                (
                    (
                        TableCell("base"),
                        TableCell("\u2014", notes=(f"2 of 3 seeds: {words}",), keys=("k3",)),
                        TableCell("baseline"),
                        TableCell("6.5", 6.5, mark=Mark.SECOND),
                    ),
                ),
                title="second sweep",
            ),
        ),
        footer=((TableCell("chance"), TableCell("0.5"), TableCell(), TableCell("")),),
        caption=f"What of {words}?",
        label="tab:a-b",
        remarks=(words,),
    )


PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cf"
    "c0000003010100c9fe92ef0000000049454e44ae426082"
)


def page_of(words: str) -> Document:
    """Every kind of block and of words set apart, all of them saying `words`."""
    apart = (
        f"{words} ",
        strong(words),
        " ",
        code(words),
        Inline(words, "superscript"),
        Inline(words, "subscript"),
        link(words, f"https://example.org/{words}"),
    )
    blocks = (
        Note(apart),
        Paragraph(apart),
        BulletList((apart, words)),
        Code(f"if {words}:\n    {words}", "python"),
        Figure("drawn", words, {"svg": PICTURE, "png": PIXEL, "csv": b""}),
        Details(apart, (Paragraph(words),)),
        table_of(words),
        plain_table([words, "n"], [[words, 1]], numeric=["n"], coded=[words], keys=[["k4"]]),
    )
    return Document(words, (*blocks, Section(words, (Section(words, blocks[:2]),))), words)


def alone(table: Table) -> Document:
    """A page of one table."""
    return Document("t", (table,))


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


def test_footnotes_are_lettered_by_appearance_and_each_once() -> None:
    row = (TableCell("1", notes=("second", "first")), TableCell("2", notes=("first",)))
    table = Table((Column(("a",), notes=("first",)), Column(("b",))), (RowGroup((row,)),), "", "")

    assert table.footnotes == ("first", "second")
    assert table.letters(row[0].notes) == "b,a"


def test_stacking_puts_a_difference_under_its_mean() -> None:
    table = stacked(table_of("w"))

    assert [column.heads[-1] for column in table.columns] == ["w", "mean", "w"]
    assert [line.text for line in table.rows[0][1].lines] == ["41.0 \u00b1 0.8", "+1.2 [0.3, 2.1]*"]


def wide_table(names: tuple[str, str], metrics: int = 6) -> Table:
    """Two rows of metrics of 16 letters, with a difference each."""
    columns = [Column(("depth",), numeric=False), Column(("width",), numeric=False)]
    rows = [[TableCell(name), TableCell("512")] for name in names]
    for number in range(metrics):
        columns += [Column((f"metric {number}", "mean")), Column((f"metric {number}", "diff"))]
        for row in rows:
            row += [TableCell("41.00 +- 10.00 %", notes=(f"note {number}",)), TableCell("+1.2")]
    return Table(tuple(columns), (RowGroup(tuple(map(tuple, rows))),), "caption", "tab:wide")


def test_a_table_too_wide_is_split_between_headings_and_notes_keep_their_letter() -> None:
    table = wide_table(("1", "2"))

    parts = split(table, 70)

    assert all(width(part) <= 70 for part in parts)
    heads = [[column.heads[0] for column in part.columns] for part in parts]
    assert heads[0] == ["depth", "width", *["metric 0"] * 2, *["metric 1"] * 2]
    assert heads[1] == ["depth", *["metric 2"] * 2, *["metric 3"] * 2]
    assert [row[0].text for row in parts[1].rows] == ["1", "2"]
    assert parts[1].letters(parts[1].rows[0][1].notes) == "c"
    assert split(table, 1000) == [table]


def test_all_words_are_repeated_where_the_first_does_not_tell_rows_apart() -> None:
    second = split(wide_table(("1", "1")), 70)[1]

    assert [column.heads[0] for column in second.columns][:2] == ["depth", "width"]


def test_latex_and_typst_set_the_parts_one_below_the_other() -> None:
    table = wide_table(("1", "2"))

    assert to_latex("t", (table,)).count(r"\begin{tabular}") == 2
    assert to_latex("t", (table,)).count(r"\caption") == 1
    typst = to_typst(alone(wide_table(("1", "2"), metrics=12)))
    assert "flipped: true" in typst
    assert typst.count("#table(") == 2
    assert typst.count("caption:") == 1


def test_a_long_heading_is_broken_between_words_and_costs_no_part() -> None:
    heads = [("Objectives", f"validation grounding gap {n} (cosine)") for n in range(4)]
    row = (TableCell("CLIP"), *[TableCell("0.2699")] * 4)
    columns = (Column(("",), numeric=False), *map(Column, heads))
    table = Table(columns, (RowGroup((row,)),), "caption", "tab:long")

    assert heading_lines(table, 1) == ["validation", "grounding", "gap 0", "(cosine)"]
    assert split(table, 60) == [table]
    assert '#"grounding"#linebreak()#"gap 0"' in to_typst(alone(table))


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells under 2 columns"):
        Table((Column(("a",)), Column(("b",))), (RowGroup(((TableCell("1"),),)),), "", "")


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


#: Tags of the page itself, and those that a document's blocks may become.
SHELL = frozenset(
    ("html", "head", "meta", "link", "title", "style", "body", "script", "header", "main", "nav")
)
BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "h1 h2 h3 h4 p ul li section div details summary pre figure figcaption img table caption "
        "thead tbody tfoot tr th td br a code strong sub sup u button template",
    )
)


@pytest.mark.parametrize("words", WEIRD)
def test_html_shows_any_text_and_makes_no_tag_of_it(words: str) -> None:
    reader = Reader()
    reader.feed(to_html(page_of(words)).decode())

    assert {tag for tag, _ in reader.tags} <= SHELL | BLOCKS
    assert len([tag for tag, _ in reader.tags if tag == "script"]) == 1
    assert one_line(words) in reader.texts
    assert f"2 of 3 seeds: {one_line(words)}" in "".join(reader.texts)
    hrefs = {attributes["href"] or "" for tag, attributes in reader.tags if tag == "a"}
    address = f"https://example.org/{one_line(words)}"
    drawn = {f"figures/drawn.{ending}" for ending in ("svg", "png", "csv")}
    assert {href for href in hrefs if not href.startswith("#")} == {address, *drawn}
    assert {"#run-k1", "#run-k3", "#run-k4"} <= hrefs


def test_html_cells_carry_value_runs_and_mark() -> None:
    reader = Reader()
    reader.feed(to_html(alone(table_of("w"))).decode())

    cells = [attributes for tag, attributes in reader.tags if tag == "td"]
    assert cells[1] == {"class": "number best", "data-value": "41.0", "data-runs": "k1 k2"}
    assert cells[3] == {"class": "number", "data-value": "7.0"}
    assert cells[5] == {"class": "number"}, "a hole has no value, and its one run is its link's"
    spans = [attributes.get("colspan") for tag, attributes in reader.tags if tag == "th"]
    assert spans[:6] == [None, "2", None, None, "2", None]


def test_html_gives_every_section_a_name_of_its_own() -> None:
    page = Document("t", (Section("One & two", ()), Section("One, two", ()), Section("中", ())))
    reader = Reader()
    reader.feed(to_html(page).decode())

    names = [attributes["id"] for tag, attributes in reader.tags if tag == "section"]
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    assert names == ["one-two", "one-two-2", "section"]
    assert links == [f"#{name}" for name in names]


# ---- LaTeX


def test_latex_groups_rows_and_spans_headings() -> None:
    tex = to_latex("t", (table_of("w"),))

    assert r" & \multicolumn{2}{c}{Retrieval} &  \\" in tex
    assert r"\cmidrule(lr){2-3}" in tex
    assert re.search(r"\\multicolumn\{4\}\{@\{\}p.*\\textit\{second sweep\}\} ", tex)
    assert r"\textbf{41.0 $\pm$ 0.8}" in tex
    assert r"\underline{6.5}" in tex
    assert r"7.0$_{\pm 0.5}$" in tex


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
@pytest.mark.parametrize("words", WEIRD)
def test_latex_compiles_as_it_is(words: str, tmp_path: Path) -> None:
    packages = r"\usepackage{booktabs}"
    head = rf"\documentclass[twocolumn]{{article}}{packages}\begin{{document}}"
    body = to_latex(words, (table_of(words),))
    (tmp_path / "paper.tex").write_text(f"{head}\n{body}\\end{{document}}\n")

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
def test_typst_compiles_and_shows_any_text(words: str) -> None:
    pages = PdfReader(io.BytesIO(to_pdf(page_of(words)))).pages

    seen = "".join("".join(page.extract_text() for page in pages).replace("\u200b", "").split())
    told = "".join(c if ord(c) < 0x2300 else f"U+{ord(c):04X}" for c in one_line(words))
    ends, seen = (re.sub(r"[^!-~]", "", letters) for letters in (told[-12:], seen))
    assert seen.count(ends) >= 10


def test_typst_has_no_bare_word() -> None:
    source = to_typst(page_of(WEIRD[2]))

    bare = re.sub(r'"(?:\\.|[^"\\])*"', '""', source)
    assert "panic" not in bare
    assert "@ref" not in bare
    assert "//" not in bare


# ---- Markdown


def test_markdown_marks_and_groups() -> None:
    lines = to_markdown(alone(table_of("w"))).splitlines()

    assert "| **w** |  |  |  |" in lines
    assert "| w | **41.0 \u00b1 0.8** | +1.2 [0.3, 2.1]\\* | 7.0<sub>\u00b10.5</sub> |" in lines
    assert "| base | \u2014 <sup>b</sup> | baseline | <ins>6.5</ins> |" in lines
    assert "<sup>b</sup> 2 of 3 seeds: w" in lines


@pytest.mark.parametrize("words", WEIRD)
def test_markdown_shows_any_text_and_makes_no_markup_of_it(words: str) -> None:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = reader.parse(to_markdown(page_of(words)))

    inline = [child for token in tokens for child in token.children or []]
    tags = {t.content for t in [*tokens, *inline] if t.type.startswith("html")}
    assert not [tag for tag in tags if not re.fullmatch(ALLOWED, tag.strip(), re.DOTALL)]
    headings = [tokens[i + 1] for i, token in enumerate(tokens) if token.type == "heading_open"]
    said = ["".join(child.content for child in h.children or []) for h in headings]
    assert said == [one_line(words)] * 3
    (fence,) = [token for token in tokens if token.type == "fence"]
    assert fence.content == f"if {words}:\n    {words}\n".replace("\r\n", "\n")
    hrefs = {str(t.attrs["href"]) for t in inline if t.type == "link_open"}
    (address,) = hrefs - FILES
    assert re.fullmatch(r"https://example\.org/[^\s\"'()<>\[\]\\]+", address)


FILES = {"figures/drawn.svg", "figures/drawn.csv"}
ALLOWED = r"</?(sup|sub|ins)>|<br>|</details>|<details><summary>[^\n]*</summary>"
