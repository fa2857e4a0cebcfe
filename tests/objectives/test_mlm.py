import math

import pytest
import torch

from harness.config import validate
from harness.errors import ConfigError
from harness.models.tokens import _pooled
from harness.objectives.mlm import MlmLoss, mlm_loss


def test_loss_by_hand():
    # logits (ln 3, 0) and (0, ln 3) with the identity as table: 3 : 1 for the right word, then
    # against it, so the mean of ln(4/3) and ln 4
    states = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    loss = mlm_loss(states, torch.eye(2), torch.zeros(2), torch.tensor([0, 0]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2, abs=1e-6)


def test_bias_alone_gives_the_frequencies_of_words():
    bias = torch.tensor([0.7, 0.2, 0.1]).log()
    loss = mlm_loss(torch.zeros(1, 4), torch.randn(3, 4), bias, torch.tensor([1]))
    assert loss.item() == pytest.approx(-math.log(0.2), abs=1e-6)


def test_no_chosen_word_in_the_batch_is_zero_in_value_and_gradient():
    states = torch.zeros(0, 4, requires_grad=True)
    table = torch.randn(3, 4, requires_grad=True)
    bias = torch.zeros(3, requires_grad=True)
    loss = mlm_loss(states, table, bias, torch.zeros(0, dtype=torch.long))
    assert loss.item() == 0.0
    loss.backward()
    assert torch.equal(table.grad, torch.zeros(3, 4))
    assert torch.equal(bias.grad, torch.zeros(3))


def test_half_precision_states_are_scored_in_fp32():
    states = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    loss = mlm_loss(states, torch.eye(2), torch.zeros(2), torch.tensor([0]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(1 + math.e), abs=1e-6)


def test_weight_ramps_with_the_share_of_the_budget_seen():
    config = MlmLoss(weight=0.5, schedule="linear", start=0.5)
    assert [config.weight_at(p) for p in (0.0, 0.5, 0.75, 1.0)] == [0.0, 0.0, 0.25, 0.5]
    assert MlmLoss(weight=0.5).weight_at(0.0) == 0.5


# --------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("stages", "layers", "blocks"),
    [
        ("all", 3, (0, 1, 2)),
        ("first", 4, (0,)),
        ("middle", 4, (2,)),
        ("middle", 1, (0,)),
        ("last", 4, (3,)),
        ([3, 1], 4, (1, 3)),
    ],
)
def test_stages_by_name_and_by_index(stages, layers, blocks):
    assert MlmLoss(stages=stages).blocks(layers) == blocks


@pytest.mark.parametrize("absent", [4, -1])
def test_a_stage_that_is_not_there_names_the_blocks_there_are(absent):
    with pytest.raises(ConfigError, match=rf"block {absent}, .* 4 layers .* blocks: 0, 1, 2, 3$"):
        MlmLoss(stages=[0, absent]).blocks(4)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ("lst", "unknown stage 'lst'; nearest: last, first; allowed: all, first, last, middle"),
        ([], "or a list of block indexes is wanted"),
        ([1, 1], "a block is named twice"),
        ([0.5], "an integer is wanted"),
        (2, "or a list of block indexes is wanted"),
    ],
)
def test_stages_that_are_none_end_in_one_clear_line(stages, words):
    with pytest.raises(ConfigError) as error:
        validate(MlmLoss, {"stages": stages})
    assert str(error.value).endswith(words)


def test_the_same_stages_in_another_order_are_the_same_run():
    assert MlmLoss(stages=[2, 0]).identity() == MlmLoss(stages=(0, 2.0)).identity()


@pytest.mark.parametrize(("size", "grid"), [(21, 7), (14, 7), (8, 8), (10, 2), (7, 3)])
def test_maps_of_stages_are_pooled_with_the_bits_of_torchs_adaptive_mean(size, grid):
    one = torch.randn(2, 5, size, size, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    pooled, expected = _pooled(one, grid), torch.nn.functional.adaptive_avg_pool2d(other, grid)
    weights = torch.randn_like(expected)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.equal(pooled, expected)
    assert torch.equal(one.grad, other.grad)
