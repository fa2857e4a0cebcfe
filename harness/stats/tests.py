"""Tests of contrasts by one pooled variance; unequal noise; families under Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from harness.stats.layout import NO_SPREAD, Array, Contrast, ItemSpread, Layout

Key = TypeVar("Key")
Asked = tuple[int, int] | int
"""What is tested: a point against its baseline, or the number of a slope or an effect."""

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
NOISY_ALPHA = 0.05
"""Chance of calling some point noisier than the others where none is."""
DOUBTFUL_ALPHA = 0.2
"""The same, of a point that secondary verdicts trust the common variance for no longer."""


class Over(Enum):
    """What an interval covers: the unit of an error bar."""

    BOTH = "seeds and test items"
    SEEDS = "seeds"
    ITEMS = "test items"


@dataclass(frozen=True)
class ContrastTest:
    """One contrast: its estimate, and what it would be over other seeds and items."""

    estimate: float
    n: int
    """Seeds that every point of the contrast has."""
    error: float | None = None
    """Standard error; None where nothing can be said of other seeds."""
    df: float = 0.0
    """Degrees of freedom of the seeds' part of the variance."""
    pooled: bool = True
    """Whether the variance is that of the whole sweep, and not of the contrast's own seeds."""
    items: int = 0
    """Test items; 0 where the seeds alone are covered."""
    share: float = 0.0
    """Of the items in the variance."""
    level: float = ALPHA
    """Error of its interval: that of the look, where a sweep is looked at several times."""

    @property
    def over(self) -> Over:
        """What the interval covers."""
        return Over.BOTH if self.items else Over.SEEDS

    def critical(self, of: Callable[[float], float]) -> float:
        """A critical value, where `of` gives it at some degrees of freedom.

        The two parts of the variance have few and many degrees of freedom.  Each counts with its
        own critical value, weighted by its share (Cochran and Cox), so that a residual that is
        small by luck never lends its test the certainty of the many items.
        """
        if not self.share:
            return of(self.df)
        return (1 - self.share) * of(self.df) + self.share * of(self.items - 1.0)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of this contrast alone: 95 % in all, over every look there may be."""
        if self.error is None:
            return None
        half = self.critical(lambda df: quantile(df, 1 - self.level)) * self.error
        return self.estimate - half, self.estimate + half

    @cached_property
    def p(self) -> float | None:
        """Two-sided, of this contrast alone."""
        if self.error is None:
            return None
        t = abs(self.estimate) / self.error
        least, most = (2 * float(special.stdtr(df, -t)) for df in (self.items - 1.0, self.df))
        if not self.share or least <= 0:
            return most

        def beyond(log_p: float) -> float:
            return t - self.critical(lambda df: -float(special.stdtrit(df, math.exp(log_p) / 2)))

        low, high = sorted((math.log(least), math.log(most)))
        if beyond(low) * beyond(high) >= 0:  # the ends are equal to rounding
            return most
        return math.exp(float(optimize.brentq(beyond, low, high, xtol=1e-10)))


@dataclass(frozen=True)
class Gaps:
    """Differences (R, K) of rivals and points: what `ContrastTest` holds of one, of all."""

    estimates: Array
    errors: Array
    dfs: Array
    pooled: NDArray[np.bool_]
    shares: Array
    items: int


class MixedModel:
    """The layout of one metric with its items, and the points whose noise is not the others'.

    Args:
        noise: as the other metrics show it too; None: by this metric alone, and none is doubtful.
    """

    def __init__(
        self, layout: Layout, items: ItemSpread | None = None, noise: Noise | None = None
    ) -> None:
        self.layout, self.items = layout, items
        found = noise_of([layout]) if noise is None else noise
        self.noisy = tuple(point for point in found.noisy if point in layout.values)
        self._apart = {*self.noisy, *(() if noise is None else noise.doubtful)}
        self._pooled = layout.without(self.noisy) if self.noisy else layout

    def test(self, contrast: Contrast) -> ContrastTest | None:
        """None where no seed connects the points of `contrast`.

        The variance is `residual mean square x factor`, plus what the items add beyond the noise of
        single runs.  A contrast with a noisy or doubtful point is judged by its own seeds.
        """
        own = any(point in self._apart for point in contrast)
        fitted = self._own(contrast) if own else self._shared(contrast)
        if fitted is None or fitted.error is None:
            return fitted
        if self.items is None or contrast not in self.items:
            return fitted
        extra = self.items.beyond(contrast)
        variance = fitted.error**2 + extra
        return replace(
            fitted, error=math.sqrt(variance), items=self.items.items, share=extra / variance
        )

    def differences(self, rivals: Sequence[int], points: Sequence[int]) -> Gaps:
        """`test` of every rival minus every point at once; NaN where nothing can be said."""
        estimates = np.full((len(rivals), len(points)), np.nan)
        errors, shares = estimates.copy(), np.zeros(estimates.shape)
        dfs = np.full(estimates.shape, float(self._pooled.df))
        pooled = self._pooled.values.keys() - self._apart
        calm = [np.array([p in pooled for p in each]) for each in (rivals, points)]
        both: NDArray[np.bool_] = np.logical_and.outer(*calm)
        square = self._pooled.mean_square
        if square is not None:
            place = np.ix_(*calm)
            names = [[p for p in each if p in pooled] for each in (rivals, points)]
            estimates[place], factors = self._pooled.differences(*names)
            extra = 0.0 if self.items is None else self.items.differences(*names)
            errors[place] = np.sqrt(square * factors + extra)
            shares[place] = extra / errors[place] ** 2
        for row, column in np.argwhere(~both):
            test = self.test(difference(rivals[row], points[column]))
            if rivals[row] != points[column] and test is not None and test.error is not None:
                estimates[row, column], errors[row, column] = test.estimate, test.error
                dfs[row, column], shares[row, column] = test.df, test.share
        items = 0 if self.items is None else self.items.items
        return Gaps(estimates, errors, dfs, both, shares, items)

    def _shared(self, contrast: Contrast) -> ContrastTest | None:
        fit, square = self._pooled.fit(contrast), self._pooled.mean_square
        if fit is None:
            return None
        seeds = self._pooled.seeds
        n = len(seeds if self._pooled.complete else self._pooled.by_seed(contrast))
        error = None if square is None else math.sqrt(square * fit.factor)
        return ContrastTest(fit.estimate, n, error, self._pooled.df)

    def _own(self, contrast: Contrast) -> ContrastTest | None:
        """By its own seeds, whose spread, small by luck, never counts for less than the common one.

        The degrees of freedom are its own whichever of the two is larger.
        """
        sample = list(self.layout.by_seed(contrast).values())
        if not sample:
            return None
        mean, n = math.fsum(sample) / len(sample), len(sample)
        if n < 2 or max(sample) - min(sample) < NO_SPREAD:
            return ContrastTest(mean, n, pooled=False)
        common = math.fsum(w * w for w in contrast.values()) / n
        least = math.sqrt((self._pooled.mean_square or 0.0) * common)
        return ContrastTest(mean, n, max(standard_error(sample), least), n - 1, pooled=False)


@dataclass(frozen=True)
class Noise:
    """Points whose runs vary more than the others', the noisiest first."""

    noisy: tuple[int, ...] = ()
    """Far more: left out of the common variance, and named."""
    doubtful: tuple[int, ...] = ()
    """Perhaps more: still part of the common variance, and not judged by it alone."""


