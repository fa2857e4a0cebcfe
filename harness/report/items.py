"""What the test items say: differences paired by item, and both variances in one interval.

Pure functions of arrays of scores, one an item and seed: a metric's value is their mean.  A
difference varies because other seeds would train other models and because other test items would
ask other questions; which of the two an interval covers is for its user to state.  Knows no metric,
no file and no unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.report.statistics import CONFIDENCE, NO_SPREAD

Scores = NDArray[np.float64]

RESAMPLES = 2_000
#: Items past which random blocks of them are resampled: more would cost time and change no digit.
MOST = 2_000


@dataclass(frozen=True)
class Crossed:
    """A mean difference whose interval covers other seeds and other items at once.

    `error_seeds` and `error_items` are the standard errors that seeds alone and items alone would
    give; `error` is that of both.
    """

    mean: float
    low: float
    high: float
    p: float
    error: float
    error_seeds: float
    error_items: float
    df: float


def crossed(differences: Scores, *, confidence: float = CONFIDENCE) -> Crossed | None:
    """Seeds and items as two crossed random factors; None below two of either, or without spread.

    From the mean squares of the two-way layout (S seeds, N items, their interaction E), the
    variance of the mean is (MS_S + MS_N - MS_E) / (S N), with Satterthwaite's degrees of freedom.
    An estimate below what one factor alone gives is replaced by that factor's, so that the interval
    never claims more than the t-test over seeds or over items would by chance of a negative part.

    Args:
        differences: (S, N) scores of one point minus those of the other, paired by seed and item.
    """
    seeds, items = differences.shape
    if seeds < 2 or items < 2:
        return None
    mean = float(differences.mean())
    by_seed, by_item = differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - by_seed[:, None] - by_item[None, :] + mean
    cells = seeds * items
    part_seeds = float(by_seed.var(ddof=1)) / seeds
    part_items = float(by_item.var(ddof=1)) / items
    part_rest = float((rest**2).sum()) / ((seeds - 1) * (items - 1)) / cells
    variance = part_seeds + part_items - part_rest
    if variance >= max(part_seeds, part_items):
        spread = part_seeds**2 / (seeds - 1) + part_items**2 / (items - 1)
        spread += part_rest**2 / ((seeds - 1) * (items - 1))
        df = variance**2 / spread if spread else 0.0
    elif part_seeds >= part_items:
        variance, df = part_seeds, float(seeds - 1)
    else:
        variance, df = part_items, float(items - 1)
    if variance < NO_SPREAD**2:
        return None
    error = math.sqrt(variance)
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * error
    return Crossed(
        mean=mean,
        low=mean - half,
        high=mean + half,
        p=float(2 * stats.t.sf(abs(mean) / error, df)),
        error=error,
        error_seeds=math.sqrt(part_seeds),
        error_items=math.sqrt(part_items),
        df=df,
    )


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
    by_block = _in_blocks(by_item)
    means = _draws(len(by_block), resamples) @ by_block
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _in_blocks(by_item: Scores) -> Scores:
    """At most `MOST` means, of blocks of items put together at random."""
    if len(by_item) <= MOST:
        return by_item
    order = np.random.default_rng(0).permutation(len(by_item))
    size = -(-len(by_item) // MOST)
    blocks = len(by_item) // size
    together: Scores = by_item[order[: blocks * size]].reshape(blocks, size).mean(axis=1)
    return together


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
