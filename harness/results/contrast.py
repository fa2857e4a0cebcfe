"""What a point changes in its baseline, in words.

A sweep may try one change at several places (with and without a term, at every depth); a place is a
value of an axis in which the baselines differ from one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    changed = [axis for axis in collection.axes if row.told[axis] != base.told[axis]]
    places = [axis for axis in collection.places if axis not in changed]
    if places:
        old = values_of(collection, base, changed)
    else:
        old = values_of(collection, base, _own_axes(collection, base)) or base.label
    new = values_of(collection, row, changed) or row.label
    return Contrast(new, old, values_of(collection, row, places))


def values_of(collection: Collection, row: PointRow, axes: Sequence[str]) -> str:
    """`MLM weight 0.5 and token weight 0.1`, `4 text layers`."""
    return listed([value_of(collection.axis_name(axis), row.axes[axis]) for axis in axes])


def value_of(name: str, value: object) -> str:
    """A value of the axis `name`: things are counted, anything else is named first."""
    counted = isinstance(value, int) and not isinstance(value, bool)
    if not counted or not name.endswith("s") or name.endswith("ss"):
        return f"{name} {text.plain(value)}"
    return f"1 {name[:-1]}" if value == 1 else f"{value:,} {name}"


def point_words(collection: Collection, row: PointRow) -> str:
    """A point in a sentence: its name, or its values of the axes that differ between points."""
    if row.label in collection.sweep.show.names:
        return row.label
    return values_of(collection, row, _own_axes(collection, row)) or row.label


def _own_axes(collection: Collection, row: PointRow) -> Sequence[str]:
    """The axes that differ between points and that this one sets, rather than the base."""
    return [axis for axis in collection.varying_axes if axis in row.given]


def baseline_words(collection: Collection) -> str:
    """What the points are compared with: the one baseline by its name, else each its own."""
    if len(collection.baselines) != 1:
        return "the baseline with the row's other values"
    return point_words(collection, collection.points[collection.baselines[0]])


def listed(parts: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def points_listed(names: Sequence[str]) -> str:
    """`listed` of points; things that are counted are named once: `2, 4 and 8 text layers`."""
    counted = [name.partition(" ") for name in names]
    nouns = {noun for _, _, noun in counted} - {noun.removesuffix("s") for _, _, noun in counted}
    if len(nouns) != 1 or not all(count.replace(",", "").isdigit() for count, _, _ in counted):
        return listed(names)
    return f"{listed([count for count, _, _ in counted])} {nouns.pop()}"
