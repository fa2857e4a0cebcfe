"""Whether a few candidates are near to everything, and so in everybody's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics.base import GEOMETRY, TITLES_OF_WAYS, WAYS, Embedded, Metric, Value, register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_K = 10
_ROWS = 1024
"""Queries ranked at once."""


class Hubness(Metric):
    """Skewness of how often a candidate is among the 10 nearest (Radovanovic et al. 2010).

    Candidates that are as near as the tenth share the places that are left.
    """

    needs = GEOMETRY
    unit = "skewness"
    higher_is_better = False
    has_chance = False
    least, most = -float("inf"), None
    rules = (("hubness", f"skewness over candidates of their number of lists of the {_K} nearest"),)

    def __init__(self, way: str) -> None:
        self.ways = (way,)
        self.kind = f"{way}_hubness"
        self.title = f"{TITLES_OF_WAYS[way]} hubness"

    def compute(self, found: Embedded) -> Value:
        """The value of `found`; none where every candidate is in as many lists."""
        import numpy as np

        captioned = found.image[np.unique(found.owners)]
        pair = (found.text, found.image), (captioned, found.text)
        queries, candidates = pair[WAYS.index(self.ways[0])]
        counts = occurrences(queries, candidates)
        gaps = counts - counts.mean()
        if np.allclose(gaps, 0):
            reason = f"every candidate is among the {_K} nearest of as many queries"
            return Value(None, len(queries), reason=reason)
        return Value(float((gaps**3).mean() / (gaps**2).mean() ** 1.5), len(queries))


def occurrences(
    queries: NDArray[np.float32], candidates: NDArray[np.float32]
) -> NDArray[np.float64]:
    """How many of the queries (Q, D) have each candidate (M, D) among their 10 nearest, (M,)."""
    import numpy as np

    k = min(_K, len(candidates))
    # Equal candidates are scored once: a matrix product may give two columns different last bits.
    distinct, column = np.unique(candidates, axis=0, return_inverse=True)
    counts = np.zeros(len(candidates))
    for start in range(0, len(queries), _ROWS):
        scores = (queries[start : start + _ROWS] @ distinct.T)[:, column.ravel()]
        last = np.partition(scores, -k, axis=1)[:, -k, None]
        above, level = scores > last, scores == last
        share = (k - above.sum(1, keepdims=True)) / level.sum(1, keepdims=True)
        counts += above.sum(0) + (level * share).sum(0)
    return counts


for _way in WAYS:
    register(Hubness(_way))
