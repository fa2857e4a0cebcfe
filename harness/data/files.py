"""The files of a data folder, loose or in archives, behind one list of names and one `read`.

Owns how bytes are found (names, sizes, checksums, zip handles per process); knows nothing of
captions, classes or pixels.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.errors import DataError
from harness.files import MAX_MEMBER_BYTES, home_path, too_large

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".avif", ".jp2", ".j2k"}
)
GZIPPED = (".tar.gz", ".tgz")


def is_gzipped(name: str) -> bool:
    """Whether a file's suffix is that of a compressed tar."""
    return name.lower().endswith(GZIPPED)


@dataclass(frozen=True)
class Entry:
    """Where the bytes of one file are.

    `member` is its name inside `archive`, if it is in one, and `offset` where it begins in a tar.
    """

    size: int
    crc: int | None = None
    archive: str | None = None
    member: str | None = None
    offset: int | None = None

    @property
    def stamp(self) -> str:
        """What a fingerprint says of the content: the size, and the checksum where it is known."""
        return str(self.size) if self.crc is None else f"{self.size}:{self.crc:08x}"


class FileTree:
    """Every file below a folder (and in the zips at its top), or of a single zip or tar.

    Names are relative with forward slashes; a zip's own name is no part of them, unless two files
    would share a name.  A zip's files that are beside it unpacked are not there twice.  Hidden
    files and the litter of archivers are left out.

    Attributes:
        folders: names of the folders, of empty ones too.
        notes: what was left out of the list, and what is linked to from elsewhere, a line each.
    """

    def __init__(self, root: Path, entries: Mapping[str, Entry] | None = None) -> None:
        """Raises DataError when `root` is not there or an archive cannot be read.

        Args:
            entries: the files, where they are known; None: those found at `root`.
        """
        self.root = root
        self.folders: set[str] = set()
        self.notes: list[str] = []
        self.entries: Mapping[str, Entry] = self._list() if entries is None else entries
        self._open: dict[str, zipfile.ZipFile] = {}
        self._owner = os.getpid()

    def _list(self) -> dict[str, Entry]:
        linked: list[str] = []
        whole = self.root.is_file()
        found = _list_archive(self.root) if whole else _list_folder(self.root, linked)
        self.notes += _line_of_links(self.root, linked)
        self.folders = {name for name, entry in found.items() if entry is None}
        entries = {name: entry for name, entry in found.items() if entry is not None}
        zips = [n for n in entries if "/" not in n and n.lower().endswith(".zip")]
        for archive in sorted(zips) if self.root.is_dir() else ():
            self._add_zip(entries, archive)
        return entries

    def _add_zip(self, entries: dict[str, Entry], archive: str) -> None:
        """Put the files of a zip beside the others, but for those that are there already."""
        members = {n: e for n, e in _list_archive(self.root / archive).items() if e is not None}
        unpacked = _unpacked(self.root, members, entries)
        if unpacked:
            which = "its" if len(unpacked) == len(members) else f"{len(unpacked):,} of its"
            self.notes.append(
                f"{archive}: {which} {len(members):,} files are beside it unpacked, and are not "
                "read from it"
            )
        for name, entry in members.items():
            if name not in unpacked:
                free = name not in entries
                entries[name if free else f"{posixpath.splitext(archive)[0]}/{name}"] = entry

    def add(self, name: str, entry: Entry) -> None:
        """Put a file beside those that were found."""
        assert isinstance(self.entries, dict)  # it was listed here
        self.entries[name] = entry

    def read(self, name: str, most: int = -1) -> bytes:
        """The bytes of a file; KeyError for an unknown name, OSError for a lost or damaged one.

        Args:
            most: of a file that is in no zip, no more from its beginning; -1: all.
        """
        entry = self.entries[name]
        size = entry.size if most < 0 else min(most, entry.size)
        if words := too_large("it has", size, MAX_MEMBER_BYTES):
            raise OSError(f"{name} is not read: {words}")
        if entry.archive is None or entry.member is None:
            with (self.root / name).open("rb", buffering=0 if most >= 0 else -1) as file:
                return file.read(most)
        if entry.offset is not None:
            with open(entry.archive, "rb") as opened:
                return read_at(opened, entry.offset, size, Path(entry.archive).name, name)
        try:
            return self._zip(entry.archive).read(entry.member)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise OSError(f"damaged in {Path(entry.archive).name}: {error}") from error

    def images(self) -> list[str]:
        """Names of the pictures, by suffix, sorted."""
        return sorted(name for name in self.entries if is_image(name))

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


