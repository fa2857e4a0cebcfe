"""The index of a large folder of pictures: made once, kept in the cache, and memory-mapped.

To read the tables of a million rows and list as many files takes half a minute in every process.
Here names, captions, sizes and places are kept as arrays, from which items are made when they are
asked for; workers map the same files.  An index stands while every folder, table and archive has
the time and size that it had, and so have a few thousand pictures spread over all: one picture
that is overwritten in place is seen only by `check --again`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.data.account import Account, FileRead, Problem
from harness.data.dataset import Split
from harness.data.files import Entry, FileTree, is_image
from harness.data.index import Lazy, Samples, captions_at
from harness.data.verified import cache_key, keep_sums, kept_with_files
from harness.files import locked, replacing

LARGE = 100_000
"""Rows from which on an index is kept; to read fewer anew takes a second or two."""
_VERSION = 1
_ABOUT = "about.json"
_LOOKED_AT = 4096
"""Pictures whose size must be what it was."""


class Indexed(NamedTuple):
    """What an index keeps of a data set, under the names of its fields."""

    fingerprint: str
    evaluation_fingerprint: str
    splits: Mapping[str, Split]
    problems: tuple[Problem, ...]
    indexed: int
    account: Account
    files: FileTree


class _Names(Samples):
    """The index of one split: its pictures sorted by name, with where their bytes are.

    `crc` is -1 where it is not known; `places` hold, of a picture in an archive, the number of the
    archive, where it begins there (-1 in a zip), and its name inside.
    """

    RECORD = np.dtype(
        [
            ("size", "<i8"),
            ("crc", "<i8"),
            ("name_end", "<i8"),
            ("caption_end", "<i8"),
            ("place_end", "<i8"),
        ]
    )
    TEXTS = ("names", "captions", "places")

    def name(self, i: int) -> str:
        return self.text("name", i)

    def find(self, name: str) -> int | None:
        """The place of a picture by bisection."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.name(middle) < name:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self.name(low) == name else None


class IndexedEntries(Mapping[str, Entry]):
    """The files of the pictures of all splits, found in the index by name."""

    def __init__(self, index: Path, splits: Sequence[str], archives: Sequence[str]) -> None:
        self.index, self.names, self.archives = index, tuple(splits), tuple(archives)
        self.splits = {split: _Names(index, split) for split in splits}

    def __reduce__(self) -> tuple[Any, ...]:
        return IndexedEntries, (self.index, self.names, self.archives)

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def __iter__(self) -> Iterator[str]:
        return (samples.name(i) for samples in self.splits.values() for i in range(len(samples)))

    def __getitem__(self, name: str) -> Entry:
        for samples in self.splits.values():
            if (place := samples.find(name)) is not None:
                return self._entry(samples, place)
        raise KeyError(name)

    def sizes(self, split: str) -> np.ndarray:
        """Bytes of each picture of a split, int64 (N,)."""
        return np.asarray(self.splits[split].records["size"], np.int64)

    def _entry(self, samples: _Names, i: int) -> Entry:
        record = samples.records[i]
        crc = None if record["crc"] < 0 else int(record["crc"])
        place = samples.text("place", i)
        if not place:
            return Entry(int(record["size"]), crc)
        archive, offset, member = place.split("\0", 2)
        start = int(offset)
        return Entry(
            int(record["size"]),
            crc,
            self.archives[int(archive)],
            member,
            None if start < 0 else start,
        )


def index_folder(place: Path, options: object, cache: Path) -> Path:
    """Where the index of what is at `place` is, read by `options`."""
    return cache / f"tables-{cache_key([_VERSION, str(place), repr(options)])}"


# --------------------------------------------------------------------------- reading


