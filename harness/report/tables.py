"""The results of a collection as a table value, and all of its statistics as CSV.

Owns what a reader of numbers is shown: which columns under which headings, dashes with footnotes
for holes, chance, intervals with their unit, and marks for nothing but what a test allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from harness import metrics
from harness.document import text
from harness.document.escaping import csv_text
from harness.document.table import TIE, Column, Mark, RowGroup, Table, TableCell
from harness.results.collect import Collection, PointRow
from harness.results.comparisons import Comparison, Verdict
from harness.results.findings import ReportFindings
from harness.results.lasting import no_garbage
from harness.results.run_table import run_table
from harness.results.sections import MetricSection
from harness.results.summary import Cell, Cells
from harness.stats.intervals import Estimate, paired_difference
from harness.stats.tests import ALPHA, Over

NO_EMBEDDINGS = "cost/parameters/inference_without_embeddings"
WITH_EMBEDDINGS = "cost/parameters/inference"
DELTA = "\u0394"
STANDS = "*"
"""What stands after a difference that is significant in its family."""
_DECIMALS = {"%": 1, "M": 2, "GMACs": 3, "ms": 2}
_PARAMETERS = {NO_EMBEDDINGS: "without emb.", WITH_EMBEDDINGS: "with emb."}


@no_garbage()
def build_table(collection: Collection, findings: ReportFindings) -> Table:
    """The shown metrics of every point, in the points' order and in their groups."""
    points = collection.points
    compared = any(row.baseline is not None for row in points)
    columns = _columns_of_words(collection)
    rows = [[*_words_of(collection, row)] for row in points]
    footer = [TableCell("chance"), *[TableCell()] * (len(columns) - 1)]
    costs = {
        cost: [_cost_cell(findings.cells.get((row.index, cost))) for row in points]
        for cost in _PARAMETERS
    }
    shared = all(
        found[0].value is not None and len({entry.text for entry in found}) == 1
        for found in costs.values()
    )
    for cost, found in [] if shared else costs.items():
        columns.append(Column(("Parameters (M)", _PARAMETERS[cost])))
        footer.append(TableCell())
        for entries, entry in zip(rows, found, strict=True):
            entries.append(entry)
    titled = len({section.title for section in findings.sections}) > 1
    for section in findings.sections:
        for metric in section.metrics:
            column = [findings.cells[(row.index, metric)] for row in points]
            columns += _columns_of(section, metric, titled=titled, compared=compared)
            decimals = decimals_of(column)
            for entries, cell in zip(rows, column, strict=True):
                entries.append(_value_cell(cell, decimals))
                if compared:
                    entries.append(_difference_cell(cell, decimals))
            footer += [TableCell(_chance(column, decimals)), *[TableCell()] * compared]
    has_chance = any(entry.text for entry in footer[1:])
    table = Table(
        columns=tuple(columns),
        groups=_grouped(points, rows),
        footer=(tuple(footer),) if has_chance else (),
        caption="",
        label="tab:" + re.sub(r"[^A-Za-z0-9]+", "-", collection.sweep.name).strip("-"),
        remarks=(_of_all_rows(costs),) if shared else (),
    )
    return replace(table, caption=" ".join(_caption(collection, findings, table.marks)))


def _columns_of_words(collection: Collection) -> list[Column]:
    """The names of the points, where the sweep gives some, and the axes."""
    axes = [Column((collection.axis_name(axis),), numeric=False) for axis in collection.axes]
    return [Column(("",), numeric=False), *axes] if collection.sweep.show.names else axes


def _of_all_rows(costs: Mapping[str, Sequence[TableCell]]) -> str:
    """The parameters, where every row has the same."""
    without, whole = (costs[cost][0].text for cost in (NO_EMBEDDINGS, WITH_EMBEDDINGS))
    return f"Parameters of every row: {without} M without embeddings, {whole} M with."


def _grouped(points: Sequence[PointRow], rows: Sequence[list[TableCell]]) -> tuple[RowGroup, ...]:
    by_title: dict[str, list[tuple[TableCell, ...]]] = {}
    for row, entries in zip(points, rows, strict=True):
        by_title.setdefault(row.group, []).append(tuple(entries))
    return tuple(RowGroup(tuple(found), title) for title, found in by_title.items())


def _columns_of(
    section: MetricSection, metric: str, *, titled: bool, compared: bool
) -> Iterator[Column]:
    members = section.averages.get(metric)
    notes = () if members is None else (_list_of(members),)
    heads = (section.title,) if titled and section.title else ()
    heads = (*heads, f"{metrics.display(metric)} ({metrics.unit(metric)})")
    if not compared:
        yield Column(heads, notes=notes)
        return
    yield Column((*heads, "mean"), notes=notes)
    yield Column((*heads, f"{DELTA} to baseline"), below=True)


def _list_of(members: Sequence[str]) -> str:
    listed = ", ".join(member.rpartition("/")[0] for member in members)
    return f"plain mean, run by run, over these {len(members)} sets: {listed}"


