"""Every picture of a data set decoded once: what is usable of each shard, and why the rest is not.

Owns `python -m harness.data check` but its words and its command line.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from harness.data.account import FileRead, Problem
from harness.data.dataset import DataSet
from harness.data.images import BadImage, decode
from harness.data.packed import PACK_FILE, read_pack
from harness.data.sources.shards import Shards, shard_of
from harness.data.tools.jobs import Chunk, Progress, chunks_of, samples_in, shared_out
from harness.files import sha256_of

_CHUNK = 256
"""Pictures that a process looks at in one go."""


class _Looker(NamedTuple):
    data: DataSet
    max_pixels: int


@dataclass(frozen=True)
class Scan:
    """What was found.

    Attributes:
        files: the shards, with what of them can be used; else what was read of each file.
        bad: split -> picture -> why it cannot be decoded.
        problems: what the index left out, and shards that are not what their pack says.
    """

    files: tuple[FileRead, ...]
    bad: dict[str, dict[str, str]]
    problems: tuple[Problem, ...]


def scan(data: DataSet, *, max_pixels: int, workers: int, progress: Progress) -> Scan:
    """Decode every picture of every split in `workers` processes.

    Args:
        progress: told how many pictures of how many have been looked at.

    Raises DataError as opening the data does.
    """
    data.prepare()
    chunks = chunks_of(data, _CHUNK)
    total = samples_in(chunks)
    found: dict[Chunk, list[tuple[int, str]]] = {}
    with shared_out(_look, _Looker(data, max_pixels), chunks, workers) as each:
        for chunk, faults in each:
            found[chunk] = faults
            progress(samples_in(found), total)
    bad: dict[str, dict[str, str]] = defaultdict(dict)
    for chunk in chunks:  # in order, whoever was first
        for index, reason in found[chunk]:
            bad[chunk.split][data.splits[chunk.split].images[index]] = reason
    problems = (*data.problems, *_wrong_in_pack(data))
    return Scan(_files(data, bad), dict(bad), problems)


def _look(looker: _Looker, chunk: Chunk) -> list[tuple[int, str]]:
    """Place and reason of the pictures of a chunk that cannot be decoded."""
    images = looker.data.splits[chunk.split].images
    faults = []
    for index in range(chunk.first, chunk.stop):
        try:
            decode(looker.data.read(images[index]), max_pixels=looker.max_pixels)
        except (BadImage, OSError, KeyError) as error:
            faults.append((index, str(error)))
    return faults


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
