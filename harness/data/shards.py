"""webdataset shards (tar files of picture and caption members) as data sets.

`Shards` reads local tars at random: sampling is global, and a resumed run sees the same samples at
any number of workers.  `Stream` reads shards one after another, from wherever they are, in an order
that strays from the shards' by a window; batch k is a function of the seed and k there too, because
the index says what every shard holds before it is fetched.  Decodes no picture.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from harness.data.dataset import Ahead, DataSet, Problem, Split, content_fingerprint
from harness.data.index import (
    Captions,
    Content,
    Names,
    Progress,
    Samples,
    forget,
    index_key,
    index_once,
)
from harness.data.order import LANES, Order, Places, Pool, Window
from harness.data.sources import Found, Shard, find_shards
from harness.data.spool import Spool
from harness.errors import ConfigError, DataError

_FETCHES = 4
"""Shards fetched at a time while indexing."""


class Shards(DataSet):
    """Samples of tar files; indexed when `splits`, `problems` or `indexed` is first asked for.

    Raises DataError then, if no shard holds a usable sample.
    """

    _hashed = False

    def __init__(self, found: Found, cache: Path, weights: Sequence[float] | None) -> None:
        if weights is not None and len(weights) != found.sources:
            raise ConfigError(
                f"data.weights has {len(weights)} numbers, and data.path {found.sources} sources"
            )
        vars(self).update(
            name=found.name,
            tasks=(),
            shards=found.shards,
            weights=weights if found.sources > 1 else None,
            index=cache / f"shards-{index_key(found.shards, hashed=self._hashed)}",
        )

    name: str
    shards: tuple[Shard, ...]
    weights: Sequence[float] | None
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
            raise DataError(f"no usable sample in {len(self.shards)} shards: {reasons}")
        return {view.split: Split(Names(view), Captions(view)) for view in views}

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """Samples and shards that cannot be used."""
        return tuple(Problem(where, reason) for where, reason in self.summary["problems"])

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
        return index_once(self.shards, self.index, self._fetch, jobs=jobs, progress=progress)

    def prepare(self) -> None:
        """Make the index; safe in several processes."""
        self.make_index()

    def order(self, batch_size: int, seed: int) -> Order:
        """See DataSet."""
        return Order(self._pools(), batch_size, seed, self.weights)

    def read(self, image: str) -> bytes:
        """The bytes of a picture, by one seek.

        Raises KeyError for a shard that is not of this data set, OSError when it is lost or cut
        short.
        """
        member, _, place = image.rpartition("@")
        offset, size = (int(number) for number in place.split("+"))
        shard = self._by_name[shard_of(member)]
        with self._open(shard) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"{shard.base} ends within {member}")
        return data

    def _stamps(self, *, train: bool) -> Iterator[str]:
        return (shard.stamp for shard in self.shards if (shard.split == "train") is train)

    def _fetch(self, shard: Shard) -> Content:
        return Content(Path(shard.place), shard.sha256)

    def _open(self, shard: Shard) -> BinaryIO:
        return Path(shard.place).open("rb")

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


def shard_of(image: str) -> str:
    """The name of the shard that a picture's name begins with."""
    return "/".join(image.split("/", 2)[:2])


def open_shards(path: str, cache: Path, weights: Sequence[float] | None = None) -> DataSet:
    """The local shards that `path` names, read at random; see `find_shards`.

    Nothing but the list of files is read here.

    Raises DataError when there is none, when a file of a range is not there, or when one is a URL.
    """
    found = find_shards(path)
    remote = next((shard for shard in found.shards if shard.is_remote), None)
    if remote is not None:
        raise DataError(
            f"data.source=shards reads local files at random; {remote.place} is for "
            "data.source=stream, which reads shards one after another"
        )
    return Shards(found, cache, weights)


# --------------------------------------------------------------------------- streams


