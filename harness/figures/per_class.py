"""Which classes a point gains and loses against its baseline, task by task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from harness import metrics
from harness.document.escaping import csv_text
from harness.figures import marks, style
from harness.figures.base import SWEEP, Drawing, Sheet
from harness.results.collect import Collection
from harness.results.contrast import contrast_of
from harness.results.findings import ReportFindings
from harness.results.outcomes import read_class_recalls
from harness.stats.intervals import Difference, paired_difference

#: Classes drawn of each task: the most gained and the most lost.
_EACH_WAY = 7
#: Tasks drawn, side by side, and the fewest classes of one.
_MOST, _FEWEST = 2, 3
_LETTERS = 22


@dataclass(frozen=True)
class _Change:
    """One task: the two points compared, and the difference in recall of each class."""

    metric: str
    point: int
    reference: int
    differences: dict[str, Difference]


@SWEEP.register("per_class", place=80)
def per_class(sheet: Sheet) -> Drawing | None:
    """For each zero-shot task the point that differs most from its baseline, class by class.

    None where nothing is compared or no outcomes are kept.
    """
    collection, findings = sheet.collection, sheet.findings
    tasks = [
        task
        for metric in collection.shown
        if metric.rpartition("/")[2] == metrics.ACC1
        and (task := _task(collection, findings, metric)) is not None
    ]
    shown = [task for task in tasks if len(task.differences) >= _FEWEST][:_MOST]
    if not shown:
        return None
    rows = max(len(_extremes(task)) for task in shown)
    figure = style.figure_of(0.85 + 0.15 * rows, wide=len(shown) > 1)
    axes = list(figure.subplots(1, len(shown), squeeze=False).ravel())
    for ax, task in zip(axes, shown, strict=True):
        _panel(ax, collection, task)
    figure.supxlabel("difference in recall (points)", fontsize=style.LETTERS)
    style.finish(axes)
    words = (
        "Recall class by class, the point named above each panel (the one whose accuracy differs "
        "most) against its baseline: mean over seeds with 95 % t-intervals over seeds. The most "
        "gained and the most lost classes, uncorrected for their number: exploratory."
    )
    return Drawing(words, figure, _data(collection, tasks))


def _task(collection: Collection, findings: ReportFindings, metric: str) -> _Change | None:
    compared = [
        comparison
        for row in collection.points
        if (comparison := findings.cells[(row.index, metric)].comparison) is not None
        and comparison.in_full
    ]
    if not compared:
        return None
    most = max(compared, key=lambda comparison: abs(comparison.mean))
    own, base = (
        {
            record.seed: recalls
            for record in collection.of_point(point)
            if (recalls := read_class_recalls(record, metric)) is not None
        }
        for point in (most.point, most.reference)
    )
    seeds = [seed for seed in own if seed in base]
    names = [name for name in own[seeds[0]] if name in base[seeds[0]]] if seeds else []
    differences = {}
    for name in names:
        pair = [{s: runs[s][name] for s in seeds if name in runs[s]} for runs in (own, base)]
        difference = paired_difference(*pair)
        if difference is not None:
            differences[name] = difference
    return _Change(metric, most.point, most.reference, differences) if differences else None


def _extremes(task: _Change) -> list[str]:
    """The classes drawn, the most gained first."""
    ordered = sorted(task.differences, key=lambda name: -task.differences[name].mean)
    if len(ordered) <= 2 * _EACH_WAY:
        return ordered
    return [*ordered[:_EACH_WAY], *ordered[-_EACH_WAY:]]


def _panel(ax: Axes, collection: Collection, task: _Change) -> None:
    names = _extremes(task)
    up, down = style.BETTER, style.WORSE
    ax.axvline(0.0, color=style.INK, linewidth=0.7, zorder=1)
    for at, name in enumerate(names):
        difference = task.differences[name]
        colour = up if difference.mean >= 0 else down
        ax.barh(at, difference.mean * 100, height=0.66, color=colour, alpha=0.75, linewidth=0)
        if difference.low is not None and difference.high is not None:
            ends = [difference.low * 100, difference.high * 100]
            ax.plot(ends, [at, at], color=style.INK, linewidth=0.7, zorder=2)
    names_of_rows = [style.shorten(name, _LETTERS) for name in names]
    marks.down(ax, names_of_rows, fontsize=style.SMALL)
    reach = 1.1 * max(abs(task.differences[name].mean) for name in names) * 100 or 1.0
    ax.set_xlim(-max(reach, 5.0), max(reach, 5.0))
    row, base = (collection.points[point] for point in (task.point, task.reference))
    label = style.shorten(contrast_of(collection, row, base).short, _LETTERS)
    ax.set_title(f"{metrics.display(task.metric)}\n{label}")


def _data(collection: Collection, tasks: Sequence[_Change]) -> str:
    heads = ["metric", "label", "baseline", "class", "difference", "low", "high", "seeds"]
    rows = [
        [
            *[task.metric, collection.points[task.point].label],
            *[collection.points[task.reference].label, name],
            *[difference.mean, difference.low, difference.high, difference.n],
        ]
        for task in tasks
        for name, difference in task.differences.items()
    ]
    return csv_text(heads, rows)
