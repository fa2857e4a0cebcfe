"""The columns of a table that say what a row is and what it costs: axes, names, parameters, GMACs.

A column comes with the cell of every point.  What all points share is a remark and no column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from harness import metrics
from harness.document import text
from harness.document.table import Column, Mark, Table, TableCell, plain_table
from harness.results.collect import Collection, PointRow
from harness.results.contrast import listed, values_of
from harness.results.summary import Cell, Cells

CHECK, OFF = "\u2713", "\u2013"
"""What stands for a component that is there, and for one that is not."""
SHOWN_COSTS = ("cost/parameters", "cost/gmacs")
"""Costs of a table that asks for none; latencies are those of a machine at work."""


@dataclass(frozen=True)
class PointColumn:
    """A column with the cell of each point, in the points' order."""

    column: Column
    cells: tuple[TableCell, ...]


# --------------------------------------------------------------------------- what a row is


def axis_columns(collection: Collection) -> list[PointColumn]:
    """The names of the points, where the sweep gives some, and the axes that differ between them.

    The axis that rows are grouped by stands first.
    """
    names, rows = collection.sweep.show.names, collection.points
    found = []
    checked = _components(collection)
    if any(row.label in names for row in rows):
        cells = tuple(TableCell(row.label if row.label in names else "") for row in rows)
        spare = checked == set(_told(collection))
        found.append(PointColumn(Column(("",), numeric=False, spare=spare), cells))
    outer = outer_axis(collection)
    for axis in sorted(_told(collection), key=lambda axis: axis != outer):
        of_axis = _checks if axis in checked else _values
        found.append(of_axis(collection, axis))
    return found


def naming_columns(collection: Collection) -> list[PointColumn]:
    """What tells the rows of a leading table apart: the names alone where every point has one.

    The axes stand beside the names where they are components that are there or not.
    """
    columns = axis_columns(collection)
    every = all(row.label in collection.sweep.show.names for row in collection.points)
    components = _components(collection) == set(_told(collection))
    return columns[:1] if every and not components else columns


def settings_by_name(collection: Collection) -> Table | None:
    """What each name of a point stands for; None where the axes stand in the tables themselves."""
    if naming_columns(collection) == axis_columns(collection):
        return None
    own = {row.label: [a for a in _told(collection) if a in row.given] for row in collection.points}
    return plain_table(
        ["point", "what it sets"],
        [
            [row.label, values_of(collection, row, own[row.label]) or "nothing: the base"]
            for row in collection.points
        ],
    )


def of_every_row(collection: Collection) -> str:
    """`weighting linear and schedule linear`: the axes that all rows share; empty without any."""
    told = _told(collection)
    fixed = [axis for axis in collection.axes if axis not in told]
    first = collection.points[0]
    return listed([f"{collection.axis_name(a)} {text.plain(first.axes[a])}" for a in fixed])


def _told(collection: Collection) -> tuple[str, ...]:
    return collection.varying_axes or collection.axes


def _values(collection: Collection, axis: str) -> PointColumn:
    cells = []
    for row in collection.points:
        value = text.plain(row.axes[axis])
        given = axis in row.given
        cells.append(TableCell(value) if given else TableCell(f"({value})", mark=Mark.MUTED))
    return PointColumn(Column((collection.axis_name(axis),), numeric=False), tuple(cells))


def _components(collection: Collection) -> set[str]:
    """The axes that are off or on, where there are at least two such."""
    found = {axis for axis in collection.varying_axes if _level_when_on(collection, axis)}
    return found if len(found) > 1 else set()


def _level_when_on(collection: Collection, axis: str) -> list[Any]:
    """The one value of an axis that is else off (0, no, none); empty for any other axis."""
    values = {row.told[axis]: row.axes[axis] for row in collection.points}
    on = [value for value in values.values() if not _is_off(value)]
    return on if len(values) == 2 and len(on) == 1 else []


def _is_off(value: object) -> bool:
    return value is None or (isinstance(value, bool | int | float) and value == 0)


def _checks(collection: Collection, axis: str) -> PointColumn:
    (level,) = _level_when_on(collection, axis)
    note = () if level is True else (f"{CHECK}: {text.plain(level)}",)
    column = Column((collection.axis_name(axis),), numeric=False, notes=note, centred=True)
    marks = (OFF if _is_off(row.axes[axis]) else CHECK for row in collection.points)
    return PointColumn(column, tuple(map(TableCell, marks)))


# --------------------------------------------------------------------------- groups of rows


