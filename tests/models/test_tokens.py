import pytest
import timm
import torch
from torch import nn

from harness.data.text import Tokenizer, corpus_rows, word_mask
from harness.errors import ConfigError
from harness.models.image import build_backbone
from harness.models.tokens import PatchLayout, TokenProjections, patch_layout

LAYOUTS = {
    # name: size, format, prefix, grid, channels
    "resnet18": (112, "NCHW", 0, 4, 512),
    "mobilenetv4_conv_small": (224, "NCHW", 0, 7, 960),
    "efficientvit_b0": (224, "NCHW", 0, 7, 128),
    "tiny_vit_5m_224": (224, "NCHW", 0, 7, 320),
    "swin_nano": (64, "NHWC", 0, 2, 384),
    "mambaout_femto": (224, "NHWC", 0, 7, 288),
    "vit_tiny_patch16_224": (64, "NLC", 1, 4, 192),
    "deit_tiny_distilled_patch16_224": (224, "NLC", 2, 14, 192),
    "vit_tiny_patch16_dinov3_qkvb": (256, "NLC", 5, 16, 192),
    "vit_relpos_small_patch16_224": (224, "NLC", 0, 14, 384),
    "levit_128s": (224, "NLC", 0, 4, 384),
    "efficientformer_l1": (224, "NLC", 0, 7, 448),
    "coat_lite_tiny": (224, "NLC", 1, 7, 320),
}


def shapes_alone(name, size):
    """The backbone without the memory and time of its weights."""
    with torch.device("meta"):
        return build_backbone(name, size)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_of_each_family(name):
    size, *expected = LAYOUTS[name]
    assert patch_layout(shapes_alone(name, size), name, size) == PatchLayout(*expected)


def test_patches_of_each_format_by_hand_row_by_row():
    # channel c of row r and column s is 100 c + 10 r + s
    channels, rows, columns = torch.meshgrid(
        torch.arange(3), torch.arange(2), torch.arange(2), indexing="ij"
    )
    chw = (100 * channels + 10 * rows + columns)[None]
    expected = torch.tensor([[[0, 100, 200], [1, 101, 201], [10, 110, 210], [11, 111, 211]]])
    nlc = torch.cat([torch.full((1, 2, 3), -1), expected], dim=1)
    assert torch.equal(PatchLayout("NCHW", 0, 2, 3).patches(chw), expected)
    assert torch.equal(PatchLayout("NHWC", 0, 2, 3).patches(chw.permute(0, 2, 3, 1)), expected)
    assert torch.equal(PatchLayout("NLC", 2, 2, 3).patches(nlc), expected)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv4_conv_small", "swin_nano", "test_vit"])
def test_mean_of_the_patches_is_timms_own_average_pooling(name):
    backbone = build_backbone(name, 64).eval()
    layout = patch_layout(backbone, name, 64)
    with torch.inference_mode():
        features = backbone.forward_features(torch.randn(2, 3, 64, 64))
        if name == "test_vit":
            pooled = timm.layers.global_pool_nlc(features, "avg", backbone.num_prefix_tokens)
        else:
            pool = backbone.head.global_pool if name == "swin_nano" else backbone.global_pool
            pooled = pool(features).flatten(1)
    torch.testing.assert_close(layout.patches(features).mean(1), pooled)


def test_a_patch_changes_most_when_its_own_corner_of_the_picture_does():
    torch.manual_seed(0)
    backbone = build_backbone("test_vit", 64).eval()
    layout = patch_layout(backbone, "test_vit", 64)
    dark, lit = torch.zeros(2, 1, 3, 64, 64)
    lit[:, :, :16, 48:] = 1.0  # upper right
    with torch.inference_mode():
        before, after = (layout.patches(backbone.forward_features(x)) for x in (dark, lit))
    assert (after - before).norm(dim=-1).argmax().item() == layout.grid - 1