def read_at(file: BinaryIO, offset: int, size: int, archive: str, member: str) -> bytes:
    """The bytes of a member, wherever `file` stands; OSError with both names if it ends before."""
    data = os.pread(file.fileno(), size, offset)
    if len(data) != size:
        raise OSError(f"{archive} ends within {member}")
    return data


def existing(path: str | Path) -> Path:
    """`path` with `~` expanded, made absolute; DataError when nothing is there."""
    found = home_path(path).absolute()
    if not found.exists():
        raise DataError(f"no data at {path}")
    return found


def _with_fewer_folders(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """Each name; then without the outermost folder, as long as that is one for all."""
    inside = {name: name for name in names}
    yield inside
    while len({rest.partition("/")[:2] for rest in inside.values()}) == 1:
        inside = {name: rest.partition("/")[2] for name, rest in inside.items()}
        if not all(inside.values()):
            return
        yield inside


def _unpacked(root: Path, members: Mapping[str, Entry], loose: Mapping[str, Entry]) -> set[str]:
    """The members of a zip that are loose files too, in its folders or without the outermost.

    Told by name and size, and by the checksum of a few of them.
    """
    for names in _with_fewer_folders(members):
        same = [
            (member, name)
            for member, name in names.items()
            if name in loose and loose[name].size == members[member].size
        ]
        tried = [same[0], same[len(same) // 2], same[-1]] if same else []
        if tried and all(_crc(root / name) == members[member].crc for member, name in tried):
            return {member for member, _ in same}
    return set()


def _crc(file: Path) -> int | None:
    return zlib.crc32(file.read_bytes()) if file.is_file() else None


def _line_of_links(root: Path, linked: list[str]) -> Iterator[str]:
    """A line on the links that lead out of the folder: they are read, as data that a user names."""
    home = root.resolve()
    out = [name for name in linked if not (root / name).resolve().is_relative_to(home)]
    if out:
        yield f"links that lead out of the folder are read: {len(out):,}, such as {out[0]}"


def _list_folder(root: Path, linked: list[str]) -> dict[str, Entry | None]:
    try:
        return dict(_walk(str(root), "", set(), linked))
    except OSError as error:
        raise DataError(f"cannot list {root}: {error.strerror or error}") from error


def _walk(
    folder: str, prefix: str, above: set[tuple[int, int]], linked: list[str]
) -> Iterator[tuple[str, Entry | None]]:
    """Files, and folders with None; what is a link is put into `linked` too."""
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
        if child.is_symlink():
            linked.append(name)
        if child.is_dir():
            yield name, None
            yield from _walk(child.path, name + "/", above | {identity}, linked)
        elif child.is_file():
            yield name, Entry(child.stat().st_size)


def _list_archive(archive: Path) -> dict[str, Entry | None]:
    """The files of a zip or tar, and its folders with None."""
    listed = _in_tar if archive.suffix.lower() == ".tar" else _in_zip
    return {
        name: entry
        for name, entry in listed(archive)
        if name and not any(map(_is_litter, name.split("/")))
    }


def _in_zip(archive: Path) -> Iterator[tuple[str, Entry | None]]:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(f"cannot read {archive} as a zip: {error}") from error
    for info in members:
        entry = Entry(info.file_size, info.CRC, str(archive), info.filename)
        yield info.filename.rstrip("/"), None if info.is_dir() else entry


def _in_tar(archive: Path) -> Iterator[tuple[str, Entry | None]]:
    try:
        with tarfile.open(archive, "r:") as opened:
            members = opened.getmembers()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"cannot read {archive} as a tar: {error}") from error
    for info in members:
        entry = Entry(info.size, None, str(archive), info.name, info.offset_data)
        if info.isdir() or info.isfile():
            yield info.name.removeprefix("./").rstrip("/"), None if info.isdir() else entry


def _is_litter(part: str) -> bool:
    return part.startswith(".") or part.casefold() in {"__macosx", "thumbs.db", "desktop.ini"}
