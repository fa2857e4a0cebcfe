"""One linear model a metric: points are fixed, seeds are blocks, holes are allowed.

A value is `point + seed + residual`.  The residuals of all points together give the variance of a
run, so that five points with three seeds judge by 8 degrees of freedom and not by 2.  Seeds can be
blocks because runs of one seed share the order of samples and the crops.

The test items enter a second time only where points differ from item to item beyond what a run's
own noise does: `ItemSpread` keeps what is needed of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Values = Mapping[int, Mapping[int, float]]
"""Point -> seed -> value."""
Contrast = Mapping[int, float]
"""Point -> weight; the weights of a contrast add up to zero."""

NO_SPREAD = 1e-12
"""Spread below which seeds are taken to agree exactly: rounding alone makes about 1e-17."""


@dataclass(frozen=True)
class Fit:
    """What a model says of one contrast: its estimate, and its variance in units of a residual."""

    estimate: float
    factor: float
    """The variance of the estimate is this times the residual mean square."""


class Layout:
    """The model fitted to one metric by least squares.

    Args:
        values: every value there is; a seed that a point lacks is a hole.
    """

    def __init__(self, values: Values) -> None:
        self.values = {point: dict(found) for point, found in values.items() if found}
        self.points = tuple(self.values)
        self.seeds = tuple(sorted({seed for found in self.values.values() for seed in found}))
        self._place = {point: place for place, point in enumerate(self.points)}
        known = np.array(
            [[seed in found for seed in self.seeds] for found in self.values.values()], dtype=float
        ).reshape(len(self.points), len(self.seeds))
        table = np.array(
            [[found.get(seed, 0.0) for seed in self.seeds] for found in self.values.values()]
        ).reshape(len(self.points), len(self.seeds))
        self._known, self._counts = known, known.sum(axis=1)
        self.complete = bool(known.all())
        self._means = (table * known).sum(axis=1) / np.maximum(self._counts, 1)
        centred = (table - self._means[:, None]) * known
        self._shares = known / np.maximum(self._counts, 1)[:, None]
        self._centred, self._squares = centred, (centred**2).sum(axis=1)
        self.residual, self.df = self._residual(np.ones(len(self.points), dtype=bool))
        if self.complete:  # then the seeds' effects cancel in every contrast
            return
        # What the points add to the normal equations of the seeds, once their own means are out.
        normal = np.diag(known.sum(axis=0)) - known.T @ self._shares
        self._inverse = np.linalg.pinv(normal, hermitian=True)
        self._reached = normal @ self._inverse
        self._effects = self._inverse @ centred.sum(axis=0)

    def _residual(self, kept: NDArray[np.bool_]) -> tuple[float, int]:
        """Sum of squares and degrees of freedom of the model of the points `kept` alone."""
        sums, count = self._centred[kept].sum(axis=0), int(kept.sum())
        if self.complete:
            explained, rank = float(sums @ sums) / max(count, 1), len(self.seeds) - 1
        else:
            known = self._known[kept]
            normal = np.diag(known.sum(axis=0)) - known.T @ self._shares[kept]
            explained = float(sums @ np.linalg.pinv(normal, hermitian=True) @ sums)
            rank = int(np.linalg.matrix_rank(normal, tol=1e-9, hermitian=True))
        df = int(self._counts[kept].sum()) - count - rank
        return max(0.0, float(self._squares[kept].sum()) - explained), df

    @property
    def mean_square(self) -> float | None:
        """Variance of a residual; None without degrees of freedom or without any spread."""
        if self.df < 1 or self.residual < NO_SPREAD**2 * self.df:
            return None
        return self.residual / self.df

    def fit(self, contrast: Contrast) -> Fit | None:
        """None where the seeds that the points have in common do not connect them."""
        index = [self._place.get(point, -1) for point in contrast]
        if -1 in index:
            return None
        weights = np.array(list(contrast.values()))
        estimate, factor = weights @ self._means[index], (weights**2 / self._counts[index]).sum()
        if not self.complete:
            blocks = weights @ self._shares[index]
            if np.abs(blocks - blocks @ self._reached).max() > 1e-9:
                return None
            estimate -= blocks @ self._effects
            factor += blocks @ self._inverse @ blocks
        return Fit(float(estimate), float(factor))

    def differences(self, rivals: Sequence[int], points: Sequence[int]) -> tuple[Array, Array]:
        """Estimates and factors (R, K) of each rival minus each point; NaN where not connected."""
        first, second = ([self._place[point] for point in each] for each in (rivals, points))
        means, own = self._means, 1 / self._counts
        if self.complete:
            factors = own[first][:, None] + own[second][None, :]
            return means[first][:, None] - means[second][None, :], factors
        means = means - self._shares @ self._effects
        spread = self._shares @ self._inverse
        own = own + (spread * self._shares).sum(axis=1)
        factors = own[first][:, None] + own[second] - 2 * spread[first] @ self._shares[second].T
        lost = self._shares - self._shares @ self._reached
        apart = np.abs(lost[first][:, None] - lost[second][None, :]).max(axis=2) > 1e-9
        factors[apart] = np.nan
        return means[first][:, None] - means[second][None, :], factors

    def by_seed(self, contrast: Contrast) -> dict[int, float]:
        """The contrast of each seed that all of its points have."""
        found = [self.values.get(point, {}) for point in contrast]
        return {
            seed: sum(w * each[seed] for w, each in zip(contrast.values(), found, strict=True))
            for seed in self.seeds
            if all(seed in each for each in found)
        }

    def without(self, points: Sequence[int]) -> Layout:
        """The model of the other points."""
        return Layout({p: found for p, found in self.values.items() if p not in points})

    @cached_property
    def noise_ratios(self) -> tuple[Array, Array, Array]:
        """For each point the F that its residuals are as large as the others', and both degrees.

        The drop of the residual sum of squares when a point is left out is independent of what is
        left, so each ratio has an F distribution where all points are equally noisy.  A ratio that
        cannot be formed is 0.
        """
        count = len(self.points)
        if self.complete and count > 1:
            rest = self._squares.sum() - self._squares
            sums = self._centred.sum(axis=0) - self._centred
            rest = np.maximum(0.0, rest - (sums**2).sum(axis=1) / (count - 1))
            dfs = np.full(count, float((count - 2) * (len(self.seeds) - 1)))
        else:
            left_out = [self._residual(np.arange(count) != place) for place in range(count)]
            rest, dfs = (np.array(each, dtype=float) for each in zip(*left_out, strict=True))
        own = self.df - dfs
        usable = (dfs > 0) & (own > 0) & (rest > NO_SPREAD**2)
        shown = np.where(usable, rest, 1.0) / np.where(usable, dfs, 1.0)
        drops = np.maximum(0.0, self.residual - rest) / np.where(usable, own, 1.0)
        return np.where(usable, drops / shown, 0.0), np.maximum(own, 1), np.maximum(dfs, 1)


class ItemSpread:
    """How differences between points vary from one test item to the next, in two K x K tables.

    Args:
        scores: (point, seed) -> scores (N,) of the same items, one a run; the metric is their mean.

    Only seeds that every point has are used; there must be two (ValueError).
    """

    def __init__(self, scores: Mapping[tuple[int, int], NDArray[np.floating]]) -> None:
        points = tuple(dict.fromkeys(point for point, _ in scores))
        seeds = [
            seed
            for seed in dict.fromkeys(seed for _, seed in scores)
            if all((point, seed) in scores for point in points)
        ]
        if len(seeds) < 2:
            raise ValueError("items need two seeds that every point has")
        self._place = {point: place for place, point in enumerate(points)}
        size = len(next(iter(scores.values())))
        mean, within = np.zeros((len(points), size)), np.zeros((len(points), len(points)))
        for seed in seeds:
            rows = np.stack([np.asarray(scores[point, seed], dtype=float) for point in points])
            rows -= rows.mean(axis=1, keepdims=True)
            mean += rows / len(seeds)
            within += rows @ rows.T
        across = mean @ mean.T
        within -= len(seeds) * across
        self.items = size
        self._across = across / (size - 1) / size
        self._within = within / ((len(seeds) - 1) * (size - 1)) / (size * len(seeds))

    def __contains__(self, contrast: Contrast) -> bool:
        return all(point in self._place for point in contrast)

    def parts(self, contrast: Contrast) -> tuple[float, float]:
        """Variance of a contrast over other items: as seen, and as the runs' own noise makes it."""
        index = [self._place[point] for point in contrast]
        weights = np.array(list(contrast.values()))
        square = np.ix_(index, index)
        return (
            float(weights @ self._across[square] @ weights),
            float(weights @ self._within[square] @ weights),
        )

    def beyond(self, contrast: Contrast) -> float:
        """What other items add to the variance of a contrast beyond the noise of single runs.

        The residual of the seeds holds that noise already, so it is not added again.
        """
        seen, within = self.parts(contrast)
        return max(0.0, seen - within)

    def differences(self, rivals: Sequence[int], points: Sequence[int]) -> Array:
        """`beyond` (R, K) of each rival minus each point; 0 where one of them has no items."""
        places = [[self._place.get(point, -1) for point in each] for each in (rivals, points)]
        first, second = (np.array(each, dtype=int) for each in places)
        table = self._across - self._within
        diagonal = np.diag(table)
        found: Array = (
            diagonal[first][:, None] + diagonal[second] - 2 * table[np.ix_(first, second)]
        )
        found[first < 0] = 0.0
        found[:, second < 0] = 0.0
        return np.maximum(found, 0.0)
