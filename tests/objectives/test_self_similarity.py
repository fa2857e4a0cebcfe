"""SoftCLIP's targets against loops over pairs, and where they are CLIP's or label smoothing's."""

import math

import pytest
import torch
from torch.nn import functional as F

from harness.config import override
from harness.objectives.instance import instance_loss
from harness.objectives.self_similarity import SelfSimilarityLoss, self_similarity_loss
from tests.train.rank_cases import CLIP

pytestmark = pytest.mark.usefixtures("in_64_bits")

KINDS = [(0.5, 1.0), (1.0, 0.0), (0.0, 0.7), (0.3, 0.0)]


def pairs(n=5, d=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    made = (torch.randn(n, d, generator=rng, dtype=torch.float64) for _ in range(2))
    image, text = (F.normalize(one, dim=-1).requires_grad_() for one in made)
    return image, text, torch.tensor(1.3, dtype=torch.float64, requires_grad=True)


def loss_of(image, text, scale, soft, relation, tau=0.2):
    config = SelfSimilarityLoss(weight=1.0, soft=soft, relation=relation, tau=tau)
    return self_similarity_loss(image, text, scale, config, batch=(image, text))


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def naive(image, text, scale, soft, relation, tau=0.2):
    n, loss = len(image), 0.0
    for own, other in ((image, text), (text, image)):
        for i in range(n):
            logits = [scale.exp() * (own[i] @ other[j]) for j in range(n)]
            near = [(own[i] @ own[j]).item() / tau for j in range(n)]
            target = [soft * p + (1 - soft) * (i == j) for j, p in enumerate(softmax(near))]
            loss = loss + divergence(target, torch.stack(logits))
            del logits[i], near[i]
            loss = loss + relation * divergence(softmax(near), torch.stack(logits))
    return loss / (2 * n)


def divergence(target, logits):
    predicted = logits.log_softmax(0)
    return sum(t * (math.log(t) - predicted[j]) for j, t in enumerate(target) if t > 0)


@pytest.mark.parametrize(("soft", "relation"), KINDS)
def test_it_is_the_loops_whose_targets_take_no_gradient(soft, relation):
    ours, theirs = pairs(), pairs()
    loss, expected = loss_of(*ours, soft, relation), naive(*theirs, soft, relation)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward()
    expected.backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_with_hard_targets_and_no_relation_it_is_clips_loss():
    ours, clips = pairs(), pairs()
    loss, expected = loss_of(*ours, 0.0, 0.0), instance_loss(*clips)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for a, b in zip(ours, clips, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_two_pairs_by_hand():
    # similarities within are 1 and 0, across 1 and 0: at tau = 1 the target is the prediction
    eye = torch.eye(2)
    assert loss_of(eye, eye, torch.tensor(0.0), 1.0, 1.0, tau=1.0).item() == pytest.approx(0.0)
    # half of it: 0.5 + 0.5 s and 0.5 (1 - s), s = sigmoid(1); of two, one negative is certain
    s = 1 / (1 + math.exp(-1))
    t = 0.5 + 0.5 * s
    expected = t * math.log(t / s) + (1 - t) * math.log((1 - t) / (1 - s))
    found = loss_of(eye, eye, torch.tensor(0.0), 0.5, 1.0, tau=1.0)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_far_apart_in_temperature_the_targets_are_uniform_as_label_smoothings():
    image, text, scale = pairs()
    n, soft = len(image), 0.3
    found = loss_of(image, text, scale, soft, 0.0, tau=1e9)
    smoothed = instance_loss(image, text, scale, mass=soft * (n - 1) / n, weighting="uniform")
    own, other = 1 - soft * (n - 1) / n, soft / n
    entropy = -own * math.log(own) - (n - 1) * other * math.log(other)
    torch.testing.assert_close(found, smoothed - entropy)


def test_a_setting_without_effect_is_in_no_key():
    on = override(
        CLIP,
        {
            "objective.self_similarity.weight": 1.0,
            "objective.self_similarity.soft": 0.0,
            "objective.self_similarity.relation": 0.0,
        },
    )
    assert on.run_key == override(on, {"objective.self_similarity.tau": 0.5}).run_key
    assert on.run_key != override(on, {"objective.self_similarity.soft": 0.5}).run_key


def test_nan_reaches_the_loss():
    image, text, scale = pairs()
    assert loss_of(image * math.nan, text, scale, 0.5, 1.0).isnan()
