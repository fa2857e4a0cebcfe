"""The statistics in words: what an abstract would say of a sweep, and no more than the tests allow.

Plain text without markup; each format escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness import metrics
from harness.config import canonical_json
from harness.report import text
from harness.report.collect import Collection, PointRow
from harness.report.comparisons import ALPHA, Comparison, Verdict
from harness.report.findings import Findings, Sensitivity
from harness.report.statistics import POWER
from harness.report.tables import decimals_of, difference_text, estimate_text
from harness.report.trends import Trend

#: Differences, or rows, that a sentence still names one by one.
_MANY = 6


def sentences(collection: Collection, findings: Findings) -> list[str]:
    """Metric by metric what differs, how it goes along the axis, and which is best; then what the
    design could have seen."""
    found: list[str] = []
    for metric in findings.shown:
        if not metrics.is_cost(metric):
            along = trend_sentences(collection, findings, metric)
            found += comparison_sentences(collection, findings, metric)
            found += along or best_sentences(collection, findings, metric)
    return [*found, *sensitivity_sentences(findings)]


# --------------------------------------------------------------------------- differences


def comparison_sentences(collection: Collection, findings: Findings, metric: str) -> list[str]:
    """What is changed and what comes of it, in one sentence a change where it is tried at several
    places (with and without a term, at every depth), in one sentence for all changes otherwise."""
    places = _places(collection)
    grouped: dict[str, list[tuple[str, Comparison]]] = {}
    for row in collection.points:
        comparison = findings.cells[(row.index, metric)].comparison
        if comparison is not None:
            opening, case = _case(collection, row, comparison, places)
            grouped.setdefault(opening, []).append((case, comparison))
    decimals = _decimals(collection, findings, metric)
    return [
        f"{opening} {_outcomes(metric, cases, decimals, findings.family)}."
        for opening, cases in grouped.items()
    ]


def _places(collection: Collection) -> list[str]:
    """The axes in which the baselines differ from one another."""
    baselines = [
        collection.points[i] for i in {row.baseline for row in collection.points} if i is not None
    ]
    return [
        axis
        for axis in collection.axes
        if len({canonical_json(row.axes[axis]) for row in baselines}) > 1
    ]


def _case(
    collection: Collection, row: PointRow, comparison: Comparison, places: Sequence[str]
) -> tuple[str, str]:
    """How the sentence on this difference begins, and what it calls this case."""
    base = collection.points[comparison.reference]
    changed = [
        axis
        for axis in collection.axes
        if canonical_json(row.axes[axis]) != canonical_json(base.axes[axis])
    ]
    new, old = (_values(collection, each, changed) for each in (row, base))
    at = [axis for axis in places if axis not in changed]
    if at:
        return f"With {new} against {old},", f"at {_values(collection, row, at)}"
    return f"Against {_base_name(collection, base)},", f"with {new}"


def _base_name(collection: Collection, base: PointRow) -> str:
    varying = [
        axis
        for axis in collection.axes
        if len({canonical_json(row.axes[axis]) for row in collection.points}) > 1
    ]
    return _values(collection, base, varying)


def _values(collection: Collection, row: PointRow, axes: Sequence[str]) -> str:
    named = [f"{collection.axis_name(axis)} {text.plain(row.axes[axis])}" for axis in axes]
    return _and(named) or row.label


def _outcomes(
    metric: str, cases: Sequence[tuple[str, Comparison]], decimals: int, family: int
) -> str:
    by_verdict: dict[tuple[Verdict, bool], list[tuple[str, Comparison]]] = {}
    for case, comparison in cases:
        up = comparison.mean > 0 if comparison.decided else True
        by_verdict.setdefault((comparison.verdict, up), []).append((case, comparison))
    parts: list[str] = []
    ordered = sorted(by_verdict.items(), key=lambda item: _ORDER.index(item[0][0]))
    for (verdict, up), found in ordered:
        if verdict in {Verdict.BETTER, Verdict.WORSE}:
            subject = metrics.display(metric) if not parts else "it"
            parts.append(f"{subject} {'rises' if up else 'falls'} {_amounts(found, decimals)}")
        else:
            parts.append(_UNTOLD[verdict](metric, _seen(found, decimals), family))
    return "; ".join(parts)


_ORDER = list(Verdict)

_UNTOLD: dict[Verdict, Callable[[str, str, int], str]] = {
    Verdict.LOST: lambda metric, seen, family: (
        f"what is seen of {metrics.display(metric)} {seen} does not stand the correction for "
        f"{family} comparisons"
    ),
    Verdict.UNDECIDED: lambda metric, seen, family: (
        f"no difference in {metrics.display(metric)} is detectable {seen}"
    ),
    Verdict.NO_SPREAD: lambda metric, seen, family: (
        f"all seeds agree exactly in {metrics.display(metric)} {seen}, which leaves no spread to "
        "judge by"
    ),
    Verdict.ONE_SEED: lambda metric, seen, family: (
        f"one seed alone, which says nothing of others, shows of {metrics.display(metric)} {seen}"
    ),
}


def _amounts(cases: Sequence[tuple[str, Comparison]], decimals: int) -> str:
    """`by 1.8 points [0.4, 3.2] at 4 layers and by 2.0 [0.9, 3.1] at 8`, or a range of many."""
    unit = _unit(cases[0][1].metric)
    if len(cases) > _MANY:
        sizes = [abs(_scaled(comparison)) for _, comparison in cases]
        least, most = (text.number(size, decimals) for size in (min(sizes), max(sizes)))
        return f"by {least} to {most} {unit} in {len(cases)} cases"
    amounts = []
    for number, (case, comparison) in enumerate(cases):
        shown = _size(comparison, decimals, unit if number == 0 else "")
        amounts.append(f"by {shown} {case}")
    return _and(amounts)


def _size(comparison: Comparison, decimals: int, unit: str) -> str:
    """The difference without its sign, and the interval turned to match."""
    scale = metrics.scale(comparison.metric)
    sign = 1 if comparison.mean > 0 else -1
    size = text.number(abs(comparison.mean) * scale, decimals)
    words = f"{size} {unit}".strip()
    if comparison.interval is None:
        return words
    ends = sorted(sign * bound * scale for bound in comparison.interval[:2])
    return f"{words} [{', '.join(text.number(end, decimals) for end in ends)}]"


def _seen(cases: Sequence[tuple[str, Comparison]], decimals: int) -> str:
    if len(cases) > _MANY:
        return f"in {len(cases)} cases"
    return _and([f"{case} ({difference_text(c, decimals)})" for case, c in cases])


def _scaled(comparison: Comparison) -> float:
    return comparison.mean * metrics.scale(comparison.metric)


# --------------------------------------------------------------------------- along the axis


def trend_sentences(collection: Collection, findings: Findings, metric: str) -> list[str]:
    """Whether the metric goes up or down along the axis, and from where on nothing is gained."""
    decimals = _decimals(collection, findings, metric)
    return [
        _trend(collection, findings, trend, decimals)
        for trend in findings.trends
        if trend.metric == metric
    ]


def _trend(collection: Collection, findings: Findings, trend: Trend, decimals: int) -> str:
    axis, name = collection.axis_name(trend.line.axis), metrics.display(trend.metric)
    held = [
        f"{collection.axis_name(path)} {text.plain(value)}"
        for path, value in trend.line.held.items()
    ]
    where = f"At {_and(held)}, " if held else ""
    way = "rises" if trend.rising else "falls"
    if trend.p < ALPHA:
        said = f"{where}{name} {way} with {axis} (Page's trend test over seeds, p = {trend.p:.2g})"
    else:
        said = f"{where}{'no' if where else 'No'} trend of {name} along {axis} is detectable"
        said += f" (Page's test over seeds, p = {trend.p:.2g})"
    parts = [said, _enough(findings, trend, axis, decimals)]
    if trend.beyond is not None and trend.enough != trend.levels[0]:
        seen = "a trend remains" if trend.beyond < ALPHA else "no trend is detectable"
        parts.append(f"from {trend.enough:g} on {seen} (p = {trend.beyond:.2g})")
    if trend.left_out:
        missing = ", ".join(f"{level:g}" for level in trend.left_out)
        parts.append(f"left out, for want of a seed: {missing}")
    return "; ".join(parts) + "."


def _enough(findings: Findings, trend: Trend, axis: str, decimals: int) -> str:
    if trend.at_enough is None:
        if trend.enough == trend.levels[0]:
            return f"the best is the smallest, {trend.best:g}"
        return f"the best, {trend.best:g}, can be told from every smaller one"
    seen = findings.sensitivity.get(trend.metric)
    design = "" if seen is None else f"; the design can see {_effect(seen, decimals)}"
    shown = difference_text(trend.at_enough, decimals)
    return (
        f"the smallest {axis} that cannot be told from the best, {trend.best:g}, is "
        f"{trend.enough:g} ({shown} {_unit(trend.metric)}{design})"
    )


# --------------------------------------------------------------------------- best, and design


def best_sentences(collection: Collection, findings: Findings, metric: str) -> list[str]:
    """Which point has the best mean, and which others cannot be told from it."""
    found = findings.contests.get(metric)
    if found is None:
        return []
    cell = findings.cells[(found.leader, metric)]
    assert cell.estimate is not None
    shown = estimate_text(cell.estimate, metric, _decimals(collection, findings, metric))
    label = collection.points[found.leader].label
    said = f"The best mean {metrics.display(metric)} is {shown} at {label}"
    if found.won:
        return [f"{said}, told from every other row."]
    tied = [collection.points[point].label for point in found.tied]
    if len(tied) > _MANY:
        return [f"{said}; {len(tied)} of {len(found.against)} others cannot be told from it."]
    return [f"{said}; not to be told from it: {'; '.join(tied)}."]


def sensitivity_sentences(findings: Findings) -> list[str]:
    """The smallest difference that the design can see, for each metric."""
    found = list(findings.sensitivity.values())
    if not found:
        return []
    parts = [f"{_effect(each, _FINE)} in {metrics.display(each.metric)}" for each in found]
    scopes = _and(list(dict.fromkeys(each.over.value for each in found)))
    seeds = sorted({each.seeds for each in found})
    return [
        f"{_and([str(n) for n in seeds])} seeds can see a difference of {_and(parts)}: the least "
        f"that one test at {ALPHA * 100:.0f} % finds with a probability of {POWER * 100:.0f} %, "
        f"over {scopes}."
    ]


_FINE = 1


def _effect(each: Sensitivity, decimals: int) -> str:
    return f"{text.number(each.effect * metrics.scale(each.metric), decimals)} {_unit(each.metric)}"


# --------------------------------------------------------------------------- words


def _decimals(collection: Collection, findings: Findings, metric: str) -> int:
    return decimals_of(findings.cells[(row.index, metric)] for row in collection.points)


def _unit(metric: str) -> str:
    unit = metrics.unit(metric)
    return "points" if unit == "%" else unit


def _and(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
