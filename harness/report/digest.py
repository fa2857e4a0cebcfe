"""What the numbers come to in a few sentences: the verdict, what is undecided, each metric."""

from __future__ import annotations

from collections.abc import Iterator

from harness import metrics
from harness.document.text import Text, strong
from harness.evaluate.label_checks import ERRORS
from harness.report.sentences import Teller, best_sentence
from harness.results.collect import Collection
from harness.results.contrast import listed
from harness.results.findings import Answered, ReportFindings
from harness.results.guards import suspicious

_NOTHING = "Nothing to test: no two points of the sweep have a number to compare."
_NO_BASELINE = (
    "no baseline is declared, so that points are compared with the best alone (95 %); "
    "Show(baseline={...}) in the sweep file declares one"
)
_UNDECLARED = (
    "No primary metric is declared: all metrics are one family, and no point is called enough; "
    'Show(primary="test/mean_recall", margin=2.0) in the sweep file declares one.'
)


def verdicts(collection: Collection, findings: ReportFindings) -> list[str]:
    """The verdict of each sweep in a line; what is significant on the primary metric with it."""
    said = []
    for answered, tell, prefix in _studies(collection, findings):
        own = _verdict(answered, tell, findings)
        if own:
            said.append(f"{prefix}{' '.join(own)}")
    return said or _of_the_best(collection, findings) or [_NOTHING]


def _of_the_best(collection: Collection, findings: ReportFindings) -> list[str]:
    """Which point leads, where the sweep asks for no comparison and has no line to follow."""
    for metric in filter(None, [findings.primary, *findings.shown]):
        for told in best_sentence(collection, findings, metric):
            name = metrics.display(metric)
            return [f"{name[:1].upper()}{name[1:]}, {told}; {_NO_BASELINE}."]
    return []


def _verdict(answered: Answered, tell: Teller, findings: ReportFindings) -> list[str]:
    primary = answered.primary
    if primary is not None:
        return [
            *tell.enough(),
            *tell.differences(primary),
            *tell.trends(primary),
            *tell.effects(primary),
        ]
    quality = [metric for metric in findings.shown if metric in answered.analysis.by_metric]
    return [said for metric in quality[:2] for said in tell.differences(metric)]


def undecided(collection: Collection, findings: ReportFindings) -> list[str]:
    """What the design could not decide, how many seeds would, and what it can see, in a line."""
    said = []
    for answered, tell, prefix in _studies(collection, findings):
        parts = []
        if found := tell.undecided():
            parts.append(f"Undecided: {'; '.join(found)}.")
        if answered.primary is not None:
            least = tell.detectable(answered.primary)
            parts += [f"{each[:1].upper()}{each[1:]}." for each in least]
        elif answered.study.show.primary is None:
            compared = any(m.comparisons for m in answered.analysis.by_metric.values())
            parts += [_UNDECLARED] * compared
        if parts:
            said.append(f"{prefix}{' '.join(parts)}")
    return said


def warnings(collection: Collection, findings: ReportFindings) -> list[str]:
    """What stands against a conclusion, sweep by sweep."""
    said = list(findings.notes)
    for answered in findings.answered:
        said += Teller(collection, findings, answered).guards()
    return [*said, *_at_chance(collection, findings)]


def _at_chance(collection: Collection, findings: ReportFindings) -> Iterator[str]:
    """Which accuracies look like a mistake of the set-up, and whether anything was learnt."""
    found = suspicious(collection, findings.primary)
    counts = [
        f"{metrics.display(name)} in {'all' if count == found.finished else f'{count} of'} "
        f"{found.finished:,} runs"
        for name, count in found.at_chance.items()
    ]
    if counts:
        yield f"At chance (within {ERRORS:g} standard errors, or below): {listed(counts)}."
    for (place, line), records in found.said.items():
        first, more = records[0].run, len(records) - 1
        others = f" and {more} more run{'s' * (more > 1)}" if more else ""
        yield f"{place}, {first.label}, seed {first.seed}{others}: {line}."


def conclusions(collection: Collection, findings: ReportFindings) -> list[Text]:
    """What the lead does not say, and no number that tables have: noise, and a line a metric."""
    studies = _studies(collection, findings)
    lines: list[Text] = [f"{prefix}{said}" for _, tell, prefix in studies for said in tell.noise()]
    for metric in findings.shown:
        said = list(_of_metric(collection, findings, metric))
        if said:
            lines.append((strong(metrics.display(metric)), f": {' '.join(said)}"))
    return lines


def _of_metric(collection: Collection, findings: ReportFindings, metric: str) -> Iterator[str]:
    first = list(best_sentence(collection, findings, metric))
    for answered, tell, prefix in _studies(collection, findings):
        if metric not in answered.analysis.by_metric:
            continue
        is_primary = metric == answered.primary
        parts = first if is_primary else [*tell.counts(metric), *first]
        parts += [] if is_primary else tell.detectable(metric)
        first = []
        if parts:
            yield f"{prefix}{'; '.join(parts)}."
        if not is_primary:
            yield from [*tell.trends(metric), *tell.effects(metric)]


def _studies(
    collection: Collection, findings: ReportFindings
) -> Iterator[tuple[Answered, Teller, str]]:
    """Each sweep with what tells of it, and its name where there are several."""
    several = len(findings.answered) > 1
    for answered in findings.answered:
        prefix = f"{answered.study.name}: " if several else ""
        yield answered, Teller(collection, findings, answered), prefix
