"""Does a metric really rise along an ordered axis, and from which level on is nothing gained?

A line is the points of a sweep that differ in the shown axis alone.  Owns what is said of a line;
the tests are in `statistics` and `comparisons`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import metrics
from harness.config import canonical_json
from harness.report.collect import Collection, PointRow
from harness.report.comparisons import ALPHA, Comparison, Contest
from harness.report.statistics import trend
from harness.report.summary import Cell, Cells, best

#: The fewest levels of an axis that a trend can be seen along.
FEWEST = 3


@dataclass(frozen=True)
class Line:
    """Points in the order of the axis `axis`, equal in every other one."""

    axis: str
    rows: tuple[PointRow, ...]
    held: Mapping[str, Any]
    """The axes that differ between lines, with their values on this one."""


@dataclass(frozen=True)
class Trend:
    """What the seeds say of one metric along one line."""

    line: Line
    metric: str
    levels: tuple[float, ...]
    """Values of the axis at which every seed has a value."""
    left_out: tuple[float, ...]
    """Values at which some seed has none."""
    p: float
    """Of Page's test for a trend over all levels, two-sided."""
    rising: bool
    """Whether the value at the last level is above that at the first."""
    best: float
    """The level with the best mean."""
    enough: float
    """The smallest level that can be told neither from the best nor, by a trend for the better,
    from those beyond it.  No correction here: it would make more levels look enough."""
    at_enough: Comparison | None
    """Of `enough` to the best; None where they are the same level."""
    beyond: float | None
    """p of a gain from `enough` on; None below three levels, or where the last is no better."""


def lines_of(collection: Collection) -> list[Line]:
    """The lines of at least `FEWEST` numeric levels along the shown axis."""
    axis = collection.sweep.show.x
    others = [name for name in collection.axes if name != axis]
    grouped: dict[str, list[PointRow]] = {}
    for row in collection.points:
        grouped.setdefault(canonical_json([row.axes[name] for name in others]), []).append(row)
    varying = [
        name
        for name in others
        if len({canonical_json(row.axes[name]) for row in collection.points}) > 1
    ]
    lines = []
    for rows in grouped.values():
        values = [row.axes[axis] for row in rows]
        if all(map(_is_number, values)) and len(set(values)) == len(values) >= FEWEST:
            ordered = tuple(sorted(rows, key=lambda row: row.axes[axis]))
            lines.append(Line(axis, ordered, {name: rows[0].axes[name] for name in varying}))
    return lines


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def leader_of(line: Line, cells: Cells, metric: str) -> Cell | None:
    """The cell of the line with the best mean."""
    return best(cells[(row.index, metric)] for row in line.rows)


def trend_of(line: Line, cells: Cells, metric: str, found: Contest | None) -> Trend | None:
    """None where too few levels are complete, or where seeds are too few for a test.

    Args:
        found: the best level of the line against each of the others.
    """
    complete = [row for row in line.rows if cells[(row.index, metric)].estimate is not None]
    p = _page([cells[(row.index, metric)] for row in complete])
    if p is None or found is None:
        return None
    level = {row.index: float(row.axes[line.axis]) for row in line.rows}
    enough, beyond = _enough(complete, cells, metric, found)
    means = [_mean(cells[(row.index, metric)]) for row in complete]
    return Trend(
        line=line,
        metric=metric,
        levels=tuple(level[row.index] for row in complete),
        left_out=tuple(level[row.index] for row in line.rows if row not in complete),
        p=p,
        rising=means[-1] > means[0],
        best=level[found.leader],
        enough=level[enough],
        at_enough=found.against.get(enough),
        beyond=beyond,
    )


def _enough(
    rows: Sequence[PointRow], cells: Cells, metric: str, found: Contest
) -> tuple[int, float | None]:
    """The first level from which on nothing is gained, and p of a gain beyond it."""
    for place, row in enumerate(rows):
        comparison = found.against.get(row.index)
        if comparison is None or comparison.p is None or comparison.p >= ALPHA:
            beyond = _gain([cells[(other.index, metric)] for other in rows[place:]])
            if row.index == found.leader or beyond is None or beyond >= ALPHA:
                return row.index, beyond
    raise ValueError("the best level is none of the levels")


def _gain(cells: Sequence[Cell]) -> float | None:
    """p of a trend for the better; None where the last level is no better than the first."""
    return _page(cells) if _mean(cells[-1]) > _mean(cells[0]) else None


def _page(cells: Sequence[Cell]) -> float | None:
    if len(cells) < FEWEST or len({cell.seeds for cell in cells}) > 1:
        return None
    return trend([[cell.values[seed] for seed in cell.seeds] for cell in cells])


def _mean(cell: Cell) -> float:
    assert cell.estimate is not None
    sign = 1 if metrics.higher_is_better(cell.metric) else -1
    return sign * cell.estimate.mean
