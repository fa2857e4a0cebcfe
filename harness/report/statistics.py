"""What the seeds say: means, intervals, and differences paired by seed.

Pure functions of numbers.  Knows no metric, no file and no unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
NO_SPREAD = 1e-12
"""Spread below which seeds are taken to agree exactly: rounding alone makes about 1e-17."""


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
    half = _half_width(sample, confidence)
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
    if np.ptp(sample) < NO_SPREAD:
        return Difference(mean, mean, mean, None, seeds)
    half = _half_width(sample, confidence)
    p = float(stats.ttest_1samp(sample, 0.0).pvalue)
    return Difference(mean, mean - half, mean + half, p, seeds)


def _half_width(sample: Sequence[float], confidence: float) -> float:
    quantile = stats.t.ppf((1 + confidence) / 2, len(sample) - 1)
    return float(quantile * np.std(sample, ddof=1) / math.sqrt(len(sample)))


def _finite(values: Sequence[float]) -> list[float]:
    sample = [float(value) for value in values]
    if not sample:
        raise ValueError("no values to average")
    if not all(math.isfinite(value) for value in sample):
        raise ValueError(f"a value that is not finite cannot be averaged: {sample}")
    return sample
