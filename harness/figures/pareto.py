"""Accuracy against what it costs: parameters, GMACs and latency, with the front of the sweep.

Published models stand beside it in grey; they were made under other protocols and are never part of
a front or a test of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from harness import metrics
from harness.document import text
from harness.document.escaping import csv_text
from harness.figures import style
from harness.figures.base import SWEEP, Drawing, Sheet, headline
from harness.report.external import PublishedResult
from harness.results.collect import Collection, PointRow
from harness.results.contrast import listed
from harness.results.summary import Cells

#: Ratio of the greatest to the least cost past which they stand on a logarithmic axis.
_DECADE = 10.0
#: Published models up to which each is named.
_NAMED = 12
#: Points of a front up to which each is named.
_FRONT_NAMED = 6


@dataclass(frozen=True)
class _Cost:
    """A kind of cost: the metrics that add up to it, and the field of published results."""

    name: str
    label: str
    parts: tuple[str, ...]
    scale: float
    field: str | None


_PARAMETERS, _MACS = ("cost/parameters/inference",), ("cost/gmacs/image", "cost/gmacs/text")
_LATENCY = ("cost/latency_ms/image_batch1", "cost/latency_ms/text_batch1")
_COSTS = (
    _Cost("parameters", "parameters, both towers (M)", _PARAMETERS, 1e-6, "params_m"),
    _Cost("gmacs", "GMACs, a picture and a text", _MACS, 1.0, "gmacs"),
    _Cost("latency_ms", "latency, batch 1, both towers (ms)", _LATENCY, 1.0, None),
)


@dataclass(frozen=True)
class _Mark:
    """A point of the sweep, or a published model, in one panel."""

    label: str
    cost: float
    value: float
    low: float | None = None
    high: float | None = None
    source: str | None = None


@SWEEP.register("pareto", place=70)
def pareto(sheet: Sheet) -> Drawing | None:
    """A row a metric, a column a kind of cost that differs between points; None where none does."""
    collection = sheet.collection
    names = headline(collection)
    found = {
        (cost.name, metric): _marks(collection, sheet.cells, cost, metric)
        for cost in _COSTS
        for metric in names
    }
    costs = [cost for cost in _COSTS if _differs(found[(cost.name, name)] for name in names)]
    if not any(cost.field for cost in costs):  # one model's latency differs by noise alone
        return None
    width = style.COLUMN if len(costs) == 1 else style.PAGE
    figure = Figure(figsize=(width, 0.3 + 1.9 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), len(costs), squeeze=False, sharey="row", sharex="col")
    rows: list[list[object]] = []
    for across, metric in zip(grid, names, strict=True):
        for ax, cost in zip(across, costs, strict=True):
            marks = found[(cost.name, metric)]
            published = _published(sheet.published.get(metric, ()), cost)
            _panel(ax, metric, marks, published)
            rows += _rows(metric, cost, marks, published)
        across[0].set_ylabel(f"{metrics.display(metric)} ({metrics.unit(metric)})")
    for ax, cost in zip(grid[-1], costs, strict=True):
        ax.set_xlabel(cost.label)
    style.finish(list(grid.ravel()))
    words = (
        "Accuracy against cost at inference: means over seeds with 95 % t-intervals over seeds; "
        "the line is the front, on which nothing cheaper is as good, its points named by "
        f"{listed([collection.axis_name(axis) for axis in collection.varying_axes])}."
    )
    if any(row[-1] for row in rows):
        words += " Grey: published models, under their own protocols; sources in the data."
    heads = ["metric", "cost", "name", "cost_value", "value", "low", "high", "front", "source"]
    return Drawing(words, figure, csv_text(heads, rows))


def front(
    points: Iterable[tuple[float, float]], *, higher: bool = True
) -> list[tuple[float, float]]:
    """The (cost, value) pairs that no other beats: cheaper first, each better than all before.

    Args:
        higher: whether a higher value is the better one.
    """
    kept: list[tuple[float, float]] = []
    sign = 1 if higher else -1
    for cost, value in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not kept or sign * value > sign * kept[-1][1]:
            kept.append((cost, value))
    return kept


def _differs(marks: Iterable[Sequence[_Mark]]) -> bool:
    spread = {mark.cost for of_metric in marks for mark in of_metric}
    return len(spread) > 1 and max(spread) > 1.05 * min(spread)


def _marks(collection: Collection, cells: Cells, cost: _Cost, metric: str) -> list[_Mark]:
    """The points whose metric and cost are both known."""
    marks = []
    scale = metrics.scale(metric)
    for row in collection.points:
        estimate = cells[(row.index, metric)].estimate
        parts = [cells.get((row.index, part)) for part in cost.parts]
        known = [
            sum(cell.values.values()) / len(cell.values)
            for cell in parts
            if cell is not None and cell.values
        ]
        if estimate is not None and len(known) == len(parts):
            ends = (estimate.low, estimate.high)
            low, high = (None if end is None else end * scale for end in ends)
            marks.append(
                _Mark(
                    _values(collection, row),
                    sum(known) * cost.scale,
                    estimate.mean * scale,
                    low,
                    high,
                )
            )
    return marks


def _values(collection: Collection, row: PointRow) -> str:
    """The point's name, or the values of the axes that vary."""
    if row.label in collection.sweep.show.names:
        return row.label
    values = [text.plain(row.axes[axis]) for axis in collection.varying_axes]
    return ", ".join(values) or row.label


