import math

import pytest
import torch
from torch.nn import functional as F

from harness.errors import ConfigError
from harness.objectives import token
from harness.objectives.matching import match, one_to_one
from harness.objectives.token import (
    TokenLoss,
    in_batch_loss,
    matched_distance,
    pair_scores,
    token_loss,
    within_pair_loss,
)

MATCHINGS = ["one_to_one", "many_to_one", "top_k", "sinkhorn"]
NEGATIVES = ["within_pair", "in_batch", "none"]
LENGTHS = [3, 1, 4, 2]


def batch(lengths=LENGTHS, patches=9, words=6, dim=5, seed=0):
    """Unit-norm patches and words; caption i has lengths[i] words after its start token."""
    rng = torch.Generator().manual_seed(seed)
    n = len(lengths)
    image = F.normalize(torch.randn(n, patches, dim, generator=rng), dim=-1)
    text = F.normalize(torch.randn(n, words, dim, generator=rng), dim=-1)
    place = torch.arange(words)
    mask = (place > 0) & (place <= torch.tensor(lengths)[:, None])
    return image.requires_grad_(), text.requires_grad_(), mask


def every_combination(test):
    test = pytest.mark.parametrize("matching", MATCHINGS)(test)
    return pytest.mark.parametrize("negatives", NEGATIVES)(test)


# --------------------------------------------------------------------------- none


def test_without_negatives_by_hand():
    # pair 0 matches at cosines 0.5 and 0.9, pair 1 at 0.2: ((0.5 + 0.1) / 2 + 0.8) / 2
    similarity = torch.tensor([[[0.5, 0.0], [0.0, 0.9]], [[0.2, 0.1], [0.7, 0.7]]])
    weights = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]])
    assert matched_distance(similarity, weights).item() == pytest.approx(0.55, abs=1e-6)


def test_gradient_of_a_word_is_its_matched_patch_and_nothing_of_the_matching():
    patches, words, mask = batch()
    weights = one_to_one((words @ patches.mT).detach(), mask)
    token_loss(patches, words, mask, TokenLoss(negatives="none")).backward()
    share = 1.0 / (4 * torch.tensor(LENGTHS).view(4, 1, 1))  # of N pairs, of the pair's words
    torch.testing.assert_close(words.grad, -share * (weights @ patches.detach()))


# --------------------------------------------------------------------------- within_pair


