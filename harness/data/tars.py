"""One webdataset tar file: its members by key, its usable samples, and what is wrong with others.

The one place that reads tars; knows nothing of data sets, indexes or URLs.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from harness.data.account import Problem
from harness.data.captions import checked_caption, sample_captions
from harness.data.files import IMAGE_SUFFIXES, read_at
from harness.errors import DataError

IMAGE_FIELDS = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
CAPTION_FIELDS = ("json", "txt")
SYNTHETIC_FIELD = "syn.json"
MAX_TEXT_BYTES = 1 << 20
"""Of a member with captions; a longer one is refused before it is read."""
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"

ByKey = Mapping[str, Mapping[str, Sequence[tarfile.TarInfo]]]
"""Key -> field in lower case -> its members, keys in the order of their first wanted member."""


@dataclass(frozen=True)
class Sample:
    """A picture by its place in the tar, and its captions."""

    member: str
    offset: int
    size: int
    captions: tuple[str, ...]


class ReadShard(NamedTuple):
    """What is in a tar: usable samples in order, what is wrong with others, and what was skipped.

    `skipped` counts, by suffix, members whose key has neither a picture nor a caption.
    """

    samples: Sequence[Sample]
    problems: Sequence[Problem]
    skipped: Mapping[str, int]


def read_shard(path: Path, name: str | None = None, *, synthetic: bool = False) -> ReadShard:
    """The samples of a tar by key.

    The members of a key need not be neighbours.  Captions are those of `key.json` ("caption" or
    "captions", a text or a list), else the lines of `key.txt`.  Of a tar that is cut short or
    damaged, the samples before the damage are used, and one Problem names the shard.

    Args:
        name: of the shard in Problems; None: the file's.
        synthetic: captions are those of `key.syn.json` ("syn_text"), as DataCompDR has them.
    """
    name = name or path.name
    captions = (SYNTHETIC_FIELD,) if synthetic else CAPTION_FIELDS
    archives, problems = read_members(path, name)
    samples: list[Sample] = []
    skipped: Counter[str] = Counter()
    wanted = {*IMAGE_FIELDS, *captions}
    with path.open("rb") as file:
        for members in archives:
            for key, fields in by_key(members, wanted).items():
                if not wanted & fields.keys():
                    skipped.update({f".{field}": len(found) for field, found in fields.items()})
                    continue
                try:
                    chosen = {f: found for f, found in fields.items() if f in wanted}
                    samples.append(_sample(chosen, file, name, key, problems))
                except DataError as error:
                    problems.append(Problem(f"{name}/{key}", str(error)))
    return ReadShard(samples, problems, skipped)


# --------------------------------------------------------------------------- members


def read_members(path: Path, name: str) -> tuple[list[list[tarfile.TarInfo]], list[Problem]]:
    """The headers of the files in a tar, a list for each archive that `cat` has joined in it.

    What is cut short or damaged ends the last list, and is a Problem of the shard `name`.
    """
    archives: list[list[tarfile.TarInfo]] = []
    try:
        with path.open("rb") as file:
            start: int | None = 0
            while start is not None:
                archives.append([])
                start = _read_archive(file, start, archives[-1])
    except (tarfile.TarError, OSError, EOFError) as error:
        return archives, [Problem(name, f"cut short or damaged: {error}")]
    except DataError as error:
        return archives, [Problem(name, str(error))]
    return archives, []


def _read_archive(file: BinaryIO, start: int, members: list[tarfile.TarInfo]) -> int | None:
    """Add the files of the archive that begins at `start`; where the next begins, if one does.

    Raises DataError where tarfile takes damage, or no more bytes, for the end of an archive.
    """
    size = file.seek(0, 2)
    file.seek(start)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"{member.name} is not whole")
                if member.isfile():
                    members.append(member)
            end = tar.offset
    except tarfile.ReadError:
        file.seek(0)
        if file.read(2) == _GZIP:
            raise DataError("compressed: a tar.gz is read from local disk alone") from None
        if start == 0 or members:
            raise
        raise DataError(f"damaged at byte {start}: what follows is not read") from None
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise DataError(f"cut short: no end mark after byte {end}")
    if block.strip(b"\0"):
        raise DataError(f"damaged at byte {end}: what follows is not read")
    return _next_archive(file)


def _next_archive(file: BinaryIO) -> int | None:
    """Where the zeros end that `file` stands in; None where nothing follows them."""
    at = file.tell()
    while chunk := file.read(_CHUNK):
        rest = chunk.lstrip(b"\0")
        if rest:
            zeros = len(chunk) - len(rest)
            return at + zeros - zeros % tarfile.BLOCKSIZE
        at += len(chunk)
    return None


def by_key(members: Sequence[tarfile.TarInfo], wanted: Collection[str]) -> ByKey:
    """The members of one archive by key and field.

    webdataset's convention: the key ends at the first dot of the base name.  But a key that holds
    dots itself (`img.v1.3.jpg`) ends before its field, if that is among `wanted`, unless the
    shorter key has a picture of its own and this is a further field of it (`0001.depth.png`).
    """
    short: dict[str, dict[str, list[tarfile.TarInfo]]] = defaultdict(lambda: defaultdict(list))
    dotted: dict[tuple[str, str], dict[str, list[tarfile.TarInfo]]] = {}
    for member, folder, base in _named(members):
        stem, _, rest = base.partition(".")
        key, field = posixpath.join(folder, stem), rest.lower()
        last = field.rpartition(".")[2]
        if field in wanted or last not in wanted:
            short[key][field].append(member)
        else:
            longer = posixpath.join(folder, base[: -len(last) - 1])
            dotted.setdefault((key, longer), defaultdict(list))[last].append(member)
    found = {key: dict(fields) for key, fields in short.items()}
    for (key, longer), fields in dotted.items():
        is_whole = fields.keys() & IMAGE_FIELDS and fields.keys() - IMAGE_FIELDS
        if is_whole or not short.get(key, {}).keys() & IMAGE_FIELDS:
            found[longer] = dict(fields)
    return dict(sorted(found.items(), key=lambda item: _first(item[1], wanted)))


def _named(members: Sequence[tarfile.TarInfo]) -> Iterator[tuple[tarfile.TarInfo, str, str]]:
    """Each member with its folder and its base name, but hidden ones."""
    for member in members:
        folder, base = posixpath.split(member.name)
        if not base.startswith("."):
            yield member, folder, base


def _first(fields: Mapping[str, Sequence[tarfile.TarInfo]], wanted: Collection[str]) -> int:
    places = [found[0].offset_data for field, found in fields.items() if field in wanted]
    return min(places, default=0)


# --------------------------------------------------------------------------- one sample


def _sample(
    fields: Mapping[str, Sequence[tarfile.TarInfo]],
    file: BinaryIO,
    shard: str,
    key: str,
    problems: list[Problem],
) -> Sample:
    """The sample, if a picture and a caption are left; a bad caption among good ones is told."""
    images = [
        member for field, found in fields.items() if field in IMAGE_FIELDS for member in found
    ]
    images.sort(key=lambda member: member.offset_data)
    for member in images[1:]:
        problems.append(Problem(f"{shard}/{member.name}", "a second picture of its key"))
    for field in sorted(fields.keys() - IMAGE_FIELDS):
        for member in fields[field][1:]:
            problems.append(Problem(f"{shard}/{member.name}", "a second caption of its key"))
    if not images:
        raise DataError("no picture")
    captions = _checked(_given(fields, file, shard), f"{shard}/{key}", problems)
    image = images[0]
    return Sample(image.name, image.offset_data, image.size, captions)


def _given(
    fields: Mapping[str, Sequence[tarfile.TarInfo]], file: BinaryIO, shard: str
) -> list[object]:
    texts: dict[str, str] = {}
    too_long = ""
    for field in sorted(fields.keys() - IMAGE_FIELDS):
        for member in fields[field][:1]:
            if member.size > MAX_TEXT_BYTES:
                too_long = f"caption of {member.size} bytes, {MAX_TEXT_BYTES} are allowed"
                continue
            data = read_at(file, member.offset_data, member.size, shard, member.name)
            texts[field] = data.decode("utf-8-sig", "surrogateescape")
    if not texts:
        raise DataError(too_long or "no caption")
    if SYNTHETIC_FIELD in texts:
        return sample_captions(texts[SYNTHETIC_FIELD], None, names=("syn_text",))
    return sample_captions(texts.get("json"), texts.get("txt"))


def _checked(given: Sequence[object], where: str, problems: list[Problem]) -> tuple[str, ...]:
    captions, faults = [], []
    for number, caption in enumerate(given, 1):
        try:
            captions.append(checked_caption(caption))
        except DataError as error:
            faults.append((number, str(error)))
    if not captions:
        raise DataError(faults[0][1] if faults else "no caption")
    problems += [Problem(f"{where}: caption {number}", reason) for number, reason in faults]
    return tuple(captions)
