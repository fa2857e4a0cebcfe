"""A document as a paper, set by Typst: no name is ever markup, and there is no date.

Typst runs in a process of its own, whose hundreds of megabytes go when it is done; its fonts are
those inside it, so that the same document gives the same bytes anywhere.

python -m harness.document.typst FOLDER     # main.typ and what it includes -> paper.pdf
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import typst

from harness.document import blocks as b
from harness.document.blocks import Block, Document
from harness.document.escaping import typst_string
from harness.document.table import (
    Heading,
    Mark,
    Table,
    TableCell,
    first_rows,
    heading_lines,
    split,
    stacked,
)
from harness.document.text import Inline, Text, flat, write
from harness.errors import HarnessError

_PAPER = "paper.pdf"
_THICK, _THIN = "0.8pt", "0.4pt"
#: Lines of a table that still fit on a page between other things; more go to pages of their own.
_FLOAT_LINES = 46
#: Rows past which a paper refers to the page: nobody reads them on paper.
_ROWS, _ROWS_IN_TEXT = 120, 24
#: Columns past which a second line takes what may stand there, and past which a page is turned.
_WIDE, _PORTRAIT_COLUMNS = 8, 16
#: Points between the margins of a page, upright and turned, and a letter's share of the size.
_PORTRAIT, _LANDSCAPE, _LETTER = 396, 642, 0.47
#: Points of a table's letters, and of those of one that would not fit otherwise.
_LETTERS, _SMALLEST = 7.6, 5.6
#: Letters of a word that is not broken (paper.typ breaks longer ones), and of space around a cell.
_WHOLE, _INSET = 14, 2
_STYLES = {
    "strong": "#strong({})",
    "code": "#mono({})",
    "superscript": "#super({})",
    "subscript": "#sub({})",
    "link": "#{}",
}
_MARKS = {
    Mark.NONE: "{}",
    Mark.BEST: "#strong[{}]",
    Mark.SECOND: "#underline[{}]",
    Mark.MUTED: "#text(fill: luma(90))[{}]",
}
_NOTES = '#super("{}")'


def to_pdf(document: Document) -> bytes:
    """The paper."""
    inputs = {picture_of(f): f.files[picture_of(f).rpartition(".")[2]] for f in document.figures()}
    paper = files("harness.document") / "assets" / "paper.typ"
    return _typeset(
        {**inputs, "main.typ": to_typst(document).encode(), "paper.typ": paper.read_bytes()}
    )


def to_typst(document: Document) -> str:
    """The paper's source, which includes paper.typ and `picture_of` each figure."""
    head = f"title: {typst_string(document.title)}, below: {typst_string(document.subtitle)}"
    late: list[str] = []
    lines = list(_blocks(document.blocks, 1, late))
    return "\n".join(['#import "paper.typ": *', f"#show: paper.with({head})", *lines, *late]) + "\n"


def _blocks(blocks: Iterable[Block], level: int, late: list[str]) -> Iterator[str]:
    """The source of `blocks`; tables too large to stand among others are added to `late`."""
    for block in blocks:
        match block:
            case b.Section():
                if block.on_paper:
                    yield f"#heading(level: {level}, {typst_string(block.title)})"
                    yield from _blocks(block.blocks, level + 1, late)
            case b.Paragraph():
                yield f"#par[{words(block.text)}]"
            case b.BulletList():
                yield f"#points({', '.join(f'[{words(item)}]' for item in block.items)})"
            case b.Note():
                yield f"#note[{words(block.text)}]"
            case b.Code():
                yield f"#raw(block: true, {typst_string(block.lines, lines=True)})"
            case b.Figure():
                file, caption = (typst_string(t) for t in (picture_of(block), block.caption))
                yield f"#picture({file}, {caption})"
            case b.Details():
                yield f"#folded[{words(block.summary)}]"
                yield from _blocks(block.blocks, level, late)
            case Table():
                yield from _numbered(block, late) if block.caption else _in_text(block)


def picture_of(figure: b.Figure) -> str:
    """The file of `figure` that the paper shows: a PDF brings its own fonts."""
    return f"{figure.name}.{'pdf' if 'pdf' in figure.files else 'svg'}"


def words(text: Text) -> str:
    """Words as content in which nothing is markup."""
    return write(text, lambda plain: f"#{typst_string(plain)}", _inline)


def _inline(inline: Inline) -> str:
    return _STYLES[inline.style].format(typst_string(inline.text))


# --------------------------------------------------------------------------- a table of its own


def _numbered(given: Table, late: list[str]) -> list[str]:
    """A table with its caption, in the text; one that takes whole pages is added to `late`."""
    shown = stacked(given) if len(given.columns) > _WIDE else given
    table = first_rows(shown, _ROWS, "report.html")
    columns, lines = len(table.columns), sum(_height(row) for row in table.rows)
    flipped = columns > _PORTRAIT_COLUMNS
    room = _LANDSCAPE if flipped else _PORTRAIT
    parts = split(table, int(room / (_LETTER * _SMALLEST)))
    own_pages = flipped or lines * len(parts) > _FLOAT_LINES
    place = f"own-pages(flipped: {str(flipped).lower()})" if own_pages else "across"
    source = [
        f"#{place}[#figure(",
        f"kind: table, caption: [{words(table.caption)}], [",
        *[line for part in parts for line in _table(part)],
        *_explained(table),
        f"])#label({typst_string(table.label)})]" if table.label else "])]",
    ]
    if not own_pages:
        return source
    late += source
    return []


