"""What the numbers say, metric by metric, in plain sentences.

A verdict is given only where the tests allow one; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import metrics
from harness.document import text
from harness.report import tables
from harness.report.sentences import Teller, best_sentence
from harness.results.collect import Collection
from harness.results.comparisons import Verdict
from harness.results.findings import ReportFindings
from harness.results.summary import Cell

#: Points of a metric past which only those that differ are listed.
_MANY = 24
#: How many of the best stand there where none of so many differs.
_FEW = 5


@dataclass(frozen=True)
class Answer:
    """One metric: its name, what is to be known before, and a line for each point compared."""

    metric: str
    aside: str
    said: tuple[str, ...]
    """The same in sentences."""
    items: tuple[str, ...]


def answer(collection: Collection, findings: ReportFindings, metric: str) -> Answer:
    """The answer on one metric, over every point of the sweep."""
    cells = findings.cells
    column = [cells[(row.index, metric)] for row in collection.points]
    decimals = tables.decimals_of(column)
    shown, left_out = _chosen(column)
    items = []
    groups: dict[int | None, list[Cell]] = {}
    for cell in shown:
        groups.setdefault(cell.baseline, []).append(cell)
    for baseline, members in groups.items():
        if baseline is None:
            items += [_level(collection, cell, decimals) for cell in members]
            continue
        items.append(f"{_level(collection, cells[(baseline, metric)], decimals)} is the baseline")
        others = [cell for cell in members if cell.point != baseline]
        items += [_comparison(collection, cell, decimals) for cell in others]
    if left_out:
        items.append(f"and {left_out:,} more points, in the table")
    scale = metrics.scale(metric)
    chances = {round(cell.chance * scale, 6) for cell in column if cell.chance is not None}
    chance = f", chance {text.number(chances.pop(), decimals)}" if len(chances) == 1 else ""
    aside = f"({metrics.unit(metric)}){chance}{_tally(column, findings)}"
    return Answer(
        metrics.display(metric),
        aside,
        tuple(_sentences(collection, findings, metric)),
        tuple(items),
    )


def _sentences(collection: Collection, findings: ReportFindings, metric: str) -> list[str]:
    if metrics.is_cost(metric):
        return []
    said = []
    for answered in findings.answered:
        tell = Teller(collection, findings, answered)
        if metric not in answered.analysis.by_metric:
            continue
        said += [*tell.trends(metric), *tell.effects(metric), *tell.noisy(metric)]
        least = tell.detectable([metric])
        if least:
            said.append(f"Smallest detectable difference (80 % power, after Holm): {least}.")
    return [*best_sentence(collection, findings, metric), *said]


def _chosen(column: Sequence[Cell]) -> tuple[list[Cell], int]:
    """The cells worth a line each, and how many are left to the table."""
    if len(column) <= _MANY:
        return list(column), 0
    decided = [cell for cell in column if cell.comparison is not None and cell.comparison.decided]
    known = [cell for cell in decided or column if cell.estimate is not None]
    sign = 1 if metrics.higher_is_better(column[0].metric) else -1
    ranked = sorted(known, key=lambda c: -sign * (c.estimate.mean if c.estimate else 0.0))
    chosen = ranked[: _MANY if decided else _FEW]
    return chosen, len(column) - len(chosen)


def _tally(column: Sequence[Cell], findings: ReportFindings) -> str:
    """How many of the points compared differ from their baseline."""
    made = [cell.comparison for cell in column if cell.comparison is not None]
    if not made:
        return ""
    verdicts = [comparison.verdict for comparison in made]
    better, worse = (verdicts.count(verdict) for verdict in (Verdict.BETTER, Verdict.WORSE))
    declared = any(answered.primary is not None for answered in findings.answered)
    family = "primary metric, " if made[0].primary else "secondary metric, " if declared else ""
    return f": {family}{better} of {len(made)} better, {worse} worse"


def _level(collection: Collection, cell: Cell, decimals: int) -> str:
    label = collection.points[cell.point].label
    if cell.estimate is None:
        return f"{label} (no mean: {cell.hole})"
    return f"{label} ({tables.estimate_text(cell.estimate, cell.metric, decimals)})"


def _comparison(collection: Collection, cell: Cell, decimals: int) -> str:
    label = collection.points[cell.point].label
    comparison = cell.comparison
    if comparison is None:
        return f"{label}: no seed to compare ({cell.hole or 'the baseline has none'})"
    shown = tables.difference_text(comparison, decimals)
    points = " points" if metrics.unit(cell.metric) == "%" else f" {metrics.unit(cell.metric)}"
    over = f", over {comparison.seeds.n} of {len(cell.seeds)} seeds"
    over = "" if comparison.in_full else over
    said = comparison.verdict.value
    if comparison.barred is not None:
        said = f"{said} ({comparison.barred})"
    return f"{label}: {said} ({shown}{points}{over})"
