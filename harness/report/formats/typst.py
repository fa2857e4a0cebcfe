"""A table as a Typst fragment: a figure with a label, in the style of booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report import text
from harness.report.table import TIE, Entry, Mark, Span, Table, alignment, split, stacked

_THICK, _THIN = "0.8pt", "0.4pt"


def to_typst(table: Table, *, stack: bool = False, letters: int | None = None) -> str:
    """Markup that needs no package; a document includes it as it stands.

    Args:
        stack: set each column that may stand below another on a second line.
        letters: how many fit on a line of the document; a wider table is set as several, one below
            the other.
    """
    shown = stacked(table) if stack else table
    parts = [shown] if letters is None else split(shown, letters)
    lines = [
        "#figure(",
        "  kind: table,",
        f"  caption: {_content(table.caption)},",
        "  [",
        *[f"    {line}" for part in parts for line in _table(part)],
        *[f"    {line}" for line in _notes(table)],
        "  ],",
        f") #label({text.typst(table.label)})",
    ]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    header = [spans for spans in table.header() if any(span.text for span in spans)]
    return [
        "#table(",
        f"  columns: {len(table.columns)},",
        f"  align: ({', '.join(alignment(column) for column in table.columns)},),",
        "  stroke: none,",
        "  inset: (x: 3pt, y: 2.2pt),",
        f"  table.hline(stroke: {_THICK}),",
        "  table.header(",
        *[f"    {line}" for spans in header for line in _head_row(table, spans)],
        "  ),",
        f"  table.hline(stroke: {_THIN}),",
        *[f"  {line}" for line in _body(table)],
        f"  table.hline(stroke: {_THICK}),",
        ")",
    ]


def _content(words: str) -> str:
    """Any text as content in which nothing is markup."""
    return f"[#{text.typst(words)}]"


def _head_row(table: Table, spans: Sequence[Span]) -> list[str]:
    cells, rules = [], []
    for span in spans:
        words = f"#{text.typst(span.text)}{_superscript(table, span.notes)}"
        across = f"colspan: {span.width}, align: center" if span.width > 1 else ""
        cells.append(f"table.cell({across})[{words}]," if across else f"[{words}],")
        if span.text and span.width > 1:
            end = span.first + span.width
            rules.append(f"table.hline(start: {span.first}, end: {end}, stroke: {_THIN}),")
    return [" ".join(cells), *rules]


def _body(table: Table) -> list[str]:
    lines: list[str] = []
    for number, group in enumerate(table.groups):
        if number:
            lines.append(f"table.hline(stroke: {_THIN}),")
        if group.title:
            title = f"#emph({text.typst(group.title)})"
            lines.append(f"table.cell(colspan: {len(table.columns)}, align: left)[{title}],")
        lines += [_row(table, row) for row in group.rows]
    if table.footer:
        lines.append(f"table.hline(stroke: {_THIN}),")
        lines += [_row(table, row) for row in table.footer]
    return lines


def _row(table: Table, row: Sequence[Entry]) -> str:
    return " ".join(f"[{_cell(table, entry)}]," for entry in row)


def _cell(table: Table, entry: Entry) -> str:
    return "#linebreak()".join(_line(table, line) for line in entry.lines)


def _line(table: Table, entry: Entry) -> str:
    # A number and its interval stay on one line; the words beside them give way.
    whole = entry.text if entry.value is None else entry.text.replace(" ", "\u00a0")
    literal = text.typst(whole)
    shown = {
        Mark.BEST: f"#strong({literal})",
        Mark.SECOND: f"#underline({literal})",
        Mark.TIED: f"#{literal}#super({text.typst(TIE)})",
        Mark.NONE: f"#{literal}",
    }[entry.mark]
    return shown + _superscript(table, entry.notes)


def _superscript(table: Table, notes: Sequence[str]) -> str:
    return f'#super("{",".join(map(str, table.numbers(notes)))}")' if notes else ""


def _notes(table: Table) -> list[str]:
    lines = [f"#{text.typst(remark)}" for remark in table.remarks]
    for number, note in enumerate(table.footnotes, 1):
        lines.append(f'#super("{number}") #{text.typst(note)}')
    if not lines:
        return []
    return ["#set text(size: 0.85em)", "#set align(left)", *" \\\n".join(lines).split("\n")]