def _height(row: Sequence[TableCell]) -> int:
    return max(len(cell.lines) for cell in row)


def _table(table: Table) -> list[str]:
    header = [spans for spans in table.header() if any(span.text for span in spans)]
    return [
        f"#fitted({_LETTERS}pt, {_SMALLEST}pt)[#table(",
        f"columns: {len(table.columns)}, stroke: none, inset: (x: 3pt, y: 2.2pt),",
        f"align: ({', '.join(column.align for column in table.columns)},),",
        f"table.hline(stroke: {_THICK}),",
        "table.header(",
        *[line for spans in header for line in _head_row(table, spans)],
        "),",
        f"table.hline(stroke: {_THIN}),",
        *_body(table),
        f"table.hline(stroke: {_THICK}),",
        ")]",
    ]


def _head_row(table: Table, spans: Sequence[Heading]) -> list[str]:
    cells, rules = [], []
    for span in spans:
        one = span.width == 1 and span.text == table.columns[span.first].heads[-1]
        lines = heading_lines(table, span.first) if one else [span.text]
        said = "#linebreak()".join(map(words, lines)) + table.letters(span.notes, _NOTES)
        across = f"colspan: {span.width}, align: center" if span.width > 1 else ""
        below = f"align: {table.columns[span.first].align} + bottom"
        cells.append(f"table.cell({across or below})[{said}],")
        if span.text and span.width > 1:
            end = span.first + span.width
            rules.append(f"table.hline(start: {span.first}, end: {end}, stroke: {_THIN}),")
    return [" ".join(cells), *rules]


def _body(table: Table) -> Iterator[str]:
    for number, group in enumerate(table.groups):
        if number:
            yield f"table.hline(stroke: {_THIN}),"
        if group.title:
            title = f"#emph({typst_string(group.title)})"
            yield f"table.cell(colspan: {len(table.columns)}, align: left)[{title}],"
        yield from (_row(table, row) for row in group.rows)
    if table.footer:
        yield f"table.hline(stroke: {_THIN}),"
        yield from (_row(table, row) for row in table.footer)


def _row(table: Table, row: Sequence[TableCell]) -> str:
    return " ".join(f"[{_cell(table, cell)}]," for cell in row)


def _cell(table: Table, cell: TableCell) -> str:
    return "#linebreak()".join(_line(table, line) for line in cell.lines)


def _line(table: Table, cell: TableCell) -> str:
    shown = words(cell.text)
    if cell.value is not None:  # a number and its interval stay on one line
        shown = f"#box[{shown}]"
    return _MARKS[cell.mark].format(shown) + words(cell.after) + table.letters(cell.notes, _NOTES)


def _explained(table: Table) -> Iterator[str]:
    said = [words(text) for text in table.explained()]
    if said:
        yield f"#below-table[{' #linebreak() '.join(said)}]"


# --------------------------------------------------------------------------- a table in the text


def _in_text(given: Table) -> Iterator[str]:
    """A table as wide as the column, whose long words are broken."""
    table = first_rows(given, _ROWS_IN_TEXT, "report.html")
    shares = [_share(table, index) for index in range(len(table.columns))]
    yield f"#grid-of(({', '.join(f'{share}fr' for share in shares)},),"
    yield f"({', '.join(column.align for column in table.columns)},), ("
    yield " ".join(f"[{words(column.heads[-1])}]," for column in table.columns)
    yield "),"
    for row in table.rows:
        yield " ".join(f"[{_soft(cell.text)}]," for cell in row)
    yield ")"
    yield from _explained(table)


def _soft(text: Text) -> str:
    return write(text, lambda plain: f"#soft({typst_string(plain)})", _inline)


def _share(table: Table, index: int) -> float:
    """Letters of the longest word, which stays whole, and a part of the longest line."""
    column = [*table.columns[index].heads[-1:], *(flat(row[index].text) for row in table.rows)]
    word = max((len(word) for cell in column for word in cell.split()), default=0)
    whole, line = min(word, _WHOLE), min(max(map(len, column)), 40)
    return round(_INSET + max(whole, 3) + 0.3 * max(0, line - whole), 1)


# --------------------------------------------------------------------------- the process


def _typeset(inputs: dict[str, bytes]) -> bytes:
    """The PDF of `main.typ` among `inputs`, file name -> content; HarnessError if it is refused."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, data in inputs.items():
            (folder / name).write_bytes(data)
        command = [sys.executable, "-m", "harness.document.typst", temporary]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HarnessError(f"the paper cannot be set: {done.stderr.strip()}")
        return (folder / _PAPER).read_bytes()


def main(folder: Path) -> None:
    """Set the paper, with the fonts inside Typst alone."""
    source, root = str(folder / "main.typ"), str(folder)
    data = typst.compile(source, root=root, format="pdf", ignore_system_fonts=True)
    (folder / _PAPER).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
