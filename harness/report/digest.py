"""The answer at the top of a report: a few sentences that say what the whole comes to."""

from __future__ import annotations

from collections.abc import Sequence

from harness import metrics
from harness.report.sentences import Teller, best_sentence
from harness.results.collect import Collection
from harness.results.contrast import listed
from harness.results.findings import Answered, ReportFindings


def digest(collection: Collection, findings: ReportFindings) -> list[str]:
    """The verdict of each sweep, what else differs, and what could not have been seen."""
    said = []
    for answered in findings.answered:
        prefix = f"{answered.study.name}: " if len(findings.answered) > 1 else ""
        own = _of_sweep(collection, findings, answered)
        said += [f"{prefix}{sentence}" for sentence in own]
    if not said:
        quality = [metric for metric in findings.shown if not metrics.is_cost(metric)]
        said = [words for m in quality[:2] for words in best_sentence(collection, findings, m)]
    return said or ["Nothing to test: no two points of the sweep have a number to compare."]


def warnings(collection: Collection, findings: ReportFindings) -> list[str]:
    """What stands against a conclusion, sweep by sweep."""
    said = list(findings.notes)
    for answered in findings.answered:
        said += Teller(collection, findings, answered).guards()
    return said


def _of_sweep(collection: Collection, findings: ReportFindings, answered: Answered) -> list[str]:
    tell, primary = Teller(collection, findings, answered), answered.primary
    secondary = [metric for metric in answered.analysis.by_metric if metric != primary]
    said = []
    if primary is not None:
        said += tell.enough()
        said += tell.differences(primary)
        said += tell.trends(primary)
        said += tell.effects(primary)
    said += _others(tell, secondary, answered)
    said += _detectable(tell, primary, secondary)
    if primary is None and said and answered.study.show.primary is None:
        said.append(
            "No primary metric is declared: all metrics are one family, and no point is called "
            'enough; Show(primary="test/mean_recall", margin=2.0) in the sweep file declares one.'
        )
    return said


def _others(tell: Teller, secondary: Sequence[str], answered: Answered) -> list[str]:
    """The secondary metrics, those that differ first, in one sentence each."""
    known = {metric: tell.differing(metric) for metric in secondary}
    differing = [metric for metric, found in known.items() if found]
    alike = [metric for metric, found in known.items() if found is False]
    mute = [metric for metric in secondary if tell.untested(metric)]
    if not differing and not alike and not mute:
        return []
    tests = answered.analysis.sizes[False]
    which = "Secondary metrics" if answered.primary is not None else "All metrics"
    parts = [tell.counts(metric) for metric in differing]
    if alike:
        parts.append(f"no significant difference in {_any_of(alike)}")
    if mute:
        parts.append(f"nothing to test in {_any_of(mute)}")
    return [f"{which} (Holm, {tests} test{'' if tests == 1 else 's'}): {'; '.join(parts)}."]


def _any_of(names: Sequence[str]) -> str:
    return listed([metrics.display(name) for name in names], "or")


def _detectable(tell: Teller, primary: str | None, secondary: Sequence[str]) -> list[str]:
    own = "" if primary is None else tell.detectable([primary])
    rest = tell.detectable(secondary)
    if not own and not rest:
        return []
    parts = [f"{own} of {metrics.display(primary)}"] if own and primary is not None else []
    if rest:
        parts.append(f"{rest} of the {'other' if parts else 'shown'} metrics")
    return [f"Smallest detectable difference (80 % power, after Holm): {listed(parts)}."]
