import math

import pytest
import torch
from torch.nn import functional as F

from harness.config import RunConfig, override
from harness.errors import ConfigError
from harness.objectives import in_batch
from harness.objectives.in_batch import in_batch_loss, matched_cosine, pair_scores
from harness.objectives.matching import match, one_to_one
from harness.objectives.negatives import drawn_negatives, hardest_negatives
from harness.objectives.terms import BatchPlace, StepTensors
from harness.objectives.token import (
    TokenLoss,
    matched_distance,
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
    monkeypatch.setattr(in_batch, "CHUNK_ELEMENTS", 1)
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

    monkeypatch.setattr(in_batch, "CHUNK_ELEMENTS", 1)
    patches, words, mask = batch()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        token_loss(patches, words, mask, TokenLoss(negatives="in_batch"))
    assert max(kept) < 4 * 4 * 6 * 9  # N N L P


@pytest.mark.parametrize("matching", MATCHINGS)
def test_pairs_are_assigned_once_a_step_and_the_gradient_has_the_bits_of_a_graph(
    matching, monkeypatch
):
    import scipy.optimize

    real, assigned = scipy.optimize.linear_sum_assignment, []
    monkeypatch.setattr(
        scipy.optimize,
        "linear_sum_assignment",
        lambda cost: assigned.append(cost.shape) or real(cost),
    )
    config = TokenLoss(matching=matching, negatives="in_batch", keep=0.6)
    patches, words, mask = batch([3, 0, 7, 2], patches=5, words=9)  # more words than patches too
    scores = pair_scores(patches, words, mask, config)
    scores.square().sum().backward()
    assert len(assigned) == (16 if config.waits else 0)
    whole = batch([3, 0, 7, 2], patches=5, words=9)
    similarity = torch.einsum("ipd,jld->ijlp", *whole[:2])
    of_each = mask.expand(4, -1, -1).flatten(0, 1)
    expected = matched_cosine(similarity.flatten(0, 1), of_each, config).view(4, 4)
    expected.square().sum().backward()
    assert torch.equal(scores, expected)
    assert torch.equal(patches.grad, whole[0].grad)
    assert torch.equal(words.grad, whole[1].grad)


@pytest.mark.parametrize("matching", ["one_to_one", "top_k"])
def test_symmetric_within_pair_assigns_once(matching, monkeypatch):
    from harness import device

    begun = []
    real = device.begin_download
    monkeypatch.setattr(device, "begin_download", lambda *t: begun.append(1) or real(*t))
    token_loss(*batch(), TokenLoss(matching=matching, symmetric=True))
    assert len(begun) == 1


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


# --------------------------------------------------------------------------- K negatives


def of_all_but(k, matching="one_to_one", **fields):
    return TokenLoss(matching=matching, negatives="in_batch", negatives_per_pair=k, **fields)


def step_of(seed=0, lengths=LENGTHS):
    """A step's tensors on embeddings of the batch, with the pairs' drawn places."""
    rng = torch.Generator().manual_seed(seed)
    n = len(lengths)
    image, text = (F.normalize(torch.randn(n, 5, generator=rng), dim=-1) for _ in range(2))
    return StepTensors(image, text, torch.tensor(0.0), 0.0), torch.randperm(n, generator=rng)


def loss_of(config, tokens, lengths=LENGTHS, seed=0):
    step, places = step_of(seed, lengths)
    drawn = (places,) if config.negatives_from == "random" else ()
    return config.loss(step, (*tokens, *drawn), None)


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("negatives_from", ["random", "hardest"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, [3, 0, 2, 1]])
def test_all_others_chosen_equal_in_batch_in_value_and_gradient(
    matching, negatives_from, symmetric, lengths
):
    whole, some = batch(lengths), batch(lengths)
    fields = {"symmetric": symmetric, "matching": matching}
    expected = token_loss(*whole, TokenLoss(negatives="in_batch", **fields))
    found = loss_of(of_all_but(3, negatives_from=negatives_from, **fields), some, lengths)
    torch.testing.assert_close(found, expected)
    expected.backward()
    found.backward()
    torch.testing.assert_close(some[0].grad, whole[0].grad)
    torch.testing.assert_close(some[1].grad, whole[1].grad)


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("negatives_from", ["random", "hardest"])
def test_captions_without_words_among_chosen_negatives_are_no_candidates(matching, negatives_from):
    lengths = [0, 3, 0, 2, 0, 0, 1]
    patches, words, mask = batch(lengths)
    config = of_all_but(2, negatives_from=negatives_from, matching=matching)
    step, places = step_of(lengths=lengths)
    drawn = negatives_from == "random"
    chosen = drawn_negatives(places, 2) if drawn else hardest_negatives(step.image, step.text, 2)
    scores, expected = pair_scores(patches, words, mask, config).detach() / config.tau, 0.0
    for i in (1, 3, 6):
        of_text = scores[chosen.images[i], i]
        of_image = scores[i, [j for j in chosen.texts[i].tolist() if lengths[j]]]
        expected += (of_text.logsumexp(0) + of_image.logsumexp(0)).item() - 2 * scores[i, i].item()

    loss = loss_of(config, (patches, words, mask), lengths)
    loss.backward()

    assert loss.item() == pytest.approx(expected / 2 / len(lengths), rel=1e-5)
    assert patches.grad.isfinite().all()
    assert words.grad.isfinite().all()
    assert not words.grad[[0, 2, 4, 5]].any()


def test_drawn_negatives_by_hand():
    # the order is 2, 0, 3, 1: pair 0 is followed by 3 and then 1, and 2 and then 1 stand before it
    chosen = drawn_negatives(torch.tensor([1, 3, 0, 2]), 2)
    assert chosen.images.tolist() == [[0, 3, 1], [1, 2, 0], [2, 0, 3], [3, 1, 2]]
    assert chosen.texts[0].tolist() == [0, 2, 1]


def test_every_picture_and_every_text_has_as_many_negatives_and_none_twice():
    places = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    chosen = drawn_negatives(places, 5)
    for rows in (chosen.images, chosen.texts):
        assert all(len(set(row)) == 6 for row in rows.tolist())
        assert rows[:, 0].tolist() == list(range(16))
        assert rows.flatten().bincount().tolist() == [6] * 16


def test_hardest_negatives_are_the_most_similar_others():
    image = torch.eye(3)
    text = F.normalize(torch.tensor([[1.0, 0.5, 0], [0, 1.0, 0.2], [0.9, 0, 1.0]]), dim=-1)
    chosen = hardest_negatives(image.requires_grad_(), text, 1)
    assert chosen.texts.tolist() == [[0, 2], [1, 0], [2, 1]]
    assert chosen.images.tolist() == [[0, 1], [1, 2], [2, 0]]


@pytest.mark.parametrize("negatives_from", ["random", "hardest"])
def test_chosen_negatives_by_hand(negatives_from):
    # S is the identity: every text finds its word in its own picture alone
    patches, words = torch.eye(4)[:, None].repeat(1, 2, 1), torch.eye(4)[:, None]
    mask = torch.ones(4, 1, dtype=torch.bool)
    config = of_all_but(2, negatives_from=negatives_from, tau=1.0)
    expected = math.log(math.e + 2) - 1
    assert loss_of(config, (patches, words, mask)).item() == pytest.approx(expected, abs=1e-6)


def test_only_the_chosen_pairs_are_matched(monkeypatch):
    matched = []

    def noted(similarity, *more):
        matched.append(len(similarity))
        return match(similarity, *more)

    monkeypatch.setattr(in_batch, "match", noted)
    lengths = [2] * 16
    with torch.no_grad():
        loss_of(of_all_but(3), batch(lengths), lengths)
    assert sum(matched) == 16 * (3 + 1)


def test_chosen_pairs_taken_one_at_a_time_give_the_same(monkeypatch):
    whole, chunked = batch(), batch()
    loss = loss_of(of_all_but(2), whole)
    loss.backward()
    monkeypatch.setattr(in_batch, "CHUNK_ELEMENTS", 1)
    in_chunks = loss_of(of_all_but(2), chunked)
    in_chunks.backward()
    torch.testing.assert_close(in_chunks, loss)
    torch.testing.assert_close(chunked[0].grad, whole[0].grad)


def test_the_order_is_drawn_by_the_step_and_shared_by_the_processes():
    config, ids = of_all_but(2, weight=1.0), torch.zeros(4, 3, dtype=torch.int64)
    places = [
        config.inputs(ids, BatchPlace(0, step, first, 8, 77, 20)).places
        for step, first in ((0, 0), (0, 4), (1, 0))
    ]
    assert sorted(torch.cat(places[:2]).tolist()) == list(range(8))
    assert not torch.equal(places[0], places[2])
    assert TokenLoss(weight=1.0).inputs(ids, BatchPlace(0, 0, 0, 8, 77, 20)) is None


# --------------------------------------------------------------------------- the patches' side


def test_symmetric_within_pair_is_the_mean_of_both_cross_entropies():
    patches, words, mask = batch([3])
    weights = one_to_one((words @ patches.mT).detach(), mask)[0]
    rows, columns = weights.nonzero(as_tuple=True)
    logits = (words[0, rows] @ patches[0, columns].T) / 0.07
    own = torch.arange(3)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    loss = token_loss(patches, words, mask, TokenLoss(symmetric=True))
    torch.testing.assert_close(loss, expected)


def test_symmetric_many_to_one_in_batch_is_filip():
    patches, words, mask = batch()
    cosines = torch.einsum("ipd,jld->ijlp", patches, words)
    by_words = (cosines.amax(-1) * mask).sum(-1) / mask.sum(-1)
    by_patches = cosines.masked_fill(~mask[None, :, :, None], -2).amax(-2).mean(-1)
    target = torch.arange(4)
    expected = F.cross_entropy(by_words.T / 0.07, target)
    expected = (expected + F.cross_entropy(by_patches / 0.07, target)) / 2
    config = TokenLoss(matching="many_to_one", negatives="in_batch", symmetric=True)
    torch.testing.assert_close(token_loss(patches, words, mask, config), expected)


# --------------------------------------------------------------------------- bad input


@every_combination
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("some", [None, 2])
def test_half_precision_tokens_give_a_finite_loss_and_gradient(negatives, matching, dtype, some):
    patches, words, mask = batch([3, 0, 6, 2])
    halves = [t.detach().to(dtype).requires_grad_() for t in (patches, words)]
    config = TokenLoss(
        negatives=negatives, matching=matching, negatives_per_pair=some, symmetric=True
    )
    loss = loss_of(config, (*halves, mask), [3, 0, 6, 2])
    loss.backward()
    exact = loss_of(config, (*(t.detach() for t in (patches, words)), mask), [3, 0, 6, 2])
    assert loss.item() == pytest.approx(exact.item(), abs=0.3)
    assert all(t.grad.isfinite().all() for t in halves)


def test_more_negatives_than_other_pairs_are_refused_with_how_many_there_are():
    values = {
        "objective.token.weight": 0.5,
        "objective.token.negatives": "in_batch",
        "train.batch_size": 8,
    }
    override(RunConfig(), {**values, "objective.token.negatives_per_pair": 7})
    with pytest.raises(ConfigError, match=r"negatives_per_pair = 8 is more than the 7 other pairs"):
        override(RunConfig(), {**values, "objective.token.negatives_per_pair": 8})


def test_an_eps_that_single_precision_cannot_carry_is_refused():
    values = {"objective.token.weight": 0.5, "objective.token.matching": "sinkhorn"}
    override(RunConfig(), {**values, "objective.token.eps": 1e-4})
    with pytest.raises(ConfigError, match=r"eps = 1e-05: single precision .* 0\.0001 and more"):
        override(RunConfig(), {**values, "objective.token.eps": 1e-5})


def test_switches_that_change_nothing_change_no_key():
    plain = override(RunConfig(), {"objective.token.weight": 0.5})
    for field, value in (
        ("negatives_per_pair", 3), ("negatives_from", "hardest"), ("tolerance", 0.01)
    ):  # fmt: skip
        assert override(plain, {f"objective.token.{field}": value}).run_key == plain.run_key
    in_batch = override(plain, {"objective.token.negatives": "in_batch"})
    assert override(in_batch, {"objective.token.symmetric": True}).run_key == in_batch.run_key
    some = override(in_batch, {"objective.token.negatives_per_pair": 3})
    assert len({plain.run_key, in_batch.run_key, some.run_key}) == 3
