"""webdataset shards (tar files of picture and caption members) on local disk, read at random.

Sampling is global, and a resumed run sees the same samples at any number of workers.  Decodes no
picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from harness.config import SOURCES, Data
from harness.data.account import Account, FileRead, Problem, RefusedData
from harness.data.dataset import DataSet, Split, content_fingerprint
from harness.data.files import is_gzipped, read_at
from harness.data.index import (
    Content,
    Lazy,
    Samples,
    captions_at,
    forget,
    index_key,
    index_once,
    name_at,
)
from harness.data.order import Pool, SampleOrder, Window
from harness.data.packed import PACK_FILE, REMEDY
from harness.data.shard_list import FoundShards, Shard, find_shards
from harness.data.source import Source, path_of
from harness.data.split_names import absent_splits
from harness.data.tools.jobs import Progress
from harness.data.unpacked import untarred
from harness.data.verified import is_content
from harness.errors import ConfigError, DataError

_NOT_IN_PACK = f"is not the shard that {PACK_FILE} names, but another or a damaged one; {REMEDY}"
_CHANGED = (
    "has changed since it was indexed, or is damaged; python -m harness.data check --again "
    "indexes it anew"
)


_KEPT_OPEN = 256
"""Tars that a process keeps open, of 1,024 files that it may have as a rule."""


class Shards(DataSet):
    """Samples of tar files; indexed when `splits`, `problems` or `indexed` is first asked for.

    Raises DataError then, if no shard holds a usable sample.
    """

    _hashed = False
    _fetched = False
    """Whether shards have to be fetched to be indexed, which threads do."""

    def __init__(self, found: FoundShards, cache: Path, weights: Sequence[float] | None) -> None:
        if weights is not None and len(weights) != found.sources:
            raise ConfigError(
                f"data.weights has {len(weights)} numbers, and data.path {found.sources} sources"
            )
        vars(self).update(
            name=found.name,
            tasks=(),
            found=found,
            shards=found.shards,
            weights=weights if found.sources > 1 else None,
            cache=cache,
            index=cache / f"shards-{index_key(found.shards, hashed=self._hashed)}",
        )

    name: str
    found: FoundShards
    shards: tuple[Shard, ...]
    weights: Sequence[float] | None
    cache: Path
    index: Path

    @cached_property
    def fingerprint(self) -> str:
        """See DataSet; of a shard, its checksum where one is on record, else its size."""
        return content_fingerprint({}, (), sorted(self._stamps(train=True)))

    @cached_property
    def evaluation_fingerprint(self) -> str:
        """See DataSet."""
        return content_fingerprint({}, (), sorted(self._stamps(train=False)))

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """name -> split, names and captions read from the index as they are asked for."""
        views = [Samples(self.index, split) for split in self.summary["splits"]]
        if not views:
            reasons = "; ".join(f"{p.where}: {p.reason}" for p in self.problems[:3])
            line = f"no usable sample in {len(self.shards)} shards: {reasons}"
            raise RefusedData(line, self.account, self.problems, self.indexed)
        return {view.split: Split(Lazy(view, name_at), Lazy(view, captions_at)) for view in views}

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """Samples and shards that cannot be used."""
        return tuple(Problem(where, reason) for where, reason in self.summary["problems"])

    @cached_property
    def account(self) -> Account:
        """What was read of each shard, and how the splits came about."""
        files = tuple(
            FileRead(
                shard["name"],
                shard["samples"] + shard["problems"],
                shard["samples"],
                f"{shard['problems']} unusable" if shard["problems"] else None,
            )
            for shard in self.summary["shards"]
        )
        skipped = ", ".join(f"{n:,} {suffix}" for suffix, n in self.summary["skipped"].items())
        notes = [*self.found.notes, *absent_splits(self.summary["splits"])]
        if skipped:
            notes.append(f"files that belong to no picture are skipped: {skipped}")
        return Account(files, self.found.origins, tuple(notes))

    @cached_property
    def indexed(self) -> int:
        """Samples looked at, usable or not."""
        return int(self.summary["indexed"])

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What the index says of each shard and of all."""
        return self.make_index()

    def make_index(
        self, *, jobs: int = 1, progress: Progress | None = None, again: bool = False
    ) -> dict[str, Any]:
        """Make the index unless it is there (or `again`), `jobs` shards at a time; its summary."""
        if again:
            forget(self.index)
        return index_once(
            self.shards,
            self.index,
            self._fetch,
            jobs=jobs,
            threads=self._fetched,
            progress=progress,
        )

    def prepare(self) -> None:
        """Make the index; safe in several processes."""
        self.make_index()

    def order(self, batch_size: int, seed: int) -> SampleOrder:
        """See DataSet."""
        return SampleOrder(self._pools(), batch_size, seed, self.weights)

    def read(self, image: str) -> bytes:
        """The bytes of a picture, by one seek.

        Raises KeyError for a shard that is not of this data set, OSError when it is lost or cut
        short.
        """
        member, _, place = image.rpartition("@")
        offset, size = (int(number) for number in place.split("+"))
        shard = self._by_name[shard_of(member)]
        with self._open(shard) as file:
            return read_at(file, offset, size, shard.base, member)

    def sizes(self, split: str) -> np.ndarray | None:
        """See DataSet; None of shards that would have to be fetched."""
        if any(shard.is_remote for shard in self.shards):
            return None
        return np.asarray(Samples(self.index, split).records["size"], np.int64)

    def beginning(self, image: str, most: int) -> bytes:
        """See DataSet."""
        name, _, size = image.rpartition("+")
        return self.read(f"{name}+{min(most, int(size))}")

    def _stamps(self, *, train: bool) -> Iterator[str]:
        return (shard.stamp for shard in self.shards if (shard.split == "train") is train)

    def _fetch(self, shard: Shard) -> Content:
        return Content(self._tar(shard, shard.sha256), shard.sha256)

    def _open(self, shard: Shard) -> AbstractContextManager[BinaryIO]:
        return self._opened.of(self._whole(shard, shard.sha256))

    def _whole(self, shard: Shard, sha256: str | None) -> Path:
        """Its tar, held to its checksum at the first reading of it."""
        if shard.name not in self._tars:
            self._tars[shard.name] = self._tar(shard, sha256)
        return self._tars[shard.name]

    def _tar(self, shard: Shard, sha256: str | None) -> Path:
        """A local shard, which is laid down once in the cache if it is compressed.

        Raises DataError where it has another checksum than is on record.
        """
        place = Path(shard.place)
        path = untarred(place, self.cache) if is_gzipped(place.name) else place
        if sha256 is not None and not is_content(path, sha256, self.cache):
            raise DataError(f"{path} {_NOT_IN_PACK if shard.sha256 else _CHANGED}")
        return path

    @cached_property
    def _tars(self) -> dict[str, Path]:
        return {}

    @cached_property
    def _opened(self) -> _OpenTars:
        return _OpenTars()

    @cached_property
    def _by_name(self) -> dict[str, Shard]:
        return {shard.name: shard for shard in self.shards}

    def _pools(self) -> list[Pool]:
        """The sources of `train` as they lie in it; one pool of all where none is weighted."""
        counts = self._train_counts()
        if self.weights is None:
            counts = [[count for of_source in counts for count in of_source]]
        pools: list[Pool] = []
        first = 0
        for of_source in counts:
            size = sum(of_source)
            pools.append(Pool(first, size, self._window(of_source)))
            first += size
        return pools

    def _train_counts(self) -> list[list[int]]:
        """Usable samples of each shard of `train`, by source."""
        counts: list[list[int]] = [[] for _ in range(1 + max(s.source for s in self.shards))]
        for shard in self.summary["shards"]:
            if shard["split"] == "train":
                counts[shard["source"]].append(shard["samples"])
        return counts

    def _window(self, counts: Sequence[int]) -> Window | None:
        return None


