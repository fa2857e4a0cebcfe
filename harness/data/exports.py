"""The layout in which CLIP_benchmark exports a test set: numbered tars, a sample a key.

Owns `test/nshards.txt`, `test/0.tar` and so on, and the lists of names and prompts beside them.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from harness.data.classnames import NAMES_FILE, TEMPLATES_FILE, lines_of, text_of
from harness.data.files import Entry, FileTree, read_at
from harness.data.tars import IMAGE_FIELDS, MAX_TEXT_BYTES, by_key, read_members
from harness.errors import DataError

COUNT_FILE = "nshards.txt"
_PROBED = 20
"""Members of a tar that are looked at for what kind of set it is of."""


@dataclass(frozen=True)
class Export:
    """The samples of an export in order.

    Attributes:
        files: a picture a sample, called `0.tar/key`.
        texts: of each sample, field (`cls`, `json`, `txt`) -> what it holds.
        names, templates: of the classes, where they lie beside the tars.
    """

    files: FileTree
    texts: list[dict[str, str]]
    names: list[str] | None
    templates: tuple[str, ...] | None


def is_export(place: Path) -> bool:
    """Whether samples of an export are at a place: its root, its `test`, or one labelled tar."""
    return (place.is_dir() and (_home(place) / COUNT_FILE).is_file()) or has_labels(place)


def has_labels(place: Path) -> bool:
    """Whether the tars at a place have a class for each picture (`.cls`)."""
    is_tar = place.is_file() and place.suffix.lower() == ".tar"
    shards = sorted(_home(place).glob("*.tar")) if place.is_dir() else [place] * is_tar
    return bool(shards) and _labelled(shards[0])


def read_export(place: Path, *wanted: str) -> Export:
    """The pictures of an export with the texts of the fields `wanted` (`cls`; `json` and `txt`).

    Raises DataError when a shard is missing or torn, or a sample lacks its picture or all texts.
    """
    entries: dict[str, Entry] = {}
    texts: list[dict[str, str]] = []
    home = _home(place)
    for shard in _shards(place):
        for key, image, of_sample in _samples(shard, wanted):
            entries[f"{shard.name}/{key}"] = image
            texts.append(of_sample)
    lists = {
        name: lines_of(text_of(found))
        for name in (NAMES_FILE, TEMPLATES_FILE)
        if (found := next((p / name for p in (home, home.parent) if (p / name).is_file()), None))
    }
    templates = lists.get(TEMPLATES_FILE)
    prompts = None if templates is None else tuple(templates)
    return Export(FileTree(home, entries), texts, lists.get(NAMES_FILE), prompts)


def _home(place: Path) -> Path:
    """The folder of the shards."""
    if place.is_file():
        return place.parent
    inner = place / "test"
    return inner if (inner / COUNT_FILE).is_file() or any(inner.glob("*.tar")) else place


def _shards(place: Path) -> list[Path]:
    """The tars in the order of their numbers: those that are counted, or else those there are."""
    if place.is_file():
        return [place]
    home = _home(place)
    count = home / COUNT_FILE
    if not count.is_file():
        return sorted(home.glob("*.tar"), key=lambda file: _number(file.stem))
    text = text_of(count).strip()
    if not text.isdecimal() or text == "0":
        raise DataError(f"{count} holds {text[:20]!r}, not a number of shards")
    shards = [home / f"{i}.tar" for i in range(int(text))]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise DataError(f"{home} lacks {len(absent)} of {len(shards)} shards, such as {absent[0]}")
    return shards


def _number(stem: str) -> tuple[int, str]:
    digits = re.search(r"(\d+)$", stem)
    return (int(digits[1]) if digits else -1), stem


def _labelled(shard: Path) -> bool:
    try:
        with tarfile.open(shard, "r:") as tar:
            return any(member.name.lower().endswith(".cls") for member in islice(tar, _PROBED))
    except (tarfile.TarError, OSError, EOFError):
        return False


def _samples(shard: Path, wanted: Sequence[str]) -> Iterator[tuple[str, Entry, dict[str, str]]]:
    """Key, picture and texts of each sample; DataError when one lacks either."""
    archives, problems = read_members(shard, shard.name)
    if problems:
        raise DataError(f"{shard} cannot be read: {problems[0].reason}")
    with shard.open("rb") as file:
        for members in archives:
            for key, fields in by_key(members, {*IMAGE_FIELDS, *wanted}).items():
                image = _last(fields, IMAGE_FIELDS)
                texts = {f: found for f in wanted if (found := _last(fields, {f})) is not None}
                if image is not None and texts:
                    entry = Entry(image.size, None, str(shard), image.name, image.offset_data)
                    yield key, entry, {f: _text(file, m, shard) for f, m in texts.items()}
                elif image is not None or texts:
                    missing = "picture" if image is None else f".{wanted[-1]}"
                    raise DataError(f"{shard}: sample {key} has no {missing}")


def _last(
    fields: Mapping[str, Sequence[tarfile.TarInfo]], wanted: Collection[str]
) -> tarfile.TarInfo | None:
    found = [member for field, members in fields.items() if field in wanted for member in members]
    return max(found, key=lambda member: member.offset_data, default=None)


def _text(file: BinaryIO, member: tarfile.TarInfo, shard: Path) -> str:
    """The text of a member; bytes that are not UTF-8 stay in it as lone surrogates."""
    if member.size > MAX_TEXT_BYTES:
        raise DataError(
            f"{shard}: {member.name} has {member.size:,} bytes, {MAX_TEXT_BYTES:,} are allowed"
        )
    data = read_at(file, member.offset_data, member.size, shard.name, member.name)
    return data.decode("utf-8-sig", "surrogateescape")
