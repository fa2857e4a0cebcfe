"""One table value, written as Markdown, as booktabs LaTeX, and the long form as CSV.

Owns what a reader of numbers is shown: dashes with footnotes for holes, chance, intervals, and bold
for nothing but the best of a column whose paired difference to its baseline excludes zero.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness import metrics
from harness.report import text
from harness.report.collect import Collection, PointRow
from harness.report.statistics import Difference, Estimate
from harness.report.summary import Cell, Cells, best

NO_EMBEDDINGS = "cost/parameters/inference_without_embeddings"
WITH_EMBEDDINGS = "cost/parameters/inference"
_DECIMALS = {"%": 1, "M": 2, "GMACs": 3, "ms": 2}
#: Columns past which a table spans both columns of a paper.
_WIDE = 7
_MEAN = "mean"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Entry:
    """One printed cell; `notes` are numbers of footnotes."""

    text: str
    bold: bool = False
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column's heading, under `group` where neighbours share one."""

    name: str
    group: str = ""
    numeric: bool = True
    below: bool = False
    """Whether a table too wide for a page sets it under the column before it."""


@dataclass(frozen=True)
class Table:
    """What is printed, before any format; the `footer` rows are set apart below."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    footer: tuple[tuple[Entry, ...], ...]
    caption: str
    label: str
    notes: tuple[str, ...]


class _Notes:
    """Footnotes in order of appearance, each text once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, note: str) -> int:
        if note not in self.texts:
            self.texts.append(note)
        return self.texts.index(note) + 1


# --------------------------------------------------------------------------- the table


def build_table(collection: Collection, cells: Cells) -> Table:
    """The shown metrics of every point, in the order of the sweep's points."""
    notes = _Notes()
    columns = [Column(collection.axis_name(axis), numeric=False) for axis in collection.axes]
    rows = [[Entry(_axis_text(row, axis)) for axis in collection.axes] for row in collection.points]
    footer = [Entry("chance"), *[Entry("")] * (len(columns) - 1)]
    for metric in (NO_EMBEDDINGS, WITH_EMBEDDINGS):
        columns.append(Column(_PARAMETER_COLUMNS[metric], "Parameters (M)"))
        for entries, row in zip(rows, collection.points, strict=True):
            entries.append(_cost_entry(cells.get((row.index, metric)), notes))
        footer.append(Entry(""))
    compared = any(row.baseline is not None for row in collection.points)
    for metric in collection.shown:
        column = [cells[(row.index, metric)] for row in collection.points]
        columns += _metric_columns(metric, compared)
        decimals = decimals_of(column)
        winner = best(column)
        for entries, cell in zip(rows, column, strict=True):
            entries.append(_value_entry(cell, winner, decimals, notes))
            if compared:
                entries.append(_difference_entry(cell, decimals, notes))
        footer += [Entry(_chance(column, decimals)), *[Entry("")] * compared]
    has_chance = any(entry.text for entry in footer[1:])
    return Table(
        columns=tuple(columns),
        rows=tuple(map(tuple, rows)),
        footer=(tuple(footer),) if has_chance else (),
        caption=_caption(collection, compared),
        label="tab:" + re.sub(r"[^A-Za-z0-9]+", "-", collection.sweep.name).strip("-"),
        notes=tuple(notes.texts),
    )


_PARAMETER_COLUMNS = {NO_EMBEDDINGS: "without emb.", WITH_EMBEDDINGS: "with emb."}


def _metric_columns(metric: str, compared: bool) -> list[Column]:
    heading = f"{metrics.display(metric)} ({metrics.unit(metric)})"
    if not compared:
        return [Column("", heading)]
    return [Column(_MEAN, heading), Column("\u0394 to baseline", heading, below=True)]


def _axis_text(row: PointRow, axis: str) -> str:
    value = text.plain(row.axes[axis])
    return value if axis in row.given else f"({value})"


def decimals_of(column: Iterable[Cell]) -> int:
    """Decimals that show the sign of every interval of the column that excludes zero."""
    column = list(column)
    metric = column[0].metric
    decimals = _DECIMALS[metrics.unit(metric)]
    bounds = [
        abs(bound) * metrics.scale(metric)
        for cell in column
        if cell.difference is not None and cell.difference.distinguishable
        for bound in (cell.difference.low, cell.difference.high)
        if bound is not None
    ]
    return decimals + 1 if any(bound < 0.5 * 10**-decimals for bound in bounds) else decimals


def estimate_text(estimate: Estimate, metric: str, decimals: int) -> str:
    """`42.1 ± 0.8`, in the metric's unit; without an interval where there is one seed."""
    scale = metrics.scale(metric)
    mean = text.number(estimate.mean * scale, decimals)
    if estimate.half_width is None:
        return mean
    return f"{mean} \u00b1 {text.number(estimate.half_width * scale, decimals)}"


