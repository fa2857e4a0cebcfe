"""What a data set is to the rest of the harness.

Pictures by name, captions, splits, zero-shot tasks, and what fingerprints them; no pixel is decoded
here and nothing is opened.  Torch-free, because the plan needs the fingerprint before any run
starts.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from harness.data.account import Account, Problem
from harness.data.order import Places, Pool, SampleOrder
from harness.errors import DataError, unknown


@dataclass(frozen=True)
class Split:
    """The pictures of one split and the captions of each; `images` are names for `read`."""

    images: Sequence[str]
    captions: Sequence[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Task:
    """A zero-shot classification task defined on a data set's own pictures.

    `labels[split][i]` is the class of picture i of that split, or -1 where the task does not
    apply to it.
    """

    name: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    labels: Mapping[str, Sequence[int]]


class Ahead(Protocol):
    """Something that gets pictures ready before they are read."""

    def reached(self, number: int) -> None:
        """Batch `number` is about to be read."""

    def close(self) -> None:
        """Nothing more will be read."""


@dataclass(frozen=True, eq=False, repr=False)
class DataSet(ABC):
    """An indexed data set; picklable, and safe to read from in forked processes.

    Attributes:
        name: short, for tables (`openmoji`, `flickr8k`).
        fingerprint: SHA-256 of what is trained on: names and captions of the split `train` and
            its pictures' content (or their sizes and checksums where reading all would take
            long); never over a path.
        evaluation_fingerprint: the same of all other splits and of the tasks, so that a new prompt
            or test picture evaluates finished runs again and retrains none.
        splits: name -> split.
        problems: samples left out while indexing (empty caption, missing file), with reasons.
        indexed: rows looked at, usable or not: lines or records of tables, or samples of shards.
        account: what was read, and how the splits came about.
    """

    name: str
    fingerprint: str
    evaluation_fingerprint: str
    splits: Mapping[str, Split]
    tasks: tuple[Task, ...] = ()
    problems: tuple[Problem, ...] = field(default=())
    indexed: int = 0
    account: Account = field(default=Account())

    @abstractmethod
    def read(self, image: str) -> bytes:
        """The encoded bytes of a picture.

        Raises OSError or KeyError when it is not there or its container is damaged.
        """

    def beginning(self, image: str, most: int) -> bytes:
        """The first bytes of a picture, up to `most`; OSError or KeyError as `read`."""
        return self.read(image)[:most]

    def sizes(self, split: str) -> np.ndarray | None:
        """Bytes of each picture of a split, int64 (N,); None where reading alone tells."""
        return None

    def checksum(self, image: str) -> int | None:
        """CRC-32 of a picture, where it is known without reading it."""
        return None

    def prepare(self) -> None:  # noqa: B027 - most data sets have nothing to prepare
        """Make what `read` needs (a cache of rendered drawings); safe in several processes."""

    def keep_within(self, max_bytes: int) -> None:  # noqa: B027 - most data sets fetch nothing
        """Bound the copies on disk of what is fetched while it is read."""

    def order(self, batch_size: int, seed: int) -> SampleOrder:
        """Which samples of `train` each batch of a run holds; DataError if they are too few."""
        return SampleOrder([Pool(0, len(self.split("train")))], batch_size, seed)

    def ahead(self, batches: Iterator[Places], order: SampleOrder) -> Ahead | None:
        """Begin to get ready the pictures of `train` that this process will read.

        Args:
            batches: the indexes of its samples, a batch at a time.
            order: what they are a share of.
        """
        return None

    def share_lost(self, pictures: int, of: int) -> float:
        """The share of unusable samples: of the rows, and of the `of` pictures that were decoded.

        Rows and pictures are counted apart, because a picture may have many rows.
        """
        return len(self.problems) / max(1, self.indexed) + pictures / max(1, of)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, fingerprint {self.fingerprint[:12]})"

    def split(self, name: str) -> Split:
        """The split called `name`; DataError lists those there are."""
        if name not in self.splits:
            raise DataError(
                f"data set {self.name}: {unknown('split', name, self.splits)}; evaluate.splits "
                "names those that are evaluated, docs/data.md says how files are told apart"
            )
        return self.splits[name]


def halves(splits: Mapping[str, Split]) -> tuple[dict[str, Split], dict[str, Split]]:
    """The splits that are trained on, and those that are evaluated on."""
    train = {name: split for name, split in splits.items() if name == "train"}
    return train, {name: split for name, split in splits.items() if name != "train"}


def content_fingerprint(
    splits: Mapping[str, Split], tasks: Iterable[Task], pictures: Iterable[str]
) -> str:
    """SHA-256 over names, captions, splits, tasks and `pictures`.

    `pictures` says what the pictures hold: a line each (size, checksum), in the order of the sorted
    splits, or whatever else decides their pixels.
    """
    digest = hashlib.sha256()

    def add(value: object) -> None:
        digest.update(json.dumps(value, ensure_ascii=True).encode() + b"\n")

    for name in sorted(splits):
        add([name, list(splits[name].images), list(splits[name].captions)])
    for task in tasks:
        labels = {split: list(task.labels[split]) for split in sorted(task.labels)}
        add([task.name, task.classnames, task.templates, labels])
    add(list(pictures))
    return digest.hexdigest()
