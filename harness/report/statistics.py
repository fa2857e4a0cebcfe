"""What the seeds say: means, intervals, differences paired by seed, trends, and what could be seen.

Pure functions of numbers.  Knows no metric, no file and no unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

CONFIDENCE = 0.95
POWER = 0.8
"""Chance of finding a difference that is said to be detectable."""
NO_SPREAD = 1e-12
"""Spread below which seeds are taken to agree exactly: rounding alone makes about 1e-17."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` seeds and its t-interval; one seed alone has no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval: what stands after the plus-minus sign."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference to a baseline over the seeds both have, with its paired t-interval.

    `p` is two-sided; it and the interval are None for one pair, and `p` is None as well when all
    pairs differ by the same amount.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    seeds: tuple[int, ...]
    error: float | None = None
    """Standard error of the mean; None for one pair."""

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.seeds)

    @property
    def no_spread(self) -> bool:
        """Whether several pairs differ by exactly the same amount.

        Metrics are counts over a finite test set, so few seeds may agree by accident; an interval
        of no width then claims a certainty that nobody has.
        """
        return self.n > 1 and self.p is None

    @property
    def distinguishable(self) -> bool:
        """Whether the paired interval excludes zero, and has a width to judge by."""
        if self.low is None or self.high is None or self.p is None:
            return False
        return self.low > 0 or self.high < 0


def estimate(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean and Student-t interval of `values`, one a seed; ValueError on none or on NaN."""
    sample = _finite(values)
    mean = math.fsum(sample) / len(sample)
    if len(sample) == 1:
        return Estimate(mean, None, None, 1)
    half = _quantile(len(sample) - 1, confidence) * standard_error(sample)
    return Estimate(mean, mean - half, mean + half, len(sample))


def paired_difference(
    values: Mapping[int, float],
    baseline: Mapping[int, float],
    *,
    confidence: float = CONFIDENCE,
) -> Difference | None:
    """`values` minus `baseline` (seed -> value), over the seeds both have; None if they share none.

    The interval and p-value are those of the paired t-test.
    """
    seeds = tuple(sorted(set(values) & set(baseline)))
    if not seeds:
        return None
    sample = _finite([values[seed] - baseline[seed] for seed in seeds])
    mean = math.fsum(sample) / len(sample)
    if len(sample) == 1:
        return Difference(mean, None, None, None, seeds)
    if max(sample) - min(sample) < NO_SPREAD:
        return Difference(mean, mean, mean, None, seeds, 0.0)
    error = standard_error(sample)
    half = _quantile(len(sample) - 1, confidence) * error
    p = 2 * float(special.stdtr(len(sample) - 1, -abs(mean) / error))
    return Difference(mean, mean - half, mean + half, p, seeds, error)


def standard_error(sample: Sequence[float]) -> float:
    """Standard error of the mean of `sample`, which has two values or more."""
    mean = math.fsum(sample) / len(sample)
    squares = math.fsum((value - mean) ** 2 for value in sample)
    return math.sqrt(squares / (len(sample) - 1) / len(sample))


@lru_cache(maxsize=256)
def _quantile(df: int, confidence: float) -> float:
    return float(special.stdtrit(df, (1 + confidence) / 2))


def _finite(values: Sequence[float]) -> list[float]:
    sample = [float(value) for value in values]
    if not sample:
        raise ValueError("no values to average")
    if not all(math.isfinite(value) for value in sample):
        raise ValueError(f"a value that is not finite cannot be averaged: {sample}")
    return sample


# --------------------------------------------------------------------------- many comparisons


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


# --------------------------------------------------------------------------- what could be seen


def detectable_effect(
    error: float, df: float, *, confidence: float = CONFIDENCE, power: float = POWER
) -> float:
    """The smallest true difference that a two-sided t-test finds with probability `power`.

    Args:
        error: standard error of the difference.
        df: degrees of freedom of the test.
    """
    return error * _noncentrality(round(df, 6), confidence, power)


@lru_cache(maxsize=4096)
def _noncentrality(df: float, confidence: float, power: float) -> float:
    """What the t-distribution must be moved by so that `power` of it is past the critical value.

    A finding in the wrong direction is none, so the far tail does not count.
    """
    critical = float(special.stdtrit(df, (1 + confidence) / 2))

    def missing(shift: float) -> float:
        return 1.0 - float(special.nctdtr(df, shift, critical)) - power

    top = critical
    while missing(top) < 0:
        top *= 2
    return float(optimize.brentq(missing, 0.0, top, xtol=1e-9))


# --------------------------------------------------------------------------- trends


def trend(levels: Sequence[Sequence[float]]) -> float | None:
    """Two-sided p of Page's test for a trend along ordered levels, each seed a block.

    The test knows ranks alone: which level of a seed is better, not by how much.  Twice the smaller
    of the one-sided p of a rise and of a fall; None below three levels or two seeds.

    Args:
        levels: the values of the same seeds, in the same order, at each level (L x S).
    """
    table = np.asarray(levels, dtype=np.float64).T
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 3:
        return None
    ranks = stats.rankdata(table, axis=1)
    return min(1.0, 2 * min(_page(ranks), _page(ranks[:, ::-1])))


_PAGE: dict[tuple[int, int, float], float] = {}
"""(seeds, levels, Page's L) -> p, which depends on nothing else and takes milliseconds."""


def _page(ranks: NDArray[np.float64]) -> float:
    """One-sided p of Page's test for a rise."""
    seeds, levels = ranks.shape
    place = (seeds, levels, float(ranks.sum(axis=0) @ np.arange(1, levels + 1)))
    if place not in _PAGE:
        _PAGE[place] = float(stats.page_trend_test(ranks, ranked=True).pvalue)
    return _PAGE[place]
