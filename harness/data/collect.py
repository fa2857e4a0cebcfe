"""Rows of several tables made into splits; nothing is left out without a reason or a note.

Owns what decides a picture's split, and which tables may stand beside one another.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from harness.data.account import Account, FileRead, Problem, RefusedData
from harness.data.captions import checked_caption, written_list
from harness.data.dataset import Split
from harness.data.files import FileTree
from harness.data.picture_names import resolve
from harness.data.split_names import (
    CUSTOMARY,
    SPLIT_NAMES,
    absent_splits,
    split_folder,
    split_in,
    split_name,
)
from harness.data.table_columns import CaptionRow, CaptionTable, Row
from harness.errors import DataError, few

HASHED = "the SHA-256 of each picture's name, about 80 : 10 : 10"
OUTSIDE = "outside of the folders named after splits"
_TOLD = 6
"""Files that are named one by one."""
_SHARED = 0.5
"""Share of a table's pictures that another one has with other captions: one is a copy of old."""


@dataclass
class _Table:
    """A table whose rows have been read, and what decides their splits."""

    name: str
    heads: tuple[str, ...]
    rows: list[Row]
    column: str | None
    named: tuple[str, str] | None
    """The split that its name or folder says, and how that came about."""
    by_folders: bool = False
    repeated: int = 0
    unused: Counter[str] = field(default_factory=Counter)

    @property
    def captions(self) -> Iterator[CaptionRow]:
        """The rows that could be read."""
        return (row for row in self.rows if isinstance(row, CaptionRow))

    @property
    def names_splits(self) -> bool:
        """Whether anything says which split its rows are of."""
        return self.column is not None or self.named is not None or self.by_folders


def hashed_split(image: str) -> str:
    """Split of a picture by the SHA-256 of its name: about 80 % train, 10 % each of the others."""
    place = int.from_bytes(hashlib.sha256(image.encode("utf-8", "replace")).digest()[:8]) % 100
    return "train" if place < 80 else "validation" if place < 90 else "test"