def difference_text(difference: Difference, metric: str, decimals: int) -> str:
    """`+1.2 [0.3, 2.1]`, in the metric's unit."""
    scale = metrics.scale(metric)
    mean = text.number(difference.mean * scale, decimals, sign=True)
    if difference.low is None or difference.high is None or difference.no_spread:
        return mean
    low, high = (text.number(b * scale, decimals) for b in (difference.low, difference.high))
    return f"{mean} [{low}, {high}]"


def _value_entry(cell: Cell, winner: Cell | None, decimals: int, notes: _Notes) -> Entry:
    if cell.estimate is None:
        return Entry(text.DASH, notes=(notes.number(cell.hole or ""),))
    bold = cell is winner and cell.better is True and cell.paired_in_full
    return Entry(estimate_text(cell.estimate, cell.metric, decimals), bold)


def _difference_entry(cell: Cell, decimals: int, notes: _Notes) -> Entry:
    if cell.baseline == cell.point:
        return Entry("baseline")
    if cell.difference is None:
        return Entry(text.DASH, notes=(notes.number(_no_difference(cell)),))
    remarks = []
    if not cell.paired_in_full:
        seeds = ", ".join(map(str, cell.difference.seeds))
        remarks.append(f"paired over {cell.difference.n} of {len(cell.seeds)} seeds ({seeds})")
    if cell.difference.no_spread:
        remarks.append("all seeds differ by the same amount: no spread to judge by")
    shown = difference_text(cell.difference, cell.metric, decimals)
    return Entry(shown, notes=tuple(notes.number(remark) for remark in remarks))


def _no_difference(cell: Cell) -> str:
    if cell.baseline is None:
        return "no single point of the sweep is the baseline of this one"
    return "no seed has both this value and the baseline's"


def _cost_entry(cell: Cell | None, notes: _Notes) -> Entry:
    """A cost is a property of the point, so one finished seed is enough to know it."""
    if cell is None or not cell.values:
        return Entry(text.DASH, notes=(notes.number("cost is known once a seed is done"),))
    scale, decimals = metrics.scale(cell.metric), _DECIMALS[metrics.unit(cell.metric)]
    shown = {text.number(value * scale, decimals) for value in cell.values.values()}
    return Entry("\u2013".join(sorted(shown)))


def _chance(column: Iterable[Cell], decimals: int) -> str:
    known = [cell.chance * 100 for cell in column if cell.chance is not None]
    shown = {text.number(value, decimals): value for value in known}
    ends = sorted(shown, key=lambda name: shown[name])
    return "\u2013".join(dict.fromkeys([ends[0], ends[-1]])) if ends else ""


def _caption(collection: Collection, compared: bool) -> str:
    counts = sorted({len(row.seeds) for row in collection.points})
    seeds = sorted({seed for row in collection.points for seed in row.seeds})
    listed = ", ".join(map(str, seeds))
    parts = [collection.sweep.question.strip() or collection.sweep.name]
    if counts[-1] == 1:
        parts.append(f"One seed ({listed}): no interval can be given.")
    else:
        n = "\u2013".join(dict.fromkeys([str(counts[0]), str(counts[-1])]))
        parts.append(
            f"Mean over n = {n} seeds ({listed}); \u00b1 is the half-width of the 95 % t-interval "
            "over seeds."
        )
    if compared and counts[-1] > 1:
        parts.append(
            "\u0394 is the difference to the baseline paired by seed, with its 95 % t-interval, "
            "not corrected for the number of comparisons; bold: best of its column, with an "
            "interval that excludes zero."
        )
    elif compared:
        parts.append("\u0394 is the difference to the baseline at the same seed.")
    if any(set(collection.axes) - row.given for row in collection.points):
        parts.append("In parentheses: the base's own value, which the point does not set.")
    return " ".join(parts)


def baseline_label(collection: Collection, row: PointRow) -> str | None:
    """The label of the point that `row` is compared with."""
    return None if row.baseline is None else collection.points[row.baseline].label


# --------------------------------------------------------------------------- Markdown


def to_markdown(table: Table) -> str:
    """A GitHub table with its caption above and its footnotes below."""
    heads = [" ".join(filter(None, [c.group, c.name])) for c in table.columns]
    lines = [
        text.markdown(table.caption),
        "",
        _markdown_row([text.markdown(head) for head in heads]),
        _markdown_row(["---:" if column.numeric else ":---" for column in table.columns]),
        *[_markdown_row([_markdown_entry(e) for e in row]) for row in table.rows + table.footer],
    ]
    if table.notes:
        lines += ["", *[f"{n}. {text.markdown(note)}" for n, note in enumerate(table.notes, 1)]]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_entry(entry: Entry) -> str:
    shown = text.markdown(entry.text)
    shown = f"**{shown}**" if entry.bold else shown
    return shown + (f" <sup>{','.join(map(str, entry.notes))}</sup>" if entry.notes else "")


# --------------------------------------------------------------------------- LaTeX


