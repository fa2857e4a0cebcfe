"""Per-example outcomes on disk turned into scores: one a picture, whose mean is the metric.

A metric is a mean over queries that are not independent (the captions of one picture), a mean over
classes, or a mean of such means.  Each becomes one score a picture of its test set, linearised
where pictures weigh unequally, so that one statistic serves them all.  Reads and never writes;
what cannot be used is told and never guessed at.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import NOT_WHOLE, RecordError
from harness.files import MAX_NPZ_BYTES, open_npz, read_regular
from harness.metrics import RETRIEVAL, Metric, metric_of
from harness.results.records import Record
from harness.store.checksums import OUTCOMES
from harness.store.first_stage import array_names
from harness.store.record import RunDir

_TORN = (MemoryError, zipfile.BadZipFile, zlib.error)
DAMAGED = "per-example outcomes cannot be used"
_TOLERANCE = 1e-5
"""How far the mean of the outcomes, which are kept in single precision, may lie from the value."""


@dataclass(frozen=True)
class PictureScores:
    """The scores (N,) of one metric in one run, and of what they are scores."""

    scores: NDArray[np.float64]
    pictures: str
    """Digest of the pictures' names: scores of different pictures are never paired."""
    right: NDArray[np.uint8] | None
    """1 or 0 an item, where each item is a picture of its own and no tie made one fractional."""


@dataclass(frozen=True)
class RunScores:
    """What one run's outcomes give."""

    by_metric: Mapping[str, PictureScores]
    sha256: str | None
    """Of the file read; None without one."""
    problem: str | None = None
    """Why nothing could be read."""


def read_scores(
    record: Record,
    metrics: Sequence[str],
    averages: Mapping[str, Sequence[str]] | None = None,
) -> RunScores:
    """The scores of `metrics` in the evaluation of `record`, of those that are means over items.

    Args:
        averages: metric that is the mean of others -> those others.
    """
    if record.evaluation is None:
        return RunScores({}, None, "no evaluation")
    file = outcomes_file(record)
    try:
        data = read_regular(file, MAX_NPZ_BYTES)
        sha256 = hashlib.sha256(data).hexdigest()
        if record.evaluation.get(OUTCOMES, sha256) != sha256:
            raise RecordError(f"{file.name} is not as it was written")
        arrays = _Arrays(open_npz(io.BytesIO(data)))
        recorded = record.evaluation["metrics"]
        told = [name for name in metrics if recorded.get(name, {"value": 0.0})["value"] is not None]
        found = {name: arrays.score(name, averages or {}) for name in told}
        _check_values(recorded, found)
    except FileNotFoundError:
        return RunScores({}, None, "no per-example outcomes on disk")
    except (OSError, *NOT_WHOLE, EOFError, *_TORN, RecordError) as error:
        return RunScores({}, None, f"{DAMAGED}: {error}")
    kept = {name: score for name, score in found.items() if score is not None}
    return RunScores(kept, sha256)


def outcomes_file(record: Record) -> Path:
    """Of its per-example outcomes, in the run's own directory, wherever that lies."""
    return RunDir(record.directory).outcomes / f"{record.evaluation_key}.npz"


def _check_values(
    recorded: Mapping[str, Mapping[str, Any]], found: Mapping[str, PictureScores | None]
) -> None:
    """RecordError where outcomes are not those of the result."""
    for name, score in found.items():
        value = recorded.get(name, {}).get("value")
        if score is not None and value is not None:
            mean = float(score.scores.mean())
            if not abs(mean - value) < _TOLERANCE * max(1.0, abs(value)):
                raise RecordError(f"their mean of {name} is {mean:.6f}, the result's {value:.6f}")


def _check_owners(owners: NDArray[Any], outcomes: int, pictures: int) -> None:
    if len(owners) != outcomes or not outcomes or owners.min() < 0 or owners.max() >= pictures:
        raise RecordError(f"{outcomes} outcomes do not belong to {pictures} pictures")


