"""A first-in first-out queue of embeddings, part of a run's state while it trains."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TextQueue(nn.Module):
    """The last `size` texts of a run, empty at first.

    Args:
        size: of the queue, at least a batch.
        dim: of the embeddings.
    """

    texts: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("texts", torch.zeros(size, dim))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def nearest(self, texts: Tensor) -> Tensor:
        """The embedding (N, D) in the queue with the largest cosine to each of `texts` (N, D).

        All zeros while the queue is empty.
        """
        size = len(self.texts)
        absent = torch.arange(size, device=texts.device) >= self.pushed
        cosines = (texts.to(self.texts.dtype) @ self.texts.T).masked_fill(absent, -math.inf)
        return self.texts[cosines.argmax(dim=-1)]

    @torch.no_grad()
    def push(self, texts: Tensor) -> None:
        """Put a batch (N, D) in the place of the oldest."""
        size = len(self.texts)
        places = (self.pushed + torch.arange(len(texts), device=texts.device)) % size
        self.texts[places] = texts.to(self.texts.dtype)
        self.pushed += len(texts)
