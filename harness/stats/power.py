"""What a design can find: the smallest detectable difference of a verdict, after its correction."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from statistics import median

from scipy import optimize, special

from harness.stats.tests import ContrastTest, Judged

POWER = 0.8
"""Chance of finding a difference that is said to be detectable."""


def detectable(judged: Iterable[Judged]) -> float | None:
    """The smallest true difference that the verdict of a family finds with a probability of 0.8.

    One comparison of the family is taken to differ, so that it must pass Holm's first step, the
    level 0.05 / (tests in the family).  The standard error is corrected to be right in the median,
    which at few degrees of freedom the estimated one is not.  The median over the comparisons that
    share their variance, or over all where none does; None where none has an error.
    """
    known = [each for each in judged if each.test.error is not None]
    shared = [each for each in known if each.test.pooled]
    found = [_detectable(each.test, each.level) for each in shared or known]
    return median(found) if found else None


def _detectable(test: ContrastTest, alpha: float) -> float:
    assert test.error is not None
    seeds = (1 - test.share) * test.error**2 / unbiased(test.df) ** 2
    error = math.sqrt(seeds + test.share * test.error**2)
    return error * test.critical(lambda df: noncentrality(df, alpha))


MOST_SEEDS = 100
"""More seeds than these are not proposed."""


def seeds_to_find(judged: Judged) -> int | None:
    """About how many seeds would find a difference as large as was seen, with probability 0.8.

    The noise of single runs is taken to stay, and that of the items with it; None where no number
    up to `MOST_SEEDS` would, or where there is no error to judge by.
    """
    test, have = judged.test, judged.test.n
    if test.error is None or have < 2:
        return None
    seeds = (1 - test.share) * test.error**2 / unbiased(test.df) ** 2
    items = test.share * test.error**2
    for count in range(have + 1, MOST_SEEDS + 1):
        variance = seeds * have / count + items
        df = test.df * (count - 1) / (have - 1)
        then = replace(test, df=df, share=items / variance if variance else 0.0)
        least = then.critical(lambda df: noncentrality(df, judged.level))
        if math.sqrt(variance) * least <= abs(test.estimate):
            return count
    return None


@lru_cache(maxsize=256)
def unbiased(df: float) -> float:
    """Median of (estimated / true standard deviation) at `df` degrees of freedom."""
    return float((special.chdtri(df, 0.5) / df) ** 0.5)


@lru_cache(maxsize=4096)
def noncentrality(df: float, alpha: float) -> float:
    """What the t-distribution must be moved by so that 0.8 of it is past the critical value.

    A finding in the wrong direction is none, so the far tail does not count.
    """
    critical = -float(special.stdtrit(df, alpha / 2))

    def missing(shift: float) -> float:
        return 1.0 - float(special.nctdtr(df, shift, critical)) - POWER

    top = critical
    while missing(top) < 0:
        top *= 2
    return float(optimize.brentq(missing, 0.0, top, xtol=1e-9))
