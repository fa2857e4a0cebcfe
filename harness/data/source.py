"""What a kind of data set is: its options, and how it is opened."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from harness.config import Data, Runtime, Strict
from harness.data.dataset import DataSet
from harness.errors import ConfigError


class Source(Strict, ABC):
    """Where a data set comes from: its options, and how it is opened.

    Registered in a file of `harness.data.sources` or in a sweep file.  The fields of a subclass are
    the section of `data` that has the source's name, and part of the identity of its runs.
    """

    unused: ClassVar[frozenset[str]] = frozenset()
    """Fields of `data` that it does not use, which are then in no key."""

    @abstractmethod
    def open(self, data: Data, cache: Path) -> DataSet:
        """The data set, indexed and not decoded.

        Args:
            cache: folder for what may be kept between runs.

        Raises ConfigError or DataError in one line.
        """


def path_of(data: Data) -> str:
    """`data.path`; ConfigError without one."""
    if not data.path:
        raise ConfigError(f"source {data.source} needs data.path=...")
    return data.path


def cache_dir(runtime: Runtime) -> Path:
    """Where derived data may be kept between runs."""
    if runtime.cache is not None:
        return Path(runtime.cache)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "lightclip-harness"
