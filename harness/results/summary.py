"""The frame reduced to cells: what the seeds of one point say of one metric.

Owns the rule for holes: a cell that lacks a seed has no mean, only the reason; and an average of
several metrics that lacks one of them is a hole like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from harness import metrics
from harness.results.collect import Collection, Reading
from harness.results.comparisons import Comparison
from harness.results.records import Record
from harness.stats.intervals import Estimate, estimate


@dataclass(frozen=True, slots=True)
class Cell:
    """One metric at one point, over its seeds; fractions and counts as recorded."""

    point: int
    metric: str
    seeds: tuple[int, ...]
    """The seeds wanted."""
    values: Mapping[int, float]
    """Seed -> value, of the seeds that have one."""
    missing: Mapping[int, str]
    """Seed -> reason, of the others."""
    chance: float | None
    samples: tuple[int, ...]
    """The distinct numbers of samples behind the values."""
    keys: tuple[str, ...]
    off: bool = False
    """Whether no seed can have a value: the metric is of a loss term that the point has off."""
    estimate: Estimate | None = None
    """None when a seed is missing."""
    baseline: int | None = None
    comparison: Comparison | None = None
    """To the baseline, over the seeds both have; None for the baseline itself."""

    @property
    def hole(self) -> str | None:
        """Why the cell has no mean, as a footnote says it."""
        if not self.missing:
            return None
        by_reason: dict[str, list[int]] = {}
        for seed, reason in self.missing.items():
            by_reason.setdefault(reason, []).append(seed)
        if self.off:
            return "; ".join(by_reason)
        parts = [f"{_seeds(seeds)} {reason}" for reason, seeds in by_reason.items()]
        have = f"{len(self.values)} of {len(self.seeds)} seeds"
        return f"{have}: {'; '.join(parts)}"

    @property
    def merit(self) -> float:
        """The mean, negative where lower is better; that of a hole is below all others."""
        sign = 1 if metrics.higher_is_better(self.metric) else -1
        return -math.inf if self.estimate is None else sign * self.estimate.mean


Cells = Mapping[tuple[int, str], Cell]
"""(point, metric) -> cell."""


def summarise(
    collection: Collection, averages: Mapping[str, Sequence[str]] | None = None
) -> dict[tuple[int, str], Cell]:
    """Every cell of the collection, nothing compared yet.

    Args:
        averages: name of an average -> the metrics it is the plain mean of, seed by seed.
    """
    by_point: dict[int, list[tuple[Record, list[Reading]]]] = {}
    for record, readings in zip(collection.records, collection.readings, strict=True):
        by_point.setdefault(record.point, []).append((record, readings))
    make, baselines = _Maker(), {row.index: row.baseline for row in collection.points}
    cells = {}
    for point, found in by_point.items():
        seeds, keys = tuple(r.seed for r, _ in found), tuple(r.key for r, _ in found)
        common = {"seeds": make.shared(seeds), "keys": keys, "baseline": baselines[point]}
        for name, *readings in zip(collection.metrics, *(told for _, told in found), strict=True):
            cells[point, name] = make.cell(point, name, readings, common)
    for name, members in (averages or {}).items():
        for row in collection.points:
            parts = [cells[(row.index, member)] for member in members]
            cells[(row.index, name)] = _average(name, parts)
    return cells


_NOTHING: Mapping[int, str] = MappingProxyType({})


class _Maker:
    """Makes cells that share what is equal: a large sweep has a hundred thousand of them."""

    def __init__(self) -> None:
        self._tuples: dict[tuple[int, ...], tuple[int, ...]] = {}

    def cell(
        self, point: int, name: str, readings: Sequence[Reading], common: Mapping[str, Any]
    ) -> Cell:
        """The cell of some seeds, nothing compared yet.

        Args:
            common: what all cells of the point share, `seeds` in the order of `readings` in it.
        """
        seeds = common["seeds"]
        every, counts, chances, reasons, off = zip(*readings, strict=True)
        values = {seed: value for seed, value in zip(seeds, every, strict=True) if value == value}
        known = [chance for chance in chances if chance == chance]  # NaN is unlike itself
        whole = len(values) == len(readings)
        missing = {s: str(why) for s, why in zip(seeds, reasons, strict=True) if s not in values}
        return Cell(
            point,
            name,
            **common,
            values=values,
            missing=missing or _NOTHING,
            chance=math.fsum(known) / len(known) if known else None,
            samples=self.shared(tuple(sorted({int(n) for n in counts if n == n}))),
            off=all(off),
            estimate=estimate(list(values.values())) if whole else None,
        )

    def shared(self, items: tuple[int, ...]) -> tuple[int, ...]:
        """`items`, or what equalled them before."""
        return self._tuples.setdefault(items, items)


def _average(name: str, parts: Sequence[Cell]) -> Cell:
    """The mean of `parts` seed by seed; a seed that lacks one of them has none."""
    first = parts[0]
    values, missing = {}, {}
    for seed in first.seeds:
        lacking = [part for part in parts if seed not in part.values]
        if lacking:
            listed = ", ".join(metrics.display(part.metric) for part in lacking)
            missing[seed] = f"no average without {listed}: {lacking[0].missing[seed]}"
        else:
            values[seed] = math.fsum(part.values[seed] for part in parts) / len(parts)
    chances = [part.chance for part in parts if part.chance is not None]
    return Cell(
        point=first.point,
        metric=name,
        seeds=first.seeds,
        values=values,
        missing=missing,
        chance=math.fsum(chances) / len(chances) if len(chances) == len(parts) else None,
        samples=tuple(sorted({n for part in parts for n in part.samples})),
        keys=first.keys,
        estimate=None if missing else estimate(list(values.values())),
        baseline=first.baseline,
    )


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
