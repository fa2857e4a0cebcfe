"""Retrieval where a query has many right answers, known from labels: mAP@R, R-Precision, R@k."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.metrics.base import KS, TITLES_OF_WAYS, WAYS, Metric, Value, register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RELEVANCE = "relevance"
MAP_AT_R, R_PRECISION = "map_at_r", "r_precision"
_AT_R = {MAP_AT_R: "mAP@R", R_PRECISION: "R-Precision"}


def at_k(k: int) -> str:
    """What is measured of a query by its k best."""
    return f"relevant@{k}"


def kind_of(way: str, what: str) -> str:
    """`image_retrieval_map_at_r`."""
    return f"{way}_{what}"


@dataclass(frozen=True)
class Related:
    """The outcomes of both directions.

    Attributes:
        values: kind -> float64 (Q,), one a query.
        chance: kind -> their mean in a random order.
    """

    values: dict[str, NDArray[np.float64]]
    chance: dict[str, float]


class RelevanceMetric(Metric):
    """Mean over the queries that have labels."""

    needs = RELEVANCE
    rules = (
        (
            RELEVANCE,
            "R: number of relevant answers of a query; mAP@R: mean precision at the relevant ones "
            "among the R best, over R (Musgrave et al. 2020); equal scores count by expectation",
        ),
    )

    def __init__(self, way: str, what: str, title: str, at_most: tuple[str, ...]) -> None:
        self.ways = (way,)
        self.kind = self.per_item = kind_of(way, what)
        self.title = f"{TITLES_OF_WAYS[way]} {title}"
        self.at_most = tuple(kind_of(way, other) for other in at_most)

    def compute(self, found: Related) -> Value:
        """The value of `found`."""
        return Value.mean(self.kind, found.values[self.kind], found.chance[self.kind])

    def count(self, facts: Mapping[str, Any]) -> int:
        """See Metric: queries with labels."""
        return int(facts["queries"][self.ways[0]])


for _way in WAYS:
    register(RelevanceMetric(_way, MAP_AT_R, _AT_R[MAP_AT_R], (R_PRECISION,)))
    register(RelevanceMetric(_way, R_PRECISION, _AT_R[R_PRECISION], ()))
    for _k in KS:
        _larger = tuple(at_k(other) for other in KS if other > _k)[:1]
        register(RelevanceMetric(_way, at_k(_k), f"R@{_k}, all relevant", _larger))
