"""A table of pictures and their classes: CSV, JSON or JSON lines with a column of labels.

Owns which column that is, and which rows of it are tested on; the tables themselves are read as
those of captions are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.config import Columns
from harness.data.account import Problem
from harness.data.class_folders import Labelled
from harness.data.files import FileTree
from harness.data.picture_names import resolve
from harness.data.split_names import split_name
from harness.data.table_columns import CaptionRow, CaptionTable, NotATableError, Row
from harness.data.tables import open_table
from harness.errors import DataError

#: Names of the column of a picture's class, in the order in which they are looked for: words first.
LABEL_COLUMNS = (
    "class_name",
    "classname",
    "label_name",
    "category",
    "species",
    "breed",
    "class",
    "label",
    "labels",
    "classid",
    "class_id",
    "target",
)
_TESTED = ("test", "validation")


def label_table(files: FileTree, names: Iterable[str]) -> CaptionTable | None:
    """The first of some files that is a table of pictures and labels, labels as its captions."""
    for name in names:
        try:
            data = files.read(name)
        except OSError:
            continue
        for column in LABEL_COLUMNS:
            try:
                return open_table(name, data, Columns(caption=column))
            except NotATableError:
                continue
    return None


def labelled_rows(table: CaptionTable, files: FileTree) -> Labelled:
    """The pictures of a table that are tested on: its split test, else validation, else all."""
    notes, problems, labels = [*files.notes], list[Problem](), dict[str, str]()
    rows = _tested(table, notes)
    named = (row.image for row in rows if isinstance(row, CaptionRow))
    images = resolve(dict.fromkeys(image for image in named if isinstance(image, str)), files)
    for row in rows:
        try:
            image, label = _checked(row, images)
            if labels.setdefault(image, label) != label:
                raise DataError(f"picture has the labels {labels[image]} and {label}")
        except DataError as error:
            problems.append(Problem(row.where, str(error)))
    classes = sorted(set(labels.values()))
    numbers = {each: number for number, each in enumerate(classes)}
    tested = sorted(labels)
    given = [numbers[labels[image]] for image in tested]
    return Labelled(files, tested, given, classes, problems=problems, notes=notes)


def _tested(table: CaptionTable, notes: list[str]) -> Sequence[Row]:
    rows = list(table.rows)
    if table.split is None:
        return rows
    splits = [split_name(str(row.split)) if isinstance(row, CaptionRow) else None for row in rows]
    tested = next((split for split in _TESTED if split in splits), None)
    if tested is None:
        return rows
    left = sum(split not in (tested, None) for split in splits)
    if left:
        notes.append(f"{table.name}: split {tested} is tested on; {left:,} rows of others")
    return [row for row, split in zip(rows, splits, strict=True) if split in (tested, None)]


def _checked(row: Row, images: Mapping[str, str | DataError]) -> tuple[str, str]:
    """The picture and label of a row; DataError says what it lacks."""
    if isinstance(row, Problem):
        raise DataError(row.reason)
    label = "" if row.caption is None else str(row.caption).strip()
    if not isinstance(row.image, str) or not row.image.strip():
        raise DataError("no picture is named")
    image = images[row.image]
    if isinstance(image, DataError):
        raise image
    if not label:
        raise DataError("no label")
    return image, label
