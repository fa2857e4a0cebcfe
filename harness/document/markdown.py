"""A document as GitHub's Markdown, whose tables know one row of headings and no spans."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from harness.document import blocks as b
from harness.document import html
from harness.document.blocks import Block, Document
from harness.document.escaping import markdown, markdown_code
from harness.document.table import Column, Mark, Table, TableCell
from harness.document.text import Inline, Text, write

#: Endings of a figure's files that a page does not show -> what they are called.
_FILES = {"svg": "SVG", "pdf": "PDF", "csv": "data"}
_STYLES = {"strong": "**{}**", "superscript": "<sup>{}</sup>", "subscript": "<sub>{}</sub>"}
_MARKS = {
    Mark.NONE: "{}",
    Mark.BEST: "**{}**",
    Mark.SECOND: "<ins>{}</ins>",
    Mark.MUTED: "{}",
}
_NOTES = " <sup>{}</sup>"


def to_markdown(document: Document) -> str:
    """The whole page; figures are files in `figures/` beside it."""
    head = [f"# {markdown(document.title)}"]
    head += [markdown(document.subtitle)] if document.subtitle else []
    return "\n\n".join([*head, *_blocks(document.blocks, 2)]) + "\n"


def _blocks(blocks: Iterable[Block], level: int) -> Iterator[str]:
    """Each block without the empty line after it; a section's heading has `level`."""
    for block in blocks:
        match block:
            case b.Section():
                yield f"{'#' * level} {markdown(block.title)}"
                yield from _blocks(block.blocks, level + 1)
            case b.Paragraph():
                yield words(block.text)
            case b.BulletList():
                yield "\n".join(f"- {words(item)}" for item in block.items)
            case b.Note():
                yield f"> **Note.** {words(block.text)}"
            case b.Code():
                yield _code(block)
            case b.Figure():
                yield from _figure(block)
            case b.Details():
                yield f"<details><summary>{html.words(block.summary)}</summary>"
                yield from _blocks(block.blocks, level)
                yield "</details>"
            case Table():
                yield table(block)


def words(text: Text) -> str:
    """Words in a line, set apart as they ask for."""
    return write(text, markdown, _inline)


def _inline(inline: Inline) -> str:
    if inline.style == "code":
        return markdown_code(inline.text)
    shown = markdown(inline.text)
    if inline.style == "link":
        return f"[{shown}]({quote(inline.href.replace('.*', '.md'), safe='/:?#&=%~')})"
    return _STYLES[inline.style].format(shown)


def _code(block: b.Code) -> str:
    longest = max(map(len, re.findall("`+", block.lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{block.language}\n{block.lines.rstrip()}\n{fence}"


def _figure(figure: b.Figure) -> Iterator[str]:
    place = f"figures/{figure.name}"
    yield f"![{markdown(figure.name.replace('_', ' '))}]({quote(place)}.png)"
    files = ", ".join(
        f"[{name}]({quote(place)}.{ending})"
        for ending, name in _FILES.items()
        if ending in figure.files
    )
    yield f"{markdown(figure.caption)} Files: {files}."


# --------------------------------------------------------------------------- tables


def table(table: Table) -> str:
    """The table with its caption above and its notes below, without a line's end."""
    rows: list[str] = []
    for group in table.groups:
        if group.title:
            title = f"**{markdown(group.title)}**"
            rows.append(_row([title, *[""] * (len(table.columns) - 1)]))
        rows += [_row(_cell(table, cell) for cell in row) for row in group.rows]
    lines = [
        *([markdown(table.caption), ""] if table.caption else []),
        _row(_head(table, column) for column in table.columns),
        _row("---:" if column.numeric else ":---" for column in table.columns),
        *rows,
        *[_row(_cell(table, cell) for cell in row) for row in table.footer],
    ]
    return "\n\n".join(["\n".join(lines), *map(words, table.explained())])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(table: Table, column: Column) -> str:
    named = markdown(" ".join(filter(None, column.heads)))
    return named + table.letters(column.notes, _NOTES)


def _cell(table: Table, cell: TableCell) -> str:
    return "<br>".join(
        _MARKS[line.mark].format(words(line.text))
        + words(line.after)
        + table.letters(line.notes, _NOTES)
        for line in cell.lines
    )
