"""The index of a set of shards: made once, kept on disk, and memory-mapped.

The headers of the tars are read once, after which a picture is one seek and one read.  Names and
captions are made from the arrays when asked for, so that millions of samples cost no Python
objects.  Each shard's part is kept until all are there, so an index that was cut off goes on.
"""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from harness.data.shard_list import Shard
from harness.data.tars import Sample, read_shard
from harness.data.tools.jobs import Progress, ProgressLines, shared_out
from harness.data.verified import cache_key, keep_sums, kept_with_files
from harness.files import locked, open_npz, replacing, written

_VERSION = 3
_SUMMARY = "summary.json"

#: Where a picture lies in its shard, and where its name and captions end in the texts of the index.
_RECORD = np.dtype(
    [("offset", "<i8"), ("size", "<i8"), ("name_end", "<i8"), ("caption_end", "<i8")]
)
_BYTE = np.dtype("u1")
_TEXTS = ("names", "captions")
_IN_A_PART = {"samples", *_TEXTS, "about"}
_BETWEEN_CAPTIONS = "\n"  # which a checked caption does not hold
T = TypeVar("T")
S = TypeVar("S", bound="Samples")


class Content(NamedTuple):
    """A shard on local disk, and what is known of its content.

    Attributes:
        sha256: None where the bytes were not all read.
    """

    path: Path
    sha256: str | None


Fetch = Callable[[Shard], Content]


def index_key(shards: Iterable[Shard], *, hashed: bool) -> str:
    """What names an index: anything that says the shards are other than they were."""
    each = (
        [s.name, s.place if s.is_remote else "", s.size, s.changed, s.synthetic] for s in shards
    )
    return cache_key([_VERSION, hashed, *each])


