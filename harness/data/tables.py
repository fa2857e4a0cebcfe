"""The rows of a table that pairs pictures with captions, whatever its form.

CSV and its kin by physical lines, JSON in the layouts of the field, JSON lines.  Rows are given as
they are: which picture a row means, and whether it can be used, is for others to find out.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import posixpath
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from harness.config import Columns
from harness.data.account import Problem
from harness.data.captions import MAX_CAPTION, lines_of, written_list
from harness.data.files import FileTree, is_image
from harness.data.json_tables import json_lines_table, json_table
from harness.data.table_columns import (
    CaptionRow,
    CaptionTable,
    NotATableError,
    Places,
    Row,
    find_columns,
    wanted_words,
)
from harness.files import MAX_MEMBER_BYTES, bounded

_PLAIN = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
TABLE_SUFFIXES = (*_PLAIN, *(f"{suffix}.gz" for suffix in _PLAIN), ".parquet")
TEXT_SUFFIXES = (".txt", ".token")
"""Of files that may be a table, and may be anything else."""
_DELIMITERS = ",\t;|"
_NUMBERED = re.compile(r"(?P<image>[^\t]+)#\d+\t")
"""A row of Flickr's token files: `picture.jpg#0`, a tab, the caption."""


def is_table_name(name: str) -> bool:
    """Whether a file's suffix is that of a table, or of a text that may be one."""
    return name.lower().endswith((*TABLE_SUFFIXES, *TEXT_SUFFIXES))


def possible_tables(files: FileTree) -> list[str]:
    """The files that may be tables: not those that are of one picture, whose name they have."""
    found = [name for name in files.entries if is_table_name(name)]
    if not found:
        return []
    stems = {posixpath.splitext(name)[0] for name in files.entries if is_image(name)}
    return sorted(
        name
        for name in found
        if posixpath.splitext(name)[0] not in stems and not name.endswith("_stats.json")
    )


def has_table(files: FileTree) -> bool:
    """Whether a file is a table by its suffix, or a text that is one by what it begins with."""
    return any(
        not name.lower().endswith(TEXT_SUFFIXES) or is_table(name, files)
        for name in possible_tables(files)
    )


def is_table(name: str, files: FileTree) -> bool:
    """Whether a file is a table of captions."""
    try:
        open_table(name, files.read(name), Columns())
    except (NotATableError, OSError):
        return False
    return True


def open_table(name: str, data: bytes, columns: Columns) -> CaptionTable:
    """The table in a file; NotATableError when it lacks the columns or cannot be read.

    A line that cannot be read is a Problem.  Bytes that are not UTF-8 stay in the text as lone
    surrogates, so that only the rows that hold them are refused.
    """
    stem, suffix = posixpath.splitext(name)
    if suffix.lower() == ".gz":
        data, suffix = _unzipped(name, data), posixpath.splitext(stem)[1]
    text = decoded(name, data)
    if suffix.lower() == ".json":
        return json_table(name, text, columns)
    if suffix.lower() in {".jsonl", ".ndjson"}:
        return json_lines_table(name, text, columns)
    return _csv_table(name, text, columns)


_LEAST_BYTES, _MOST_RATIO = 64 << 20, 100
"""What a compressed table may come to; text is compressed to a tenth or so."""


def _unzipped(name: str, data: bytes) -> bytes:
    try:
        most = min(MAX_MEMBER_BYTES, _LEAST_BYTES + _MOST_RATIO * len(data))
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as opened:
            found = b"".join(bounded(opened.read, most))
        return found
    except (OSError, EOFError, zlib.error) as error:
        raise NotATableError(f"{name} cannot be unpacked: {error}", broken=True) from error


def decoded(name: str, data: bytes) -> str:
    """The text of a file: UTF-8, or UTF-16 by its byte-order mark or its zeros."""
    head = data[:200]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        codec = "utf-16"
    elif b"\0" in head and b"\0" not in (head[::2] if head[0] else head[1::2]):
        codec = "utf-16-le" if head[0] else "utf-16-be"
    else:
        return data.decode("utf-8-sig", "surrogateescape")
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        raise NotATableError(f"{name} is not whole UTF-16: {error}", broken=True) from error


# --------------------------------------------------------------------------- CSV


def _csv_table(name: str, text: str, columns: Columns) -> CaptionTable:
    lines = lines_of(text)
    layout = _layout(name, lines, columns)
    return CaptionTable(name, layout.heads, layout.places.split, _csv_rows(name, lines, layout))


class _Layout(NamedTuple):
    delimiter: str
    heads: tuple[str, ...]
    places: Places
    first: int
    """Number of the line where the rows begin."""


