"""The schedules of a sweep's runs as they really ran."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from harness.document.escaping import csv_text
from harness.figures import style
from harness.figures.base import SWEEP, Drawing, Sheet, legend_words, samples_axis, setting_words
from harness.results.collect import Collection
from harness.results.records import Curve as Log
from harness.results.records import Record

#: Schedules that a legend can name.
_MANY = 8


@dataclass(frozen=True)
class _Schedule:
    """What is scheduled: its name, and its values (samples seen, value) in a training log."""

    name: str
    label: str
    of: Callable[[Log], NDArray[np.float64]]


_Points = tuple[tuple[int, float], ...]
"""(samples seen, value) of every line that tells one."""
_Curves = Mapping[tuple[int, int], _Points]
"""(point, seed) -> what that run logged."""


@SWEEP.register("schedules", place=100)
def schedules(sheet: Sheet) -> Drawing | None:
    """What the records say of the softened mass, the weights of the terms and the learning rate.

    Drawn from what was logged, not from what was asked for.  Points that ran the same schedule
    share a line.  None where neither the mass nor a weight ever changes; a learning rate that all
    points share is left out.
    """
    collection = sheet.collection
    records = [record for record in collection.records if record.curve]
    found: dict[_Schedule, _Curves] = {}
    for schedule in _schedules(records):
        curves = {
            (record.point, record.seed): points
            for record in records
            if len(points := _points(record, schedule)) > 1
        }
        changes = any(len({value for _, value in points}) > 1 for points in curves.values())
        if changes and (schedule.name != "lr" or len(set(curves.values())) > 1):
            found[schedule] = curves
    if not any(schedule.name != "lr" for schedule in found):
        return None
    figure, axes = style.panels(len(found))
    for ax, (schedule, drawn) in zip(axes, found.items(), strict=True):
        _draw_schedule(ax, collection, drawn)
        ax.set_title(schedule.label)
    top = max(at for curves in found.values() for points in curves.values() for at, _ in points)
    samples_axis(figure, axes, top)
    words = (
        "The schedules as they ran, from the log: softened mass and learning rate at each line of "
        "it, weights as the weighted over the raw term, averaged since the line before."
    )
    return Drawing(words, figure, _schedule_data(collection, found))


def _schedules(records: Sequence[Record]) -> list[_Schedule]:
    names = dict.fromkeys(name for record in records for name in record.curve.columns)
    terms = [name.partition("/")[2] for name in names if name.startswith("terms/")]
    return [
        _Schedule("soft_label_mass", "softened mass", lambda log: log.points("soft_label_mass")),
        *[_Schedule(f"weight_{t}", f"weight of {t}", partial(_weight, t)) for t in terms],
        _Schedule("lr", "learning rate", lambda log: log.points("lr")),
    ]


def _weight(term: str, log: Log) -> NDArray[np.float64]:
    """Rounded to what a mean of ratios keeps, so that equal schedules are equal."""
    raw, weighted = log.points(f"terms/{term}"), dict(log.points(f"weighted/{term}").tolist())
    ratios = [
        (at, float(f"{weighted[at] / value:.3g}"))
        for at, value in raw.tolist()
        if value and at in weighted
    ]
    return np.array(ratios).reshape(-1, 2)


def _points(record: Record, schedule: _Schedule) -> _Points:
    return tuple((int(at), value) for at, value in schedule.of(record.curve).tolist())


def _draw_schedule(ax: Axes, collection: Collection, curves: _Curves) -> None:
    distinct: dict[_Points, list[int]] = {}
    for (point, _), points in curves.items():
        distinct.setdefault(points, []).append(point)
    whole = {p: rows for p, rows in distinct.items() if not _is_start_of_another(p, distinct)}
    palette = style.colours(len(whole), ordered=False)
    for number, (points, rows) in enumerate(whole.items()):
        ax.plot(
            *zip(*points, strict=True),
            color=palette[number % len(palette)],
            linestyle=style.LINES[number % len(style.LINES)],
            label=_shared_name(collection, rows),
        )
    if 1 < len(whole) <= _MANY:
        ax.legend(fontsize=style.SMALL)


def _is_start_of_another(points: _Points, distinct: Iterable[_Points]) -> bool:
    """Whether a run that stopped early logged no more than the beginning of another's schedule."""
    return any(other != points and other[: len(points)] == points for other in distinct)


def _shared_name(collection: Collection, rows: Sequence[int]) -> str:
    """The settings that all of `rows` have in common, of those that vary in the sweep."""
    points = [collection.points[row] for row in dict.fromkeys(rows)]
    shared = [
        axis for axis in collection.varying_axes if len({point.told[axis] for point in points}) == 1
    ]
    named = [setting_words(collection, points[0], axis) for axis in shared]
    return legend_words(", ".join(named)) or f"{len(points)} points"


def _schedule_data(collection: Collection, found: Mapping[_Schedule, _Curves]) -> str:
    rows = [
        [schedule.name, collection.points[point].label, seed, at, value]
        for schedule, curves in found.items()
        for (point, seed), points in curves.items()
        for at, value in points
    ]
    return csv_text(["schedule", "label", "seed", "samples_seen", "value"], rows)
