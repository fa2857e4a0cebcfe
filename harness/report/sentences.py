"""The statistics in words, and no more than the tests allow.

Plain text without markup; each format escapes it.  Nothing is computed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from harness import metrics
from harness.document import text
from harness.report.tables import decimals_of, difference_text, estimate_text
from harness.results.collect import Collection
from harness.results.comparisons import Comparison, Verdict
from harness.results.contrast import contrast_of, listed
from harness.results.findings import Answered, ReportFindings, Trend, trends_of
from harness.results.guards import TrainingLoss
from harness.stats.effects import Effect
from harness.stats.tests import Judged

#: Differences, or rows, that a sentence still names one by one.
_MANY = 6
#: Lines of one metric past which their slopes become one sentence.
_LINES = 3


class Teller:
    """Sentences on one sweep of a collection."""

    def __init__(
        self, collection: Collection, findings: ReportFindings, answered: Answered
    ) -> None:
        self._collection, self._findings, self._answered = collection, findings, answered

    # ----------------------------------------------------------------------- the primary metric

    def enough(self) -> list[str]:
        """Which point is enough on the primary metric, and which cheaper one may be."""
        primary = self._answered.primary
        found = None if primary is None else self._answered.of(primary).enough
        if primary is None or found is None or self._answered.margin is None:
            return []
        unit, name = _unit(primary), metrics.display(primary)
        within = f"margin {self._answered.margin:g}"
        said = []
        if found.point is not None:
            loss = text.number(max(0.0, found.loss * metrics.scale(primary)), 1)
            said.append(
                f"{_capital(self._label(found.point))} is enough: at most {loss} {unit} of {name} "
                f"below the best of the others ({within}){self._share_of_cost(found.point)}."
            )
        if found.open is not None:
            lost = text.number(found.open_loss * metrics.scale(primary), 1)
            more = (
                "more seeds alone would not tell"
                if found.seeds is None
                else f"about {found.seeds} seeds would tell"
            )
            whether = "is enough" if found.point is None else "is enough too"
            said.append(
                f"Cannot tell whether {self._label(found.open)} {whether}: it may lose up to "
                f"{lost} {unit} of {name} ({within}); {more}."
            )
        if not said:
            said.append(f"No point can be called enough on {name} ({within}).")
        return said

    def _share_of_cost(self, point: int) -> str:
        """`, with 38 % of the parameters of text layers 12`."""
        cost = self._answered.study.show.cost
        costs = {
            each: min(cell.values.values())
            for each in self._answered.study.points
            if (cell := self._findings.cells.get((each, cost))) is not None and cell.values
        }
        most = max(costs, key=lambda each: costs[each])
        if costs[point] >= costs[most]:
            return ""
        share = text.number(100 * costs[point] / costs[most], 0)
        return f", with {share} % of the {metrics.display(cost)} of {self._label(most)}"

    def _label(self, point: int) -> str:
        row, collection = self._collection.points[point], self._collection
        if row.label in collection.sweep.show.names:
            return row.label
        axes = [axis for axis in collection.varying_axes if axis in row.axes]
        named = [f"{collection.axis_name(axis)} {text.plain(row.axes[axis])}" for axis in axes]
        return listed(named) or row.label

    # ----------------------------------------------------------------------- differences

    def differences(self, metric: str) -> list[str]:
        """What differs from the baseline in one metric, with amounts, and what does not."""
        made = self._comparisons(metric)
        if not made:
            return []
        decided = [c for c in made if c.decided]
        better = sum(c.verdict is Verdict.BETTER for c in made)
        name = _capital(metrics.display(metric))
        head = f"{name}: {better} of {len(made)} better"
        worse = len(decided) - better
        if worse:
            head += f", {worse} worse"
        base = self._baseline(made)
        said = [f"{head}{base}{self._listing(decided)} ({self._family(made)})."]
        if not any(c.tested for c in made):
            said = [f"{name}: nothing to test."]
        elif not decided:
            said = [f"{name}: no significant difference{base} ({self._family(made)})."]
        rest = [c for c in made if c.verdict in {Verdict.LOST, Verdict.UNDECIDED}]
        if rest and decided:
            said.append(f"Not significant{self._listing(rest)}.")
        said += self._untold(made)
        return said

    def _untold(self, made: Sequence[Comparison]) -> list[str]:
        said = []
        alone = [c for c in made if c.verdict is Verdict.ONE_SEED]
        if alone:
            said.append(f"One seed says nothing of other seeds{self._listing(alone)}.")
        if any(c.verdict is Verdict.NO_SPREAD for c in made):
            said.append("All seeds agree exactly, so there is nothing to test.")
        for why in dict.fromkeys(c.barred for c in made if c.barred):
            barred = [c for c in made if c.barred == why]
            said.append(f"Not compared ({why}){self._listing(barred)}.")
        return said

    def _comparisons(self, metric: str) -> list[Comparison]:
        cells = [self._findings.cells.get((p, metric)) for p in self._answered.study.points]
        own = self._answered.study.baselines
        return [
            cell.comparison
            for cell in cells
            if cell is not None
            and cell.comparison is not None
            and own[cell.point] == cell.comparison.reference
        ]

    def _baseline(self, made: Sequence[Comparison]) -> str:
        olds = {self._contrast(c)[1] for c in made}
        return f" than {olds.pop()}" if len(olds) == 1 and any(c.decided for c in made) else (
            f" from {olds.pop()}" if len(olds) == 1 else " from its baseline"
        )  # fmt: skip

    def _contrast(self, comparison: Comparison) -> tuple[str, str]:
        points = self._collection.points
        base = points[comparison.reference]
        found = contrast_of(self._collection, points[comparison.point], base)
        return found.short, found.old

    def _listing(self, made: Sequence[Comparison]) -> str:
        if not made:
            return ""
        metric = made[0].metric
        if len(made) > _MANY:
            sizes = [c.mean * metrics.scale(metric) for c in made]
            least, most = (text.number(size, 1, sign=True) for size in (min(sizes), max(sizes)))
            return f": {len(made)} cases, {least} to {most} {_unit(metric)}"
        decimals = decimals_of_metric(self._collection, self._findings, metric)
        told = [f"{self._contrast(c)[0]} {difference_text(c, decimals)}" for c in made]
        return f": {listed(told)}"

    def _family(self, made: Sequence[Comparison]) -> str:
        family = next((c.judged.family for c in made if c.judged is not None), 0)
        return f"Holm, {_tests(family)}"

    def counts(self, metric: str) -> str:
        """`T2I R@1 3 of 4 better`."""
        made = self._comparisons(metric)
        better = sum(c.verdict is Verdict.BETTER for c in made)
        worse = sum(c.verdict is Verdict.WORSE for c in made)
        parts = [f"{n} {word}" for n, word in ((better, "better"), (worse, "worse")) if n]
        return f"{metrics.display(metric)} {' and '.join(parts)} of {len(made)}"

    def differing(self, metric: str) -> bool | None:
        """Whether anything differs significantly; None where nothing could be tested."""
        made = [c for c in self._comparisons(metric) if c.tested]
        return any(c.decided for c in made) if made else None

    def untested(self, metric: str) -> bool:
        """Whether points were compared and none of the differences could be tested."""
        made = self._comparisons(metric)
        return bool(made) and not any(c.tested for c in made)

    # ----------------------------------------------------------------------- trends

    def trends(self, metric: str) -> list[str]:
        """The slopes of one metric along its lines."""
        found = [trend for trend in trends_of(self._answered) if trend.metric == metric]
        if len(found) > _LINES:
            return [self._many_trends(found)]
        return [self._trend(trend) for trend in found]

    def _trend(self, trend: Trend) -> str:
        collection, metric = self._collection, trend.metric
        axis, name = collection.axis_name(trend.line.axis), metrics.display(metric)
        held = [
            f"{collection.axis_name(path)} {text.plain(value)}"
            for path, value in trend.line.held.items()
        ]
        where = f"At {listed(held)}, {name}" if held else _capital(name)
        test = trend.judged.test
        per = f"per doubling of {axis}" if trend.line.doubling else f"per step of {axis}"
        if test.interval is None:
            return f"{where}: the slope along {axis} has no spread over seeds to be tested by."
        scale = metrics.scale(metric)
        size = text.number(test.estimate * scale, 1, sign=True)
        low, high = (text.number(bound * scale, 1) for bound in test.interval)
        verdict = "significant" if trend.judged.significant else "not significant"
        said = (
            f"{where} changes by {size} {_unit(metric)} [{low}, {high}] {per} "
            f"({verdict}, Holm, {_tests(trend.judged.family)})"
        )
        if trend.left_out:
            said += f"; without {axis} {listed([f'{level:g}' for level in trend.left_out])}"
        return f"{said}."

    def _many_trends(self, trends: Sequence[Trend]) -> str:
        axis = self._collection.axis_name(trends[0].line.axis)
        name = _capital(metrics.display(trends[0].metric))
        seen = [trend for trend in trends if trend.judged.significant]
        up = sum(trend.rising for trend in seen)
        where = listed([self._collection.axis_name(path) for path in trends[0].line.held])
        return (
            f"{name} rises with {axis} at {up} and falls at {len(seen) - up} of {len(trends)} "
            f"values of {where} (significant slopes, Holm, {_tests(trends[0].judged.family)})."
        )

    # ----------------------------------------------------------------------- effects

    def effects(self, metric: str) -> list[str]:
        """Main effects and interactions of one metric, the significant ones with their amounts."""
        found = self._answered.of(metric).effects
        if not found:
            return []
        name = metrics.display(metric)
        main = [(e, found[n]) for n, e in enumerate(self._answered.effects) if n in found]
        tests = _tests(next(iter(found.values())).family)
        parts = [
            self._effect(effect, judged, metric)
            for effect, judged in main
            if len(effect.parts) == 1
        ]
        said = [f"Main effects on {name} ({tests} with interactions, Holm): {'; '.join(parts)}."]
        crossed = [pair for pair in main if len(pair[0].parts) == 2]
        decided = [self._effect(e, j, metric) for e, j in crossed if j.significant]
        if decided:
            said.append(f"Interactions on {name}: {'; '.join(decided)}.")
        elif crossed:
            said.append(f"No significant interaction on {name} ({len(crossed)} tested).")
        return said

    def _effect(self, effect: Effect, judged: Judged, metric: str) -> str:
        parts = [
            f"{self._collection.axis_name(axis)} {_level(new)} against {_level(old)}"
            for axis, new, old in effect.parts
        ]
        scale, test = metrics.scale(metric), judged.test
        size = text.number(test.estimate * scale, 1, sign=True)
        if test.interval is not None:
            low, high = (text.number(bound * scale, 1) for bound in test.interval)
            size += f" [{low}, {high}]"
        star = " (significant)" if judged.significant else ""
        return f"{' x '.join(parts)} {size}{star}"

    # ----------------------------------------------------------------------- the design

    def detectable(self, of: Iterable[str]) -> str:
        """`4.3 points`, or the range over several metrics; empty where nothing can be found."""
        found = sorted(
            (self._answered.of(metric).detectable or 0.0) * metrics.scale(metric)
            for metric in of
            if self._answered.of(metric).detectable is not None
        )
        if not found:
            return ""
        ends = dict.fromkeys(text.number(effect, 1) for effect in (found[0], found[-1]))
        return f"{' to '.join(ends)} points"

    def guards(self) -> list[str]:
        """What stands against a conclusion."""
        said = [self._under_trained(each) for each in self._answered.under_trained]
        primary = self._answered.primary
        return said if primary is None else said + self.noisy(primary)

    def noisy(self, metric: str) -> list[str]:
        """Points whose runs vary far more than the others'."""
        return [
            f"{_capital(self._label(point))} varies far more over seeds than the other points in "
            f"{metrics.display(metric)}: its differences are judged by its own seeds alone."
            for point in self._answered.of(metric).noisy
        ]

    def _under_trained(self, each: TrainingLoss) -> str:
        axis = self._collection.axis_name(each.line.axis)
        losses = ", ".join(text.number(loss, 2) for loss in each.losses)
        levels = ", ".join(f"{row.axes[each.line.axis]:g}" for row in each.line.rows)
        seen = f"final contrastive loss {losses} at {axis} {levels}"
        if each.found.falls:
            return (
                f"Points of larger {axis} also fit the training set worse ({seen}): they are "
                "under-trained, not over-sized, so this sweep measures its training budget."
            )
        return f"Points of larger {axis} may still gain from more training ({seen})."


