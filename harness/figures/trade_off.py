"""The leading metric against what a point costs, every point by its name, with the front.

Cost is the latency of the forms that ship, where it was measured quietly; else parameters or GMACs.
Published models stand beside in grey; they were made under other protocols and are never part of a
front or a test of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from harness import metrics
from harness.document.escaping import csv_text
from harness.figures import style
from harness.figures.base import SWEEP, Drawing, Sheet, metric_words, name_axes, point_words
from harness.figures.names import Name, name_points
from harness.report.external import PublishedResult

#: Share by which the costs of two points must differ to be worth a picture.
_APART = 1.05


@dataclass(frozen=True)
class _Cost:
    """A kind of cost: the metrics that add up to it, and the field of published results, if any."""

    name: str
    label: str
    parts: tuple[str, ...]
    scale: float
    field: str = ""


_LATENCY = _Cost(
    "latency",
    "latency of a picture and a text (ms)",
    ("cost/latency_ms/image_batch1", "cost/latency_ms/text_batch1"),
    1.0,
)
_COSTS = (
    _Cost("parameters", "parameters of both towers (M)", ("cost/parameters/inference",), 1e-6,
          "params_m"),
    _Cost("gmacs", "GMACs of a picture and a text", ("cost/gmacs/image", "cost/gmacs/text"), 1.0,
          "gmacs"),
)  # fmt: skip


@dataclass(frozen=True)
class _Mark:
    """A point of the sweep, or a published model."""

    label: str
    cost: float
    value: float
    seeds: tuple[float, ...] = ()
    source: str | None = None


@SWEEP.register("trade_off", place=50)
def trade_off(sheet: Sheet) -> Drawing | None:
    """By the first kind of cost that differs between points; None where none does.

    By latency only where every point has one in some form, so that none is left out for it.
    """
    metric = sheet.lead
    if metric is None:
        return None
    found = [(cost, list(_marks(sheet, cost, metric).values())) for cost in _COSTS]
    if sheet.deployed is not None:
        found.insert(0, (_LATENCY, _shipped(sheet, sheet.deployed, metric)))
    cost, marks = next(((c, m) for c, m in found if _differs(m)), (None, []))
    if cost is None:
        return None
    published = _published(sheet.published.get(metric, ()), cost)
    figure = style.figure_of(2.9)
    ax = figure.subplots()
    best = _front(metric, marks)
    _draw(ax, marks, published, best)
    ax.set_xlabel(cost.label)
    ax.set_title(metric_words(metric))
    name_axes(ax, sheet.collection)
    style.finish([ax])
    named = _name(ax, marks, published, best)
    of = "in the forms that ship, by ONNX Runtime" if cost is _LATENCY else "at inference"
    words = (
        f"{metric_words(metric)} against {cost.label} {of}, on a logarithmic axis: means "
        "over seeds (faint dots). The line is the front, on which nothing cheaper is as good."
    )
    if published:
        words += " Grey: published models, under their own protocols; sources in the data."
    if named < len(marks) + len(published):
        words += f" {named} of {len(marks) + len(published)} have room for their names."
    heads = ["metric", "cost", "name", "cost_value", "value", "front", "source"]
    return Drawing(words, figure, csv_text(heads, _rows(metric, cost, marks, published, best)))


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


def _differs(marks: Sequence[_Mark]) -> bool:
    costs = {mark.cost for mark in marks}
    return len(costs) > 1 and max(costs) > _APART * min(costs) > 0


def _shipped(sheet: Sheet, deployed: Sheet, metric: str) -> list[_Mark]:
    """Every form whose latency is known; none unless each point of `sheet` has one."""
    marks = _marks(deployed, _LATENCY, metric)
    each = len(deployed.collection.points) // len(sheet.collection.points)
    whole = {place // each for place in marks} == set(range(len(sheet.collection.points)))
    return list(marks.values()) if whole else []


def _marks(sheet: Sheet, cost: _Cost, metric: str) -> dict[int, _Mark]:
    """Place of a point -> its mark, of those whose metric and cost are both known."""
    marks = {}
    scale = metrics.scale(metric)
    for row in sheet.collection.points:
        cell = sheet.cells[(row.index, metric)]
        parts = [sheet.cells.get((row.index, part)) for part in cost.parts]
        known = [sum(c.values.values()) / len(c.values) for c in parts if c and c.values]
        if cell.estimate is not None and len(known) == len(parts):
            seeds = tuple(value * scale for value in cell.values.values())
            at, mean = sum(known) * cost.scale, cell.estimate.mean * scale
            marks[row.index] = _Mark(point_words(sheet.collection, row), at, mean, seeds)
    return marks


def _published(results: Sequence[PublishedResult], cost: _Cost) -> list[_Mark]:
    """Those whose cost is published, cheapest first."""
    sized = [(r, getattr(r, cost.field)) for r in results if cost.field]
    marks = (_Mark(r.model, at, 100 * r.value, source=r.source) for r, at in sized if at)
    return sorted(marks, key=lambda mark: (mark.cost, mark.label))


def _front(metric: str, marks: Iterable[_Mark]) -> list[tuple[float, float]]:
    return front(((m.cost, m.value) for m in marks), higher=metrics.higher_is_better(metric))


# --------------------------------------------------------------------------- the picture


def _draw(
    ax: Axes,
    marks: Sequence[_Mark],
    published: Sequence[_Mark],
    best: Sequence[tuple[float, float]],
) -> None:
    colour = style.colours(1, ordered=False)[0]
    ax.set_xscale("log")
    if published:
        places = [m.cost for m in published], [m.value for m in published]
        ax.scatter(*places, s=16, color=style.FAINT, linewidths=0, zorder=2)
    dots = [(mark.cost, seed) for mark in marks for seed in mark.seeds]
    xs, ys = zip(*dots, strict=True)
    ax.scatter(xs, ys, s=7, color=[colour], alpha=0.35, linewidths=0, zorder=2)
    means = [m.cost for m in marks], [m.value for m in marks]
    ax.scatter(*means, s=26, color=[colour], edgecolors="white", linewidths=0.5, zorder=4)
    if len(best) > 1:
        ax.plot(*zip(*best, strict=True), color=colour, linewidth=1.3, zorder=3)
    if len(marks) > style.MOST_PATHS:
        for artist in ax.collections:
            artist.set_rasterized(True)
    ax.margins(x=0.08, y=0.1)
    ax.grid(visible=True, axis="both")


def _name(
    ax: Axes,
    marks: Sequence[_Mark],
    published: Sequence[_Mark],
    best: Sequence[tuple[float, float]],
) -> int:
    """Name what there is room for, the front first; returns how many."""
    on_front = set(best)
    ordered = sorted(marks, key=lambda mark: (mark.cost, mark.value) not in on_front)
    names = [Name(mark.label, mark.cost, mark.value) for mark in ordered]
    names += [Name(mark.label, mark.cost, mark.value, style.FAINT) for mark in published]
    return len(name_points(ax, names, best))


def _rows(
    metric: str,
    cost: _Cost,
    marks: Sequence[_Mark],
    published: Sequence[_Mark],
    best: Sequence[tuple[float, float]],
) -> list[list[object]]:
    on_front = set(best)
    return [
        [
            *[metric, cost.name, mark.label, mark.cost, mark.value],
            None if mark.source else (mark.cost, mark.value) in on_front,
            mark.source,
        ]
        for mark in (*marks, *published)
    ]