def _words_of(collection: Collection, row: PointRow) -> Iterator[TableCell]:
    """The point's name, where some point of the sweep has one, and its values."""
    names = collection.sweep.show.names
    if names:
        yield TableCell(row.label if row.label in names else "")
    for axis in collection.axes:
        value = text.plain(row.axes[axis])
        given = axis in row.given
        yield TableCell(value) if given else TableCell(f"({value})", mark=Mark.MUTED)


# --------------------------------------------------------------------------- numbers in words


def decimals_of(column: Iterable[Cell]) -> int:
    """Decimals that show the sign of every interval of the column that excludes zero."""
    column = list(column)
    metric = column[0].metric
    decimals = _DECIMALS.get(metrics.unit(metric), 2)
    bounds = [
        abs(bound) * metrics.scale(metric)
        for cell in column
        if cell.comparison is not None and (interval := cell.comparison.interval) is not None
        if interval[0] > 0 or interval[1] < 0
        for bound in interval[:2]
    ]
    return decimals + 1 if any(bound < 0.5 * 10**-decimals for bound in bounds) else decimals


def estimate_text(estimate: Estimate, metric: str, decimals: int) -> str:
    """`42.1 ± 0.8`, in the metric's unit; without an interval where there is one seed."""
    scale = metrics.scale(metric)
    mean = text.number(estimate.mean * scale, decimals)
    if estimate.half_width is None:
        return mean
    return f"{mean} \u00b1 {text.number(estimate.half_width * scale, decimals)}"


def difference_text(comparison: Comparison, decimals: int) -> str:
    """`+1.2 [0.3, 2.1]`, in the metric's unit; without an interval where there is none."""
    scale = metrics.scale(comparison.metric)
    mean = text.number(comparison.mean * scale, decimals, sign=True)
    if comparison.interval is None:
        return mean
    low, high = (text.number(bound * scale, decimals) for bound in comparison.interval[:2])
    return f"{mean} [{low}, {high}]"


def _value_cell(cell: Cell, decimals: int) -> TableCell:
    if cell.estimate is None:
        return TableCell(text.DASH, notes=(cell.hole or "",), keys=cell.keys)
    scale = metrics.scale(cell.metric)
    return TableCell(
        estimate_text(cell.estimate, cell.metric, decimals),
        value=cell.estimate.mean * scale,
        mark=cell.mark,
        keys=cell.keys,
    )


def _difference_cell(cell: Cell, decimals: int) -> TableCell:
    if cell.baseline == cell.point:
        return TableCell("baseline")
    comparison = cell.comparison
    if comparison is None:
        return TableCell(text.DASH, notes=(_no_difference(cell),))
    stands = STANDS if comparison.decided else ""
    return TableCell(
        difference_text(comparison, decimals) + stands,
        value=comparison.mean * metrics.scale(cell.metric),
        notes=tuple(_remarks(comparison)),
        keys=cell.keys,
    )


def _remarks(comparison: Comparison) -> Iterator[str]:
    if not comparison.in_full:
        seeds = ", ".join(map(str, comparison.seeds.seeds))
        yield f"{comparison.seeds.n} of {comparison.wanted} seeds in common ({seeds})"
    if comparison.verdict is Verdict.NO_SPREAD:
        yield "the seeds agree exactly: no spread to judge by"
    if comparison.barred is not None:
        yield f"not compared: {comparison.barred}"


def _no_difference(cell: Cell) -> str:
    if cell.baseline is None:
        return "no single point of the sweep is the baseline of this one"
    return "no seed has both this value and the baseline's"


def _cost_cell(cell: Cell | None) -> TableCell:
    """A cost is a property of the point, so one finished seed is enough to know it."""
    if cell is None or not cell.values:
        return TableCell(text.DASH, notes=("cost is known once a seed is done",))
    scale, decimals = metrics.scale(cell.metric), _DECIMALS.get(metrics.unit(cell.metric), 2)
    shown = {text.number(value * scale, decimals) for value in cell.values.values()}
    least = min(cell.values.values()) * scale
    return TableCell("\u2013".join(sorted(shown)), value=least, keys=cell.keys)


def _chance(column: Iterable[Cell], decimals: int) -> str:
    known = [c.chance * metrics.scale(c.metric) for c in column if c.chance is not None]
    shown = {text.number(value, decimals): value for value in known}
    ends = sorted(shown, key=lambda name: shown[name])
    return "\u2013".join(dict.fromkeys([ends[0], ends[-1]])) if ends else ""


# --------------------------------------------------------------------------- the caption


def _caption(
    collection: Collection, findings: ReportFindings, marks: frozenset[Mark]
) -> Iterator[str]:
    counts = sorted({len(row.seeds) for row in collection.points})
    seeds = sorted({seed for row in collection.points for seed in row.seeds})
    listed = ", ".join(map(str, seeds))
    yield collection.sweep.question.strip() or collection.sweep.name
    if counts[-1] == 1:
        yield f"One seed ({listed}): nothing can be said of other seeds."
    else:
        n = "\u2013".join(dict.fromkeys([str(counts[0]), str(counts[-1])]))
        yield (
            f"Mean over n = {n} seeds ({listed}); \u00b1 is the half-width of the 95 % t-interval "
            "over seeds, on these test items."
        )
    yield from _about_differences(collection, findings)
    yield from _about_marks(marks)
    if any(set(collection.axes) - row.given for row in collection.points):
        yield "In parentheses: the base's own value, which the point does not set."


