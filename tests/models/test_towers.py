import numpy as np
import open_clip
import pytest
import torch

from harness.config import ImageTower as ImageConfig
from harness.config import Model
from harness.config import TextTower as TextConfig
from harness.data.text import EOT, SOT, Tokenizer, corpus_rows
from harness.errors import ConfigError
from harness.models.image import build_backbone, check_image_tower
from harness.models.names import BACKBONES
from harness.models.two_tower import TwoTower

TINY = Model(
    image=ImageConfig(backbone="test_resnet", size=32),
    text=TextConfig(layers=2, width=32, heads=2, context_length=16, vocabulary="corpus"),
    embed_dim=24,
)
CAPTIONS = ["a red car", "two dogs running on the grass", "a man"]


def model(config=TINY, seed=0):
    return TwoTower(config, corpus_rows(CAPTIONS), seed).eval()


def test_a_batch_cut_to_its_longest_text_gives_the_full_context_embedding():
    tower = model()
    cut = tower.tokenizer(CAPTIONS)
    full = torch.zeros(3, 16, dtype=torch.long)
    full[:, : cut.shape[1]] = cut
    assert cut.shape[1] < 16
    with torch.inference_mode():
        difference = (tower.encode_text(cut) - tower.encode_text(full)).abs().max()
    assert difference < 1e-6


def test_text_tower_equals_open_clips_own_with_the_same_weights():
    tower = model().text
    theirs = open_clip.transformer.TextTransformer(
        context_length=16, vocab_size=tower.vocab_size, width=32, heads=2, layers=2, output_dim=24
    ).eval()
    theirs.load_state_dict(tower.state_dict())
    ids = torch.zeros(3, 16, dtype=torch.long)
    cut = model().tokenizer(CAPTIONS)
    ids[:, : cut.shape[1]] = cut
    with torch.inference_mode():
        torch.testing.assert_close(tower(ids), theirs(ids))


def test_embeddings_are_unit_norm():
    tower = model()
    with torch.inference_mode():
        image, text = tower(torch.randn(3, 3, 32, 32), tower.tokenizer(CAPTIONS))
    torch.testing.assert_close(image.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(text.norm(dim=1), torch.ones(3))


def test_a_tower_is_initialised_independently_of_the_other():
    deeper = TINY.model_copy(update={"text": TINY.text.model_copy(update={"layers": 3})})
    a, b, other_seed = model(), model(deeper), model(seed=1)
    for name, weight in a.image.state_dict().items():
        torch.testing.assert_close(weight, b.image.state_dict()[name], rtol=0, atol=0)
    assert not torch.equal(a.image.projection.weight, other_seed.image.projection.weight)


def test_logit_scale_starts_at_clips_value_and_is_clamped_to_1_and_100():
    tower = model()
    assert tower.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    for given, kept in [(-1.0, 1.0), (9.0, 100.0)]:
        tower.logit_scale.data.fill_(given)
        tower.clamp_logit_scale()
        assert tower.logit_scale.exp().item() == pytest.approx(kept, rel=1e-5)


def test_parameters_are_those_of_open_clips_model_with_the_same_towers():
    config = Model(
        image=ImageConfig(backbone="resnet18", size=64),
        text=TextConfig(layers=2, width=64, heads=2, context_length=16),
        embed_dim=32,
    )
    theirs = open_clip.CustomTextCLIP(
        32,
        {
            "timm_model_name": "resnet18",
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 64,
        },
        {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    )
    ours = TwoTower(config, None, 0)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    "backbone",
    ["test_vit", "swin_nano", "mobilenetv3_small_050", "efficientvit_b0", "mobilenetv4_conv_small"],
)
def test_towers_of_every_layout_take_small_pictures(backbone):
    check_image_tower(ImageConfig(backbone=backbone, size=64), 16)


@pytest.mark.parametrize(("stride", "grid"), [(None, 2), (16, 4), (8, 8)])
def test_a_smaller_output_stride_gives_a_finer_map_of_the_same_parameters(stride, grid):
    backbone = build_backbone("test_resnet", 64, stride)
    assert backbone.eval().forward_features(torch.zeros(1, 3, 64, 64)).shape[2:] == (grid, grid)
    plain = build_backbone("test_resnet", 64)
    assert [p.shape for p in backbone.parameters()] == [p.shape for p in plain.parameters()]


def test_a_backbone_that_cannot_be_dilated_says_so():
    with pytest.raises(ConfigError, match=r"'test_vit' cannot be built .* output_stride 8"):
        build_backbone("test_vit", 160, 8)
    with pytest.raises(ConfigError, match="'swin_nano' cannot be dilated"):
        build_backbone("swin_nano", 64, 8)


def test_swin_nano_has_the_parameters_of_vidts():
    count = sum(p.numel() for p in build_backbone("swin_nano", 224).parameters())
    assert count == pytest.approx(6.9e6, rel=0.01)


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(ConfigError, match="unknown backbone 'resnet81'; nearest: resnet18"):
        build_backbone("resnet81", 64)


def test_a_size_the_backbone_cannot_take_is_one_line():
    with pytest.raises(ConfigError, match=r"'vit_tiny_patch16_224' cannot .* 8-pixel") as error:
        check_image_tower(ImageConfig(backbone="vit_tiny_patch16_224", size=8), 16)
    assert "\n" not in str(error.value)


# --------------------------------------------------------------------------- tokens


def test_full_vocabulary_is_open_clips_tokenizer():
    ours = Tokenizer(77)(CAPTIONS)
    theirs = open_clip.get_tokenizer("ViT-B-32")(CAPTIONS)
    torch.testing.assert_close(ours, theirs[:, : ours.shape[1]])
    assert (theirs[:, ours.shape[1] :] == 0).all()


def test_compact_ids_are_the_full_ids_renumbered():
    rows = corpus_rows(CAPTIONS)
    compact, full = Tokenizer(77, rows)(CAPTIONS), Tokenizer(77)(CAPTIONS)
    np.testing.assert_array_equal(rows[compact.numpy()], full.numpy())
    assert list(rows[-2:]) == [SOT, EOT]


def test_a_piece_the_corpus_lacks_is_other_and_never_eot():
    tokenizer = Tokenizer(77, corpus_rows(CAPTIONS))
    assert tokenizer.encode("zebra")[1:-1] == [0]
    assert tokenizer.encode("zebra")[-1] == tokenizer.vocab_size - 1


def test_a_long_text_is_cut_and_still_ends_in_eot():
    tokenizer = Tokenizer(6)
    ids = tokenizer.encode("one two three four five six seven")
    assert len(ids) == 6
    assert ids[-1] == EOT
    assert tokenizer.is_truncated("one two three four five")
    assert not tokenizer.is_truncated("one two three four")


def test_an_empty_text_is_sot_and_eot():
    assert Tokenizer(77).encode("") == [SOT, EOT]


def test_a_registered_backbone_without_timms_interface_is_told_what_it_lacks():
    BACKBONES.register("bare")(lambda size: torch.nn.Conv2d(3, 8, 4))
    with pytest.raises(ConfigError, match=r"'bare' lacks num_features, head_hidden_size, forward"):
        build_backbone("bare", 32)