class _Arrays:
    """The arrays of one file, each read once and when asked for."""

    def __init__(self, archive: Any) -> None:
        self._archive = archive
        self._kept_as = array_names(archive.files)
        self._read: dict[str, NDArray[Any]] = {}

    def get(self, name: str) -> NDArray[Any] | None:
        if name not in self._read:
            if name not in self._kept_as:
                return None
            self._read[name] = self._archive[self._kept_as[name]]
        return self._read[name]

    def score(self, name: str, averages: Mapping[str, Sequence[str]]) -> PictureScores | None:
        """None where the metric is no mean over items of one set of pictures."""
        if name in averages:
            return self._mean_of([self.score(part, averages) for part in averages[name]])
        place, _, kind = name.rpartition("/")
        metric = metric_of(kind)
        if metric is None:
            return None
        if metric.parts:
            parts = [f"{place}/{part}" for part in metric.parts]
            return self._mean_of([self.score(part, averages) for part in parts])
        if metric.per_class:
            return self._mean_per_class(place, metric)
        return self._mean(place, metric)

    def _kept(self, place: str, metric: Metric) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """The outcomes that a metric is the mean of, and the pictures that they belong to."""
        return self.get(f"{place}/{metric.per_item}"), self.get(f"{place}/{metric.items}")

    def _mean(self, place: str, metric: Metric) -> PictureScores | None:
        outcomes, owners = self._kept(place, metric)
        pictures = self._pictures(place, metric)
        if outcomes is None or owners is None or pictures is None:
            return None
        count, digest = pictures
        _check_owners(owners, len(outcomes), count)
        values = outcomes.astype(np.float64)
        mean = values.mean()
        scores = mean + np.bincount(owners, values - mean, count) * (count / len(values))
        single = len(np.unique(owners)) == len(owners) and outcomes.dtype == np.uint8
        return PictureScores(scores, digest, outcomes if single else None)

    def _mean_per_class(self, place: str, metric: Metric) -> PictureScores | None:
        outcomes, owners = self._kept(place, metric)
        labels, pictures = self.get(f"{place}/labels"), self._pictures(place, metric)
        if outcomes is None or owners is None or labels is None or pictures is None:
            return None
        count, digest = pictures
        _check_owners(owners, len(outcomes), count)
        values = outcomes.astype(np.float64)
        _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        recalls = np.bincount(index, values) / sizes
        parts = (values - recalls[index]) / sizes[index]
        scores = recalls.mean() + np.bincount(owners, parts, count) * (count / len(sizes))
        return PictureScores(scores, digest, None)

    def _mean_of(self, parts: Sequence[PictureScores | None]) -> PictureScores | None:
        known = [part for part in parts if part is not None]
        if not parts or len(known) < len(parts) or len({p.pictures for p in known}) > 1:
            return None
        return PictureScores(
            np.mean([part.scores for part in known], axis=0), known[0].pictures, None
        )

    def _pictures(self, place: str, metric: Metric) -> tuple[int, str] | None:
        """Of the set that a place is: `test` of the task `test/role`, else the place itself."""
        split = place if metric.needs == RETRIEVAL else place.partition("/")[0]
        names = self.get(f"{split}/items/images")
        if names is None:
            return None
        return len(names), hashlib.sha256(names.tobytes()).hexdigest()


def read_class_recalls(record: Record, metric: str) -> dict[str, float] | None:
    """Class name -> share of its pictures that `metric`, a top-1 accuracy, counts as right.

    Of the classes with a picture; None without outcomes, names or labels.
    """
    if record.evaluation is None:
        return None
    place = metric.rpartition("/")[0]
    protocol = record.evaluation["protocol"]
    task = {**protocol.get("tasks", {}), **protocol["class_folders"]}.get(place.rpartition("/")[2])
    file = outcomes_file(record)
    try:
        arrays = _Arrays(open_npz(file))
        right, labels = arrays.get(metric), arrays.get(f"{place}/labels")
    except (OSError, *NOT_WHOLE, EOFError, *_TORN):
        return None
    names = (task or {}).get("classnames")
    if right is None or labels is None or names is None or len(right) != len(labels):
        return None
    counts = np.bincount(labels, minlength=len(names))
    hits = np.bincount(labels, right.astype(np.float64), minlength=len(names))
    return {name: float(hits[c] / counts[c]) for c, name in enumerate(names) if counts[c]}
