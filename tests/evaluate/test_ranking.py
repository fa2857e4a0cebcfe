"""Ties by expectation, worked out by hand and by drawing every order."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.errors import InvariantError
from harness.evaluate.scoring import ranking
from harness.evaluate.scoring.ranking import expected_hits


def hits(scores: list[float], positive: list[int], ks: tuple[int, ...]) -> list[float]:
    """One query whose scores are given: candidates are points on a line through it."""
    query = torch.ones(1, 1)
    candidates = torch.tensor(scores).unsqueeze(1)
    mask = torch.zeros(1, len(scores), dtype=torch.bool)
    mask[0, positive] = True
    found: list[float] = expected_hits(query, candidates, lambda rows: mask[rows], ks)[0].tolist()
    return found


def test_without_ties_a_hit_is_zero_or_one() -> None:
    assert hits([0.9, 0.8, 0.7], [2], (1, 2, 3)) == [0.0, 0.0, 1.0]


def test_two_equal_scores_share_the_first_place() -> None:
    assert hits([0.5, 0.5], [0], (1, 2)) == [0.5, 1.0]


def test_a_tie_below_a_better_candidate_shares_what_is_left() -> None:
    # One above, four tied of which one positive: 1 and 2 of the 4 places are within k = 2 and 3.
    assert hits([0.9, 0.5, 0.5, 0.5, 0.5], [3], (1, 2, 3, 5)) == [0.0, 0.25, 0.5, 1.0]


def test_any_of_several_positives_in_a_tie_is_a_hit() -> None:
    # Two positives of four tied: missed with 2/4 at k = 1, with 2/4 x 1/3 at k = 2.
    assert hits([0.5] * 4, [0, 2], (1, 2, 3)) == pytest.approx([1 / 2, 5 / 6, 1.0])


def test_a_constant_model_is_at_chance_not_at_the_top() -> None:
    assert hits([0.0] * 10, [0], (1, 5, 10)) == pytest.approx([0.1, 0.5, 1.0])


@pytest.mark.parametrize(
    ("scores", "positive"),
    [([2, 1, 1, 1, 0, 0], [2, 4]), ([1, 1, 1, 2, 2, 0], [5, 0]), ([0, 0, 0, 0, 0, 1], [0, 1, 2])],
)
def test_equals_the_mean_over_every_order_of_ties(scores: list[float], positive: list[int]) -> None:
    ks = (1, 2, 3, 4)
    orders = [sorted(order, key=lambda i: -scores[i]) for order in permutations(range(len(scores)))]
    counted = [
        float(Fraction(sum(bool(set(o[:k]) & set(positive)) for o in orders), len(orders)))
        for k in ks
    ]
    assert hits(scores, positive, ks) == pytest.approx(counted, abs=1e-12)


def test_k_beyond_the_pool_counts_as_the_whole_pool() -> None:
    assert hits([0.3, 0.2], [1], (10,)) == [1.0]


def test_equal_candidates_tie_exactly_in_any_width() -> None:
    generator = torch.Generator().manual_seed(0)
    base = F.normalize(torch.randn(37, 61, generator=generator), dim=-1)
    candidates = base.repeat(3, 1)
    positive = torch.eye(37).bool().repeat(1, 3)
    positive[:, 37:] = False
    found = expected_hits(base, candidates, lambda rows: positive[rows], (1,))
    assert torch.equal(found, torch.full((37, 1), 1 - 2 / 3, dtype=torch.float64))


def test_chunks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    queries = F.normalize(torch.randn(23, 8, generator=generator), dim=-1)
    candidates = F.normalize(torch.randn(31, 8, generator=generator), dim=-1)
    positive = torch.rand(23, 31, generator=generator) < 0.1
    positive[:, 0] = True

    def mask(rows: slice) -> Tensor:
        return positive[rows]

    whole = expected_hits(queries, candidates, mask, (1, 5, 10))
    monkeypatch.setattr(ranking, "_CHUNK_SCORES", 31 * 4)
    assert torch.equal(expected_hits(queries, candidates, mask, (1, 5, 10)), whole)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_inf_are_refused_before_any_ranking(bad: float) -> None:
    with pytest.raises(InvariantError, match="1 of 2 candidate embeddings hold NaN or Inf"):
        hits([0.5, bad], [1], (1,))


def test_a_query_without_a_positive_is_refused() -> None:
    with pytest.raises(InvariantError, match="no positive"):
        hits([0.5, 0.4], [], (1,))