def index_once(
    shards: Sequence[Shard],
    index: Path,
    fetch: Fetch,
    *,
    jobs: int = 1,
    threads: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The summary of the index, which is made first unless a whole one is there.

    Args:
        jobs: shards read at a time, by as many processes.
        threads: by threads instead, as is enough for those that have to be fetched.

    Safe in several processes.  Raises DataError when a shard cannot be had.
    """
    told = progress or ProgressLines("indexing", "shards")
    summary = kept_with_files(index, _SUMMARY, index.parent)
    if summary is not None:
        return summary
    index.parent.mkdir(parents=True, exist_ok=True)
    with locked(index):
        summary = kept_with_files(index, _SUMMARY, index.parent)
        if summary is not None:
            return summary
        parts = _parts_of(index)
        parts.mkdir(exist_ok=True)
        missing = [i for i in range(len(shards)) if not _is_whole(_part(parts, i))]
        tasks = [(shards[i], _part(parts, i)) for i in missing]
        jobs = max(1, min(jobs, len(tasks)))
        with shared_out(_make_part, fetch, tasks, jobs, threads=threads) as made:
            for done, _ in enumerate(made, len(shards) - len(missing) + 1):
                told(done, len(shards))
        with replacing(index) as temporary:  # a damaged one too
            summary = _join(shards, parts, temporary)
        shutil.rmtree(parts)
    return summary


def forget(index: Path) -> None:
    """Remove an index and what is there of an unfinished one."""
    index.parent.mkdir(parents=True, exist_ok=True)
    with locked(index):
        shutil.rmtree(index, ignore_errors=True)
        shutil.rmtree(_parts_of(index), ignore_errors=True)


def _parts_of(index: Path) -> Path:
    return index.with_name(f"{index.name}.parts")


# --------------------------------------------------------------------------- one part a shard


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number}.npz"


def _is_whole(part: Path) -> bool:
    """Whether it is there with the content that its checksums tell."""
    try:
        with open_npz(part) as kept:
            return set(kept.files) == _IN_A_PART and kept.zip.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error):
        return False


def _make_part(fetch: Fetch, task: tuple[Shard, Path]) -> None:
    shard, part = task
    path, sha256 = fetch(shard)
    read = read_shard(path, shard.base, synthetic=shard.synthetic)
    records, names, captions = _arrays(shard, read.samples)
    about = {
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "problems": [[problem.where, problem.reason] for problem in read.problems],
        "skipped": dict(read.skipped),
    }
    with written(part) as file:
        np.savez(
            file,
            samples=records,
            names=_bytes(names),
            captions=_bytes(captions),
            about=_bytes([json.dumps(about).encode("ascii")]),
        )


def _arrays(
    shard: Shard, samples: Sequence[Sample]
) -> tuple[npt.NDArray[Any], list[bytes], list[bytes]]:
    texts: tuple[list[bytes], list[bytes]] = [], []
    records = np.empty(len(samples), _RECORD)
    ends = [0, 0]
    for i, sample in enumerate(samples):
        both = f"{shard.name}/{sample.member}", _BETWEEN_CAPTIONS.join(sample.captions)
        for part, text in enumerate(both):
            data = text.encode("utf-8", "surrogateescape")
            texts[part].append(data)
            ends[part] += len(data)
        records[i] = (sample.offset, sample.size, *ends)
    return records, *texts


def _bytes(texts: Iterable[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(texts), dtype=np.uint8)


# --------------------------------------------------------------------------- all parts together


def _join(shards: Sequence[Shard], parts: Path, folder: Path) -> dict[str, Any]:
    writers: dict[str, _Writer] = {}
    problems: list[list[str]] = []
    skipped: Counter[str] = Counter()
    listed = []
    for number, shard in enumerate(shards):
        with open_npz(_part(parts, number)) as part:
            about = json.loads(part["about"].tobytes())
            count = len(part["samples"])
            if count:
                if shard.split not in writers:
                    writers[shard.split] = _Writer(folder, shard.split)
                writers[shard.split].add(part)
        problems += about["problems"]
        skipped.update(about["skipped"])
        listed.append(
            {
                "name": shard.name,
                "split": shard.split,
                "source": shard.source,
                "samples": count,
                "problems": len(about["problems"]),
                "bytes": about["bytes"],
                "sha256": about["sha256"],
            }
        )
    for writer in writers.values():
        writer.close()
    summary = {
        "splits": sorted(writers),
        "indexed": sum(entry["samples"] for entry in listed) + len(problems),
        "problems": problems,
        "skipped": dict(skipped.most_common()),
        "shards": listed,
    }
    keep_sums(folder, _SUMMARY, summary)
    return summary


class _Writer:
    """Appends the samples of one split to the three files of its index."""

    def __init__(self, folder: Path, split: str) -> None:
        parts = ("samples", *_TEXTS)
        self._files = {part: (folder / f"{split}.{part}").open("wb") for part in parts}
        self._ends = {"name_end": 0, "caption_end": 0}

    def add(self, part: Any) -> None:
        records = part["samples"]
        for which in self._ends:
            records[which] += self._ends[which]
            self._ends[which] = int(records[which][-1])
        self._files["samples"].write(records.tobytes())
        for texts in _TEXTS:
            self._files[texts].write(part[texts].tobytes())

    def close(self) -> None:
        for file in self._files.values():
            file.close()


# --------------------------------------------------------------------------- reading it


class Samples:
    """The index of one split, memory-mapped anew in each process that unpickles it."""

    RECORD: ClassVar[np.dtype[Any]] = _RECORD
    TEXTS: ClassVar[tuple[str, ...]] = _TEXTS

    def __init__(self, index: Path, split: str) -> None:
        self.index, self.split = index, split
        self.records = _mapped(index / f"{split}.samples", self.RECORD)
        self.ends = {name: self.records[name] for name in self.RECORD.names or ()}
        self.texts = {name: _mapped(index / f"{split}.{name}", _BYTE) for name in self.TEXTS}

    def __len__(self) -> int:
        return len(self.records)

    def __reduce__(self) -> tuple[type[Samples], tuple[Path, str]]:
        return type(self), (self.index, self.split)

    def text(self, which: str, i: int) -> str:
        """Text `i` of those called `which`s, whose ends are in the field `which_end`."""
        ends = self.ends[f"{which}_end"]
        start = ends[i - 1] if i else 0
        data = self.texts[f"{which}s"][start : ends[i]].tobytes()
        return data.decode("utf-8", "surrogateescape")


def _mapped(file: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    # An empty file cannot be mapped.
    return np.memmap(file, dtype, mode="r") if file.stat().st_size else np.empty(0, dtype)


class Lazy(Sequence[T]):
    """A sequence whose items are made, by a function of a module, when they are asked for."""

    def __init__(self, samples: S, item: Callable[[S, int], T]) -> None:
        self._samples, self._item = samples, item

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, i: int) -> T: ...
    @overload
    def __getitem__(self, i: slice) -> list[T]: ...
    def __getitem__(self, i: int | slice) -> T | list[T]:
        places = range(len(self))
        if isinstance(i, slice):
            return [self._item(self._samples, place) for place in places[i]]
        return self._item(self._samples, places[i])

    def __iter__(self) -> Iterator[T]:
        return (self._item(self._samples, place) for place in range(len(self)))


def name_at(samples: Samples, i: int) -> str:
    """`split/shard.tar/member.jpg@offset+size`: all that `read` needs."""
    record = samples.records[i]
    member = samples.text("name", i)
    return f"{member}@{record['offset']}+{record['size']}"


def captions_at(samples: Samples, i: int) -> tuple[str, ...]:
    """The captions of a sample, as the tuple that a Split holds."""
    text = samples.text("caption", i)
    return tuple(text.split(_BETWEEN_CAPTIONS))
