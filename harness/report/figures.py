"""The figures of a sweep, each with the data it draws.

Owns which drawing fits which sweep: lines where the points differ in the shown axis alone, dots by
label where they differ in more.  Intervals and means come from the summary, none is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from harness import metrics
from harness.config import canonical_json
from harness.report import style, text
from harness.report.collect import Collection, PointRow
from harness.report.findings import Findings
from harness.report.formats import csv_text
from harness.report.records import Record
from harness.report.summary import Cell, Cells
from harness.report.tables import NO_EMBEDDINGS, WITH_EMBEDDINGS

#: Training curves that one panel can hold and a reader still tell apart.
MANY = 8
#: How many spans of the data chance may lie below it and still be drawn rather than named.
_REACH = 1.5
#: Share of the axis by which lines of neighbouring hues stand apart, so that intervals can be read.
_DODGE = 0.012
#: Ratio of the greatest to the least cost past which they stand on a logarithmic axis.
_DECADE = 10
#: Letters of a legend that fit in an inch.
_LETTERS = 15


@dataclass(frozen=True)
class Drawing:
    """A figure, its file name without an ending, what it shows in words, and its data as CSV."""

    name: str
    words: str
    figure: Figure
    data: str


@dataclass(frozen=True)
class Series:
    """Points drawn in one colour and, where their order means something, joined by a line."""

    name: str
    title: str
    """What the names of all series are values of."""
    rows: tuple[PointRow, ...]


def draw(collection: Collection, findings: Findings) -> list[Drawing]:
    """Every figure there is data for."""
    cells = findings.cells
    with_values = any(
        cells[(r.index, m)].values for r in collection.points for m in collection.shown
    )
    drawings = []
    if with_values and is_one_axis(collection):
        drawings.append(_against_axis(collection, cells))
    elif with_values:
        drawings.append(_by_label(collection, cells))
    for cost, name in (
        (NO_EMBEDDINGS, "metric_vs_parameters"),
        (WITH_EMBEDDINGS, "metric_vs_parameters_with_embeddings"),
    ):
        if with_values and len(set(_costs(collection, cells, cost).values())) > 1:
            drawings.append(_against_cost(collection, cells, cost, name))
    if any(record.curve for record in collection.records):
        drawings.append(_training_curves(collection))
    return drawings


def is_one_axis(collection: Collection) -> bool:
    """Whether the points differ in the shown axis, and in the hue, alone."""
    show = collection.sweep.show
    places = [
        canonical_json([r.axes[show.x], r.axes.get(show.hue or "")]) for r in collection.points
    ]
    others = [axis for axis in collection.axes if axis not in {show.x, show.hue}]
    held = {canonical_json([row.axes[axis] for axis in others]) for row in collection.points}
    return len(held) == 1 and len(set(places)) == len(places)


# --------------------------------------------------------------------------- where on the x axis


@dataclass(frozen=True)
class Scale:
    """Positions of the values of an axis, and how its ticks are written."""

    kind: str
    """`linear`, `log2` or `categorical`."""
    values: tuple[Any, ...]

    def at(self, value: Any, shift: float = 0.0) -> float:
        """The position of `value`, moved by `shift`, a share of the axis' length."""
        if self.kind == "categorical":
            return self._places.index(canonical_json(value)) + shift * len(self.values)
        if self.kind == "log2":
            return float(value * (self.values[-1] / self.values[0]) ** shift)
        return float(value + shift * (self.values[-1] - self.values[0]))

    @property
    def _places(self) -> list[str]:
        return [canonical_json(value) for value in self.values]

    def apply(self, ax: Axes) -> None:
        """Put ticks at the values, and nowhere else."""
        positions = [self.at(value) for value in self.values]
        if self.kind == "log2":
            ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(positions))
        ax.xaxis.set_minor_locator(NullLocator())
        names = [text.plain(value) for value in self.values]
        crowded = sum(map(len, names)) > 26
        ax.set_xticks(
            positions,
            names,
            rotation=30 if crowded else 0,
            ha="right" if crowded else "center",
            rotation_mode="anchor",
        )
        if self.kind == "categorical":
            ax.set_xlim(-0.5, len(self.values) - 0.5)
        else:
            ax.margins(x=0.08)


def scale_of(values: Sequence[Any]) -> Scale:
    """Numbers stand where they belong, on whichever of linear and log2 keeps them further apart."""
    unique = list({canonical_json(value): value for value in values}.values())
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in unique):
        return Scale("categorical", tuple(unique))
    ordered = tuple(sorted(unique))
    if len(ordered) < 3 or ordered[0] <= 0:
        return Scale("linear", ordered)
    log = _least_gap([math.log2(value) for value in ordered])
    return Scale("log2" if log > 1.05 * _least_gap(ordered) else "linear", ordered)