def to_latex(table: Table) -> str:
    r"""A floating table that needs `\usepackage{booktabs}` and nothing else.

    One with many columns is set across the page, with each difference under its mean.
    """
    stacked = len(table.columns) > _WIDE and any(column.below for column in table.columns)
    environment = "table*" if len(table.columns) > _WIDE else "table"
    caption = table.caption + (" Second lines: \u0394." if stacked else "")
    columns = _upper(table.columns, table.columns) if stacked else table.columns
    align = "".join("r" if column.numeric else "l" for column in columns)
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\caption{{{text.latex(caption)}}}",
        rf"\label{{{table.label}}}",
        r"\footnotesize" if stacked else r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule",
        *_latex_head(columns, stacked=stacked),
        r"\midrule",
        *_latex_body(table, stacked=stacked),
        *([r"\midrule"] if table.footer else []),
        *[_latex_row(_upper(table.columns, row) if stacked else row) for row in table.footer],
        r"\bottomrule",
        r"\end{tabular}",
        *_latex_notes(table.notes),
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def _upper(columns: Sequence[Column], row: Sequence[_T]) -> list[_T]:
    """What stands on the first line of a stacked row."""
    return [item for column, item in zip(columns, row, strict=True) if not column.below]


def _lower(columns: Sequence[Column], row: Sequence[Entry]) -> list[Entry]:
    """What stands on its second line: an entry, or nothing, under each of the first."""
    lower: list[Entry] = []
    for column, entry in zip(columns, row, strict=True):
        if column.below:
            lower[-1] = entry
        else:
            lower.append(Entry(""))
    return lower


def _latex_body(table: Table, *, stacked: bool) -> list[str]:
    if not stacked:
        return [_latex_row(row) for row in table.rows]
    lines = []
    for row in table.rows:
        lines += [_latex_row(_upper(table.columns, row)), _latex_row(_lower(table.columns, row))]
        lines.append(r"\addlinespace")
    return lines[:-1]


def _latex_head(columns: Sequence[Column], *, stacked: bool) -> list[str]:
    """The groups over their rules, then the names; a group of one column needs neither."""
    spans: list[list[int]] = []
    for index, column in enumerate(columns):
        if spans and column.group and columns[spans[-1][0]].group == column.group:
            spans[-1].append(index)
        else:
            spans.append([index])
    groups, rules = [], []
    for span in spans:
        group = text.latex(columns[span[0]].group)
        groups.append(rf"\multicolumn{{{len(span)}}}{{c}}{{{group}}}" if group else "")
        if group and len(span) > 1:
            rules.append(rf"\cmidrule(lr){{{span[0] + 1}-{span[-1] + 1}}}")
    names = ["" if stacked and c.name == _MEAN else text.latex(c.name) for c in columns]
    lines = [" & ".join(groups) + r" \\", " ".join(rules), " & ".join(names) + r" \\"]
    return [line for line in lines if line]


def _latex_row(row: Sequence[Entry]) -> str:
    return " & ".join(map(_latex_entry, row)) + r" \\"


def _latex_entry(entry: Entry) -> str:
    shown = text.latex(entry.text)
    shown = rf"\textbf{{{shown}}}" if entry.bold else shown
    return shown + (
        rf"\textsuperscript{{{','.join(map(str, entry.notes))}}}" if entry.notes else ""
    )


def _latex_notes(notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    lines = [rf"\textsuperscript{{{n}}} {text.latex(note)}\par" for n, note in enumerate(notes, 1)]
    head = r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize\raggedright"
    return [head, *lines, r"\end{minipage}"]


# --------------------------------------------------------------------------- CSV


def to_csv(collection: Collection, cells: Cells) -> str:
    """Every point and every metric recorded, in full precision and in the units of the records."""
    heads = [*_CSV_POINT, *collection.axes, *_CSV_CELL]
    rows = [
        [
            row.label,
            *[row.axes[axis] for axis in collection.axes],
            *_csv_cell(collection, row, cell),
        ]
        for row in collection.points
        for cell in (cells[(row.index, metric)] for metric in collection.metrics)
    ]
    return csv_text(heads, rows)


_CSV_POINT = ("label",)
_CSV_CELL = (
    "metric",
    "mean",
    "low",
    "high",
    "n_seeds",
    "seeds",
    "samples",
    "diff",
    "diff_low",
    "diff_high",
    "p",
    "diff_seeds",
    "baseline",
    "chance",
    "keys",
    "hole",
)


def _csv_cell(collection: Collection, row: PointRow, cell: Cell) -> list[object]:
    estimate, difference = cell.estimate, cell.difference
    return [
        cell.metric,
        *([estimate.mean, estimate.low, estimate.high] if estimate else [None] * 3),
        len(cell.values),
        " ".join(map(str, cell.values)),
        " ".join(map(str, cell.samples)),
        *([difference.mean, difference.low, difference.high] if difference else [None] * 3),
        difference.p if difference else None,
        " ".join(map(str, difference.seeds)) if difference else None,
        baseline_label(collection, row),
        cell.chance,
        " ".join(cell.keys),
        cell.hole,
    ]


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as RFC 4180 text with `\\n` line ends; see `text.csv_field` for what becomes of text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([text.csv_field(head) for head in heads])
    writer.writerows([[text.csv_field(value) for value in row] for row in rows])
    return stream.getvalue()
