"""One point against another on one metric: every interval there is, and what it allows to be said.

Owns the verdict: which of the intervals decides, after the correction for as many comparisons as
the table makes.  Pure; knows no file and no format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from harness import metrics
from harness.report.items import Crossed, bootstrap, crossed, mcnemar
from harness.report.outcomes import PictureScores
from harness.report.statistics import CONFIDENCE, Difference, holm, paired_difference

ALPHA = 1 - CONFIDENCE

ScoresBySeed = Mapping[int, PictureScores]


class Verdict(Enum):
    """What may be said of a difference."""

    BETTER = "better"
    WORSE = "worse"
    LOST = "lost in the correction"
    """The interval excludes zero, and the p-value corrected for all comparisons does not."""
    UNDECIDED = "no difference detectable"
    NO_SPREAD = "no spread"
    """All seeds differ by the same amount, so there is nothing to judge by."""
    ONE_SEED = "one seed"


class Over(Enum):
    """What an interval covers: the unit of an error bar."""

    BOTH = "seeds and test items"
    SEEDS = "seeds"
    ITEMS = "test items"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of `point` to `reference`, paired by seed and, where it can be, by item."""

    point: int
    reference: int
    metric: str
    wanted: int
    """Seeds that the sweep asks for."""
    seeds: Difference
    both: Crossed | None = None
    items: tuple[float, float] | None = None
    """Bootstrap interval over test items with these seeds' models as they are."""
    exact: Mapping[int, float] = field(default_factory=dict)
    """Seed -> p of McNemar's exact test, where items are answered rightly or wrongly."""
    adjusted: float | None = None
    """`p` after Holm's correction over `family` comparisons."""
    family: int = 0

    @property
    def mean(self) -> float:
        """Mean difference, in the unit of the records."""
        return self.seeds.mean

    @property
    def in_full(self) -> bool:
        """Whether it is over every seed that the sweep asks for."""
        return self.seeds.n == self.wanted

    @property
    def p(self) -> float | None:
        """Two-sided; None where the seeds give nothing to judge by."""
        if self.seeds.p is None:
            return None
        return self.seeds.p if self.both is None else self.both.p

    @property
    def interval(self) -> tuple[float, float, Over] | None:
        """The 95 % interval that is printed, the widest in scope that can be given."""
        if self.seeds.n == 1:
            return None if self.items is None else (*self.items, Over.ITEMS)
        if self.seeds.p is None or self.seeds.low is None or self.seeds.high is None:
            return None
        if self.both is not None:
            return self.both.low, self.both.high, Over.BOTH
        return self.seeds.low, self.seeds.high, Over.SEEDS

    @property
    def verdict(self) -> Verdict:
        """What the corrected test allows to be said."""
        if self.seeds.n == 1:
            return Verdict.ONE_SEED
        if self.p is None:
            return Verdict.NO_SPREAD
        if (self.p if self.adjusted is None else self.adjusted) < ALPHA:
            up = (self.mean > 0) == metrics.higher_is_better(self.metric)
            return Verdict.BETTER if up else Verdict.WORSE
        return Verdict.LOST if self.p < ALPHA else Verdict.UNDECIDED

    @property
    def decided(self) -> bool:
        """Whether the two can be told apart."""
        return self.verdict in {Verdict.BETTER, Verdict.WORSE}


def compare(
    point: int,
    reference: int,
    metric: str,
    values: tuple[Mapping[int, float], Mapping[int, float]],
    scores: tuple[ScoresBySeed, ScoresBySeed],
    wanted: int,
) -> Comparison | None:
    """The difference over the seeds that both have; None without one.

    Args:
        values, scores: by seed, of the point and of its reference.  Scores are used where every
            shared seed has them on both sides, of the same pictures.
    """
    difference = paired_difference(*values)
    if difference is None:
        return None
    found = Comparison(point, reference, metric, wanted, difference)
    if not scores[0] or not scores[1]:
        return found
    pairs = [(scores[0].get(seed), scores[1].get(seed)) for seed in difference.seeds]
    known = [(own, other) for own, other in pairs if own is not None and other is not None]
    pictures = {(own.pictures, other.pictures) for own, other in known}
    if len(known) < len(pairs) or len(pictures) != 1 or len(set(*pictures)) != 1:
        return found
    matrix = np.stack([own.scores - other.scores for own, other in known])
    return replace(
        found,
        both=crossed(matrix),
        items=bootstrap(matrix),
        exact={
            seed: mcnemar(own.right, other.right)
            for seed, (own, other) in zip(difference.seeds, known, strict=True)
            if own.right is not None
            and other.right is not None
            and len(own.right) == len(other.right)
        },
    )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons as one family under Holm's correction; those without a p stay out."""
    ps = [c.p for c in comparisons if c.p is not None]
    adjusted = iter(holm(ps))
    return [
        replace(c, adjusted=None if c.p is None else next(adjusted), family=len(ps))
        for c in comparisons
    ]


# --------------------------------------------------------------------------- the best of a column


@dataclass(frozen=True, slots=True)
class Contest:
    """The point with the best mean against each of the others."""

    leader: int
    against: Mapping[int, Comparison]
    """Other point -> its comparison to the leader, corrected over all of them."""

    @property
    def tied(self) -> tuple[int, ...]:
        """The others that cannot be told from the leader."""
        return tuple(point for point, c in self.against.items() if not c.decided)

    @property
    def won(self) -> bool:
        """Whether the leader can be told from all others."""
        return bool(self.against) and not self.tied


def contest(leader: int, found: Iterable[Comparison]) -> Contest | None:
    """None where some seed or every interval is missing, so that nothing can be said."""
    comparisons = corrected(list(found))
    if not comparisons or all(c.seeds.n == 1 for c in comparisons):
        return None
    return Contest(leader, {c.point: c for c in comparisons})
