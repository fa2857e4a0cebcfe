"""What a text must be to count as a caption, and the tables that pair pictures with captions.

Reads rows as they are given; which picture a row means is for the source to find out.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.data.account import Problem
from harness.errors import DataError

#: Names of the columns of a table, in the order in which they are looked for.
IMAGE_COLUMNS = ("image", "filename", "file_name", "file", "image_path", "filepath")
CAPTION_COLUMNS = ("caption", "title", "text", "captions")
TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
MAX_CAPTION = 10_000
"""Characters; a longer text is a mistake of the table (an unclosed quote), not a caption."""


@dataclass(frozen=True)
class CaptionRow:
    """One caption as a table gives it; nothing of it has been checked.

    `raw` is all that the table says in this row: two rows with one `raw` are a duplicate, while a
    caption that two people wrote of one picture (rows told apart by a number) is not.
    """

    where: str
    raw: str
    image: object
    caption: object
    split: object = None


class NotATableError(DataError):
    """A file without the columns of a table of captions."""


def checked_caption(value: object) -> str:
    """The caption with its white space made single spaces; DataError says why it is none."""
    if not isinstance(value, str):
        raise DataError("caption is null" if value is None else "caption is not text")
    text = " ".join(value.split())
    if not text:
        raise DataError("empty caption")
    if len(text) > MAX_CAPTION:
        raise DataError(f"caption of more than {MAX_CAPTION} characters")
    if text.casefold() in {"nan", "none", "null"}:
        raise DataError(f"caption is the word {text!r}, which stands for no caption")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError("caption is not UTF-8")
    return text


def read_table(name: str, data: bytes) -> Iterator[CaptionRow | Problem]:
    """The rows of a CSV, TSV, JSON or JSON-lines table; NotATableError when it lacks the columns.

    A line that cannot be read is a Problem.  Bytes that are not UTF-8 stay in the text as lone
    surrogates, so that only the rows that hold them are refused.
    """
    text = data.decode("utf-8-sig", "surrogateescape")
    suffix = posixpath.splitext(name)[1].lower()
    if suffix == ".json":
        return _json_rows(name, text)
    if suffix in {".jsonl", ".ndjson"}:
        return _jsonl_rows(name, text)
    return _csv_rows(name, text)


def _csv_rows(name: str, text: str) -> Iterator[CaptionRow | Problem]:
    delimiter, header = _header(name, text)
    image, caption = _column(IMAGE_COLUMNS, header), _column(CAPTION_COLUMNS, header)
    assert image is not None  # _header found both
    assert caption is not None
    split = header.index("split") if "split" in header else None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    next(reader)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem(f"{name}:{reader.line_num}", f"unreadable line: {error}")
            continue
        where = f"{name}:{reader.line_num}"
        if len(cells) == len(header):
            value = None if split is None else cells[split]
            yield CaptionRow(where, delimiter.join(cells), cells[image], cells[caption], value)
        elif cells:
            yield Problem(where, f"{len(cells)} fields where the header has {len(header)}")


def _header(name: str, text: str) -> tuple[str, list[str]]:
    first = text.partition("\n")[0].rstrip("\r")
    for delimiter in ",\t;|":
        cells = next(csv.reader([first], delimiter=delimiter), [])
        cells = [cell.strip().casefold() for cell in cells]
        if None not in (_column(IMAGE_COLUMNS, cells), _column(CAPTION_COLUMNS, cells)):
            return delimiter, cells
    raise NotATableError(
        f"{name} begins with {first[:60]!r}, not with a header that names a column"
        f" {'|'.join(IMAGE_COLUMNS)} and a column {'|'.join(CAPTION_COLUMNS)}"
    )


def _column(wanted: Sequence[str], header: Sequence[str]) -> int | None:
    return next((header.index(column) for column in wanted if column in header), None)


def _json_rows(name: str, text: str) -> Iterator[CaptionRow | Problem]:
    try:
        tree = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise NotATableError(f"{name} is not JSON: {error}") from error
    records = tree.get("images") if isinstance(tree, dict) else tree
    if not isinstance(records, list):
        raise NotATableError(f'{name} is neither a list of records nor has one under "images"')
    if not any(isinstance(record, dict) and _is_record(record) for record in records):
        raise NotATableError(f"{name} has no record that names a picture and a caption")
    for number, record in enumerate(records):
        yield from _record_rows(f"{name}[{number}]", record)


def _jsonl_rows(name: str, text: str) -> Iterator[CaptionRow | Problem]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield Problem(f"{name}:{number}", f"not JSON: {error}")
            continue
        yield from _record_rows(f"{name}:{number}", record)


def _is_record(record: Mapping[str, object]) -> bool:
    has_caption = any(column in record for column in (*CAPTION_COLUMNS, "sentences"))
    return has_caption and any(column in record for column in IMAGE_COLUMNS)


def _record_rows(where: str, record: object) -> Iterator[CaptionRow | Problem]:
    if not isinstance(record, dict) or not _is_record(record):
        yield Problem(where, "no record with a picture and a caption")
        return
    image = next(record[column] for column in IMAGE_COLUMNS if column in record)
    if isinstance(image, str) and isinstance(record.get("filepath"), str) and "filename" in record:
        image = posixpath.join(record["filepath"], image)  # Karpathy's COCO: folder and name apart
    raw = json.dumps(record, sort_keys=True)
    for number, caption in enumerate(_captions_of(record)):
        yield CaptionRow(where, f"{number}:{raw}", image, caption, record.get("split"))


def _captions_of(record: Mapping[str, object]) -> list[object]:
    if isinstance(sentences := record.get("sentences"), list):
        return [s.get("raw") if isinstance(s, dict) else s for s in sentences] or [None]
    given = next((record[column] for column in CAPTION_COLUMNS if column in record), None)
    return (given or [None]) if isinstance(given, list) else [given]
