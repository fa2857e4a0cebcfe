"""Words on patches: a 2 x 2 picture and pieces whose cosines are written down."""

import numpy as np
import pytest
import torch
from torch import nn

from harness.config import RunConfig, override
from harness.data.text import corpus_rows, word_mask
from harness.errors import ConfigError
from harness.evaluate.alignment import align
from harness.models.tokens import Tokens
from harness.models.training import TrainingModel
from harness.objectives.token import TokenLoss
from tests.conftest import TINY_TOWERS

TEXT = "a quokka"  # pieces: a, qu, ok, ka
COSINES = torch.tensor(
    [
        [0.0, 0.0, 0.0, 0.8],
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.9, 0.0, 0.0],
        [0.0, 0.6, 0.3, 0.0],
    ]
)


class Given(nn.Module):
    """Tokens whose cosines are `COSINES`, after any that SOT and EOT might have."""

    def forward(self, features, hidden, ids):
        extreme = torch.full((1, 4), 5.0)
        words = torch.cat([extreme, COSINES, extreme])[None]
        return Tokens(torch.eye(4)[None], words, word_mask(ids))


CONFIG = override(
    RunConfig(),
    {
        "model.image.backbone": "test_vit",
        **TINY_TOWERS,
        "model.text.context_length": 12,
        "objective.token.weight": 0.5,
        "objective.token.dim": 4,
    },
)


@pytest.fixture
def model():
    model = TrainingModel(CONFIG, corpus_rows(["a qu"]))
    model.tokens = Given()
    return model


PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_pieces_are_matched_one_to_one_and_then_taken_together(model):
    a, quokka = align(model, TokenLoss(), PICTURE, TEXT).words
    assert (a.text, a.known, quokka.text, quokka.known) == ("a", True, "quokka", False)
    assert a.weights.tolist() == [[0, 0], [0, 1]]
    assert quokka.weights.tolist() == [[1, 1], [1, 0]]
    assert a.cosine == pytest.approx(0.8)
    assert quokka.cosine == pytest.approx((1.0 + 0.9 + 0.3) / 3)


def test_the_heat_of_a_word_is_the_mean_over_its_pieces(model):
    a, quokka = align(model, TokenLoss(), PICTURE, TEXT).words
    np.testing.assert_allclose(a.similarity, [[0, 0], [0, 0.8]], atol=1e-6)
    np.testing.assert_allclose(quokka.similarity, [[1 / 3, 0.5], [0.1, 0]], atol=1e-6)


def test_a_patch_that_two_pieces_share_is_matched_once(model):
    _, quokka = align(model, TokenLoss(matching="many_to_one"), PICTURE, TEXT).words
    assert quokka.weights.tolist() == [[1, 1], [0, 0]]
    assert quokka.cosine == pytest.approx((1.0 + 0.9 + 0.6) / 3)


def test_a_word_that_the_matching_leaves_out_has_no_cosine(model):
    a, quokka = align(model, TokenLoss(matching="top_k", keep=0.5), PICTURE, TEXT).words
    assert a.cosine is None
    assert a.weights.tolist() == [[0, 0], [0, 0]]
    assert quokka.weights.tolist() == [[1, 1], [0, 0]]
    assert quokka.cosine == pytest.approx(0.95)


def test_a_soft_matching_weighs_the_cosines(model):
    soft = TokenLoss(matching="sinkhorn", eps=0.5)
    a, _ = align(model, soft, PICTURE, TEXT).words
    assert 0 < a.weights.min() < a.weights.max() < 1
    assert 0.25 * 0.8 < a.cosine < 0.8
    hard = TokenLoss(matching="sinkhorn", eps=0.005, iterations=200)
    assert align(model, hard, PICTURE, TEXT).words[1].cosine == pytest.approx(2.2 / 3, abs=1e-3)


def test_the_picture_is_the_one_the_tower_is_shown(model):
    np.testing.assert_array_equal(align(model, TokenLoss(), PICTURE, TEXT).picture, PICTURE)
    wide = np.concatenate([PICTURE * 0, PICTURE, PICTURE * 0], axis=1)
    np.testing.assert_array_equal(align(model, TokenLoss(), wide, TEXT).picture, PICTURE)


def test_a_text_without_words_is_refused(model):
    with pytest.raises(ConfigError, match="the text '  ' has no word to match"):
        align(model, TokenLoss(), PICTURE, "  ")


def test_the_trained_tokens_are_what_is_shown():
    """The cosines are those of the model's own projections, computed here step by step."""
    model = TrainingModel(CONFIG, corpus_rows([TEXT])).eval()
    towers = model.model
    with torch.no_grad():
        features = towers.image.features(towers.preprocess(PICTURE)[None])
        patches = model.tokens.image(features[0, -4:])
        hidden = towers.text.hidden(towers.tokenizer([TEXT]))[0]
        word = model.tokens.text(hidden[1])
    expected = torch.cosine_similarity(patches, word[None], dim=-1).view(2, 2)
    a, _ = align(model, CONFIG.objective.token, PICTURE, TEXT).words
    np.testing.assert_allclose(a.similarity, expected.numpy(), atol=1e-5)
