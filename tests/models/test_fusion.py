import open_clip
import pytest
import torch
from torch.nn import functional as F

from harness.config import ImageTower as ImageConfig
from harness.config import TextTower as TextConfig
from harness.errors import ConfigError
from harness.models.fusion import MaskedPass
from harness.models.image import ImageEncoder
from harness.models.text import TextEncoder
from harness.objectives.masking import Masked, mask_words, masking_noise
from harness.objectives.mlm import MlmLoss, mlm_loss

# Width 16, 2 heads, 3 blocks; a vocabulary of 20: 0 pad, words 1 to 17, SOT 18, EOT 19.
TEXT = TextConfig(layers=3, width=16, heads=2, context_length=12)
VOCAB, SOT, EOT = 20, 18, 19
TOKENS = torch.tensor(
    [[SOT, 1, 2, 3, 4, 5, EOT], [SOT, 6, 7, EOT, 0, 0, 0], [SOT, 8, 9, 10, EOT, 0, 0]]
)
PATCH_WIDTH, EMBED = 10, 6
OPERATORS = ["cross_attention", "add", "concat"]


def tower():
    torch.manual_seed(0)
    return TextEncoder(TEXT, VOCAB, EMBED)


def branch(operator="cross_attention", *, gate=None, **fields):
    torch.manual_seed(1)
    config = MlmLoss(operator=operator, **fields)
    width = EMBED if operator == "add" else PATCH_WIDTH
    module = MaskedPass(config, TEXT, VOCAB, width)
    for name, parameter in module.named_parameters():
        if gate is not None and name.endswith("gate"):
            parameter.data.fill_(gate)
    return module


def masked(tokens=TOKENS, ratio=0.5):
    noise = masking_noise(torch.Generator().manual_seed(2), len(tokens), 12)
    return mask_words(tokens, noise, ratio=ratio, vocab_size=VOCAB)


def everywhere(tokens):
    """Nothing hidden, every place asked for: the states of the whole batch."""
    none = torch.zeros_like(tokens, dtype=torch.bool)
    places = torch.arange(tokens.numel())
    return Masked(tokens, none, places, tokens.flatten())


def picture(operator="cross_attention", seed=3):
    shape = (3, EMBED) if operator == "add" else (3, 4, PATCH_WIDTH)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def states(module, text, hidden_words, image):
    return module(text, hidden_words.ids, hidden_words.hidden, hidden_words.positions, image)


# --------------------------------------------------------------------------- the masked pass


def test_causal_pass_is_open_clips_own_token_states():
    text, module = tower(), branch("none", attention="causal")
    with torch.no_grad():
        ours = states(module, text, everywhere(TOKENS), picture())
        text.output_tokens = True
        _, theirs = text(TOKENS)
    torch.testing.assert_close(ours, module.transform(theirs.flatten(0, 1)))


@pytest.mark.parametrize("training", [True, False])
def test_bidirectional_pass_is_open_clips_tower_with_its_pad_mask(training):
    text, module = tower().train(training), branch("none")
    theirs = open_clip.transformer.TextTransformer(
        context_length=12, vocab_size=VOCAB, width=16, heads=2, layers=3, output_dim=EMBED,
        no_causal_mask=True, use_pad_mask=True, output_tokens=True,
    )  # fmt: skip
    theirs.load_state_dict(text.state_dict())
    full = F.pad(TOKENS, (0, 5))
    with torch.no_grad():
        _, tokens = theirs(full)
        ours = states(module, text, everywhere(TOKENS), picture()).view(3, 7, 16)
        expected = module.transform(tokens[:, :7])
    words = TOKENS > 0
    torch.testing.assert_close(ours[words], expected[words])


