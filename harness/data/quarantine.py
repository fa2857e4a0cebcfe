"""The list of pictures that a check found unusable, which later runs of the same data read.

It spares a run the reading of what is known to be broken and fails it at its start where there is
too much of that; what a run sees is the same with and without it.  Knows no pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.data.dataset import DataSet
from harness.data.verified import cache_key, keep_json, kept_json
from harness.errors import DataError

_VERSION = 1

Quarantine = Mapping[str, Mapping[str, str]]
"""Split -> picture -> why it cannot be used."""


def quarantine_file(cache: Path, data: DataSet, max_pixels: int) -> Path:
    """Where the list of a data set is: one for each content and each limit of pixels."""
    what = [data.fingerprint, data.evaluation_fingerprint, max_pixels]
    return cache / "quarantine" / f"{data.name}-{cache_key(what)}.json"


def write_quarantine(cache: Path, data: DataSet, max_pixels: int, bad: Quarantine) -> Path:
    """Keep the list; where it is."""
    file = quarantine_file(cache, data, max_pixels)
    content = {
        "version": _VERSION,
        "data": data.name,
        "fingerprint": data.fingerprint,
        "evaluation_fingerprint": data.evaluation_fingerprint,
        "max_pixels": max_pixels,
        "bad": bad,
    }
    keep_json(file, content)
    return file


def read_quarantine(cache: Path, data: DataSet, max_pixels: int) -> Quarantine:
    """The list, empty if nothing was checked; DataError when the file is damaged."""
    file = quarantine_file(cache, data, max_pixels)
    if not file.exists():
        return {}
    content = kept_json(file)
    if content is None:
        raise DataError(f"{file} is damaged, or of an earlier version: check the data again")
    bad: Quarantine = content["bad"]
    return bad if content["version"] == _VERSION else {}
