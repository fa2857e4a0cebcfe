"""Heat map of a sweep over the grid of two axes, a panel a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness import metrics
from harness.config import canonical_json
from harness.figures import style
from harness.figures.base import (
    SWEEP,
    Drawing,
    Sheet,
    axis_words,
    metric_data,
    scale_of,
    value_words,
)
from harness.results.collect import Collection, PointRow
from harness.results.summary import Cell

#: The fewest values of an axis that make a map rather than a few lines.
_FEWEST = 3
#: Cells up to which each has room for its number, and values of the axis across likewise.
_ROOM, _ROOM_ACROSS = 160, 10
#: Inches of a row, and of all rows together.
_ROW, _TALL = 0.23, 4.0
#: Letters of the name beside the rows.
_DOWN = 28
#: Names beside the rows.
_NAMED = 24
#: Share of the cells up to which those that tie with the best are framed.
_FRAMED = 1 / 3
#: Letters of a tick below which names stand upright.
_LETTERS = 4


@dataclass(frozen=True)
class Grid:
    """Two axes and the point at each pair of their values that the sweep has."""

    across: str
    down: str
    columns: tuple[Any, ...]
    rows: tuple[Any, ...]
    points: Mapping[tuple[int, int], PointRow]
    """(row, column) -> point."""


def grid_of(collection: Collection) -> Grid | None:
    """None unless the points differ in two axes of three values or more each, and in no other."""
    varying = collection.varying_axes
    if len(varying) != 2:
        return None
    x = collection.sweep.show.x
    across = x if x in varying else varying[0]
    down = next(axis for axis in varying if axis != across)
    columns, rows = (
        scale_of([row.axes[axis] for row in collection.points]).values for axis in (across, down)
    )
    if min(len(columns), len(rows)) < _FEWEST:
        return None
    at = {
        axis: [canonical_json(v) for v in values]
        for axis, values in ((across, columns), (down, rows))
    }
    points = {
        tuple(at[axis].index(canonical_json(row.axes[axis])) for axis in (down, across)): row
        for row in collection.points
    }
    if len(points) < len(collection.points):
        return None
    return Grid(across, down, columns, rows, points)  # type: ignore[arg-type]


@SWEEP.register("metric_by_two_axes", place=20)
def heat_map(sheet: Sheet) -> Drawing | None:
    """Means as colours and numbers; None without a grid of two axes.

    A point that lacks a seed is hatched; where the sweep has no point nothing is drawn.
    """
    collection = sheet.collection
    grid = grid_of(collection)
    if grid is None or not sheet.has_values:
        return None
    names = collection.shown
    height = 0.75 + min(_ROW * len(grid.rows), _TALL)
    most = 2 if len(grid.columns) > 5 else style.ACROSS
    figure, axes = style.panels(len(names), row_height=height, most=most)
    for ax, metric in zip(axes, names, strict=True):
        _panel(figure, ax, sheet, grid, metric)
    figure.supxlabel(axis_words(collection, grid.across), fontsize=8)
    figure.supylabel(axis_words(collection, grid.down, _DOWN), fontsize=8)
    words = (
        f"Mean of each metric over seeds by {collection.axis_name(grid.across)} and "
        f"{collection.axis_name(grid.down)}. Hatched: a seed is missing, so there is no mean. "
        "Framed, where the test tells most cells from the best: the best, and what cannot be told "
        "from it."
    )
    return Drawing(words, figure, metric_data(sheet))


def _panel(figure: Figure, ax: Axes, sheet: Sheet, grid: Grid, metric: str) -> None:
    cells = sheet.cells
    means = np.full((len(grid.rows), len(grid.columns)), math.nan)
    found: dict[tuple[int, int], Cell] = {}
    for place, row in grid.points.items():
        cell = found[place] = cells[(row.index, metric)]
        if cell.estimate is not None:
            means[place] = cell.estimate.mean * metrics.scale(metric)
    image = ax.imshow(means, cmap="cividis", aspect="auto")
    bar = figure.colorbar(image, ax=ax, pad=0.02, aspect=18)
    bar.ax.tick_params(labelsize=6, width=0.5, length=2)
    bar.outline.set_linewidth(0.5)
    numbered = len(found) <= _ROOM and len(grid.columns) <= _ROOM_ACROSS
    known = means[np.isfinite(means)]
    middle = (known.min() + known.max()) / 2 if len(known) else 0.0
    contest = sheet.findings.contests.get(metric)
    best = () if contest is None else contest.candidates
    marked = [place for place, cell in found.items() if cell.point in best]
    for down, across in marked if len(marked) <= _FRAMED * len(found) else []:
        _frame(ax, down, across)
    for (down, across), cell in found.items():
        if cell.estimate is None:
            _hatch(ax, down, across)
        elif numbered:
            value = means[down, across]
            colour = style.INK if value > middle else "white"
            ax.text(
                across, down, f"{value:.1f}", ha="center", va="center", fontsize=5.5, color=colour
            )
    ax.set_title(f"{metrics.display(metric)} ({metrics.unit(metric)})", fontsize=8)
    columns, rows = ([value_words(v) for v in values] for values in (grid.columns, grid.rows))
    turned = max(map(len, columns)) > _LETTERS
    ax.set_xticks(range(len(columns)), columns, rotation=45 if turned else 0, fontsize=6)
    every = -(-len(rows) // _NAMED)
    ax.set_yticks(range(0, len(rows), every), rows[::every], fontsize=6)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _hatch(ax: Axes, down: int, across: int) -> None:
    ax.add_patch(
        Rectangle(
            (across - 0.5, down - 0.5),
            1,
            1,
            facecolor="#f2f2f2",
            edgecolor=style.FAINT,
            hatch="////",
            linewidth=0,
        )
    )


def _frame(ax: Axes, down: int, across: int) -> None:
    ax.add_patch(
        Rectangle(
            (across - 0.44, down - 0.42), 0.88, 0.84, fill=False, edgecolor="#d55e00", linewidth=1.0
        )
    )
