import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from harness.objectives.matching import (
    many_to_one,
    match,
    match_patches,
    one_to_one,
    sinkhorn,
    top_k,
)
from harness.objectives.token import TokenLoss

MATCHINGS = ["one_to_one", "many_to_one", "top_k", "sinkhorn"]


def batch(n=12, words=5, patches=9, seed=0):
    """Cosines (n, words, patches) and captions of 0 to `words` - 2 words after a start token."""
    rng = torch.Generator().manual_seed(seed)
    tokens = [F.normalize(torch.randn(n, k, 4, generator=rng), dim=-1) for k in (words, patches)]
    place = torch.arange(words)
    lengths = torch.arange(n)[:, None] % (words - 1)
    return tokens[0] @ tokens[1].mT, (place > 0) & (place <= lengths)


def all_words(similarity):
    return torch.ones(similarity.shape[:2], dtype=torch.bool)


def total(weights, similarity):
    return (weights * similarity).sum((1, 2))


# --------------------------------------------------------------------------- one_to_one


@pytest.mark.parametrize(("words", "patches"), [(7, 16), (9, 9), (16, 4)])
def test_one_to_one_equals_scipys_linear_sum_assignment_on_every_pair(words, patches):
    similarity, mask = batch(n=40, words=words, patches=patches)
    weights = one_to_one(similarity, mask)
    for i in range(40):
        of_words = similarity[i][mask[i]].double().numpy()
        rows, columns = linear_sum_assignment(of_words, maximize=True)
        expected = of_words[rows, columns].sum()
        assert float(total(weights, similarity)[i]) == pytest.approx(expected, abs=1e-6)


def test_one_to_one_is_the_best_of_all_assignments_tried_one_by_one():
    similarity, _ = batch(n=8, words=3, patches=5)
    best = [
        max(sum(float(pair[w, p]) for w, p in enumerate(chosen)) for chosen in choices)
        for pair in similarity
        for choices in [list(permutations(range(5), 3))]
    ]
    found = total(one_to_one(similarity, all_words(similarity)), similarity)
    torch.testing.assert_close(found, torch.tensor(best), atol=1e-6, rtol=0)


