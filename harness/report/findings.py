"""What the statistics of a report are: cells, comparisons, the best of each column, trends.

Owns which comparisons are made, and which of them form a family under one correction (Holm's):

- every point against its baseline on every shown metric: one family, that of the table;
- the best of a column against every other complete row of it: a family a column;
- the best level of a line against its other levels: a family a line and metric.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from harness import metrics
from harness.document.table import Mark
from harness.report.collect import Collection
from harness.report.comparisons import Comparison, Contest, Over, contest, corrected
from harness.report.lasting import no_garbage
from harness.report.pairing import Compared, Wanted, compare_all
from harness.report.sections import Section, averages_of, sections_of
from harness.report.statistics import detectable_effect
from harness.report.summary import Cell, Cells, summarise
from harness.report.trends import Line, Trend, leader_of, lines_of, trend_of


@dataclass(frozen=True)
class Sensitivity:
    """The smallest true difference that one comparison of the design finds with probability 0.8."""

    metric: str
    effect: float
    """In the unit of the records."""
    seeds: int
    over: Over


@dataclass(frozen=True)
class Findings:
    """Everything that is computed of a collection; tables, figures and sentences only show it."""

    cells: Cells
    """(point, metric) -> cell; those of the shown metrics with the comparison to their baseline and
    their mark."""
    sections: tuple[Section, ...]
    """The shown metrics as a table groups them, averages included."""
    family: int
    """Comparisons to a baseline that the correction is over."""
    contests: Mapping[str, Contest]
    """Metric -> its best point against the others, where there is a test to tell them by."""
    sensitivity: Mapping[str, Sensitivity]
    """Metric -> what the design can see, where it can see anything."""
    trends: tuple[Trend, ...]
    outcomes: Mapping[str, str]
    """Run key -> SHA-256 of the per-example outcomes that were read."""
    unread: Mapping[str, tuple[str, ...]]
    """Why outcomes could not be used -> keys of the runs."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics of all sections, averages included."""
        return tuple(name for section in self.sections for name in section.metrics)

    @property
    def averages(self) -> dict[str, tuple[str, ...]]:
        """Average -> the metrics it is the mean of."""
        return averages_of(self.sections)


@no_garbage()
def find(collection: Collection) -> Findings:
    """Compute everything; reads the per-example outcomes of finished runs."""
    sections = sections_of(collection.shown)
    averages = averages_of(sections)
    shown = [name for section in sections for name in section.metrics]
    cells = summarise(collection, averages)
    lines = lines_of(collection)
    wanted = [
        *_to_baselines(collection, shown),
        *(each for metric in shown for each in _of_column(cells, collection, metric)),
        *(
            each
            for number, line in enumerate(lines)
            for metric in shown
            for each in _of_line(cells, number, line, metric)
        ),
    ]
    compared = compare_all(wanted, collection, cells, shown=shown, averages=averages)
    table = corrected(compared.families.get(_TABLE, []))
    for comparison in table:
        place = (comparison.point, comparison.metric)
        cells[place] = replace(cells[place], comparison=comparison)
    contests = _contests(cells, compared, collection, shown)
    for found in contests.values():
        _mark(cells, found)
    return Findings(
        cells=cells,
        sections=sections,
        family=table[0].family if table else 0,
        contests={metric: found.contest for metric, found in contests.items()},
        sensitivity=_sensitivities(table, contests),
        trends=tuple(_trends(cells, lines, shown, compared)),
        outcomes=compared.outcomes,
        unread=compared.unread,
    )


# --------------------------------------------------------------------------- what is compared

_TABLE = "table"


def _to_baselines(collection: Collection, shown: Sequence[str]) -> Iterator[Wanted]:
    for row in collection.points:
        if row.baseline is not None and row.baseline != row.index:
            for metric in shown:
                yield Wanted(row.index, row.baseline, metric, _TABLE)


