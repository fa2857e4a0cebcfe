"""The results of a collection as table values: the leading one, and the one of every metric.

Owns what a reader of numbers is shown: one line a row, metrics in groups, mean and spread, the best
and the second of each column, a star for what differs from the baseline, dashes with footnotes for
holes, chance below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from harness import metrics
from harness.config.sweep import Show
from harness.document import text
from harness.document.table import Column, Mark, RowGroup, Table, TableCell, stacked
from harness.document.text import Inline
from harness.report.columns import (
    PointColumn,
    cost_columns,
    group_of,
    naming_columns,
    of_every_row,
)
from harness.report.effects_table import STAR, effects_table
from harness.report.numbers import decimals_of, difference_text
from harness.results.collect import Collection
from harness.results.comparisons import Comparison, Verdict
from harness.results.contrast import baseline_words
from harness.results.findings import ReportFindings
from harness.results.lasting import no_garbage
from harness.results.sections import MetricSection, sections_of
from harness.results.summary import Cell
from harness.stats.intervals import Estimate
from harness.stats.tests import ALPHA, Over

DELTA = "\u0394"
TIE = "\u2248"
"""What stands after a mean that cannot be told from the best of its column."""
MOST_ROWS = 40
"""Lines of the leading table; of more points the best ones and the baselines are shown."""
_MOST_BASELINES = 5
_SPREADS = {
    "sd": "standard deviation over seeds",
    "se": "standard error over seeds",
    "ci": "half-width of the 95 % t-interval over seeds",
}


@dataclass(frozen=True)
class Tables:
    """The tables of a report."""

    lead: Table
    every: Table | None
    """Of all points and metrics: what the leading one leaves out, and the differences."""
    effects: Table | None
    """Slopes, main effects and interactions."""
    cut: bool = False
    """Whether the leading one leaves out some of the points."""


@no_garbage()
def build_tables(collection: Collection, findings: ReportFindings) -> Tables:
    """The leading table, and the one with all that it leaves out."""
    builder = _Builder(collection, findings)
    return Tables(
        builder.lead(), builder.every(), effects_table(collection, findings), builder.is_cut
    )


class _Builder:
    """Puts columns together, of which both tables share those that name a row."""

    def __init__(self, collection: Collection, findings: ReportFindings) -> None:
        self._collection, self._findings = collection, findings
        self._show: Show = collection.sweep.show
        self._named = naming_columns(collection)
        self._compared = any(row.baseline is not None for row in collection.points)
        self._label = re.sub(r"[^A-Za-z0-9]+", "-", collection.sweep.name).strip("-")
        self._rows = _leading_points(collection, findings, self._show.delta == "line")

    @property
    def is_cut(self) -> bool:
        """Whether some points are not in the leading table."""
        return len(self._rows) < len(self._collection.points)

    def lead(self) -> Table:
        """The columns that the sweep asks for."""
        show, collection = self._show, self._collection
        asked = show.columns
        costs = None if asked is None else [name for name in asked if _is_cost(name)]
        of_cost, remarks = cost_columns(collection, self._findings.cells, costs)
        columns = [*self._named, *of_cost, *self._metrics(self._sections())]
        shared = of_every_row(collection)
        table = Table(
            columns=tuple(each.column for each in columns),
            groups=self._groups(columns, self._rows),
            footer=self._chance(columns),
            label=f"tab:{self._label}",
            remarks=tuple(self._remarks([shared] * bool(shared) + remarks)),
        )
        table = stacked(table) if show.delta == "line" else table
        return replace(table, caption=" ".join(self._about_lead(table)))

    def every(self) -> Table | None:
        """Every shown metric of every point, by its mean where the leading table lacks it."""
        points = [row.index for row in self._collection.points]
        whole = not self.is_cut
        there = {name for section in self._sections() for name in section.metrics}
        columns: list[PointColumn] = []
        for section in self._findings.sections:
            means = [name for name in section.metrics if not (whole and name in there)]
            columns += self._columns(section, means, self._compared)
        if not columns:
            return None
        columns = [*self._named, *columns]
        return Table(
            columns=tuple(each.column for each in columns),
            groups=self._groups(columns, points),
            caption=" ".join(self._about_every()),
            label=f"tab:{self._label}-all",
        )

    # ----------------------------------------------------------------------- columns

    def _sections(self) -> Sequence[MetricSection]:
        """The metrics of the leading table; averages are of all that is shown."""
        asked = self._show.columns
        if asked is None:
            return self._findings.sections
        known = [name for name in asked if not _is_cost(name) and self._is_known(name)]
        averages = self._findings.averages
        return [
            replace(
                section,
                metrics=tuple(n for n in section.metrics if n in known or n in averages),
                averages={n: averages[n] for n in section.averages if n in averages},
            )
            for section in sections_of(known)
        ]

    def _is_known(self, metric: str) -> bool:
        return (self._collection.points[0].index, metric) in self._findings.cells

    def _metrics(self, sections: Sequence[MetricSection]) -> Iterator[PointColumn]:
        deltas = self._compared and self._show.delta is not None
        for section in sections:
            yield from self._columns(section, section.metrics, deltas)

    def _columns(
        self, section: MetricSection, means: Sequence[str], deltas: bool
    ) -> Iterator[PointColumn]:
        """The columns of a section: the mean of those in `means`, and each difference."""
        titles = headings_of(section)
        for metric in section.metrics:
            column = [self._findings.cells[(r.index, metric)] for r in self._collection.points]
            decimals = decimals_of(column)
            *above, name = titles[metric]
            if metric in means:
                notes = _members(section, metric)
                heads = Column((*above, name), notes=notes)
                yield PointColumn(heads, tuple(self._means(column, decimals)))
            if deltas and any(_may_differ(cell, column) for cell in column):
                heads = Column((*above, f"{DELTA} {name}"), below=metric in means)
                yield PointColumn(heads, tuple(_difference_cell(c, decimals) for c in column))

    def _means(self, column: Sequence[Cell], decimals: int) -> Iterator[TableCell]:
        marks = _ranked([column[row] for row in self._rows], decimals)
        for cell in column:
            if cell.estimate is None:
                yield TableCell(text.DASH, notes=(cell.hole or "",), keys=cell.keys)
                continue
            shown = _mean_text(cell.estimate, cell.metric, decimals)
            after = [_spread(cell.estimate, cell.metric, decimals, self._show.spread)]
            if self._is_starred(cell):
                after.append(Inline(STAR, "superscript"))
            if self._show.ties and self._findings.mark(cell):
                after.append(Inline(TIE, "superscript"))
            yield TableCell(
                shown,
                value=cell.estimate.mean * metrics.scale(cell.metric),
                mark=Mark.NONE if metrics.is_cost(cell.metric) else marks.get(shown, Mark.NONE),
                after=tuple(each for each in after if each is not None),
                keys=cell.keys,
            )

    def _is_starred(self, cell: Cell) -> bool:
        """Whether it differs from its baseline: in the primary metric, where one is declared."""
        found, primary = cell.comparison, self._findings.primary
        return found is not None and found.decided and (found.primary or primary is None)

    # ----------------------------------------------------------------------- rows

    def _groups(self, columns: Sequence[PointColumn], rows: Sequence[int]) -> tuple[RowGroup, ...]:
        of = group_of(self._collection)
        groups: dict[tuple[str, str], list[tuple[TableCell, ...]]] = {}
        for place in rows:
            entries = tuple(column.cells[place] for column in columns)
            groups.setdefault(of(self._collection.points[place]), []).append(entries)
        return tuple(RowGroup(tuple(found), title) for (_, title), found in groups.items())

    def _chance(self, columns: Sequence[PointColumn]) -> tuple[tuple[TableCell, ...], ...]:
        """The footer, where a metric of the leading table has a chance level."""
        metric_of = {
            titles[name]: name
            for section in self._sections()
            for titles in [headings_of(section)]
            for name in section.metrics
        }
        footer = []
        for place, each in enumerate(columns):
            name = metric_of.get(each.column.heads)
            footer.append(TableCell(self._chance_of(name) if name else "chance" * (not place)))
        return (tuple(footer),) if any(text.flat(cell.text) for cell in footer[1:]) else ()

    def _chance_of(self, metric: str) -> str:
        column = [self._findings.cells[(r.index, metric)] for r in self._collection.points]
        known = [c.chance * metrics.scale(metric) for c in column if c.chance is not None]
        decimals = decimals_of(column)
        shown = {text.number(value, decimals): value for value in known}
        ends = sorted(shown, key=lambda name: shown[name])
        return "\u2013".join(dict.fromkeys([ends[0], ends[-1]])) if ends else ""

    # ----------------------------------------------------------------------- what is said of it

    def _remarks(self, shared: Sequence[str]) -> Iterator[str]:
        if shared:
            yield f"Every row: {'; '.join(shared)}."
        every = len(self._collection.points)
        if self.is_cut:
            metric = metrics.display(_leading_metric(self._findings))
            yield (
                f"{len(self._rows)} of {every:,} points: those with the best {metric}, and the "
                "baselines; the whole table has all."
            )

    def _about_lead(self, table: Table) -> Iterator[str]:
        yield self._about_seeds()
        cells = [line for row in table.rows for cell in row for line in cell.lines]
        marks, signs = {c.mark for c in cells}, {i.text for c in cells for i in c.after}
        marked = [f"{word}: {what}" for mark, word, what in _MARKED if mark in marks]
        if marked:
            yield f"{'; '.join(marked)}."
        if STAR in signs:
            made = self._tested()
            family = max(c.judged.family for c in made if c.judged is not None and c.decided)
            base = baseline_words(self._collection)
            yield f"{STAR}: differs from {base} (Holm, {family} tests, p < {ALPHA:.2g})."
        if TIE in signs:
            yield f"{TIE}: not distinguishable from the best of its column ({_MCB})."
        if self._compared and self._show.delta is not None:
            yield from self._about_differences()
        if Mark.MUTED in marks:
            yield "In parentheses: the base's own value, which the point does not set."

    def _about_seeds(self) -> str:
        counts = sorted({len(row.seeds) for row in self._collection.points})
        if counts[-1] == 1:
            return "One seed, so no spread."
        n = "\u2013".join(dict.fromkeys([str(counts[0]), str(counts[-1])]))
        return f"Mean over {n} seeds; subscript: {_SPREADS[self._show.spread]}."

    def _about_every(self) -> Iterator[str]:
        every = "Every point and metric." if self._collection.sweep.show.columns is None else ""
        yield every or "Every metric shown."
        if self._compared:
            yield from self._about_differences()
            sizes = {c.primary: c.judged.family for c in self._tested() if c.judged is not None}
            if any(c.decided for c in self._tested()):
                yield f"{STAR}: significant, p < {ALPHA:.2g} (Holm, {_families(sizes)})."

    def _about_differences(self) -> Iterator[str]:
        units = {c.interval[2] for c in self._tested() if c.interval is not None}
        base = baseline_words(self._collection)
        yield f"{DELTA}: difference to {base}{_about_interval(units)}."

    def _tested(self) -> list[Comparison]:
        of, points = self._findings.comparisons, range(len(self._collection.points))
        return [found for name in self._findings.shown for found in of(name, points).values()]


_MCB = "multiple comparisons with the best, 95 %"
_MARKED = ((Mark.BEST, "Bold", "best"), (Mark.SECOND, "underlined", "second"))


def _is_cost(name: str) -> bool:
    return metrics.is_cost(name) or name in metrics.OF_TOWERS


def _leading_metric(findings: ReportFindings) -> str:
    """The primary metric, else the first of quality, else the first."""
    quality = [name for name in findings.shown if not metrics.is_cost(name)]
    return findings.primary or [*quality, *findings.shown][0]


def _leading_points(collection: Collection, findings: ReportFindings, two_lines: bool) -> list[int]:
    """The points of the leading table, by index: all of few, else the best and the baselines."""
    every = [row.index for row in collection.points]
    most = MOST_ROWS // 2 if two_lines else MOST_ROWS
    if len(every) <= most:
        return every
    metric = _leading_metric(findings)
    ranked = sorted(every, key=lambda point: -findings.cells[(point, metric)].merit)
    first = dict.fromkeys([*collection.baselines[:_MOST_BASELINES], *ranked])
    return sorted([*first][:most])


def headings_of(section: MetricSection) -> dict[str, tuple[str, ...]]:
    """Metric -> its headings; the unit and the words that all share stand above them."""
    units = {metrics.unit(metric) for metric in section.metrics}
    names = {metric: metrics.display(metric) for metric in section.metrics}
    if not section.title or len(units) > 1:
        return {
            metric: tuple(filter(None, (section.title, f"{name} ({metrics.unit(metric)})")))
            for metric, name in names.items()
        }
    shared = " ".join(reversed(_all_begin_with(n.split()[:0:-1] for n in names.values())))
    own = {metric: name.removesuffix(shared).strip() for metric, name in names.items()}
    sets = [own[metric] for metric in own if metric not in section.averages]
    family = "_".join(_all_begin_with(name.split("_")[:-1] for name in sets))
    title = " ".join(filter(None, (section.title, family, shared))) + f" ({units.pop()})"
    return {metric: (title, name.removeprefix(f"{family}_")) for metric, name in own.items()}


def _all_begin_with(rows: Iterable[Sequence[str]]) -> list[str]:
    """The words that several rows have in common; none of a single row."""
    columns = list(zip(*rows, strict=False))
    same = takewhile(lambda words: len(words) > 1 and len(set(words)) == 1, columns)
    return [words[0] for words in same]


def _members(section: MetricSection, metric: str) -> tuple[str, ...]:
    """The footnote of an average."""
    members = section.averages.get(metric)
    if members is None:
        return ()
    listed = ", ".join(metrics.display(member) for member in members)
    return (f"plain mean, run by run, of {listed}",)


# --------------------------------------------------------------------------- cells


def _mean_text(estimate: Estimate, metric: str, decimals: int) -> str:
    return text.number(estimate.mean * metrics.scale(metric), decimals)


def _spread(estimate: Estimate, metric: str, decimals: int, kind: str) -> Inline | None:
    found = {"sd": estimate.sd, "se": estimate.se, "ci": estimate.half_width}[kind]
    if found is None:
        return None
    shown = text.number(found * metrics.scale(metric), decimals)
    return Inline(f"\u00b1{shown}", "subscript")


def _ranked(column: Sequence[Cell], decimals: int) -> dict[str, Mark]:
    """Printed mean -> its mark: the best, and of three the second; equal ones share it."""
    ordered = sorted(column, key=lambda cell: -cell.merit)
    shown = [_mean_text(c.estimate, c.metric, decimals) for c in ordered if c.estimate]
    first, second, *_ = [*dict.fromkeys(shown), None, None]
    if first is None or second is None:
        return {}
    return {second: Mark.SECOND if len(shown) > 2 else Mark.NONE, first: Mark.BEST}


def _may_differ(cell: Cell, column: Sequence[Cell]) -> bool:
    """Whether the cell has a baseline that can have a number to differ from."""
    if cell.baseline is None or metrics.is_cost(cell.metric):
        return False
    return cell.baseline != cell.point and not column[cell.baseline].off


def _difference_cell(cell: Cell, decimals: int) -> TableCell:
    if cell.baseline == cell.point:
        return TableCell("baseline")
    comparison = cell.comparison
    if comparison is None:
        return TableCell(text.DASH, notes=(_no_difference(cell),))
    return TableCell(
        difference_text(comparison, decimals),
        value=comparison.mean * metrics.scale(cell.metric),
        after=(Inline(STAR, "superscript"),) if comparison.decided else (),
        notes=tuple(_about_comparison(comparison)),
        keys=cell.keys,
    )


def _about_comparison(comparison: Comparison) -> Iterator[str]:
    if not comparison.in_full:
        seeds = ", ".join(map(str, comparison.seeds.seeds))
        yield f"{comparison.seeds.n} of {comparison.wanted} seeds in common ({seeds})"
    if comparison.verdict is Verdict.NO_SPREAD:
        yield "the seeds agree exactly: no spread to judge by"
    if comparison.barred is not None:
        yield f"not compared: {comparison.barred}"


def _no_difference(cell: Cell) -> str:
    if cell.off and cell.hole is not None:
        return cell.hole
    if cell.baseline is None:
        return "no single point of the sweep is the baseline of this one"
    return "no seed has both this value and the baseline's"


def _families(sizes: dict[bool, int]) -> str:
    """`5 tests of the primary metric, 30 of the others`."""
    if True not in sizes:
        return f"{sizes[False]} tests"
    told = [f"{sizes[True]} tests of the primary metric"]
    return ", ".join([*told, f"{sizes[False]} of the others"] if False in sizes else told)


def _about_interval(units: Iterable[Over]) -> str:
    units = set(units)
    if units == {Over.ITEMS}:
        return ", with a 95 % bootstrap interval over test items, for these very models"
    if not units:
        return " at the same seed"
    if len(units) > 1:
        listed = ", ".join(unit.value for unit in Over if unit in units)
        return f", with a 95 % interval over, as outcomes are kept: {listed} (table.csv says which)"
    return (
        f", with a 95 % interval over {units.pop().value}, by one linear model of all points and "
        "seeds"
    )
