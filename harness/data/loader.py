"""A stateless stream of training batches: batch k is a function of the run's seed and k alone.

Order, caption and crop come from generators seeded by (seed, epoch) and (seed, epoch, sample), so a
run that is cut off goes on from a number, and neither workers nor processes change what is seen.
Each epoch is a fresh permutation whose incomplete last batch is dropped: no pair meets its double.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.config import RunConfig, Runtime
from harness.data.dataset import DataSet, Problem, Split
from harness.data.images import BadImage, decode
from harness.data.text import Tokenizer, pad
from harness.data.transforms import train_view
from harness.errors import DataError
from harness.seeding import generator

_REPLACEMENTS = 100
"""Neighbours tried in place of an unusable sample before the data is declared broken."""


class Batch(NamedTuple):
    """Pictures uint8 (N, S, S, 3), tokens int64 (N, L), and what could not be used."""

    pictures: Tensor
    tokens: Tensor
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _Address:
    epoch: int
    index: int


class PictureCache:
    """Decoded pictures of one split, kept while they fit into a number of bytes."""

    def __init__(self, data: DataSet, split: Split, max_pixels: int, max_bytes: int) -> None:
        self._data, self._split = data, split
        self._max_pixels, self._left = max_pixels, max_bytes
        self._kept: dict[int, np.ndarray] = {}

    def __getitem__(self, index: int) -> np.ndarray:
        """Picture `index` as uint8 (H, W, 3); raises BadImage, OSError or KeyError."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        picture = decode(self._data.read(self._split.images[index]), max_pixels=self._max_pixels)
        if picture.nbytes <= self._left:
            self._kept[index] = picture
            self._left -= picture.nbytes
        return picture


class _Samples(Dataset[Any]):
    """(epoch, index) to one augmented view and one caption's tokens."""

    def __init__(
        self, data: DataSet, tokenizer: Tokenizer, config: RunConfig, runtime: Runtime
    ) -> None:
        self.split = data.split("train")
        share = max(1, runtime.workers) * runtime.processes
        self.cache = PictureCache(
            data, self.split, runtime.max_pixels, runtime.decode_cache_mb * 2**20 // share
        )
        self.tokenizer, self.config = tokenizer, config

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, address: _Address) -> tuple[np.ndarray, list[int], tuple[Problem, ...]]:
        problems: list[Problem] = []
        for step in range(_REPLACEMENTS):
            index = (address.index + step) % len(self.split)
            try:
                picture = self.cache[index]
            except (BadImage, OSError, KeyError) as error:
                problems.append(Problem(self.split.images[index], str(error)))
                continue
            return *self._view(picture, address.epoch, index), tuple(problems)
        raise DataError(
            f"{_REPLACEMENTS} pictures in a row cannot be used; the first: "
            f"{problems[0].where}: {problems[0].reason}"
        )

    def _view(self, picture: np.ndarray, epoch: int, index: int) -> tuple[np.ndarray, list[int]]:
        rng = generator(self.config.seed, "sample", epoch, index)
        captions = self.split.captions[index]
        caption = captions[int(rng.integers(len(captions)))]
        data, size = self.config.data, self.config.model.image.size
        return train_view(picture, size, data.crop_scale, data.flip, rng), self.tokenizer.encode(
            caption
        )


class Batches:
    """The stream of one run, from any step on.

    Args:
        rank: which of `runtime.processes` equal shares of each batch, in its order, is made.
    """

    def __init__(
        self,
        data: DataSet,
        tokenizer: Tokenizer,
        config: RunConfig,
        runtime: Runtime,
        rank: int = 0,
    ) -> None:
        self.samples = _Samples(data, tokenizer, config, runtime)
        self.batch_size = config.train.batch_size
        share = self.batch_size // runtime.processes
        self._own = slice(rank * share, (rank + 1) * share)
        self.per_epoch = len(self.samples) // self.batch_size
        self.seed, self.runtime = config.seed, runtime
        if self.per_epoch == 0:
            raise DataError(
                f"data set {data.name} has {len(self.samples)} training pictures, fewer than "
                f"train.batch_size = {self.batch_size}"
            )
        self.steps = math.ceil(config.train.samples / self.batch_size)

    def addresses(self, first: int = 0) -> Iterator[list[_Address]]:
        """The samples of each batch, from step `first` to the end of the budget."""
        order, of_epoch = np.empty(0, dtype=np.int64), -1
        for step in range(first, self.steps):
            epoch, place = divmod(step, self.per_epoch)
            if epoch != of_epoch:
                order = generator(self.seed, "order", epoch).permutation(len(self.samples))
                of_epoch = epoch
            chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield [_Address(epoch, int(index)) for index in chosen[self._own]]

    def start(self, first: int = 0) -> Iterator[Batch]:
        """Batches from step `first` on, decoded by `runtime.workers` processes."""
        loader: DataLoader[Any] = DataLoader(
            self.samples,
            batch_sampler=_From(self, first),
            num_workers=self.runtime.workers,
            collate_fn=_collate,
            worker_init_fn=_one_thread,
            pin_memory=torch.cuda.is_available(),
        )
        return iter(loader)


@dataclass(frozen=True)
class _From:
    """The addresses from a step on, made as they are asked for."""

    batches: Batches
    first: int

    def __iter__(self) -> Iterator[list[_Address]]:
        return self.batches.addresses(self.first)

    def __len__(self) -> int:
        return self.batches.steps - self.first


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def _collate(rows: list[tuple[np.ndarray, list[int], tuple[Problem, ...]]]) -> Batch:
    pictures, tokens, problems = zip(*rows, strict=True)
    return Batch(
        torch.from_numpy(np.stack(pictures)),
        pad(tokens),
        tuple(problem for of_row in problems for problem in of_row),
    )
