"""A data set made into shards of small pictures, once, so that no sweep decodes large ones again.

Owns the bytes of a pack: the same data, settings and software give the same bytes, in any number of
processes and after any interruption.  A picture no larger than asked for keeps its own bytes, so
what is trained from the pack equals, bit for bit, what is trained from pictures of that size.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import PIL
from PIL import Image, features
from pydantic import ValidationError

from harness.data.dataset import DataSet
from harness.data.images import BadImage, Encoded, Pixels
from harness.data.packed import PACK_FILE, Making, Pack, PackedShard, read_pack
from harness.data.tools.jobs import Chunk, Progress, chunks_of, samples_in, shared_out
from harness.data.tools.summary import rows_lost
from harness.data.verified import is_content
from harness.errors import NOT_WHOLE, DataError, RecordError
from harness.files import drop_leftovers, inside, sha256_of, write_atomic

QUALITY = 95
_UNFINISHED = ".parts"
#: Formats whose bytes are kept, and the field that each has in a shard.
_FIELDS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


class TooManyBad(DataError):
    """More samples are unusable than is allowed: the shards are there, and no record of them."""

    exit_code = 3


class _Packer(NamedTuple):
    data: DataSet
    making: Making
    out: Path


class _Made(NamedTuple):
    """What is on record of a finished part."""

    shard: PackedShard | None
    resized: int
    kept: int
    problems: list[tuple[str, str]]


def making_of(
    data: DataSet,
    *,
    size: int,
    shard_samples: int,
    form: Literal["jpeg", "png"],
    max_pixels: int,
) -> Making:
    """The settings of a pack of `data`, with the software of this machine."""
    return Making(
        source=data.name,
        fingerprint=data.fingerprint,
        evaluation_fingerprint=data.evaluation_fingerprint,
        size=size,
        shard_samples=shard_samples,
        format=form,
        quality=QUALITY,
        max_pixels=max_pixels,
        software={
            "pillow": PIL.__version__,
            "libjpeg_turbo": str(features.version("libjpeg_turbo")),
        },
    )


def pack(
    data: DataSet,
    making: Making,
    out: Path,
    *,
    cache: Path,
    max_bad_fraction: float,
    workers: int,
    progress: Progress,
) -> Pack:
    """Write the shards of all splits below `out`, and their record last.

    Goes on where it was cut off; a whole pack of the same making is left as it is, and one that
    lacks a shard, or has another than its record says, is made again.

    Args:
        cache: where it is kept which shards were compared with their checksums.
        progress: told how many pictures of how many are packed.

    Raises DataError if `out` holds anything else, TooManyBad if too many samples cannot be used.
    """
    unfinished = _begin(out, making, cache)
    if unfinished is None:
        return read_pack(out)
    data.prepare()
    for folder in (out, unfinished, *(out / split for split in data.splits)):
        drop_leftovers(folder)
    parts = chunks_of(data, making.shard_samples)
    made = {part: found for part in parts if (found := _read_part(out, part)) is not None}
    missing = [part for part in parts if part not in made]
    with shared_out(_make_part, _Packer(data, making, out), missing, workers) as each:
        for part, result in each:
            made[part] = result
            progress(samples_in(made), samples_in(parts))
    whole = _joined(making, data, [made[part] for part in parts])
    _bound(data, whole, max_bad_fraction)
    write_atomic(out / PACK_FILE, whole.model_dump_json(indent=1).encode())
    shutil.rmtree(unfinished)
    return whole


def _begin(out: Path, making: Making, cache: Path) -> Path | None:
    """The folder of unfinished work; None if all is there."""
    unfinished = out / _UNFINISHED
    settings = unfinished / "making.json"
    whole = read_pack(out) if (out / PACK_FILE).exists() else None
    if whole is not None:
        before: Making | None = whole.made
    elif settings.exists():
        before = _making_in(settings)
    elif out.exists() and any(entry.name != _UNFINISHED for entry in out.iterdir()):
        raise DataError(f"{out} is not empty and holds no packed shards; name another folder")
    else:
        before = None
        write_atomic(settings, making.model_dump_json(indent=1).encode())
    if before is not None and before != making:
        raise DataError(f"{out} holds a pack of another making ({_differences(before, making)})")
    if whole is not None and all(_is_whole(out, shard, cache) for shard in whole.shards):
        return None
    if whole is not None:
        write_atomic(settings, making.model_dump_json(indent=1).encode())
        (out / PACK_FILE).unlink()
    return unfinished


def _is_whole(out: Path, shard: PackedShard, cache: Path) -> bool:
    try:
        return is_content(inside(out, shard.name), shard.sha256, cache)
    except FileNotFoundError:
        return False


def _making_in(settings: Path) -> Making:
    try:
        return Making.model_validate_json(settings.read_bytes())
    except ValidationError:
        raise DataError(f"{settings} is damaged; remove {settings.parent}") from None


def _differences(before: Making, after: Making) -> str:
    old, new = before.model_dump(), after.model_dump()
    return ", ".join(
        f"{name}: {str(old[name])[:40]}, now {str(new[name])[:40]}"
        for name in old
        if old[name] != new[name]
    )


def _joined(making: Making, data: DataSet, parts: Sequence[_Made]) -> Pack:
    indexed = [(problem.where, problem.reason) for problem in data.problems]
    found = [problem for part in parts for problem in part.problems]
    return Pack(
        made=making,
        shards=tuple(part.shard for part in parts if part.shard is not None),
        resized=sum(part.resized for part in parts),
        kept=sum(part.kept for part in parts),
        problems=tuple((_printable(where), _printable(why)) for where, why in [*indexed, *found]),
    )


def _bound(data: DataSet, whole: Pack, max_bad_fraction: float) -> None:
    if not whole.shards:
        raise DataError(f"no usable sample in {data.name}: {whole.problems[0]}")
    lost, seen = left_out(data, whole)
    if lost / max(1, seen) > max_bad_fraction:
        where, why = whole.problems[0]
        raise TooManyBad(
            f"{lost:,} of {seen:,} samples cannot be used, more than "
            f"--max-bad-fraction {max_bad_fraction:g} allows; the first: {where}: {why}"
        )


def left_out(data: DataSet, whole: Pack) -> tuple[int, int]:
    """Rows of `data` that its pack has not, and all there are, as `check` counts them."""
    bad = [where for where, _ in whole.problems[len(data.problems) :]]
    known = {_printable(image): split for split, s in data.splits.items() for image in s.images}
    lost = len(data.problems)
    for split in data.splits:
        lost += sum(rows_lost(data, split, [x for x in bad if known.get(x) == split]).values())
    return lost, max(data.indexed, lost)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


# --------------------------------------------------------------------------- one shard


def _part_file(unfinished: Path, part: Chunk) -> Path:
    return unfinished / f"{part.split}-{part.number:06d}.json"


def _read_part(out: Path, part: Chunk) -> _Made | None:
    """What is on record of a part; None unless its shard is as it was then."""
    try:
        record = json.loads(_part_file(out / _UNFINISHED, part).read_bytes())
        shard = None if record["shard"] is None else PackedShard(**record["shard"])
        if shard is not None and sha256_of(inside(out, shard.name)) != shard.sha256:
            return None
        problems = [(where, why) for where, why in record["problems"]]
        return _Made(shard, record["resized"], record["kept"], problems)
    except (OSError, RecordError, *NOT_WHOLE):
        return None


def _make_part(packer: _Packer, part: Chunk) -> _Made:
    content, made = _packed(packer.data, packer.making, part)
    if made.shard is not None:
        write_atomic(packer.out / made.shard.name, content)
    record = {**made._asdict(), "shard": made.shard and made.shard.model_dump()}
    write_atomic(_part_file(packer.out / _UNFINISHED, part), json.dumps(record).encode("ascii"))
    return made


def _packed(data: DataSet, making: Making, part: Chunk) -> tuple[bytes, _Made]:
    """The tar file of a part, and what is to be said of it."""
    split = data.splits[part.split]
    file = io.BytesIO()
    problems: list[tuple[str, str]] = []
    kept = samples = 0
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for index in range(part.first, part.stop):
            name = split.images[index]
            try:
                field, content, is_kept = _small(data.read(name), making)
            except (BadImage, OSError, KeyError) as error:
                problems.append((name, str(error)))
                continue
            about = {"captions": split.captions[index], "source": name.partition("@")[0]}
            _add(tar, f"{index:09d}.{field}", content)
            _add(tar, f"{index:09d}.json", json.dumps(about).encode("ascii"))
            samples += 1
            kept += is_kept
    whole = file.getvalue()
    shard = PackedShard(
        name=f"{part.split}/{part.number:06d}.tar",
        split=part.split,
        samples=samples,
        bytes=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
    )
    return whole, _Made(shard if samples else None, samples - kept, kept, problems)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # no owner, no time: the bytes depend on nothing else
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _small(data: bytes, making: Making) -> tuple[str, bytes, bool]:
    """Field, bytes, and whether they are the given ones, of a picture of the wanted size."""
    picture = Encoded(data, max_pixels=making.max_pixels)
    pixels = picture.pixels()  # also of one that is kept: what cannot be decoded is not packed
    if min(picture.width, picture.height) <= making.size:
        if picture.format in _FIELDS:
            return _FIELDS[picture.format], data, True
        return "png", _encoded(Image.fromarray(pixels), "png"), False
    field = "jpg" if making.format == "jpeg" else "png"
    return field, _encoded(_resized(pixels, making.size), making.format), False


def _resized(pixels: Pixels, size: int) -> Image.Image:
    height, width = pixels.shape[:2]
    by = size / min(height, width)
    shape = max(size, round(width * by)), max(size, round(height * by))
    return Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC)


def _encoded(picture: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    if form == "jpeg":
        picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
    else:
        picture.save(file, "PNG")
    return file.getvalue()
