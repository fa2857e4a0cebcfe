"""The record beside a packed data set: what its shards hold, and what they were made from.

Owns the file's schema; neither reads nor writes a shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import DataError

PACK_FILE = "pack.json"
"""Written last: a folder that has it is whole."""
REMEDY = "bring that back, or give the command again that packed the data"
"""For a shard that is not the one on record."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PackedShard(_Record):
    """One tar file; `name` is its path within the folder."""

    name: str
    split: str
    samples: int
    bytes: int
    sha256: str


class Making(_Record):
    """All that decides the bytes of a pack besides the software named in it.

    Attributes:
        source, fingerprint, evaluation_fingerprint: the data set it is made from.
        size: pixels of the shortest side of what was larger; a smaller picture is as it was.
        shard_samples: in each shard but the last of a split.
        format, quality: of the resized pictures.
        max_pixels: a picture of more was left out.
        software: version of what resized and wrote them.
    """

    source: str
    fingerprint: str
    evaluation_fingerprint: str
    size: int
    shard_samples: int
    format: Literal["jpeg", "png"]
    quality: int
    max_pixels: int
    software: dict[str, str]


class Pack(_Record):
    """The whole record; `problems` are the samples left out, and why."""

    version: Literal[1] = 1
    made: Making
    shards: tuple[PackedShard, ...]
    resized: int
    kept: int
    """Pictures whose bytes are those of the source."""
    problems: tuple[tuple[str, str], ...]


def read_pack(folder: Path) -> Pack:
    """The record of a packed folder; DataError when it is none of this version."""
    file = folder / PACK_FILE
    try:
        return Pack.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{file} is no record of packed shards: {where} {first['msg']}") from None
