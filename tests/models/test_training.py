"""The towers with what trains beside them: nothing of it may reach inference."""

import pytest
import torch

from harness.config import RunConfig, override
from harness.data.text import corpus_rows
from harness.errors import ConfigError
from harness.models.training import TrainingModel, needs_patches
from harness.models.two_tower import TwoTower
from harness.objectives.masking import mask_words, masking_noise

CAPTIONS = ["a red car", "two dogs running on the grass", "a man", "a black bird"]
ROWS = corpus_rows(CAPTIONS)
CLIP = override(
    RunConfig(),
    {
        "model.image.backbone": "test_vit",
        "model.image.size": 32,
        "model.text.layers": 2,
        "model.text.width": 16,
        "model.text.heads": 2,
        "model.text.context_length": 12,
        "model.text.vocabulary": "corpus",
        "model.embed_dim": 8,
    },
)
LIGHTCLIP = override(
    CLIP, {"objective.token.weight": 0.5, "objective.token.dim": 8, "objective.mlm.weight": 0.5}
)


def batch(model):
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = model.model.tokenizer(CAPTIONS)
    noise = masking_noise(torch.Generator().manual_seed(1), 4, 12)
    masked = mask_words(tokens, noise, ratio=0.5, vocab_size=model.model.tokenizer.vocab_size)
    return pixels, tokens, {"mlm": masked}


def test_embeddings_are_the_same_with_and_without_the_other_terms():
    plain, full = TrainingModel(CLIP, ROWS).eval(), TrainingModel(LIGHTCLIP, ROWS).eval()
    pixels, tokens, masked = batch(full)
    with torch.no_grad():
        a, b = plain(pixels, tokens), full(pixels, tokens, masked)
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.text, b.text)
    assert a.of_terms == {}
    assert b.of_terms["mlm"].states.shape == (len(masked["mlm"].positions), 16)


def test_one_pass_gives_what_the_towers_give_alone():
    full = TrainingModel(LIGHTCLIP, ROWS).eval()
    pixels, tokens, masked = batch(full)
    with torch.no_grad():
        outputs = full(pixels, tokens, masked)
        torch.testing.assert_close(outputs.image, full.model.encode_image(pixels))
        torch.testing.assert_close(outputs.text, full.model.encode_text(tokens))


def test_the_towers_start_from_the_same_weights_whatever_the_terms():
    plain, full = TrainingModel(CLIP, ROWS), TrainingModel(LIGHTCLIP, ROWS)
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, full.model.state_dict()[name]), name


def test_nothing_that_trains_beside_the_towers_is_in_them():
    full = TrainingModel(LIGHTCLIP, ROWS)
    alone = TwoTower(LIGHTCLIP.model, ROWS, 0)
    assert list(full.model.state_dict()) == list(alone.state_dict())
    extra = {name.split(".")[0] for name, _ in full.named_parameters()} - {"model"}
    assert extra == {"tokens", "masked_pass"}


@pytest.mark.parametrize("operator", ["cross_attention", "add", "concat"])
def test_gradients_of_mlm_reach_both_towers_through_the_fusion(operator):
    config = override(CLIP, {"objective.mlm.weight": 1.0, "objective.mlm.operator": operator})
    full = TrainingModel(config, ROWS)
    for stage in full.masked_pass.stages.values():
        if hasattr(stage, "gate"):
            stage.gate.data.fill_(1.0)
    full(*batch(full)).of_terms["mlm"].states.square().sum().backward()
    assert full.model.image.backbone.patch_embed.proj.weight.grad.abs().sum() > 0
    assert full.model.text.token_embedding.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("values", "needed"),
    [
        ({}, False),
        ({"objective.token.weight": 0.1}, True),
        ({"objective.mlm.weight": 0.1}, True),
        ({"objective.mlm.weight": 0.1, "objective.mlm.operator": "add"}, False),
        ({"objective.mlm.operator": "concat"}, False),
    ],
)
def test_patches_are_needed_by_terms_that_are_on(values, needed):
    assert needs_patches(override(CLIP, values)) is needed


def test_a_stage_that_is_not_there_is_refused_with_the_configuration():
    with pytest.raises(ConfigError, match=r"block 2, which a text tower of 2 layers lacks"):
        override(CLIP, {"objective.mlm.weight": 0.1, "objective.mlm.stages": [0, 2]})


def test_a_single_patch_is_refused_when_a_term_needs_patches():
    tiny = {"model.image.backbone": "test_convnext", "model.image.size": 32}
    TrainingModel(override(CLIP, tiny), ROWS)
    with pytest.raises(ConfigError, match="'test_convnext' gives a single patch for 32-pixel"):
        TrainingModel(override(LIGHTCLIP, tiny), ROWS)