@pytest.mark.parametrize("operator", [*OPERATORS, "none"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_pads_are_ignored(operator, attention):
    text, module = tower(), branch(operator, attention=attention, gate=0.7)
    with torch.no_grad():
        short = states(module, text, masked(), picture(operator))
        text.token_embedding.weight[0] = 1e3
        longer = states(module, text, masked(F.pad(TOKENS, (0, 4))), picture(operator))
    torch.testing.assert_close(longer, short)


def test_a_later_word_is_seen_by_the_bidirectional_pass_alone():
    text = tower()
    other = TOKENS.clone()
    other[0, 5] = 17
    moved = {}
    for attention in ("causal", "bidirectional"):
        module = branch("none", attention=attention)
        with torch.no_grad():
            one, two = (
                states(module, text, everywhere(t), picture()).view(3, 7, 16)[0, 1]
                for t in (TOKENS, other)
            )
        moved[attention] = (one - two).abs().max().item()
    assert moved["causal"] == 0.0
    assert moved["bidirectional"] > 1e-3


def test_a_masked_word_cannot_be_seen():
    text, module = tower(), branch("none")
    other = TOKENS.clone()
    other[0, 2] = 17
    hidden = torch.zeros_like(TOKENS, dtype=torch.bool)
    hidden[0, 2] = True
    place = torch.tensor([2])
    with torch.no_grad():
        one, two = (module(text, t, hidden, place, picture()) for t in (TOKENS, other))
        seen = module(text, other, torch.zeros_like(hidden), place, picture())
    assert torch.equal(one, two)
    assert not torch.allclose(one, seen)


# --------------------------------------------------------------------------- fusion


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_fusion_with_a_zero_gate_is_plain_mlm(operator, attention):
    text, plain = tower(), branch("none", attention=attention)
    fused = branch(operator, attention=attention, gate_init=0.0)
    with torch.no_grad():
        with_picture = states(fused, text, masked(), picture(operator))
        without = states(plain, text, masked(), picture(operator))
    if operator == "concat":  # the same sum in another order
        torch.testing.assert_close(with_picture, without)
    else:
        assert torch.equal(with_picture, without)


def test_concat_behind_an_open_gate_is_concat_without_one():
    text, free, gated = tower(), branch("concat"), branch("concat", gate_init=20.0)
    gated.load_state_dict(free.state_dict(), strict=False)
    with torch.no_grad():
        one, two = (states(module, text, masked(), picture()) for module in (free, gated))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("operator", OPERATORS)
def test_gates_start_where_they_are_told_and_say_how_far_they_are_open(operator):
    opened = branch(operator, gate_init=1.0)
    assert opened.gates() == pytest.approx(dict.fromkeys("012", 0.7615942))
    assert opened.config.log(0.0, opened) == pytest.approx(
        {f"mlm/gate/{block}": 0.7615942 for block in range(3)}
    )
    assert branch(operator).gates() == ({} if operator == "concat" else dict.fromkeys("012", 0.0))
    assert branch("none", gate_init=1.0).gates() == {}


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_block_takes_in_its_own_stage(operator):
    text = tower()
    torch.manual_seed(1)
    module = MaskedPass(MlmLoss(operator=operator, gate_init=1.0), TEXT, VOCAB, 4, 6, 8)
    shapes = [(3, width) if operator == "add" else (3, 5, width) for width in (4, 6, 8)]
    images = [torch.randn(shape, requires_grad=True) for shape in shapes]
    words = masked()
    out = module(text, words.ids, words.hidden, words.positions, *images)
    out.square().sum().backward()
    assert all(image.grad.abs().sum() > 0 for image in images)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_zero_gate_opens_by_its_own_gradient(operator):
    text, module = tower(), branch(operator, gate_init=0.0)
    words = masked()
    out = states(module, text, words, picture(operator))
    mlm_loss(out, module.table(text), module.bias, words.targets).backward()
    gates = [p for name, p in module.named_parameters() if name.endswith("gate")]
    assert len(gates) == 3
    assert all(gate.grad.abs() > 0 for gate in gates)


def test_cross_attention_stage_by_hand():
    # Equal patches give every word the same answer: the value of that patch, whatever the weights.
    text, module = tower(), branch("cross_attention", stages=[1], gate=0.3)
    image = picture()[:, :1].expand(3, 4, PATCH_WIDTH)
    layer = module.stages["1"]
    attention, normed = layer.attention, layer.norm_image(image[:, :1])
    value = normed @ attention.v_proj_weight.T + attention.in_proj_bias[32:]
    answer = torch.tanh(torch.tensor(0.3)) * attention.out_proj(value)
    blocks, mask = text.transformer.resblocks, text.attn_mask[:7, :7]
    x = blocks[0](text.token_embedding(TOKENS) + text.positional_embedding[:7], attn_mask=mask)
    x = blocks[2](blocks[1](x + answer, attn_mask=mask), attn_mask=mask)
    expected = module.transform(text.ln_final(x)).flatten(0, 1)
    causal = branch("cross_attention", stages=[1], gate=0.3, attention="causal")
    torch.testing.assert_close(states(causal, text, everywhere(TOKENS), image), expected)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_concat_is_the_whole_block_over_patches_and_text_with_the_patches_dropped(attention):
    text, module = tower(), branch("concat", stages="last", attention=attention)
    layer, image = module.stages["2"], picture()
    allowed = torch.ones(7, 7).tril().bool()[None].expand(3, 7, 7)
    if attention == "bidirectional":
        allowed = (TOKENS > 0)[:, None].expand(3, 7, 7)
    plain = torch.zeros(3, 7, 7).masked_fill(~allowed, float("-inf")).repeat_interleave(2, 0)
    wide = torch.zeros(6, 11, 11)
    wide[:, 4:, 4:] = plain
    x = text.token_embedding(TOKENS) + text.positional_embedding[:7]
    for block in text.transformer.resblocks[:2]:
        x = block(x, attn_mask=plain)
    both = torch.cat([layer.projection(layer.norm_image(image)), x], dim=1)
    x = text.transformer.resblocks[2](both, attn_mask=wide)[:, 4:]
    expected = module.transform(text.ln_final(x)).flatten(0, 1)
    torch.testing.assert_close(states(module, text, everywhere(TOKENS), image), expected)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_order_of_patches_is_nothing_and_their_pair_is_everything(operator):
    text, module = tower(), branch(operator, gate=0.7)
    image = picture(operator)
    with torch.no_grad():
        here = states(module, text, masked(), image)
        permuted = image if operator == "add" else image.flip(1)
        same = states(module, text, masked(), permuted)
        other = states(module, text, masked(), image.roll(1, dims=0))
    torch.testing.assert_close(here, same)
    assert (here - other).abs().max() > 1e-3


@pytest.mark.parametrize("operator", OPERATORS)
def test_gradients_reach_the_image_and_the_text_encoder_through_the_fusion(operator):
    image_tower = ImageEncoder(ImageConfig(backbone="test_resnet", size=32), EMBED).eval()
    text = tower()
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    if operator == "add":
        image = F.normalize(image_tower(pixels), dim=-1)
        module = branch("add", gate=0.5)
    else:
        image = image_tower.backbone.forward_features(pixels).flatten(2).transpose(1, 2)
        torch.manual_seed(1)
        module = MaskedPass(MlmLoss(operator=operator), TEXT, VOCAB, image.shape[-1])
        for stage in module.stages.values():
            if operator == "cross_attention":
                stage.gate.data.fill_(0.5)
    words = masked()
    out = states(module, text, words, image)
    mlm_loss(out, module.table(text), module.bias, words.targets).backward()
    reached = {name for name, p in image_tower.backbone.named_parameters() if p.grad is not None}
    assert reached == {name for name, _ in image_tower.backbone.named_parameters()}
    assert image_tower.backbone.conv1[0].weight.grad.abs().max() > 0
    for block in text.transformer.resblocks:
        assert block.attn.in_proj_weight.grad.abs().max() > 0
    assert text.token_embedding.weight.grad[SOT].abs().max() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("operator", OPERATORS)
def test_contrastive_embeddings_are_the_same_with_and_without_mlm(operator):
    text, module = tower().train(), branch(operator, gate=0.7).train()
    weights = {name: value.clone() for name, value in text.state_dict().items()}
    alone = text(TOKENS)
    state = torch.get_rng_state()
    words = masked()
    out = states(module, text, words, picture(operator))
    beside = text(TOKENS)
    assert torch.equal(alone, beside)
    assert torch.equal(torch.get_rng_state(), state)  # what is drawn after the pass is not moved
    (alone.sum() + mlm_loss(out, module.table(text), module.bias, words.targets)).backward()
    for name, value in text.state_dict().items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_fusion_owns_no_weight_of_the_tower_and_adds_none_to_it(head):
    text, module = tower(), branch(head=head)
    before = list(text.state_dict())
    states(module, text, masked(), picture())
    assert list(text.state_dict()) == before
    shared = {id(p) for p in text.parameters()} & {id(p) for p in module.parameters()}
    assert shared == set()


# --------------------------------------------------------------------------- stages and head


@pytest.mark.parametrize(
    ("stages", "fused"),
    [
        ("all", ["0", "1", "2"]),
        ("first", ["0"]),
        ("middle", ["1"]),
        ("last", ["2"]),
        ([0, 2], "02"),
    ],
)
def test_only_the_chosen_blocks_have_fusion_weights(stages, fused):
    assert list(branch(stages=stages).stages) == list(fused)


def test_plain_mlm_has_no_fusion_weights_and_does_not_look_at_the_picture():
    text, module = tower(), branch("none")
    assert not any(name.startswith("stages") for name in module.state_dict())
    with torch.no_grad():
        one = states(module, text, masked(), picture(seed=3))
        two = states(module, text, masked(), picture(seed=4))
    assert torch.equal(one, two)


def test_a_stage_that_is_not_there_is_refused_with_the_blocks_there_are():
    with pytest.raises(ConfigError, match="a text tower of 3 layers lacks; its blocks: 0, 1, 2"):
        branch(stages=[0, 3])


def test_tied_head_trains_the_token_embedding_and_untied_a_table_of_its_own():
    rows = {}
    for head in ("tied", "untied"):
        text, module = tower(), branch("none", head=head)
        words = masked()
        out = states(module, text, words, picture())
        mlm_loss(out, module.table(text), module.bias, words.targets).backward()
        # word 17 is in no caption: only a head that scores every word can move its row
        rows[head] = text.token_embedding.weight.grad[17].abs().max().item()
    assert rows["tied"] > 0
    assert rows["untied"] == 0
    assert branch(head="tied").own_table is None
    assert branch(head="untied").own_table.shape == (VOCAB, 16)


def test_a_batch_without_words_costs_nothing_and_stays_finite():
    text, module = tower(), branch(gate=0.5)
    words = masked(torch.tensor([[SOT, EOT], [SOT, EOT], [SOT, EOT]]))
    out = states(module, text, words, picture())
    loss = mlm_loss(out, module.table(text), module.bias, words.targets)
    loss.backward()
    assert out.shape == (0, 16)
    assert loss.item() == 0.0
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("operator", [*OPERATORS, "none"])
def test_a_word_that_only_the_picture_tells_is_learnt_by_fusion_alone(operator):
    # four pictures, one masked word each that is the picture's number: ln 4 without the picture
    text = tower()
    width = EMBED if operator == "add" else PATCH_WIDTH
    torch.manual_seed(5)
    module = MaskedPass(MlmLoss(operator=operator), TEXT, VOCAB, width)
    ids = torch.tensor([[SOT, 0, EOT]]).repeat(4, 1)
    hidden = torch.tensor([[False, True, False]]).repeat(4, 1)
    places, targets = torch.arange(1, 12, 3), torch.arange(1, 5)
    image = torch.eye(4, width)
    image = image if operator == "add" else image[:, None]
    optimiser = torch.optim.Adam([*text.parameters(), *module.parameters()], lr=1e-2)
    for _ in range(40):
        out = module(text, ids, hidden, places, image)
        loss = mlm_loss(out, module.table(text), module.bias, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if operator == "none":
        assert loss.item() > 1.38  # ln 4 = 1.386
    else:
        assert loss.item() < 0.7


@pytest.mark.parametrize("operator", [*OPERATORS, "none"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_bfloat16_autocast_gives_the_fp32_states_to_its_own_precision(operator, attention):
    text, module = tower(), branch(operator, attention=attention, gate=0.7)
    exact = states(module, text, masked(), picture(operator))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = states(module, text, masked(), picture(operator))
    torch.testing.assert_close(coarse.float(), exact, atol=0.05, rtol=0.05)