class Collected:
    """Tables that are taken in one after another, and made into splits together.

    Args:
        unsplit: the split of pictures that nothing names one for; None: their names' hash decides.
    """

    def __init__(self, files: FileTree, unsplit: str | None = None) -> None:
        self.files, self.unsplit = files, unsplit
        self.problems: list[Problem] = []
        self.indexed = 0
        self.notes = list(files.notes)
        self._unread: list[FileRead] = []
        self._tables: list[_Table] = []
        self._captions: dict[str, dict[str, list[str]]] = defaultdict(dict)
        self._home: dict[str, str] = {}
        self._marks: set[bytes] = set()
        self._pairs: dict[bytes, str] = {}
        self._origins: dict[str, dict[str, None]] = defaultdict(dict)
        self._spelt: Counter[str] = Counter()

    def add(self, table: CaptionTable, *, named_column: bool = False) -> None:
        """Take in a table.

        Args:
            named_column: the user named its column of splits, whatever that holds.
        """
        rows = self._of_lists(table.name, list(self._from_folder(table)))
        column, named = table.split, None
        if column not in (None, "split") and not named_column and not _says_splits(rows):
            self.notes.append(f"column {column!r} of {table.name} names no splits: it is not read")
            column = None
        if (split := split_in(table.name.rpartition("/")[2])) is not None:
            named = split, f"the name of {table.name}"
        elif (folder := split_folder(table.name)) is not None:
            named = folder[0], f"the folder {folder[1]}"
        self._tables.append(_Table(table.name, table.heads, rows, column, named))

    @property
    def has_tables(self) -> bool:
        """Whether anything has been taken in."""
        return bool(self._tables)

    def _from_folder(self, table: CaptionTable) -> Iterator[Row]:
        """The rows of a table; what is in the folder of the table is named from there."""
        folder = posixpath.dirname(table.name)
        for row in table.rows:
            if folder and isinstance(row, CaptionRow) and isinstance(row.image, str):
                below = posixpath.normpath(f"{folder}/{row.image.strip()}")
                yield row._replace(image=below) if below in self.files.entries else row
            else:
                yield row

    def _of_lists(self, name: str, rows: list[Row]) -> list[Row]:
        """The rows, one a caption where each is a written list; where only some are, it is said."""
        captioned = [row for row in rows if isinstance(row, CaptionRow)]
        written = {id(row): found for row in captioned if (found := written_list(row.caption))}
        if not written:
            return rows
        if len(written) < len(captioned):
            first = next(row for row in captioned if id(row) in written)
            self.notes.append(
                f"{len(written):,} captions of {name} look like lists and are read as one each "
                f"({first.where}: {str(first.caption)[:40]}): several captions of a picture are "
                "several rows, or a list in every row"
            )
            return rows
        several = sum(map(len, written.values()))
        self.notes.append(f"captions of {name} are lists: {several:,} in {len(written):,} rows")
        return [one for row in rows for one in _a_caption_each(row, written.get(id(row)))]

    def leave_out(self, file: str, reason: str) -> None:
        """Say that a file was not read."""
        self._unread.append(FileRead(file, 0, 0, reason))

    def refusal(self, line: str) -> RefusedData:
        """The error of data that cannot be used."""
        return RefusedData(line, self.account(), self.problems, self.indexed)

    def join(self) -> dict[str, Split]:
        """The splits, pictures sorted by name, captions in the order of the rows.

        Raises RefusedData when the tables cannot stand beside one another.
        """
        named = (row.image for t in self._tables for row in t.captions)
        images = resolve(dict.fromkeys(n for n in named if isinstance(n, str)), self.files)
        for table in self._tables:
            if table.column is None and table.named is None:
                found = (images.get(r.image) for r in table.captions if isinstance(r.image, str))
                table.by_folders = any(isinstance(i, str) and self._folder(i) for i in found)
        self._refuse_half_split()
        self._refuse_older_copies(images)
        for table in self._tables:
            for row in table.rows:
                self._take(table, row, images)
        out = {}
        for name in sorted(self._captions):
            ordered = sorted(self._captions[name])
            out[name] = Split(ordered, [tuple(self._captions[name][i]) for i in ordered])
        return out

    def account(self) -> Account:
        """What was read, and how the splits came about."""
        files = [_file_read(table) for table in self._tables]
        origins = {split: ", ".join(found) for split, found in sorted(self._origins.items())}
        notes = [*self.notes, *self._pooled(), *self._split_notes(), *absent_splits(origins)]
        return Account((*files, *self._unread), origins, tuple(notes))

    # ---------------------------------------------------------------- notes

    def _pooled(self) -> Iterator[str]:
        alike = [table.name for table in self._tables if table.rows and not table.names_splits]
        if len(alike) > 1:
            yield f"{len(alike)} tables that name no split are pooled: {few(alike, 4)}"
        repeated = sum(table.repeated for table in self._tables)
        if repeated:
            rows = "row repeats another and is" if repeated == 1 else "rows repeat others and are"
            yield f"{repeated:,} {rows} left out"
        if len(self._unread) > _TOLD:
            yield f"{len(self._unread):,} files are not used, such as {self._unread[0].file}"
        else:
            yield from (f"{file.file} is not used: {file.reason}" for file in self._unread)

    def _split_notes(self) -> Iterator[str]:
        if any(HASHED in origins for origins in self._origins.values()):
            yield f"no split is named: pictures are split by {HASHED}"
        for given, captions in self._spelt.items():
            yield f"split {given!r} ({captions:,} captions) is read as {split_name(given)}"

    # ---------------------------------------------------------------- tables beside one another

    def _refuse_half_split(self) -> None:
        tables = [table for table in self._tables if table.rows]
        without = [table for table in tables if not table.names_splits]
        if not without:
            return
        if len(without) < len(tables):
            raise self.refusal(
                f"{few((t.name for t in without), 4)} names no split, and "
                f"{few((t.name for t in tables if t.names_splits), 4)} does; give data.path the "
                "table that is meant, or the others a column split"
            )
        heads = {table.heads for table in without}
        if len(heads) > 1:
            raise self.refusal(
                f"{few((t.name for t in without), 4)} name no split and have different columns, "
                "so they are not pooled; give data.path the table that is meant"
            )

    def _refuse_older_copies(self, images: Mapping[str, str | DataError]) -> None:
        """RefusedData when two tables give most pictures of one of them different captions."""
        if len(self._tables) < 2:
            return
        of_table = [_captions_by_picture(table, images) for table in self._tables]
        owners: dict[str, list[int]] = defaultdict(list)
        for number, captions in enumerate(of_table):
            for image in captions:
                owners[image].append(number)
        shared = Counter(pair for own in owners.values() for pair in combinations(own, 2))
        for (first, second), pictures in shared.items():
            one, other = of_table[first], of_table[second]
            changed = sum(
                not (one[i] <= other[i] or other[i] <= one[i]) for i in one.keys() & other.keys()
            )
            if changed and pictures >= _SHARED * min(len(one), len(other)):
                raise self.refusal(
                    f"{self._tables[first].name} and {self._tables[second].name} caption the same "
                    f"{pictures:,} pictures, {changed:,} of them differently, as an older copy "
                    "does; give data.path the table that is meant, or join them into one"
                )

    # ---------------------------------------------------------------- rows

    def _take(self, table: _Table, row: Row, images: Mapping[str, str | DataError]) -> None:
        """Take a row in, file the reason why not, or count it as a repetition."""
        try:
            if isinstance(row, Problem):
                raise DataError(row.reason)
            image = _picture_of(row, images)
            caption = checked_caption(row.caption)
            split, origin = self._split_of(table, row, image)
            home = self._home.setdefault(image, split)
            if home != split:
                raise DataError(f"picture is in splits {home} and {split}")
        except DataError as error:
            table.unused[str(error)] += 1
            self.problems.append(Problem(row.where, str(error)))
            self.indexed += 1
            return
        if self._is_repeated(table, row, image, caption):
            table.repeated += 1
            return
        self.indexed += 1
        self._origins[split][origin] = None
        self._captions[split].setdefault(image, []).append(caption)
        if table.column and row.split is not None:
            given = str(row.split).strip()
            if split in CUSTOMARY and (given.casefold() not in SPLIT_NAMES or given == "restval"):
                self._spelt[given] += 1

    def _is_repeated(self, table: _Table, row: CaptionRow, image: str, caption: str) -> bool:
        """Whether the row is one again, or its pair is in another table too."""
        mark = _digest(row.raw)
        if mark in self._marks:
            return True
        self._marks.add(mark)
        if len(self._tables) < 2:
            return False
        return self._pairs.setdefault(_digest(f"{image}\n{caption}"), table.name) != table.name

    def _split_of(self, table: _Table, row: CaptionRow, image: str) -> tuple[str, str]:
        """The split of a row, and how it came about."""
        if table.column is not None:
            if not isinstance(row.split, str) or not row.split.strip():
                raise DataError("empty split")
            return split_name(row.split), f"its column or field {table.column}"
        if table.named is not None:
            return table.named
        if table.by_folders:
            folder = self._folder(image)
            if folder is None:
                raise DataError(OUTSIDE)
            return folder[0], f"the folder {folder[1]}"
        if self.unsplit is not None:
            return self.unsplit, "all that there is"
        return hashed_split(image), HASHED

    def _folder(self, image: str) -> tuple[str, str] | None:
        """The split that a picture's folder or archive says, and its name."""
        if (found := split_folder(image)) is not None:
            return found
        archive = self.files.entries[image].archive
        name = posixpath.basename((archive or "").replace("\\", "/"))
        if archive is None or archive == str(self.files.root) or (split := split_in(name)) is None:
            return None
        return split, name