class Stream(Shards):
    """Shards read one after another; those that are not local pass through a spool.

    The first index reads every byte, for the SHA-256 of each shard is what its content is held to.
    """

    _hashed = True

    def __init__(
        self,
        found: Found,
        cache: Path,
        weights: Sequence[float] | None,
        reach: int,
    ) -> None:
        super().__init__(found, cache, weights)
        vars(self).update(reach=reach, spool=Spool(cache / "spool"))

    reach: int
    spool: Spool

    def make_index(
        self, *, jobs: int = _FETCHES, progress: Progress | None = None, again: bool = False
    ) -> dict[str, Any]:
        """See Shards."""
        return super().make_index(jobs=jobs, progress=progress, again=again)

    def keep_within(self, max_bytes: int) -> None:
        """See DataSet."""
        self.spool.max_bytes = max_bytes

    def _stamps(self, *, train: bool) -> Iterator[str]:
        for shard in self.summary["shards"]:
            if (shard["split"] == "train") is train:
                yield f"{shard['name']}:{shard['sha256']}"

    def _fetch(self, shard: Shard) -> Content:
        if shard.is_remote:
            return Content(*self.spool.fetch(shard.place))
        path = Path(shard.place)
        return Content(path, shard.sha256 or _sha256(path))

    def _open(self, shard: Shard) -> BinaryIO:
        if shard.is_remote:
            return self.spool.open(shard.place, self._sha256_of[shard.name])
        return super()._open(shard)

    def _window(self, counts: Sequence[int]) -> Window:
        return Window(self.reach, tuple(counts))

    def ahead(self, batches: Iterator[Places], order: Order) -> Ahead | None:
        """See DataSet; fetches shards one row ahead of what is read.

        Raises ConfigError when the spool is too small for the shards that are in use at a time.
        """
        if not any(shard.is_remote for shard in self.shards):
            return None
        self._check_room(order)
        counts = [count for _, count in self._train_shards()]
        distance = math.ceil(LANES * sum(counts) / len(counts) / order.batch_size)
        return _Fetcher(self._in_batches(batches), self._fetch_again, max(2, distance))

    def _in_batches(self, batches: Iterator[Places]) -> Iterator[list[Shard]]:
        """The remote shards that each batch reads from."""
        names, counts = zip(*self._train_shards(), strict=True)
        ends = np.cumsum(counts)
        for places in batches:
            numbers = np.unique(np.searchsorted(ends, places, side="right"))
            yield [s for i in numbers if (s := self._by_name[names[i]]).is_remote]

    def _check_room(self, order: Order) -> None:
        """Compare the spool with the first epoch's need, which is like any other's."""
        sizes = {shard["name"]: shard["bytes"] for shard in self.summary["shards"]}
        if sum(sizes.values()) <= self.spool.max_bytes:
            return
        last: dict[str, int] = {}
        first: dict[str, int] = {}
        batches = (order.take(step)[1] for step in range(order.per_epoch))
        for step, shards in enumerate(self._in_batches(batches)):
            for shard in shards:
                first.setdefault(shard.name, step)
                last[shard.name] = step
        change = np.zeros(order.per_epoch + 1, dtype=np.int64)
        for name, step in first.items():
            change[step] += sizes[name]
            change[last[name] + 1] -= sizes[name]
        need = int(np.cumsum(change).max()) + LANES * max(sizes.values())
        if need > self.spool.max_bytes:
            raise ConfigError(
                f"runtime.spool_mb = {self.spool.max_bytes // 10**6}, and data.shuffle_window = "
                f"{self.reach} reads from {math.ceil(need / 10**6)} MB of shards at a time; raise "
                "the one or lower the other"
            )

    def _train_shards(self) -> list[tuple[str, int]]:
        """Name and usable samples of each shard of `train`, in the order of the samples."""
        return [
            (shard["name"], shard["samples"])
            for shard in self.summary["shards"]
            if shard["split"] == "train"
        ]

    def _fetch_again(self, shard: Shard) -> None:
        if not self.spool.path_of(shard.place).exists():
            self.spool.fetch(shard.place, self._sha256_of[shard.name])

    @cached_property
    def _sha256_of(self) -> dict[str, str]:
        return {shard["name"]: shard["sha256"] for shard in self.summary["shards"]}


class _Fetcher:
    """A thread that fetches the shards of batches to come; bounded by how far reading is.

    A shard that cannot be had ends it: whoever reads that shard tries again, and tells.
    """

    def __init__(
        self, batches: Iterator[list[Shard]], fetch: Callable[[Shard], None], distance: int
    ) -> None:
        self._batches, self._fetch, self._distance = batches, fetch, distance
        self._reached, self._closed = 0, False
        self._moved = threading.Condition()
        threading.Thread(target=self._run, name="fetch shards", daemon=True).start()

    def reached(self, number: int) -> None:
        """See Ahead."""
        with self._moved:
            self._reached = number
            self._moved.notify()

    def close(self) -> None:
        """See Ahead."""
        with self._moved:
            self._closed = True
            self._moved.notify()

    def _run(self) -> None:
        for number, shards in enumerate(self._batches):
            self._wait_until_due(number)
            for shard in shards:
                if self._closed:
                    return
                try:
                    self._fetch(shard)
                except (DataError, OSError):
                    return

    def _wait_until_due(self, number: int) -> None:
        with self._moved:
            self._moved.wait_for(lambda: self._closed or number <= self._reached + self._distance)


def open_stream(path: str, cache: Path, weights: Sequence[float] | None, reach: int) -> DataSet:
    """The shards that `path` names, read one after another; see `find_shards`.

    Args:
        reach: places that a sample may be put off.

    Raises DataError when there is none or when one cannot be had.
    """
    return Stream(find_shards(path), cache, weights, reach)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
