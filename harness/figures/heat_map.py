"""Heat map of a sweep over the grid of two axes: the leading metric, and its differences."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from harness import metrics
from harness.config import canonical_json
from harness.document.text import number
from harness.figures import style
from harness.figures.base import (
    SWEEP,
    Drawing,
    Sheet,
    axis_words,
    metric_data,
    metric_words,
    scale_of,
    value_words,
)
from harness.results.collect import Collection, PointRow
from harness.results.comparisons import Comparison

#: The fewest values of an axis that make a map rather than a few lines.
_FEWEST = 3
#: Cells up to which each has room for its number, and values of the axis across likewise.
_ROOM, _ROOM_ACROSS = 160, 12
#: Values of the axis across up to which two maps stand side by side.
_SIDE_BY_SIDE = 7
#: Inches of a row, of all rows together, and of what stands around them.
_ROW, _TALL, _AROUND = 0.24, 3.2, 0.75
#: Letters of the name beside the rows, and of a title.
_DOWN, _TITLE = 28, 34
#: Names beside the rows.
_NAMED = 20
#: Letters of a tick past which names are turned.
_LETTERS = 5
#: The brightness from which letters are dark.
_LIGHT = 0.5


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
        tuple(at[axis].index(row.told[axis]) for axis in (down, across)): row
        for row in collection.points
    }
    if len(points) < len(collection.points):
        return None
    return Grid(across, down, columns, rows, points)  # type: ignore[arg-type]


@SWEEP.register("metric_by_two_axes", place=20)
def heat_map(sheet: Sheet) -> Drawing | None:
    """Means as colours and numbers, and what is compared; None without a grid of two axes.

    A point that lacks a seed is hatched; where the sweep has no point nothing is drawn.
    """
    collection, metric = sheet.collection, sheet.lead
    grid = grid_of(collection)
    if grid is None or metric is None:
        return None
    compared = sheet.compared(metric)
    count = 1 + bool(compared)
    height = _AROUND + min(_ROW * len(grid.rows), _TALL)
    most = 2 if len(grid.columns) <= _SIDE_BY_SIDE else 1
    figure, axes = style.panels(count, row_height=height, most=most, wide=True)
    _means(axes[0], sheet, grid, metric)
    if compared:
        _differences(axes[1], grid, compared)
    for ax in axes:
        _dress(ax, grid)
    figure.supxlabel(axis_words(collection, grid.across), fontsize=style.LETTERS)
    figure.supylabel(axis_words(collection, grid.down, _DOWN), fontsize=style.LETTERS)
    words = (
        f"{metric_words(metric)}, mean over seeds, by {collection.axis_name(grid.across)} and "
        f"{collection.axis_name(grid.down)}. Hatched: a seed is missing, so there is no mean."
    )
    if compared:
        words += " Right: difference to the baseline (points); bold: significant (Holm)."
    return Drawing(words, figure, metric_data(sheet))


def _means(ax: Axes, sheet: Sheet, grid: Grid, metric: str) -> None:
    means = np.full((len(grid.rows), len(grid.columns)), math.nan)
    for place, row in grid.points.items():
        estimate = sheet.cells[(row.index, metric)].estimate
        if estimate is None:
            _hatch(ax, *place)
        else:
            means[place] = estimate.mean * metrics.scale(metric)
    known = means[np.isfinite(means)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    norm = Normalize(low, high if high > low else low + 1.0)
    colours = matplotlib.colormaps["cividis"]
    ax.imshow(means, cmap=colours, norm=norm, aspect="auto")
    _numbers(ax, grid, means, norm, colours)
    ax.set_title(style.shorten(metric_words(metric), _TITLE))


def _differences(ax: Axes, grid: Grid, made: Mapping[int, Comparison]) -> None:
    sizes = np.full((len(grid.rows), len(grid.columns)), math.nan)
    decided: set[tuple[int, int]] = set()
    for place, row in grid.points.items():
        found = made.get(row.index)
        if found is not None:
            sizes[place] = found.mean * metrics.scale(found.metric)
            decided |= {place} if found.decided else set()
    known = np.abs(sizes[np.isfinite(sizes)])
    reach = float(known.max()) if len(known) and known.max() > 0 else 1.0
    norm = Normalize(-reach, reach)
    ends = [style.WORSE, "#f7f7f7", style.BETTER]
    if not metrics.higher_is_better(next(iter(made.values())).metric):
        ends.reverse()
    away = LinearSegmentedColormap.from_list("away", ends)
    ax.imshow(sizes, cmap=away, norm=norm, aspect="auto")
    _numbers(ax, grid, sizes, norm, away, sign=True, bold=decided)
    for place, row in grid.points.items():
        if row.index == row.baseline:
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": style.FAINT}
            ax.text(place[1], place[0], "base", fontsize=style.SMALL, **look)
    ax.set_title("difference to the baseline")


def _numbers(
    ax: Axes,
    grid: Grid,
    values: NDArray[np.float64],
    norm: Normalize,
    colours: Colormap,
    *,
    sign: bool = False,
    bold: Container[tuple[int, int]] = (),
) -> None:
    """Its number in each cell, dark on light and light on dark, where there is room."""
    if len(grid.points) > _ROOM or len(grid.columns) > _ROOM_ACROSS:
        return
    for (down, across), value in np.ndenumerate(values):
        if math.isfinite(value):
            red, green, blue, _ = colours(float(norm(value)))
            light = 0.299 * red + 0.587 * green + 0.114 * blue > _LIGHT
            ax.text(
                across,
                down,
                number(value, 1, sign=sign),
                ha="center",
                va="center",
                fontsize=style.SMALL,
                fontweight="bold" if (down, across) in bold else "normal",
                color=style.ON_COLOURS[0 if light else 1],
            )


def _dress(ax: Axes, grid: Grid) -> None:
    columns, rows = ([value_words(v) for v in values] for values in (grid.columns, grid.rows))
    turned = max(map(len, columns)) > _LETTERS
    look: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    look = look if turned else {}
    every_column = -(-len(columns) // _NAMED)
    ax.set_xticks(range(0, len(columns), every_column), columns[::every_column], **look)
    every = -(-len(rows) // _NAMED)
    ax.set_yticks(range(0, len(rows), every), rows[::every])
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
