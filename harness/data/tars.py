"""One webdataset tar file: its members by key, its usable samples, and what is wrong with others.

The one place that reads tars; knows nothing of data sets, indexes or URLs.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.data.account import Problem
from harness.data.captions import checked_caption
from harness.errors import DataError

IMAGE_FIELDS = frozenset({"jpg", "jpeg", "png", "webp"})
CAPTION_FIELDS = ("txt", "json")
MAX_TEXT_BYTES = 1 << 20
"""Of a member with captions; a longer one is refused before it is read."""


@dataclass(frozen=True)
class Sample:
    """A picture by its place in the tar, and its captions."""

    member: str
    offset: int
    size: int
    captions: tuple[str, ...]


@dataclass
class _Parts:
    """What one key has gathered; `text` is that of the preferred field."""

    image: tarfile.TarInfo | None = None
    text: str | DataError | None = None
    field: str = ""


def read_shard(path: Path, name: str | None = None) -> tuple[list[Sample], list[Problem]]:
    """The usable samples of a tar by key, in order, and what is wrong with the others.

    The members of a key need not be neighbours.  Captions are those of `key.txt` (one), else of
    `key.json` ("caption", or a list as "caption" or "captions").  Of a tar that is cut short or
    damaged, the samples before the damage are used, and one Problem names the shard.

    Args:
        name: of the shard in Problems; None: the file's.
    """
    name = name or path.name
    parts: dict[str, _Parts] = {}
    problems: list[Problem] = []
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for key, field, member in keyed(tar):
                if field in IMAGE_FIELDS or field in CAPTION_FIELDS:
                    if member.offset_data + member.size > size:
                        raise tarfile.ReadError(f"{member.name} is not whole")
                    fault = _add_member(tar, member, field, parts.setdefault(key, _Parts()))
                    if fault:
                        problems.append(Problem(f"{name}/{member.name}", fault))
            end = tar.offset
    except (tarfile.TarError, OSError, EOFError) as error:
        problems.append(Problem(name, f"cut short or damaged: {error}"))
    else:
        problems += _check_end(path, name, end)
    samples = []
    for key, gathered in parts.items():
        where = f"{name}/{key}"
        try:
            samples.append(_sample(gathered, where, problems))
        except DataError as error:
            problems.append(Problem(where, str(error)))
    return samples, problems


def keyed(tar: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, field in lower case, and header of each file of a tar, in order.

    webdataset's convention: the key ends at the first dot of the base name.
    """
    for member in tar:
        folder, base = posixpath.split(member.name)
        stem, _, field = base.partition(".")
        if member.isfile() and stem:
            yield posixpath.join(folder, stem), field.lower(), member


def read_at(file: BinaryIO, offset: int, size: int, shard: str, member: str) -> bytes:
    """The bytes of a member by one seek; OSError, with both names, if the shard ends before."""
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise OSError(f"{shard} ends within {member}")
    return data


def _add_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, field: str, gathered: _Parts
) -> str | None:
    """Put a member with its key; the reason, if it is one too many."""
    if field in IMAGE_FIELDS:
        if gathered.image is not None:
            return "a second picture of its key"
        gathered.image = member
    elif field == gathered.field:
        return "a second caption of its key"
    elif gathered.field != "txt":
        gathered.text, gathered.field = _text(tar, member), field
    return None


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str | DataError:
    if member.size > MAX_TEXT_BYTES:
        return DataError(f"caption of {member.size} bytes, {MAX_TEXT_BYTES} are allowed")
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read().decode("utf-8-sig", "surrogateescape")


def _check_end(path: Path, name: str, end: int) -> list[Problem]:
    """tarfile takes a damaged header, or no more bytes, for the end of an archive; tell them."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        return [Problem(name, f"cut short: no end mark after byte {end}")]
    if block.strip(b"\0"):
        return [Problem(name, f"damaged at byte {end}: what follows is not read")]
    return []


def _sample(parts: _Parts, where: str, problems: list[Problem]) -> Sample:
    """The sample, if a picture and a caption are left; a bad caption among good ones is told."""
    if parts.image is None:
        raise DataError("no picture")
    if parts.text is None:
        raise DataError("no caption")
    if isinstance(parts.text, DataError):
        raise parts.text
    given = [parts.text] if parts.field == "txt" else _captions_in(parts.text)
    captions, faults = [], []
    for number, caption in enumerate(given, 1):
        try:
            captions.append(checked_caption(caption))
        except DataError as error:
            faults.append((number, str(error)))
    if not captions:
        raise DataError(faults[0][1] if faults else "no caption")
    problems += [Problem(f"{where}: caption {number}", reason) for number, reason in faults]
    image = parts.image
    return Sample(image.name, image.offset_data, image.size, tuple(captions))


def _captions_in(text: str) -> Iterable[object]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"caption is not JSON: {error}") from error
    if not isinstance(tree, dict) or not ("caption" in tree or "captions" in tree):
        raise DataError('no "caption" in its JSON')
    given = tree["captions"] if "captions" in tree else tree["caption"]
    return given if isinstance(given, list) else [given]
