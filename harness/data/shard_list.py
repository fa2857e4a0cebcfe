"""What `data.path` names: the shards of one source or several, on disk or behind a URL.

Lists tar files and says which split each belongs to; opens none.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from braceexpand import braceexpand

from harness.config.pipes import SEPARATOR, check_pipes
from harness.data.files import GZIPPED, existing
from harness.data.packed import PACK_FILE, REMEDY, read_pack
from harness.data.split_names import SPLIT_NAMES, split_folder, split_in
from harness.errors import DataError
from harness.files import home_path, inside

_SCHEME = re.compile(r"^(pipe:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_UNNAMED = "nothing: what names no split is trained on"
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
        synthetic: whether its captions are those of `syn.json`.
    """

    place: str
    split: str
    base: str
    source: int = 0
    size: int = -1
    changed: int = 0
    sha256: str | None = None
    synthetic: bool = False

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
        return self.stamp_of(self.sha256 or self.size)

    def stamp_of(self, content: object) -> str:
        """The same with what is known of its content."""
        return f"{self.name}:{content}" + ":synthetic" * self.synthetic


@dataclass(frozen=True)
class FoundShards:
    """A data set's shards, sorted by source and place, and what it is called.

    `origins` says how each split came about, and `notes` what a user must know of that.
    """

    name: str
    shards: tuple[Shard, ...]
    sources: int
    origins: Mapping[str, str]
    notes: tuple[str, ...]


def find_shards(path: str, *, synthetic: bool = False) -> FoundShards:
    """The shards that `path` names, with their own or their synthetic captions.

    Each source is a folder, a tar file, a glob, or a URL that webdataset opens (http, https, s3,
    gs, hf, `pipe:` and a command); all but folders may have brace ranges such as
    `shard-{000000..000012}.tar`.  A shard's split is what its folder or its name says (`val/0.tar`,
    `cc3m-validation-0000.tar`), and what its record says in a packed data set; one that says none
    is trained on.

    Raises DataError when a source names none, when a file of a range is not there, or when a
    command is not the caller's own.
    """
    check_pipes(path)
    sources = [source.strip() for source in path.split(SEPARATOR)]
    if not all(sources):
        raise DataError(f"a source of data.path is empty; {SEPARATOR} stands between two")
    shards: list[Shard] = []
    aside = 0
    names, origins = [], defaultdict[str, dict[str, int]](dict)
    for number, source in enumerate(sources):
        name, found = _of_source(source)
        names.append(name)
        listed = [each for each in found if not each.depth] or found
        aside += len(found) - len(listed)
        prefix = f"{number}." if len(sources) > 1 else ""
        for each in listed:
            counts = origins[each.split or "train"]
            counts[each.origin] = counts.get(each.origin, 0) + 1
        of_source = [replace(_shard(each, number, prefix), synthetic=synthetic) for each in listed]
        shards += sorted(of_source, key=lambda shard: (shard.place, shard.split))
    for name, count in Counter(shard.name for shard in shards).items():
        if count > 1:
            raise DataError(f"{path} has two shards called {name}; give their folders apart")
    unnamed = origins["train"].get(_UNNAMED, 0)
    notes = []
    if 0 < unnamed < len(shards):
        notes.append(f"{unnamed:,} of {len(shards):,} shards name no split and are trained on")
    if aside:
        notes.append(f"{aside:,} shards in other folders, named after no split, are not read")
    return FoundShards(
        "+".join(dict.fromkeys(names)),
        tuple(shards),
        len(sources),
        {split: ", ".join(counts) for split, counts in origins.items() if counts},
        tuple(notes),
    )


def is_remote(place: str) -> bool:
    """Whether `place` is a URL of anything but a file."""
    scheme = _SCHEME.match(place)
    return scheme is not None and scheme[0].lower() != "file://"


def _of_source(source: str) -> tuple[str, list[_Listed]]:
    if is_remote(source):
        listed = [
            _Listed(url, _base_of(url), *_split_of_one(_folder_of(url), _base_of(url)))
            for url in _expanded(source)
        ]
        return _folder_of(listed[0].place) or "shards", listed
    given = home_path(_without_scheme(source))
    listed = list(_in_folder(given) if given.is_dir() else _by_pattern(str(given)))
    if not listed:
        raise DataError(f"no shard at {source}; looked for .tar files, also in folders below")
    home = given if given.is_dir() else Path(min(each.place for each in listed)).parent
    return home.absolute().name, listed


