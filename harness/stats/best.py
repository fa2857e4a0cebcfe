"""Multiple comparisons with the best (Hsu 1981, 1984): which point may be the best, and how much
each may lose to the best of the others.

Both are simultaneous over all points at 95 %, by the one-sided quantile of Dunnett's test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import optimize, special

from harness.stats.layout import Array
from harness.stats.power import MOST_SEEDS
from harness.stats.tests import ALPHA, Gaps, MixedModel, difference


@dataclass(frozen=True)
class Best:
    """One metric's points against the best of the others; means with the better one higher."""

    leader: int
    """The point with the best mean."""
    candidates: tuple[int, ...]
    """The points that cannot be told from the best, the leader among them."""
    losses: Mapping[int, float]
    """Point -> upper bound on (the best of the others - it).  It holds for all points at once, and
    is not cut off at zero for the leader, which may lead by luck."""
    estimates: Mapping[int, float]
    """Point -> (the best of the others - it) as seen."""

    @property
    def won(self) -> bool:
        """Whether the leader can be told from all others."""
        return self.candidates == (self.leader,)

    @cached_property
    def tied(self) -> frozenset[int]:
        """The candidates, to be looked up in."""
        return frozenset(self.candidates)


#: Past so many points, those with the best means alone are taken for rivals of the others.
RIVALS = 64


def best_of(
    model: MixedModel, points: Sequence[int], sign: int, alpha: float = ALPHA
) -> Best | None:
    """None below two points, and where some pair of points has no error to judge by.

    Args:
        sign: 1 where higher is better, -1 where lower is.
        alpha: error of all points together.
    """
    if len(points) < 2:
        return None
    first = sign * model.differences(points, points[:1]).estimates[:, 0]
    if np.isnan(first[1:]).any():
        return None
    first[0] = 0.0
    rivals = [points[place] for place in np.argsort(-first, kind="stable")[:RIVALS]]
    gaps = model.differences(rivals, points)
    ahead = sign * gaps.estimates
    reach = gaps.errors * _criticals(gaps, len(points) - 1, alpha)
    own = np.array(rivals)[:, None] == np.array(points)[None, :]
    if np.isnan(reach[~own]).any():
        return None
    seen = np.where(own, -np.inf, ahead).max(axis=0)
    losses = np.where(own, -np.inf, ahead + reach).max(axis=0)
    highest = np.where(own, np.inf, reach - ahead).min(axis=0)
    leader = points[int(seen.argmin())]
    return Best(
        leader=leader,
        candidates=tuple(p for p, h in zip(points, highest, strict=True) if h > 0 or p == leader),
        losses=dict(zip(points, losses.tolist(), strict=True)),
        estimates=dict(zip(points, seen.tolist(), strict=True)),
    )


def _criticals(gaps: Gaps, comparisons: int, alpha: float) -> Array:
    """One-sided critical values (R, K) of one of `comparisons` differences to a common point.

    Dunnett's where the variance is pooled (equal correlations of 1/2, which equal numbers of seeds
    give); Bonferroni's where a pair is judged by its own seeds.
    """
    pooled, own = gaps.pooled, ~gaps.pooled
    common = dunnett(comparisons, float(gaps.dfs[pooled].max(initial=1.0)), alpha)
    seeds: Array = np.full(pooled.shape, common)
    seeds[own] = -special.stdtrit(np.maximum(gaps.dfs[own], 1), alpha / comparisons)
    if not gaps.items:
        return seeds
    return (1 - gaps.shares) * seeds + gaps.shares * dunnett(comparisons, gaps.items - 1.0, alpha)


@lru_cache(maxsize=4096)
def dunnett(comparisons: int, df: float, alpha: float = ALPHA) -> float:
    """Dunnett's one-sided quantile at 1 - `alpha` for `comparisons` differences to one control.

    Args:
        df: degrees of freedom of the common variance.
    """
    if comparisons == 1:
        return float(special.stdtrit(df, 1 - alpha))
    top = -float(special.stdtrit(df, alpha / comparisons))  # Bonferroni's is never below
    return float(
        optimize.brentq(lambda d: _below(d, comparisons, df) - (1 - alpha), 0.0, top + 1e-9)
    )