def _ranking(cells: Cells, collection: Collection, metric: str) -> list[int]:
    """The points with a mean, the best first."""
    sign = -1 if metrics.higher_is_better(metric) else 1
    means = [
        (sign * estimate.mean, row.index)
        for row in collection.points
        if (estimate := cells[(row.index, metric)].estimate) is not None
    ]
    return [point for _, point in sorted(means)]


def _of_column(cells: Cells, collection: Collection, metric: str) -> Iterator[Wanted]:
    """The best against all others, and the runner-up against all others below it."""
    ranked = _ranking(cells, collection, metric)
    for place, family in enumerate(("first", "second")):
        for point in ranked[place + 1 :]:
            yield Wanted(point, ranked[place], metric, (family, metric))


def _of_line(cells: Cells, number: int, line: Line, metric: str) -> Iterator[Wanted]:
    leader = leader_of(line, cells, metric)
    for row in line.rows:
        complete = cells[(row.index, metric)].estimate is not None
        if leader is not None and complete and row.index != leader.point:
            yield Wanted(row.index, leader.point, metric, ("line", number, metric))


# --------------------------------------------------------------------------- what it comes to


@dataclass(frozen=True)
class _Column:
    metric: str
    contest: Contest
    second: Contest | None


def _contests(
    cells: Cells, compared: Compared, collection: Collection, shown: Sequence[str]
) -> dict[str, _Column]:
    columns = {}
    for metric in shown:
        ranked = _ranking(cells, collection, metric)
        first, second = (
            contest(leader, compared.families.get((family, metric), []))
            for leader, family in zip([*ranked, -1, -1], ("first", "second"), strict=False)
        )
        if first is not None:
            columns[metric] = _Column(metric, first, second)
    return columns


def _mark(cells: dict[tuple[int, str], Cell], column: _Column) -> None:
    """Best and second best where each is told from all below it; else who ties with the best."""
    first, second = column.contest, column.second
    marks = dict.fromkeys([first.leader, *first.tied], Mark.TIED)
    if first.won:
        marks = {first.leader: Mark.BEST}
        if second is not None and second.won:
            marks[second.leader] = Mark.SECOND
    for point, mark in marks.items():
        place = (point, column.metric)
        cells[place] = replace(cells[place], mark=mark)


def _sensitivities(
    table: Sequence[Comparison], contests: Mapping[str, _Column]
) -> dict[str, Sensitivity]:
    """From the comparisons to baselines; without any, from those to the best of the column."""
    by_metric: dict[str, list[Comparison]] = {}
    for comparison in table:
        by_metric.setdefault(comparison.metric, []).append(comparison)
    if not table:
        by_metric = {m: list(c.contest.against.values()) for m, c in contests.items()}
    found = {metric: _sensitivity(metric, made) for metric, made in by_metric.items()}
    return {metric: value for metric, value in found.items() if value is not None}


def _sensitivity(metric: str, comparisons: Sequence[Comparison]) -> Sensitivity | None:
    """With the variance pooled over the comparisons that have every seed."""
    full = [c for c in comparisons if c.in_full and c.p is not None]
    scope = Over.BOTH if all(c.both is not None for c in full) else Over.SEEDS
    errors = [_error(c, scope) for c in full]
    if not errors:
        return None
    pooled = math.sqrt(math.fsum(error**2 for error, _ in errors) / len(errors))
    effect = detectable_effect(pooled, median(df for _, df in errors))
    return Sensitivity(metric, effect, full[0].wanted, scope)


def _error(comparison: Comparison, scope: Over) -> tuple[float, float]:
    if scope is Over.BOTH and comparison.both is not None:
        return comparison.both.error, comparison.both.df
    assert comparison.seeds.error is not None
    return comparison.seeds.error, float(comparison.seeds.n - 1)


def _trends(
    cells: Cells, lines: Sequence[Line], shown: Sequence[str], compared: Compared
) -> Iterator[Trend]:
    for number, line in enumerate(lines):
        for metric in shown:
            leader = leader_of(line, cells, metric)
            if leader is not None:
                against = compared.families.get(("line", number, metric), [])
                found = trend_of(line, cells, metric, contest(leader.point, against))
                if found is not None:
                    yield found
