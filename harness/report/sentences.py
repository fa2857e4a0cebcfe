"""The statistics in words, metric by metric, and no more than the tests allow.

Plain text without markup; each format escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness import metrics
from harness.document import text
from harness.report.collect import Collection
from harness.report.comparisons import ALPHA, Comparison, Verdict
from harness.report.contrast import contrast_of, listed
from harness.report.findings import Findings, Sensitivity
from harness.report.statistics import POWER
from harness.report.tables import decimals_of, difference_text, estimate_text
from harness.report.trends import Trend

#: Differences, or rows, that a sentence still names one by one.
_MANY = 6
#: Sentences of one kind on one metric past which they become one.
_GROUPS = 4


def sentences(collection: Collection, findings: Findings, metric: str) -> list[str]:
    """What differs in `metric`, how it goes along the axis or which point is best, and what the
    design could have seen of it."""
    if metrics.is_cost(metric):
        return []
    along = trend_sentences(collection, findings, metric)
    return [
        *comparison_sentences(collection, findings, metric),
        *(along or best_sentences(collection, findings, metric)),
        *sensitivity_sentences(findings, metric),
    ]


# --------------------------------------------------------------------------- differences


def comparison_sentences(collection: Collection, findings: Findings, metric: str) -> list[str]:
    """What is changed and what comes of it, in one sentence a change where it is tried at several
    places (with and without a term, at every depth), in one sentence for all changes otherwise."""
    grouped = cases_by_change(collection, findings, metric)
    decimals = decimals_of_metric(collection, findings, metric)
    if len(grouped) > _GROUPS:
        made = [comparison for cases in grouped.values() for _, comparison in cases]
        return [tally(metric, made, decimals, findings.family)]
    return [
        f"{opening} {outcomes(metric, cases, decimals, findings.family)}."
        for opening, cases in grouped.items()
    ]


def cases_by_change(
    collection: Collection, findings: Findings, metric: str
) -> dict[str, list[tuple[str, Comparison]]]:
    """How a sentence on a change begins -> the cases it was tried in, each with what came of it."""
    grouped: dict[str, list[tuple[str, Comparison]]] = {}
    for row in collection.points:
        comparison = findings.cells[(row.index, metric)].comparison
        if comparison is not None:
            base = collection.points[comparison.reference]
            found = contrast_of(collection, row, base)
            if found.place:
                opening, case = f"With {found.new} against {found.old},", f"at {found.place}"
            else:
                opening, case = f"Against {found.old},", f"with {found.new}"
            grouped.setdefault(opening, []).append((case, comparison))
    return grouped


def tally(metric: str, made: Sequence[Comparison], decimals: int, family: int) -> str:
    """Many comparisons in one sentence: how many of each verdict, and how large the decided are."""
    by_verdict = {verdict: [c for c in made if c.verdict is verdict] for verdict in Verdict}
    better, worse = by_verdict[Verdict.BETTER], by_verdict[Verdict.WORSE]
    parts = [
        f"{len(better)} are for the better{_range(better, decimals)}",
        f"{len(worse)} for the worse{_range(worse, decimals)}",
        f"{len(by_verdict[Verdict.UNDECIDED])} not detectable",
    ]
    lost = by_verdict[Verdict.LOST]
    if lost:
        parts.append(f"{len(lost)} do not stand the correction for {family} comparisons")
    rest = len(by_verdict[Verdict.NO_SPREAD]) + len(by_verdict[Verdict.ONE_SEED])
    if rest:
        parts.append(f"{rest} have no interval over seeds to judge by")
    differences = f"Of {len(made)} differences in {metrics.display(metric)} to the baseline"
    return f"{differences}, {listed(parts)}."


def _range(comparisons: Sequence[Comparison], decimals: int) -> str:
    if not comparisons:
        return ""
    sizes = [abs(_scaled(comparison)) for comparison in comparisons]
    least, most = (text.number(size, decimals) for size in (min(sizes), max(sizes)))
    return f" ({least} to {most} {_unit(comparisons[0].metric)})"


def outcomes(
    metric: str, cases: Sequence[tuple[str, Comparison]], decimals: int, family: int
) -> str:
    """What comes of one change in all its cases, without the opening and the full stop."""
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
    return listed(amounts)


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
    return listed([f"{case} ({difference_text(c, decimals)})" for case, c in cases])


def _scaled(comparison: Comparison) -> float:
    return comparison.mean * metrics.scale(comparison.metric)


# --------------------------------------------------------------------------- along the axis


def trend_sentences(collection: Collection, findings: Findings, metric: str) -> list[str]:
    """Whether the metric goes up or down along the axis, and from where on nothing is gained."""
    decimals = decimals_of_metric(collection, findings, metric)
    trends = [trend for trend in findings.trends if trend.metric == metric]
    if len(trends) > _GROUPS:
        return [_many_trends(collection, trends)]
    return [_trend(collection, findings, trend, decimals) for trend in trends]


def _many_trends(collection: Collection, trends: Sequence[Trend]) -> str:
    axis, name = collection.axis_name(trends[0].line.axis), metrics.display(trends[0].metric)
    seen = [trend for trend in trends if trend.p < ALPHA]
    up = sum(trend.rising for trend in seen)
    enough = sorted(trend.enough for trend in trends)
    where = listed([collection.axis_name(path) for path in trends[0].line.held])
    return (
        f"Along {axis}, {name} rises at {up} and falls at {len(seen) - up} of {len(trends)} values "
        f"of {where} (Page's trend test over seeds, each at 5 %); the smallest {axis} beyond which "
        f"nothing is gained lies between {enough[0]:g} and {enough[-1]:g}."
    )


def _trend(collection: Collection, findings: Findings, trend: Trend, decimals: int) -> str:
    axis, name = collection.axis_name(trend.line.axis), metrics.display(trend.metric)
    held = [
        f"{collection.axis_name(path)} {text.plain(value)}"
        for path, value in trend.line.held.items()
    ]
    where = f"At {listed(held)}, " if held else ""
    way = "rises" if trend.rising else "falls"
    if trend.p < ALPHA:
        said = f"{where}{name} {way} with {axis} (Page's trend test over seeds, p = {trend.p:.2g})"
    else:
        said = f"{where}{'no' if where else 'No'} trend of {name} along {axis} is detectable"
        said += f" (Page's test over seeds, p = {trend.p:.2g})"
    parts = [said, _enough(findings, trend, decimals)]
    if trend.beyond is not None:
        parts.append(f"from there on no gain is detectable (p = {trend.beyond:.2g})")
    if trend.left_out:
        missing = ", ".join(f"{level:g}" for level in trend.left_out)
        parts.append(f"left out, for want of a seed: {missing}")
    return "; ".join(parts) + "."


def _enough(findings: Findings, trend: Trend, decimals: int) -> str:
    if trend.at_enough is None:
        if trend.enough == trend.levels[0]:
            return f"the best is the smallest, {trend.best:g}"
        return f"nothing below the best, {trend.best:g}, is enough"
    seen = findings.sensitivity.get(trend.metric)
    design = "" if seen is None else f"; the design can see {_effect(seen, decimals)}"
    shown = difference_text(trend.at_enough, decimals)
    return (
        f"{trend.enough:g} is the smallest that cannot be told from the best, {trend.best:g} "
        f"({shown} {_unit(trend.metric)}{design})"
    )


# --------------------------------------------------------------------------- best, and design


def best_sentences(collection: Collection, findings: Findings, metric: str) -> list[str]:
    """Which point has the best mean, and which others cannot be told from it."""
    found = findings.contests.get(metric)
    if found is None:
        return []
    cell = findings.cells[(found.leader, metric)]
    assert cell.estimate is not None
    shown = estimate_text(cell.estimate, metric, decimals_of_metric(collection, findings, metric))
    label = collection.points[found.leader].label
    said = f"The best mean {metrics.display(metric)} is {shown} at {label}"
    if found.won:
        return [f"{said}, told from every other row with a mean."]
    tied = [collection.points[point].label for point in found.tied]
    if len(tied) > _MANY:
        return [f"{said}; {len(tied)} of {len(found.against)} others cannot be told from it."]
    return [f"{said}; not to be told from it: {'; '.join(tied)}."]


def sensitivity_sentences(findings: Findings, metric: str) -> list[str]:
    """The smallest difference that the design can see in `metric`."""
    each = findings.sensitivity.get(metric)
    if each is None:
        return []
    return [
        f"{each.seeds} seeds can see a difference of {_effect(each, _FINE)} in "
        f"{metrics.display(metric)}: the least that one test at {ALPHA * 100:.0f} % finds with a "
        f"probability of {POWER * 100:.0f} %, over {each.over.value}."
    ]


_FINE = 1


def _effect(each: Sensitivity, decimals: int) -> str:
    return f"{text.number(each.effect * metrics.scale(each.metric), decimals)} {_unit(each.metric)}"


# --------------------------------------------------------------------------- words


def decimals_of_metric(collection: Collection, findings: Findings, metric: str) -> int:
    """Decimals that the numbers of `metric` have in this report."""
    return decimals_of(findings.cells[(row.index, metric)] for row in collection.points)


def _unit(metric: str) -> str:
    unit = metrics.unit(metric)
    return "points" if unit == "%" else unit
