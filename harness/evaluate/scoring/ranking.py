"""Where a true match stands in a ranking, exactly, with ties counted by expectation.

Pure functions of embeddings, in fp32 on the CPU whatever encoded them, so that neither device nor
precision nor batch decides a tie.  Knows nothing of captions, classes or names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import InvariantError

_CHUNK_SCORES = 2**20
"""Scores held at once: queries are taken in chunks, so memory does not grow as N x M."""


@dataclass(frozen=True)
class Standing:
    """Where the best positive of each query (Q,) stands, as float64 counts of candidates.

    Attributes:
        above: those that score higher than the best positive.
        tied: those that score as high, itself among them.
        tied_positive: the positives among those.
    """

    above: Tensor
    tied: Tensor
    tied_positive: Tensor

    def hits(self, ks: Sequence[int]) -> Tensor:
        """Probability (Q, len(ks)) that a positive is among the k best, over the order of ties."""
        return torch.stack([self._hit(k) for k in ks], dim=1)

    def _hit(self, k: int) -> Tensor:
        missed = torch.ones(len(self.above), dtype=torch.float64)
        for place in range(k):
            others = (self.tied - self.tied_positive - place).clamp(min=0)
            miss_here = others / (self.tied - place).clamp(min=1)
            missed = torch.where(k - self.above > place, missed * miss_here, missed)
        return 1.0 - missed

    def ranks(self) -> Tensor:
        """Place (Q,) of the first positive, 1 the best, expected over the order of ties.

        The first of p positives among t tied candidates comes (t + 1) / (p + 1) places after those
        above.
        """
        return self.above + (self.tied + 1) / (self.tied_positive + 1)


def check_finite(what: str, embeddings: Tensor) -> None:
    """Raise InvariantError if any row of `embeddings` (N, D) holds a NaN or Inf.

    Comparisons with NaN are all false, so a ranking would put an all-NaN model's match first.
    """
    bad = int((~torch.isfinite(embeddings).all(dim=1)).sum())
    if bad:
        raise InvariantError(f"{bad} of {len(embeddings)} {what} embeddings hold NaN or Inf")


def expected_hits(
    queries: Tensor,
    candidates: Tensor,
    positives: Callable[[slice], Tensor],
    ks: Sequence[int],
    look: Callable[[slice, Tensor], None] = lambda chunk, scores: None,
) -> Tensor:
    """Probability, per query and k, that a positive is among the k best-scored candidates.

    Candidates of equal score are taken in uniformly random order and the probability over those
    orders is computed exactly; without ties it is 0 or 1.  Only the tie at the best positive's
    score matters: with b candidates above it, t at it and p positives among those t, a query is
    missed when the k - b places left are all taken by the t - p others.

    Args:
        queries: unit-norm (Q, D).
        candidates: unit-norm (M, D).
        positives: slice of the queries -> bool (rows, M); every row needs a positive.
        ks: sizes of the list that is looked at; one beyond M counts as M.
        look: is shown each chunk of the queries with its scores (rows, M).

    Returns:
        float64 (Q, len(ks)).

    Raises:
        InvariantError: an embedding is not finite, or a query has no positive.
    """
    check_finite("query", queries)
    check_finite("candidate", candidates)
    queries, candidates = queries.float().cpu(), candidates.float().cpu()
    rows = max(1, _CHUNK_SCORES // max(1, len(candidates)))
    score = _scorer(candidates)
    hits = torch.zeros(len(queries), len(ks), dtype=torch.float64)
    for start in range(0, len(queries), rows):
        chunk = slice(start, min(start + rows, len(queries)))
        scores = score(queries[chunk])
        look(chunk, scores)
        hits[chunk] = _standing(scores, positives(chunk)).hits(ks)
    return hits


def _scorer(candidates: Tensor) -> Callable[[Tensor], Tensor]:
    """Queries (Q, D) to their scores (Q, M), equal to the last bit for equal candidates.

    A matrix product does not promise that for two columns, so each distinct one is scored once.
    """
    distinct, column = torch.unique(candidates, dim=0, return_inverse=True)
    if len(distinct) == len(candidates):
        return lambda queries: queries @ candidates.T
    return lambda queries: (queries @ distinct.T)[:, column]


def _standing(scores: Tensor, positive: Tensor) -> Standing:
    if not bool(positive.any(dim=1).all()):
        raise InvariantError("a query has no positive among the candidates")
    best = scores.masked_fill(~positive, -torch.inf).amax(dim=1, keepdim=True)
    level = scores == best
    counts = ((scores > best), level, (level & positive))
    return Standing(*(count.sum(dim=1).double() for count in counts))
