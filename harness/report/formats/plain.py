"""A table as CSV: a row a printed cell, with its number in full precision and its runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from harness.report import text
from harness.report.table import Entry, Table

_CELL = ("column", "shown", "value", "low", "high", "n", "mark", "notes", "runs")


def to_csv(table: Table) -> str:
    """The numeric cells of `table`, row by row, beside the words that name the row.

    The columns are the group's title, the table's columns of words, and what is in `_CELL`; the
    numbers are in the unit that the column's heading names.
    """
    words = [column for column in table.columns if not column.numeric]
    heads = ["group", *[" ".join(column.heads) for column in words], *_CELL]
    rows = [
        [group.title, *_words(table, row), *cell]
        for group in table.groups
        for row in group.rows
        for cell in _cells(table, row)
    ]
    return csv_text(heads, rows)


def _words(table: Table, row: Sequence[Entry]) -> list[str]:
    pairs = zip(table.columns, row, strict=True)
    return [entry.text for column, entry in pairs if not column.numeric]


def _cells(table: Table, row: Sequence[Entry]) -> Iterable[list[object]]:
    for column, entry in zip(table.columns, row, strict=True):
        if column.numeric:
            notes = " | ".join([*column.notes, *entry.notes])
            yield [
                *[" ".join(filter(None, column.heads)), entry.text],
                *[entry.value, entry.low, entry.high, entry.n],
                *[entry.mark.value, notes, " ".join(entry.keys)],
            ]


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as RFC 4180 text with `\\n` line ends; see `text.csv_field` for what becomes of text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([text.csv_field(head) for head in heads])
    writer.writerows(map(text.csv_field, row) for row in rows)
    return stream.getvalue()
