"""Pictures on disk: a folder (or zip) with tables of captions, captions beside them, or classes.

Owns how such folders are put together; every sample that cannot be used becomes
a `Problem` with its reason, and none ever stops the index.  Decodes no picture.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config import SOURCES, Columns, Data, Runtime
from harness.data.collect import Collected
from harness.data.dataset import DataSet, Split, content_fingerprint, halves
from harness.data.files import FileTree, existing, is_gzipped
from harness.data.parquet import PARQUET, open_parquet
from harness.data.sidecars import add_sidecars
from harness.data.source import Source, cache_dir, path_of
from harness.data.table_columns import NotATableError
from harness.data.table_index import (
    LARGE,
    Indexed,
    IndexedEntries,
    index_folder,
    keep_index,
    read_index,
)
from harness.data.tables import is_table_name, open_table, possible_tables
from harness.data.unpacked import untarred

_BY_NAME = Columns()
_LOOKED_FOR = (
    "a CSV or JSON(L) table with columns image and caption, or pictures with .txt files of the"
    " same name"
)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PictureFolder(DataSet):
    """A data set whose pictures are files of a `FileTree`."""

    files: FileTree

    def read(self, image: str) -> bytes:
        """The bytes of a picture; KeyError or OSError when it is lost or damaged."""
        return self.files.read(image)

    def beginning(self, image: str, most: int) -> bytes:
        """See DataSet."""
        return self.files.read(image, most)

    def sizes(self, split: str) -> np.ndarray:
        """See DataSet."""
        entries = self.files.entries
        if isinstance(entries, IndexedEntries):
            return entries.sizes(split)
        return np.array([entries[image].size for image in self.splits[split].images], np.int64)

    def checksum(self, image: str) -> int | None:
        """See DataSet."""
        return self.files.entries[image].crc


# --------------------------------------------------------------------------- opening


@SOURCES.register("folder")
class FolderSource(Source):
    """The folder, zip or table `data.path`."""

    unused = frozenset({"weights", "shuffle_window", "captions"})

    def open(self, data: Data, cache: Path) -> DataSet:
        """See Source."""
        return open_folder(path_of(data), data.columns, cache=cache)


def open_folder(
    path: str,
    columns: Columns = _BY_NAME,
    *,
    unsplit: str | None = None,
    cache: Path | None = None,
    again: bool = False,
) -> DataSet:
    """Index pictures with captions below `path` (a folder, an archive, or a table in a folder).

    Understood: tables of captions (docs/data.md lists their layouts) whose pictures are next to
    them, in sub-folders or in zips beside them; without any, pictures with a same-named .txt file
    or .json record.  Tables in sub-folders are read where none is above them.  A split is named by
    a column, else by the name of a table, of its folder, or of the pictures' folders.

    Args:
        columns: names of the tables' columns, where they have names of their own.
        unsplit: the split of pictures that nothing names one for; None: the SHA-256 of each
            picture's name decides, about 80 : 10 : 10.
        cache: where what is compressed, or inside of a table, is laid down; None: the user's own.
        again: read everything, though an index of it is kept.

    Raises RefusedData when nothing usable is found, saying what was looked for, and when tables
    cannot be read or contradict one another.
    """
    place = existing(path)
    cache = cache or cache_dir(Runtime())
    name = place.name if place.is_dir() else place.name.removesuffix(".gz").rpartition(".")[0]
    is_table = place.is_file() and is_table_name(place.name)
    if is_gzipped(place.name):
        place = untarred(place, cache)
    index = index_folder(place, (columns, unsplit), cache)
    root = place.parent if is_table else place
    kept = None if again else read_index(index, root)
    if kept is None:
        kept = _indexed(place, root, is_table, columns, unsplit, cache)
        if kept.indexed >= LARGE:
            kept = keep_index(index, kept)
    return PictureFolder(name=name, **kept._asdict())


def _indexed(
    place: Path, root: Path, is_table: bool, columns: Columns, unsplit: str | None, cache: Path
) -> Indexed:
    collected = Collected(FileTree(root), unsplit)

    def read(tables: Iterable[str]) -> list[NotATableError]:
        return _read_tables(collected, tables, columns, cache)

    if is_table:
        refused = read([place.name])
        if refused:
            raise collected.refusal(str(refused[0]))
    else:
        refused = _read_shallowest(collected, read)
    return _finished(collected, refused)


def _read_shallowest(
    collected: Collected, read: Callable[[Iterable[str]], list[NotATableError]]
) -> list[NotATableError]:
    """Add the tables that no other is above, or the captions beside pictures; what was refused."""
    by_depth = defaultdict(list)
    for name in possible_tables(collected.files):
        by_depth[name.count("/")].append(name)
    refused: list[NotATableError] = []
    for depth in sorted(by_depth):
        refused += read(by_depth[depth])
        if collected.has_tables:
            below = [name for other in by_depth if other > depth for name in by_depth[other]]
            for name in below:
                collected.leave_out(name, "a table above it is read")
            return refused
    add_sidecars(collected)
    return refused


def _read_tables(
    collected: Collected, tables: Iterable[str], columns: Columns, cache: Path
) -> list[NotATableError]:
    """Add the tables among these files; why others are none.

    Raises RefusedData when some are read and another, which seems to be one too, cannot be.
    """
    refused = []
    for name in tables:
        try:
            if name.lower().endswith(PARQUET):
                table = open_parquet(name, collected.files, columns, cache)
            else:
                table = open_table(name, collected.files.read(name), columns)
        except (NotATableError, OSError) as error:
            why = error if isinstance(error, NotATableError) else None
            why = why or NotATableError(f"{name}: {error}", broken=True)
            if not why.silent:
                refused.append(why)
                collected.leave_out(name, str(why))
        else:
            collected.add(table, named_column=columns.split is not None)
    broken = [why for why in refused if why.broken]
    if broken and collected.has_tables:
        raise collected.refusal(
            f"{broken[0]}; what else there is would be half of a data set: mend it, take it away, "
            "or give data.path the table that is meant"
        )
    return refused


def _finished(collected: Collected, refused: Sequence[NotATableError]) -> Indexed:
    splits = collected.join()
    if not splits:
        reasons = Counter(problem.reason for problem in collected.problems).most_common(3)
        found = [*map(str, refused), *(f"{count} x {reason}" for reason, count in reasons)]
        seen = "; ".join(found) or "no picture was found"
        raise collected.refusal(
            f"no usable pair in {collected.files.root}: {seen}; wanted: {_LOOKED_FOR}"
        )
    train, rest = halves(splits)
    return Indexed(
        fingerprint=content_fingerprint(train, (), _stamps(train, collected.files)),
        evaluation_fingerprint=content_fingerprint(rest, (), _stamps(rest, collected.files)),
        splits=splits,
        problems=tuple(collected.problems),
        indexed=collected.indexed,
        account=collected.account(),
        files=collected.files,
    )


def _stamps(splits: Mapping[str, Split], files: FileTree) -> Iterator[str]:
    return (files.entries[image].stamp for name in sorted(splits) for image in splits[name].images)
