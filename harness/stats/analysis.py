"""Everything that the runs of one sweep allow to be said, by one model a metric.

Owns which tests are made and which of them are one family under Holm's correction:

- primary: the comparisons and trends of the primary metric, which a sweep declares beforehand;
- secondary: those of all other metrics, a family of their own;
- without a primary metric all of them are one family;
- main effects and interactions: two families again, that of the primary metric and that of the
  others;
- the best of a metric and what is enough: simultaneous over the points of that metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.stats.best import Best, Enough, best_of, enough
from harness.stats.effects import Effect
from harness.stats.layout import Contrast, ItemSpread, Layout, Values
from harness.stats.power import detectable
from harness.stats.tests import ContrastTest, Judged, Model, difference, judge, slope


@dataclass(frozen=True)
class Measured:
    """One metric of a sweep."""

    name: str
    values: Values
    higher_is_better: bool = True
    items: ItemSpread | None = None

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.higher_is_better else -1


def comparable(point: int, reference: int) -> str | None:
    """Every two points may be compared."""
    return None


@dataclass(frozen=True)
class Plan:
    """What a sweep asks, fixed before its first run."""

    comparisons: Sequence[tuple[int, int]] = ()
    """(point, the baseline it is compared with)."""
    lines: Sequence[Mapping[int, float]] = ()
    """Points along an ordered axis, each with its place on it."""
    effects: Sequence[Effect] = ()
    primary: str | None = None
    margin: float | None = None
    """Loss of the primary metric that does not matter, in the unit of the records."""
    cost: Mapping[int, float] = field(default_factory=dict)
    """What a point costs; the cheapest that is enough is looked for."""
    barred: Callable[[int, int], str | None] = comparable
    """Why two points must not be compared (other numerics), or None."""


@dataclass(frozen=True)
class MetricAnalysis:
    """What is said of one metric."""

    name: str
    primary: bool
    comparisons: Mapping[tuple[int, int], Judged]
    trends: Mapping[int, Judged]
    """Number of the line -> its slope."""
    effects: Mapping[int, Judged]
    """Number of the effect -> its size."""
    best: Best | None
    enough: Enough | None
    detectable: float | None
    noisy: tuple[int, ...]
    """Points far noisier than the others, judged by their own seeds alone."""


@dataclass(frozen=True)
class Analysis:
    """Of every metric, in the order given."""

    by_metric: Mapping[str, MetricAnalysis]
    sizes: Mapping[bool, int]
    """Whether primary -> comparisons and trends in that family."""


def analyse(measured: Sequence[Measured], plan: Plan) -> Analysis:
    """Fit one model a metric and judge everything that `plan` asks."""
    models = {each.name: Model(Layout(each.values), each.items) for each in measured}
    tests: dict[bool, dict[tuple[str, str, object], ContrastTest]] = {True: {}, False: {}}
    effects: dict[bool, dict[tuple[str, str, object], ContrastTest]] = {True: {}, False: {}}
    for each in measured:
        model, first = models[each.name], each.name == plan.primary
        for kind, key, contrast in _contrasts(model, plan):
            test = None if _barred(contrast, plan) else model.test(contrast)
            if test is not None:
                family = effects if kind == _EFFECT else tests
                family[first][each.name, kind, key] = test
    judged: dict[tuple[str, str, object], Judged] = {}
    for family in (*tests.values(), *effects.values()):
        judged |= judge(family)
    return Analysis(
        {each.name: _of_metric(each, models[each.name], plan, judged) for each in measured},
        {first: sum(test.p is not None for test in tests[first].values()) for first in tests},
    )


_COMPARISON, _TREND, _EFFECT = "comparison", "trend", "effect"


def _contrasts(model: Model, plan: Plan) -> list[tuple[str, object, Contrast]]:
    there = model.layout.values
    found: list[tuple[str, object, Contrast]] = [
        (_COMPARISON, pair, difference(*pair)) for pair in plan.comparisons
    ]
    for number, line in enumerate(plan.lines):
        known = {point: place for point, place in line.items() if point in there}
        if len(known) >= FEWEST:
            found.append((_TREND, number, slope(known)))
    found += [(_EFFECT, number, each.contrast) for number, each in enumerate(plan.effects)]
    return found


FEWEST = 3
"""The fewest levels of an axis that a trend can be seen along."""


def _barred(contrast: Contrast, plan: Plan) -> bool:
    first, *rest = contrast
    return any(plan.barred(point, first) is not None for point in rest)


def _of_metric(
    each: Measured, model: Model, plan: Plan, judged: Mapping[tuple[str, str, object], Judged]
) -> MetricAnalysis:
    def of_kind(kind: str, keys: Sequence[object]) -> dict[object, Judged]:
        return {key: judged[place] for key in keys if (place := (each.name, kind, key)) in judged}

    points = list(model.layout.points)
    open_ = all(plan.barred(point, points[0]) is None for point in points[1:])
    best = best_of(model, points, each.sign) if open_ else None
    first = each.name == plan.primary
    asked = first and plan.margin is not None and best is not None
    comparisons = of_kind(_COMPARISON, list(plan.comparisons))
    return MetricAnalysis(
        name=each.name,
        primary=first,
        comparisons=comparisons,  # type: ignore[arg-type]
        trends=of_kind(_TREND, range(len(plan.lines))),  # type: ignore[arg-type]
        effects=of_kind(_EFFECT, range(len(plan.effects))),  # type: ignore[arg-type]
        best=best,
        enough=enough(best, model, plan.cost, plan.margin, each.sign) if asked else None,  # type: ignore[arg-type]
        detectable=detectable(comparisons.values()),
        noisy=model.noisy,
    )
