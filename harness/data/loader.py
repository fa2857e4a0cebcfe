"""A stateless stream of training batches: batch k is a function of the run's seed and k alone.

Order, caption and crop come from generators seeded by (seed, epoch) and (seed, epoch, sample), so a
run that is cut off goes on from a number, and neither workers nor processes change what is seen.
Which samples a batch holds is `harness.data.order`'s.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.config import RunConfig, Runtime
from harness.data.account import Problem
from harness.data.catalog import cache_dir
from harness.data.dataset import Ahead, DataSet
from harness.data.images import BadImage, Encoded, KeptPictures, check_turbo, decode
from harness.data.order import Places
from harness.data.pictured import Pictured, PictureSpec
from harness.data.quarantine import read_quarantine
from harness.data.shared import AHEAD, VARIABLE
from harness.data.shared_samples import SharedSamples
from harness.data.text import Tokenizer, pad
from harness.data.transforms import Look, scaled_view, train_view
from harness.errors import DataError
from harness.seeding import generator

_REPLACEMENTS = 100
"""Neighbours tried in place of an unusable sample before the data is declared broken."""

_WORTH_ADVICE = 0.2

_PROBES = 8
"""Pictures of each split that are decoded before anything is queued."""


@dataclass(frozen=True)
class Lessons:
    """What is made of each batch for teachers.

    Attributes:
        sizes: of the pictures that live ones take.
        views: epochs whose draws are all that is seen, again and again; None: each has its own.
    """

    sizes: tuple[int, ...] = ()
    views: int | None = None


class Lesson(NamedTuple):
    """What teachers look at of the pairs of a batch.

    Attributes:
        places, views: int64 (N,), of the samples in `train`, and the epochs of their draws.
        captions: the N that were drawn.
        pictures: size -> uint8 (N, size, size, 3), the crops of the batch at each size.
    """

    places: Tensor
    views: Tensor
    captions: tuple[str, ...]
    pictures: Mapping[int, Tensor]


class Batch(NamedTuple):
    """Pictures uint8 (N, S, S, 3), tokens int64 (N, L), and what could not be used.

    Attributes:
        views: name of a term of the loss -> the further views it looks at, uint8 (N, V, S, S, 3).
        made: batches that were decoded here since the one before; 0: another run did.
    """

    pictures: Tensor
    tokens: Tensor
    problems: tuple[Problem, ...]
    views: Mapping[str, Tensor]
    lesson: Lesson | None = None
    made: int = 1


class _Sample(NamedTuple):
    seen: Pictured
    ids: list[int]
    epoch: int
    caption: str


@dataclass(frozen=True)
class _Address:
    epoch: int
    index: int


class _Samples(Dataset[Any]):
    """Batches of addresses to augmented views, one caption's tokens, and what views terms want.

    What is seen is decided by `spec` and by the content alone, so that runs of equal specs may have
    their pictures from one another.
    """

    def __init__(
        self, data: DataSet, tokenizer: Tokenizer, spec: PictureSpec, runtime: Runtime
    ) -> None:
        self.data, self.split, self.spec = data, data.split("train"), spec
        share = max(1, runtime.workers or 0) * runtime.processes
        self.kept = KeptPictures(runtime.decode_cache_mb * 2**20 // share)
        self.turbo = spec.data.decoder == "turbo"
        if self.turbo:
            check_turbo("data.decoder = 'turbo'")
        self.tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, wanted: Sequence[_Address]) -> tuple[list[_Sample], int]:
        """The samples, and for how many batches pictures were decoded here."""
        return self.with_texts(wanted, self.pictured(wanted)), 1

    def pictured(self, wanted: Sequence[_Address]) -> list[Pictured]:
        """What is seen of samples, decoded here."""
        return [self._pictured(self._epoch(address), address.index) for address in wanted]

    def with_texts(self, wanted: Sequence[_Address], seen: Sequence[Pictured]) -> list[_Sample]:
        """The same with the captions of what is seen."""
        made = []
        for address, row in zip(wanted, seen, strict=True):
            epoch = self._epoch(address)
            caption, _ = self._draws(epoch, row.place)
            made.append(_Sample(row, self.tokenizer.encode(caption), epoch, caption))
        return made

    def _epoch(self, address: _Address) -> int:
        """Whose draws are seen."""
        views = self.spec.views
        return address.epoch if views is None else address.epoch % views

    def _pictured(self, epoch: int, first: int) -> Pictured:
        problems: list[Problem] = []
        size = self.spec.size
        for step in range(_REPLACEMENTS):
            index = (first + step) % len(self.split)
            try:
                looks = self._looks(index)
                view, *others = (
                    self._view(looks(s), self._draws(epoch, index)[1])
                    for s in (size, *self.spec.sizes)
                )
                further = self._further_views(looks(size), epoch, index)
            except (BadImage, OSError, KeyError) as error:
                problems.append(Problem(self.split.images[index], str(error)))
                continue
            return Pictured(view, tuple(problems), index, tuple(others), further)
        raise DataError(
            f"{_REPLACEMENTS} pictures in a row cannot be used; the first: "
            f"{problems[0].where}: {problems[0].reason}"
        )

    def _draws(self, epoch: int, index: int) -> tuple[str, np.random.Generator]:
        """The caption that a sample has in an epoch, and what draws its crop."""
        rng = generator(self.spec.seed, "sample", epoch, index)
        captions = self.split.captions[index]
        return captions[int(rng.integers(len(captions)))], rng

    def _view(self, look: Look, rng: np.random.Generator) -> np.ndarray:
        return look(self.spec.data.crop_scale, self.spec.data.flip, rng)

    def _further_views(self, look: Look, epoch: int, index: int) -> dict[str, np.ndarray]:
        """By the name of a term; drawn apart, so that nothing else that is seen is moved."""
        found = {}
        for name, term in self.spec.viewers.items():
            rng = generator(self.spec.seed, "sample", epoch, index, name)
            found[name] = np.stack(term.make_views(look, rng))
        return found

    def _looks(self, index: int) -> Callable[[int], Look]:
        """Size -> what makes views of picture `index` at that size, of pixels decoded once."""
        if self.spec.data.decode == "scaled":
            return lambda size: partial(self._scaled, index, size)
        pixels = self.kept.get(index, partial(self._decoded, index))
        return lambda size: partial(train_view, pixels, size, quick=self.turbo)

    def _scaled(
        self,
        index: int,
        size: int,
        scale: tuple[float, float],
        flip: bool,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """A view whose crop decides how the picture is decoded, so that each decodes it anew."""
        data = self.kept.get(index, partial(self._read, index))
        picture = Encoded(data, max_pixels=self.spec.max_pixels, turbo=self.turbo)
        return scaled_view(picture, size, scale, flip, rng)

    def _decoded(self, index: int) -> np.ndarray:
        return decode(self._read(index), max_pixels=self.spec.max_pixels, turbo=self.turbo)

    def _read(self, index: int) -> bytes:
        image = self.split.images[index]
        if image in self.spec.known_bad:
            raise BadImage(self.spec.known_bad[image])
        return self.data.read(image)


class Batches:
    """The stream of one run, from any step on.

    Args:
        rank: which of `runtime.processes` equal shares of each batch, in its order, is made.
        lessons: what each batch holds for teachers; None without any.
    """

    def __init__(
        self,
        data: DataSet,
        tokenizer: Tokenizer,
        config: RunConfig,
        runtime: Runtime,
        rank: int = 0,
        lessons: Lessons | None = None,
    ) -> None:
        known_bad = read_quarantine(cache_dir(runtime), data, runtime.max_pixels)
        wanted = lessons or Lessons()
        spec = PictureSpec.of(
            config,
            runtime,
            fingerprint=data.fingerprint,
            known_bad=known_bad.get("train", {}),
            sizes=wanted.sizes,
            views=wanted.views,
            rank=rank,
        )
        self.samples = _Samples(data, tokenizer, spec, runtime)
        self._collate = partial(_collate, lessons)
        self.batch_size = spec.batch_size
        self._own = slice(rank * spec.rows, (rank + 1) * spec.rows)
        self.data, self.runtime = data, runtime
        if len(self.samples) < self.batch_size:
            raise DataError(
                f"data set {data.name} has {len(self.samples)} training pictures, fewer than "
                f"train.batch_size = {self.batch_size}"
            )
        self.order = data.order(self.batch_size, config.seed)
        self.per_epoch = self.order.per_epoch
        self.steps = math.ceil(config.train.samples / self.batch_size)

    @property
    def known_bad(self) -> tuple[Problem, ...]:
        """What `python -m harness.data check` found unusable of the training pictures."""
        bad = self.samples.spec.known_bad
        return tuple(Problem(where, reason) for where, reason in bad.items())

    def addresses(self, first: int = 0) -> Iterator[list[_Address]]:
        """The samples of each batch, from step `first` to the end of the budget."""
        return map(self.addresses_of, range(first, self.steps))

    def addresses_of(self, step: int) -> list[_Address]:
        """The samples of the batch of a step."""
        epochs, places = (part[self._own].tolist() for part in self.order.take(step))
        return [_Address(*pair) for pair in zip(epochs, places, strict=True)]

    def start(self, first: int = 0) -> Iterator[Batch]:
        """Batches from step `first` on, decoded by `runtime.workers` processes."""
        folder = os.environ.get(VARIABLE)
        shared = SharedSamples(self.samples, Path(folder)) if folder else None
        loader: DataLoader[Any] = DataLoader(
            shared or self.samples,
            batch_sampler=_From(self, first, by_step=shared is not None),
            num_workers=self.runtime.workers or 0,
            collate_fn=self._collate,
            worker_init_fn=_one_thread,
            pin_memory=torch.cuda.is_available(),
        )
        # Before `ahead`: workers are forked from a process without its thread.
        stream: Iterator[Batch] = iter(loader)
        stream = stream if shared is None else shared.told(stream)
        ahead = self.data.ahead(self._places(first), self.order)
        return stream if ahead is None else _followed(stream, ahead)

    def _places(self, first: int) -> Iterator[Places]:
        for step in range(first, self.steps):
            yield self.order.take(step)[1][self._own]


def pairs_of_view(
    data: DataSet, config: RunConfig, runtime: Runtime, view: int, places: Sequence[int]
) -> Iterator[Batch]:
    """Samples of `train` as the runs of `config` see them in epoch `view`, a batch at a time.

    One that cannot be used is another in its place, as in a run.
    """
    tokenizer = Tokenizer(config.model.text.context_length)
    spec = PictureSpec.of(config, runtime, fingerprint=data.fingerprint)
    samples = _Samples(data, tokenizer, spec, runtime)
    size = config.train.batch_size
    batches = [
        [_Address(view, place) for place in places[first : first + size]]
        for first in range(0, len(places), size)
    ]
    return iter(
        DataLoader(
            samples,
            batch_sampler=batches,
            num_workers=runtime.workers or 0,
            collate_fn=partial(_collate, Lessons()),
            worker_init_fn=_one_thread,
        )
    )


def bound_lost(data: DataSet, runtime: Runtime) -> None:
    """DataError when more of what was listed cannot be used than is allowed."""
    if data.share_lost(0, 0) > runtime.max_bad_fraction:
        shown = "; ".join(f"{p.where}: {p.reason}" for p in data.problems[:3])
        raise DataError(
            f"data set {data.name}: {len(data.problems):,} of {data.indexed:,} files or rows "
            f"cannot be used, more than runtime.max_bad_fraction = {runtime.max_bad_fraction:g} "
            f"allows: {shown}; `python -m harness.data check` counts them by cause"
        )


def check_pictures(data: DataSet, runtime: Runtime) -> None:
    """DataError when none of a few pictures, spread over a split, can be decoded."""
    for name, split in data.splits.items():
        places = np.linspace(0, len(split) - 1, min(_PROBES, len(split))).astype(int)
        reasons = []
        for place in places:
            image = split.images[int(place)]
            try:
                decode(data.read(image), max_pixels=runtime.max_pixels)
            except (BadImage, OSError, KeyError) as error:
                reasons.append(f"{image}: {error}")
        if len(places) and len(reasons) == len(places):
            raise DataError(
                f"data set {data.name}, split {name}: none of {len(places)} pictures tried can be "
                f"decoded; {reasons[0]}"
            )


def advice(wait_share: float, runtime: Runtime) -> str | None:
    """What to do about a run that spent `wait_share` of its time waiting for its next batch."""
    if wait_share < _WORTH_ADVICE:
        return None
    return (
        f"{wait_share:.0%} of the training time was spent waiting for pictures: raise "
        f"runtime.workers (now {runtime.workers or 0}), decode less (data.decode=scaled) or "
        "faster (data.decoder=turbo), make the pictures small once (python -m harness.data pack), "
        "or decode once for runs side by side (--share-data)"
    )


def _followed(stream: Iterator[Batch], ahead: Ahead) -> Iterator[Batch]:
    """The stream, with `ahead` told how far it is."""
    try:
        for number, batch in enumerate(stream):
            ahead.reached(number + 1)
            yield batch
    finally:
        ahead.close()


@dataclass(frozen=True)
class _From:
    """The addresses from a step on, made as they are asked for.

    Attributes:
        by_step: with their step, and with the next ones of the process that is handed them.
    """

    batches: Batches
    first: int
    by_step: bool = False

    def __iter__(self) -> Iterator[Any]:
        if not self.by_step:
            yield from self.batches.addresses(self.first)
            return
        stride = max(1, self.batches.runtime.workers or 0)
        addresses_of = lru_cache(maxsize=stride * (AHEAD + 1))(self.batches.addresses_of)
        for step in range(self.first, self.batches.steps):
            own = range(step, self.batches.steps, stride)[: AHEAD + 1]
            yield {each: addresses_of(each) for each in own}

    def __len__(self) -> int:
        return self.batches.steps - self.first


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def _collate(lessons: Lessons | None, fetched: tuple[list[_Sample], int]) -> Batch:
    rows, made = fetched
    seen = [row.seen for row in rows]
    return Batch(
        torch.from_numpy(np.stack([each.view for each in seen])),
        pad([row.ids for row in rows]),
        tuple(problem for each in seen for problem in each.problems),
        {
            name: torch.from_numpy(np.stack([each.further[name] for each in seen]))
            for name in seen[0].further
        },
        None if lessons is None else _lesson(lessons, rows),
        made,
    )


def _lesson(lessons: Lessons, rows: list[_Sample]) -> Lesson:
    return Lesson(
        torch.tensor([row.seen.place for row in rows]),
        torch.tensor([row.epoch for row in rows]),
        tuple(row.caption for row in rows),
        {
            size: torch.from_numpy(np.stack([row.seen.at_sizes[place] for row in rows]))
            for place, size in enumerate(lessons.sizes)
        },
    )
