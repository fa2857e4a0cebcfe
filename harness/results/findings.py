"""What the statistics of a report are: cells, comparisons, trends, effects, the best of a column.

Reads the per-example outcomes, asks `harness.stats` what each sweep asks, and puts the answers
where tables, figures and sentences find them.  Which tests form a family: see `stats.analysis`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from harness import metrics
from harness.errors import ConfigError
from harness.results.collect import Collection, SweepPart
from harness.results.comparisons import Comparison
from harness.results.guards import TrainingLoss, under_training
from harness.results.item_outcomes import Outcomes
from harness.results.lasting import no_garbage
from harness.results.numerics import Numerics
from harness.results.questions import Line, costs, lines_of, study_effects
from harness.results.records import Record
from harness.results.sections import MetricSection, averages_of, sections_of
from harness.results.summary import Cell, Cells, summarise
from harness.stats.analysis import Analysis, Measured, MetricAnalysis, Plan, analyse, contrasts_of
from harness.stats.best import Best
from harness.stats.effects import Effect
from harness.stats.intervals import paired_difference
from harness.stats.sequential import Course, Seeds, follow
from harness.stats.spending import Looks
from harness.stats.tests import Asked, ContrastTest, Judged
from harness.store.trials import TELLING


@dataclass(frozen=True)
class Trend:
    """The slope of one metric along one line."""

    line: Line
    metric: str
    judged: Judged
    left_out: tuple[float, ...]
    """Levels without a value."""

    @property
    def rising(self) -> bool:
        """The direction of the slope."""
        return self.judged.test.estimate > 0


@dataclass(frozen=True)
class Answered:
    """What one sweep asked, and what came of it."""

    study: SweepPart
    lines: tuple[Line, ...]
    effects: tuple[Effect, ...]
    analysis: Analysis
    primary: str | None
    margin: float | None
    """In the printed unit of the primary metric."""
    under_trained: tuple[TrainingLoss, ...] = ()
    course: Course | None = None
    """Of a sweep that is looked at several times."""

    def of(self, metric: str) -> MetricAnalysis:
        """What is said of one metric."""
        return self.analysis.by_metric[metric]

    def sizes_of(self, effect: int) -> dict[str, Judged]:
        """Metric -> the size of effect number `effect`, of those that tell it."""
        found = self.analysis.by_metric.items()
        return {name: each.effects[effect] for name, each in found if effect in each.effects}


@dataclass(frozen=True)
class ReportFindings:
    """Everything that is computed of a collection; tables, figures and sentences only show it."""

    cells: Cells
    """(point, metric) -> cell; those of the shown metrics with the comparison to their baseline."""
    sections: tuple[MetricSection, ...]
    """The shown metrics as a table groups them, averages included."""
    answered: tuple[Answered, ...]
    """Each sweep of the collection by itself."""
    contests: Mapping[str, Best]
    """Metric -> its best point against the others, over all points of the table: which of them can
    be told from it."""
    outcomes: Mapping[tuple[str, str], str]
    """(Run key, evaluation key) -> SHA-256 of the per-example outcomes that were read."""
    unread: Mapping[str, tuple[str, ...]]
    """Why outcomes could not be used -> keys of the runs."""
    notes: tuple[str, ...] = ()
    """What stands in the way of a verdict, a sentence each."""

    def note_inputs(self, records: Iterable[Record]) -> None:
        """Put the outcomes that were read among the inputs of their runs."""
        for record in records:
            sha256 = self.outcomes.get((record.key, record.evaluation_key))
            if sha256 is not None:
                record.inputs[f"outcomes/{record.evaluation_key}.npz"] = sha256

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics of all sections, averages included."""
        return tuple(name for section in self.sections for name in section.metrics)

    @property
    def primary(self) -> str | None:
        """The primary metric, of several sweeps the first that has one."""
        return next((each.primary for each in self.answered if each.primary is not None), None)

    @property
    def averages(self) -> dict[str, tuple[str, ...]]:
        """Average -> the metrics it is the mean of."""
        return averages_of(self.sections)

    @property
    def trends(self) -> tuple[Trend, ...]:
        """Every slope, sweep by sweep and metric by metric."""
        return tuple(trend for answered in self.answered for trend in trends_of(answered))

    def mark(self, cell: Cell) -> str:
        """`best` where it is told from all others, `tied` where it cannot be told from the best."""
        contest = self.contests.get(cell.metric)
        if contest is None or cell.estimate is None or cell.point not in contest.tied:
            return ""
        return "best" if contest.won else "tied"

    def comparisons(self, metric: str, points: Iterable[int]) -> dict[int, Comparison]:
        """Point -> its difference to its baseline, of those of `points` that have one."""
        found = ((point, self.cells[(point, metric)].comparison) for point in points)
        return {point: comparison for point, comparison in found if comparison is not None}


