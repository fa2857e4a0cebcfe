"""The training loss of every point: mean over seeds in a band, or what very many range over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.document import text
from harness.document.escaping import csv_text
from harness.figures import style
from harness.figures.base import (
    SWEEP,
    Drawing,
    Sheet,
    axis_words,
    has_ordered_axis,
    is_one_axis,
    legend_words,
    samples_axis,
    setting_words,
)
from harness.results.collect import Collection
from harness.results.records import Record

#: Training curves that one panel can hold and a reader still tell apart.
_MANY = 8
#: Panels that a page can hold.
_PANELS = 24
#: Letters of a name in a legend that has room for another beside it.
_HALF = 26
#: Lines of a title over a narrow panel, and letters of each.
_LINES, _LINE = 5, 32
# --------------------------------------------------------------------------- training curves


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
    """Mean loss of every point; None where nothing was logged."""
    collection = sheet.collection
    found = {row.index: _curve(collection.of_point(row.index)) for row in collection.points}
    curves = {point: curve for point, curve in found.items() if curve.losses}
    if not curves:
        return None
    if len(curves) > style.MOST_PATHS:
        return _spreads(collection, curves)
    if len(curves) <= _MANY:
        figure, axes = _one_panel(collection, curves)
    elif len(curves) <= _PANELS:
        figure, axes = _panel_each(collection, curves)
    else:
        figure, axes = _panel_by_value(collection, curves)
    _dress(figure, axes, curves.values())
    words = (
        "Training loss (sum of the weighted terms) against samples seen: mean over seeds in a band "
        "from the least to the greatest; single seeds, dashed, where not every seed has finished."
    )
    words += " Grey: the other points." if len(curves) > _MANY else ""
    return Drawing(words, figure, _curve_data(collection))


def _dress(figure: Figure, axes: Sequence[Axes], curves: Iterable[LossCurve]) -> None:
    top = max(float(points[-1, 0]) for curve in curves for points in curve.losses.values())
    samples_axis(figure, axes, top)
    figure.supylabel("training loss", fontsize=8)


def _names(collection: Collection) -> list[str]:
    """What tells each point from the others."""
    show = collection.sweep.show
    simple = is_one_axis(collection) and show.hue is None
    rows = collection.points
    return [text.plain(row.axes[show.x]) if simple else row.label for row in rows]


def _one_panel(collection: Collection, curves: _Curves) -> tuple[Figure, list[Axes]]:
    figure, axes = style.panels(1, row_height=2.4 + 0.08 * len(curves))
    simple = is_one_axis(collection) and collection.sweep.show.hue is None
    palette = style.colours(len(curves), ordered=simple and has_ordered_axis(collection))
    names = [legend_words(name) for name in _names(collection)]
    for colour, (point, curve) in zip(palette, curves.items(), strict=False):
        _draw_curve(axes[0], curve, colour, names[point])
    title = axis_words(collection, collection.sweep.show.x) if simple else None
    columns = 2 if max(len(names[point]) for point in curves) <= _HALF else 1
    figure.legend(*axes[0].get_legend_handles_labels(), title=title, ncols=columns,
                  loc="outside upper center")  # fmt: skip
    return figure, axes


def _panel_each(collection: Collection, curves: _Curves) -> tuple[Figure, list[Axes]]:
    titles = [_title(name) for name in _names(collection)]
    lines = max(len(titles[point].split("\n")) for point in curves)
    figure, axes = style.panels(len(curves), row_height=1.3 + 0.1 * lines, most=4)
    for ax, (point, curve) in zip(axes, curves.items(), strict=True):
        _draw_in_grey(ax, curves.values())
        _draw_curve(ax, curve, style.colours(1, ordered=False)[0], "")
        ax.set_title(titles[point], fontsize=6)
    return figure, axes


def _title(name: str) -> str:
    """Over a narrow panel: a setting a line."""
    lines = name.split(", ")
    shown = lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "\u2026"]
    return "\n".join(text.shorten(line, _LINE) for line in shown)


def _panel_by_value(collection: Collection, curves: _Curves) -> tuple[Figure, list[Axes]]:
    """A panel a value of the shown axis, or one for all where those are too many as well."""
    by_value = _by_value(collection, curves)
    figure, axes = style.panels(len(by_value), row_height=1.4, most=4)
    colour = style.colours(1, ordered=False)[0]
    for ax, (title, own) in zip(axes, by_value.items(), strict=True):
        _draw_in_grey(ax, curves.values())
        for curve in own:
            ax.plot(*curve.mean.T, color=colour, linewidth=0.6, alpha=0.7, zorder=2)
        ax.set_title(title, fontsize=6)
    return figure, axes


def _by_value(collection: Collection, curves: _Curves) -> dict[str, list[LossCurve]]:
    """Title -> the curves of one value of the shown axis; all under none, where those are many."""
    x = collection.sweep.show.x
    by_value: dict[str, list[LossCurve]] = {}
    for point, curve in curves.items():
        by_value.setdefault(setting_words(collection, collection.points[point], x), []).append(
            curve
        )
    return by_value if len(by_value) <= _PANELS else {"": list(curves.values())}


def _draw_in_grey(ax: Axes, curves: Iterable[LossCurve]) -> None:
    """All curves as one collection of lines: one path each would take seconds to write."""
    lines = [curve.mean for curve in curves if len(curve.mean)]
    ax.add_collection(LineCollection(lines, colors=style.PALE, linewidths=0.6, zorder=1))
    ax.autoscale_view()


def _curve(records: Sequence[Record]) -> LossCurve:
    """Of a place that a run logged twice, having begun again before it, the later line counts."""
    losses = {}
    for record in records:
        points = record.curve.points("loss")[::-1]
        if len(points):
            _, last = np.unique(points[:, 0], return_index=True)
            losses[record.seed] = points[last]
    return LossCurve(losses, complete=all(record.result is not None for record in records))


# --------------------------------------------------------------------------- curves by the hundred


def _spreads(collection: Collection, curves: _Curves) -> Drawing:
    """Lines too many to tell apart as what they range over."""
    by_value = _by_value(collection, curves)
    figure, axes = style.panels(len(by_value), row_height=1.4, most=4)
    colour = style.colours(1, ordered=False)[0]
    everything = _spread(curves.values())
    rows: list[list[object]] = []
    for ax, (title, own) in zip(axes, by_value.items(), strict=True):
        spread = _spread(own)
        ax.fill_between(*everything.T[[0, 1, 5]], color=style.PALE, alpha=0.5, linewidth=0)
        ax.fill_between(*spread.T[[0, 1, 5]], color=colour, alpha=0.2, linewidth=0)
        ax.fill_between(*spread.T[[0, 2, 4]], color=colour, alpha=0.4, linewidth=0)
        ax.plot(*spread.T[[0, 3]], color=colour, linewidth=1.0)
        ax.set_title(title, fontsize=6)
        rows += [[title, len(own), *place] for place in spread.tolist()]
    _dress(figure, axes, curves.values())
    words = (
        f"Training loss (sum of the weighted terms) of {len(curves):,} points against samples "
        "seen, each the mean over its seeds: median, middle half and range."
    )
    words += " Grey: the range of all points." if len(by_value) > 1 else ""
    heads = ["panel", "points", "samples_seen", *_QUANTILES]
    return Drawing(words, figure, csv_text(heads, rows))


_QUANTILES = {"least": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "greatest": 1.0}


def _spread(curves: Iterable[LossCurve]) -> NDArray[np.float64]:
    """Samples seen and the quantiles of the curves' means there, (N, 1 + 5)."""
    means = np.concatenate([curve.mean for curve in curves])
    means = means[np.argsort(means[:, 0], kind="stable")]
    places, starts = np.unique(means[:, 0], return_index=True)
    groups = np.split(means[:, 1], starts[1:])
    levels = [np.quantile(group, list(_QUANTILES.values())) for group in groups]
    return np.column_stack([places, levels])


def _draw_curve(ax: Axes, curve: LossCurve, colour: tuple[float, float, float], name: str) -> None:
    if curve.complete:
        at, losses = curve.shared[:, 0], curve.shared[:, 1:]
        low, high = losses.min(axis=1), losses.max(axis=1)
        ax.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(*curve.mean.T, color=colour, label=name, zorder=2)
        return
    for number, points in enumerate(curve.losses.values()):
        label = f"{name} (single seeds)" if name and number == 0 else None
        ax.plot(*points.T, color=colour, linewidth=0.8, linestyle="--", label=label, zorder=2)


def _curve_data(collection: Collection) -> str:
    rows = [
        [record.run.label, record.seed, int(at), loss]
        for record in collection.records
        for at, loss in record.curve.points("loss").tolist()
    ]
    return csv_text(["label", "seed", "samples_seen", "loss"], rows)
