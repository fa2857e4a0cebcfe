"""What a page says of a sweep in waves: what each point chose, and what each look closed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from harness import metrics
from harness.config import canonical_json
from harness.config.sweep import short_names
from harness.document import text
from harness.document.blocks import Block, Paragraph
from harness.document.table import plain_table
from harness.planning.selection import PointChoice
from harness.report.numbers import interval_text
from harness.results.collect import Collection
from harness.results.contrast import listed, point_words
from harness.results.findings import Answered, ReportFindings
from harness.stats.sequential import ComparisonState
from harness.stats.tests import ALPHA

#: Points that a note still names one by one.
_MANY = 2


def wave_notes(collection: Collection, findings: ReportFindings) -> Iterator[str]:
    """What stands against a conclusion: a grid that was too narrow, looks that came too late."""
    found = {name: each for name, each in _choices(collection).items() if each.edges}
    if found:
        told = [
            f"{name} ({', '.join(_value(each, path) for path in each.edges)})"
            for name, each in found.items()
        ]
        if len(told) > _MANY:
            fields = dict.fromkeys(path for each in found.values() for path in each.edges)
            names = short_names(collection.sweep.nuisance)
            told = [f"{len(told)} points ({listed([names[path] for path in fields])})"]
        yield f"Chosen at the edge of the grid: {listed(told)}. A wider grid may serve them better."
    for answered in findings.answered:
        yield from _joint(answered)


def _joint(answered: Answered) -> Iterator[str]:
    course, printed = answered.course, answered.study.printed
    tests = answered.analysis.sizes[True]
    if course is not None and printed is not None and tests:
        bound = min(1.0, course.schedule.joint(printed, ALPHA / tests) * tests)
        yield (
            f"A verdict at 5 % may have been printed at {printed} seeds before these looks were "
            f"declared: together the two may err in up to {100 * bound:.1f} % of sweeps."
        )


# --------------------------------------------------------------------------- nuisance parameters


def choices(collection: Collection) -> Iterator[Block]:
    """A row a point: what it chose, how that validated, what the choice was worth."""
    found = _choices(collection)
    selection = collection.selection
    if selection is None or not found:
        return
    names, grid = short_names(collection.sweep.nuisance), next(iter(found.values())).tried
    metric = metrics.display(selection.tune_on)
    yield Paragraph(
        f"Every point chose from the same grid of {len(grid)} combinations, by {metric} "
        f"and {_seeds(collection)} of its own; the runs of this report "
        "have other seeds. A choice is worth what it validates better than the base's own values, "
        "or than the mean of the grid where the base is not in it: optimistic, since it was "
        "selected by that number."
    )
    heads = ("point", *names.values(), metric, "worth", "tried", "failed")
    scale = metrics.scale(selection.tune_on)
    rows = [[name, *_chosen(c, names), *_scores(c, scale)] for name, c in found.items()]
    yield plain_table((*heads, "edge of the grid"), rows, numeric={*heads[1:]})


def _choices(collection: Collection) -> dict[str, PointChoice]:
    """A point in words -> what it chose, in the order of the table's points."""
    if collection.selection is None:
        return {}
    found = {
        point_words(collection, row): collection.selection.choices.get(
            canonical_json(collection.of_point(row.index)[0].run.point)
        )
        for row in collection.points
    }
    return {name: choice for name, choice in found.items() if choice is not None}


def _chosen(choice: PointChoice, names: Mapping[str, str]) -> list[object]:
    if choice.best is None:
        return [text.DASH for _ in names]
    return [text.plain(choice.best.values[path]) for path in names]


def _scores(choice: PointChoice, scale: float) -> list[object]:
    failed = sum(bool(each.failed) for each in choice.tried)
    edges = listed([path.rpartition(".")[2] for path in choice.edges]) or text.DASH
    if choice.best is None:
        return [text.DASH, text.DASH, len(choice.tried), failed, edges]
    return [
        text.number(scale * choice.best.mean, 1),
        text.number(scale * _worth(choice), 1, sign=True),
        len(choice.tried),
        failed,
        edges,
    ]


def _worth(choice: PointChoice) -> float:
    assert choice.best is not None
    if choice.reference is not None:
        return choice.best.mean - choice.reference.mean
    means = [each.mean for each in choice.tried if not math.isnan(each.mean)]
    return choice.best.mean - math.fsum(means) / len(means)


def _value(choice: PointChoice, path: str) -> str:
    assert choice.best is not None
    return f"{path.rpartition('.')[2]} {text.plain(choice.best.values[path])}"


def _seeds(collection: Collection) -> str:
    count = len([*collection.sweep.tune_seeds])
    return f"{count} {'seed' if count == 1 else 'seeds'}"


# --------------------------------------------------------------------------- looks


def looks(collection: Collection, answered: Answered) -> Iterator[Block]:
    """A row a look, and how each comparison stands."""
    course = answered.course
    if course is None or answered.primary is None:
        return
    counts = course.schedule.counts
    yield Paragraph(
        f"Comparisons in {metrics.display(answered.primary)} are judged at "
        f"{', '.join(map(str, counts))} seeds; the error of 5 % is spent over these looks. One "
        "stops where it is significant, where its interval is within the margin, or where the "
        "last look is unlikely to decide (conditional power below 10 %); the baseline gets every "
        "seed that an open point gets."
        + ("" if course.over else " The next look is not complete: nothing of it is judged.")
    )
    if not course.looks:
        return
    rows = [
        [
            number + 1,
            look.seeds,
            look.runs,
            look.open,
            *(sum(s is kind for s in look.closed.values()) for kind in _CLOSED),
            f"{100 * course.schedule.level(number, ALPHA):.2g}",
        ]
        for number, look in enumerate(course.looks)
    ]
    heads = ("look", "seeds", "runs", "open before", *_CLOSED.values(), "level, %")
    yield plain_table(heads, rows, numeric={*heads})
    yield plain_table(
        ("comparison", "seeds", "stands", "difference", "conditional power, %"),
        [_standing(collection, answered, p) for p in course.standings if isinstance(p, tuple)],
        numeric={"seeds", "difference", "conditional power, %"},
    )


_CLOSED = {
    ComparisonState.SIGNIFICANT: "significant",
    ComparisonState.WITHIN: "within the margin",
    ComparisonState.HOPELESS: "given up",
    ComparisonState.LAST: "undecided at the last",
}


def _standing(collection: Collection, answered: Answered, pair: tuple[int, int]) -> list[object]:
    course, primary = answered.course, answered.primary
    assert course is not None
    assert primary is not None
    each = course.standings[pair]
    names = [point_words(collection, collection.points[point]) for point in pair]
    seeds, shown = course.schedule.counts[each.look], text.DASH
    if pair in course.judged:
        test = course.judged[pair].test
        shown = interval_text(test.estimate, test.interval, primary, 1)
    power = text.DASH if each.power is None else text.number(100 * each.power, 0)
    where = each.standing.value
    return [f"{names[0]} against {names[1]}", seeds, where, shown, power]
