"""Every picture of a data set decoded once: what is usable of each shard, and why the rest is not.

Owns `python -m harness.data check` but its words and its command line.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from harness.data.account import FileRead, Problem
from harness.data.dataset import DataSet
from harness.data.duplicates import Content, Duplicates, duplicates_of
from harness.data.images import BadImage, decode
from harness.data.packed import PACK_FILE, read_pack
from harness.data.sources.shards import Shards, shard_of
from harness.data.tools.jobs import Chunk, Progress, chunks_of, samples_in, shared_out
from harness.files import sha256_of

_CHUNK = 256
"""Pictures that a process looks at in one go."""
_THIN = 20
"""Times as long as wide: a crop of the middle shows nearly nothing of such a picture."""


class _Looker(NamedTuple):
    data: DataSet
    max_pixels: int


class _Seen(NamedTuple):
    """Of a chunk: place and reason of what cannot be decoded, what is thin, contents of all."""

    faults: list[tuple[int, str]]
    thin: list[tuple[int, tuple[int, int]]]
    contents: list[Content | None]


@dataclass(frozen=True)
class Scan:
    """What was found.

    Attributes:
        files: the shards, with what of them can be used; else what was read of each file.
        bad: split -> picture -> why it cannot be decoded.
        problems: what the index left out, and shards that are not what their pack says.
        duplicates: pictures that are there more than once.
        notes: what is odd about pictures, a line each.
    """

    files: tuple[FileRead, ...]
    bad: dict[str, dict[str, str]]
    problems: tuple[Problem, ...]
    duplicates: Duplicates
    notes: tuple[str, ...]


def scan(data: DataSet, *, max_pixels: int, workers: int, progress: Progress) -> Scan:
    """Decode every picture of every split in `workers` processes.

    Args:
        progress: told how many pictures of how many have been looked at.

    Raises DataError as opening the data does.
    """
    data.prepare()
    chunks = chunks_of(data, _CHUNK)
    total = samples_in(chunks)
    found: dict[Chunk, _Seen] = {}
    with shared_out(_look, _Looker(data, max_pixels), chunks, workers) as each:
        for chunk, seen in each:
            found[chunk] = seen
            progress(samples_in(found), total)
    bad: dict[str, dict[str, str]] = defaultdict(dict)
    thin: list[str] = []
    contents: dict[str, list[Content | None]] = defaultdict(list)
    for chunk in chunks:  # in order, whoever was first
        images, seen = data.splits[chunk.split].images, found[chunk]
        for index, reason in seen.faults:
            bad[chunk.split][images[index]] = reason
        thin += [f"{images[index]}, {w:,} x {h:,}" for index, (h, w) in seen.thin]
        contents[chunk.split] += seen.contents
    problems = (*data.problems, *_wrong_in_pack(data))
    duplicates = duplicates_of(data, contents)
    return Scan(_files(data, bad), dict(bad), problems, duplicates, tuple(_notes(thin)))


def _look(looker: _Looker, chunk: Chunk) -> _Seen:
    images = looker.data.splits[chunk.split].images
    seen = _Seen([], [], [])
    for index in range(chunk.first, chunk.stop):
        content = None
        try:
            data = looker.data.read(images[index])
            content = len(data), zlib.crc32(data)
            height, width = decode(data, max_pixels=looker.max_pixels).shape[:2]
            if max(height, width) > _THIN * min(height, width):
                seen.thin.append((index, (height, width)))
        except (BadImage, OSError, KeyError) as error:
            seen.faults.append((index, str(error)))
        seen.contents.append(content)
    return seen


def _notes(thin: Sequence[str]) -> Iterator[str]:
    if thin:
        number = "1 picture is" if len(thin) == 1 else f"{len(thin):,} pictures are"
        yield (
            f"{number} more than {_THIN} times as long as wide, of which the evaluation sees the "
            f"square in the middle: {thin[0]}{' and others' if len(thin) > 1 else ''}"
        )


def _files(data: DataSet, bad: dict[str, dict[str, str]]) -> tuple[FileRead, ...]:
    if not isinstance(data, Shards):
        return data.account.files
    lost = Counter(shard_of(image) for of_split in bad.values() for image in of_split)
    return tuple(
        file
        if not lost[file.file]
        else replace(
            file,
            used=file.used - lost[file.file],
            reason=f"{file.rows - file.used + lost[file.file]:,} unusable",
        )
        for file in data.account.files
    )


def _wrong_in_pack(data: DataSet) -> list[Problem]:
    """Shards of a packed folder that hold other bytes than its record says."""
    if not isinstance(data, Shards):
        return []
    folders = {Path(s.place).parent.parent for s in data.shards if s.sha256 and not s.is_remote}
    problems = []
    for folder in sorted(folders):
        for shard in read_pack(folder).shards:
            if sha256_of(folder / shard.name) != shard.sha256:
                where = f"{folder.name}/{shard.name}"
                problems.append(Problem(where, f"is not the shard that {PACK_FILE} names"))
    return problems