def _layout(name: str, lines: Sequence[str], columns: Columns) -> _Layout:
    first = lines[0]
    for delimiter in _DELIMITERS:
        heads = tuple(cell.strip().casefold() for cell in _cells(first, delimiter))
        places = find_columns(heads, columns)
        if places is not None:
            return _Layout(delimiter, heads, places, 1)
    if columns == Columns() and (found := _without_header(name, first)):
        return found
    if name.lower().endswith(TEXT_SUFFIXES):
        raise NotATableError(f"{name} is a text and no table", silent=True)
    seen = max((_cells(first, delimiter) for delimiter in _DELIMITERS), key=len)
    words = wanted_words(columns, [cell.strip().casefold() for cell in seen])
    raise NotATableError(
        f"{name} begins with {first[:60]!r}, not with a header that names {words}",
        broken=not first.strip() or any(map(_pairs_a_picture, lines[:3])),
    )


def _without_header(name: str, first: str) -> _Layout | None:
    """CC3M's TSV (caption, picture), or Flickr's token file (picture#number, caption)."""
    cells = first.split("\t")
    if len(cells) != 2:
        return None
    if _NUMBERED.match(first):
        return _Layout("\t", ("image", "caption"), Places("image", "caption", None), 0)
    if ".tsv" in name.lower() and is_image(cells[1].partition("?")[0].strip()):
        return _Layout("\t", ("caption", "image"), Places("image", "caption", None), 0)
    return None


def _pairs_a_picture(line: str) -> bool:
    """Whether a line seems to be a picture and words about it."""
    for delimiter in _DELIMITERS:
        cells = [cell.strip() for cell in _cells(line, delimiter)]
        if any(map(is_image, cells)) and any(" " in c and not is_image(c) for c in cells):
            return True
    return False


def _cells(line: str, delimiter: str) -> list[str]:
    return _strictly(line, delimiter) or line.split(delimiter)


def _csv_rows(name: str, lines: Sequence[str], layout: _Layout) -> Iterator[Row]:
    image, caption = (layout.heads.index(column) for column in layout.places[:2])
    split = None if layout.places.split is None else layout.heads.index(layout.places.split)
    width, delimiter = len(layout.heads), layout.delimiter

    def is_row(line: str) -> bool:
        cells = _cells(line, delimiter)
        return len(cells) == width and is_image(cells[image].partition("#")[0].strip())

    for number, cells in _records(lines, layout, is_row):
        where = f"{name}:{number}"
        if isinstance(cells, str):
            yield Problem(where, cells)
        elif len(cells) != width:
            yield Problem(where, f"{len(cells)} fields where the header has {width}")
        else:
            value = None if split is None else cells[split]
            raw, given = delimiter.join(cells), cells[image]
            if not layout.first and "#" in given:
                given = given.partition("#")[0]
            for one in _several(cells[caption]) if layout.places.lists else (cells[caption],):
                yield CaptionRow(where, raw if one is cells[caption] else f"{one}:{raw}",
                                 given, one, value)  # fmt: skip


def _several(cell: str) -> list[object]:
    """The captions of a cell that holds a list of them; else the cell."""
    if cell.lstrip()[:1] == "[":
        try:
            found = json.loads(cell)
        except (ValueError, RecursionError):
            return [*(written_list(cell) or [cell])]
        if isinstance(found, list) and found:
            return found
    return [cell]


def _records(
    lines: Sequence[str], layout: _Layout, is_row: Callable[[str], bool]
) -> Iterator[tuple[int, list[str] | str]]:
    """Number of the (last) line of each record, and its cells or why it has none.

    A quoted cell goes on over line breaks only while no line after the first is a row by itself:
    so a caption that merely begins with a quote never takes the next rows with it.
    """
    at = layout.first
    delimiter, width = layout.delimiter, len(layout.heads)
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line:
            continue
        if '"' not in line:
            yield at, line.split(delimiter)
            continue
        cells = _strictly(line, delimiter)
        if cells is None:
            cells, more = _over_lines(lines, at, delimiter, width, is_row)
            at += more
        yield at, cells if cells is not None else _as_written(line, delimiter, width)


def _strictly(text: str, delimiter: str) -> list[str] | None:
    """The cells of a record whose quotes are well formed; None of any other."""
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), None)
    except csv.Error:
        return None


def _over_lines(
    lines: Sequence[str], at: int, delimiter: str, width: int, is_row: Callable[[str], bool]
) -> tuple[list[str] | None, int]:
    """The cells of a record that begins on the line before `at`, and how many more lines it has."""
    text = lines[at - 1]
    for more, line in enumerate(lines[at:], start=1):
        text = f"{text}\n{line}"
        if len(text) > 2 * MAX_CAPTION or is_row(line):
            break
        cells = _strictly(text, delimiter) if '"' in line else None
        if cells is not None and len(cells) == width:
            return cells, more
    return None, 0


def _as_written(line: str, delimiter: str, width: int) -> list[str] | str:
    """Cells of a line whose quotes are letters like any other, or why that cannot be told."""
    if delimiter == "," and line.count('"') % 2:
        return "a quote is opened and not closed"
    return line.split(delimiter)