def _published(results: Sequence[PublishedResult], cost: _Cost) -> list[_Mark]:
    """Those whose cost is published, cheapest first."""
    sized = [(r, getattr(r, cost.field)) for r in results] if cost.field else []
    marks = (_Mark(r.model, at, 100 * r.value, source=r.source) for r, at in sized if at)
    return sorted(marks, key=lambda mark: (mark.cost, mark.label))


def _front(metric: str, marks: Iterable[_Mark]) -> list[tuple[float, float]]:
    return front(((m.cost, m.value) for m in marks), higher=metrics.higher_is_better(metric))


def _panel(ax: Axes, metric: str, marks: Sequence[_Mark], published: Sequence[_Mark]) -> None:
    places = [m.cost for m in published], [m.value for m in published]
    ax.scatter(*places, s=10, color=style.FAINT, linewidths=0, zorder=1)
    if len(published) <= _NAMED:
        for mark in published:
            _name(ax, mark, style.FAINT)
    colour = style.colours(1, ordered=False)[0]
    bars = [(m.cost, m.low, m.high) for m in marks if m.low is not None and m.high is not None]
    if bars:
        ax.vlines(*zip(*bars, strict=True), color=colour, linewidth=0.8, alpha=0.6)
    ax.scatter(
        [mark.cost for mark in marks],
        [mark.value for mark in marks],
        s=14,
        color=[colour],
        edgecolors="white",
        linewidths=0.4,
        zorder=3,
    )
    best = _front(metric, marks)
    if len(best) > 1:
        xs, ys = zip(*best, strict=True)
        ax.step(xs, ys, where="post", color=colour, linewidth=1.0, zorder=2)
    if len(best) <= _FRONT_NAMED:
        on_front = set(best)
        for mark in marks:
            if (mark.cost, mark.value) in on_front:
                _name(ax, mark, style.INK)
    if len(marks) > style.MOST_PATHS:
        for artist in ax.collections:
            artist.set_rasterized(True)
    everything = [mark.cost for mark in (*marks, *published)]
    if everything and max(everything) > _DECADE * min(everything) > 0:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.margins(x=0.12, y=0.14)


def _name(ax: Axes, mark: _Mark, colour: str) -> None:
    ax.annotate(
        text.shorten(mark.label, 22),
        (mark.cost, mark.value),
        xytext=(-2.5, 2),
        textcoords="offset points",
        ha="right",
        fontsize=5.5,
        color=colour,
        zorder=4,
    )


def _rows(
    metric: str, cost: _Cost, marks: Sequence[_Mark], published: Sequence[_Mark]
) -> list[list[object]]:
    best = set(_front(metric, marks))
    return [
        [
            *[metric, cost.name, mark.label, mark.cost, mark.value, mark.low, mark.high],
            None if mark.source else (mark.cost, mark.value) in best,
            mark.source,
        ]
        for mark in (*marks, *published)
    ]