def trends_of(answered: Answered, metric: str | None = None) -> Iterator[Trend]:
    """The slopes of one sweep, of all metrics or of one."""
    for name in answered.analysis.by_metric if metric is None else [metric]:
        found = answered.of(name)
        known = set(found.points)
        for number, judged in found.trends.items():
            line = answered.lines[number]
            rows = [row for row in line.rows if row.index not in known]
            yield Trend(line, name, judged, tuple(float(row.axes[line.axis]) for row in rows))


@no_garbage()
def find(collection: Collection) -> ReportFindings:
    """Compute everything; reads the per-example outcomes of finished runs."""
    sections = sections_of(collection.shown)
    averages = averages_of(sections)
    shown = [name for section in sections for name in section.metrics]
    cells = summarise(collection, averages)
    pairs = dict.fromkeys(pair for study in collection.studies for pair in _pairs(study))
    outcomes = Outcomes(collection, shown, averages, pairs)
    notes = list(collection.notes)
    answered = []
    barred = cache(Numerics.of(collection.records).comparable)
    for study in collection.studies:
        found, problem = _answer(collection, study, shown, cells, outcomes, barred)
        answered.append(found)
        notes += problem
        for place, comparison in _comparisons(found, cells, outcomes, barred):
            if collection.points[place[0]].baseline == comparison.reference:
                cells[place] = replace(cells[place], comparison=comparison)
    if collection.parts:
        whole = analyse(
            [
                _measured(metric, range(len(collection.points)), cells, outcomes)
                for metric in shown
                if not metrics.is_cost(metric)
            ],
            Plan(barred=barred),
        )
    else:
        whole = answered[0].analysis
    contests = {m: found.best for m, found in whole.by_metric.items() if found.best is not None}
    return ReportFindings(
        cells=cells,
        sections=sections,
        answered=tuple(answered),
        contests=contests,
        outcomes=outcomes.digests,
        unread={reason: tuple(keys) for reason, keys in outcomes.problems.items()},
        notes=tuple(notes),
    )


# --------------------------------------------------------------------------- one sweep

Barred = Callable[[int, int], str | None]
"""Why two points must not be compared, or None."""


def _pairs(study: SweepPart) -> list[tuple[int, int]]:
    """(point, its baseline)."""
    return [(p, base) for p, base in study.baselines.items() if base is not None and base != p]


def _answer(
    collection: Collection,
    study: SweepPart,
    shown: Sequence[str],
    cells: Cells,
    outcomes: Outcomes,
    barred: Barred,
) -> tuple[Answered, list[str]]:
    primary, problem = _primary(study, collection.metrics)
    tested = [metric for metric in shown if not metrics.is_cost(metric)]
    if primary is not None and primary not in tested:
        tested.insert(0, primary)
    lines, plan = _plan(collection, study, cells, primary, barred)
    course = _course(collection, study, cells, outcomes, plan)
    seen = None if course is None else course.seen
    measured = [_measured(metric, study.points, cells, outcomes, seen) for metric in tested]
    first = next((each for each in measured if each.name == primary), None)
    guarded = under_training(collection, lines, plan.cost, first) if first is not None else ()
    answered = Answered(
        study=study,
        lines=lines,
        effects=tuple(plan.effects),
        analysis=analyse(measured, plan, course),
        primary=primary,
        margin=None if primary is None else study.show.margin,
        under_trained=guarded,
        course=course,
    )
    return answered, problem


