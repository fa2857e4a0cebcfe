"""What a teacher made of a data set's training samples, stored by view and mapped into memory.

A view is an epoch's draw of each sample: its caption and its crop, functions of the seed, the epoch
and the sample, so that nothing of them is stored.  Owns the files of a store, and what tells one
store from another; knows no model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from harness.config import Data, content_key
from harness.data.verified import keep_json, kept_json, kept_with_files
from harness.errors import ConfigError
from harness.files import drop_leftovers, sha256_of, write_atomic

PART_SAMPLES = 8_192
"""Samples of a view in one file."""
ABOUT = "views.json"
"""Written last: a folder that has it is whole."""
_TYPE = np.dtype("<f2")
_VERSION = 1

Rows = npt.NDArray[np.float16]
"""(N, 2, D): the embedding of the picture and that of the caption; NaN of an unusable sample."""


@dataclass(frozen=True)
class Stored:
    """All that decides what a store holds, but for the number of its views.

    Attributes:
        teacher: `teacher.content` of a run.
        data: fingerprint of what is trained on.
        seed, crop_scale, flip, decode, decoder: of the run, which decide captions and crops.
    """

    teacher: str
    data: str
    seed: int
    crop_scale: tuple[float, float]
    flip: bool
    decode: str
    decoder: str = "pillow"

    @classmethod
    def of(cls, teacher: str, fingerprint: str, data: Data, seed: int) -> Stored:
        """What a run wants of the data set with that fingerprint."""
        drawn = (data.crop_scale, data.flip, data.decode, data.decoder)
        return cls(teacher, fingerprint, seed, *drawn)

    def folder(self, cache: Path) -> Path:
        """Where it is kept."""
        return cache / "teachers" / content_key(asdict(self), digits=16)


@dataclass(frozen=True)
class Whole:
    """A store that can be read.

    Attributes:
        folder: its place.
        samples, width: of each view: N and D.
        views: how many there are.
        scale: exp(logit_scale) that the teacher was trained with.
        record: what the teacher is, see `harness.train.teacher.LoadedTeacher`.
        missing: places of the samples that some view lacks.
    """

    folder: Path
    samples: int
    width: int
    views: int
    scale: float
    record: dict[str, str]
    missing: tuple[int, ...]

    def rows(self, views: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> Rows:
        """Those of samples `places` (N,), each in the view (N,) of its own."""
        made = np.empty((len(places), 2, self.width), _TYPE)
        for row, (view, place) in enumerate(zip(views.tolist(), places.tolist(), strict=True)):
            part, within = divmod(place, PART_SAMPLES)
            made[row] = self._maps[view, part][within]
        return made

    @cached_property
    def _maps(self) -> dict[tuple[int, int], Rows]:
        return {
            (view, part): np.memmap(
                self.folder / part_name(view, part), _TYPE, "r", shape=(size, 2, self.width)
            )
            for view in range(self.views)
            for part, size in enumerate(part_sizes(self.samples))
        }

    def __getstate__(self) -> dict[str, Any]:
        """Without the mapped files, which another process maps for itself."""
        return {name: value for name, value in vars(self).items() if name != "_maps"}


def part_name(view: int, part: int) -> str:
    """The file of a part of a view."""
    return f"view-{view:04d}-{part:05d}.f16"


def part_sizes(samples: int) -> Iterator[int]:
    """Samples of each part of a view."""
    for first in range(0, samples, PART_SAMPLES):
        yield min(PART_SAMPLES, samples - first)


# --------------------------------------------------------------------------- written


def begin_store(folder: Path) -> None:
    """Before parts are written; what killed writers left goes."""
    folder.mkdir(parents=True, exist_ok=True)
    drop_leftovers(folder)


def write_part(
    folder: Path, view: int, part: int, rows: Rows, record: Mapping[str, str]
) -> list[int]:
    """Put rows (N, 2, D) on file, with their checksum and who made them beside them.

    Returns places, in the part, of the samples that are not there.
    """
    file = folder / part_name(view, part)
    missing = [int(place) for place in np.flatnonzero(np.isnan(rows[:, 0, 0]))]
    data = np.ascontiguousarray(rows, _TYPE).tobytes()
    write_atomic(file, data)
    content = hashlib.sha256(data).hexdigest()
    told = {"content": content, "missing": missing, "record": dict(record)}
    keep_json(_sum_file(file), told)
    return missing


def kept_part(folder: Path, view: int, part: int, record: Mapping[str, str]) -> list[int] | None:
    """Places missing in a part that this teacher made and that is as it was written; else None."""
    file = folder / part_name(view, part)
    kept = kept_json(_sum_file(file)) or {}
    if kept.get("record") != record or not isinstance(kept.get("missing"), list):
        return None
    try:
        return list(kept["missing"]) if sha256_of(file) == kept.get("content") else None
    except OSError:
        return None


def kept_views(folder: Path, cache: Path) -> int:
    """How many there are in a whole store; 0 where there is none."""
    found = kept_with_files(folder, ABOUT, cache)
    whole = None if found is None else _read(found, folder)
    return 0 if whole is None else whole.views


def finish_store(folder: Path, wanted: Stored, about: Mapping[str, Any]) -> None:
    """Write down that all parts of the views are there, as they were when they were written.

    Args:
        about: samples, views, scale, record and missing, as `Whole` has them.
    """
    sizes = list(part_sizes(about["samples"]))
    parts = [part_name(v, part) for v in range(about["views"]) for part in range(len(sizes))]
    width = (folder / parts[0]).stat().st_size // (2 * sizes[0] * _TYPE.itemsize)
    files = {name: (kept_json(_sum_file(folder / name)) or {}).get("content") for name in parts}
    value = {"version": _VERSION, "of": asdict(wanted), **about, "width": width, "files": files}
    keep_json(folder / ABOUT, value)


def _sum_file(file: Path) -> Path:
    return file.with_suffix(".json")


# --------------------------------------------------------------------------- read


def open_store(wanted: Stored, views: int, cache: Path, remedy: str) -> Whole:
    """The store of what is wanted, held to its checksums.

    Args:
        remedy: the command that makes it.

    Raises ConfigError where there is none (what is nearest is named), it is half written, damaged,
    or has fewer views.
    """
    folder = wanted.folder(cache)
    found = kept_with_files(folder, ABOUT, cache)
    if found is None:
        raise ConfigError(f"{_why_none(wanted, folder, cache)}; {remedy}")
    whole = _read(found, folder)
    if whole is None:
        raise ConfigError(f"{folder} holds no views of this version; {remedy}")
    if whole.views < views:
        raise ConfigError(
            f"teacher.views = {views}, and {folder} holds {whole.views} of {wanted.teacher}; "
            f"{remedy}"
        )
    return whole


def _read(found: Mapping[str, Any], folder: Path) -> Whole | None:
    """What the record says; None where it is no such record."""
    try:
        whole = _WHOLE.validate_python({**found, "folder": folder})
        sizes = {name: (folder / name).stat().st_size for name in found["files"]}
    except (ValidationError, OSError):
        return None
    return whole if found.get("version") == _VERSION and _agrees(whole, sizes) else None


_WHOLE = TypeAdapter(Whole)


def _agrees(whole: Whole, sizes: Mapping[str, int]) -> bool:
    """Whether the files on record are those of such a store."""
    if min(whole.samples, whole.width, whole.views) < 1 or not 0 < whole.scale < math.inf:
        return False
    if any(not 0 <= place < whole.samples for place in whole.missing):
        return False
    if len(sizes) != whole.views * -(-whole.samples // PART_SAMPLES):
        return False
    return sizes == {
        part_name(view, part): 2 * whole.width * size * _TYPE.itemsize
        for view in range(whole.views)
        for part, size in enumerate(part_sizes(whole.samples))
    }


def _why_none(wanted: Stored, folder: Path, cache: Path) -> str:
    if (folder / ABOUT).exists():
        return f"{folder}, the stored views of {wanted.teacher}, is damaged"
    if folder.exists():
        return f"{folder}, the stored views of {wanted.teacher}, is half written"
    others = [dict(of) for of in _others(wanted, cache)]
    if not others:
        return f"there are no stored views of {wanted.teacher} in {cache / 'teachers'}"
    own = asdict(wanted) | {"crop_scale": list(wanted.crop_scale)}
    differ = [[name for name in own if of.get(name) != own[name]] for of in others]
    nearest = min(range(len(others)), key=lambda place: len(differ[place]))
    said = ", ".join(
        f"{name} {str(others[nearest].get(name))[:12]} (here {str(own[name])[:12]})"
        for name in differ[nearest]
    )
    return f"the stored views of {wanted.teacher} are of other {said}"


def _others(wanted: Stored, cache: Path) -> Iterator[Mapping[str, Any]]:
    for file in sorted((cache / "teachers").glob(f"*/{ABOUT}")):
        of = (kept_json(file) or {}).get("of")
        if isinstance(of, dict) and of.get("teacher") == wanted.teacher:
            yield of
