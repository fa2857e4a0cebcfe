"""The two-tower model: at inference exactly a plain CLIP."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import Model
from harness.data.text import Tokenizer
from harness.data.transforms import evaluation_transform
from harness.models.image import ImageEncoder
from harness.models.text import TextEncoder
from harness.seeding import derive_seed


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Torch's generators seeded for one use, and as they were before afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(*parts))
        yield


class TwoTower(nn.Module):
    """Image and text tower with a learnt temperature.

    Args:
        config: towers and the space they share.
        rows: full token id of each compact id for `vocabulary=corpus` (see `data.text`), else None.
        seed: each tower is initialised from a generator of its own, so that an ablation of one
            leaves the other's initial weights alone.
    """

    def __init__(self, config: Model, rows: np.ndarray | None, seed: int) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config.text.context_length, rows)
        self.preprocess = evaluation_transform(config.image)
        with seeded(seed, "image tower"):
            self.image = ImageEncoder(config.image, config.embed_dim)
        with seeded(seed, "text tower"):
            self.text = TextEncoder(config.text, self.tokenizer.vocab_size, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(config.init_logit_scale)))
        self.register_buffer("token_rows", None if rows is None else torch.from_numpy(rows))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) to unit-norm (N, D)."""
        return F.normalize(self.image(pixels).float(), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(N, L) to unit-norm (N, D)."""
        return F.normalize(self.text(tokens).float(), dim=-1)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Unit-norm embeddings of a batch of pairs, each (N, D)."""
        return self.encode_image(pixels), self.encode_text(tokens)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep exp(logit_scale) in [1, max_logit_scale]; called after each optimiser step."""
        self.logit_scale.clamp_(0.0, math.log(self.config.max_logit_scale))
