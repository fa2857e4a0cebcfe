"""Everything that the runs of one sweep allow to be said, by one model a metric.

Owns which tests are made and which of them are one family under Holm's correction:

- primary: the comparisons and trends of the primary metric, which a sweep declares beforehand;
- secondary: those of all other metrics, a family of their own;
- without a primary metric all of them are one family;
- main effects and interactions: two families again, that of the primary metric and that of the
  others;
- the best of a metric and what is enough: simultaneous over the points of that metric.

Of a sweep that is looked at several times, the primary family is that of `sequential.Course`, and
all others are judged at the last look alone, at the level of that look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.stats.best import Best, Enough, best_of, enough
from harness.stats.effects import Effect
from harness.stats.layout import Contrast, ItemSpread, Layout, Values
from harness.stats.power import detectable
from harness.stats.sequential import Course
from harness.stats.tests import (
    ALPHA,
    Asked,
    ContrastTest,
    Judged,
    MixedModel,
    Noise,
    difference,
    judge,
    noise_of,
    slope,
)


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
    points: tuple[int, ...]
    """Points with a value."""


@dataclass(frozen=True)
class Analysis:
    """Of every metric, in the order given."""

    by_metric: Mapping[str, MetricAnalysis]
    sizes: Mapping[bool, int]
    """Whether primary -> comparisons and trends in that family."""
    noise: Noise
    """What secondary metrics show together."""


_Tests = dict[tuple[str, Asked], ContrastTest]
_Results = Mapping[tuple[str, Asked], Judged]
"""(metric, what is tested) -> the test."""


def analyse(measured: Sequence[Measured], plan: Plan, course: Course | None = None) -> Analysis:
    """Fit one model a metric and judge everything that `plan` asks.

    Args:
        measured: with a course, the seeds of its last complete look.
        course: of the primary metric, where the sweep is looked at several times.
    """
    layouts = [Layout(each.values) for each in measured]
    noise = _noise(layouts, plan.primary)
    models = {
        each.name: MixedModel(layout, each.items, None if each.name == plan.primary else noise)
        for each, layout in zip(measured, layouts, strict=True)
    }
    effects: dict[Asked, Contrast] = {
        number: effect.contrast for number, effect in enumerate(plan.effects)
    }
    families: dict[bool, _Tests] = {True: {}, False: {}}
    of_effects: dict[bool, _Tests] = {True: {}, False: {}}
    for each in measured:
        model, first = models[each.name], each.name == plan.primary
        families[first] |= _tests(each.name, model, plan, _main_contrasts(model, plan))
        of_effects[first] |= _tests(each.name, model, plan, effects)
    judged = _judge(families[True], course) | _judge(families[False], course)
    of_effect = _judge(of_effects[True], course) | _judge(of_effects[False], course)
    if course is not None and plan.primary is not None:
        judged |= {(plan.primary, asked): each for asked, each in course.judged.items()}
    return Analysis(
        {
            each.name: _of_metric(each, models[each.name], plan, judged, of_effect, course)
            for each in measured
        },
        {
            first: sum(t.error is not None for t in family.values())
            for first, family in families.items()
        },
        noise,
    )


def _noise(layouts: Sequence[Layout], primary: str | None) -> Noise:
    """Of secondary metrics; the model of the primary one knows nothing of the others.

    Points are doubted in secondary metrics alone: where none is primary, all carry the verdict.
    """
    found = noise_of(layouts)
    return found if primary is not None else Noise(found.noisy)


def contrasts_of(measured: Measured, plan: Plan) -> dict[Asked, ContrastTest]:
    """The comparisons and slopes of one metric by itself, not judged yet."""
    model = MixedModel(Layout(measured.values), measured.items)
    found = _tests(measured.name, model, plan, _main_contrasts(model, plan))
    return {asked: test for (_, asked), test in found.items()}


def _judge(family: _Tests, course: Course | None) -> dict[tuple[str, Asked], Judged]:
    """The family by itself, at the level of the last look if there are several."""
    if course is None:
        return judge(family)
    own = {key: replace(test, level=course.level(ALPHA)) for key, test in family.items()}
    return judge(own, course.overall, course.level)


def _main_contrasts(model: MixedModel, plan: Plan) -> dict[Asked, Contrast]:
    found: dict[Asked, Contrast] = {pair: difference(*pair) for pair in plan.comparisons}
    for number, line in enumerate(plan.lines):
        known = {p: place for p, place in line.items() if p in model.layout.values}
        if len(known) >= FEWEST:
            found[number] = slope(known)
    return found


def _tests(
    metric: str, model: MixedModel, plan: Plan, contrasts: Mapping[Asked, Contrast]
) -> _Tests:
    return {
        (metric, key): test
        for key, contrast in contrasts.items()
        if not _barred(contrast, plan) and (test := model.test(contrast)) is not None
    }


FEWEST = 3
"""The fewest levels of an axis that a trend can be seen along."""


def _barred(contrast: Contrast, plan: Plan) -> bool:
    first, *rest = contrast
    return any(plan.barred(point, first) is not None for point in rest)


@dataclass(frozen=True)
class UnderTrained:
    """Points of more capacity fit the training set worse: under-trained, not over-sized."""

    loss: ContrastTest
    """Slope of the final training loss on the line's places."""
    metric: ContrastTest
    """Slope of the metric."""
    falls: bool
    """Whether the metric falls significantly; else capacity may only gain from more training."""


def under_trained(loss: Values, metric: Measured, line: Mapping[int, float]) -> UnderTrained | None:
    """Whether training loss rises significantly along a line of rising capacity, and whether the
    metric falls with it; None where the loss does not rise, or where nothing can be said.

    The order of the means alone is no sign: a healthy sweep orders loss and metric alike.

    Args:
        line: point -> logarithm of its cost.
    """
    losses, model = MixedModel(Layout(loss)), MixedModel(Layout(metric.values), metric.items)
    known = {p: at for p, at in line.items() if loss.get(p) and metric.values.get(p)}
    if len(known) < FEWEST:
        return None
    rise, fall = losses.test(slope(known)), model.test(slope(known))
    if rise is None or fall is None or rise.p is None or fall.p is None:
        return None
    if rise.p >= ALPHA or rise.estimate <= 0:
        return None
    return UnderTrained(rise, fall, fall.p < ALPHA and metric.sign * fall.estimate < 0)


def _of_metric(
    each: Measured,
    model: MixedModel,
    plan: Plan,
    judged: _Results,
    of_effect: _Results,
    course: Course | None,
) -> MetricAnalysis:
    name, first = each.name, each.name == plan.primary
    points = list(model.layout.points)
    barred = _barred(dict.fromkeys(points, 0.0), plan) if points else True
    wanted = dict.fromkeys(points, model.layout.seeds) if course is None else course.seen
    whole = [p for p in points if len(model.layout.values[p]) == len(wanted[p])]
    alpha = ALPHA if course is None else course.level(ALPHA)
    best = None if barred else best_of(model, whole, each.sign, alpha)
    margin = plan.margin if first and not barred else None
    comparisons = {p: judged[name, p] for p in plan.comparisons if (name, p) in judged}
    return MetricAnalysis(
        name=name,
        primary=first,
        comparisons=comparisons,
        trends={n: judged[name, n] for n in range(len(plan.lines)) if (name, n) in judged},
        effects={n: of_effect[name, n] for n in range(len(plan.effects)) if (name, n) in of_effect},
        best=best,
        enough=None
        if margin is None
        else enough(model, points, plan.cost, margin, each.sign, alpha),
        detectable=detectable(comparisons.values()),
        noisy=model.noisy,
        points=model.layout.points,
    )
