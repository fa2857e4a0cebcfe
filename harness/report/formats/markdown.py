"""A table as GitHub's Markdown, which knows one row of headings and no spans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.report import text
from harness.report.table import TIE, Column, Entry, Mark, Table


def to_markdown(table: Table) -> str:
    """The table with its caption above and its footnotes below."""
    lines = [
        text.markdown(table.caption),
        "",
        _row(_head(table, column) for column in table.columns),
        _row("---:" if column.numeric else ":---" for column in table.columns),
    ]
    for group in table.groups:
        if group.title:
            title = f"**{text.markdown(group.title)}**"
            lines.append(_row([title, *[""] * (len(table.columns) - 1)]))
        lines += [_row(_cell(table, entry) for entry in row) for row in group.rows]
    lines += [_row(_cell(table, entry) for entry in row) for row in table.footer]
    for remark in table.remarks:
        lines += ["", text.markdown(remark)]
    if table.footnotes:
        lines += ["", *[f"{n}. {text.markdown(f)}" for n, f in enumerate(table.footnotes, 1)]]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(table: Table, column: Column) -> str:
    words = text.markdown(" ".join(filter(None, column.heads)))
    return words + _superscript(table.numbers(column.notes))


def _cell(table: Table, entry: Entry) -> str:
    return "<br>".join(_line(table, line) for line in entry.lines)


def _line(table: Table, entry: Entry) -> str:
    shown = text.markdown(entry.text)
    if entry.mark is Mark.BEST:
        shown = f"**{shown}**"
    elif entry.mark is Mark.SECOND:
        shown = f"<ins>{shown}</ins>"
    elif entry.mark is Mark.TIED:
        shown = f"{shown} {TIE}"
    return shown + _superscript(table.numbers(entry.notes))


def _superscript(numbers: Sequence[int]) -> str:
    return f" <sup>{','.join(map(str, numbers))}</sup>" if numbers else ""
