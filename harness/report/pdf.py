"""The report as a two-column paper: report.pdf, set by Typst.

Only plain strings cross into the document, as JSON, so no name is ever markup.  The fonts are those
inside Typst and there is no date, so that the same records give the same bytes anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import typst

from harness.report import style, text
from harness.report.content import Content
from harness.report.tables import Entry, Table
from harness.report.words import Words

#: Rows of a table that still fit on a page between other things; more go to pages of their own.
_FLOAT_ROWS = 34
#: Rows past which the paper refers to table.csv: nobody reads them on paper.
_PRINTED_ROWS = 120
_PRINTED_WORDS = 24
#: Columns that a page across carries in small type.
_PORTRAIT_COLUMNS = 16


def to_pdf(content: Content, pictures: Mapping[str, bytes]) -> bytes:
    """The paper.

    Args:
        pictures: drawing name -> SVG.
    """
    source = (files("harness.report") / "templates" / "report.typ").read_bytes()
    inputs = {
        "main.typ": source,
        "data.json": json.dumps(_document(content), ensure_ascii=True).encode(),
        **{f"{name}.svg": svg for name, svg in pictures.items()},
    }
    # Its annotations do not know of an input of several files, which its documentation has.
    compiled: Any = typst.compile
    made: bytes = compiled(inputs, format="pdf", ignore_system_fonts=True)
    return made


def _document(content: Content) -> dict[str, Any]:
    document: dict[str, Any] = _shown(
        {
            "title": content.title,
            "name": content.name,
            "coverage": content.coverage,
            "warnings": content.warnings,
            "summary": content.summary,
            "answers": [asdict(answer) for answer in content.answers],
            "table": _table(content.table),
            "drawings": [
                {
                    "file": f"{drawing.name}.svg",
                    "words": drawing.words,
                    "wide": bool(drawing.figure.get_figwidth() > style.COLUMN + 0.5),
                }
                for drawing in content.drawings
            ],
            "failed": _words(content.failed),
            "unfinished": _words(content.unfinished),
            "method": content.method,
            "protocol": [asdict(fact) for fact in content.protocol],
            "time": _words(content.time),
            "published": _words(content.published),
            "published_note": content.published_note,
            "footer": content.footer,
        }
    )
    return document


def _shown(value: Any) -> Any:
    """The same with every string made printable with the fonts at hand."""
    if isinstance(value, str):
        return text.typeset(value)
    if isinstance(value, Mapping):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return value


# --------------------------------------------------------------------------- the table of numbers


def _table(table: Table) -> dict[str, Any]:
    """The table with each difference below its mean, and where it goes."""
    kept = [index for index, column in enumerate(table.columns) if not column.below]
    columns = [table.columns[index] for index in kept]
    rows = [_row(table, row) for row in table.rows[:_PRINTED_ROWS]]
    stacked = len(columns) < len(table.columns)
    caption = table.caption + (" Second lines: \u0394." if stacked else "")
    if len(table.rows) > _PRINTED_ROWS:
        caption += f" The first {_PRINTED_ROWS} of {len(table.rows):,} rows; all are in table.csv."
    lines = len(rows) * (2 if stacked else 1)
    names = [{"text": "" if c.name == "mean" else c.name, "numeric": c.numeric} for c in columns]
    used = _notes_used(table, rows)
    return {
        "columns": names,
        "groups": _groups([column.group for column in columns]),
        "rows": rows,
        "footer": [_row(table, row) for row in table.footer],
        "caption": caption,
        "notes": table.notes[:used],
        "size": 7.6 if len(columns) <= 8 else 6.6 if len(columns) <= 12 else 5.8,
        "inset": 4 if len(columns) <= 8 else 2.5 if len(columns) <= 12 else 1.6,
        "placed": "float" if lines <= _FLOAT_ROWS else "appendix",
        "flipped": len(columns) > _PORTRAIT_COLUMNS,
    }


def _notes_used(table: Table, rows: Sequence[Sequence[Mapping[str, Any]]]) -> int:
    numbers = [int(n) for row in rows for cell in row for n in cell["notes"].split(",") if n]
    return max(numbers, default=0) if len(table.rows) > _PRINTED_ROWS else len(table.notes)


def _groups(names: Sequence[str]) -> list[dict[str, Any]]:
    """Neighbours of one group as one cell; nothing when no column has a group."""
    if not any(names):
        return []
    spans: list[dict[str, Any]] = []
    for name in names:
        if spans and name and spans[-1]["text"] == name:
            spans[-1]["span"] += 1
        else:
            spans.append({"text": name, "span": 1})
    return spans


def _row(table: Table, row: Sequence[Entry]) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = []
    for column, entry in zip(table.columns, row, strict=True):
        notes = ",".join(map(str, entry.notes))
        if column.below:
            cells[-1]["below"] += [entry.text] if entry.text else []
            cells[-1]["notes"] = ",".join(filter(None, [cells[-1]["notes"], notes]))
        else:
            cells.append({"text": entry.text, "bold": entry.bold, "notes": notes, "below": []})
    return cells


# --------------------------------------------------------------------------- tables of words


def _words(grid: Words) -> dict[str, Any]:
    rows = grid.rows[:_PRINTED_WORDS]
    left = len(grid.rows) - len(rows)
    lengths = [
        max([len(head), *(len(row[index]) for row in rows)])
        for index, head in enumerate(grid.heads)
    ]
    return {
        "columns": [
            {
                "text": head,
                "numeric": head in grid.numeric,
                "code": head in grid.code,
                "width": min(max(length, 5), 40) ** 0.75,
            }
            for head, length in zip(grid.heads, lengths, strict=True)
        ],
        "rows": rows,
        "more": f"{left:,} more rows are in report.html." if left else "",
    }
