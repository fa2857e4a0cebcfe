"""webdataset shards (tar files of picture and caption members) with access by index.

The headers of the tars are read once into an index on disk (numpy arrays, memory-mapped), after
which a picture is one seek and one read: sampling stays global and a resumed run sees the same
samples, at any number of workers.  Names and captions are made from the arrays when asked for, so
that millions of samples cost no Python objects.  Decodes no picture.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import shutil
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
from braceexpand import braceexpand
from filelock import FileLock

from harness.data.dataset import SPLIT_NAMES, DataSet, Problem, Split, content_fingerprint
from harness.data.files import existing
from harness.data.folder import checked_caption
from harness.errors import DataError

IMAGE_FIELDS = frozenset({"jpg", "jpeg", "png", "webp"})
CAPTION_FIELDS = ("txt", "json")
_INDEX_VERSION = 1
_PROGRESS_SECONDS = 2.0

#: Where a picture lies in its shard, and where its name and caption end in the texts of the index.
_RECORD = np.dtype(
    [("offset", "<i8"), ("size", "<i8"), ("name_end", "<i8"), ("caption_end", "<i8")]
)
_PARTS = {"samples": _RECORD, "names": np.dtype("u1"), "captions": np.dtype("u1")}
T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """A tar file and the split it belongs to."""

    path: Path
    split: str
    size: int
    changed: int
    """Modification time in nanoseconds: an index made before it is of no use."""

    @property
    def name(self) -> str:
        """What names the shard within its data set, wherever it lies."""
        return f"{self.split}/{self.path.name}"


class Shards(DataSet):
    """Samples of tar files; indexed when `splits`, `problems` or `indexed` is first asked for.

    Raises DataError then, if no shard holds a usable sample.
    """

    def __init__(self, name: str, shards: Sequence[Shard], cache: Path) -> None:
        train = sorted(f"{s.name}:{s.size}" for s in shards if s.split == "train")
        rest = sorted(f"{s.name}:{s.size}" for s in shards if s.split != "train")
        vars(self).update(
            name=name,
            fingerprint=content_fingerprint({}, (), train),
            evaluation_fingerprint=content_fingerprint({}, (), rest),
            tasks=(),
            shards=tuple(shards),
            index=cache / f"shards-{_index_key(shards)}",
        )

    name: str
    fingerprint: str
    evaluation_fingerprint: str
    shards: tuple[Shard, ...]
    index: Path

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """name -> split, names and captions read from the index as they are asked for."""
        views = [_Samples(self.index, split) for split in self._summary["splits"]]
        if not views:
            reasons = "; ".join(f"{p.where}: {p.reason}" for p in self.problems[:3])
            raise DataError(f"no usable sample in {len(self.shards)} shards: {reasons}")
        return {view.split: Split(_Names(view), _Captions(view)) for view in views}

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """Samples and shards that cannot be used."""
        return tuple(Problem(where, reason) for where, reason in self._summary["problems"])

    @cached_property
    def indexed(self) -> int:
        """Samples looked at, usable or not."""
        return int(self._summary["indexed"])

    @cached_property
    def _summary(self) -> dict[str, Any]:
        return _index_once(self.shards, self.index)

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return {shard.name: shard.path for shard in self.shards}

    def prepare(self) -> None:
        """Make the index; safe in several processes."""
        _index_once(self.shards, self.index)

    def read(self, image: str) -> bytes:
        """The bytes of a picture, by one seek.

        Raises KeyError for a shard that is not of this data set, OSError when it is lost or cut
        short.
        """
        member, _, place = image.rpartition("@")
        offset, size = (int(number) for number in place.split("+"))
        path = self._paths["/".join(member.split("/", 2)[:2])]
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"{path.name} ends within {member}")
        return data


# --------------------------------------------------------------------------- finding


def open_shards(path: str, cache: Path) -> DataSet:
    """The shards that `path` names: a folder, a tar file, a glob or a brace range.

    `shard-{000000..000012}.tar` is a range.  Samples are `train`, but for shards in (sub-)folders
    called train, val(idation) or test.  Nothing but the list of files is read here.

    Raises DataError when there is none, or when a file of a range is not there.
    """
    given = Path(path).expanduser()
    found = sorted(_in_folder(given) if given.is_dir() else _by_pattern(str(given)))
    if not found:
        raise DataError(f"no shard at {path}; looked for .tar files, also in train, val, test")
    shards = [_shard(file, split) for file, split in found]
    for name, count in Counter(shard.name for shard in shards).items():
        if count > 1:
            raise DataError(f"{path} has two shards called {name}; give their folders apart")
    home = given if given.is_dir() else Path(found[0][0]).parent
    return Shards(home.absolute().name, shards, cache)


def _in_folder(folder: Path) -> Iterator[tuple[str, str]]:
    for file in folder.glob("*.tar"):
        yield str(file), "train"
    for inner in folder.iterdir():
        if inner.is_dir() and inner.name.casefold() in SPLIT_NAMES:
            for file in inner.glob("*.tar"):
                yield str(file), SPLIT_NAMES[inner.name.casefold()]


def _by_pattern(pattern: str) -> Iterator[tuple[str, str]]:
    try:
        parts = list(braceexpand(pattern))
    except ValueError as error:
        raise DataError(f"{pattern} is no brace range: {error}") from error
    for part in parts:
        files = sorted(glob(part))
        if not files:
            raise DataError(f"no shard at {part}" + (f", of {pattern}" if part != pattern else ""))
        for file in files:
            yield file, SPLIT_NAMES.get(Path(file).parent.name.casefold(), "train")


def _shard(file: str, split: str) -> Shard:
    path = existing(file)
    state = path.stat()
    return Shard(path, split, state.st_size, state.st_mtime_ns)


# --------------------------------------------------------------------------- reading tars


@dataclass(frozen=True)
class _Sample:
    member: str
    offset: int
    size: int
    caption: str


@dataclass
class _Parts:
    """What one key has gathered; `caption` is the raw text of the preferred field."""

    image: tarfile.TarInfo | None = None
    caption: str | None = None
    field: str = ""


def read_shard(path: Path) -> tuple[list[_Sample], list[Problem]]:
    """The usable samples of a tar by key, in order, and what is wrong with the others.

    The members of a key need not be neighbours.  Of a tar that is cut short or damaged, the samples
    before the damage are used, and one Problem names the shard.
    """
    parts: dict[str, _Parts] = {}
    problems: list[Problem] = []
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.isfile():
                    _add_member(tar, member, parts, problems, size)
            end = tar.offset
    except (tarfile.TarError, OSError, EOFError) as error:
        problems.append(Problem(path.name, f"cut short or damaged: {error}"))
    else:
        problems += _check_end(path, end)
    samples = []
    for key, gathered in parts.items():
        try:
            samples.append(_sample(gathered))
        except DataError as error:
            problems.append(Problem(f"{path.name}/{key}", str(error)))
    return samples, problems


def _add_member(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    parts: dict[str, _Parts],
    problems: list[Problem],
    size: int,
) -> None:
    # webdataset's convention: the key ends at the first dot of the base name.
    folder, base = posixpath.split(member.name)
    stem, _, field = base.partition(".")
    field = field.lower()
    if not stem or not (field in IMAGE_FIELDS or field in CAPTION_FIELDS):
        return
    if member.offset_data + member.size > size:
        raise tarfile.ReadError(f"{member.name} is not whole")
    gathered = parts.setdefault(posixpath.join(folder, stem), _Parts())
    if field in IMAGE_FIELDS:
        if gathered.image is None:
            gathered.image = member
        else:
            problems.append(
                Problem(f"{Path(str(tar.name)).name}/{member.name}", "a second picture of its key")
            )
    elif field == gathered.field:
        problems.append(
            Problem(f"{Path(str(tar.name)).name}/{member.name}", "a second caption of its key")
        )
    elif gathered.field != "txt":
        file = tar.extractfile(member)
        assert file is not None  # it is a regular file
        gathered.caption = file.read().decode("utf-8-sig", "surrogateescape")
        gathered.field = field


def _check_end(path: Path, end: int) -> list[Problem]:
    """tarfile takes a damaged header, or no more bytes, for the end of an archive; tell them."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        return [Problem(path.name, f"cut short: no end mark after byte {end}")]
    if block.strip(b"\0"):
        return [Problem(path.name, f"damaged at byte {end}: what follows is not read")]
    return []


