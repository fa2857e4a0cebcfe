"""The figures of a sweep, each with the data it draws.

Owns which drawing fits which sweep: lines where the points differ in the shown axis alone, dots by
label where they differ in more.  Intervals and means come from the summary, none is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness import metrics
from harness.document import text
from harness.report import style
from harness.report.collect import Collection, PointRow
from harness.report.curves import schedules, training_curves
from harness.report.drawing import (
    Drawing,
    axis_words,
    costs_of,
    has_ordered_axis,
    is_one_axis,
    legend_words,
    metric_data,
    point_words,
    scale_of,
    value_words,
)
from harness.report.findings import Findings
from harness.report.forest import forest
from harness.report.heatmap import grid_of, heat_map
from harness.report.pareto import pareto
from harness.report.per_class import per_class
from harness.report.summary import Cell, Cells
from harness.report.tables import NO_EMBEDDINGS, WITH_EMBEDDINGS
from harness.report.time_spent import time_spent

#: Lines with intervals that a panel can hold; a sweep of more is drawn as a heat map alone.
_MOST_LINES = 5
#: How many spans of the data chance may lie below it and still be drawn rather than named.
_REACH = 1.5
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


def draw(
    collection: Collection,
    findings: Findings,
    external: pd.DataFrame | None = None,
) -> list[Drawing]:
    """Every figure there is data for.

    Args:
        external: published models to show in grey, see `pareto.pareto`.
    """
    drawn = [
        *_results(collection, findings),
        forest(collection, findings),
        pareto(collection, findings, external),
        per_class(collection, findings),
        training_curves(collection),
        schedules(collection),
        time_spent(collection),
    ]
    return [drawing for drawing in drawn if drawing is not None]


def _results(collection: Collection, findings: Findings) -> list[Drawing]:
    """The metrics over the points, in the form that fits the sweep."""
    cells = findings.cells
    if not any(cells[(r.index, m)].values for r in collection.points for m in collection.shown):
        return []
    drawings = []
    grid = grid_of(collection)
    if is_one_axis(collection) and (grid is None or len(_lines(collection)) <= _MOST_LINES):
        drawings.append(_against_axis(collection, cells))
    if grid is not None:
        drawings.append(heat_map(collection, cells, grid))
    elif not is_one_axis(collection):
        drawings.append(_by_label(collection, cells))
    legible = not is_one_axis(collection) or len(_lines(collection)) <= _MOST_LINES
    for cost, name in (
        (NO_EMBEDDINGS, "metric_vs_parameters"),
        (WITH_EMBEDDINGS, "metric_vs_parameters_with_embeddings"),
    ):
        if len(set(costs_of(collection, cells, cost).values())) > 1 and legible:
            drawings.append(_against_cost(collection, cells, cost, name))
    return drawings


def _lines(collection: Collection) -> set[str]:
    hue = collection.sweep.show.hue
    return {text.plain(row.axes[hue]) for row in collection.points} if hue else set()


# --------------------------------------------------------------------------- a metric against x


def _against_axis(collection: Collection, cells: Cells) -> Drawing:
    show = collection.sweep.show
    scale = scale_of([row.axes[show.x] for row in collection.points])
    figure = _metric_panels(
        collection,
        cells,
        x=lambda row, shift: scale.at(row.axes[show.x], shift),
        series=_series(collection, key=lambda row: scale.at(row.axes[show.x]), axes=[show.hue]),
        joined=scale.kind != "categorical",
        dress=scale.apply,
        heading=axis_words(collection, show.x),
    )
    words = f"Each metric against {collection.axis_name(show.x)}. {_reading(collection)}"
    return Drawing("metric_vs_axis", words, figure, metric_data(collection, cells))


def _reading(collection: Collection) -> str:
    """How to read the marks."""
    if all(len(row.seeds) == 1 for row in collection.points):
        return "One seed a point: no interval can be given."
    return (
        "Mean over seeds with its 95 % t-interval; faint dots are single seeds; "
        "a point that lacks a seed has dots and no mean."
    )


def _against_cost(collection: Collection, cells: Cells, cost: str, name: str) -> Drawing:
    show = collection.sweep.show
    millions = {p: v * metrics.scale(cost) for p, v in costs_of(collection, cells, cost).items()}
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
        collection,
        cells,
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
    return Drawing(
        name, f"{words}. {_reading(collection)}", figure, metric_data(collection, cells, cost)
    )


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
    collection: Collection,
    cells: Cells,
    *,
    x: Callable[[PointRow, float], float | None],
    series: Sequence[Series],
    joined: bool,
    dress: Callable[[Axes], object],
    heading: str,
    names: Callable[[int], str] | None = None,
) -> Figure:
    figure, axes = style.panels(len(collection.shown))
    palette = style.colours(len(series), ordered=False)
    for ax, metric in zip(axes, collection.shown, strict=True):
        drawn, named = [], []
        for number, line in enumerate(series):
            shift = _DODGE * (number - (len(series) - 1) / 2)
            places = [(x(row, shift), cells[(row.index, metric)]) for row in line.rows]
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
        _chance_line(ax, drawn, metric)
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
    dots = [(at, value * _unit(c)) for at, c in points for value in c.values.values()]
    if dots:
        xs, ys = zip(*dots, strict=True)
        ax.scatter(xs, ys, s=9, color=[look.colour], alpha=0.4, linewidths=0)
    ax.plot(
        [at for at, _ in points],
        [c.estimate.mean * _unit(c) if c.estimate else math.nan for _, c in points],
        marker=look.marker,
        linestyle="-" if joined else "none",
        color=look.colour,
        markeredgecolor="white",
        markeredgewidth=0.5,
        label=look.name,
        zorder=3,
    )
    bars = [
        (at, cell.estimate.mean * _unit(cell), cell.estimate.half_width * _unit(cell))
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
            top = max(_extent(cell)) * _unit(cell)
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


def _unit(cell: Cell) -> float:
    return metrics.scale(cell.metric)


def _chance_line(ax: Axes, cells: Sequence[Cell], metric: str, *, across: bool = True) -> None:
    """Chance as a dotted line; named at the edge where drawing it would flatten the data."""
    known = sorted({round(c.chance, 12) for c in cells if c.chance is not None})
    values = [value * _unit(c) for c in cells for value in _extent(c)]
    if len(known) != 1 or not values:
        return
    chance = known[0] * metrics.scale(metric)
    name = f"chance {text.number(chance, 1)}"
    near = min(values) - chance <= _REACH * (max(values) - min(values))
    note: dict[str, Any] = {"fontsize": 6.5, "color": style.FAINT}
    if near:
        (ax.axhline if across else ax.axvline)(
            chance, color=style.FAINT, linestyle=(0, (1, 1.5)), linewidth=1.0, zorder=1
        )
    if across:  # above the panel, where no interval can cross the words
        ax.set_title(f"\u22ef {name}" if near else f"{name} \u2193", loc="right", pad=3, **note)
    else:
        ax.set_title(name if near else f"\u2190 {name}", loc="left", pad=3, **note)


def _extent(cell: Cell) -> list[float]:
    ends = [] if cell.estimate is None else [cell.estimate.low, cell.estimate.high]
    return [*cell.values.values(), *[end for end in ends if end is not None]]


# --------------------------------------------------------------------------- dots by label

_ON_A_LINE = 4
"""Panels side by side whose metrics and units are short enough for one line each."""


def _by_label(collection: Collection, cells: Cells) -> Drawing:
    """A row a point, a panel a metric, for sweeps whose points differ in several axes."""
    rows = collection.points
    height = 0.55 + 0.19 * len(rows)
    count = len(collection.shown)
    names = [point_words(row) for row in rows]
    longest = max(map(len, names))
    width = style.PAGE if count > 1 or longest > 24 else style.COLUMN
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False, sharey=True).ravel())
    marked = {row.baseline for row in rows} - {None}
    for ax, metric in zip(axes, collection.shown, strict=True):
        column = [cells[(row.index, metric)] for row in rows]
        for at, cell in enumerate(column):
            _draw_row(ax, at, cell, marked=cell.point in marked)
        if len(marked) == 1:
            base = column[next(p for p in marked if p is not None)].estimate
            if base is not None:
                mean = base.mean * metrics.scale(metric)
                ax.axvline(mean, color=style.FAINT, linewidth=0.8, linestyle="--", zorder=1)
        between = "\n" if count > _ON_A_LINE else " "
        ax.set_xlabel(
            f"{metrics.display(metric)}{between}({metrics.unit(metric)})",
            fontsize=8 if count <= _ON_A_LINE else 6.5,
        )
        ax.xaxis.set_major_locator(MaxNLocator(5 if count <= _ON_A_LINE else 3))
        ax.grid(visible=True, axis="x")
        _chance_line(ax, column, metric, across=False)
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    style.finish(axes)
    words = f"Each metric by point. {_reading(collection)} Dashed line and square: the baseline."
    return Drawing("metric_by_point", words, figure, metric_data(collection, cells))


def _draw_row(ax: Axes, at: int, cell: Cell, *, marked: bool) -> None:
    colour = style.colours(2, ordered=False)[1 if marked else 0]
    unit = _unit(cell)
    values = [value * unit for value in cell.values.values()]
    ax.scatter(values, [at] * len(values), s=9, color=[colour], alpha=0.35, linewidths=0)
    if cell.estimate is None:
        return
    half = cell.estimate.half_width
    ax.errorbar(
        cell.estimate.mean * unit,
        at,
        xerr=None if half is None else half * unit,
        fmt="s" if marked else "o",
        color=colour,
        markeredgecolor="white",
        markeredgewidth=0.5,
        elinewidth=1.0,
        capsize=2.0,
        zorder=3,
    )
