"""What a data set is to the rest of the harness, and how one is opened by name.

A source indexes: it lists pictures, captions, splits and zero-shot tasks and fingerprints them, but
decodes no pixel.  Torch-free, because the plan needs the fingerprint before any run starts.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from harness.config import ClassFolder, Data, Evaluate, Runtime
from harness.errors import ConfigError, DataError, unknown
from harness.registry import Registry

#: Other names of the three customary splits, as data sets spell them.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Problem:
    """A sample that cannot be used, and why."""

    where: str
    reason: str


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
        indexed: samples looked at, usable or not: the denominator of the bad fraction.
    """

    name: str
    fingerprint: str
    evaluation_fingerprint: str
    splits: Mapping[str, Split]
    tasks: tuple[Task, ...] = ()
    problems: tuple[Problem, ...] = field(default=())
    indexed: int = 0

    @abstractmethod
    def read(self, image: str) -> bytes:
        """The encoded bytes of a picture.

        Raises OSError or KeyError when it is not there or its container is damaged.
        """

    def prepare(self) -> None:  # noqa: B027 - most data sets have nothing to prepare
        """Make what `read` needs (a cache of rendered drawings); safe in several processes."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, fingerprint {self.fingerprint[:12]})"

    def split(self, name: str) -> Split:
        """The split called `name`; DataError lists those there are."""
        if name not in self.splits:
            raise DataError(f"data set {self.name}: {unknown('split', name, self.splits)}")
        return self.splits[name]


def cache_dir(runtime: Runtime) -> Path:
    """Where derived data may be kept between runs."""
    if runtime.cache is not None:
        return Path(runtime.cache)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "lightclip-harness"


def split_name(given: str) -> str:
    """The customary name of a split (`dev` -> `validation`); any other name is kept as it is."""
    return SPLIT_NAMES.get(given.strip().casefold(), given.strip())


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


#: A source: a function of the `data` section and the cache folder.
Opener = Callable[[Data, Path], DataSet]

#: name -> source; a sweep file may register its own.
SOURCES: Registry[Opener] = Registry("data source")


@SOURCES.register("openmoji")
def _openmoji(data: Data, cache: Path) -> DataSet:
    from harness.data.openmoji import open_openmoji

    return open_openmoji(data.resolution, cache)


@SOURCES.register("folder")
def _folder(data: Data, cache: Path) -> DataSet:
    from harness.data.folder import open_folder

    return open_folder(_path_of(data))


@SOURCES.register("shards")
def _shards(data: Data, cache: Path) -> DataSet:
    from harness.data.shards import open_shards

    return open_shards(_path_of(data), cache)


def _path_of(data: Data) -> str:
    if not data.path:
        raise ConfigError(f"source {data.source} needs data.path=...")
    return data.path


def open_data(data: Data, runtime: Runtime) -> DataSet:
    """Index the data set that `data` names, once a process.

    Raises ConfigError (unknown source, no path) or DataError (nothing usable, or a content that is
    not the one `data.fingerprint` stands for), each in one line.
    """
    found = _open_data(data.model_copy(update={"fingerprint": None}), cache_dir(runtime))
    _check_fingerprint(found.name, found.fingerprint, data.fingerprint)
    return found


def check_evaluated(data: DataSet, evaluate: Evaluate) -> None:
    """DataError unless the evaluated half of `data` is what `evaluate.fingerprint` stands for."""
    _check_fingerprint(data.name, data.evaluation_fingerprint, evaluate.fingerprint)


@lru_cache(maxsize=8)
def _open_data(data: Data, cache: Path) -> DataSet:
    return SOURCES.get(data.source)(data, cache)


def open_class_folder(folder: ClassFolder) -> DataSet:
    """A class-folder (or zip) as a data set with one split `test` and one task, once a process.

    Raises DataError as `open_data` does.
    """
    found = _open_class_folder(folder.model_copy(update={"fingerprint": None}))
    _check_fingerprint(found.name, found.fingerprint, folder.fingerprint)
    return found


@lru_cache(maxsize=32)
def _open_class_folder(folder: ClassFolder) -> DataSet:
    from harness.data.folder import open_class_folder as index

    return index(folder)


def _check_fingerprint(name: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise DataError(
            f"data set {name} has fingerprint {found[:12]}, but the configuration"
            f" was made for {expected[:12]}: its content has changed since"
        )
