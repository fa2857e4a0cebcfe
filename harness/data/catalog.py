"""How a data set is opened by name, once a process, and held to its fingerprint.

Torch-free, like the sources it opens: indexing decodes no pixel.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from harness.config import ClassFolder, Data, Evaluate, Runtime
from harness.data.dataset import DataSet
from harness.errors import ConfigError, DataError
from harness.registry import Registry


def cache_dir(runtime: Runtime) -> Path:
    """Where derived data may be kept between runs."""
    if runtime.cache is not None:
        return Path(runtime.cache)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "lightclip-harness"


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

    return open_shards(_path_of(data), cache, data.weights)


@SOURCES.register("stream")
def _stream(data: Data, cache: Path) -> DataSet:
    from harness.data.shards import open_stream

    return open_stream(_path_of(data), cache, data.weights, data.shuffle_window)


def _path_of(data: Data) -> str:
    if not data.path:
        raise ConfigError(f"source {data.source} needs data.path=...")
    return data.path


def open_data(data: Data, runtime: Runtime) -> DataSet:
    """Index the data set that `data` names, once a process.

    Raises ConfigError (unknown source, no path) or DataError (nothing usable, or a content that is
    not the one `data.fingerprint` stands for), each in one line.
    """
    found = find_data(data, runtime)
    _check_fingerprint(found.name, found.fingerprint, data.fingerprint)
    return found


def find_data(data: Data, runtime: Runtime) -> DataSet:
    """The same, not yet asked for its fingerprint, which of a stream takes an index."""
    found = _open_data(data.model_copy(update={"fingerprint": None}), cache_dir(runtime))
    found.keep_within(runtime.spool_mb * 10**6)
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
