"""What a sweep asks of its runs: comparisons, lines along its axis, effects, what a point costs.

A report may hold several sweeps; each asks its own questions of its own points, so that another
sweep on the page changes nothing of what is said of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config import canonical_json
from harness.results.collect import Collection, PointRow, SweepPart
from harness.results.summary import Cells
from harness.stats.analysis import FEWEST
from harness.stats.effects import Effect, effects_of

#: Levels that span at least so many doublings are taken by their logarithm.
_DOUBLINGS = 2


@dataclass(frozen=True)
class Line:
    """Points in the order of the axis `axis`, equal in every other one."""

    axis: str
    rows: tuple[PointRow, ...]
    held: Mapping[str, Any]
    """The axes that differ between lines, with their values on this one."""

    @property
    def doubling(self) -> bool:
        """Whether a slope is told for each doubling of the axis, and not for each step along it."""
        levels = [float(row.axes[self.axis]) for row in self.rows]
        return levels[0] > 0 and levels[-1] >= levels[0] * 2**_DOUBLINGS

    @property
    def places(self) -> dict[int, float]:
        """Point -> its place along the axis, in doublings or steps."""
        if self.doubling:
            return {row.index: math.log2(float(row.axes[self.axis])) for row in self.rows}
        return {row.index: float(step) for step, row in enumerate(self.rows)}


def lines_of(collection: Collection, study: SweepPart) -> list[Line]:
    """The lines of at least three numeric levels along the shown axis of a sweep."""
    axis = study.show.x
    rows = [collection.points[point] for point in study.points]
    others = [name for name in collection.axes if name != axis]
    grouped: dict[tuple[str, ...], list[PointRow]] = {}
    for row in rows:
        grouped.setdefault(tuple(row.told[name] for name in others), []).append(row)
    varying = [name for name in others if len({row.told[name] for row in rows}) > 1]
    lines = []
    for members in grouped.values():
        values = [row.axes[axis] for row in members]
        if all(map(_is_number, values)) and len(set(values)) == len(values) >= FEWEST:
            ordered = tuple(sorted(members, key=lambda row: row.axes[axis]))
            lines.append(Line(axis, ordered, {name: members[0].axes[name] for name in varying}))
    return lines


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def study_effects(collection: Collection, study: SweepPart) -> tuple[Effect, ...]:
    """Main effects and interactions of the axes of a sweep; levels are canonical JSON."""
    if len(study.points) > MOST_POINTS:
        return ()
    levels = {
        point: {axis: collection.points[point].told[axis] for axis in collection.axes}
        for point in study.points
    }
    reference = {axis: canonical_json(value) for axis, value in (study.show.baseline or {}).items()}
    return effects_of(levels, reference)


MOST_POINTS = 400
"""A factorial of more points is not taken apart: its tables would fill a book."""


def costs(cells: Cells, points: Sequence[int], cost: str) -> dict[int, float]:
    """Point -> its cost, of those that have one; equal at all seeds, else the mean."""
    found = {point: cells.get((point, cost)) for point in points}
    return {
        point: math.fsum(cell.values.values()) / len(cell.values)
        for point, cell in found.items()
        if cell is not None and cell.values
    }
