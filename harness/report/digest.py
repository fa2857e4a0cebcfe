"""The answer at the top of a report: a few sentences that say what the whole comes to.

Every sentence that `sentences` has on a single metric stands among the results; here the headline
metrics alone are told with amounts, and metrics of which the same can be said share a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness import metrics
from harness.document import text
from harness.figures.base import HEADLINE
from harness.report.collect import Collection
from harness.report.comparisons import ALPHA, Comparison, Verdict
from harness.report.contrast import listed
from harness.report.findings import Findings
from harness.report.sentences import (
    best_sentences,
    cases_by_change,
    decimals_of_metric,
    outcomes,
    tally,
)
from harness.report.trends import Trend

#: Changes told one by one; more are counted.
_FEW = 2


def digest(collection: Collection, findings: Findings) -> list[str]:
    """What differs, in what nothing does, and how the metrics go along the axis."""
    quality = [metric for metric in findings.shown if not metrics.is_cost(metric)]
    heads = quality[:HEADLINE]
    made = {metric: _made(collection, findings, metric) for metric in quality}
    compared = [metric for metric in quality if made[metric]]
    differing = [metric for metric in compared if any(c.decided for c in made[metric])]
    found = []
    for metric in differing:
        if metric in heads:
            found += _differences(collection, findings, metric)
    others = [metric for metric in differing if metric not in heads]
    if others:
        found.append(_others(others, made))
    alike = [metric for metric in compared if metric not in differing]
    if alike:
        found.append(_alike(collection, findings, alike, made))
    found += _trends(collection, findings, quality)
    if not found:
        found = [words for m in heads for words in best_sentences(collection, findings, m)]
    return found


def _made(collection: Collection, findings: Findings, metric: str) -> list[Comparison]:
    cells = [findings.cells[(row.index, metric)] for row in collection.points]
    return [cell.comparison for cell in cells if cell.comparison is not None]


def _names(of: Sequence[str], last: str = "and") -> str:
    return listed([metrics.display(metric) for metric in of], last)


# --------------------------------------------------------------------------- differences


def _differences(collection: Collection, findings: Findings, metric: str) -> list[str]:
    """One headline metric: what differs with its amounts, the rest by number."""
    decimals = decimals_of_metric(collection, findings, metric)
    changes = cases_by_change(collection, findings, metric)
    decided = {
        opening: told
        for opening, cases in changes.items()
        if (told := [(case, c) for case, c in cases if c.decided])
    }
    if len(decided) > _FEW:
        everything = _made(collection, findings, metric)
        return [tally(metric, everything, decimals, findings.family)]
    return [
        f"{opening} {outcomes(metric, told, decimals, findings.family)}"
        f"{_and_the_rest(len(changes[opening]) - len(told))}."
        for opening, told in decided.items()
    ]


def _and_the_rest(count: int) -> str:
    if not count:
        return ""
    return f"; no difference stands in the other {count} cases" if count > 1 else (
        "; no difference stands in the other case"
    )  # fmt: skip


def _others(others: Sequence[str], made: dict[str, list[Comparison]]) -> str:
    counts = {metric: sum(c.decided for c in made[metric]) for metric in others}
    parts = [f"{metrics.display(m)} in {count} of {len(made[m])}" for m, count in counts.items()]
    return f"Of the other metrics, differences stand for {listed(parts)} comparisons."


def _alike(
    collection: Collection,
    findings: Findings,
    alike: Sequence[str],
    made: dict[str, list[Comparison]],
) -> str:
    """The metrics of which no comparison stands."""
    comparisons = [comparison for metric in alike for comparison in made[metric]]
    verdicts = {comparison.verdict for comparison in comparisons}
    opening, where = _where(collection, findings, alike[0], len(made[alike[0]]))
    no = "no" if opening else "No"
    if verdicts <= {Verdict.ONE_SEED, Verdict.NO_SPREAD}:
        why = (
            "there is one seed"
            if verdicts == {Verdict.ONE_SEED}
            else "seeds agree too closely or are too few"
        )
        return f"{opening}{no} difference in {_names(alike, 'or')} can be judged {where}: {why}."
    said = f"{opening}{no} difference in {_names(alike)} is detectable {where}"
    lost = sum(comparison.verdict is Verdict.LOST for comparison in comparisons)
    if lost:
        said += (
            f" ({lost} of {len(comparisons)} intervals {'excludes' if lost == 1 else 'exclude'} "
            f"zero, and none stands the correction for {findings.family} comparisons)"
        )
    return f"{said}{_seeing(findings, alike)}."


def _where(collection: Collection, findings: Findings, metric: str, count: int) -> tuple[str, str]:
    """The change that all comparisons share, where there is one, and the places it was tried at."""
    changes = cases_by_change(collection, findings, metric)
    if len(changes) > 1:
        return "", f"in any of {count} comparisons to a baseline"
    ((opening, cases),) = changes.items()
    if len(cases) == 1:
        return f"{opening} ", cases[0][0]
    if opening.startswith("Against"):
        return f"{opening} ", f"in any of {len(cases)} comparisons"
    places = listed([collection.axis_name(axis) for axis in collection.places])
    return f"{opening} ", f"at any of {len(cases)} values of {places}"


def _seeing(findings: Findings, of: Sequence[str]) -> str:
    """`; the design can see 0.6 to 3.6 points`."""
    effects = sorted(
        findings.sensitivity[metric].effect * metrics.scale(metric)
        for metric in of
        if metric in findings.sensitivity
    )
    if not effects:
        return ""
    ends = dict.fromkeys(text.number(effect, 1) for effect in (effects[0], effects[-1]))
    return f"; the design can see {' to '.join(ends)} points"


# --------------------------------------------------------------------------- along the axis


def _trends(collection: Collection, findings: Findings, quality: Sequence[str]) -> list[str]:
    """Metrics that go the same way share a part; where nothing more is gained is told of heads."""
    by_metric = {m: [t for t in findings.trends if t.metric == m] for m in quality}
    known = {metric: trends for metric, trends in by_metric.items() if trends}
    if not known:
        return []
    alike: dict[str, list[str]] = {}
    for metric, trends in known.items():
        alike.setdefault(_way(trends), []).append(metric)
    axis = collection.axis_name(findings.trends[0].line.axis)
    parts = [way.format(_names(of), "s" if len(of) == 1 else "") for way, of in alike.items()]
    gained = [
        f"{_span(trends)} in {metrics.display(metric)}"
        for metric, trends in list(known.items())[:HEADLINE]
    ]
    return [
        f"Along {axis}, {'; '.join(parts)} (Page's trend test over seeds, at "
        f"{ALPHA * 100:.0f} %). No gain is detectable beyond {axis} {listed(gained)}."
    ]


def _way(trends: Sequence[Trend]) -> str:
    """With places for the names and for the ending of the verb."""
    seen = [trend for trend in trends if trend.p < ALPHA]
    up = sum(trend.rising for trend in seen)
    down = len(seen) - up
    if not seen:
        return "no trend of {0} is detectable"
    if len(seen) == len(trends) and not (up and down):
        return "{0} rise{1}" if up else "{0} fall{1}"
    ways = [f"{way}{{1}} on {n}" for way, n in (("rise", up), ("fall", down)) if n]
    return f"{{0}} {listed(ways)} of {len(trends)} lines"


def _span(trends: Sequence[Trend]) -> str:
    enough = sorted({trend.enough for trend in trends})
    return " to ".join(f"{level:g}" for level in dict.fromkeys([enough[0], enough[-1]]))