def _least_gap(ordered: Sequence[float]) -> float:
    gaps = [b - a for a, b in pairwise(ordered)]
    return min(gaps) / (ordered[-1] - ordered[0])


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
        heading=collection.axis_name(show.x),
    )
    words = f"Each metric against {collection.axis_name(show.x)}. {_reading(collection)}"
    return Drawing("metric_vs_axis", words, figure, _data(collection, cells))


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
    millions = {p: v * metrics.scale(cost) for p, v in _costs(collection, cells, cost).items()}
    lines = is_one_axis(collection) and _numeric(collection)
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
        names=(lambda row: text.plain(row.axes[show.x])) if lines else None,
    )
    words = f"Each metric against inference {heading}, by {collection.axis_name(show.x)}"
    return Drawing(name, f"{words}. {_reading(collection)}", figure, _data(collection, cells, cost))


def _costs(collection: Collection, cells: Cells, cost: str) -> dict[int, float]:
    """Point -> its cost, of the points with a finished seed."""
    found = {row.index: cells.get((row.index, cost)) for row in collection.points}
    return {p: next(iter(c.values.values())) for p, c in found.items() if c and c.values}


def _numeric(collection: Collection) -> bool:
    x = collection.sweep.show.x
    return scale_of([row.axes[x] for row in collection.points]).kind != "categorical"


def _series(
    collection: Collection, *, key: Callable[[PointRow], float], axes: Sequence[str | None]
) -> list[Series]:
    """One series a combination of the values of `axes` (None: no axis), its points by `key`."""
    title = ", ".join(collection.axis_name(axis) for axis in axes if axis)
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
    names: Callable[[PointRow], str] | None = None,
) -> Figure:
    figure, axes = style.panels(len(collection.shown))
    palette = style.colours(len(series), ordered=False)
    for ax, metric in zip(axes, collection.shown, strict=True):
        drawn = []
        for number, line in enumerate(series):
            shift = _DODGE * (number - (len(series) - 1) / 2)
            places = [(x(row, shift), cells[(row.index, metric)]) for row in line.rows]
            points = [(float(at), cell) for at, cell in places if at is not None]
            look = _Look(palette[number], style.MARKERS[number % len(style.MARKERS)], line.name)
            _draw_points(ax, points, look, joined=joined)
            drawn += [cell for _, cell in points]
            if names is not None:
                _name_points(ax, line.rows, points, names)
        dress(ax)
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
    for at, cell in points:
        if cell.estimate is not None and cell.estimate.half_width is not None:
            ax.errorbar(
                at,
                cell.estimate.mean * _unit(cell),
                yerr=cell.estimate.half_width * _unit(cell),
                color=look.colour,
                elinewidth=1.0,
                capsize=2.2,
                capthick=1.0,
                zorder=2,
            )