def test_within_pair_by_hand():
    # one pair, words matched with patches 0 and 1 at cosine 0.8, the other's at 0.1; patch 2 free
    similarity = torch.tensor([[[0.8, 0.1, 0.99], [0.1, 0.8, 0.99]]])
    weights = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    expected = math.log(1 + math.exp((0.1 - 0.8) / 0.5))
    loss = within_pair_loss(similarity, weights, tau=0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_within_pair_is_the_cross_entropy_of_words_against_the_matched_patches():
    patches, words, mask = batch()
    weights = one_to_one((words @ patches.mT).detach(), mask)
    of_pairs = []
    for patch, word, weight, real in zip(patches, words, weights, mask, strict=True):
        matched = patch[weight[real].argmax(dim=1)]
        logits = word[real] @ matched.T / 0.07
        of_pairs.append(F.cross_entropy(logits, torch.arange(len(matched))))
    loss = token_loss(patches, words, mask, TokenLoss())
    torch.testing.assert_close(loss, torch.stack(of_pairs).mean())


def test_a_patch_that_words_share_is_one_candidate():
    # both words match patch 0, so there is nothing to tell it from
    similarity = torch.tensor([[[0.9, 0.7, 0.0], [0.8, 0.1, 0.0]]])
    weights = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    assert within_pair_loss(similarity, weights, tau=0.1).item() == pytest.approx(0.0, abs=1e-6)


def test_within_pair_of_sinkhorn_goes_to_that_of_one_to_one():
    image, text, mask = batch()
    exact = token_loss(image, text, mask, TokenLoss(tau=0.5))
    gaps = [
        abs(token_loss(image, text, mask, TokenLoss(matching="sinkhorn", tau=0.5, **plan)) - exact)
        for plan in ({"eps": 0.1}, {"eps": 0.003, "iterations": 500})
    ]
    assert gaps[0] > 0.02
    assert gaps[1] < 0.002


# --------------------------------------------------------------------------- in_batch


def test_in_batch_by_hand():
    # text j's one word is patch 0 of image j alone: S is the identity, at tau 1
    patches = torch.tensor([[[1.0, 0, 0], [0, 0, 1.0]], [[0, 1.0, 0], [0, 0, 1.0]]])
    words = torch.tensor([[[0, 0, 1.0], [1.0, 0, 0]], [[0, 0, 1.0], [0, 1.0, 0]]])
    mask = torch.tensor([[False, True], [False, True]])
    config = TokenLoss(negatives="in_batch", tau=1.0)
    torch.testing.assert_close(pair_scores(patches, words, mask, config), torch.eye(2))
    expected = math.log(math.e + 1) - 1
    assert in_batch_loss(patches, words, mask, config).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_a_pair_score_is_the_mean_cosine_of_that_image_and_text_matched_alone(matching):
    patches, words, mask = batch()
    config = TokenLoss(matching=matching)
    scores = pair_scores(patches, words, mask, config)
    for i in range(4):
        for j in range(4):
            similarity = (words[j] @ patches[i].T).detach()[None]
            weights = match(similarity, mask[j : j + 1], config)
            expected = (weights * similarity).sum() / weights.sum()
            assert scores[i, j].item() == pytest.approx(expected.item(), abs=1e-6)


def test_many_to_one_in_batch_is_filips_text_to_image_similarity():
    patches, words, mask = batch()
    best = torch.einsum("ipd,jld->ijlp", patches, words).amax(-1)
    scores = (best * mask).sum(-1) / mask.sum(-1)
    target = torch.arange(4)
    logits = scores / 0.07
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    config = TokenLoss(matching="many_to_one", negatives="in_batch")
    torch.testing.assert_close(token_loss(patches, words, mask, config), expected)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_texts_taken_one_at_a_time_give_the_same_value_and_gradient(matching, monkeypatch):
    config = TokenLoss(matching=matching, negatives="in_batch")
    whole, chunked = batch(), batch()
    loss = token_loss(*whole, config)
    loss.backward()
    monkeypatch.setattr(token, "CHUNK_ELEMENTS", 1)
    in_chunks = token_loss(*chunked, config)
    in_chunks.backward()
    torch.testing.assert_close(in_chunks, loss)
    torch.testing.assert_close(chunked[0].grad, whole[0].grad)
    torch.testing.assert_close(chunked[1].grad, whole[1].grad)


def test_cosines_of_the_forward_pass_are_not_kept_for_the_backward_pass(monkeypatch):
    kept = []

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    monkeypatch.setattr(token, "CHUNK_ELEMENTS", 1)
    patches, words, mask = batch()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        token_loss(patches, words, mask, TokenLoss(negatives="in_batch"))
    assert max(kept) < 4 * 4 * 6 * 9  # N N L P


def test_a_text_without_words_is_no_candidate_but_its_image_is():
    patches, words, mask = batch([3, 0, 2])
    config = TokenLoss(negatives="in_batch")
    scores = pair_scores(patches, words, mask, config) / config.tau
    of_texts = F.cross_entropy(scores.T[[0, 2]], torch.tensor([0, 2]), reduction="sum")
    of_images = F.cross_entropy(scores[[0, 2]][:, [0, 2]], torch.tensor([0, 1]), reduction="sum")
    expected = (of_texts + of_images) / 2 / 3
    torch.testing.assert_close(token_loss(patches, words, mask, config), expected)


def test_a_batch_of_one_has_nothing_to_contrast_in_batch():
    with pytest.raises(ConfigError, match=r"'in_batch'.*batch has 1.*allows: none, within_pair"):
        token_loss(*batch([3]), TokenLoss(negatives="in_batch"))


# --------------------------------------------------------------------------- all of them


@every_combination
def test_pads_and_special_tokens_change_nothing_and_get_no_gradient(negatives, matching):
    patches, words, mask = batch()
    config = TokenLoss(negatives=negatives, matching=matching)
    loss = token_loss(patches, words, mask, config)
    loss.backward()
    assert (words.grad[~mask] == 0).all()
    assert (words.grad[mask] != 0).any()
    tempting = torch.where(mask[..., None], words, patches[:, :1]).detach()
    torch.testing.assert_close(token_loss(patches, tempting, mask, config), loss)


@every_combination
def test_permuting_patches_changes_nothing(negatives, matching):
    patches, words, mask = batch()
    config = TokenLoss(negatives=negatives, matching=matching)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    permuted = token_loss(patches[:, order], words, mask, config)
    torch.testing.assert_close(permuted, token_loss(patches, words, mask, config))


@every_combination
def test_captions_without_words_contribute_0_and_no_nan(negatives, matching):
    patches, words, mask = batch([0, 0, 0])
    loss = token_loss(patches, words, mask, TokenLoss(negatives=negatives, matching=matching))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(words.grad, torch.zeros_like(words))
    assert torch.equal(patches.grad, torch.zeros_like(patches))


@every_combination
def test_a_caption_without_words_among_others_gives_no_nan_and_gets_no_gradient(
    negatives, matching
):
    patches, words, mask = batch([3, 0, 2])
    loss = token_loss(patches, words, mask, TokenLoss(negatives=negatives, matching=matching))
    loss.backward()
    assert loss.isfinite()
    assert patches.grad.isfinite().all()
    assert torch.equal(words.grad[1], torch.zeros_like(words.grad[1]))


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("negatives", ["within_pair", "none"])
def test_a_caption_without_words_adds_0_to_the_sum_over_pairs(negatives, matching):
    config = TokenLoss(negatives=negatives, matching=matching)
    patches, words, mask = batch([3, 0, 2])
    worded = [0, 2]
    without = token_loss(patches[worded], words[worded], mask[worded], config)
    torch.testing.assert_close(3 * token_loss(patches, words, mask, config), 2 * without)


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("negatives", ["within_pair", "none"])
def test_the_mean_over_equal_shares_of_a_batch_is_the_loss_of_the_batch(negatives, matching):
    config = TokenLoss(negatives=negatives, matching=matching)
    patches, words, mask = batch([3, 1, 4, 0])
    shares = [
        token_loss(patches[part], words[part], mask[part], config)
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(sum(shares) / 2, token_loss(patches, words, mask, config))


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("negatives", ["within_pair", "none"])
def test_a_batch_of_one_is_fine_within_the_pair(negatives, matching):
    patches, words, mask = batch([3])
    loss = token_loss(patches, words, mask, TokenLoss(negatives=negatives, matching=matching))
    loss.backward()
    assert loss > 0
    assert words.grad.isfinite().all()


@every_combination
def test_more_words_than_patches_is_fine(negatives, matching):
    patches, words, mask = batch(LENGTHS, patches=3)
    loss = token_loss(patches, words, mask, TokenLoss(negatives=negatives, matching=matching))
    loss.backward()
    assert loss > 0
    assert words.grad.isfinite().all()


@every_combination
def test_a_nan_among_the_tokens_reaches_the_loss(negatives, matching):
    patches, words, mask = batch()
    broken = words.detach().clone()
    broken[0, 1] = math.nan
    config = TokenLoss(negatives=negatives, matching=matching)
    assert token_loss(patches, broken, mask, config).isnan()


@every_combination
def test_a_few_steps_down_the_gradient_lower_the_loss(negatives, matching):
    patches, words, mask = batch()
    config = TokenLoss(negatives=negatives, matching=matching, tau=0.5)
    losses = []
    for _ in range(5):
        unit = (F.normalize(patches, dim=-1), F.normalize(words, dim=-1))
        loss = token_loss(*unit, mask, config)
        losses.append(loss.item())
        for tensor, grad in zip(
            (patches, words), torch.autograd.grad(loss, (patches, words)), strict=True
        ):
            tensor.data -= 0.3 * grad
    assert losses[-1] < losses[0]
