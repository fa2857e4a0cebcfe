"""The statistics in words, and no more than the tests allow.

Plain text without markup; each format escapes it.  Nothing is computed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness import metrics
from harness.document import text
from harness.report.effects_table import (
    effect_words,
    held_words,
    left_out_words,
    size_words,
    slope_words,
)
from harness.report.numbers import decimals_for, decimals_of, difference_text
from harness.results.collect import Collection
from harness.results.comparisons import Comparison, Verdict
from harness.results.contrast import contrast_of, listed, point_words, points_listed
from harness.results.findings import Answered, ReportFindings, Trend, trends_of
from harness.results.guards import TrainingLoss, runs_at_chance
from harness.results.questions import costs
from harness.stats.effects import Effect
from harness.stats.power import seeds_to_find
from harness.stats.tests import Judged

_unit = metrics.unit_of_difference
#: Differences, or points, that a sentence still names one by one.
_MANY = 4
#: Lines of one metric past which their slopes become one sentence.
_LINES = 3


class Teller:
    """Sentences on one sweep of a collection."""

    def __init__(
        self, collection: Collection, findings: ReportFindings, answered: Answered
    ) -> None:
        self._collection, self._findings, self._answered = collection, findings, answered

    # ----------------------------------------------------------------------- what is enough

    def enough(self) -> list[str]:
        """Which point is enough on the primary metric, in one sentence."""
        primary = self._answered.primary
        found = None if primary is None else self._answered.of(primary).enough
        if primary is None or found is None or self._answered.margin is None:
            return []
        name, within = metrics.display(primary), f"margin {self._answered.margin:g}"
        if found.point is None:
            return [f"No point is shown to be enough on {name} ({within})."]
        loss = text.number(max(0.0, found.loss * metrics.scale(primary)), 1)
        label = self._label(found.point)
        if self._is_at_chance(found.point, primary):
            return [
                f"No point is called enough on {name} ({within}): {label} {_verb(label)} within "
                "it of the best, and at chance in every run."
            ]
        return [
            f"{_capital(label)} {_verb(label)} enough: at most {loss} {_unit(primary)} of {name} "
            f"below the best ({within}){self._share_of_cost(found.point)}."
        ]

    def _is_at_chance(self, point: int, metric: str) -> bool:
        """Whether every finished run of `point` is: what learnt nothing is enough for nothing."""
        done = [record for record in self._collection.of_point(point) if record.evaluation]
        return runs_at_chance(done, metric) == len(done)

    def undecided(self) -> list[str]:
        """What could not be decided on the primary metric, and how many seeds would."""
        primary = self._answered.primary
        if primary is None:
            return []
        return [*self._open_point(primary), *self._open_difference(primary)]

    def _open_point(self, primary: str) -> Iterator[str]:
        found = self._answered.of(primary).enough
        if found is None or found.open is None:
            return
        lost = text.number(found.open_loss * metrics.scale(primary), 1)
        label = self._label(found.open)
        whether = f"{_verb(label)} enough" + " too" * (found.point is not None)
        seeds = _seeds_would(found.seeds)
        yield f"whether {label} {whether} (up to {lost} {_unit(primary)} below the best; {seeds})"

    def _open_difference(self, primary: str) -> Iterator[str]:
        """The largest difference that is not significant, and may be as large as the margin."""
        made = [
            c
            for c in self._comparisons(primary)
            if c.tested and not c.decided and not self._is_small(c)
        ]
        if made:
            most = max(made, key=lambda c: abs(c.mean))
            assert most.judged is not None
            new, old = self._contrast(most)
            size = text.number(most.mean * metrics.scale(primary), 1, sign=True)
            seeds = _seeds_would(seeds_to_find(most.judged))
            seen = f"{size} {_unit(primary)} seen"
            yield f"whether {new} {_differs(new)} from {old} ({seen}; {seeds})"

    def _share_of_cost(self, point: int) -> str:
        """`, with 38 % of the parameters of 12 text layers`."""
        study, cost = self._answered.study, self._answered.study.show.cost
        known = costs(self._findings.cells, study.points, cost)
        most = max(known, key=lambda each: known[each])
        if known[point] >= known[most]:
            return ""
        share = text.number(100 * known[point] / known[most], 0)
        return f", with {share} % of the {metrics.display(cost)} of {self._label(most)}"

    def _label(self, point: int) -> str:
        return point_words(self._collection, self._collection.points[point])

    # ----------------------------------------------------------------------- differences

    def differences(self, metric: str) -> list[str]:
        """What differs from the baseline in one metric, with amounts, and what does not."""
        made = self._comparisons(metric)
        if not made:
            return []
        decided = [c for c in made if c.decided]
        name, base = _capital(metrics.display(metric)), self._baseline(made)
        said = [
            f"{name}: {_tally(decided)} of {len(made)} {_sides(decided)}{base}"
            f"{self._listing(decided)} ({self._family(made)})."
        ]
        if not any(c.tested for c in made):
            said = [f"{name}: nothing to test."]
        elif not decided:
            most = max((c for c in made if c.tested), key=lambda c: abs(c.mean))
            largest = f"; largest{self._listing([most])} {_unit(metric)}"
            largest = "" if len(made) == 1 else largest
            said = [f"{name}: no significant difference{base} ({self._family(made)}){largest}."]
            if metric == self._answered.primary and all(map(self._is_small, made)):
                every = "Every 95 % interval lies" if len(made) > 1 else "Its 95 % interval lies"
                said.append(f"{every} within the margin of {self._answered.margin:g}.")
        return said + self._untold(made)

    def _is_small(self, comparison: Comparison) -> bool:
        """Whether a difference over seeds in the primary metric is smaller than the margin."""
        margin, test = self._answered.margin, comparison.judged and comparison.judged.test
        if margin is None or not test or test.interval is None:
            return False
        return max(map(abs, test.interval)) * metrics.scale(comparison.metric) <= margin

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
        word = "than" if any(c.decided for c in made) else "from"
        return f" {word} {olds.pop()}" if len(olds) == 1 else f" {word} its baseline"

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
            return f": {least} to {most} {_unit(metric)}"
        decimals = decimals_of_metric(self._collection, self._findings, metric)
        told = [f"{self._contrast(c)[0]} {difference_text(c, decimals)}" for c in made]
        return f": {listed(told)}"

    def _family(self, made: Sequence[Comparison]) -> str:
        family = next((c.judged.family for c in made if c.judged is not None), 0)
        return f"Holm, {_tests(family)}"

    def counts(self, metric: str) -> list[str]:
        """`2 of 4 better (1 text layer and 2 text layers)`; the amounts are in the table."""
        made = [c for c in self._comparisons(metric) if c.tested]
        decided = [c for c in made if c.decided]
        if not made:
            return ["nothing to test"] if self._comparisons(metric) else []
        if not decided:
            return [f"no significant difference ({self._family(made)})"]
        names = [self._contrast(c)[0] for c in decided]
        which = f": {points_listed(names)}" if len(names) <= _MANY else ""
        tally = f"{_tally(decided)} of {len(self._comparisons(metric))} {_sides(decided)}{which}"
        return [f"{tally} ({self._family(made)})"]

    # ----------------------------------------------------------------------- trends

    def trends(self, metric: str) -> list[str]:
        """The significant slopes of one metric along its lines."""
        found = list(trends_of(self._answered, metric))
        kept = [trend for trend in found if trend.judged.significant]
        if len(found) > _LINES and kept:
            return [self._many_trends(found)]
        return [self._trend(trend) for trend in kept]

    def _trend(self, trend: Trend) -> str:
        collection, metric = self._collection, trend.metric
        slope = slope_words(collection, trend.line)
        said = (
            f"{_capital(metrics.display(metric))} changes by {size_words(trend.judged, metric)} "
            f"{_unit(metric)} {slope} (significant, Holm, {_tests(trend.judged.family)})"
        )
        return f"{said}{left_out_words(collection, trend)}."

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
        """The significant main effects and interactions of one metric; of the primary one also
        that there are none, and the largest."""
        found = self._answered.of(metric).effects
        told = [(e, found[n]) for n, e in enumerate(self._answered.effects) if n in found]
        kept = [(effect, judged) for effect, judged in told if judged.significant]
        name, unit = metrics.display(metric), _unit(metric)
        if not told or not (kept or metric == self._answered.primary):
            return []
        tests = f"Holm, {_tests(told[0][1].family)}"
        if not kept:
            most = max(told, key=lambda each: abs(each[1].test.estimate))
            return [
                f"No main effect or interaction on {name} is significant ({tests}); largest: "
                f"{self._effect(*most, metric)} {unit}."
            ]
        parts = "; ".join(self._effect(*each, metric) for each in kept[:_MANY])
        more = f" and {len(kept) - _MANY} more" if len(kept) > _MANY else ""
        return [f"Effects on {name} in {unit} (significant, {tests}): {parts}{more}."]

    def _effect(self, effect: Effect, judged: Judged, metric: str) -> str:
        kind = "interaction " * (len(effect.parts) > 1)
        return f"{kind}{effect_words(self._collection, effect)} {size_words(judged, metric)}"

    # ----------------------------------------------------------------------- the design

    def detectable(self, metric: str) -> list[str]:
        """`smallest detectable difference (80 % power) 4.3 points`; empty where none can be."""
        found = self._answered.of(metric).detectable
        if found is None:
            return []
        size = text.number(found * metrics.scale(metric), decimals_for(metric, [found]))
        return [f"smallest detectable difference (80 % power): {size} {_unit(metric)}"]

    def guards(self) -> list[str]:
        """What stands against a conclusion."""
        said = [self._under_trained(each) for each in self._answered.under_trained]
        primary = self._answered.primary
        return said if primary is None else said + self.noisy(primary)

    def noisy(self, metric: str) -> list[str]:
        """Points where `metric` varies far more than at the others, in one sentence."""
        found = self._answered.of(metric).noisy
        if not found:
            return []
        return [
            f"{self._several(found)}: {metrics.display(metric)} varies far more over seeds than at "
            "the other points, so these differences are judged by their own seeds alone."
        ]

    def noise(self) -> list[str]:
        """The same of the other metrics, which are looked at together."""
        noise = self._answered.analysis.noise
        said = {
            "far more over seeds than at the other points": noise.noisy,
            "perhaps more over seeds than at the other points": noise.doubtful,
        }
        others = "secondary metrics" if self._answered.primary else "the metrics"
        return [
            f"{self._several(points)}: {others} together vary {how}, so differences in these are "
            "judged by their own seeds alone, which finds large ones only."
            for how, points in said.items()
            if points
        ]

    def _several(self, points: Sequence[int]) -> str:
        labels = [self._label(point) for point in points]
        return _capital("; ".join(labels) if len(labels) <= _MANY else f"{len(labels)} points")

    def _under_trained(self, each: TrainingLoss) -> str:
        axis = self._collection.axis_name(each.line.axis)
        rise = f"As {axis} rise{_s(axis)}{held_words(self._collection, each.line)}, points"
        losses = ", ".join(text.number(loss, 2) for loss in each.losses)
        levels = ", ".join(f"{row.axes[each.line.axis]:g}" for row in each.line.rows)
        seen = f"final contrastive loss {losses} at {axis} {levels}"
        if each.found.falls:
            return (
                f"{rise} also fit the training set worse ({seen}): they are under-trained, not "
                "over-sized, so this sweep measures its training budget."
            )
        return f"{rise} may still gain from more training ({seen})."


# --------------------------------------------------------------------------- best, and words


def best_sentence(collection: Collection, findings: ReportFindings, metric: str) -> list[str]:
    """Which points cannot be told from the best one, of those that are compared with it."""
    found = findings.contests.get(metric)
    if found is None:
        return []
    word = "highest" if metrics.higher_is_better(metric) else "lowest"
    leader = point_words(collection, collection.points[found.leader])
    others = [p for p in found.candidates if p != found.leader]
    if not others:
        return [f"{word}: {leader}, better than every other point (95 %, in this metric)"]
    if len(others) == len(found.losses) - 1:
        return [f"{word}: {leader}, not distinguishable from any other point"]
    if len(others) > _MANY:
        return [f"{word}: {leader}, not distinguishable from {len(others)} others"]
    names = [point_words(collection, collection.points[point]) for point in others]
    return [f"{word}: {leader}, not distinguishable from {points_listed(names)}"]


def decimals_of_metric(collection: Collection, findings: ReportFindings, metric: str) -> int:
    """Decimals that the numbers of `metric` have in this report."""
    return decimals_of(findings.cells[(row.index, metric)] for row in collection.points)


def _tally(decided: Sequence[Comparison]) -> str:
    better = sum(c.verdict is Verdict.BETTER for c in decided)
    return f"{better}" if better or not decided else f"{len(decided)}"


def _sides(decided: Sequence[Comparison]) -> str:
    """`better`, `worse`, or `better, 2 worse`."""
    better = sum(c.verdict is Verdict.BETTER for c in decided)
    worse = len(decided) - better
    if not worse:
        return "better"
    return f"better, {worse} worse" if better else "worse"


def _seeds_would(seeds: int | None) -> str:
    none = "more seeds on the same test items would not tell"
    return none if seeds is None else f"about {seeds} seeds would tell"


def _s(axis: str) -> str:
    """Of a verb, by the name of an axis: `text layers rise`, `width rises`."""
    return "" if axis.endswith("s") and not axis.endswith("ss") else "s"


def _verb(words: str) -> str:
    return "are" if _is_plural(words) else "is"


def _differs(words: str) -> str:
    return "differ" if _is_plural(words) else "differs"


def _is_plural(words: str) -> bool:
    """`4 text layers`, and not `1 text layer`, `MLM weight 0.5` or two values."""
    return re.fullmatch(r"(?!1 )[\d,]+ [^,]*s", words) is not None and " and " not in words


def _tests(count: int) -> str:
    return f"{count} test{'' if count == 1 else 's'}"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
