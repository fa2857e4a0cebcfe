"""A document as one page for a browser, with nothing to fetch.

The page's own policy runs no script but the one it comes with, which sorts tables, and shows the
runs behind a number from data in a block of its own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from html import escape
from importlib.resources import files
from itertools import groupby

from harness.document import blocks as b
from harness.document.blocks import Block, Document
from harness.document.escaping import html
from harness.document.latex import to_latex
from harness.document.layout import LAYOUTS, NARROWEST, PaperLayout
from harness.document.table import (
    Column,
    Heading,
    Mark,
    RowGroup,
    Table,
    TableCell,
    split,
    stacked,
    width,
)
from harness.document.text import Inline, Text, flat, write

#: Columns past which a table is too wide for a window, and rows past which it scrolls by itself.
_WIDE, _TALL = 9, 40
#: Letters of a row's name past which it has lines of its own width.
_NAME = 14
#: Pixels of a line of the page; of a digit and of the space beside a column, where a table is
#: dense and where not, in a wide font; the shares of a digit that a script and a letter have.
_ROOM, _DIGIT, _SMALL, _LETTER = 1200, {True: (8.6, 8), False: (9.4, 20)}, 0.75, 0.8
_NARROW = str.maketrans("", "", " .,[]")
#: Letters' worth of lines of a name's own and of the arrow that sorts, and rows that are looked at.
_NAMED, _ARROW, _LOOKED = 25, 2, 200
_STYLES = {
    "strong": "<strong>{}</strong>",
    "code": "<code>{}</code>",
    "superscript": "<sup>{}</sup>",
    "subscript": "<sub>{}</sub>",
}
_MARKS = {
    Mark.NONE: "{}",
    Mark.BEST: "<strong>{}</strong>",
    Mark.SECOND: "<u>{}</u>",
    Mark.MUTED: "{}",
}
_NOTES = _STYLES["superscript"]


def to_html(
    document: Document, runs: str | None = None, layout: PaperLayout = LAYOUTS[NARROWEST]
) -> bytes:
    """The whole page.

    Args:
        layout: the paper that tables fit when they are copied as LaTeX.
        runs: JSON that may stand in a script's element, of the runs behind the numbers.
    """
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    lines = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{html(document.title)}</title>\n<style>{style}</style>\n</head>\n<body>",
        *_body(document, layout),
    ]
    page = "\n".join(lines).encode()
    # The data of many runs is long, and in a text with any sign beyond ASCII twice as long.
    data = [] if runs is None else [b"\n", _DIALOG, runs.encode(), b"</script>"]
    return b"".join([page, *data, f"\n<script>{script}</script>\n</body>\n</html>\n".encode()])


_DIALOG = (
    '<dialog id="detail" aria-labelledby="detail-h"><button type="button" class="close" '
    'aria-label="Close">\u00d7</button><div id="detail-body"></div></dialog>\n'
    '<script type="application/json" id="data">'
).encode()


def _asset(name: str) -> str:
    return (files("harness.document") / "assets" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _body(document: Document, layout: PaperLayout) -> Iterator[str]:
    """Header with a way to each section, and the sections."""
    names = _names(document)
    yield f"<header>\n<h1>{html(document.title)}</h1>"
    yield f'<p class="sub">{html(document.subtitle)}</p>'
    yield '<nav aria-label="Sections"><ul>'
    for name, section in names.items():
        yield f'<li><a href="#{name}">{html(section.title)}</a></li>'
    yield "</ul></nav>\n</header>\n<main>"
    lead = [block for block in document.blocks if not isinstance(block, b.Section)]
    yield from _blocks(lead, 2, layout)
    for name, section in names.items():
        yield f'<section id="{name}" aria-labelledby="{name}-h">'
        yield f'<h2 id="{name}-h">{html(section.title)}</h2>'
        yield from _blocks(section.blocks, 3, layout)
        yield "</section>"
    yield "</main>"


def _names(document: Document) -> dict[str, b.Section]:
    """Each section under a name that a link can have, one of its own."""
    named: dict[str, b.Section] = {}
    for section in document.blocks:
        if isinstance(section, b.Section):
            name = re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-") or "section"
            named[f"{name}-{len(named) + 1}" if name in named else name] = section
    return named


def _blocks(blocks: Iterable[Block], level: int, layout: PaperLayout) -> Iterator[str]:
    for is_figure, group in groupby(blocks, key=lambda block: isinstance(block, b.Figure)):
        members = list(group)
        drawn = [_figure(block) for block in members if isinstance(block, b.Figure)]
        if len(drawn) > 1:
            yield "\n".join(['<div class="figures">', *drawn, "</div>"])
        elif is_figure:
            yield from drawn
        else:
            yield from _words_and_tables(members, level, layout)


def _words_and_tables(blocks: Iterable[Block], level: int, layout: PaperLayout) -> Iterator[str]:
    for block in blocks:
        match block:
            case b.Section():
                yield f"<h{level}>{html(block.title)}</h{level}>"
                yield from _blocks(block.blocks, level + 1, layout)
            case b.Paragraph():
                yield f"<p>{words(block.text)}</p>"
            case b.BulletList():
                yield "<ul>"
                yield from (f"<li>{words(item)}</li>" for item in block.items)
                yield "</ul>"
            case b.Note():
                said = f"<strong>Note.</strong> {words(block.text)}"
                yield f'<p class="warning" role="note">{said}</p>'
            case b.Code():
                yield f"<pre><code>{escape(block.lines)}</code></pre>"
            case b.Details():
                yield f"<details><summary>{words(block.summary)}</summary>"
                yield from _blocks(block.blocks, level, layout)
                yield "</details>"
            case Table():
                yield from table(block, layout)


def words(text: Text) -> str:
    """Words in a line, set apart as they ask for."""
    return write(text, html, _inline)


def _inline(inline: Inline) -> str:
    if inline.style != "link":
        return _STYLES[inline.style].format(html(inline.text))
    return f'<a href="{html(inline.href.replace(".*", ".html"))}">{html(inline.text)}</a>'


#: What a reader calls a file by its ending.
_ENDINGS = {"pdf": "PDF", "svg": "SVG", "png": "PNG", "csv": "data (CSV)"}


def _figure(figure: b.Figure) -> str:
    """The picture within the page, and the way to each of its files beside the page."""
    data = base64.b64encode(figure.files["svg"]).decode()  # an image can run nothing
    caption = html(figure.caption)
    links = [
        f'<a href="figures/{html(figure.name)}.{ending}">{name}</a>'
        for ending, name in _ENDINGS.items()
        if ending in figure.files
    ]
    kind = "" if figure.wide else ' class="narrow"'
    picture = f'<img src="data:image/svg+xml;base64,{data}" alt="{caption}">'
    return (
        f'<figure{kind}><a href="figures/{html(figure.name)}.svg">{picture}</a>\n<figcaption>'
        f"{caption} {' · '.join(links)}</figcaption></figure>"
    )


# --------------------------------------------------------------------------- tables


def table(given: Table, layout: PaperLayout) -> Iterator[str]:
    """The table within what scrolls it, and its notes below; in parts where a line has no room.

    A cell with a number carries it as `data-value`, for sorting; one of several runs carries their
    keys as `data-runs`, and leads to the first of them.  Classes: `number`, `word`, `centred`, the
    mark, `group` (a row of a group's title), `notes`.
    """
    table = stacked(given) if len(given.columns) > _WIDE else given
    caption = f"{table.label}-caption"
    if table.caption:
        yield f'<p class="caption" id="{html(caption)}">{html(table.caption)}</p>'
    named = f'aria-labelledby="{html(caption)}"' if table.caption else 'aria-label="Table"'
    dense = len(table.columns) > _WIDE or width(table, partial(_pixels, False)) > _ROOM
    kinds = ["results"] * bool(table.caption) + ["dense"] * dense
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    name = f' id="{html(table.label)}"' if table.label else ""
    for part in split(table, _ROOM, partial(_pixels, dense)) if table.caption else [table]:
        yield from _grid(part, f"<table{name}{kind}>", named)
        name = ""
    yield from (f'<p class="notes">{words(said)}</p>' for said in table.explained())
    if table.caption:
        yield from _to_copy(given, layout)


def _pixels(dense: bool, table: Table, index: int) -> float:
    """About how wide a column is, whose headings are broken between words."""
    column = table.columns[index]
    lines = [line for row in (*table.rows[:_LOOKED], *table.footer) for line in row[index].lines]
    shown = [flat(line.text) for line in lines]
    heads = _LETTER * max(map(len, column.heads[-1].split()), default=0)
    heads += _SMALL * len(column.notes)
    if column.numeric:
        scripts = (sum(_digits(i.text) for i in line.after) + len(line.notes) for line in lines)
        letters = [_digits(each) + _SMALL * more for each, more in zip(shown, scripts, strict=True)]
    else:
        heads += _ARROW
        letters = [_LETTER * len(word) for each in shown for word in each.split()]
        letters += [_LETTER * _NAMED] * (index == 0 and any(len(each) > _NAME for each in shown))
    digit, space = _DIGIT[dense]
    return digit * max([heads, *letters]) + space


def _digits(number: str) -> float:
    """How many digits are as wide as a number: a point, a comma, a space or a bracket is half."""
    return (len(number) + len(number.translate(_NARROW))) / 2


def _grid(table: Table, start: str, named: str) -> Iterator[str]:
    """The table, or a part of it, within what scrolls it."""
    header = [spans for spans in table.header() if any(span.text for span in spans)]
    tall = len(header) == 1 and len(table.rows) > _TALL
    yield f'<div class="scroll{" tall" * tall}" tabindex="0" role="region" {named}>'
    yield f"{start}\n<thead>"
    yield from (_head_row(table, spans) for spans in header)
    yield "</thead>"
    for group in table.groups:
        yield from _group(table, group)
    if table.footer:
        yield "<tfoot>"
        yield from (_row(table, row) for row in table.footer)
        yield "</tfoot>"
    yield "</table>\n</div>"


def _to_copy(table: Table, layout: PaperLayout) -> Iterator[str]:
    """A button that takes the table along as LaTeX."""
    source = to_latex(flat(table.caption), (table,), layout)
    yield '<p class="files"><button type="button" class="copy">Copy LaTeX</button></p>'
    yield f"<template>{escape(source)}</template>"


def _head_row(table: Table, spans: Sequence[Heading]) -> str:
    cells = []
    for span in spans:
        scope = "col" if span.width == 1 else "colgroup"
        across = f' colspan="{span.width}"' if span.width > 1 else ""
        kind = _kind(table.columns[span.first])
        said = html(span.text) + table.letters(span.notes, _NOTES)
        cells.append(f'<th scope="{scope}"{across} class="{kind}">{said}</th>')
    return f"<tr>{''.join(cells)}</tr>"


def _kind(column: Column) -> str:
    if column.centred:
        return "centred"
    return "number" if column.numeric else "word"


def _group(table: Table, group: RowGroup) -> Iterator[str]:
    yield "<tbody>"
    if group.title:
        across = f'<th scope="rowgroup" colspan="{len(table.columns)}">'
        yield f'<tr class="group">{across}{html(group.title)}</th></tr>'
    yield from (_row(table, row) for row in group.rows)
    yield "</tbody>"


def _row(table: Table, row: Sequence[TableCell]) -> str:
    cells: list[str] = []
    for column, cell in zip(table.columns, row, strict=True):
        data = "" if cell.value is None else f' data-value="{cell.value!r}"'
        data += f' data-runs="{html(" ".join(cell.keys))}"' if len(cell.keys) > 1 else ""
        name = not cells and len(flat(cell.text)) > _NAME
        kinds = [_kind(column), cell.mark.value, "name" * name]
        lines = "<br>".join(_line(table, line) for line in cell.lines)
        cells.append(f'<td class="{" ".join(filter(None, kinds))}"{data}>{lines}</td>')
    keys = next((cell.keys for cell in row if cell.keys), ()) if table.anchored else ()
    anchor = f' id="run-{html(keys[0])}"' if keys else ""
    return f"<tr{anchor}>{''.join(cells)}</tr>"


def _line(table: Table, cell: TableCell) -> str:
    shown = words(cell.text)
    if cell.keys and flat(cell.text):
        shown = f'<a href="#run-{html(cell.keys[0])}">{shown}</a>'
    return _MARKS[cell.mark].format(shown) + words(cell.after) + table.letters(cell.notes, _NOTES)
