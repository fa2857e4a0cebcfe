"""Reads the per-example outcomes of a collection once, run by run, and keeps what tests need.

Owns the reading order: the outcomes of all runs of a large sweep do not fit in memory as they are,
so items of a very large one are put together into random blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.results.collect import Collection
from harness.results.outcomes import PictureScores, RunScores, read_scores
from harness.stats.intervals import MOST, bootstrap, in_blocks, mcnemar
from harness.stats.layout import ItemSpread

#: Numbers that are kept of all runs together; 4 bytes each.
_ROOM = 50_000_000
_FEWEST_BLOCKS = 200


@dataclass(frozen=True)
class Pair:
    """What the items of two points say by themselves."""

    items: tuple[float, float] | None = None
    """Bootstrap interval over items of the mean difference, the models as they are."""
    exact: Mapping[int, float] = field(default_factory=dict)
    """Seed -> p of McNemar's exact test."""


class Outcomes:
    """The scores of every run of a collection, of the shown metrics that are means over items.

    Args:
        shown: the metrics.
        averages: those of them that are means of others.
        pairs: (point, reference) whose items are compared by themselves.
    """

    def __init__(
        self,
        collection: Collection,
        shown: Sequence[str],
        averages: Mapping[str, Sequence[str]],
        pairs: Iterable[tuple[int, int]],
    ) -> None:
        self.digests: dict[tuple[str, str], str] = {}
        """(run key, evaluation key) -> SHA-256 of the outcomes read."""
        self.problems: dict[str, list[str]] = {}
        """Why outcomes could not be used -> keys of the runs."""
        self._shown, self._averages = shown, averages
        room = _ROOM // max(1, len(shown) * len(collection.records))
        self._most = min(MOST, max(_FEWEST_BLOCKS, room))
        self._scores: dict[str, dict[tuple[int, int], NDArray[np.float32]]] = {}
        self._pictures: dict[str, dict[tuple[int, int], str]] = {}
        self._pairs: dict[tuple[int, int, str], Pair] = {}
        self._read(collection, list(pairs))

    def spread(
        self, metric: str, points: Sequence[int], only: Mapping[int, Sequence[int]] | None = None
    ) -> ItemSpread | None:
        """Of these points; None unless two seeds of two points have scores of the same pictures.

        Args:
            only: point -> the seeds that count; None: all.
        """
        scores, pictures = self._scores.get(metric, {}), self._pictures.get(metric, {})
        wanted = set(points)
        own = {
            (point, seed): pictures[point, seed]
            for point, seed in scores
            if point in wanted and (only is None or seed in only.get(point, ()))
        }
        if len(set(own.values())) != 1:
            return None
        seeds: dict[int, set[int]] = {}
        for point, seed in own:
            seeds.setdefault(point, set()).add(seed)
        usable = [point for point, found in seeds.items() if len(found) > 1]
        if len(usable) < 2 or len(set.intersection(*[seeds[point] for point in usable])) < 2:
            return None
        return ItemSpread({place: scores[place] for place in own if place[0] in usable})

    def pair(self, point: int, reference: int, metric: str) -> Pair:
        """What the items of two points say; nothing where they are not of the same pictures."""
        return self._pairs.get((point, reference, metric), Pair())

    def _read(self, collection: Collection, pairs: Sequence[tuple[int, int]]) -> None:
        references = {reference for _, reference in pairs}
        of_point: dict[int, list[int]] = {}
        for point, reference in pairs:
            of_point.setdefault(point, []).append(reference)
        kept = {point: self._of_point(collection, point) for point in sorted(references)}
        for row in collection.points:
            own = kept.get(row.index) or self._of_point(collection, row.index)
            for reference in of_point.get(row.index, ()):
                for metric in self._shown:
                    place = (row.index, reference, metric)
                    self._pairs[place] = _pair(metric, own, kept[reference])

    def _of_point(self, collection: Collection, point: int) -> dict[int, RunScores]:
        """Seed -> scores, of the runs that gave numbers."""
        found = {}
        for record in collection.of_point(point):
            if record.reason is not None:
                continue
            found[record.seed] = scores = read_scores(record, self._shown, self._averages)
            if scores.sha256 is not None:
                self.digests[(record.key, record.evaluation_key)] = scores.sha256
            if scores.problem is not None:
                self.problems.setdefault(scores.problem, []).append(record.key)
            for metric, score in scores.by_metric.items():
                place = (point, record.seed)
                few = in_blocks(score.scores, self._most).astype(np.float32)
                self._scores.setdefault(metric, {})[place] = few
                self._pictures.setdefault(metric, {})[place] = score.pictures
        return found


def _pair(metric: str, own: Mapping[int, RunScores], reference: Mapping[int, RunScores]) -> Pair:
    known: dict[int, tuple[PictureScores, PictureScores]] = {}
    for seed in own:
        if seed in reference:
            scores = [runs[seed].by_metric.get(metric) for runs in (own, reference)]
            if scores[0] is None or scores[1] is None:
                return Pair()
            known[seed] = (scores[0], scores[1])
    if len({score.pictures for pair in known.values() for score in pair}) != 1:
        return Pair()
    differences = np.stack([first.scores - second.scores for first, second in known.values()])
    return Pair(
        bootstrap(differences),
        {
            seed: mcnemar(first.right, second.right)
            for seed, (first, second) in known.items()
            if first.right is not None
            and second.right is not None
            and len(first.right) == len(second.right)
        },
    )