def _name_points(
    ax: Axes,
    rows: Sequence[PointRow],
    points: Sequence[tuple[float, Cell]],
    names: Callable[[PointRow], str],
) -> None:
    by_index = {row.index: row for row in rows}
    for at, cell in points:
        if cell.values:
            top = max(cell.values.values())
            if cell.estimate is not None and cell.estimate.high is not None:
                top = max(top, cell.estimate.high)
            ax.annotate(
                names(by_index[cell.point]),
                (at, top * _unit(cell)),
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


def _by_label(collection: Collection, cells: Cells) -> Drawing:
    """A row a point, a panel a metric, for sweeps whose points differ in several axes."""
    rows = collection.points
    height = 0.55 + 0.19 * len(rows)
    count = len(collection.shown)
    longest = max(len(row.label) for row in rows)
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
        ax.set_xlabel(f"{metrics.display(metric)} ({metrics.unit(metric)})")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.grid(visible=True, axis="x")
        _chance_line(ax, column, metric, across=False)
    axes[0].set_yticks(range(len(rows)), [row.label for row in rows])
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    style.finish(axes)
    words = f"Each metric by point. {_reading(collection)} Dashed line and square: the baseline."
    return Drawing("metric_by_point", words, figure, _data(collection, cells))


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


# --------------------------------------------------------------------------- training curves


@dataclass(frozen=True)
class Curve:
    """The loss of one point: `losses` by samples seen (rows) and seed (columns)."""

    losses: pd.DataFrame
    complete: bool
    """Whether every seed has finished; where one has not, no mean is drawn."""

    @property
    def shared(self) -> pd.DataFrame:
        """The rows that every seed has logged."""
        return self.losses.dropna()


def _training_curves(collection: Collection) -> Drawing:
    curves = {row.index: _curve(collection.of_point(row.index)) for row in collection.points}
    rows = [row for row in collection.points if not curves[row.index].losses.empty]
    simple = is_one_axis(collection) and collection.sweep.show.hue is None
    show = collection.sweep.show
    ordered = simple and _numeric(collection)
    names = {row.index: text.plain(row.axes[show.x]) if simple else row.label for row in rows}
    palette = dict(
        zip([row.index for row in rows], style.colours(len(rows), ordered=ordered), strict=True)
    )
    if len(rows) <= MANY:
        figure, axes = style.panels(1, row_height=2.4)
        for row in rows:
            _draw_curve(axes[0], curves[row.index], palette[row.index], names[row.index])
        axes[0].legend(title=collection.axis_name(show.x) if simple else None)
    else:
        lines = max(len(names[row.index].split(", ")) for row in rows)
        figure, axes = style.panels(len(rows), row_height=1.3 + 0.1 * lines, most=4)
        for ax, row in zip(axes, rows, strict=True):
            for other in rows:
                ax.plot(
                    curves[other.index].shared.mean(axis=1),
                    color=style.PALE,
                    linewidth=0.6,
                    zorder=1,
                )
            _draw_curve(ax, curves[row.index], style.colours(1, ordered=False)[0], "")
            ax.set_title(names[row.index].replace(", ", "\n"), fontsize=6)
    top = max(float(curves[row.index].losses.index.max()) for row in rows)
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(lambda value, _: _thousands(value, top))
    figure.supxlabel(f"samples seen{_thousands_name(top)}", fontsize=8)
    figure.supylabel("training loss", fontsize=8)
    style.finish(axes)
    words = (
        "Training loss (sum of the weighted terms) against samples seen: mean over seeds in a band "
        "from the least to the greatest; single seeds, dashed, where not every seed has finished."
    )
    words += " Grey: the other points." if len(rows) > MANY else ""
    return Drawing("training_curves", words, figure, _curve_data(collection))


def _curve(records: Sequence[Record]) -> Curve:
    columns = {
        record.seed: pd.Series({line["samples_seen"]: float(line["loss"]) for line in record.curve})
        for record in records
        if record.curve
    }
    complete = all(record.result is not None for record in records)
    return Curve(pd.DataFrame(columns).sort_index(), complete)


def _draw_curve(ax: Axes, curve: Curve, colour: tuple[float, float, float], name: str) -> None:
    if curve.complete:
        shared = curve.shared
        low, high = shared.min(axis=1), shared.max(axis=1)
        ax.fill_between(shared.index, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(shared.mean(axis=1), color=colour, label=name, zorder=2)
        return
    for number, seed in enumerate(curve.losses):
        known = curve.losses[seed].dropna()
        label = f"{name} (single seeds)" if name and number == 0 else None
        ax.plot(known, color=colour, linewidth=0.8, linestyle="--", label=label, zorder=2)


def _thousands(value: float, top: float) -> str:
    divisor = 1_000_000 if top >= 2_000_000 else 1_000 if top >= 2_000 else 1
    return f"{value / divisor:g}"


def _thousands_name(top: float) -> str:
    return " (millions)" if top >= 2_000_000 else " (thousands)" if top >= 2_000 else ""


# --------------------------------------------------------------------------- data beside a figure


def _data(collection: Collection, cells: Cells, *costs: str) -> str:
    """Every mark of the figure: a row a seed, and a row `mean` with its interval."""
    heads = ["label", *collection.axes, *costs, "metric", "seed", "value", "low", "high", "chance"]
    known = {cost: _costs(collection, cells, cost) for cost in costs}
    rows: list[list[object]] = []
    for metric in collection.shown:
        for row in collection.points:
            cell = cells[(row.index, metric)]
            place: list[object] = [row.label, *[row.axes[axis] for axis in collection.axes]]
            place += [*[known[cost].get(row.index) for cost in costs], metric]
            rows += [[*place, s, v, None, None, cell.chance] for s, v in cell.values.items()]
            if cell.estimate is not None:
                mean, low, high = cell.estimate.mean, cell.estimate.low, cell.estimate.high
                rows.append([*place, "mean", mean, low, high, cell.chance])
    return csv_text(heads, rows)


def _curve_data(collection: Collection) -> str:
    rows = [
        [record.run.label, record.seed, line["samples_seen"], float(line["loss"])]
        for record in collection.records
        for line in record.curve
    ]
    return csv_text(["label", "seed", "samples_seen", "loss"], rows)
