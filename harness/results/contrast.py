"""What a point changes in its baseline, in words.

A sweep may try one change at several places (with and without a term, at every depth); a place is a
value of an axis in which the baselines differ from one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.config import canonical_json
from harness.document import text
from harness.results.collect import Collection, PointRow


@dataclass(frozen=True)
class Contrast:
    """The values that differ, here and in the baseline, and where the change was tried."""

    new: str
    old: str
    place: str
    """Empty where there is one baseline for all."""

    @property
    def short(self) -> str:
        """For the row of a figure."""
        return f"{self.new} at {self.place}" if self.place else self.new


def contrast_of(collection: Collection, row: PointRow, base: PointRow) -> Contrast:
    """How `row` differs from `base`; by its name alone where the sweep gives it one."""
    names = collection.sweep.show.names
    if row.label in names and base.label in names:
        return Contrast(row.label, base.label, "")
    changed = [axis for axis in collection.axes if _differ(row, base, axis)]
    places = [axis for axis in collection.places if axis not in changed]
    if places:
        old = values_of(collection, base, changed)
    else:
        old = values_of(collection, base, collection.varying_axes)
    new = values_of(collection, row, changed) or row.label
    return Contrast(new, old, values_of(collection, row, places))


def values_of(collection: Collection, row: PointRow, axes: Sequence[str]) -> str:
    """`MLM weight 0.5 and token weight 0.1`."""
    return listed([f"{collection.axis_name(axis)} {text.plain(row.axes[axis])}" for axis in axes])


def listed(parts: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def _differ(row: PointRow, other: PointRow, axis: str) -> bool:
    return canonical_json(row.axes[axis]) != canonical_json(other.axes[axis])
