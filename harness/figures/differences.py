"""Forest plot: what each point changes in its baseline, metric by metric.

Rows stand in groups by the axes in which the baselines differ (the same change at every depth).
The leading metric has its differences beside its values and is left out here.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from harness import metrics
from harness.document.escaping import csv_text
from harness.figures import marks, style
from harness.figures.base import SWEEP, Drawing, Sheet, by_words, point_words
from harness.figures.heat_map import grid_of
from harness.results.collect import Collection, PointRow
from harness.results.contrast import contrast_of

#: Rows past which only those with the largest differences are drawn.
_MOST = 30
#: Rows up to which each difference has its number.
_NUMBERED = 12
#: Letters of a group's name.
_LETTERS = 30


@SWEEP.register("differences", place=60)
def differences(sheet: Sheet) -> Drawing | None:
    """What each point changes in its baseline; None where nothing is compared."""
    collection = sheet.collection
    has_own = grid_of(collection) is None  # a figure of the leading metric's differences
    names = [m for m in sheet.quality[int(has_own) :] if sheet.compared(m)]
    compared = _compared(sheet, names)
    if not compared:
        return None
    rows = _grouped(collection, _largest(sheet, compared, names[0]))
    longest = max(len(name) for name, _ in rows)
    head = by_words(collection, max(18, longest), without=collection.places)
    figure, panels = marks.forest(names, [name for name, _ in rows], _row(len(rows)), head)
    for ax, metric in panels:
        _panel(ax, sheet, metric, rows)
        _emphasise(ax, rows)
    figure.supxlabel("difference to the baseline (points)", fontsize=style.LETTERS)
    style.finish([ax for ax, _ in panels])
    words = _words(sheet, names, len([row for _, row in rows if row is not None]), len(compared))
    return Drawing(
        words + marks.left_out(len(panels), names), figure, _data(sheet, compared, names)
    )


def _row(rows: int) -> float:
    """Inches of a row, with room for a number where each has one."""
    return 0.22 if rows <= _NUMBERED else 0.15


def _compared(sheet: Sheet, names: Sequence[str]) -> list[PointRow]:
    points = {point for metric in names for point in sheet.compared(metric)}
    return [row for row in sheet.collection.points if row.index in points]


def _largest(sheet: Sheet, compared: Sequence[PointRow], metric: str) -> list[PointRow]:
    """The rows with the largest differences on `metric`, in the order of the sweep."""
    sizes = {point: abs(c.mean) for point, c in sheet.compared(metric).items()}
    largest = sorted(compared, key=lambda row: -sizes.get(row.index, 0.0))[:_MOST]
    return sorted(largest, key=lambda row: row.index)


_Rows = list[tuple[str, PointRow | None]]
"""Name -> the point of the row; None under the name of a group."""


def _grouped(collection: Collection, rows: Sequence[PointRow]) -> _Rows:
    groups: dict[str, list[tuple[str, PointRow]]] = {}
    for row in rows:
        assert row.baseline is not None
        place = contrast_of(collection, row, collection.points[row.baseline]).place
        name = point_words(collection, row, without=collection.places)
        groups.setdefault(place, []).append((name, row))
    listed: _Rows = []
    for place, members in groups.items():
        listed += [(style.shorten(place, _LETTERS), None)] if place and len(groups) > 1 else []
        listed += members
    return listed


def _panel(ax: Axes, sheet: Sheet, metric: str, rows: _Rows) -> None:
    made = sheet.compared(metric)
    for at, (_, row) in enumerate(rows):
        if row is not None and row.index in made:
            marks.draw_difference(ax, at, made[row.index], number=len(rows) <= _NUMBERED)


def _emphasise(ax: Axes, rows: _Rows) -> None:
    """The names of groups apart from those of points; a group has no tick.

    Its mark is of no size and not hidden: matplotlib measures a panel by any one of its visible
    ticks, which one is a matter of where they lie in memory.
    """
    for tick, (_, row) in zip(ax.yaxis.get_major_ticks(), rows, strict=True):
        if row is None:
            tick.label1.set_fontweight("bold")
            tick.tick1line.set_markersize(0)


def _words(sheet: Sheet, names: Sequence[str], shown: int, compared: int) -> str:
    made = [c for metric in names for c in sheet.compared(metric).values()]
    words = f"Difference of each point to its baseline in points, {marks.about_intervals(made)}. "
    words += marks.FILLED
    if shown < compared:
        words += (
            f" The {shown} of {compared} points with the largest differences in "
            f"{metrics.display(names[0])}."
        )
    return words


def _data(sheet: Sheet, compared: Sequence[PointRow], names: Sequence[str]) -> str:
    heads = ["label", "metric", "difference", "low", "high", "over", "p", "p_holm", "significant"]
    labels = {row.index: row.label for row in compared}
    rows: list[list[object]] = []
    for metric in names:
        for c in sheet.compared(metric).values():
            low, high, over = c.interval or (None, None, None)
            told = [over.value if over else None, c.p, c.adjusted, c.decided]
            rows.append([labels[c.point], metric, c.mean, low, high, *told])
    return csv_text(heads, rows)
