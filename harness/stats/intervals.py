"""Intervals of a single point and of a single pair: over its own seeds, or over test items.

They describe; what a report concludes comes from the model of the whole sweep, see `tests`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from harness.stats.layout import NO_SPREAD
from harness.stats.tests import CONFIDENCE, quantile, standard_error

Scores = NDArray[np.float64]
RESAMPLES = 2_000
#: Items past which random blocks of them are used: more would cost time and change no digit.
MOST = 2_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` seeds and its t-interval; one seed alone has no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int
    sd: float | None = None
    """Standard deviation over the seeds; None for one seed."""

    @property
    def se(self) -> float | None:
        """Standard error of the mean."""
        return None if self.sd is None else self.sd / math.sqrt(self.n)

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


def estimate(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean and Student-t interval of `values`, one a seed; ValueError on none or on NaN."""
    sample = _finite(values)
    mean = math.fsum(sample) / len(sample)
    if len(sample) == 1:
        return Estimate(mean, None, None, 1)
    error = standard_error(sample)
    half = quantile(len(sample) - 1, confidence) * error
    return Estimate(mean, mean - half, mean + half, len(sample), error * math.sqrt(len(sample)))


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
    half = quantile(len(sample) - 1, confidence) * error
    p = 2 * float(special.stdtr(len(sample) - 1, -abs(mean) / error))
    return Difference(mean, mean - half, mean + half, p, seeds, error)


def _finite(values: Sequence[float]) -> list[float]:
    sample = [float(value) for value in values]
    if not sample:
        raise ValueError("no values to average")
    if not all(math.isfinite(value) for value in sample):
        raise ValueError(f"a value that is not finite cannot be averaged: {sample}")
    return sample


# --------------------------------------------------------------------------- items


def bootstrap(
    differences: Scores, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the mean over resampled items, the seeds held as they are.

    It says what other test items would show of these very models, and nothing of other seeds.  The
    resamples are the same for all differences over as many items, so a pair of runs always gets the
    same interval.

    Args:
        differences: (S, N) or (N,) scores of one point minus those of the other, paired by item.
    """
    by_item = np.atleast_2d(differences).mean(axis=0)
    by_block = in_blocks(by_item)
    means = _draws(len(by_block), resamples) @ by_block
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def in_blocks(scores: Scores, most: int = MOST) -> Scores:
    """At most `most` means (..., B), of blocks of items (..., N) put together at random."""
    items = scores.shape[-1]
    if items <= most:
        return scores
    order = np.random.default_rng(0).permutation(items)
    size = -(-items // most)
    blocks = items // size
    together: Scores = scores[..., order[: blocks * size]]
    means: Scores = together.reshape(*scores.shape[:-1], blocks, size).mean(axis=-1)
    return means


@lru_cache(maxsize=4)
def _draws(items: int, resamples: int) -> NDArray[np.float32]:
    """Weights (resamples, items) of a mean over items drawn with replacement."""
    counts = np.random.default_rng(0).multinomial(items, [1 / items] * items, size=resamples)
    return (counts / items).astype(np.float32)


def mcnemar(right: NDArray[np.uint8], baseline: NDArray[np.uint8]) -> float:
    """Exact two-sided p of McNemar's test: do two models err on the same items equally often?

    Args:
        right, baseline: 1 where the item was answered rightly, 0 where not (N,), paired by item.
    """
    gained = int(((right == 1) & (baseline == 0)).sum())
    lost = int(((right == 0) & (baseline == 1)).sum())
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)
