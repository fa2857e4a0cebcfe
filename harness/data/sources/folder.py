"""Pictures on disk: a folder (or zip) with a table of captions, with .txt files, or with classes.

Owns how such folders are put together; every sample that cannot be used becomes
a `Problem` with its reason, and none ever stops the index.  Decodes no picture.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config import SOURCES, Data
from harness.data.account import Account, FileRead, Problem, RefusedData
from harness.data.captions import (
    TABLE_SUFFIXES,
    CaptionRow,
    NotATableError,
    checked_caption,
    read_table,
)
from harness.data.dataset import (
    SPLIT_NAMES,
    DataSet,
    Split,
    absent_splits,
    content_fingerprint,
    halves,
    split_name,
)
from harness.data.files import FileTree, existing, is_image
from harness.data.source import Source, path_of
from harness.errors import DataError

_HASHED = "the SHA-256 of each picture's name, about 80 : 10 : 10"
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


# --------------------------------------------------------------------------- opening


@SOURCES.register("folder")
class FolderSource(Source):
    """The folder, zip or table `data.path`."""

    unused = frozenset({"weights", "shuffle_window"})

    def open(self, data: Data, cache: Path) -> DataSet:
        """See Source."""
        return open_folder(path_of(data))


def open_folder(path: str) -> DataSet:
    """Index pictures with captions below `path` (a folder, a zip, or a CSV/JSON file).

    Understood: a table (columns image and caption, their synonyms, and optionally split) whose
    pictures are next to it, in sub-folders or in zips beside it; several tables named after splits;
    Karpathy's JSON; pictures with a same-named .txt file, a caption a line, in sub-folders named
    after splits.  A data set that names no splits is split by the SHA-256 of each picture's name,
    about 80 : 10 : 10.

    Raises DataError when nothing usable is found, saying what was looked for.
    """
    place = existing(path)
    is_table = place.is_file() and place.suffix.lower() in TABLE_SUFFIXES
    files = FileTree(place.parent if is_table else place)
    tables = [place.name] if is_table else files.top(TABLE_SUFFIXES)
    collected = _Collected(files)
    refused = [reason for table in tables if (reason := _add_table(collected, table))]
    if len(refused) == len(tables):
        if is_table:
            raise collected.refusal(refused[0])
        _add_sidecars(collected)
    return _finished(place.stem if place.is_file() else place.name, collected, refused)


def _add_table(collected: _Collected, table: str) -> str | None:
    """Add the rows of a table; the reason, if it is none."""
    stem = posixpath.splitext(table)[0].casefold()
    by_name = SPLIT_NAMES.get(stem)
    seen, problems = collected.indexed, len(collected.problems)
    try:
        for row in read_table(table, collected.files.read(table)):
            collected.add(row, by_name, f"the name of {table}")
    except (NotATableError, OSError) as error:
        reason = str(error) if isinstance(error, NotATableError) else f"{table}: {error}"
        collected.read.append(FileRead(table, 0, 0, reason))
        return reason
    unused = collected.problems[problems:]
    rows = collected.indexed - seen
    why = "; ".join(_summary(unused)) or None
    collected.read.append(FileRead(table, rows, rows - len(unused), why))
    return None


def _add_sidecars(collected: _Collected) -> None:
    images = collected.files.images()
    seen, problems = collected.indexed, len(collected.problems)
    _read_sidecars(collected, images)
    if images:
        unused = collected.problems[problems:]
        rows = collected.indexed - seen
        why = "; ".join(_summary(unused)) or None
        collected.read.append(FileRead("*.txt", rows, rows - len(unused), why))


def _read_sidecars(collected: _Collected, images: Sequence[str]) -> None:
    split_folders = any(_split_folder(image) for image in images)
    for image in images:
        split = _split_folder(image)
        if split_folders and split is None:
            collected.refuse(image, "outside of the folders named after splits")
            continue
        sidecar = posixpath.splitext(image)[0] + ".txt"
        if sidecar not in collected.files.entries:
            collected.refuse(image, "no .txt file of the same name")
            continue
        text = collected.files.read(sidecar).decode("utf-8-sig", "surrogateescape")
        for line in [line for line in text.splitlines() if line.strip()] or [""]:
            row = CaptionRow(sidecar, f"{image}:{line}", image, line)
            collected.add(row, split, f"the folder {image.partition('/')[0]}")


def _split_folder(image: str) -> str | None:
    top, _, rest = image.partition("/")
    return SPLIT_NAMES.get(top.casefold()) if rest else None


def _finished(name: str, collected: _Collected, refused: Sequence[str]) -> DataSet:
    splits = collected.splits()
    if not splits:
        seen = "; ".join([*refused, *_summary(collected.problems)]) or "no picture was found"
        raise collected.refusal(
            f"no usable pair in {collected.files.root}: {seen}; wanted: {_LOOKED_FOR}"
        )
    train, rest = halves(splits)
    return PictureFolder(
        name=name,
        fingerprint=content_fingerprint(train, (), _stamps(train, collected.files)),
        evaluation_fingerprint=content_fingerprint(rest, (), _stamps(rest, collected.files)),
        splits=splits,
        problems=tuple(collected.problems),
        indexed=collected.indexed,
        account=collected.account(),
        files=collected.files,
    )


def _summary(problems: Iterable[Problem]) -> list[str]:
    counts = Counter(problem.reason for problem in problems)
    return [f"{count} x {reason}" for reason, count in counts.most_common(3)]


def _stamps(splits: Mapping[str, Split], files: FileTree) -> Iterator[str]:
    return (files.entries[image].stamp for name in sorted(splits) for image in splits[name].images)


# --------------------------------------------------------------------------- checking rows


class _Collected:
    """Checked rows by split, and the problems met; nothing is refused without a reason."""

    def __init__(self, files: FileTree) -> None:
        self.files = files
        self.problems: list[Problem] = []
        self.read: list[FileRead] = []
        self.indexed = 0
        self._origins: dict[str, dict[str, None]] = defaultdict(dict)
        self._captions: dict[str, dict[str, list[str]]] = defaultdict(dict)
        self._home: dict[str, str] = {}
        self._rows: set[bytes] = set()
        self._found: dict[str, str | DataError] = {}
        self._by_base: dict[str, list[str]] | None = None

    def add(self, row: CaptionRow | Problem, split: str | None, origin: str) -> None:
        """Take a row in, or file the reason why not.

        Args:
            split: of a row that names none, by `origin`; None: the picture's name decides.
        """
        if isinstance(row, Problem):
            self.refuse(row.where, row.reason)
            return
        try:
            image = self._resolve(row.image)
            given = _checked_split(row.split, split)
            place = given or hashed_split(image)
            self._keep(image, place, checked_caption(row.caption), row.raw)
            named = "its column or field split" if row.split is not None else origin
            self._origins[place][named if given else _HASHED] = None
        except DataError as error:
            self.refuse(row.where, str(error))
        else:
            self.indexed += 1

    def refuse(self, where: str, reason: str) -> None:
        """File a problem; the sample counts as looked at."""
        self.problems.append(Problem(where, reason))
        self.indexed += 1

    def splits(self) -> dict[str, Split]:
        """The splits, pictures sorted by name, captions in the order of the rows."""
        out = {}
        for name in sorted(self._captions):
            images = sorted(self._captions[name])
            out[name] = Split(images, [tuple(self._captions[name][i]) for i in images])
        return out

    def account(self) -> Account:
        """What was read, and how the splits came about."""
        hashed = any(_HASHED in origins for origins in self._origins.values())
        notes = [f"no split is named: pictures are split by {_HASHED}"] if hashed else []
        notes += [f"{read.reason}; it is not used" for read in self.read if not read.rows]
        origins = {split: ", ".join(found) for split, found in sorted(self._origins.items())}
        return Account(tuple(self.read), origins, (*notes, *absent_splits(self.splits())))

    def refusal(self, line: str) -> RefusedData:
        """The error of data of which nothing can be used."""
        return RefusedData(line, self.account(), self.problems, self.indexed)

    def _keep(self, image: str, split: str, caption: str, raw: str) -> None:
        home = self._home.setdefault(image, split)
        if home != split:
            raise DataError(f"picture is in splits {home} and {split}")
        mark = hashlib.blake2b(raw.encode("utf-8", "surrogateescape"), digest_size=12).digest()
        if mark in self._rows:
            raise DataError("duplicate row")
        self._rows.add(mark)
        self._captions[split].setdefault(image, []).append(caption)

    def _resolve(self, image: object) -> str:
        if not isinstance(image, str) or not image.strip():
            raise DataError("no picture named")
        if image not in self._found:
            self._found[image] = self._look_up(image.strip().replace("\\", "/"))
        found = self._found[image]
        if isinstance(found, DataError):
            raise found
        return found

    def _look_up(self, image: str) -> str | DataError:
        name = posixpath.normpath(image)
        if name in self.files.entries:
            return name if is_image(name) else DataError("not a picture by its suffix")
        same = self._same_base(posixpath.basename(name))
        ending = [other for other in same if other.endswith("/" + name)]
        candidates = ending or same
        if len(candidates) == 1:
            return candidates[0]
        return DataError("picture is ambiguous" if candidates else "picture is not there")

    def _same_base(self, base: str) -> list[str]:
        if self._by_base is None:
            self._by_base = defaultdict(list)
            for name in self.files.images():
                self._by_base[posixpath.basename(name)].append(name)
        return self._by_base.get(base, [])


def _checked_split(given: object, default: str | None) -> str | None:
    if given is None:
        return default
    if not isinstance(given, str) or not given.strip():
        raise DataError("empty split")
    return split_name(given)


def hashed_split(image: str) -> str:
    """Split of a picture by the SHA-256 of its name: about 80 % train, 10 % each of the others."""
    place = int.from_bytes(hashlib.sha256(image.encode("utf-8", "replace")).digest()[:8]) % 100
    return "train" if place < 80 else "validation" if place < 90 else "test"
