"""Recall@k of image-text retrieval, both ways, and its means.

A query is a hit when any of its positives is among the k best (Radford et al. 2021).  Positive is
a caption's own picture, as in CLIP_benchmark; `_shared`: any picture owning the identical caption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import comb

from harness.metrics.base import (
    KS,
    RETRIEVAL,
    TITLES_OF_WAYS,
    WAYS,
    Metric,
    Retrieved,
    Value,
    register,
)

SHARED = "_shared"
MEAN_RECALL = "mean_recall"
_SHARED_WORDS = ", shared captions"


def recall_kind(way: str, k: int, *, shared: bool = False) -> str:
    """`image_retrieval_recall@1`, or `image_retrieval_recall_shared@1`."""
    return f"{way}_recall{SHARED * shared}@{k}"


def mean_recall_kind(*, shared: bool = False) -> str:
    """`mean_recall`, or `mean_recall_shared`."""
    return f"{MEAN_RECALL}{SHARED * shared}"


def recall_chance(pool: int, positives: Iterable[int], k: int) -> float:
    """Expected recall@k of a random ranking of `pool` candidates, averaged over queries.

    A query with p positives is missed when all k drawn are negatives, so its chance is
    1 - C(pool - p, k) / C(pool, k) (hypergeometric).  `positives` holds p of each query; a k
    beyond the pool counts as the whole pool.
    """
    k = min(k, pool)
    queries = Counter(positives)
    misses = sum(n * comb(pool - p, k) / comb(pool, k) for p, n in queries.items())
    return 1.0 - misses / queries.total()


class Recall(Metric):
    """Share of queries with a positive among the k best."""

    needs = RETRIEVAL
    rules = (
        (
            "positives",
            "only the caption's own picture, as in CLIP_benchmark; shared: any picture owning the "
            "identical caption (case, spacing and final punctuation aside)",
        ),
        (
            "recall",
            "share of queries with any positive among the k best; pictures without captions are "
            "in the pool and are no queries",
        ),
    )

    def __init__(self, way: str, k: int, *, shared: bool) -> None:
        self.way, self.k, self.shared = way, k, shared
        self.kind = self.per_item = recall_kind(way, k, shared=shared)
        self.title = f"{TITLES_OF_WAYS[way]} R@{k}{_SHARED_WORDS * shared}"
        self.ways = (way,)
        larger = [recall_kind(way, other, shared=shared) for other in KS if other > k]
        wider = [] if shared else [recall_kind(way, k, shared=True)]
        self.at_most = (*larger[:1], *wider)

    def compute(self, found: Retrieved) -> Value:
        """The value of `found`."""
        ranking = found.ranking(self.way, shared=self.shared)
        chance = recall_chance(ranking.pool, ranking.positives.tolist(), self.k)
        return Value.mean(self.kind, ranking.at(self.k), chance)


class MeanRecall(Metric):
    """Mean of the recalls of both ways and every k, under one rule."""

    needs = RETRIEVAL
    ways = WAYS

    def __init__(self, *, shared: bool) -> None:
        self.kind = mean_recall_kind(shared=shared)
        self.title = f"mean recall{_SHARED_WORDS * shared}"
        self._recalls = [Recall(way, k, shared=shared) for way in WAYS for k in KS]
        self.parts = tuple(recall.kind for recall in self._recalls)

    def compute(self, found: Retrieved) -> Value:
        """The value of `found`."""
        each = [recall.compute(found) for recall in self._recalls]
        value = sum(one.value or 0.0 for one in each) / len(each)
        chance = sum(one.chance or 0.0 for one in each) / len(each)
        return Value(value, sum(one.n for one in each) // len(KS), chance)


for _shared in (False, True):
    for _way in WAYS:
        for _k in KS:
            register(Recall(_way, _k, shared=_shared))
for _shared in (False, True):
    register(MeanRecall(shared=_shared))