class _OpenTars:
    """Local tars that stay open between two readings, so that none costs a look-up of its path.

    Nobody moves in them (`read_at`), so that processes may share them after a fork; one that is
    unpickled opens its own.  What is dropped is closed when nobody reads it any more.
    """

    def __init__(self) -> None:
        self._files: dict[Path, BinaryIO] = {}

    def of(self, path: Path) -> AbstractContextManager[BinaryIO]:
        """A tar to read from."""
        file = self._files.pop(path, None) or path.open("rb")
        self._files[path] = file  # the newest is last
        if len(self._files) > _KEPT_OPEN:
            self._files.pop(next(iter(self._files)))
        return nullcontext(file)

    def __reduce__(self) -> tuple[type[_OpenTars], tuple[()]]:
        return _OpenTars, ()


def shard_of(image: str) -> str:
    """The name of the shard that a picture's name begins with."""
    return "/".join(image.split("/", 2)[:2])


@SOURCES.register("shards")
class ShardsSource(Source):
    """The local shards that `data.path` names, any sample at any time."""

    unused = frozenset({"shuffle_window"})

    def open(self, data: Data, cache: Path) -> DataSet:
        """See Source."""
        synthetic = data.captions == "synthetic"
        return open_shards(path_of(data), cache, data.weights, synthetic=synthetic)


def open_shards(
    path: str, cache: Path, weights: Sequence[float] | None = None, *, synthetic: bool = False
) -> DataSet:
    """The local shards that `path` names, read at random; see `find_shards`.

    Nothing but the list of files is read here.

    Raises DataError when there is none, when a file of a range is not there, or when one is a URL.
    """
    found = find_shards(path, synthetic=synthetic)
    remote = next((shard for shard in found.shards if shard.is_remote), None)
    if remote is not None:
        raise DataError(
            f"data.source=shards reads local files at random; {remote.place} is for "
            "data.source=stream, which reads shards one after another"
        )
    return Shards(found, cache, weights)
