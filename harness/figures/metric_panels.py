"""Each metric against the shown axis, and against the parameters: a panel a metric.

Lines where the points differ in the shown axis alone.  Intervals and means come from the summary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness import metrics
from harness.document import text
from harness.figures import style
from harness.figures.base import (
    SWEEP,
    Drawing,
    Sheet,
    axis_words,
    costs_of,
    has_ordered_axis,
    is_one_axis,
    legend_words,
    metric_data,
    scale_of,
    value_words,
)
from harness.figures.heat_map import grid_of
from harness.results.collect import Collection, PointRow
from harness.results.summary import Cell

NO_EMBEDDINGS = "cost/parameters/inference_without_embeddings"
WITH_EMBEDDINGS = "cost/parameters/inference"
#: Lines with intervals that a panel can hold; a sweep of more is drawn as a heat map alone.
_MOST_LINES = 5
#: How many spans of the data chance may lie below it and still be drawn rather than named.
_REACH = 1.5
#: Towards a chance that is not drawn, by whether it lies below the data.
_ARROWS = {True: "\u2193", False: "\u2191"}
_SIDEWAYS = {True: "\u2190", False: "\u2192"}
#: Share of the axis by which lines of neighbouring hues stand apart, so that intervals can be read.
_DODGE = 0.012
#: Ratio of the greatest to the least cost past which they stand on a logarithmic axis.
_DECADE = 10
#: Letters of a legend that fit in an inch.
_LETTERS = 15


@dataclass(frozen=True)
class Series:
    """Points drawn in one colour and, where their order means something, joined by a line."""

    name: str
    title: str
    """What the names of all series are values of."""
    rows: tuple[PointRow, ...]


def _is_legible(collection: Collection) -> bool:
    """Whether the lines with their intervals are few enough to be told apart."""
    hue = collection.sweep.show.hue
    lines = {text.plain(row.axes[hue]) for row in collection.points} if hue else set()
    return len(lines) <= _MOST_LINES


# --------------------------------------------------------------------------- a metric against x


@SWEEP.register("metric_vs_axis", place=10)
def metric_vs_axis(sheet: Sheet) -> Drawing | None:
    """None where the points differ in other axes too, or a heat map shows them better."""
    collection = sheet.collection
    legible = grid_of(collection) is None or _is_legible(collection)
    if not (sheet.has_values and is_one_axis(collection) and legible):
        return None
    show = collection.sweep.show
    scale = scale_of([row.axes[show.x] for row in collection.points])
    figure = _metric_panels(
        sheet,
        x=lambda row, shift: scale.at(row.axes[show.x], shift),
        series=_series(collection, key=lambda row: scale.at(row.axes[show.x]), axes=[show.hue]),
        joined=scale.kind != "categorical",
        dress=scale.apply,
        heading=axis_words(collection, show.x),
    )
    words = f"Each metric against {collection.axis_name(show.x)}. {reading(collection)}"
    return Drawing(words, figure, metric_data(sheet))


def reading(collection: Collection) -> str:
    """How to read the marks."""
    if all(len(row.seeds) == 1 for row in collection.points):
        return "One seed a point: no interval can be given."
    return (
        "Mean over seeds with its 95 % t-interval; faint dots are single seeds; "
        "a point that lacks a seed has dots and no mean."
    )


@SWEEP.register("metric_vs_parameters", place=40)
def _without_embeddings(sheet: Sheet) -> Drawing | None:
    return _against_cost(sheet, NO_EMBEDDINGS)


@SWEEP.register("metric_vs_parameters_with_embeddings", place=50)
def _with_embeddings(sheet: Sheet) -> Drawing | None:
    return _against_cost(sheet, WITH_EMBEDDINGS)


def _against_cost(sheet: Sheet, cost: str) -> Drawing | None:
    collection, show = sheet.collection, sheet.collection.sweep.show
    millions = {p: v * metrics.scale(cost) for p, v in costs_of(sheet, cost).items()}
    legible = not is_one_axis(collection) or _is_legible(collection)
    if not sheet.has_values or len(set(millions.values())) < 2 or not legible:
        return None
    lines = is_one_axis(collection) and has_ordered_axis(collection)
    spread = max(millions.values()) / max(min(millions.values()), 1e-12)
    heading = metrics.display(cost)
    heading = heading if "embedding" in heading else f"{heading} with embeddings"

    def dress(ax: Axes) -> None:
        if spread > _DECADE:
            ax.set_xscale("log")
        else:
            ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.margins(x=0.1, y=0.12)

    figure = _metric_panels(
        sheet,
        x=lambda row, _: millions.get(row.index),
        series=_series(
            collection,
            key=lambda row: millions.get(row.index, math.inf),
            axes=[show.hue] if lines else [show.x, show.hue],
        ),
        joined=lines,
        dress=dress,
        heading=f"inference {heading} (M)",
        names=(lambda point: value_words(collection.points[point].axes[show.x])) if lines else None,
    )
    words = f"Each metric against inference {heading}, by {collection.axis_name(show.x)}"
    return Drawing(f"{words}. {reading(collection)}", figure, metric_data(sheet, cost))


def _series(
    collection: Collection, *, key: Callable[[PointRow], float], axes: Sequence[str | None]
) -> list[Series]:
    """One series a combination of the values of `axes` (None: no axis), its points by `key`."""
    title = ", ".join(axis_words(collection, axis) for axis in axes if axis)
    grouped: dict[str, list[PointRow]] = {}
    for row in collection.points:
        name = ", ".join(text.plain(row.axes[axis]) for axis in axes if axis)
        grouped.setdefault(name, []).append(row)
    ordered = {name: tuple(sorted(rows, key=key)) for name, rows in grouped.items()}
    return [Series(name, title, rows) for name, rows in ordered.items()]


def _metric_panels(
    sheet: Sheet,
    *,
    x: Callable[[PointRow, float], float | None],
    series: Sequence[Series],
    joined: bool,
    dress: Callable[[Axes], object],
    heading: str,
    names: Callable[[int], str] | None = None,
) -> Figure:
    collection = sheet.collection
    figure, axes = style.panels(len(collection.shown))
    palette = style.colours(len(series), ordered=False)
    for ax, metric in zip(axes, collection.shown, strict=True):
        drawn, named = [], []
        for number, line in enumerate(series):
            shift = _DODGE * (number - (len(series) - 1) / 2)
            places = [(x(row, shift), sheet.cells[(row.index, metric)]) for row in line.rows]
            points = [(float(at), cell) for at, cell in places if at is not None]
            marker = style.MARKERS[number % len(style.MARKERS)]
            look = _Look(palette[number], marker, legend_words(line.name))
            _draw_points(ax, points, look, joined=joined)
            drawn += [cell for _, cell in points]
            named += points
        if names is not None:
            _name_points(ax, named, names)
        dress(ax)
        if len(collection.points) > style.MOST_PATHS:
            for artist in [*ax.lines, *ax.collections]:
                artist.set_rasterized(True)
        ax.set_ylabel(f"{metrics.display(metric)} ({metrics.unit(metric)})")
        chance_line(ax, drawn, metric)
    if len(series) > 1:
        _legend(figure, axes[0], series[0].title)
    if len(axes) == 1:
        axes[0].set_xlabel(heading)
    else:
        figure.supxlabel(heading, fontsize=8)
    style.finish(axes)
    return figure


def _legend(figure: Figure, ax: Axes, title: str) -> None:
    """Above the panels, where it covers no data."""
    handles, names = ax.get_legend_handles_labels()
    columns = max(1, int(figure.get_figwidth() * _LETTERS / (6 + max(map(len, names)))))
    figure.legend(
        handles, names, title=title, loc="outside upper center", ncols=min(columns, len(names))
    )


@dataclass(frozen=True)
class _Look:
    colour: tuple[float, float, float]
    marker: str
    name: str


def _draw_points(
    ax: Axes, points: Sequence[tuple[float, Cell]], look: _Look, *, joined: bool
) -> None:
    """Seeds as faint dots, means as markers with intervals; a hole breaks the line."""
    dots = [(at, value * unit_of(c)) for at, c in points for value in c.values.values()]
    if dots:
        xs, ys = zip(*dots, strict=True)
        ax.scatter(xs, ys, s=9, color=[look.colour], alpha=0.4, linewidths=0)
    ax.plot(
        [at for at, _ in points],
        [c.estimate.mean * unit_of(c) if c.estimate else math.nan for _, c in points],
        marker=look.marker,
        linestyle="-" if joined else "none",
        color=look.colour,
        markeredgecolor="white",
        markeredgewidth=0.5,
        label=look.name,
        zorder=3,
    )
    bars = [
        (at, cell.estimate.mean * unit_of(cell), cell.estimate.half_width * unit_of(cell))
        for at, cell in points
        if cell.estimate is not None and cell.estimate.half_width is not None
    ]
    if bars:
        xs, means, halves = zip(*bars, strict=True)
        look_of_bars: dict[str, Any] = {"elinewidth": 1.0, "capsize": 2.2, "capthick": 1.0}
        ax.errorbar(
            xs, means, yerr=halves, color=look.colour, linestyle="none", zorder=2, **look_of_bars
        )


def _name_points(
    ax: Axes,
    points: Iterable[tuple[float, Cell]],
    names: Callable[[int], str],
) -> None:
    """Above the highest of the points that share a place and a name."""
    tops: dict[tuple[float, str], float] = {}
    for at, cell in points:
        if cell.values:
            place = (at, names(cell.point))
            top = max(_extent(cell)) * unit_of(cell)
            tops[place] = max(tops.get(place, top), top)
    for (at, name), top in tops.items():
        ax.annotate(
            name,
            (at, top),
            xytext=(0, 2.5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=6.5,
            color=style.INK,
        )


def unit_of(cell: Cell) -> float:
    """What a value of the cell is multiplied by."""
    return metrics.scale(cell.metric)


def chance_line(ax: Axes, cells: Sequence[Cell], metric: str, *, across: bool = True) -> None:
    """Chance as a dotted line; named at the edge where drawing it would flatten the data."""
    known = sorted({round(c.chance, 12) for c in cells if c.chance is not None})
    values = [value * unit_of(c) for c in cells for value in _extent(c)]
    if len(known) != 1 or not values:
        return
    chance = known[0] * metrics.scale(metric)
    name = f"chance {text.number(chance, 1)}"
    below = chance <= min(values)
    gap = min(values) - chance if below else chance - max(values)
    near = gap <= _REACH * (max(values) - min(values))
    note: dict[str, Any] = {"fontsize": 6.5, "color": style.FAINT}
    if near:
        (ax.axhline if across else ax.axvline)(
            chance, color=style.FAINT, linestyle=(0, (1, 1.5)), linewidth=1.0, zorder=1
        )
    if across:  # above the panel, where no interval can cross the words
        ax.set_title(
            f"\u22ef {name}" if near else f"{name} {_ARROWS[below]}", loc="right", pad=3, **note
        )
    else:
        ax.set_title(name if near else f"{_SIDEWAYS[below]} {name}", loc="left", pad=3, **note)


def _extent(cell: Cell) -> list[float]:
    ends = [] if cell.estimate is None else [cell.estimate.low, cell.estimate.high]
    return [*cell.values.values(), *[end for end in ends if end is not None]]
