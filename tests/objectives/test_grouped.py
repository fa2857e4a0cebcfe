"""SPARC's words against their groups of patches, by loops and by hand."""

import math

import pytest
import torch

from harness.objectives.grouped import group_patches, grouped_loss

SCALE = torch.tensor(0.7, dtype=torch.float64)


def tokens(n=4, p=5, length=6, d=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    patches, words = (
        torch.randn(n, count, d, generator=rng, dtype=torch.float64).requires_grad_()
        for count in (p, length)
    )
    return patches, words, torch.arange(length) < torch.tensor([6, 1, 3, 0])[:n, None]


def naive(patches, words, mask, scale):
    """Equations 2 to 6 of the paper, a word at a time."""
    loss = 0.0
    for picture, text, of in zip(patches, words, mask, strict=True):
        said, groups = list(text[of]), []
        for word in said:
            s = torch.stack([word @ patch for patch in picture])
            scaled = (s - s.min()) / (s.max() - s.min())
            kept = [v if v >= 1 / len(picture) else v * 0 for v in scaled]
            groups.append(
                sum(v / sum(kept) * patch for v, patch in zip(kept, picture, strict=True))
            )
        for j in range(len(said)):
            for a, b in ((groups, said), (said, groups)):
                cosines = [torch.cosine_similarity(a[j], other, dim=0) for other in b]
                logits = scale.exp() * torch.stack(cosines)
                loss = loss - logits.log_softmax(0)[j] / (len(said) * 2 * len(patches))
    return loss


def test_it_is_the_papers_in_value_and_gradient():
    ours, theirs = tokens(), tokens()
    loss, expected = grouped_loss(*ours, SCALE), naive(*theirs, SCALE)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward()
    expected.backward()
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    patches, words, mask = tokens()
    assert torch.autograd.gradcheck(lambda p, w: grouped_loss(p, w, mask, SCALE), (patches, words))


def test_weights_by_hand():
    # scaled to 1, 0.5, 0.25 and 0: what is below 1 / 4 goes, and the rest sums to 1
    found = group_patches(torch.tensor([6.0, 4.0, 3.0, 2.0]))
    torch.testing.assert_close(found, torch.tensor([4.0, 2.0, 1.0, 0.0]) / 7)
    # 0.2 of five patches is kept, and 0.19 is not
    found = group_patches(torch.tensor([[1.0, 0.2, 0, 0, 0], [1.0, 0.19, 0, 0, 0]]))
    torch.testing.assert_close(found[:, 1], torch.tensor([0.2 / 1.2, 0.0]))


def test_patches_that_are_all_alike_weigh_the_same_and_keep_the_gradient_finite():
    similarity = torch.full((2, 4), 3.0, requires_grad=True)
    found = group_patches(similarity)
    torch.testing.assert_close(found, torch.full((2, 4), 0.25))
    found.square().sum().backward()
    assert similarity.grad.isfinite().all()


def test_two_words_by_hand():
    # each word's group is its own patch: cosines 1 and 0, both ways
    eye = torch.eye(2)[None]
    loss = grouped_loss(eye, eye, torch.ones(1, 2, dtype=torch.bool), torch.tensor(0.0))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)


def test_what_has_no_second_word_has_nothing_to_tell_apart():
    patches, words, mask = tokens()
    mask = torch.arange(6) < torch.tensor([1, 0, 1, 0])[:, None]
    loss = grouped_loss(patches, words, mask, SCALE)
    loss.backward()
    assert loss == 0
    assert patches.grad.isfinite().all()
    assert words.grad.isfinite().all()


def test_nan_reaches_the_loss():
    patches, words, mask = tokens()
    assert grouped_loss(patches, words * math.nan, mask, SCALE).isnan()
