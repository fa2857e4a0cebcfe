"""A table as an HTML fragment: one `<table>` and its notes, no style and no script."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.report import text
from harness.report.table import TIE, Entry, Mark, RowGroup, Span, Table, alignment

Link = Callable[[Sequence[str]], str | None]
"""Run keys -> where a reader finds those runs, or None."""


def to_html(table: Table, link: Link = lambda keys: None) -> str:
    """The table with caption, grouped head and body, and its notes in a list below.

    A cell with a number carries it as `data-value`, for sorting, and its runs as `data-runs`; holes
    have neither value nor text but a dash.  Classes: `number`, `word`, `best`, `second`, `tied`,
    `group` (a row of a group's title), `notes`.

    Args:
        link: makes each number a link to what it gives.
    """
    lines = [
        f'<table class="results" id="{text.html(table.label)}">',
        f"<caption>{text.html(table.caption)}</caption>",
        "<thead>",
        *[_head_row(table, spans) for spans in table.header() if any(s.text for s in spans)],
        "</thead>",
        *[line for group in table.groups for line in _group(table, group, link)],
        *_footer(table, link),
        "</table>",
        *_notes(table),
    ]
    return "\n".join(lines) + "\n"


def _head_row(table: Table, spans: Sequence[Span]) -> str:
    cells = []
    for span in spans:
        scope = "col" if span.width == 1 else "colgroup"
        across = f' colspan="{span.width}"' if span.width > 1 else ""
        kind = "number" if table.columns[span.first].numeric else "word"
        words = text.html(span.text) + _superscript(table, span.notes)
        cells.append(f'<th scope="{scope}"{across} class="{kind}">{words}</th>')
    return f"<tr>{''.join(cells)}</tr>"


def _group(table: Table, group: RowGroup, link: Link) -> list[str]:
    title = []
    if group.title:
        across = f'<th scope="rowgroup" colspan="{len(table.columns)}">'
        title = [f'<tr class="group">{across}{text.html(group.title)}</th></tr>']
    return ["<tbody>", *title, *[_row(table, row, link) for row in group.rows], "</tbody>"]


def _footer(table: Table, link: Link) -> list[str]:
    if not table.footer:
        return []
    return ["<tfoot>", *[_row(table, row, link) for row in table.footer], "</tfoot>"]


def _row(table: Table, row: Sequence[Entry], link: Link) -> str:
    cells = []
    for column, entry in zip(table.columns, row, strict=True):
        data = "" if entry.value is None else f' data-value="{entry.value!r}"'
        data += f' data-runs="{text.html(" ".join(entry.keys))}"' if entry.keys else ""
        kind = "number" if alignment(column) == "right" else "word"
        marks = [kind, entry.mark.value] if entry.mark.value else [kind]
        lines = "<br>".join(_line(table, line, link) for line in entry.lines)
        cells.append(f'<td class="{" ".join(marks)}"{data}>{lines}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _line(table: Table, entry: Entry, link: Link) -> str:
    shown = text.html(entry.text)
    where = link(entry.keys) if entry.keys else None
    if where is not None:
        shown = f'<a href="{text.html(where)}">{shown}</a>'
    if entry.mark is Mark.BEST:
        shown = f"<strong>{shown}</strong>"
    elif entry.mark is Mark.SECOND:
        shown = f"<u>{shown}</u>"
    elif entry.mark is Mark.TIED:
        shown = f"{shown}<sup>{TIE}</sup>"
    return shown + _superscript(table, entry.notes)


def _superscript(table: Table, notes: Sequence[str]) -> str:
    return f"<sup>{','.join(map(str, table.numbers(notes)))}</sup>" if notes else ""


def _notes(table: Table) -> list[str]:
    lines = [f'<p class="notes">{text.html(remark)}</p>' for remark in table.remarks]
    if table.footnotes:
        items = "".join(f"<li>{text.html(note)}</li>" for note in table.footnotes)
        lines.append(f'<ol class="notes">{items}</ol>')
    return lines