def test_looking_at_the_layout_leaves_mode_and_statistics_as_they_were():
    backbone = build_backbone("test_resnet", 32).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    patch_layout(backbone, "test_resnet", 64)
    assert backbone.training
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("pit_ti_224", r"a tensor \(N, 1, 256\)"),
        ("pit_xs_distilled_224", r"a tensor \(N, 2, 384\)"),
        ("crossvit_tiny_240", "a list"),
    ],
)
def test_a_backbone_without_patches_is_refused_and_those_that_can_are_named(name, given):
    size = timm.get_pretrained_cfg(name).input_size[-1]
    backbone = shapes_alone(name, size)
    with pytest.raises(ConfigError, match=f"{name}' gives {given}.*such as .*resnet18") as error:
        patch_layout(backbone, name, size)
    assert "\n" not in str(error.value)


def test_a_single_patch_is_refused():
    with pytest.raises(ConfigError, match=r"'test_resnet' gives a single patch for 32-pixel"):
        patch_layout(build_backbone("test_resnet", 32), "test_resnet", 32)


class OwnBackbone(nn.Module):
    """A backbone of a sweep file: channels last, and silent about it."""

    num_features = 5

    def __init__(self, shape):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.shape = shape

    def forward_features(self, pixels):
        return torch.zeros(len(pixels), *self.shape)


def test_channels_last_are_told_by_their_number_when_the_backbone_is_silent():
    assert patch_layout(OwnBackbone((4, 4, 5)), "own", 64) == PatchLayout("NHWC", 0, 4, 5)


@pytest.mark.parametrize("shape", [(4, 3, 5), (5, 4, 3), (4, 4, 6), (12, 5), (16, 6), (5,)])
def test_what_is_no_square_of_patches_is_refused(shape):
    with pytest.raises(ConfigError, match="no patches for token-level objectives"):
        patch_layout(OwnBackbone(shape), "own", 64)


# --------------------------------------------------------------------------- words


def test_words_are_between_sot_and_eot():
    ids = torch.tensor([[8, 3, 4, 9, 0, 0], [8, 9, 0, 0, 0, 0], [8, 1, 2, 3, 4, 9]])
    expected = [[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0]]
    assert torch.equal(word_mask(ids), torch.tensor(expected, dtype=torch.bool))


@pytest.mark.parametrize("rows", [None, corpus_rows(["a red car", "dogs"])])
def test_words_of_the_tokenizer_full_and_corpus(rows):
    # "zebra" is no piece of the corpus, so its id there is that of padding
    ids = Tokenizer(6, rows)(["a red car", "", "zebra", "a a a a a a a a"])
    assert word_mask(ids).sum(dim=1).tolist() == [3, 0, 1, 4]


# --------------------------------------------------------------------------- projections


def test_tokens_are_unit_norm_and_differentiable_in_both_towers():
    layout = PatchLayout("NCHW", 0, 3, 7)
    projections = TokenProjections(layout, text_width=6, dim=4)
    features = torch.randn(2, 7, 3, 3, requires_grad=True)
    hidden = torch.randn(2, 5, 6, requires_grad=True)
    ids = torch.tensor([[8, 3, 9, 0, 0], [8, 3, 4, 5, 9]])
    patches, words, mask = projections(features, hidden, ids)
    torch.testing.assert_close(patches.norm(dim=-1), torch.ones(2, 9))
    torch.testing.assert_close(words.norm(dim=-1), torch.ones(2, 5))
    assert mask.sum(dim=1).tolist() == [1, 3]
    (patches[:, :, 0].sum() + words[:, :, 0].sum()).backward()
    assert (features.grad != 0).any()
    assert (hidden.grad != 0).any()


def test_tokens_are_fp32_under_autocast():
    projections = TokenProjections(PatchLayout("NLC", 1, 2, 7), text_width=6, dim=4)
    ids = torch.tensor([[8, 3, 9]])
    with torch.autocast("cpu", torch.bfloat16):
        tokens = projections(torch.randn(1, 5, 7), torch.randn(1, 3, 6), ids)
    assert tokens.patches.dtype == tokens.words.dtype == torch.float32
