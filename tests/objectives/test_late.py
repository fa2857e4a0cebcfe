"""FILIP's late interaction against loops over tokens, and where it is plain CLIP."""

import math

import pytest
import torch
from torch.nn import functional as F

from harness.config import override
from harness.data.text import PAD
from harness.errors import ConfigError
from harness.models.training import TrainingModel
from harness.objectives.instance import instance_loss
from harness.objectives.late import late_loss, strongest
from tests.train.rank_cases import CLIP

SCALE = torch.tensor(1.3, dtype=torch.float64)


def tokens(n=4, p=5, length=6, d=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    made = (torch.randn(n, count, d, generator=rng, dtype=torch.float64) for count in (p, length))
    patches, words = (F.normalize(one, dim=-1).requires_grad_() for one in made)
    lengths = torch.tensor([6, 1, 3, 5])[:n]
    return patches, words, torch.arange(length) < lengths[:, None]


def naive(patches, words, mask, scale, keep=1.0):
    """Equations 1 to 5 of the paper, a token at a time."""
    n = len(patches)
    images = [list(picture) for picture in patches]
    texts = [list(text[of]) for text, of in zip(words, mask, strict=True)]

    def best(token, others):
        return max((token @ other).item() for many in others for other in many)

    def kept(own, others):
        count = math.ceil(keep * len(own) - 1e-5)
        return sorted(own, key=lambda token: -best(token, others))[:count]

    images, texts = [kept(one, texts) for one in images], [kept(one, images) for one in texts]
    loss = 0.0
    for i in range(n):
        of_image, of_text = [], []
        for j in range(n):
            by_patch = [torch.stack([p @ w for w in texts[j]]).max() for p in images[i]]
            by_word = [torch.stack([w @ p for p in images[j]]).max() for w in texts[i]]
            of_image.append(sum(by_patch) / len(by_patch))
            of_text.append(sum(by_word) / len(by_word))
        for scores in (of_image, of_text):
            loss = loss - (scale.exp() * torch.stack(scores)).log_softmax(0)[i] / (2 * n)
    return loss


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.2])
def test_it_is_the_papers_in_value_and_gradient(keep):
    ours, theirs = tokens(), tokens()
    loss = late_loss(*ours, SCALE, keep)
    expected = naive(*theirs, SCALE, keep)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward()
    expected.backward()
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    patches, words, mask = tokens()
    assert torch.autograd.gradcheck(
        lambda p, w: late_loss(p, w, mask, SCALE, 0.5), (patches, words)
    )


def test_two_pairs_by_hand():
    # picture 0 has patches x and y, picture 1 y twice; text 0 says x, text 1 y
    x, y = torch.eye(2).unbind()
    patches = torch.stack([torch.stack([x, y]), torch.stack([y, y])])
    words = torch.stack([x, y])[:, None]
    loss = late_loss(patches, words, torch.ones(2, 1, dtype=torch.bool), torch.tensor(0.0))
    # texts: [1, 0] and [1, 1]; pictures: [.5, .5] and [0, 1]
    of_texts = math.log(1 + math.exp(-1)) + math.log(2)
    of_pictures = math.log(2) + math.log(1 + math.exp(-1))
    assert loss.item() == pytest.approx((of_texts + of_pictures) / 4, abs=1e-6)


def test_with_one_token_each_it_is_clips_loss():
    patches, words, _ = tokens(p=1, length=1)
    loss = late_loss(patches, words, torch.ones(4, 1, dtype=torch.bool), SCALE)
    torch.testing.assert_close(loss, instance_loss(patches[:, 0], words[:, 0], SCALE))


def test_padding_and_the_order_of_patches_change_nothing():
    patches, words, mask = tokens()
    expected = late_loss(patches, words, mask, SCALE, 0.5)
    longer = F.pad(words, (0, 0, 0, 3), value=9.0), F.pad(mask, (0, 3))
    torch.testing.assert_close(late_loss(patches, *longer, SCALE, 0.5), expected)
    torch.testing.assert_close(late_loss(patches.flip(1), words, mask, SCALE, 0.5), expected)


def test_a_quarter_of_the_tokens_is_kept_rounded_up():
    patches, words, mask = tokens()
    patches, words, mask = strongest(patches, words, mask, 0.25, lambda rows: rows)
    assert patches.shape[1] == 2
    assert mask.sum(1).tolist() == [2, 1, 1, 2]


def test_nan_reaches_the_loss():
    patches, words, mask = tokens()
    assert late_loss(patches * math.nan, words, mask, SCALE, 0.5).isnan()


def test_all_of_a_text_but_its_padding_is_a_token():
    config = override(CLIP, {"objective.late.weight": 1.0, "model.text.vocabulary": "full"})
    model = TrainingModel(config, None)
    ids = torch.tensor([[49_406, 320, 49_407, PAD], [49_406, 320, 320, 49_407]])
    found = model(torch.zeros(2, 3, 32, 32), ids).of_terms["late"]
    assert found.mask.tolist() == [[True, True, True, False], [True] * 4]
    assert model.training_only()["late.logit_scale"].item() == pytest.approx(math.log(1 / 0.07))


@pytest.mark.parametrize("value", [0, 1.5])
def test_a_share_that_there_is_not_is_refused(value):
    with pytest.raises(ConfigError, match=r"objective\.late\.keep"):
        override(CLIP, {"objective.late.weight": 1.0, "objective.late.keep": value})
