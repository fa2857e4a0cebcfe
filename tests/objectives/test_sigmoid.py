"""The sigmoid loss against open_clip's, and the run that learns by it alone."""

import math
from functools import partial

import open_clip
import pytest
import torch
from torch.nn import functional as F

from harness.config import override
from harness.errors import ConfigError
from harness.files import read_jsonl
from harness.models.training import TrainingModel
from harness.objectives.sigmoid import SigmoidLoss, sigmoid_loss
from harness.train.distributed import SINGLE_PROCESS
from tests.train.rank_cases import (
    CLIP,
    MLM,
    VIT,
    after,
    assert_same,
    gradients,
    on_ranks,
    trainer,
    weights,
)

SIGMOID = {"objective.sigmoid.weight": 1.0, "objective.instance.weight": 0.0}


def pairs(seed=0, n=6, d=5):
    rng = torch.Generator().manual_seed(seed)
    image, text = (F.normalize(torch.randn(n, d, generator=rng), dim=-1) for _ in range(2))
    scale, bias = torch.tensor(math.log(10.0)), torch.tensor(-10.0)
    return [tensor.requires_grad_() for tensor in (image, text, scale, bias)]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_open_clips_in_value_and_gradient(seed):
    ours, theirs = pairs(seed), pairs(seed)
    loss = sigmoid_loss(*ours)
    image, text, scale, bias = theirs
    expected = open_clip.loss.SigLipLoss()(image, text, scale.exp(), bias)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    expected.backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-6)


def test_by_hand():
    # logits 1 and -1 of picture 0 whose text is the second: log(1 + e) + log(1 + e)
    image, text = torch.tensor([[1.0]]), torch.tensor([[1.0], [-1.0]])
    loss = sigmoid_loss(image, text, torch.tensor(0.0), torch.tensor(0.0), first=1)
    assert loss.item() == pytest.approx(2 * math.log(1 + math.e), abs=1e-6)


def test_its_parameters_start_as_in_the_paper_and_are_no_part_of_the_towers():
    model = TrainingModel(override(CLIP, {**SIGMOID, "model.text.vocabulary": "full"}), None)
    found = {name: tensor.item() for name, tensor in model.training_only().items()}
    expected = {"sigmoid.logit_scale": math.log(10), "sigmoid.logit_bias": -10.0}
    assert found == pytest.approx(expected, abs=1e-6)


def test_its_settings_are_in_the_key_while_it_is_on_and_not_before():
    off = override(CLIP, {"objective.sigmoid.init_logit_bias": -5.0})
    assert off.run_key == CLIP.run_key
    on = override(CLIP, SIGMOID)
    assert on.run_key != override(on, {"objective.sigmoid.init_logit_bias": -5.0}).run_key
    with pytest.raises(ConfigError, match=r"unknown field 'objective\.sigmoid\.bias'; nearest: "):
        override(CLIP, {"objective.sigmoid.bias": 0})
    assert SigmoidLoss(weight=1.0).weight_at(0.5) == 1.0


# --------------------------------------------------------------------------- in training


def log_of(folder):
    (directory,) = folder.iterdir()
    return read_jsonl(directory / "metrics.jsonl")


def to_the_end(folder, config=override(CLIP, SIGMOID), ranks=SINGLE_PROCESS, **runtime):  # noqa: B008
    t = trainer(folder, config, ranks, **runtime)
    t.train(lambda: False)
    return weights(t)


@pytest.mark.usefixtures("in_64_bits")
def test_two_processes_train_the_weights_of_one(tmp_path):
    alone = to_the_end(tmp_path / "alone")

    def together(ranks):
        return to_the_end(tmp_path / "runs", ranks=ranks)

    first, second = on_ranks(tmp_path, 2, together)
    assert first["sigmoid.logit_bias"] != -10.0
    assert_same(first, alone, 1e-8)
    for name, value in first.items():
        assert torch.equal(second[name], value), name


@pytest.mark.usefixtures("in_64_bits")
def test_parts_have_the_gradients_of_the_whole(tmp_path):
    config = override(CLIP, {**VIT, **MLM, **SIGMOID})
    whole = gradients(after(trainer(tmp_path / "whole", config), 1))
    parts = gradients(after(trainer(tmp_path / "parts", config, micro_batch=3), 1))
    assert whole["sigmoid.logit_scale"] != 0
    assert_same(parts, whole, 1e-9)


def test_a_run_cut_off_and_resumed_has_the_same_bits_and_the_same_log(tmp_path):
    config = override(CLIP, SIGMOID)
    whole = to_the_end(tmp_path / "whole")
    cut = partial(trainer, tmp_path / "cut", config)
    for _ in range(2):
        after(cut(), 2)
    resumed = to_the_end(tmp_path / "cut")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    told = [
        [(line["samples_seen"], line["loss"], line["sigmoid/logit_bias"]) for line in log_of(runs)]
        for runs in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 6
