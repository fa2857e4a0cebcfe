"""How a data set is opened by name, once a process, and held to its fingerprint.

Torch-free, like the sources it opens: indexing decodes no pixel.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from harness.config import SOURCES, ClassFolder, Data, Evaluate, Runtime
from harness.data.dataset import DataSet
from harness.data.duplicates import find_duplicates
from harness.data.source import Source, cache_dir, path_of
from harness.errors import DataError
from harness.files import home_path

__all__ = ["SOURCES", "Source", "cache_dir", "path_of"]


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


def notes_on(data: DataSet, runtime: Runtime) -> list[str]:
    """What a user must know of a data set, a line each: what was decided, and leakage."""
    return [*data.account.notes, *find_duplicates(data, cache_dir(runtime)).lines(data)]


def check_evaluated(data: DataSet, evaluate: Evaluate) -> None:
    """DataError unless the evaluated half of `data` is what `evaluate.fingerprint` stands for."""
    _check_fingerprint(data.name, data.evaluation_fingerprint, evaluate.fingerprint)


@lru_cache(maxsize=8)
def _open_data(data: Data, cache: Path) -> DataSet:
    source = SOURCES.get(data.source)
    opened = data.section(data.source).open if isinstance(source, type) else source
    try:
        found: DataSet = opened(data, cache)
    except DataError as error:
        error.args = (f"{error}{_as_classes(data.path, cache)}",)
        raise
    return found


def _as_classes(path: str | None, cache: Path) -> str:
    """What to do with pictures that have classes and no captions; nothing of any others."""
    from harness.data.class_folders import some_of
    from harness.data.class_sets import looks_labelled, read_classes

    place = home_path(path or "")
    if not path or not place.exists() or not looks_labelled(place):
        return ""
    try:
        found = read_classes(path, cache)
        classes = some_of(found.classes, "class", "classes")
        what = f"{len(found.images):,} pictures of {classes} are there, without captions"
    except DataError as error:
        what = f"as classes: {error}"
    folder = json.dumps([{"name": place.stem, "path": path}])
    return f"; {what}: classes are evaluated, not trained on: evaluate.class_folders='{folder}'"


def open_class_folder(folder: ClassFolder, runtime: Runtime | None = None) -> DataSet:
    """A class-folder (or zip) as a data set with one split `test` and one task, once a process.

    Raises DataError as `open_data` does.
    """
    cache = cache_dir(runtime or Runtime())
    found = _open_class_folder(folder.model_copy(update={"fingerprint": None}), cache)
    _check_fingerprint(found.name, found.fingerprint, folder.fingerprint)
    return found


@lru_cache(maxsize=32)
def _open_class_folder(folder: ClassFolder, cache: Path) -> DataSet:
    from harness.data.class_sets import open_class_folder as index

    return index(folder, cache)


def _check_fingerprint(name: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise DataError(
            f"data set {name} has fingerprint {found[:12]}, but the configuration"
            f" was made for {expected[:12]}: its content has changed since"
        )