def read_index(index: Path, root: Path) -> Indexed | None:
    """What is kept, with files below `root`; None unless it is whole and stands."""
    try:
        about = kept_with_files(index, _ABOUT, index.parent)
        if about is None:
            return None
        entries = IndexedEntries(index, about["splits"], about["archives"])
        if not _stands(about["stamps"], root, entries):
            return None
    except (OSError, ValueError, KeyError):
        return None
    views = entries.splits
    account = about["account"]
    return Indexed(
        about["fingerprint"],
        about["evaluation_fingerprint"],
        {s: Split(Lazy(v, _Names.name), Lazy(v, captions_at)) for s, v in views.items()},
        tuple(Problem(where, reason) for where, reason in about["problems"]),
        about["indexed"],
        Account(
            tuple(FileRead(**file) for file in account["files"]),
            account["origins"],
            tuple(account["notes"]),
        ),
        FileTree(root, entries),
    )


def _stands(stamps: Mapping[str, Sequence[int]], root: Path, entries: IndexedEntries) -> bool:
    """Whether folders, tables, archives and some of the loose pictures are as they were."""
    if any(_stamp(root / name) != list(stamp) for name, stamp in stamps.items()):
        return False
    return all(
        os.stat(root / samples.name(int(i))).st_size == int(samples.records["size"][i])
        for samples in entries.splits.values()
        for i in np.linspace(0, len(samples) - 1, min(_LOOKED_AT, len(samples))).astype(int)
        if not samples.text("place", int(i))
    )


def _stamp(path: Path) -> list[int]:
    state = os.stat(path)
    return [state.st_mtime_ns, -1 if path.is_dir() else state.st_size]


# --------------------------------------------------------------------------- making


def keep_index(index: Path, data: Indexed) -> Indexed:
    """Put an index on disk; the same, read from there."""
    root = data.files.root
    archives = sorted({e.archive for e in data.files.entries.values() if e.archive is not None})
    index.parent.mkdir(parents=True, exist_ok=True)
    with locked(index), replacing(index) as folder:
        for name, split in data.splits.items():
            _write_split(folder, name, split, data.files.entries, archives)
        about = {
            "fingerprint": data.fingerprint,
            "evaluation_fingerprint": data.evaluation_fingerprint,
            "splits": list(data.splits),
            "archives": archives,
            "problems": [[problem.where, problem.reason] for problem in data.problems],
            "indexed": data.indexed,
            "account": asdict(data.account),
            "stamps": _stamps(root, data.files, archives),
        }
        keep_sums(folder, _ABOUT, about)
    return read_index(index, root) or data


def _stamps(root: Path, seen: FileTree, archives: Sequence[str]) -> dict[str, list[int]]:
    """Time and size of everything that another content of the data set would change."""
    others = [n for n, e in seen.entries.items() if e.archive is None and not is_image(n)]
    names = [".", *seen.folders, *others] if root.is_dir() else []
    return {name: _stamp(root / name) for name in [*names, *archives]}


def _write_split(
    folder: Path,
    name: str,
    split: Split,
    entries: Mapping[str, Entry],
    archives: Sequence[str],
) -> None:
    number = {archive: i for i, archive in enumerate(archives)}
    records = np.zeros(len(split), _Names.RECORD)
    found = [entries[image] for image in split.images]
    records["size"] = [entry.size for entry in found]
    records["crc"] = [-1 if entry.crc is None else entry.crc for entry in found]
    texts: dict[str, Callable[[int], str]] = {
        "name": lambda i: split.images[i],
        "caption": lambda i: "\n".join(split.captions[i]),
        "place": lambda i: _place(found[i], number),
    }
    for what, text in texts.items():
        with (folder / f"{name}.{what}s").open("wb") as file:
            for i in range(len(split)):
                file.write(text(i).encode("utf-8", "surrogateescape"))
                records[f"{what}_end"][i] = file.tell()
    (folder / f"{name}.samples").write_bytes(records.tobytes())


def _place(entry: Entry, number: Mapping[str, int]) -> str:
    if entry.archive is None:
        return ""
    offset = -1 if entry.offset is None else entry.offset
    return f"{number[entry.archive]}\0{offset}\0{entry.member}"
