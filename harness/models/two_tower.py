"""The two-tower model: at inference exactly a plain CLIP."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import Model
from harness.data.text import EOT, FULL_SIZE, SOT, Tokenizer
from harness.data.transforms import evaluation_transform
from harness.errors import RecordError, one_line
from harness.models.image import ImageEncoder
from harness.models.text import TextEncoder
from harness.seeding import derive_seed


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Torch's generators seeded for one use, and as they were before afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(*parts))
        yield


def rows_of(weights: Mapping[str, Tensor]) -> np.ndarray | None:
    """The rows of a corpus vocabulary among a run's weights; RecordError where they are none."""
    rows = weights.get("token_rows")
    if rows is None:
        return None
    known = set(rows.flatten().tolist()) if rows.dtype == torch.int64 else set()
    if rows.dim() != 1 or not {SOT, EOT} <= known <= set(range(FULL_SIZE)):
        raise RecordError("the weights' token_rows are no rows of CLIP's table")
    return rows.numpy()


def take_up(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model all its weights; RecordError where they are those of another."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RecordError(f"the weights are another model's: {one_line(error):.300}") from None


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
