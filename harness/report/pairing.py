"""Carries out the comparisons that are wanted, reading each run's per-example outcomes once.

Owns the reading order: outcomes of all runs of a large sweep do not fit in memory, so those of the
references are kept and those of the other points let go as soon as they are compared.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.report.collect import Collection
from harness.report.comparisons import Comparison, ScoresBySeed, compare
from harness.report.outcomes import RunScores, read_scores
from harness.report.summary import Cells


@dataclass(frozen=True, slots=True)
class Wanted:
    """One comparison, and the family that it belongs to."""

    point: int
    reference: int
    metric: str
    family: Hashable


@dataclass(frozen=True)
class Compared:
    """The comparisons by family, in the order wanted, and what was read for them."""

    families: Mapping[Hashable, list[Comparison]]
    outcomes: Mapping[str, str]
    """Run key -> SHA-256 of the outcomes read."""
    unread: Mapping[str, tuple[str, ...]]
    """Why outcomes could not be used -> keys of the runs."""


def compare_all(
    wanted: Iterable[Wanted],
    collection: Collection,
    cells: Cells,
    *,
    shown: Sequence[str],
    averages: Mapping[str, Sequence[str]],
) -> Compared:
    """Every comparison of `wanted` that has a seed to pair.

    Args:
        shown: the metrics whose outcomes are read.
        averages: those of them that are means of others.
    """
    by_point: dict[int, list[Wanted]] = {}
    for each in wanted:
        by_point.setdefault(each.point, []).append(each)
    reader = _Reader(collection, shown, averages)
    kept = {
        point: reader.read(point)
        for point in sorted({each.reference for all_ in by_point.values() for each in all_})
    }
    families: dict[Hashable, list[Comparison]] = {}
    for point, each_wanted in by_point.items():
        own = kept[point] if point in kept else reader.read(point)
        made: dict[tuple[int, str], Comparison | None] = {}
        for each in each_wanted:
            place = (each.reference, each.metric)
            if place not in made:
                made[place] = _compare(each, cells, own, kept[each.reference])
            comparison = made[place]
            if comparison is not None:
                families.setdefault(each.family, []).append(comparison)
    unread = {reason: tuple(keys) for reason, keys in reader.unread.items()}
    return Compared(families, reader.outcomes, unread)


_RunsOfPoint = Mapping[int, RunScores]


def _compare(
    wanted: Wanted, cells: Cells, own: _RunsOfPoint, reference: _RunsOfPoint
) -> Comparison | None:
    cell, other = (cells[(point, wanted.metric)] for point in (wanted.point, wanted.reference))
    return compare(
        wanted.point,
        wanted.reference,
        wanted.metric,
        (cell.values, other.values),
        (_scores(own, wanted.metric), _scores(reference, wanted.metric)),
        len(cell.seeds),
    )


def _scores(runs: _RunsOfPoint, metric: str) -> ScoresBySeed:
    return {
        seed: scores.by_metric[metric]
        for seed, scores in runs.items()
        if metric in scores.by_metric
    }


class _Reader:
    """Reads the outcomes of a point's runs, and keeps account of it."""

    def __init__(
        self,
        collection: Collection,
        shown: Sequence[str],
        averages: Mapping[str, Sequence[str]],
    ) -> None:
        self._shown, self._averages = shown, averages
        self._collection = collection
        self.outcomes: dict[str, str] = {}
        self.unread: dict[str, list[str]] = {}

    def read(self, point: int) -> _RunsOfPoint:
        """Seed -> scores, of the runs that gave numbers."""
        found = {}
        for record in self._collection.of_point(point):
            if record.reason is None:
                scores = read_scores(record, self._shown, self._averages)
                found[record.seed] = scores
                if scores.sha256 is not None:
                    self.outcomes[record.key] = scores.sha256
                if scores.problem is not None:
                    self.unread.setdefault(scores.problem, []).append(record.key)
        return found