def _plan(
    collection: Collection, study: SweepPart, cells: Cells, primary: str | None, barred: Barred
) -> tuple[tuple[Line, ...], Plan]:
    lines = tuple(lines_of(collection, study))
    margin = None if primary is None else study.show.margin
    return lines, Plan(
        comparisons=_pairs(study),
        lines=[line.places for line in lines],
        effects=study_effects(collection, study),
        primary=primary,
        margin=None if margin is None or primary is None else margin / metrics.scale(primary),
        cost=costs(cells, study.points, study.show.cost),
        barred=barred,
    )


def course_of(collection: Collection) -> Course | None:
    """How far the looks of a sweep have come; None where nothing can be read of it yet."""
    (study,) = collection.studies
    primary, _ = _primary(study, collection.metrics)
    cells = summarise(collection)
    barred = cache(Numerics.of(collection.records).comparable)
    outcomes = Outcomes(collection, [primary] if primary is not None else [], {}, ())
    _, plan = _plan(collection, study, cells, primary, barred)
    return _course(collection, study, cells, outcomes, plan)


def _course(
    collection: Collection, study: SweepPart, cells: Cells, outcomes: Outcomes, plan: Plan
) -> Course | None:
    if not study.looks or plan.primary is None:
        return None
    primary = plan.primary
    ended = {(r.point, r.seed) for r in collection.records if r.reason is None or _told(r)}

    def measure(seeds: Seeds) -> dict[Asked, ContrastTest]:
        return contrasts_of(_measured(primary, study.points, cells, outcomes, seeds), plan)

    return follow(
        measure,
        plan.comparisons,
        study.order,
        Looks(study.looks),
        points=study.points,
        complete=lambda seeds: all((p, s) in ended for p, own in seeds.items() for s in own),
        margin=plan.margin,
    )


def _told(record: Record) -> bool:
    """Whether the run failed for good, which says something of its point."""
    return record.failed and record.status.failure in TELLING


def _primary(study: SweepPart, recorded: Sequence[str]) -> tuple[str | None, list[str]]:
    """The primary metric by its name, or why there is none that can be used."""
    if study.show.primary is None:
        return None, []
    try:
        return metrics.match_primary(study.show.primary, recorded), []
    except ConfigError as error:
        return None, [f"{study.name}: no verdict on the primary metric: {error}"]


def _measured(
    metric: str,
    points: Sequence[int],
    cells: Cells,
    outcomes: Outcomes,
    only: Seeds | None = None,
) -> Measured:
    found = {point: cells.get((point, metric)) for point in points}
    values = {point: cell.values for point, cell in found.items() if cell is not None}
    if only is not None:
        values = {
            point: {seed: value for seed, value in own.items() if seed in only.get(point, ())}
            for point, own in values.items()
        }
    spread = outcomes.spread(metric, points, only)
    return Measured(metric, values, metrics.higher_is_better(metric), spread)


def _comparisons(
    answered: Answered, cells: Cells, outcomes: Outcomes, barred: Barred
) -> Iterator[tuple[tuple[int, str], Comparison]]:
    for metric, found in answered.analysis.by_metric.items():
        for point, base in _pairs(answered.study):
            cell, other = cells[(point, metric)], cells[(base, metric)]
            seeds = paired_difference(cell.values, other.values)
            if seeds is not None:
                pair = outcomes.pair(point, base, metric)
                yield (
                    (point, metric),
                    Comparison(
                        point=point,
                        reference=base,
                        metric=metric,
                        wanted=len(cell.seeds),
                        seeds=seeds,
                        judged=found.comparisons.get((point, base)),
                        primary=found.primary,
                        items=pair.items,
                        exact=pair.exact,
                        barred=barred(point, base),
                    ),
                )