def outer_axis(collection: Collection) -> str | None:
    """The axis whose values take the rows one block after another, in the fewest blocks."""
    blocks = {axis: _blocks(collection, axis) for axis in collection.varying_axes}
    most = len(collection.points) // 2
    nested = [axis for axis, count in blocks.items() if count is not None and count <= most]
    return min(nested, key=lambda axis: blocks[axis] or 0, default=None)


def _blocks(collection: Collection, axis: str) -> int | None:
    """How many blocks; None where a value comes back after another one."""
    values = [row.told[axis] for row in collection.points]
    changes = 1 + sum(a != b for a, b in pairwise(values))
    return changes if changes == len(set(values)) else None


def group_of(collection: Collection) -> Callable[[PointRow], tuple[str, str]]:
    """(what tells a row's group from others, its title)."""
    outer = None if any(row.group for row in collection.points) else outer_axis(collection)

    def of(row: PointRow) -> tuple[str, str]:
        return (row.group if outer is None else row.told[outer], row.group)

    return of


# --------------------------------------------------------------------------- what a row costs


def cost_columns(
    collection: Collection, cells: Cells, asked: Sequence[str] | None
) -> tuple[list[PointColumn], list[str]]:
    """The columns of costs, and remarks on those that every row shares.

    Args:
        asked: costs, or sections of costs of both towers, by name; None: parameters and GMACs,
            where a row has another than the next.
    """
    columns, remarks = [], []
    for name in SHOWN_COSTS if asked is None else asked:
        found = _cost_column(collection, cells, name)
        if not any(cell.value is not None for cell in found.cells):
            continue
        if asked is None and len({cell.text for cell in found.cells}) == 1:
            remarks.append(_as_remark(found))
        else:
            columns.append(found)
    return columns, remarks


def _cost_column(collection: Collection, cells: Cells, name: str) -> PointColumn:
    towers = metrics.OF_TOWERS.get(name, (name,))
    found = [[cells.get((row.index, tower)) for tower in towers] for row in collection.points]
    known = [
        [_least(cell) for cell in of_point if cell is not None and cell.values]
        for of_point in found
    ]
    values = [each if len(each) == len(towers) else [] for each in known]
    heads, scale, joined = _heads_of_cost(name, towers, values)
    decimals = _decimals([v * scale for each in values for v in each])
    why = "cost is known once a seed is done"
    if metrics.is_measured_apart(towers[0]):
        why = "of the forms that ship alone, where it was measured quietly"
    made = [
        _cost_cell([v * scale for v in each], decimals, why, joined=joined, keys=_keys(of_point))
        for each, of_point in zip(values, found, strict=True)
    ]
    return PointColumn(Column(heads), tuple(made))


def _as_remark(column: PointColumn) -> str:
    """`0.38 + 0.32 M parameters (image + text)`."""
    head, *detail = column.column.heads
    what, _, unit = head.removesuffix(")").partition(" (")
    said = " ".join(filter(None, (text.flat(column.cells[0].text), unit, what)))
    return f"{said} ({detail[0]})" if detail else said


def _heads_of_cost(
    name: str, towers: Sequence[str], values: Sequence[Sequence[float]]
) -> tuple[tuple[str, ...], float, bool]:
    """Headings, what values are multiplied by, and whether the towers are added up."""
    unit, scale = metrics.unit(towers[0]), metrics.scale(towers[0])
    if len(towers) == 1:
        return (f"{metrics.display(name)} ({unit})",), scale, False
    if unit == "GMACs":
        small = max((sum(each) for each in values), default=0.0) < 0.1
        return (("MACs (M)",), 1000.0, True) if small else (("GMACs",), scale, True)
    return (f"{metrics.TITLES_OF_TOWERS[name]} ({unit})", "image + text"), scale, False


def _cost_cell(
    values: Sequence[float], decimals: int, why: str, *, joined: bool, keys: tuple[str, ...]
) -> TableCell:
    """A cost is a property of the point, so one finished seed is enough to know it."""
    if not values:
        return TableCell(text.DASH, notes=(why,))
    shown = [sum(values)] if joined else values
    words = " + ".join(text.number(value, decimals) for value in shown)
    return TableCell(words, value=sum(values), keys=keys)


def _decimals(values: Sequence[float]) -> int:
    """Two digits of the least value, and one decimal at least."""
    least = min((abs(value) for value in values if value), default=1.0)
    return min(3, max(1, 1 - math.floor(math.log10(least))))


def _least(cell: Cell) -> float:
    return min(cell.values.values())


def _keys(cells: Iterable[Cell | None]) -> tuple[str, ...]:
    return next((cell.keys for cell in cells if cell is not None), ())
