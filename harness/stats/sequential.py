"""Seeds until decided: which comparisons of a sweep are open after each look, and their tests.

A function of the values alone, so whoever has the same records takes up the same sweep.  A
comparison of the primary metric stops where it is significant, where its interval lies within the
margin, or where neither is likely any more; its point then gets no further seeds.  Slopes are
tested at every look and keep no point open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from scipy import special

from harness.stats.spending import Looks
from harness.stats.tests import ALPHA, Asked, ContrastTest, Judged, holm, quantile

HOPELESS = 0.10
"""Conditional power below which no further seeds are spent on a comparison."""

Seeds = Mapping[int, Sequence[int]]
"""Point -> its seeds."""


class ComparisonState(Enum):
    """How a comparison stands."""

    OPEN = "open"
    SIGNIFICANT = "significant"
    WITHIN = "within the margin"
    HOPELESS = "given up"
    LAST = "undecided at the last look"
    UNTESTED = "nothing to test"


@dataclass(frozen=True)
class Followed:
    """One comparison or slope up to the look at which it was closed, or the last one."""

    standing: ComparisonState
    look: int
    test: ContrastTest | None
    overall: float = 1.0
    """The least error in all for which it was significant at some look."""
    power: float | None = None
    """Conditional power: chance that the last look decides, should the trend go on."""


@dataclass(frozen=True)
class LookTaken:
    """One look that was complete."""

    seeds: int
    open: int
    """Comparisons that were open before it."""
    runs: int
    """Runs of all points together."""
    closed: Mapping[Asked, ComparisonState]


@dataclass(frozen=True)
class Course:
    """How far a sweep has come."""

    schedule: Looks
    looks: tuple[LookTaken, ...]
    standings: Mapping[Asked, Followed]
    """Comparisons (pairs of points) and slopes (numbers of lines)."""
    seen: Mapping[int, tuple[int, ...]]
    """Point -> seeds at the last complete look; all that may be judged."""
    wanted: Mapping[int, tuple[int, ...]]
    """Point -> seeds it is to have for the look to come, or has in the end."""

    @property
    def over(self) -> bool:
        """Whether there is no further look."""
        return self.seen == self.wanted

    def level(self, alpha: float) -> float:
        """Nominal level of the last complete look for an error of `alpha` in all."""
        return self.schedule.level(max(0, len(self.looks) - 1), alpha)

    def overall(self, p: float) -> float:
        """What a p-value at the last complete look is worth; see `Looks.overall`."""
        return self.schedule.overall(max(0, len(self.looks) - 1), p)

    @property
    def judged(self) -> dict[Asked, Judged]:
        """Every comparison and slope of the primary metric, by the look that it stopped at."""
        tested = {key: each for key, each in self.standings.items() if each.test is not None}
        known = {key: each for key, each in tested.items() if _p(each.test) is not None}
        adjusted = holm([each.overall for each in known.values()])
        found = dict(zip(known, adjusted, strict=True))
        made = {}
        for key, each in tested.items():
            assert each.test is not None
            test = replace(each.test, level=self.schedule.level(each.look, ALPHA))
            level = self.schedule.level(each.look, ALPHA / max(1, len(known)))
            made[key] = Judged(test, found.get(key), len(known), level)
        return made


Measure = Callable[[Seeds], Mapping[Asked, ContrastTest | None]]
"""The tests of the primary metric on these seeds of each point: comparisons, and slopes."""


@dataclass
class _State:
    """What is carried from look to look."""

    seeds: dict[int, int]
    """Point -> how many it has."""
    standings: dict[Asked, Followed] = field(default_factory=dict)
    looks: list[LookTaken] = field(default_factory=list)


def follow(
    measure: Measure,
    pairs: Sequence[tuple[int, int]],
    order: Sequence[int],
    schedule: Looks,
    *,
    points: Sequence[int],
    complete: Callable[[Seeds], bool],
    margin: float | None = None,
) -> Course:
    """Go from look to look as far as the values reach.

    Args:
        pairs: (point, its baseline), each of which may be open.
        order: the seeds, in the order in which they are run.
        complete: whether all of these seeds have ended.
        margin: of the primary metric, in the unit of the records.
    """
    state = _State(dict.fromkeys(points, schedule.counts[0]))
    seen: dict[int, tuple[int, ...]] = {}
    for number, count in enumerate(schedule.counts):
        live = [pair for pair in pairs if _is_open(state.standings.get(pair))]
        if number:
            state.seeds |= {point: count for pair in live for point in pair}
        wanted = {point: tuple(order[:have]) for point, have in state.seeds.items()}
        if not live and number:
            break
        if not complete(wanted):
            return Course(schedule, tuple(state.looks), state.standings, seen, wanted)
        _look(state, measure(wanted), live, number, schedule, margin)
        seen = wanted
    return Course(schedule, tuple(state.looks), state.standings, seen, seen)


def _is_open(found: Followed | None) -> bool:
    return found is None or found.standing is ComparisonState.OPEN


def _look(
    state: _State,
    tests: Mapping[Asked, ContrastTest | None],
    live: Sequence[tuple[int, int]],
    number: int,
    schedule: Looks,
    margin: float | None,
) -> None:
    """Test what is open, and close what is decided or hopeless."""
    for key, test in tests.items():
        if isinstance(key, tuple) and key not in live:
            continue
        before = state.standings.get(key)
        p = _p(test)
        overall = 1.0 if p is None else schedule.overall(number, p)
        overall = min(overall, 1.0 if before is None else before.overall)
        state.standings[key] = Followed(ComparisonState.OPEN, number, test, overall)
    known = [key for key, each in state.standings.items() if _p(each.test) is not None]
    adjusted = dict(zip(known, holm([state.standings[key].overall for key in known]), strict=True))
    left = max(1, sum(p >= ALPHA for p in adjusted.values()))
    closed: dict[Asked, ComparisonState] = {}
    for key in live:
        each = state.standings.get(key, Followed(ComparisonState.OPEN, number, None))
        hope = _power(each.test, number, schedule, ALPHA / left, margin)
        standing = _standing(each, adjusted.get(key), number, schedule, margin, hope)
        state.standings[key] = replace(each, standing=standing, power=hope)
        if standing is not ComparisonState.OPEN:
            closed[key] = standing
    count = schedule.counts[number]
    state.looks.append(LookTaken(count, len(live), sum(state.seeds.values()), closed))


def _standing(
    each: Followed,
    adjusted: float | None,
    number: int,
    schedule: Looks,
    margin: float | None,
    hope: float | None,
) -> ComparisonState:
    if each.test is None:
        return ComparisonState.UNTESTED
    if adjusted is not None and adjusted < ALPHA:
        return ComparisonState.SIGNIFICANT
    if margin is not None and _inside(each.test, schedule.level(number, ALPHA), margin):
        return ComparisonState.WITHIN
    if number == len(schedule.counts) - 1:
        return ComparisonState.LAST
    return (
        ComparisonState.HOPELESS if hope is not None and hope < HOPELESS else ComparisonState.OPEN
    )


def _inside(test: ContrastTest, level: float, margin: float) -> bool:
    interval = replace(test, level=level).interval
    return interval is not None and -margin < interval[0] and interval[1] < margin


def _p(test: ContrastTest | None) -> float | None:
    return None if test is None else test.p


def _power(
    test: ContrastTest | None,
    number: int,
    schedule: Looks,
    alpha: float,
    margin: float | None,
) -> float | None:
    """Chance that the last look decides, one way or the other, should the trend go on.

    The mean over all seeds is then normal about the present one: the seeds so far are given.
    """
    have, most = schedule.counts[number], schedule.counts[-1]
    if test is None or test.error is None or have == most:
        return None
    square = (1 - test.share) * test.error**2 * have
    items, df = test.share * test.error**2, test.df * (most - 1) / (have - 1)
    error, step = math.sqrt(square / most + items), math.sqrt(square * (most - have)) / most
    last = len(schedule.counts) - 1
    edge = error * quantile(df, 1 - schedule.level(last, alpha))
    found = special.ndtr((-edge - test.estimate) / step)
    found += special.ndtr((test.estimate - edge) / step)
    room = -1.0
    if margin is not None:
        room = margin - error * quantile(df, 1 - schedule.level(last, ALPHA))
    if room > 0:
        found += special.ndtr((room - test.estimate) / step)
        found -= special.ndtr((-room - test.estimate) / step)
    return min(1.0, float(found))
