"""Forest plot: what each point changes in its baseline, with its interval, metric by metric."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from harness import metrics
from harness.document.escaping import csv_text
from harness.document.text import shorten
from harness.figures import style
from harness.figures.base import SWEEP, Drawing, Sheet
from harness.results.collect import Collection, PointRow
from harness.results.comparisons import Comparison
from harness.results.contrast import contrast_of
from harness.results.findings import ReportFindings
from harness.stats.tests import Over

#: Rows past which only those with the largest differences are drawn.
_MOST = 40
#: Letters of a row's name.
_LETTERS = 44


@SWEEP.register("differences", place=60)
def differences(sheet: Sheet) -> Drawing | None:
    """What each point changes in its baseline; None where nothing is compared."""
    collection, findings = sheet.collection, sheet.findings
    names = [m for m in findings.shown if not metrics.is_cost(m)]
    compared = [
        row
        for row in collection.points
        if any(findings.cells[(row.index, m)].comparison is not None for m in names)
    ]
    if not compared:
        return None
    rows = _largest(compared, findings, names[0])
    labels = [shorten(_name(collection, row), _LETTERS) for row in rows]
    wide = len(names) > 1 or max(map(len, labels)) > 24
    figure, axes = style.panels(len(names), row_height=0.6 + 0.16 * len(rows), wide=wide)
    for place, (ax, metric) in enumerate(zip(axes, names, strict=True)):
        _panel(ax, [findings.cells[(row.index, metric)].comparison for row in rows])
        style.down(ax, labels if place % style.ACROSS == 0 else [""] * len(labels))
        ax.set_title(metrics.display(metric))
    figure.supxlabel("difference to the baseline (points)", fontsize=8)
    style.finish(axes)
    return Drawing(
        _words(rows, compared, collection, findings, names),
        figure,
        _data(compared, findings, names),
    )


def _name(collection: Collection, row: PointRow) -> str:
    assert row.baseline is not None
    return contrast_of(collection, row, collection.points[row.baseline]).short


def _largest(compared: Sequence[PointRow], findings: ReportFindings, metric: str) -> list[PointRow]:
    """The rows with the largest differences on `metric`, in the order of the sweep."""

    def size(row: PointRow) -> float:
        comparison = findings.cells[(row.index, metric)].comparison
        return 0.0 if comparison is None else abs(comparison.mean)

    largest = sorted(compared, key=size, reverse=True)[:_MOST]
    return sorted(largest, key=lambda row: row.index)


def _panel(ax: Axes, comparisons: Sequence[Comparison | None]) -> None:
    ax.axvline(0.0, color=style.INK, linewidth=0.7, zorder=1)
    colour = style.colours(1, ordered=False)[0]
    for at, comparison in enumerate(comparisons):
        if comparison is None:
            continue
        unit = metrics.scale(comparison.metric)
        mean = comparison.mean * unit
        if comparison.interval is not None:
            low, high = (bound * unit for bound in comparison.interval[:2])
            single = comparison.interval[2] is Over.ITEMS
            style_of_line = ":" if single else "-"
            ax.plot([low, high], [at, at], color=colour, linestyle=style_of_line, linewidth=1.1)
        ax.plot(
            [mean],
            [at],
            "o",
            color=colour,
            markerfacecolor=colour if comparison.decided else "white",
            markeredgewidth=1.0,
            markersize=4,
            zorder=3,
        )


def _words(
    rows: Sequence[PointRow],
    compared: Sequence[PointRow],
    collection: Collection,
    findings: ReportFindings,
    names: Sequence[str],
) -> str:
    units = {
        comparison.interval[2]
        for row in rows
        for metric in names
        if (comparison := findings.cells[(row.index, metric)].comparison) is not None
        and comparison.interval is not None
    }
    over = " or ".join(unit.value for unit in Over if unit in units)
    words = "Difference of each point to its baseline"
    words += f", with its 95 % interval over {over}. " if over else "; no interval can be given. "
    words += "Filled: significant after Holm's correction."
    if len(rows) < len(compared):
        words += (
            f" The {len(rows)} of {len(compared)} points with the largest differences in "
            f"{metrics.display(names[0])}."
        )
    return words


def _data(compared: Sequence[PointRow], findings: ReportFindings, names: Sequence[str]) -> str:
    heads = ["label", "metric", "difference", "low", "high", "over", "p", "p_holm", "significant"]
    rows: list[list[object]] = []
    for metric in names:
        for row in compared:
            comparison = findings.cells[(row.index, metric)].comparison
            if comparison is not None:
                low, high, over = comparison.interval or (None, None, None)
                rows.append(
                    [
                        *[row.label, metric, comparison.mean, low, high],
                        *[over.value if over else None, comparison.p, comparison.adjusted],
                        comparison.decided,
                    ]
                )
    return csv_text(heads, rows)
