"""The error of a test that is looked at several times, spent over the looks beforehand.

Each look has a nominal level of its own; a test is significant at the first look where its p-value,
by the degrees of freedom of that look, is below it (the significance level approach: Jennison and
Turnbull, Group Sequential Methods, 2000, chapter 4).  Levels follow from a spending function of the
share of the seeds that a look has (Kim and DeMets 1987).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import optimize, special

from harness.stats.layout import Array

POWER_OF_TIME = 1.0
"""Of the spending function: at a share t of the seeds, alpha t**this of the error is spent."""
_NODES = 96
_GRID = np.geomspace(1e-9, 0.9, 61)
"""Errors for which the levels of all looks are computed; between them they are interpolated."""


@dataclass(frozen=True)
class Looks:
    """Numbers of seeds at which a sweep is looked at, in rising order."""

    counts: tuple[int, ...]

    @property
    def times(self) -> tuple[float, ...]:
        """Share of the most seeds that each look has."""
        return tuple(count / self.counts[-1] for count in self.counts)

    def level(self, look: int, alpha: float) -> float:
        """Nominal two-sided level of look number `look` (from 0), for an error of `alpha` in all.

        The later of two looks may have the lower level: what counts is what is left to spend.
        """
        table = self._levels[:, look]
        return float(np.exp(np.interp(math.log(alpha), np.log(_GRID), np.log(table))))

    def overall(self, look: int, p: float) -> float:
        """The error in all for which a p-value at a look is just significant: at least `p`.

        The sequential p-value of Liu and Anderson (2008), which Holm's correction takes as it
        takes any p.
        """
        if p <= 0:
            return 0.0
        table = np.log(self._levels[:, look])
        place, grid = math.log(p), np.log(_GRID)
        if place < table[0]:  # so far out the two go down together
            return math.exp(grid[0] + place - table[0])
        if place > table[-1]:
            return 1.0
        return max(p, float(np.exp(np.interp(place, table, grid))))

    def joint(self, printed: int, alpha: float) -> float:
        """Error in all where a verdict at the fixed level `alpha` was printed already.

        Args:
            printed: the seeds that it was printed at.
        """
        levels = {count: self.level(look, alpha) for look, count in enumerate(self.counts)}
        levels[printed] = max(alpha, levels.get(printed, 0.0))
        most = max(self.counts[-1], printed)
        times = [count / most for count in sorted(levels)]
        return sum(_crossings(times, [levels[count] for count in sorted(levels)]))

    @cached_property
    def _levels(self) -> Array:
        return _table(self.counts)


@lru_cache(maxsize=64)
def _table(counts: tuple[int, ...]) -> Array:
    """Levels of every look (columns) for every error of `_GRID` (rows)."""
    times = [count / counts[-1] for count in counts]
    return np.array([list(_levels(times, alpha)) for alpha in _GRID])


def _levels(times: Sequence[float], alpha: float) -> Iterator[float]:
    """Nominal levels that spend `alpha` by the spending function, look by look."""
    walk, spent = _Walk(), 0.0
    for time in times:
        due = alpha * time**POWER_OF_TIME
        bound = walk.bound(time, due - spent)
        walk.go(time, bound)
        spent = due
        yield 2 * float(special.ndtr(-bound))


def _crossings(times: Sequence[float], levels: Sequence[float]) -> Iterator[float]:
    """Chance of each look to be the first at which a null test is significant."""
    walk = _Walk()
    for time, level in zip(times, levels, strict=True):
        bound = -float(special.ndtri(level / 2))
        yield walk.beyond(time, bound)
        walk.go(time, bound)


class _Walk:
    """Where a null test that was not significant yet stands: a Wiener process cut at the bounds."""

    def __init__(self) -> None:
        self._time = 0.0
        self._at, self._mass = np.zeros(1), np.ones(1)

    def beyond(self, time: float, bound: float) -> float:
        """Chance of |z| >= `bound` at `time`, nothing having been beyond a bound before."""
        edge, step = bound * math.sqrt(time), math.sqrt(time - self._time)
        tails = special.ndtr((-edge - self._at) / step) + special.ndtr((self._at - edge) / step)
        return float(self._mass @ tails)

    def bound(self, time: float, error: float) -> float:
        """The bound that is first passed at `time` with a chance of `error`."""
        return float(optimize.brentq(lambda z: self.beyond(time, z) - error, 1e-6, 12.0))

    def go(self, time: float, bound: float) -> None:
        """On to `time`, and no further than `bound`."""
        edge, step = bound * math.sqrt(time), math.sqrt(time - self._time)
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        at = edge * nodes
        density = np.exp(-(((at[:, None] - self._at) / step) ** 2) / 2) @ self._mass
        self._mass = density * weights * edge / (step * math.sqrt(2 * math.pi))
        self._at, self._time = at, time