def noise_of(layouts: Sequence[Layout]) -> Noise:
    """What the metrics `layouts` of the same points show together.

    A point whose training is unstable is so in every metric.  Its F tests are combined by their
    Cauchy transforms, which holds whatever the dependence between metrics (Liu and Xie 2020), and
    the largest is tested under Bonferroni's bound over the points; what is found is left out and
    the rest looked at again, while three points remain.
    """
    noisy: list[int] = []
    doubtful: list[int] = []
    while ps := _noise_ps(layouts):
        worst = min(ps, key=lambda point: ps[point])
        p = ps[worst] * len(ps)
        if p >= DOUBTFUL_ALPHA:
            break
        (noisy if p < NOISY_ALPHA and not doubtful else doubtful).append(worst)
        layouts = [layout.without([worst]) for layout in layouts]
    return Noise(tuple(noisy), tuple(doubtful))


def _noise_ps(layouts: Sequence[Layout]) -> dict[int, float]:
    """Point -> p of the F tests that its residuals are no larger than the others'."""
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for layout in layouts:
        if len(layout.points) < 3:
            continue
        ratios, own, rest = layout.noise_ratios
        ps = np.clip(special.fdtrc(own, rest, ratios), _LEAST_P, 1 - 1e-3)
        for point, cauchy in zip(layout.points, (1 / np.tan(np.pi * ps)).tolist(), strict=True):
            sums[point] = sums.get(point, 0.0) + cauchy
            counts[point] = counts.get(point, 0) + 1
    return {p: 0.5 - math.atan(total / counts[p]) / math.pi for p, total in sums.items()}


