"""The files of a data folder, loose or inside zips, behind one list of names and one `read`.

Owns how bytes are found (names, sizes, checksums, zip handles per process); knows nothing of
captions, classes or pixels.
"""

from __future__ import annotations

import os
import posixpath
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError

_KINDS = "jpg jpeg jfif png webp gif bmp tif tiff ppm pgm pbm avif jp2"
IMAGE_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split(" "))
"""Of the formats that Pillow reads; one that its build lacks is a broken picture."""


@dataclass(frozen=True)
class Entry:
    """Where the bytes of one file are; `member` is its name inside `archive`, if it is in one."""

    size: int
    crc: int | None = None
    archive: str | None = None
    member: str | None = None

    @property
    def stamp(self) -> str:
        """What a fingerprint says of the content: the size, and the checksum where it is known."""
        return str(self.size) if self.crc is None else f"{self.size}:{self.crc:08x}"


class FileTree:
    """Every file below a folder (and in the zips at its top), or of a single zip.

    Names are relative with forward slashes; a zip's own name is no part of them, unless two files
    would share a name.  Hidden files and the litter of archivers are left out.
    """

    def __init__(self, root: Path) -> None:
        """Raises DataError when `root` is not there or a zip cannot be read."""
        self.root = root
        self.entries: Mapping[str, Entry] = _list_zip(root) if root.is_file() else _list(root)
        self._open: dict[str, zipfile.ZipFile] = {}
        self._owner = os.getpid()

    def read(self, name: str) -> bytes:
        """The bytes of a file; KeyError for an unknown name, OSError for a lost or damaged one."""
        entry = self.entries[name]
        if entry.archive is None or entry.member is None:
            return (self.root / name).read_bytes()
        try:
            return self._zip(entry.archive).read(entry.member)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise OSError(f"damaged in {Path(entry.archive).name}: {error}") from error

    def images(self) -> list[str]:
        """Names of the pictures, by suffix, sorted."""
        return sorted(name for name in self.entries if is_image(name))

    def top(self, suffixes: Iterable[str]) -> list[str]:
        """Names at the top of the tree that end in one of `suffixes`, sorted."""
        wanted = tuple(suffixes)
        return sorted(n for n in self.entries if "/" not in n and n.lower().endswith(wanted))

    def _zip(self, archive: str) -> zipfile.ZipFile:
        # A handle from before a fork shares its file offset with the parent: open one's own.
        if self._owner != os.getpid():
            self._open, self._owner = {}, os.getpid()
        if archive not in self._open:
            self._open[archive] = zipfile.ZipFile(archive)
        return self._open[archive]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}


def is_image(name: str) -> bool:
    """Whether a file's suffix is that of a picture."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES


def existing(path: str | Path) -> Path:
    """`path` with `~` expanded, made absolute; DataError when nothing is there."""
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise DataError(f"no data at {path}")
    return found


def _list(root: Path) -> dict[str, Entry]:
    try:
        entries = dict(_walk(str(root), "", set()))
    except OSError as error:
        raise DataError(f"cannot list {root}: {error.strerror or error}") from error
    for archive in sorted(n for n in entries if "/" not in n and n.lower().endswith(".zip")):
        for name, entry in _list_zip(root / archive).items():
            free = name not in entries
            entries[name if free else f"{posixpath.splitext(archive)[0]}/{name}"] = entry
    return entries


def _walk(folder: str, prefix: str, above: set[tuple[int, int]]) -> Iterator[tuple[str, Entry]]:
    here = os.stat(folder)
    identity = (here.st_dev, here.st_ino)
    if identity in above:  # a link back to a folder we are inside of
        return
    with os.scandir(folder) as found:
        children = sorted(found, key=lambda child: child.name)
    for child in children:
        name = prefix + child.name
        if _is_litter(child.name):
            continue
        if child.is_dir():
            yield from _walk(child.path, name + "/", above | {identity})
        elif child.is_file():
            yield name, Entry(child.stat().st_size)


def _list_zip(archive: Path) -> dict[str, Entry]:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(f"cannot read {archive} as a zip: {error}") from error
    return {
        info.filename: Entry(info.file_size, info.CRC, str(archive), info.filename)
        for info in members
        if not info.is_dir() and not any(map(_is_litter, info.filename.split("/")))
    }


def _is_litter(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"
