"""Text towers: open_clip's causal transformer at any depth and width."""

from __future__ import annotations

from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor

from harness.config import TextTower as TextConfig


class TextTower(TextTransformer):  # type: ignore[misc]
    """Token ids (N, L), L up to the context length, to embeddings (N, embed_dim), not normalised.

    open_clip's tower wants the full context; this one takes a batch cut to its longest text.
    Exact, because the mask is causal, positions count from the left, and the pooled EOT is the
    highest id.
    """

    def __init__(self, config: TextConfig, vocab_size: int, embed_dim: int) -> None:
        super().__init__(
            context_length=config.context_length,
            vocab_size=vocab_size,
            width=config.width,
            heads=config.heads,
            layers=config.layers,
            output_dim=embed_dim,
        )

    def hidden(self, tokens: Tensor) -> Tensor:
        """(N, L) ids to (N, L, width) after the last norm, before pooling."""
        embedded, mask = self._embeds(tokens)
        out: Tensor = self.ln_final(self.transformer(embedded, attn_mask=mask))
        return out

    def pool(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """What `hidden` gave, at EOT and projected: (N, embed_dim)."""
        pooled: Tensor = text_global_pool(hidden, tokens, pool_type=self.pool_type)
        out: Tensor = pooled @ self.text_projection
        return out

    def _embeds(self, text: Tensor) -> tuple[Tensor, Tensor | None]:
        length = text.shape[1]
        embedded, mask = super()._embeds(text)
        return embedded, None if mask is None else mask[:length, :length]