def _sample(parts: _Parts) -> _Sample:
    if parts.image is None:
        raise DataError("no picture")
    if parts.caption is None:
        raise DataError("no caption")
    caption = parts.caption if parts.field == "txt" else _caption_in(parts.caption)
    image = parts.image
    return _Sample(image.name, image.offset_data, image.size, checked_caption(caption))


def _caption_in(text: str) -> object:
    try:
        tree = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"caption is not JSON: {error}") from error
    if not isinstance(tree, dict) or "caption" not in tree:
        raise DataError('no "caption" in its JSON')
    return tree["caption"]


# --------------------------------------------------------------------------- the index


def _index_key(shards: Iterable[Shard]) -> str:
    lines = [_INDEX_VERSION, *([s.name, s.size, s.changed] for s in shards)]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]


def _index_once(shards: Sequence[Shard], index: Path) -> dict[str, Any]:
    """The summary of the index, which is made first unless a whole one is there."""
    summary = _whole_summary(index)
    if summary is None:
        index.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{index}.lock"):
            summary = _whole_summary(index) or _make_index(shards, index)
    return summary


def _whole_summary(index: Path) -> dict[str, Any] | None:
    try:
        summary: dict[str, Any] = json.loads((index / "summary.json").read_text(encoding="utf-8"))
        sizes = {name: (index / name).stat().st_size for name in summary["sizes"]}
    except (OSError, json.JSONDecodeError, KeyError):
        return None
    return summary if sizes == summary["sizes"] else None


