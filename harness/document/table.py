"""A table as a value: columns under their headings, rows in groups, marks, holes, footnotes.

Owns what a table is before any format.  Every number is text by the time it stands here, beside the
number itself for those who sort.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal

from harness.document.text import DASH, Inline, Text, code, flat


class Mark(Enum):
    """How a cell stands out in its column."""

    NONE = ""
    BEST = "best"
    SECOND = "second"
    MUTED = "muted"


@dataclass(frozen=True, slots=True)
class TableCell:
    """One printed cell."""

    text: Text = ""
    value: float | None = None
    """The number in the text, in full precision, by which rows are sorted."""
    mark: Mark = Mark.NONE
    after: tuple[Inline, ...] = ()
    """What stands behind the number and is not marked: its spread below, a star above the line."""
    notes: tuple[str, ...] = ()
    """Footnotes in full; the table gives each its letter."""
    keys: tuple[str, ...] = ()
    """The runs that the number is made of, whether or not they gave one."""
    below: TableCell | None = None
    """A second line of the same cell."""

    @property
    def lines(self) -> tuple[TableCell, ...]:
        """The cell's lines, from the top."""
        return (self,) if self.below is None else (self, *self.below.lines)


@dataclass(frozen=True)
class Column:
    """A column under its headings, outermost first; neighbours that share one are set under it."""

    heads: tuple[str, ...]
    numeric: bool = True
    below: bool = False
    """Whether a table too wide for its page sets it under the column before it."""
    notes: tuple[str, ...] = ()
    centred: bool = False
    """Of check marks and dashes."""
    spare: bool = False
    """Whether other columns say the same, so that a table too wide for its page lacks it."""

    @property
    def align(self) -> Literal["left", "right", "center"]:
        """Numbers to the right, words to the left."""
        if self.centred:
            return "center"
        return "right" if self.numeric else "left"


