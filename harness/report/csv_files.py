"""The files beside a page: all statistics, and a row a run, in full precision and as recorded."""

from __future__ import annotations

from harness.document.escaping import csv_text, frame_csv
from harness.results.collect import Collection, PointRow
from harness.results.comparisons import Comparison
from harness.results.findings import ReportFindings
from harness.results.run_table import run_table
from harness.results.summary import Cell, Cells
from harness.stats.intervals import paired_difference


def statistics_csv(collection: Collection, findings: ReportFindings) -> str:
    """Every point and every metric recorded, in full precision and in the units of the records."""
    cells = findings.cells
    names = list(dict.fromkeys([*collection.metrics, *findings.averages]))
    rows = (
        [
            row.label,
            *[row.axes[axis] for axis in collection.axes],
            *_csv_cell(collection, row, cells[(row.index, metric)], findings),
        ]
        for row in collection.points
        for metric in names
    )
    return csv_text(["label", *collection.axes, *_CSV_CELL], rows)


def runs_csv(collection: Collection) -> str:
    """The table of runs, a row a run."""
    return frame_csv(run_table(collection))


_CSV_CELL = (
    "metric", "mean", "sd", "low", "high", "n_seeds", "seeds", "samples", "chance", "mark",
    "baseline", "diff", "diff_low", "diff_high", "diff_over", "p", "p_holm", "diff_seeds",
    "diff_low_seeds", "diff_high_seeds", "p_seeds", "diff_low_items", "diff_high_items",
    "p_mcnemar", "error", "df", "family", "keys", "hole",
)  # fmt: skip


def _csv_cell(
    collection: Collection, row: PointRow, cell: Cell, findings: ReportFindings
) -> list[object]:
    estimate = cell.estimate
    return [
        cell.metric,
        *([estimate.mean, estimate.sd, estimate.low, estimate.high] if estimate else [None] * 4),
        len(cell.values),
        " ".join(map(str, cell.values)),
        " ".join(map(str, cell.samples)),
        cell.chance,
        findings.mark(cell),
        _baseline_label(collection, row),
        *_csv_comparison(cell.comparison or _beside(cell, findings.cells)),
        " ".join(cell.keys),
        cell.hole,
    ]


def _beside(cell: Cell, cells: Cells) -> Comparison | None:
    """To the baseline, of a metric that is not shown: over its own seeds, in no family."""
    if cell.baseline is None or cell.baseline == cell.point:
        return None
    seeds = paired_difference(cell.values, cells[(cell.baseline, cell.metric)].values)
    if seeds is None:
        return None
    return Comparison(cell.point, cell.baseline, cell.metric, len(cell.seeds), seeds)


def _csv_comparison(comparison: Comparison | None) -> list[object]:
    if comparison is None:
        return [None] * (_CSV_CELL.index("keys") - _CSV_CELL.index("diff"))
    low, high, over = comparison.interval or (None, None, None)
    seeds, judged = comparison.seeds, comparison.judged
    tested = judged is not None and judged.test.error is not None
    family = "primary" if comparison.primary else "secondary"
    return [
        comparison.mean,
        low,
        high,
        over.value if over else None,
        comparison.p,
        comparison.adjusted,
        " ".join(map(str, seeds.seeds)),
        *[seeds.low, seeds.high, seeds.p],
        *(comparison.items or (None, None)),
        " ".join(f"{p:.6g}" for p in comparison.exact.values()),
        *([judged.test.error, judged.test.df, family] if judged and tested else [None] * 3),
    ]


def _baseline_label(collection: Collection, row: PointRow) -> str | None:
    """The label of the point that `row` is compared with."""
    return None if row.baseline is None else collection.points[row.baseline].label
