"""The two towers together with what is there for training alone.

Patch and word projections and the masked pass look into the towers while they train; evaluation,
cost and the weights that are kept see only the towers, so no objective can cost anything at
inference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import RunConfig
from harness.models.fusion import MaskedPass
from harness.models.tokens import PatchLayout, TokenProjections, Tokens, patch_layout
from harness.models.two_tower import TwoTower, seeded


class MaskedTexts(NamedTuple):
    """Captions (N, L) with chosen words hidden; `positions` are flat places of the M chosen."""

    ids: Tensor
    hidden: Tensor
    positions: Tensor


class Outputs(NamedTuple):
    """What a batch of pairs gives to the terms of the loss.

    Attributes:
        image, text: unit-norm embeddings (N, D).
        tokens: patches and words in one space, if the token term is on.
        states: (M, width) at the hidden words, if the MLM term is on.
    """

    image: Tensor
    text: Tensor
    tokens: Tokens | None
    states: Tensor | None


def needs_patches(config: RunConfig) -> bool:
    """Whether a term of the loss looks at the image tower's patches."""
    mlm = config.objective.mlm
    fused = mlm.weight > 0 and mlm.operator in {"cross_attention", "concat"}
    return fused or config.objective.token.weight > 0


class TrainingModel(nn.Module):
    """A TwoTower as `model`, and the modules that the objectives of `config` need beside it.

    Each of these modules is initialised from a generator of its own, so that switching a term on
    leaves the towers' initial weights, and the other terms', as they were.

    Raises:
        ConfigError: a term needs patches and the backbone gives none, or a stage is not there.
    """

    def __init__(self, config: RunConfig, rows: np.ndarray | None) -> None:
        super().__init__()
        self.model = TwoTower(config.model, rows, config.seed)
        self.layout: PatchLayout | None = None
        if needs_patches(config):
            image = config.model.image
            self.layout = patch_layout(self.model.image.backbone, image.backbone, image.size)
        self.tokens = self._token_projections(config)
        self.masked_pass = self._masked_pass(config)

    def training_only(self) -> dict[str, Tensor]:
        """The weights beside the towers: those of `state_dict` that no inference needs."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("model.")}

    def _token_projections(self, config: RunConfig) -> TokenProjections | None:
        token = config.objective.token
        if token.weight == 0 or self.layout is None:
            return None
        with seeded(config.seed, "token projections"):
            return TokenProjections(self.layout, config.model.text.width, token.dim)

    def _masked_pass(self, config: RunConfig) -> MaskedPass | None:
        mlm, text = config.objective.mlm, config.model.text
        if mlm.weight == 0:
            return None
        width = config.model.embed_dim if self.layout is None else self.layout.channels
        if mlm.operator in {"add", "none"}:
            width = config.model.embed_dim
        with seeded(config.seed, "masked pass"):
            return MaskedPass(mlm, text, self.model.tokenizer.vocab_size, width)

    def forward(self, pixels: Tensor, tokens: Tensor, masked: MaskedTexts | None) -> Outputs:
        """One pass of each tower, whatever the terms.

        Args:
            pixels: (N, 3, S, S).
            tokens: (N, L) ids.
            masked: the same captions with words hidden, if the MLM term is on.
        """
        model = self.model
        features = model.image.features(pixels)
        image = F.normalize(model.image.embed(features).float(), dim=-1)
        hidden = model.text.hidden(tokens)
        text = F.normalize(model.text.pool(hidden, tokens).float(), dim=-1)
        matched = None if self.tokens is None else self.tokens(features, hidden, tokens)
        states = None
        if self.masked_pass is not None and masked is not None:
            seen = image
            if self.masked_pass.needs_patches and self.layout is not None:
                seen = self.layout.patches(features)
            states = self.masked_pass(model.text, *masked, seen)
        return Outputs(image, text, matched, states)
