"""What a table of captions is: its rows as they are given, and which of its columns hold what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.config import Columns
from harness.data.account import Problem
from harness.errors import DataError, unknown

#: Names of the columns of a table, in the order in which they are looked for.
IMAGE_COLUMNS = (
    "image",
    "filename",
    "file_name",
    "file",
    "image_path",
    "filepath",
    "image_name",
)
CAPTION_COLUMNS = ("caption", "title", "text", "captions", "comment", "raw", "sentences")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
_LISTS = frozenset({"captions", "raw", "sentences"})
"""Caption columns whose cells may be a JSON list of several captions."""


class CaptionRow(NamedTuple):
    """One caption as a table gives it; nothing of it has been checked.

    `raw` is all that the table says in this row: two rows with one `raw` are a duplicate, while a
    caption that two people wrote of one picture (rows told apart by a number) is not.
    """

    where: str
    raw: str
    image: object
    caption: object
    split: object = None


Row = CaptionRow | Problem


@dataclass(frozen=True)
class CaptionTable:
    """A table that has been recognised; its rows can be read once.

    Attributes:
        heads: the names of its columns, or fields of its records; empty where it has none.
        split: the name of the column that says the split, if one does.
    """

    name: str
    heads: tuple[str, ...]
    split: str | None
    rows: Iterable[Row]


class NotATableError(DataError):
    """A file without the columns of a table of captions.

    `broken`: it looks as if it were one nonetheless, and should not be passed over.  `silent`: it
    does not even say that it is one.
    """

    def __init__(self, line: str, *, broken: bool = False, silent: bool = False) -> None:
        super().__init__(line)
        self.broken, self.silent = broken, silent


class Places(NamedTuple):
    """The names of the columns of one table, as it spells them."""

    image: str
    caption: str
    split: str | None

    @property
    def lists(self) -> bool:
        """Whether a cell may hold several captions."""
        return self.caption in _LISTS


def find_columns(names: Sequence[str], wanted: Columns) -> Places | None:
    """The columns among `names` (lower case); None when a picture or a caption has none."""
    image = _first(names, IMAGE_COLUMNS, wanted.image)
    caption = _first(names, CAPTION_COLUMNS, wanted.caption)
    if image is None or caption is None:
        return None
    return Places(image, caption, _first(names, SPLIT_COLUMNS, wanted.split))


def _first(names: Sequence[str], known: Sequence[str], given: str | None) -> str | None:
    wanted = known if given is None else (given.strip().casefold(),)
    return next((name for name in wanted if name in names), None)


def wanted_words(columns: Columns, seen: Sequence[str]) -> str:
    """What is looked for, and how to name other columns."""
    given = {name: value for name, value in columns.model_dump().items() if value is not None}
    for value in given.values():
        if value.strip().casefold() not in seen:
            return f"data.columns asks for another: {unknown('column', value, seen)}"
    return (
        f"a column {'|'.join(IMAGE_COLUMNS)} and a column {'|'.join(CAPTION_COLUMNS)}; "
        "data.columns.image and data.columns.caption name others"
    )