# --------------------------------------------------------------------------- best, and words


def best_sentence(collection: Collection, findings: ReportFindings, metric: str) -> list[str]:
    """Which point has the best mean, and which others cannot be told from it."""
    found = findings.contests.get(metric)
    cell = None if found is None else findings.cells[(found.leader, metric)]
    if found is None or cell is None or cell.estimate is None:
        return []
    decimals = decimals_of_metric(collection, findings, metric)
    label = collection.points[found.leader].label
    word = "Highest" if metrics.higher_is_better(metric) else "Lowest"
    said = f"{word} {metrics.display(metric)}: {estimate_text(cell.estimate, metric, decimals)}"
    said += f" ({label})"
    others = [p for p in found.candidates if p != found.leader]
    if not others:
        return [f"{said}, better than every other point."]
    if len(others) > _MANY:
        return [f"{said}; {len(others)} others cannot be told from the best."]
    names = [collection.points[point].label for point in others]
    return [f"{said}; cannot be told from the best: {'; '.join(names)}."]


def decimals_of_metric(collection: Collection, findings: ReportFindings, metric: str) -> int:
    """Decimals that the numbers of `metric` have in this report."""
    return decimals_of(findings.cells[(row.index, metric)] for row in collection.points)


def _unit(metric: str) -> str:
    unit = metrics.unit(metric)
    return "points" if unit == "%" else unit


def _tests(count: int) -> str:
    return f"{count} test{'' if count == 1 else 's'}"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _level(level: object) -> str:
    """A level of an effect, which is canonical JSON."""
    return text.plain(json.loads(str(level)))