def test_one_to_one_by_hand_gives_up_a_words_best_patch_for_the_total():
    # both words like patch 0 best; 0.9 + 0.1 is less than 0.8 + 0.7
    similarity = torch.tensor([[[0.9, 0.7, 0.0], [0.8, 0.1, 0.0]]])
    expected = torch.tensor([[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])
    assert torch.equal(one_to_one(similarity, all_words(similarity)), expected)


def test_of_more_words_than_patches_as_many_as_patches_are_matched():
    similarity, _ = batch(words=7, patches=4)
    weights = one_to_one(similarity, all_words(similarity))
    assert torch.equal(weights.sum(1), torch.ones(12, 4))
    assert torch.equal(weights.sum((1, 2)), torch.full((12,), 4.0))


def test_each_word_gets_a_patch_of_its_own_and_surplus_patches_none():
    similarity, mask = batch()
    weights = one_to_one(similarity, mask)
    assert torch.equal(weights.sum(2), mask.float())
    assert weights.sum(1).max() == 1


# --------------------------------------------------------------------------- the relaxations


def test_many_to_one_by_hand_lets_words_share_a_patch():
    similarity = torch.tensor([[[0.9, 0.7, 0.0], [0.8, 0.1, 0.0]]])
    expected = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    assert torch.equal(many_to_one(similarity, all_words(similarity)), expected)


def test_top_k_by_hand_keeps_the_best_matches_of_the_assignment():
    # one_to_one matches word l with patch l at 0.2, 0.9, 0.5; the best two of three are kept
    similarity = torch.diag_embed(torch.tensor([[0.2, 0.9, 0.5]]))
    kept = top_k(similarity, all_words(similarity), keep=0.5)
    assert torch.equal(kept, torch.diag_embed(torch.tensor([[0.0, 1.0, 1.0]])))


def test_top_k_counts_only_words_and_ranks_negative_matches_above_pads():
    similarity = torch.tensor([[[0.9, 0.8, 0.9], [-0.5, -0.6, -0.9], [-0.9, -0.2, -0.9]]])
    mask = torch.tensor([[False, True, True]])
    kept = top_k(similarity, mask, keep=0.5)
    assert kept[0].nonzero().tolist() == [[2, 1]]


@pytest.mark.parametrize(
    ("keep", "words", "count"),
    # 0.6 of 25 is a little more than 15 in single precision
    [(0.01, 30, 1), (0.1, 30, 3), (0.11, 30, 4), (0.5, 5, 3), (0.6, 25, 15), (1.0, 30, 30)],
)
def test_top_k_rounds_up_and_keeps_at_least_one(keep, words, count):
    rng = torch.Generator().manual_seed(0)
    similarity = torch.randn(2, words, 36, generator=rng)
    weights = top_k(similarity, all_words(similarity), keep)
    assert weights.sum((1, 2)).tolist() == [count, count]


@pytest.mark.parametrize(("words", "patches", "seed"), [(4, 9, 0), (5, 5, 2), (7, 4, 3)])
def test_sinkhorn_goes_to_one_to_one_as_eps_goes_to_0(words, patches, seed):
    rng = torch.Generator().manual_seed(seed)
    similarity = torch.randn(3, words, patches, generator=rng).double()
    exact = one_to_one(similarity, all_words(similarity))
    gaps = [
        float((sinkhorn(similarity, all_words(similarity), eps, 500) - exact).abs().max())
        for eps in (1.0, 0.1, 0.03, 0.01)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.7
    assert gaps[-1] < 0.01


@pytest.mark.parametrize(("words", "patches"), [(4, 9), (5, 5), (7, 4)])
def test_sinkhorns_plan_is_the_entropic_optimum(words, patches):
    # the optimum is the one plan with these margins and log plan = similarity / eps + f + g
    similarity, mask = batch(n=6, words=words, patches=patches)
    mask[:, 1] = True
    plan = sinkhorn(similarity.double(), mask, eps=0.2, iterations=300)
    fits = mask.sum(1) <= patches
    torch.testing.assert_close(plan.sum(2)[fits], mask[fits].double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(plan.sum(1)[~fits], torch.ones_like(plan.sum(1)[~fits]))
    assert plan.sum(1).max() <= 1 + 1e-6
    assert plan.sum(2).max() <= 1 + 1e-6
    for one, likeness, words_of in zip(plan, similarity.double(), mask, strict=True):
        rest = (one.log() - likeness / 0.2)[words_of]
        separable = rest - rest[:1] - rest[:, :1] + rest[:1, :1]
        torch.testing.assert_close(separable, torch.zeros_like(separable), atol=1e-6, rtol=0)


def test_sinkhorn_of_a_large_eps_spreads_each_word_evenly():
    similarity, mask = batch(patches=9)
    plan = sinkhorn(similarity, mask, eps=1e4, iterations=20)
    torch.testing.assert_close(plan, mask[..., None] / torch.full((9,), 9.0), atol=1e-4, rtol=0)


# --------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("matching", MATCHINGS)
def test_pads_and_special_tokens_never_match(matching):
    similarity, mask = batch()
    tempting = similarity.masked_fill(~mask[..., None], 1.0)
    weights = match(tempting, mask, TokenLoss(matching=matching))
    assert (weights[~mask] == 0).all()
    assert torch.equal(weights, match(similarity, mask, TokenLoss(matching=matching)))


@pytest.mark.parametrize("matching", MATCHINGS)
def test_permuting_patches_permutes_the_matching_and_nothing_else(matching):
    similarity, mask = batch()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    config = TokenLoss(matching=matching)
    permuted = match(similarity[:, :, order], mask, config)
    torch.testing.assert_close(permuted, match(similarity, mask, config)[:, :, order])


@pytest.mark.parametrize("matching", MATCHINGS)
def test_a_caption_without_words_matches_nothing(matching):
    similarity, _ = batch(n=2)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    assert torch.equal(
        match(similarity, mask, TokenLoss(matching=matching)), torch.zeros_like(similarity)
    )


@pytest.mark.parametrize("matching", MATCHINGS)
def test_the_matching_takes_no_gradient(matching):
    similarity, mask = batch()
    weights = match(similarity.requires_grad_(), mask, TokenLoss(matching=matching))
    assert not weights.requires_grad


@pytest.mark.parametrize("matching", MATCHINGS)
def test_a_pair_is_matched_alike_alone_and_in_a_batch(matching):
    similarity, mask = batch()
    config = TokenLoss(matching=matching)
    together = match(similarity, mask, config)
    for i in range(len(mask)):
        alone = match(similarity[i : i + 1], mask[i : i + 1], config)[0]
        torch.testing.assert_close(together[i], alone)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_a_nan_of_one_pair_leaves_the_others_alone(matching):
    similarity, mask = batch()
    config = TokenLoss(matching=matching)
    broken = similarity.clone()
    broken[3] = math.nan
    others = np.delete(np.arange(12), 3)
    expected = match(similarity, mask, config)[others]
    torch.testing.assert_close(match(broken, mask, config)[others], expected)


# --------------------------------------------------------------------------- within a tolerance


@pytest.mark.parametrize("eps", [0.05, 0.01, 0.001, 1e-4])
@pytest.mark.parametrize(("words", "patches"), [(7, 36), (9, 9), (16, 9)])
def test_within_a_tolerance_a_patch_holds_at_most_a_hundredth_more_than_a_word(eps, words, patches):
    similarity, mask = batch(n=16, words=words, patches=patches)
    weights = sinkhorn(similarity, mask, eps, 1, tolerance=0.01)
    assert weights.sum(1).max() <= 1.01
    assert weights.sum(2).max() <= 1.01
    assert weights.isfinite().all()
    assert (weights[~mask] == 0).all()


def test_within_a_tolerance_the_plan_is_that_of_many_sweeps():
    similarity, mask = batch()
    exact = sinkhorn(similarity.double(), mask, 0.05, 2_000).float()
    close = sinkhorn(similarity, mask, 0.05, 1, tolerance=1e-4)
    torch.testing.assert_close(close, exact, atol=1e-3, rtol=0)


def test_at_the_least_eps_the_plan_within_a_tolerance_is_as_good_as_one_to_one():
    similarity, mask = batch()
    best = total(one_to_one(similarity, mask), similarity)
    found = total(sinkhorn(similarity, mask, 1e-4, 1, tolerance=0.01), similarity)
    torch.testing.assert_close(found, best, atol=0.02, rtol=0)


def test_a_nan_stops_the_sweeps_and_stays():
    similarity, mask = batch()
    similarity[5, 1, 2] = math.nan
    assert sinkhorn(similarity, mask, 0.05, 1, tolerance=0.01).isnan().any()


def test_from_the_patches_each_has_its_best_word_and_none_where_there_is_none():
    similarity = torch.tensor([[[0.1, 0.9], [0.5, 0.2], [0.9, 0.95]], [[0.1, 0.2]] * 3])
    mask = torch.tensor([[True, True, False], [False] * 3])
    weights = match_patches(similarity, mask, TokenLoss(matching="many_to_one"))
    assert weights.tolist() == [[[0, 1], [1, 0], [0, 0]], [[0, 0]] * 3]


def test_an_assignment_waits_for_the_device_once_and_hands_it_back_without(monkeypatch):
    from harness import device

    moved = []
    real = device.begin_download, device.upload
    monkeypatch.setattr(device, "begin_download", lambda *t: moved.append(len(t)) or real[0](*t))
    monkeypatch.setattr(device, "upload", lambda t, to: moved.append(t.dtype) or real[1](t, to))
    similarity, mask = torch.randn(3, 4, 5), torch.ones(3, 4, dtype=torch.bool)
    one_to_one(similarity, mask)
    assert moved == [2, torch.float32]
