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

from harness.data.classnames import NAMES_FILE, TEMPLATES_FILE, lines_of, text_of
from harness.data.files import Entry, FileTree
from harness.data.tars import IMAGE_FIELDS, by_key, read_at, read_members
from harness.errors import DataError

COUNT_FILE = "nshards.txt"
_PROBED = 20
"""Members of a tar that are looked at for what kind of set it is of."""


@dataclass(frozen=True)
class Export:
    """The samples of an export in order.

    Attributes:
        files: a picture a sample, called `0.tar/key`.
        targets: the text of each sample's `.cls` or `.txt`.
        names, templates: of the classes, where they lie beside the tars.
    """

    files: FileTree
    targets: list[str]
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


def read_export(place: Path, target: str) -> Export:
    """The pictures of an export with the texts of the field `target` (`cls` or `txt`).

    Raises DataError when a shard is missing or torn, or a sample lacks one of the two.
    """
    entries: dict[str, Entry] = {}
    targets: list[str] = []
    home = _home(place)
    for shard in _shards(place):
        for key, image, text in _samples(shard, target):
            entries[f"{shard.name}/{key}"] = image
            targets.append(text)
    texts = {
        name: lines_of(text_of(found))
        for name in (NAMES_FILE, TEMPLATES_FILE)
        if (found := next((p / name for p in (home, home.parent) if (p / name).is_file()), None))
    }
    templates = texts.get(TEMPLATES_FILE)
    tree = FileTree(home, entries)
    return Export(
        tree, targets, texts.get(NAMES_FILE), None if templates is None else tuple(templates)
    )


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


def _samples(shard: Path, target: str) -> Iterator[tuple[str, Entry, str]]:
    """Key, picture and target of each sample; DataError when one lacks either."""
    archives, problems = read_members(shard, shard.name)
    if problems:
        raise DataError(f"{shard} cannot be read: {problems[0].reason}")
    with shard.open("rb") as file:
        for members in archives:
            for key, fields in by_key(members, {*IMAGE_FIELDS, target}).items():
                image, text = _last(fields, IMAGE_FIELDS), _last(fields, {target})
                if image is not None and text is not None:
                    where = image.name, image.offset_data
                    entry = Entry(image.size, None, str(shard), *where)
                    data = read_at(file, text.offset_data, text.size, shard.name, text.name)
                    yield key, entry, _decoded(data, shard)
                elif image is not None or text is not None:
                    missing = "picture" if image is None else f".{target}"
                    raise DataError(f"{shard}: sample {key} has no {missing}")


def _last(
    fields: Mapping[str, Sequence[tarfile.TarInfo]], wanted: Collection[str]
) -> tarfile.TarInfo | None:
    found = [member for field, members in fields.items() if field in wanted for member in members]
    return max(found, key=lambda member: member.offset_data, default=None)


def _decoded(data: bytes, shard: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{shard} cannot be read: {error}") from error
