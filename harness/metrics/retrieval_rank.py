"""Mean and median rank of the best positive in image-text retrieval, both ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import comb

from harness.metrics.base import RETRIEVAL, TITLES_OF_WAYS, WAYS, Metric, Retrieved, Value, register


def mean_rank_chance(pool: int, positives: Iterable[int]) -> float:
    """Expected rank of the best of p positives in a random order, averaged over queries."""
    queries = Counter(positives)
    return sum(n * (pool + 1) / (p + 1) for p, n in queries.items()) / queries.total()


def median_rank_chance(pool: int, positives: Iterable[int]) -> float:
    """The least rank that half of the queries reach or beat in expectation, in a random order."""
    queries = Counter(positives)
    low, high = 1, pool
    while low < high:
        middle = (low + high) // 2
        beyond = sum(n * comb(pool - p, middle) / comb(pool, middle) for p, n in queries.items())
        if beyond <= queries.total() / 2:
            high = middle
        else:
            low = middle + 1
    return float(low)


class MeanRank(Metric):
    """Mean over queries of the rank of the best positive, 1 the first."""

    needs = RETRIEVAL
    unit = "place"
    higher_is_better = False
    least = 1.0
    most = None
    rules = (
        (
            "rank",
            "place of the best positive, 1 the first; expected over the order of equal scores",
        ),
    )

    def __init__(self, way: str) -> None:
        self.way, self.ways = way, (way,)
        self.kind = f"{way}_mean_rank"
        self.title = f"{TITLES_OF_WAYS[way]} mean rank"
        self.per_item = f"{way}_rank"

    def compute(self, found: Retrieved) -> Value:
        """The value of `found`."""
        ranking = found.ranking(self.way)
        chance = mean_rank_chance(ranking.pool, ranking.positives.tolist())
        return Value.mean(f"{self.way}_rank", ranking.ranks, chance)


class MedianRank(MeanRank):
    """Median over queries of that rank: the mean of the middle two for an even number."""

    def __init__(self, way: str) -> None:
        super().__init__(way)
        self.kind = f"{way}_median_rank"
        self.title = f"{TITLES_OF_WAYS[way]} median rank"
        self.per_item = None

    def compute(self, found: Retrieved) -> Value:
        """The value of `found`."""
        import numpy as np

        ranking = found.ranking(self.way)
        chance = median_rank_chance(ranking.pool, ranking.positives.tolist())
        return Value(float(np.median(ranking.ranks)), len(ranking.ranks), chance)


for _way in WAYS:
    register(MeanRank(_way))
    register(MedianRank(_way))
