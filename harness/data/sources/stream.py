"""Shards read one after another, from wherever they are, in an order that strays by a window.

Batch k is a function of the seed and k here too, because the index says what every shard holds
before it is fetched.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from harness.config import SOURCES, Data
from harness.data.dataset import Ahead, DataSet
from harness.data.index import Content
from harness.data.order import LANES, WIDE_LANES, WIDE_REACH, Places, SampleOrder, Window
from harness.data.shard_list import FoundShards, Shard, find_shards
from harness.data.source import Source, path_of
from harness.data.sources.shards import Shards
from harness.data.spool import Spool
from harness.data.tools.jobs import Progress
from harness.errors import ConfigError, DataError
from harness.files import sha256_of

_FETCHES = 4
"""Shards fetched at a time while indexing."""


@SOURCES.register("stream")
class StreamSource(Source):
    """The shards that `data.path` names, one after another."""

    def open(self, data: Data, cache: Path) -> DataSet:
        """See Source."""
        found = find_shards(path_of(data), synthetic=data.captions == "synthetic")
        return Stream(found, cache, data.weights, data.shuffle_window)


class Stream(Shards):
    """Shards read one after another; those that are not local pass through a spool.

    The first index reads every byte, for the SHA-256 of each shard is what its content is held to.
    """

    _hashed = _fetched = True

    def __init__(
        self,
        found: FoundShards,
        cache: Path,
        weights: Sequence[float] | None,
        window: int | Literal["wide"],
    ) -> None:
        super().__init__(found, cache, weights)
        lanes = WIDE_LANES if window == "wide" else LANES
        vars(self).update(window=window, lanes=lanes, spool=Spool(cache / "spool"))

    window: int | Literal["wide"]
    lanes: int
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
                yield self._by_name[shard["name"]].stamp_of(shard["sha256"])

    def _fetch(self, shard: Shard) -> Content:
        if shard.is_remote:
            return Content(*self.spool.fetch(shard.place))
        path = self._tar(shard, shard.sha256)
        return Content(path, shard.sha256 or sha256_of(path))

    def _open(self, shard: Shard) -> AbstractContextManager[BinaryIO]:
        if shard.is_remote:
            return self.spool.open(shard.place, self._sha256_of[shard.name])
        return self._opened.of(self._whole(shard, self._sha256_of[shard.name]))

    def _window(self, counts: Sequence[int]) -> Window:
        reach = WIDE_REACH if self.window == "wide" else self.window
        return Window(reach, tuple(counts), self.lanes)

    def ahead(self, batches: Iterator[Places], order: SampleOrder) -> Ahead | None:
        """See DataSet; fetches shards one row ahead of what is read.

        Raises ConfigError when the spool is too small for the shards that are in use at a time.
        """
        if not any(shard.is_remote for shard in self.shards):
            return None
        self._check_room(order)
        counts = [count for _, count in self._train_shards()]
        distance = math.ceil(self.lanes * sum(counts) / len(counts) / order.batch_size)
        return _Fetcher(self._in_batches(batches), self._fetch_again, max(2, distance))

    def _in_batches(self, batches: Iterator[Places]) -> Iterator[list[Shard]]:
        """The remote shards that each batch reads from."""
        names, counts = zip(*self._train_shards(), strict=True)
        ends = np.cumsum(counts)
        for places in batches:
            numbers = np.unique(np.searchsorted(ends, places, side="right"))
            yield [s for i in numbers if (s := self._by_name[names[i]]).is_remote]

    def _check_room(self, order: SampleOrder) -> None:
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
        need = int(np.cumsum(change).max()) + self.lanes * max(sizes.values())
        if need > self.spool.max_bytes:
            raise ConfigError(
                f"runtime.spool_mb = {self.spool.max_bytes // 10**6}, and data.shuffle_window = "
                f"{self.window} reads from {math.ceil(need / 10**6)} MB of shards at a time; raise "
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