def _shard(listed: _Listed, number: int, prefix: str) -> Shard:
    split, base = listed.split or "train", prefix + listed.base
    if is_remote(listed.place):
        return Shard(listed.place, split, base, number)
    path = existing(listed.place)
    state = path.stat()
    return Shard(str(path), split, base, number, state.st_size, state.st_mtime_ns, listed.sha256)


def _local(path: Path) -> str:
    """Absolute: a file whose name looks like a command or a URL stays a file."""
    return str(path.absolute())


def _without_scheme(source: str) -> str:
    from urllib.request import url2pathname  # here: it takes longer to import than all the rest

    return url2pathname(urlsplit(source).path) if source.lower().startswith("file://") else source


class _Listed(NamedTuple):
    """A shard's place and base name; the split that is said of it and by what; its SHA-256.

    `depth` counts the folders it is in, where none of them is named after a split.
    """

    place: str
    base: str
    split: str | None
    origin: str
    sha256: str | None = None
    depth: int = 0


def has_shards(folder: Path) -> bool:
    """Whether a folder is one of shards: a pack, or tars in it or a little below."""
    patterns = [f"{below}*{end}" for below in ("", "*/", "*/*/") for end in (".tar", *GZIPPED)]
    return (folder / PACK_FILE).exists() or any(any(folder.glob(p)) for p in patterns)


def _below(folder: Path, end: str) -> list[str]:
    return glob(f"**/*{end}", root_dir=folder, recursive=True)


def _in_folder(folder: Path) -> Iterator[_Listed]:
    if (folder / PACK_FILE).exists():
        yield from _in_pack(folder)
        return
    files = _below(folder, ".tar") or [f for end in GZIPPED for f in _below(folder, end)]
    for file in sorted(files):
        inside = Path(file).as_posix()
        split, origin = _split_said(inside)
        parts = inside.split("/")
        of_split = len(parts) > 1 and split_in(parts[0]) is not None
        depth = 0 if split_folder(inside) is not None else len(parts) - 1
        yield _Listed(_local(folder / file), "-".join(parts[of_split:]), split, origin, depth=depth)


def _in_pack(folder: Path) -> Iterator[_Listed]:
    for shard in read_pack(folder).shards:
        file = inside(folder, shard.name)
        size = file.stat().st_size if file.exists() else None
        if size != shard.bytes:
            seen = "is not there" if size is None else f"has {size} bytes"
            raise DataError(f"{file} {seen}, and {PACK_FILE} says {shard.bytes} bytes; {REMEDY}")
        yield _Listed(_local(file), file.name, shard.split, f"the record {PACK_FILE}", shard.sha256)


def _by_pattern(pattern: str) -> Iterator[_Listed]:
    for part in _expanded(pattern):
        files = sorted(glob(part))
        if not files:
            raise DataError(f"no shard at {part}" + (f", of {pattern}" if part != pattern else ""))
        for file in files:
            path = Path(file)
            yield _Listed(_local(path), path.name, *_split_of_one(path.parent.name, path.name))


def _expanded(pattern: str) -> Iterable[str]:
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise DataError(f"{pattern} is no brace range: {error}") from error


def _split_said(path: str) -> tuple[str | None, str]:
    """The split that a shard's folder says, else its name, and how; None when neither does."""
    if (found := split_folder(path)) is not None:
        return found[0], f"the folder {found[1]}"
    split = split_in(posixpath.basename(path))
    return split, _UNNAMED if split is None else "the names of shards"


def _split_of_one(folder: str, base: str) -> tuple[str | None, str]:
    """The same of a shard outside of any data set, whose folder may be called anything."""
    if (split := SPLIT_NAMES.get(folder.casefold())) is not None:
        return split, f"the folder {folder}"
    return _split_said(base)


def _tar_in(url: str) -> re.Match[str] | None:
    return next(reversed(list(_TAR_NAME.finditer(url))), None)


def _base_of(url: str) -> str:
    found = _tar_in(url)
    return found[1] if found else posixpath.basename(urlsplit(url).path) or url


def _folder_of(url: str) -> str:
    found = _tar_in(url)
    before = url[: found.start()] if found else posixpath.dirname(url)
    return re.split(r"[/\s'\"]", before.rstrip("/"))[-1] if "/" in before else ""