_LEAST_P = 1e-15
"""What a p is taken for at the least: its Cauchy transform is finite."""


def standard_error(sample: Sequence[float]) -> float:
    """Standard error of the mean of `sample`, which has two values or more."""
    mean = math.fsum(sample) / len(sample)
    squares = math.fsum((value - mean) ** 2 for value in sample)
    return math.sqrt(squares / (len(sample) - 1) / len(sample))


@lru_cache(maxsize=4096)
def quantile(df: float, confidence: float) -> float:
    """Two-sided quantile of Student's t."""
    return float(special.stdtrit(df, (1 + confidence) / 2))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of the p-values of one family, in their order.

    An adjusted p below 0.05 keeps the chance of any false claim in the family below 5 %, whatever
    the dependence between its tests (Holm 1979).
    """
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True, slots=True)
class Judged:
    """A test as a member of its family."""

    test: ContrastTest
    adjusted: float | None
    """p after the correction; None where the test has none."""
    family: int
    """Tests in the family."""
    at_look: float | None = None
    """Level of the first step of the correction at this look, where there are several."""

    @property
    def level(self) -> float:
        """What its p must be below if no other test of the family is significant."""
        return ALPHA / self.family if self.at_look is None else self.at_look

    @property
    def significant(self) -> bool:
        """Whether the family's correction leaves it standing."""
        return self.adjusted is not None and self.adjusted < ALPHA


def judge(
    family: Mapping[Key, ContrastTest],
    overall: Callable[[float], float] = float,
    level: Callable[[float], float] | None = None,
) -> dict[Key, Judged]:
    """Holm's correction over one family; tests without a p stay out of it.

    Args:
        overall: what a p-value is worth over all looks.
        level: what is left for this look of an error in all; None: there is one look.
    """
    ps = {key: overall(p) for key, test in family.items() if (p := test.p) is not None}
    adjusted = dict(zip(ps, holm(list(ps.values())), strict=True))
    own = None if level is None or not ps else level(ALPHA / len(ps))
    return {key: Judged(test, adjusted.get(key), len(ps), own) for key, test in family.items()}


def difference(point: int, reference: int) -> Contrast:
    """`point` minus `reference`."""
    return {point: 1.0, reference: -1.0}


def slope(levels: Mapping[int, float]) -> Contrast:
    """The least-squares slope of the points' means on `levels` (point -> place on the axis)."""
    centre = math.fsum(levels.values()) / len(levels)
    squares = math.fsum((level - centre) ** 2 for level in levels.values())
    return {point: (level - centre) / squares for point, level in levels.items()}
