"""One point against its baseline on one metric: what is printed of it, and what may be said.

The numbers are those of `harness.stats`; this is their place in a report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from harness import metrics
from harness.stats.intervals import Difference
from harness.stats.tests import ALPHA, Judged, Over


class Verdict(Enum):
    """What may be said of a difference."""

    BETTER = "better"
    WORSE = "worse"
    LOST = "not significant after Holm's correction"
    """The interval excludes zero, and the p-value corrected for its family does not."""
    UNDECIDED = "not significant"
    NO_SPREAD = "no spread over seeds"
    """The seeds agree exactly, so there is nothing to judge by."""
    ONE_SEED = "one seed"
    BARRED = "not comparable"
    """The two were made with different numerics."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The difference of `point` to `reference`."""

    point: int
    reference: int
    metric: str
    wanted: int
    """Seeds that the sweep asks for."""
    seeds: Difference
    """Of the seeds that both have, by themselves."""
    judged: Judged | None = None
    """By the model of the whole sweep, in its family; None where the metric is not tested."""
    primary: bool = False
    """Whether the family is that of the primary metric."""
    items: tuple[float, float] | None = None
    """Bootstrap interval over test items with these seeds' models as they are."""
    exact: Mapping[int, float] = field(default_factory=dict)
    """Seed -> p of McNemar's exact test, where items are answered rightly or wrongly."""
    barred: str | None = None
    """Why the two must not be compared."""

    @property
    def mean(self) -> float:
        """Mean difference, in the unit of the records."""
        return self.seeds.mean if self.judged is None else self.judged.test.estimate

    @property
    def in_full(self) -> bool:
        """Whether it is over every seed that the sweep asks for."""
        return self.seeds.n == self.wanted

    @property
    def p(self) -> float | None:
        """Two-sided; None where the seeds give nothing to judge by."""
        return None if self.judged is None else self.judged.test.p

    @property
    def tested(self) -> bool:
        """Whether the difference is one of the tests of its family."""
        return self.p is not None

    @property
    def adjusted(self) -> float | None:
        """`p` after Holm's correction over the family."""
        return None if self.judged is None else self.judged.adjusted

    @property
    def interval(self) -> tuple[float, float, Over] | None:
        """The 95 % interval that is printed."""
        test = None if self.judged is None else self.judged.test
        if test is not None and test.interval is not None:
            return *test.interval, test.over
        if self.seeds.n == 1 and self.items is not None and self.barred is None:
            return *self.items, Over.ITEMS
        return None

    @property
    def verdict(self) -> Verdict:
        """What the corrected test allows to be said."""
        if self.barred is not None:
            return Verdict.BARRED
        if self.p is None:
            return Verdict.ONE_SEED if self.seeds.n == 1 else Verdict.NO_SPREAD
        if self.adjusted is not None and self.adjusted < ALPHA:
            up = (self.mean > 0) == metrics.higher_is_better(self.metric)
            return Verdict.BETTER if up else Verdict.WORSE
        return Verdict.LOST if self.p < ALPHA else Verdict.UNDECIDED

    @property
    def decided(self) -> bool:
        """Whether the two can be told apart."""
        return self.verdict in {Verdict.BETTER, Verdict.WORSE}
