"""DeCLIP's nearest-neighbour supervision, and its queue."""

import math

import pytest
import torch
from torch.nn import functional as F

from harness.config import override
from harness.errors import ConfigError
from harness.models.queue import TextQueue
from harness.objectives.nearest import NearestLoss, nearest_loss
from harness.objectives.terms import StepTensors
from tests.train.rank_cases import CLIP


def unit(n, d=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=rng, dtype=torch.float64), dim=-1)


def test_the_queue_holds_the_last_texts_and_finds_the_nearest():
    queue, seen = TextQueue(7, 4).double(), []
    for step in range(5):
        batch = unit(3, seed=step)
        if seen:
            known = torch.stack(seen[-7:])
            expected = known[(batch @ known.T).argmax(1)]
            torch.testing.assert_close(queue.nearest(batch), expected, rtol=0, atol=0)
        queue.push(batch)
        seen += list(batch)
    assert queue.pushed.item() == 15
    last = {tuple(row) for row in torch.stack(seen[-7:]).tolist()}
    assert {tuple(row) for row in queue.texts.tolist()} == last


def test_it_is_the_loops_in_value_and_gradient():
    image, text, known = unit(3).requires_grad_(), unit(3, seed=1), unit(6, seed=2)
    scale = torch.tensor(1.1, dtype=torch.float64)
    queue = TextQueue(8, 4).double()
    queue.push(known)
    loss = NearestLoss(weight=1.0).loss(StepTensors(image, text, scale, 0.5), None, queue)
    expected, own = 0.0, image.detach().clone().requires_grad_()
    found = [max(known, key=lambda other, one=one: (one @ other).item()) for one in text]
    for i in range(3):
        logits = torch.stack([scale.exp() * (own[i] @ other) for other in found])
        expected = expected - logits.log_softmax(0)[i] / 3
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(image.grad, own.grad, rtol=1e-9, atol=1e-12)
    assert queue.pushed.item() == 9
    assert torch.autograd.gradcheck(lambda i: nearest_loss(i, known[:3], scale), image)


def test_two_pairs_by_hand():
    image, neighbours = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    expected = (math.log(2) + math.log(2)) / 2  # both texts have the same neighbour
    assert nearest_loss(image, neighbours, torch.tensor(0.0)).item() == pytest.approx(expected)
    expected = math.log(1 + math.exp(-1))
    assert nearest_loss(image, image, torch.tensor(0.0)).item() == pytest.approx(expected)


def test_an_empty_queue_teaches_nothing():
    image, text = unit(3).requires_grad_(), unit(3, seed=1)
    step = StepTensors(image, text, torch.tensor(1.0, dtype=torch.float64), 0.0)
    loss = NearestLoss(weight=1.0).loss(step, None, TextQueue(8, 4).double())
    loss.backward()
    assert loss.item() == pytest.approx(math.log(3))
    assert not image.grad.any()


def test_neighbours_that_are_the_own_texts_are_clips_loss_to_texts():
    image, text = unit(4), unit(4, seed=1)
    scale = torch.tensor(1.3, dtype=torch.float64)
    queue = TextQueue(4, 4).double()
    queue.push(text)
    loss = NearestLoss(weight=1.0).loss(StepTensors(image, text, scale, 0.5), None, queue)
    expected = F.cross_entropy(scale.exp() * image @ text.T, torch.arange(4))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(("size", "nearest"), [(4, 8), (49, 48), (65_536, 48)])
def test_a_queue_that_cannot_hold_a_batch_or_never_fills_is_refused(size, nearest):
    line = (
        rf"objective\.nearest\.size = {size}: .*batch_size = 8.*samples = 48.*nearest: {nearest}$"
    )
    with pytest.raises(ConfigError, match=line):
        override(CLIP, {"objective.nearest.weight": 1.0, "objective.nearest.size": size})


def test_nan_reaches_the_loss():
    nan = unit(2) * math.nan
    assert nearest_loss(nan, unit(2), torch.tensor(0.0)).isnan()