@dataclass(frozen=True)
class RowGroup:
    """Rows that belong together, under a title where they have one."""

    rows: tuple[tuple[TableCell, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading over `width` columns, the first of which is `first`."""

    text: str
    first: int
    width: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """What is printed; the `footer` rows (chance) are set apart below.

    One with a caption is numbered where its format counts tables; others belong to the text.
    """

    columns: tuple[Column, ...]
    groups: tuple[RowGroup, ...]
    caption: str = ""
    label: str = ""
    """What a paper calls it: `tab:...`."""
    footer: tuple[tuple[TableCell, ...], ...] = ()
    remarks: tuple[str, ...] = ()
    """Said of the whole table, below it and without a letter."""
    anchored: bool = False
    """Whether a row is the place that a link to its run leads to."""
    _letters: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for row in [*self.rows, *self.footer]:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells under {len(self.columns)} columns")
        letters: dict[str, str] = {}
        for note in self._notes():
            letters.setdefault(note, _letter(len(letters)))
        object.__setattr__(self, "_letters", letters)

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def rows(self) -> tuple[tuple[TableCell, ...], ...]:
        """The rows of all groups."""
        return tuple(row for group in self.groups for row in group.rows)

    @property
    def footnotes(self) -> tuple[str, ...]:
        """Each footnote once, in order of appearance; the first is `a`."""
        return tuple(self._letters)

    def letters(self, notes: Iterable[str], form: str = "{}") -> str:
        """The letters of `notes` within `form`: `a,c`; empty without any."""
        found = ",".join(self._letters[note] for note in notes)
        return form.format(found) if found else ""

    def explained(self) -> tuple[Text, ...]:
        """What stands below: the remarks, and each footnote after its letter."""
        notes = ((Inline(a, "superscript"), f" {note}") for note, a in self._letters.items())
        return (*self.remarks, *notes)

    def _notes(self) -> Iterator[str]:
        for column in self.columns:
            yield from column.notes
        for row in [*self.rows, *self.footer]:
            for entry in row:
                for line in entry.lines:
                    yield from line.notes

    def header(self) -> list[list[Heading]]:
        """The header's rows from the top, each covering all columns; names stand at the bottom.

        A heading spans the neighbours that share it and all above it.  An empty text is a place
        above a column that has fewer headings than others.
        """
        depth = max(len(column.heads) for column in self.columns)
        padded = [("",) * (depth - len(c.heads)) + c.heads for c in self.columns]
        return [self._header_row(padded, level, depth) for level in range(depth)]

    def _header_row(
        self, padded: Sequence[tuple[str, ...]], level: int, depth: int
    ) -> list[Heading]:
        spans: list[Heading] = []
        for index, heads in enumerate(padded):
            last = level == depth - 1
            shared = (
                not last
                and bool(spans)
                and bool(heads[level])
                and padded[spans[-1].first][: level + 1] == heads[: level + 1]
            )
            if shared:
                spans[-1] = replace(spans[-1], width=spans[-1].width + 1)
            else:
                spans.append(
                    Heading(heads[level], index, 1, self.columns[index].notes if last else ())
                )
        return spans


def plain_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numeric: Collection[str] = (),
    coded: Collection[str] = (),
    keys: Iterable[Iterable[str]] = (),
    **more: Any,
) -> Table:
    """A table of anything that has a text, under one row of headings.

    Args:
        numeric: columns of numbers, by their headings.
        coded: columns of keys, paths and hashes.
        keys: the runs behind each row, to which its first cell and its numbers lead.
        more: further fields of the table.
    """
    columns = tuple(Column((head,), numeric=head in numeric) for head in heads)
    given = [tuple(each) for each in keys]
    made = []
    for place, row in enumerate(rows):
        of_row = given[place] if given else ()
        cells = [
            TableCell(
                _coded(str(cell)) if head in coded else str(cell),
                keys=of_row if not index or head in numeric else (),
            )
            for index, (head, cell) in enumerate(zip(heads, row, strict=True))
        ]
        made.append(tuple(cells))
    return Table(columns, (RowGroup(tuple(made)),), **more)


def _coded(words: str) -> Text:
    return (code(words),) if words not in {"", DASH} else words


def _letter(place: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    above, last = divmod(place, 26)
    return (_letter(above - 1) if above else "") + chr(ord("a") + last)


def stacked(table: Table) -> Table:
    """`table` with each column that may stand below another folded into the cells before it."""
    if not any(column.below for column in table.columns):
        return table
    return _derived(
        table,
        columns=tuple(column for column in table.columns if not column.below),
        groups=tuple(
            replace(group, rows=tuple(_fold(table.columns, row) for row in group.rows))
            for group in table.groups
        ),
        footer=tuple(_fold(table.columns, row) for row in table.footer),
    )


def without_spare(table: Table) -> Table:
    """`table` without its spare columns; what a footer says of them stands in the next column."""
    kept = [index for index, column in enumerate(table.columns) if not column.spare]
    if len(kept) == len(table.columns):
        return table
    found = _columns(table, kept)
    footer = tuple(
        (next(cell for cell in whole if flat(cell.text)), *row[1:])
        for whole, row in zip(table.footer, found.footer, strict=True)
    )
    return _derived(found, footer=footer)


def first_rows(table: Table, most: int, where: str) -> Table:
    """The rows that are worth paper; the others are in the file `where`."""
    left = len(table.rows) - most
    if left <= 0:
        return table
    groups, room = [], most
    for group in table.groups:
        groups.append(replace(group, rows=group.rows[:room]))
        room -= len(groups[-1].rows)
    remark = f"{left:,} more of {len(table.rows):,} rows are in {where}."
    return replace(
        table, groups=tuple(g for g in groups if g.rows), remarks=(remark, *table.remarks)
    )


def _derived(table: Table, **changes: Any) -> Table:
    """Another view of `table`, in which every footnote keeps its letter."""
    view = replace(table, **changes)
    object.__setattr__(view, "_letters", table._letters)
    return view


def _fold(columns: Sequence[Column], row: Sequence[TableCell]) -> tuple[TableCell, ...]:
    folded: list[TableCell] = []
    for column, entry in zip(columns, row, strict=True):
        if not column.below:
            folded.append(entry)
        elif entry != TableCell():
            folded[-1] = replace(folded[-1], below=entry)
    return tuple(folded)


# --------------------------------------------------------------------------- width

#: Letters' worth of space between two columns.
_GAP = 2

Measure = Callable[[Table, int], float]
"""The width of a column with the space beside it."""


def letters_of(table: Table, index: int) -> float:
    """About how many letters a column takes, whose heading is broken between words."""
    words = table.columns[index].heads[-1].split()
    return max(_longest(table, index), *map(len, words), 0) + _GAP


def heading_lines(table: Table, index: int) -> list[str]:
    """The heading of a column in lines that are no longer than its cells, or than a word of it."""
    said = table.columns[index].heads[-1]
    most = max(_longest(table, index), *map(len, said.split()), 1)
    return textwrap.wrap(said, most, break_long_words=False, break_on_hyphens=False) or [""]


def _longest(table: Table, index: int) -> int:
    cells = [row[index] for row in (*table.rows, *table.footer)]
    lines = [line for cell in cells for line in cell.lines]
    return max((len(flat((flat(e.text), *e.after))) + bool(e.notes) for e in lines), default=0)


def width(table: Table, measure: Measure = letters_of) -> float:
    """How much a line of the table takes."""
    return sum(measure(table, index) for index in range(len(table.columns)))


def split(table: Table, most: float, measure: Measure = letters_of) -> list[Table]:
    """`table` as tables of at most about `most` across, to be set one below the other.

    Columns under one heading stay together where a table has room for them.  The words that name a
    row are repeated: the first column alone where it tells all rows apart, else every column of
    words.
    """
    if width(table, measure) <= most:
        return [table]
    words = [i for i, column in enumerate(table.columns) if not column.numeric]
    firsts = [flat(row[words[0]].text) for row in table.rows] if words else []
    again = words[:1] if all(firsts) and len(set(firsts)) == len(firsts) else words
    room = most - sum(measure(table, index) for index in again)
    parts, part = [], list(words)
    for block in _blocks(table, room, measure):
        taken = sum(measure(table, index) for index in [*part, *block])
        if taken > most and part not in (words, again):
            parts.append(part)
            part = list(again)
        part = [*part, *block]
    return [_columns(table, chosen) for chosen in [*parts, part]]


def _blocks(table: Table, room: float, measure: Measure) -> Iterator[list[int]]:
    """The numeric columns, with those that share all headings but the last together; of those too
    wide for `room` each by itself, with what may stand below it."""
    blocks: list[list[int]] = []
    for index, column in enumerate(table.columns):
        if not column.numeric:
            continue
        above = column.heads[:-1]
        if blocks and above and table.columns[blocks[-1][0]].heads[:-1] == above:
            blocks[-1].append(index)
        else:
            blocks.append([index])
    for block in blocks:
        if sum(measure(table, index) for index in block) <= room:
            yield block
        else:
            yield from _singles(table, block)


def _singles(table: Table, block: Sequence[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for index in block:
        if found and table.columns[index].below:
            found[-1].append(index)
        else:
            found.append([index])
    return found


def _columns(table: Table, chosen: Sequence[int]) -> Table:
    def of(row: tuple[TableCell, ...]) -> tuple[TableCell, ...]:
        return tuple(row[index] for index in chosen)

    return _derived(
        table,
        columns=tuple(table.columns[index] for index in chosen),
        groups=tuple(replace(g, rows=tuple(map(of, g.rows))) for g in table.groups),
        footer=tuple(map(of, table.footer)),
    )