def _below(bound: float, comparisons: int, df: float) -> float:
    """P(all `comparisons` t-statistics < bound), correlated by 1/2, by Gauss quadrature."""
    nodes, weights = _normal()
    shares, spread = _chi(df)
    inside = special.ndtr(math.sqrt(2) * bound * spread[:, None] + nodes[None, :]) ** comparisons
    return float(shares @ inside @ weights)


@lru_cache(maxsize=1)
def _normal() -> tuple[Array, Array]:
    """Nodes and weights of the standard normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    return nodes, weights / math.sqrt(2 * math.pi)


@lru_cache(maxsize=1)
def _even() -> tuple[Array, Array]:
    """Nodes and weights of the interval from -1 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(96)
    return nodes, weights


@lru_cache(maxsize=256)
def _chi(df: float) -> tuple[Array, Array]:
    """Weights and values of (estimated / true standard deviation) at `df` degrees of freedom."""
    at, weights = _even()
    share = (at + 1) / 2
    return weights / 2, np.sqrt(special.chdtri(df, 1 - share) / df)


# --------------------------------------------------------------------------- enough


@dataclass(frozen=True)
class Enough:
    """Whether a cheaper point will do: at most `margin` below the best of the others."""

    margin: float
    """In the unit of the records."""
    point: int | None
    """The cheapest point that is enough; None where none can be told to be."""
    loss: float
    """Of `point`, or else of `open`: the most that it may lose."""
    open: int | None
    """The cheapest point that may be enough, where it is cheaper than `point`."""
    open_loss: float
    seeds: int | None
    """About how many seeds would tell for `open`; None where more seeds would not."""


def enough(
    model: MixedModel,
    points: Sequence[int],
    cost: Mapping[int, float],
    margin: float,
    sign: int,
    alpha: float = ALPHA,
) -> Enough | None:
    """The cheapest point within `margin`; None where the points do not differ in cost.

    Every point with a value is a rival, also one that lacks a seed.
    """
    best = best_of(model, points, sign, alpha)
    if best is None:
        return None
    points = [point for point in best.losses if point in cost]
    if len(points) < 2 or min(cost[p] for p in points) == max(cost[p] for p in points):
        return None
    order = sorted(points, key=lambda point: (cost[point], best.losses[point]))
    found = next((point for point in order if best.losses[point] <= margin), None)
    cheaper = order if found is None else [p for p in order if cost[p] < cost[found]]
    undecided = next((point for point in cheaper if best.estimates[point] <= margin), None)
    seeds = None if undecided is None else _seeds_for(undecided, best, model, margin * sign, alpha)
    return Enough(
        margin=margin,
        point=found,
        loss=math.nan if found is None else best.losses[found],
        open=undecided,
        open_loss=math.nan if undecided is None else best.losses[undecided],
        seeds=seeds,
    )


def _seeds_for(
    point: int, best: Best, model: MixedModel, signed: float, alpha: float
) -> int | None:
    """Seeds with which the bound would be inside the margin, all means and variances as seen.

    Args:
        signed: the margin, below zero where lower is better.
    """
    sign, margin = math.copysign(1, signed), abs(signed)
    others = [other for other in best.losses if other != point]
    square, have = model.layout.mean_square, len(model.layout.seeds)
    if square is None:
        return None
    seen = [
        (sign * test.estimate, test.share * test.error**2)
        for other in others
        if (test := model.test(difference(other, point))) is not None and test.error is not None
    ]
    for seeds in range(have + 1, MOST_SEEDS + 1):
        quantile = dunnett(len(others), (len(best.losses) - 1) * (seeds - 1), alpha)
        if all(
            ahead + quantile * math.sqrt(2 * square / seeds + rest) <= margin
            for ahead, rest in seen
        ):
            return seeds
    return None