def _a_caption_each(row: Row, captions: Sequence[str] | None) -> list[Row]:
    if captions is None or isinstance(row, Problem):
        return [row]
    return [row._replace(raw=f"{n}:{row.raw}", caption=one) for n, one in enumerate(captions)]


def _picture_of(row: CaptionRow, images: Mapping[str, str | DataError]) -> str:
    if not isinstance(row.image, str) or not row.image.strip():
        raise DataError("no picture named")
    found = images[row.image]
    if isinstance(found, DataError):
        raise found
    return found


def _file_read(table: _Table) -> FileRead:
    reasons = [f"{count:,} x {reason}" for reason, count in table.unused.most_common(3)]
    reasons += [f"{table.repeated:,} repeated"] if table.repeated else []
    reasons += [] if table.rows else ["no rows"]
    rows = len(table.rows)
    used = rows - sum(table.unused.values()) - table.repeated
    return FileRead(table.name, rows, used, "; ".join(reasons) or None)


def _captions_by_picture(
    table: _Table, images: Mapping[str, str | DataError]
) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for row in table.captions:
        image = images.get(row.image) if isinstance(row.image, str) else None
        if isinstance(image, str) and isinstance(row.caption, str):
            found[image].add(" ".join(row.caption.split()))
    return found


def _says_splits(rows: Iterable[Row]) -> bool:
    """Whether most values of a column that may be one of splits are names of splits."""
    values = [row.split for row in rows if isinstance(row, CaptionRow)]
    known = sum(isinstance(value, str) and split_in(value) is not None for value in values)
    return known > len(values) / 2


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).digest()
