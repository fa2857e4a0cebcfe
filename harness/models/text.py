"""Text towers: open_clip's causal transformer at any depth and width."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor

from harness.config import TextTower as TextConfig
from harness.errors import ConfigError

_BLOCK = re.compile(r"(transformer\.resblocks\.)(\d+)\.")


class TextEncoder(TextTransformer):  # type: ignore[misc]
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

    @torch.no_grad()
    def inherit(self, parent: Mapping[str, Tensor], blocks: Sequence[int]) -> None:
        """Start from the weights of a deeper tower, as TinyCLIP's smaller models do.

        Block i becomes the parent's block `blocks[i]`; the token and positional embeddings, the
        last norm and the projection are the parent's.  Which are taken is our choice: TinyCLIP
        takes blocks by hand or by learnt masks, and narrows their width too.

        Args:
            parent: the parent tower's state.

        Raises:
            ConfigError: a tensor is absent there or has another shape.
        """
        own = self.state_dict()
        sources = {name: _in_parent(name, blocks) for name in own}
        misfits = [
            name
            for name, source in sources.items()
            if source not in parent or parent[source].shape != own[name].shape
        ]
        if misfits:
            raise ConfigError(
                f"the parent's text tower does not fit: {len(misfits)} tensors are absent or of "
                f"another shape, such as {misfits[0]}"
            )
        for name, source in sources.items():
            own[name].copy_(parent[source])

    def _embeds(self, text: Tensor) -> tuple[Tensor, Tensor | None]:
        length = text.shape[1]
        embedded, mask = super()._embeds(text)
        return embedded, None if mask is None else mask[:length, :length]


def _in_parent(name: str, blocks: Sequence[int]) -> str:
    """The parent's name of what is called `name` here."""
    found = _BLOCK.match(name)
    return name if found is None else f"{found[1]}{blocks[int(found[2])]}{name[found.end(2) :]}"