def _make_index(shards: Sequence[Shard], index: Path) -> dict[str, Any]:
    temporary = Path(tempfile.mkdtemp(dir=index.parent, prefix=f".{index.name}."))
    try:
        summary = _write_index(shards, temporary)
        shutil.rmtree(index, ignore_errors=True)  # a damaged one
        os.replace(temporary, index)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return summary


def _write_index(shards: Sequence[Shard], folder: Path) -> dict[str, Any]:
    writers: dict[str, _Writer] = {}
    problems: list[Problem] = []
    looked_at = 0
    for shard in _with_progress(shards):
        samples, bad = read_shard(shard.path)
        problems += bad
        looked_at += len(samples) + len(bad)
        if samples:
            if shard.split not in writers:
                writers[shard.split] = _Writer(folder, shard.split)
            writers[shard.split].add(shard, samples)
    for writer in writers.values():
        writer.close()
    summary = {
        "splits": sorted(writers),
        "indexed": looked_at,
        "problems": [[problem.where, problem.reason] for problem in problems],
        "sizes": {file.name: file.stat().st_size for file in sorted(folder.iterdir())},
    }
    # Escaped: a broken name may hold what UTF-8 cannot.
    (folder / "summary.json").write_text(json.dumps(summary), encoding="ascii")
    return summary


class _Writer:
    """Appends the samples of one split to the three files of its index."""

    def __init__(self, folder: Path, split: str) -> None:
        self._files = [(folder / f"{split}.{part}").open("wb") for part in _PARTS]
        self._ends = [0, 0]

    def add(self, shard: Shard, samples: Sequence[_Sample]) -> None:
        records = np.empty(len(samples), _RECORD)
        records_file, *text_files = self._files
        for i, sample in enumerate(samples):
            texts = f"{shard.name}/{sample.member}", sample.caption
            for part, text in enumerate(texts):
                data = text.encode("utf-8", "surrogateescape")
                text_files[part].write(data)
                self._ends[part] += len(data)
            records[i] = (sample.offset, sample.size, *self._ends)
        records_file.write(records.tobytes())

    def close(self) -> None:
        for file in self._files:
            file.close()


def _with_progress(shards: Sequence[Shard]) -> Iterator[Shard]:
    last = time.monotonic()
    for done, shard in enumerate(shards):
        if time.monotonic() - last > _PROGRESS_SECONDS:
            last = time.monotonic()
            print(f"indexed {done} of {len(shards)} shards", file=sys.stderr, flush=True)
        yield shard


class _Samples:
    """The index of one split, memory-mapped anew in each process that unpickles it."""

    def __init__(self, index: Path, split: str) -> None:
        self.index, self.split = index, split
        self.records, self.names, self.captions = (
            np.memmap(index / f"{split}.{part}", dtype, mode="r") for part, dtype in _PARTS.items()
        )

    def __len__(self) -> int:
        return len(self.records)

    def __reduce__(self) -> tuple[type[_Samples], tuple[Path, str]]:
        return _Samples, (self.index, self.split)

    def text(self, which: str, texts: npt.NDArray[np.uint8], i: int) -> str:
        """Text `i` of `texts`, whose ends are in the field `which` of the records."""
        start = int(self.records[which][i - 1]) if i else 0
        data = texts[start : int(self.records[which][i])].tobytes()
        return data.decode("utf-8", "surrogateescape")


class _Lazy(Sequence[T]):
    """A sequence whose items are made from a `_Samples` when asked for."""

    def __init__(self, samples: _Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, i: int) -> T: ...
    @overload
    def __getitem__(self, i: slice) -> list[T]: ...
    def __getitem__(self, i: int | slice) -> T | list[T]:
        places = range(len(self))
        if isinstance(i, slice):
            return [self._item(place) for place in places[i]]
        return self._item(places[i])

    def _item(self, i: int) -> T:
        raise NotImplementedError


class _Names(_Lazy[str]):
    """`split/shard.tar/member.jpg@offset+size`: all that `read` needs."""

    def _item(self, i: int) -> str:
        record = self._samples.records[i]
        member = self._samples.text("name_end", self._samples.names, i)
        return f"{member}@{record['offset']}+{record['size']}"


class _Captions(_Lazy[tuple[str, ...]]):
    """The caption of each sample, as the tuple that a Split holds."""

    def _item(self, i: int) -> tuple[str, ...]:
        return (self._samples.text("caption_end", self._samples.captions, i),)
