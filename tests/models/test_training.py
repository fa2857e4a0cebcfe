"""The towers with what trains beside them: nothing of it may reach inference."""

import pytest
import torch

from harness.config import RunConfig, override
from harness.data.text import corpus_rows
from harness.errors import ConfigError
from harness.models.tokens import PatchLayout, with_stages
from harness.models.training import TrainingModel, needs_patches
from harness.models.two_tower import TwoTower
from harness.objectives.masking import mask_words, masking_noise
from harness.train.optimiser import make_optimiser, set_learning_rate
from tests.conftest import TINY_TOWERS

CAPTIONS = ["a red car", "two dogs running on the grass", "a man", "a black bird"]
ROWS = corpus_rows(CAPTIONS)
CLIP = override(
    RunConfig(),
    {
        "model.image.backbone": "test_vit",
        **TINY_TOWERS,
        "model.text.layers": 2,
        "model.text.context_length": 12,
    },
)
LIGHTCLIP = override(
    CLIP, {"objective.token.weight": 0.5, "objective.token.dim": 8, "objective.mlm.weight": 0.5}
)
ADD_STAGES = {"objective.mlm.operator": "add", "objective.mlm.source": "stages"}


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
    mlm = {"weight": 1.0, "operator": operator, "gate_init": 1.0}
    full = TrainingModel(override(CLIP, {f"objective.mlm.{k}": v for k, v in mlm.items()}), ROWS)
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
        ({"objective.mlm.weight": 0.1, "objective.mlm.image_embedding": "pooled"}, False),
        ({"objective.mlm.weight": 0.1, **ADD_STAGES}, True),
        ({"objective.mlm.operator": "concat"}, False),
    ],
)
def test_patches_are_needed_by_terms_that_are_on(values, needed):
    assert needs_patches(override(CLIP, values)) is needed


FUSED = [
    {"operator": operator, "source": source, "image_embedding": embedding}
    for operator in ("cross_attention", "add", "concat")
    for source in ("last", "stages")
    for embedding in (("patches",) if operator == "add" else ("patches", "pooled"))
]


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
@pytest.mark.parametrize("fused", FUSED, ids=lambda fused: "-".join(fused.values()))
def test_every_way_in_lets_the_own_picture_in_and_leaves_the_embeddings_alone(backbone, fused):
    clip = override(CLIP, {"model.image.backbone": backbone, "model.image.size": 64})
    mlm = {"weight": 0.5, "gate_init": 1.0, **fused}
    config = override(clip, {f"objective.mlm.{name}": value for name, value in mlm.items()})
    full, plain = TrainingModel(config, ROWS).eval(), TrainingModel(clip, ROWS).eval()
    pixels, tokens, masked = batch(full)
    pixels = pixels.repeat(1, 1, 2, 2)
    outputs, alone = full(pixels, tokens, masked), plain(pixels, tokens)
    assert torch.equal(outputs.image, alone.image)
    assert torch.equal(outputs.text, alone.text)
    seen = full.look(pixels, tokens)
    term, module = full.terms["mlm"], full.masked_pass
    own = term.probe(seen, module, masked["mlm"])
    other = term.probe(seen.with_pictures(torch.tensor([1, 2, 3, 0])), module, masked["mlm"])
    assert (own - other).abs().max() > 1e-6
    own.sum().backward()
    first = next(p for n, p in full.model.image.backbone.named_parameters() if p.ndim == 4)
    assert first.grad.abs().sum() > 0
    assert all(p.grad is not None for p in module.stages.parameters())


def test_blocks_take_the_stages_from_the_first_to_the_last():
    config = override(CLIP, {"model.image.backbone": "test_resnet", "model.image.size": 64})
    config = override(config, {"objective.mlm.weight": 0.5, **ADD_STAGES})
    full = TrainingModel(config, ROWS)
    assert full.layout.stage_channels == (32, 32, 48, 192, 96)
    widths = [stage.projection.in_features for stage in full.masked_pass.stages.values()]
    assert widths == [32, 96]
    seen = full.look(torch.randn(2, 3, 64, 64), torch.ones(2, 3, dtype=torch.long))
    assert [stage.shape for stage in seen.stages] == [(2, c, 2, 2) for c in (32, 32, 48, 192, 96)]
    first, last = full.terms["mlm"].images(seen, 2)
    torch.testing.assert_close(first, seen.stages[0].mean((2, 3)))
    torch.testing.assert_close(last, seen.features.mean((2, 3)))


def test_stages_of_a_tower_that_does_not_show_them_are_refused():
    layout = PatchLayout("NCHW", 0, 2, 8)
    with pytest.raises(ConfigError, match=r"'plain' does not give the maps .* source = 'last'"):
        with_stages(layout, torch.nn.Conv2d(3, 8, 1), "plain", 64)


def test_rates_of_gates_and_of_what_trains_beside_the_towers_are_multiplied():
    factors = {"objective.mlm.gate_lr_factor": 10.0, "objective.mlm.lr_factor": 2.0}
    full = TrainingModel(override(LIGHTCLIP, factors), ROWS)
    optimiser = make_optimiser(full, LIGHTCLIP.train, full.lr_factors())
    set_learning_rate(optimiser, 0.5)
    names = {id(p): name for name, p in full.named_parameters()}
    rates = {names[id(p)]: g["lr"] for g in optimiser.param_groups for p in g["params"]}
    assert set(rates) == set(names.values())
    for name, rate in rates.items():
        of_mlm = 10.0 if name.endswith(".gate") else 1.0
        assert rate == (of_mlm if name.startswith("masked_pass.") else 0.5), name
    assert TrainingModel(LIGHTCLIP, ROWS).lr_factors() == {}


def test_fields_added_later_move_no_key_while_they_say_what_was_done_before():
    mlm = {"source": "last", "image_embedding": "patches", "gate_init": None, "gate_lr_factor": 1}
    same = {f"objective.mlm.{name}": value for name, value in mlm.items()}
    same |= {"objective.mlm.lr_factor": 1.0, "objective.token.lr_factor": 1.0}
    assert override(LIGHTCLIP, same).run_key == LIGHTCLIP.run_key
    for changed in ({"source": "stages"}, {"image_embedding": "pooled"}, {"gate_init": 1.0}):
        values = {f"objective.mlm.{name}": value for name, value in changed.items()}
        assert override(LIGHTCLIP, values).run_key != LIGHTCLIP.run_key


def test_a_stage_that_is_not_there_is_refused_with_the_configuration():
    with pytest.raises(ConfigError, match=r"block 2, which a text tower of 2 layers lacks"):
        override(CLIP, {"objective.mlm.weight": 0.1, "objective.mlm.stages": [0, 2]})


def test_a_single_patch_is_refused_when_a_term_needs_patches():
    tiny = {"model.image.backbone": "test_convnext", "model.image.size": 32}
    TrainingModel(override(CLIP, tiny), ROWS)
    with pytest.raises(ConfigError, match="'test_convnext' gives a single patch for 32-pixel"):
        TrainingModel(override(LIGHTCLIP, tiny), ROWS)
