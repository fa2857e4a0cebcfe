"""Which samples each training batch holds: a function of the seed and the step, made of numbers.

Owns the order of an epoch and the mixing of sources.  No picture is needed to say what a batch
holds, so neither workers, processes nor an interruption can change it.  An epoch shows no sample
twice and drops its incomplete last batch.  Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.errors import DataError
from harness.seeding import generator

LANES = 8
"""Most parts that a windowed batch is made of, each fed by shards of its own."""
WIDE_LANES, WIDE_REACH = 64, 1_250
"""The same of a wide window, and its reach, with which as many samples are mixed as by default."""

_KEPT_EPOCHS = 2
"""Orders in memory: that of the epoch, and that of the next one for whoever looks ahead."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Samples may move by at most `reach` places from where their shard puts them.

    Attributes:
        counts: samples of each shard, in the order of the samples.
        most_lanes: LANES or WIDE_LANES.
    """

    reach: int
    counts: tuple[int, ...]
    most_lanes: int = LANES

    def lanes(self, quota: int) -> int:
        """How many lanes a batch of `quota` samples has: each gives it as many of them."""
        if self.most_lanes == LANES:
            return math.gcd(quota, LANES)
        return max(n for n in range(1, self.most_lanes + 1) if quota % n == 0)


@dataclass(frozen=True)
class Pool:
    """Consecutive samples of a split that make one source.

    Attributes:
        first, size: where they are.
        window: how far the order may stray from that of the shards; None: any order.
    """

    first: int
    size: int
    window: Window | None = None


class SampleOrder:
    """The samples of batch `step` of a run.

    Args:
        pools: the sources.  Their shares of every batch are `weights`, rounded to whole samples and
            equal in all batches; each source has epochs of its own.
        weights: None if there is one source.

    Attributes:
        per_epoch: batches in which about as many samples are shown as there are.

    Raises:
        DataError: a source has fewer samples than its share of a batch, or its share is none.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        quotas = [batch_size] if weights is None else shares(batch_size, weights)
        tags: list[list[int | str]] = [["source", i] if i else [] for i in range(len(pools))]
        self._parts = [
            _Epochs(pool, quota, seed, tag)
            for pool, quota, tag in zip(pools, quotas, tags, strict=True)
        ]
        self.batch_size = batch_size
        self.per_epoch = max(1, sum(pool.size for pool in pools) // batch_size)
        self._layout = _spread(quotas)

    def take(self, step: int) -> tuple[Places, Places]:
        """Epoch and index of each sample of a batch, both int64 (batch_size,)."""
        taken = [part.take(step) for part in self._parts]
        epochs = np.concatenate([np.full(len(places), epoch) for epoch, places in taken])
        places = np.concatenate([places for _, places in taken])
        return epochs[self._layout], places[self._layout]


def shares(batch_size: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers next to `batch_size` x the weights' shares, which sum to `batch_size`.

    Raises DataError for a share of less than one sample.
    """
    exact = [batch_size * weight / math.fsum(weights) for weight in weights]
    counts = [math.floor(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_rest[: batch_size - sum(counts)]:
        counts[i] += 1
    if 0 in counts:
        i = counts.index(0)
        raise DataError(
            f"source {i + 1} of data.path has weight {weights[i]:g}, which is {exact[i]:.2g} "
            f"samples of a batch of {batch_size}; a source needs one at least"
        )
    return counts


def _spread(quotas: Sequence[int]) -> Places:
    """Each source spread evenly over the batch, so that a process's share has them all."""
    place = np.concatenate([(np.arange(quota) + 0.5) / quota for quota in quotas])
    return np.argsort(place, kind="stable")


class _Epochs:
    """One source, epoch after epoch, `quota` samples a batch."""

    def __init__(self, pool: Pool, quota: int, seed: int, tag: Sequence[int | str]) -> None:
        if pool.size < quota:
            raise DataError(f"{pool.size} samples, fewer than the {quota} of one batch")
        self._pool, self._quota = pool, quota
        self._seed, self._tag = seed, tag
        self._per_epoch = pool.size // quota
        self._orders: dict[int, Places] = {}

    def take(self, step: int) -> tuple[int, Places]:
        """Epoch and samples of this source in batch `step`."""
        epoch, place = divmod(step, self._per_epoch)
        order = self._orders.get(epoch)
        if order is None:
            rng = generator(self._seed, "order", epoch, *self._tag)
            order = self._windowed(rng) if self._pool.window else rng.permutation(self._pool.size)
            kept = {e: o for e, o in self._orders.items() if epoch - e < _KEPT_EPOCHS}
            self._orders = {**kept, epoch: order}
        chosen = order[place * self._quota : (place + 1) * self._quota]
        return epoch, chosen + self._pool.first

    def _windowed(self, rng: np.random.Generator) -> Places:
        """An epoch that reads shards one after another, in as many lanes as fit.

        The shards in random order are cut into lanes of equal length; within a lane a sample is put
        off by a random number of places below `reach`, and a batch takes as much of each lane.
        """
        assert self._pool.window is not None
        reach, counts = self._pool.window.reach, np.asarray(self._pool.window.counts)
        shards = rng.permutation(len(counts))
        firsts = np.cumsum(counts) - counts
        taken = counts[shards]
        before = np.cumsum(taken) - taken
        line = np.repeat(firsts[shards] - before, taken) + np.arange(len(self))
        lanes = self._pool.window.lanes(self._quota)
        lines = line[: self._per_epoch * self._quota].reshape(lanes, -1)
        due = np.arange(lines.shape[1]) + rng.random(lines.shape) * reach
        lines = np.take_along_axis(lines, np.argsort(due, axis=1, kind="stable"), axis=1)
        return lines.reshape(lanes, self._per_epoch, -1).transpose(1, 0, 2).reshape(-1)

    def __len__(self) -> int:
        return self._pool.size
