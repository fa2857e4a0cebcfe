"""The frame reduced to cells: what the seeds of one point say of one metric.

Owns the rule for holes: a cell that lacks a seed has no mean, only the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from harness import metrics
from harness.report.collect import Collection
from harness.report.statistics import Difference, Estimate, estimate, paired_difference


@dataclass(frozen=True)
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
    estimate: Estimate | None = None
    """None when a seed is missing."""
    baseline: int | None = None
    difference: Difference | None = None
    """To the baseline, over the seeds both have; None for the baseline itself."""

    @property
    def hole(self) -> str | None:
        """Why the cell has no mean, as a footnote says it."""
        if not self.missing:
            return None
        by_reason: dict[str, list[int]] = {}
        for seed, reason in self.missing.items():
            by_reason.setdefault(reason, []).append(seed)
        parts = [f"{_seeds(seeds)} {reason}" for reason, seeds in by_reason.items()]
        have = f"{len(self.values)} of {len(self.seeds)} seeds"
        return f"{have}: {'; '.join(parts)}"

    @property
    def paired_in_full(self) -> bool:
        """Whether the difference is over every seed wanted."""
        return self.difference is not None and self.difference.n == len(self.seeds)

    @property
    def better(self) -> bool | None:
        """Whether the difference is a real one for the better; None when there is no telling."""
        if self.difference is None or not self.difference.distinguishable:
            return None
        return (self.difference.mean > 0) == metrics.higher_is_better(self.metric)


Cells = Mapping[tuple[int, str], Cell]
"""(point, metric) -> cell."""


def summarise(collection: Collection) -> Cells:
    """Every cell of the collection, with differences to each point's baseline."""
    grouped = {
        (int(str(point)), str(metric)): rows
        for (point, metric), rows in collection.frame.groupby(["point", "metric"], sort=False)
    }
    values = {place: _values(rows) for place, rows in grouped.items()}
    baselines = {row.index: row.baseline for row in collection.points}
    cells = {}
    for place, rows in grouped.items():
        point, metric = place
        baseline = baselines[point]
        compared = baseline is not None and baseline != point
        cells[place] = Cell(
            point=point,
            metric=metric,
            seeds=tuple(int(seed) for seed in rows["seed"]),
            values=values[place],
            missing=_missing(rows),
            chance=_mean(rows["chance"]),
            samples=tuple(sorted({int(n) for n in rows["n"].dropna()})),
            keys=tuple(rows["key"]),
            estimate=estimate(list(values[place].values()))
            if rows["value"].notna().all()
            else None,
            baseline=baseline,
            difference=(
                paired_difference(values[place], values[(baseline, metric)])
                if compared and baseline is not None
                else None
            ),
        )
    return cells


def best(cells: Iterable[Cell]) -> Cell | None:
    """The cell with the best mean of one metric, complete cells alone; None without any."""
    means = [(cell.estimate.mean, cell) for cell in cells if cell.estimate is not None]
    if not means:
        return None
    sign = 1 if metrics.higher_is_better(means[0][1].metric) else -1
    return max(means, key=lambda pair: sign * pair[0])[1]


def _values(rows: pd.DataFrame) -> dict[int, float]:
    return {
        int(seed): float(value)
        for seed, value in zip(rows["seed"], rows["value"], strict=True)
        if not math.isnan(value)
    }


def _missing(rows: pd.DataFrame) -> dict[int, str]:
    holes = rows[rows["value"].isna()]
    return {int(s): str(r) for s, r in zip(holes["seed"], holes["reason"], strict=True)}


def _mean(column: pd.Series[float]) -> float | None:
    known = column.dropna()
    return None if known.empty else float(known.mean())


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
