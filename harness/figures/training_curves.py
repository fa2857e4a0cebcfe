"""The contrastive loss of every point against samples seen; sums of several terms are never drawn.

At most four points stand out, the others are grey: what very many range over, as areas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from harness.document.escaping import csv_text
from harness.figures import style
from harness.figures.base import (
    SWEEP,
    Drawing,
    Sheet,
    has_ordered_axis,
    is_one_axis,
    name_axes,
    point_words,
    samples_axis,
)
from harness.figures.names import Name, name_line_ends
from harness.results.collect import Collection
from harness.results.records import Record

_CONTRASTIVE, _TERMS, _SUM = "terms/instance", "terms/", "loss"
#: The fewest places that make a line.
_FEWEST = 3
#: Points that stand out.
_HIGHLIGHTED = 4
#: Ratio of the greatest to the least loss past which they stand on a logarithmic axis.
_DECADE = 8.0


@dataclass(frozen=True)
class LossCurve:
    """The loss of one point: seed -> (samples seen, loss), (N, 2)."""

    losses: Mapping[int, NDArray[np.float64]]
    complete: bool
    """Whether every seed has finished; where one has not, no mean is drawn."""

    @cached_property
    def shared(self) -> NDArray[np.float64]:
        """Samples seen that every seed has logged, and its loss a seed, (N, 1 + S)."""
        tables = list(self.losses.values())
        places = reduce(_common, [points[:, 0] for points in tables])
        same = [p if len(p) == len(places) else p[np.isin(p[:, 0], places)] for p in tables]
        return np.column_stack([places, *[points[:, 1] for points in same]])

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """(samples seen, mean loss) of those rows, (N, 2)."""
        return np.column_stack([self.shared[:, 0], self.shared[:, 1:].mean(axis=1)])


_Curves = Mapping[int, LossCurve]
"""Point -> its curve."""


def _common(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return one if np.array_equal(one, other) else np.intersect1d(one, other)


@SWEEP.register("training_curves", place=90)
def training_curves(sheet: Sheet) -> Drawing | None:
    """None where no run has logged the contrastive term at three places."""
    collection = sheet.collection
    found = {row.index: _curve(collection.of_point(row.index)) for row in collection.points}
    curves = {
        point: curve
        for point, curve in found.items()
        if max(map(len, curve.losses.values()), default=0) >= _FEWEST
    }
    if not curves:
        return None
    chosen = _highlighted(sheet, list(curves))
    figure = style.figure_of(2.4)
    ax = figure.subplots()
    others = [curve for point, curve in curves.items() if point not in chosen]
    many = len(curves) > style.MOST_PATHS
    (_draw_range if many else _draw_in_grey)(ax, others)
    ordered = is_one_axis(collection) and has_ordered_axis(collection)
    palette = style.colours(len(chosen), ordered=ordered)
    for colour, point in zip(palette, chosen, strict=False):
        _draw_curve(ax, curves[point], colour)
    ax.set_title("contrastive training loss")
    name_axes(ax, collection)
    _scale(ax, curves.values())
    samples_axis(figure, [ax], _last(curves.values()))
    names = [
        Name(point_words(collection, collection.points[point]), *_end(curves[point]), colour)
        for colour, point in zip(palette, chosen, strict=False)
    ]
    name_line_ends(ax, names)
    return Drawing(_words(curves, len(others), many=many), figure, _data(collection, curves, many))


def _words(curves: _Curves, others: int, *, many: bool) -> str:
    words = (
        "Contrastive term of the training loss against samples seen: mean over seeds in a band "
        "from the least to the greatest"
    )
    if not all(curve.complete for curve in curves.values()):
        words += "; dashed: single seeds, where not every seed has finished"
    if others:
        ranged = ", as the range and the middle half of all" if many else ""
        words += f". Grey: the other {f'{others:,} points' if others > 1 else 'point'}{ranged}"
    return f"{words}."


def _highlighted(sheet: Sheet, points: Sequence[int]) -> list[int]:
    """Points that stand out: all of a few; of many the baseline, the best, the first and last."""
    if len(points) <= _HIGHLIGHTED:
        return list(points)
    rows = {row.index: row for row in sheet.collection.points}
    lead = sheet.lead
    merits = {} if lead is None else {p: sheet.cells[(p, lead)].merit for p in points}
    known = [point for point in merits if merits[point] > -math.inf]
    bases = {rows[point].baseline for point in points} - {None}
    wanted = [p for p in points if p in bases][:1]
    wanted += sorted(known, key=lambda point: -merits[point])[:1]
    wanted += [points[0], points[-1], *points]
    return sorted(list(dict.fromkeys(wanted))[:_HIGHLIGHTED])


# --------------------------------------------------------------------------- the curves


def _curve(records: Sequence[Record]) -> LossCurve:
    """Of a place that a run logged twice, having begun again before it, the later line counts."""
    losses = {}
    for record in records:
        points = record.curve.points(_column(record))[::-1]
        if len(points):
            _, last = np.unique(points[:, 0], return_index=True)
            losses[record.seed] = points[last]
    return LossCurve(losses, complete=all(record.result is not None for record in records))


def _column(record: Record) -> str:
    """The contrastive term; the loss of a run that logged no terms, which had no other."""
    logged = record.curve.columns
    return _CONTRASTIVE if any(name.startswith(_TERMS) for name in logged) else _SUM


def _last(curves: Iterable[LossCurve]) -> float:
    return max(float(points[-1, 0]) for curve in curves for points in curve.losses.values())


def _end(curve: LossCurve) -> tuple[float, float]:
    """Where the line of a point ends."""
    points = curve.mean if curve.complete else next(iter(curve.losses.values()))
    return float(points[-1, 0]), float(points[-1, 1])


def _scale(ax: Axes, curves: Iterable[LossCurve]) -> None:
    values = np.concatenate([p[:, 1] for curve in curves for p in curve.losses.values()])
    if values.min() > 0 and values.max() > _DECADE * values.min():
        ax.set_yscale("log")
    ax.margins(x=0.02)


def _draw_in_grey(ax: Axes, curves: Sequence[LossCurve]) -> None:
    """All curves as one collection of lines: one path each would take seconds to write."""
    lines = [curve.mean for curve in curves if len(curve.mean)]
    ax.add_collection(LineCollection(lines, colors=style.PALE, linewidths=0.8, zorder=1))
    ax.autoscale_view()


def _draw_range(ax: Axes, curves: Sequence[LossCurve]) -> None:
    """Lines too many to tell apart as what they range over."""
    spread = _spread(curves)
    ax.fill_between(*spread.T[[0, 1, 5]], color=style.PALE, alpha=0.5, linewidth=0)
    ax.fill_between(*spread.T[[0, 2, 4]], color=style.PALE, linewidth=0)


_QUANTILES = {"least": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "greatest": 1.0}


def _spread(curves: Iterable[LossCurve]) -> NDArray[np.float64]:
    """Samples seen and the quantiles of the curves' means there, (N, 1 + 5)."""
    means = np.concatenate([curve.mean for curve in curves])
    means = means[np.argsort(means[:, 0], kind="stable")]
    places, starts = np.unique(means[:, 0], return_index=True)
    groups = np.split(means[:, 1], starts[1:])
    levels = [np.quantile(group, list(_QUANTILES.values())) for group in groups]
    return np.column_stack([places, levels])


def _draw_curve(ax: Axes, curve: LossCurve, colour: str) -> None:
    if curve.complete:
        at, losses = curve.shared[:, 0], curve.shared[:, 1:]
        low, high = losses.min(axis=1), losses.max(axis=1)
        ax.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(*curve.mean.T, color=colour, zorder=2)
        return
    for points in curve.losses.values():
        ax.plot(*points.T, color=colour, linewidth=0.8, linestyle="--", zorder=2)


def _data(collection: Collection, curves: _Curves, many: bool) -> str:
    if many:
        rows = [[len(curves), *place] for place in _spread(curves.values()).tolist()]
        return csv_text(["points", "samples_seen", *_QUANTILES], rows)
    told = [
        [record.run.label, record.seed, int(at), loss]
        for record in collection.records
        for at, loss in record.curve.points(_column(record)).tolist()
    ]
    return csv_text(["label", "seed", "samples_seen", "contrastive_loss"], told)