def _about_differences(collection: Collection, findings: ReportFindings) -> Iterator[str]:
    if all(row.baseline is None for row in collection.points):
        return
    made = [c for metric in findings.shown for c in _comparisons(collection, findings, metric)]
    units = {c.interval[2] for c in made if c.interval is not None}
    yield f"{DELTA} is the difference to the baseline{_whose_baseline(collection)}"
    yield _about_interval(units)
    families = _families(made)
    if families and any(c.decided for c in made):
        yield f"{STANDS}: significant, p < {ALPHA:.2g} after Holm's correction ({families})."
    elif not any(c.tested for c in made):
        yield "No difference could be tested."
    elif families:
        yield f"No difference is significant after Holm's correction ({families})."


def _families(made: Sequence[Comparison]) -> str:
    """`5 tests of the primary metric, 30 of the others`."""
    sizes = {c.primary: c.judged.family for c in made if c.judged is not None}
    if True not in sizes:
        return f"{sizes[False]} tests" if sizes else ""
    told = [f"{sizes[True]} tests of the primary metric"]
    return ", ".join([*told, f"{sizes[False]} of the others"] if False in sizes else told)


def _comparisons(collection: Collection, findings: ReportFindings, metric: str) -> list[Comparison]:
    cells = [findings.cells[(row.index, metric)] for row in collection.points]
    return [cell.comparison for cell in cells if cell.comparison is not None]


def _whose_baseline(collection: Collection) -> str:
    """Which baseline, where there are several."""
    if len({row.baseline for row in collection.points} - {None}) < 2:
        return ""
    return " with the row's other values"


def _about_interval(units: set[Over]) -> str:
    pooled = "by one linear model of all points and seeds (the variance is that of the whole sweep)"
    if units == {Over.BOTH}:
        return f"with a 95 % interval over seeds and test items, {pooled}."
    if units == {Over.SEEDS}:
        return f"with a 95 % interval over seeds, {pooled}."
    if units == {Over.ITEMS}:
        return "with a 95 % bootstrap interval over test items, for these very models."
    if not units:
        return "at the same seed."
    listed = ", ".join(unit.value for unit in Over if unit in units)
    return f"with a 95 % interval over, as outcomes are kept: {listed} (table.csv says which)."


def _about_marks(marks: frozenset[Mark]) -> Iterator[str]:
    told = "multiple comparisons with the best, 95 % for the column"
    if Mark.BEST in marks:
        yield f"Bold: better than every other point ({told})."
    if Mark.TIED in marks:
        yield f"{TIE}: cannot be told from the best of its column, or is that best ({told})."


def baseline_label(collection: Collection, row: PointRow) -> str | None:
    """The label of the point that `row` is compared with."""
    return None if row.baseline is None else collection.points[row.baseline].label


# --------------------------------------------------------------------------- CSV


def statistics_csv(collection: Collection, findings: ReportFindings) -> str:
    """Every point and every metric recorded, in full precision and in the units of the records."""
    cells = findings.cells
    names = list(dict.fromkeys([*collection.metrics, *findings.averages]))
    rows = (
        [
            row.label,
            *[row.axes[axis] for axis in collection.axes],
            *_csv_cell(collection, row, cells[(row.index, metric)], cells),
        ]
        for row in collection.points
        for metric in names
    )
    return csv_text(["label", *collection.axes, *_CSV_CELL], rows)


def runs_csv(collection: Collection) -> str:
    """The table of runs, a row a run."""
    frame = run_table(collection)
    return csv_text(list(frame.columns), frame.itertuples(index=False, name=None))


_CSV_CELL = (
    "metric", "mean", "low", "high", "n_seeds", "seeds", "samples", "chance", "mark", "baseline",
    "diff", "diff_low", "diff_high", "diff_over", "p", "p_holm", "diff_seeds", "diff_low_seeds",
    "diff_high_seeds", "p_seeds", "diff_low_items", "diff_high_items", "p_mcnemar", "error",
    "df", "family", "keys", "hole",
)  # fmt: skip


def _csv_cell(collection: Collection, row: PointRow, cell: Cell, cells: Cells) -> list[object]:
    estimate = cell.estimate
    return [
        cell.metric,
        *([estimate.mean, estimate.low, estimate.high] if estimate else [None] * 3),
        len(cell.values),
        " ".join(map(str, cell.values)),
        " ".join(map(str, cell.samples)),
        cell.chance,
        cell.mark.value,
        baseline_label(collection, row),
        *_csv_comparison(cell.comparison or _beside(cell, cells)),
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
