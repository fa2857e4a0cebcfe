"""What `data.path` names: the shards of one source or several, on disk or behind a URL.

Lists tar files and says which split each belongs to; opens none.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from urllib.parse import urlsplit

from braceexpand import braceexpand

from harness.data.files import existing
from harness.data.packed import PACK_FILE, read_pack
from harness.data.split_names import SPLIT_NAMES
from harness.errors import DataError

SEPARATOR = "::"
"""Between the sources of one path, as in webdataset and open_clip."""

_SCHEME = re.compile(r"^(pipe:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_TAR_NAME = re.compile(r"([^/\s?&='\"]+\.tar)\b")


@dataclass(frozen=True)
class Shard:
    """A tar file and the split it belongs to.

    Attributes:
        place: its path, or its URL.
        base: its name among the shards of its split.
        source: number of the source it is of.
        size: bytes; -1 behind a URL, where it is known once it is fetched.
        changed: modification time in nanoseconds: an index made before it is of no use.
        sha256: of its content, where a record beside it says so.
    """

    place: str
    split: str
    base: str
    source: int = 0
    size: int = -1
    changed: int = 0
    sha256: str | None = None

    @property
    def name(self) -> str:
        """What names the shard within its data set, wherever it lies."""
        return f"{self.split}/{self.base}"

    @property
    def is_remote(self) -> bool:
        """Whether it has to be fetched."""
        return self.size < 0

    @property
    def stamp(self) -> str:
        """What a fingerprint says of the content."""
        return f"{self.name}:{self.sha256 or self.size}"


@dataclass(frozen=True)
class FoundShards:
    """A data set's shards, sorted by source and place, and what it is called."""

    name: str
    shards: tuple[Shard, ...]
    sources: int


def find_shards(path: str) -> FoundShards:
    """The shards that `path` names.

    Each source is a folder, a tar file, a glob, or a URL that webdataset opens (http, https, s3,
    gs, hf, `pipe:` and a command); all but folders may have brace ranges such as
    `shard-{000000..000012}.tar`.  Samples are `train`, but for shards in (sub-)folders called
    train, val(idation) or test, and in whatever folders a packed data set has.

    Raises DataError when a source names none, or when a file of a range is not there.
    """
    sources = [source.strip() for source in path.split(SEPARATOR)]
    if not all(sources):
        raise DataError(f"a source of data.path is empty; {SEPARATOR} stands between two")
    shards: list[Shard] = []
    names = []
    for number, source in enumerate(sources):
        name, of_source = _of_source(source, number, len(sources) > 1)
        names.append(name)
        shards += sorted(of_source, key=lambda shard: (shard.place, shard.split))
    for name, count in Counter(shard.name for shard in shards).items():
        if count > 1:
            raise DataError(f"{path} has two shards called {name}; give their folders apart")
    return FoundShards("+".join(dict.fromkeys(names)), tuple(shards), len(sources))


def is_remote(place: str) -> bool:
    """Whether `place` is a URL of anything but a file."""
    scheme = _SCHEME.match(place)
    return scheme is not None and scheme[0].lower() != "file://"


def _of_source(source: str, number: int, several: bool) -> tuple[str, list[Shard]]:
    prefix = f"{number}." if several else ""
    if is_remote(source):
        shards = [
            Shard(url, _split_of(_folder_of(url)), prefix + _base_of(url), number)
            for url in _expanded(source)
        ]
        return _folder_of(shards[0].place) or "shards", shards
    given = Path(_without_scheme(source)).expanduser()
    listed = list(_in_folder(given) if given.is_dir() else _by_pattern(str(given)))
    if not listed:
        raise DataError(f"no shard at {source}; looked for .tar files, also in train, val, test")
    home = given if given.is_dir() else Path(min(file for file, _, _ in listed)).parent
    shards = [_local(file, split, sha256, number, prefix) for file, split, sha256 in listed]
    return home.absolute().name, shards


def _local(file: str, split: str, sha256: str | None, number: int, prefix: str) -> Shard:
    path = existing(file)
    state = path.stat()
    base = prefix + path.name
    return Shard(str(path), split, base, number, state.st_size, state.st_mtime_ns, sha256)


def _without_scheme(source: str) -> str:
    from urllib.request import url2pathname  # here: it takes longer to import than all the rest

    return url2pathname(urlsplit(source).path) if source.lower().startswith("file://") else source


_Listed = tuple[str, str, str | None]
"""A file, its split, and its SHA-256 where that is on record."""


def _in_folder(folder: Path) -> Iterator[_Listed]:
    if (folder / PACK_FILE).exists():
        yield from _in_pack(folder)
        return
    for file in folder.glob("*.tar"):
        yield str(file), "train", None
    for inner in folder.iterdir():
        if inner.is_dir() and inner.name.casefold() in SPLIT_NAMES:
            for file in inner.glob("*.tar"):
                yield str(file), SPLIT_NAMES[inner.name.casefold()], None


def _in_pack(folder: Path) -> Iterator[_Listed]:
    for shard in read_pack(folder).shards:
        file = folder / shard.name
        size = file.stat().st_size if file.exists() else None
        if size != shard.bytes:
            seen = "is not there" if size is None else f"has {size} bytes"
            raise DataError(f"{file} {seen}, and {PACK_FILE} says {shard.bytes} bytes")
        yield str(file), shard.split, shard.sha256


def _by_pattern(pattern: str) -> Iterator[_Listed]:
    for part in _expanded(pattern):
        files = sorted(glob(part))
        if not files:
            raise DataError(f"no shard at {part}" + (f", of {pattern}" if part != pattern else ""))
        for file in files:
            yield file, _split_of(Path(file).parent.name), None


def _expanded(pattern: str) -> Iterable[str]:
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise DataError(f"{pattern} is no brace range: {error}") from error


def _split_of(folder: str) -> str:
    return SPLIT_NAMES.get(folder.casefold(), "train")


def _tar_in(url: str) -> re.Match[str] | None:
    return next(reversed(list(_TAR_NAME.finditer(url))), None)


def _base_of(url: str) -> str:
    found = _tar_in(url)
    return found[1] if found else posixpath.basename(urlsplit(url).path) or url


def _folder_of(url: str) -> str:
    found = _tar_in(url)
    before = url[: found.start()] if found else posixpath.dirname(url)
    return re.split(r"[/\s'\"]", before.rstrip("/"))[-1] if "/" in before else ""
