"""Text towers: open_clip's causal transformer at any depth and width."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, text_global_pool
from torch import Tensor
from torch.nn import functional as F

from harness.config import TextTower as TextConfig
from harness.device import upload
from harness.errors import ConfigError

_BLOCK = re.compile(r"(transformer\.resblocks\.)(\d+)\.")


class Unpadded(NamedTuple):
    """Where the T tokens of captions (N, L) stand, each caption's up to its EOT.

    Attributes:
        places: int64 (T,), in the flattened (N * L) batch, in rising order.
        ends: int64 (N,), the places of EOT.
        starts: int64 (2, N + 1) on the CPU: place of each caption's first token in the flattened
            batch, and among the T.
    """

    places: Tensor
    ends: Tensor
    starts: Tensor

    def to(self, device: torch.device) -> Unpadded:
        """On a device."""
        return self._replace(places=upload(self.places, device), ends=upload(self.ends, device))

    def rows(self, first: int, last: int) -> Unpadded:
        """Of the captions `first` to `last` alone, with their places counted from `first`."""
        last = min(last, len(self.ends))
        (before, began), (_, ended) = self.starts.T[[first, last]].tolist()
        return Unpadded(
            self.places[began:ended] - before,
            self.ends[first:last] - before,
            self.starts[:, first : last + 1] - self.starts[:, first : first + 1],
        )


def unpadded(tokens: Tensor) -> Unpadded:
    """Of captions (N, L) of ids, on the CPU."""
    count, length = tokens.shape
    last = tokens.argmax(dim=1)  # EOT is the highest id
    firsts = torch.arange(count + 1) * length
    places = (torch.arange(length) <= last[:, None]).flatten().nonzero().squeeze(1)
    among = F.pad((last + 1).cumsum(0), (1, 0))
    return Unpadded(places, firsts[:-1] + last, torch.stack([firsts, among]))


class Block(ResidualAttentionBlock):  # type: ignore[misc]
    """open_clip's block, and the same over the tokens alone where captions differ in length."""

    def forward(
        self,
        q_x: Tensor,
        k_x: Tensor | None = None,
        v_x: Tensor | None = None,
        attn_mask: Tensor | None = None,
        tokens: Unpadded | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """(N, L, C) to (N, L, C).

        Args:
            q_x, k_x, v_x, attn_mask: as open_clip's.
            tokens: what alone is looked at; the other places are then 0 in what is returned.
            wanted: int64 (M,), places in the flattened batch, what alone is wanted of `tokens`.
        """
        if tokens is None or attn_mask is None:
            out: Tensor = super().forward(q_x, k_x, v_x, attn_mask)
            return out
        (count, length, width), heads = q_x.shape, self.attn.num_heads
        x = q_x.flatten(0, 1)
        own = self.ln_1(x.index_select(0, tokens.places))
        asked = F.linear(own, self.attn.in_proj_weight, self.attn.in_proj_bias)
        parts = _spread(asked, tokens.places, count * length).view(count, length, 3, heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mask = attn_mask.to(query.dtype)
        mask = mask if mask.ndim == 2 else mask.view(count, heads, *mask.shape[1:])
        seen = F.scaled_dot_product_attention(query, key, value, mask)
        seen = seen.transpose(1, 2).reshape(count * length, width)
        places = tokens.places if wanted is None else wanted
        made = x.index_select(0, places) + self.attn.out_proj(seen.index_select(0, places))
        made = made + self.mlp(self.ln_2(made))
        return _spread(made, places, count * length).view(count, length, width)


def _spread(rows: Tensor, places: Tensor, size: int) -> Tensor:
    """Rows (T, C) at their places of (size, C), 0 elsewhere."""
    return rows.new_zeros(size, rows.shape[1]).index_copy(0, places, rows)


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
        for block in self.transformer.resblocks:
            # open_clip makes them itself, by the draws that every seed's weights come from
            block.__class__ = Block

    def hidden(self, tokens: Tensor, own: Unpadded | None = None, *, words: bool = True) -> Tensor:
        """(N, L) ids to (N, L, width) after the last norm, before pooling.

        Args:
            own: where the tokens are; pads are then passed over, which is exact up to rounding.
            words: whether more is wanted than EOT; else, with `own`, nothing stands elsewhere.
        """
        x, mask = self._embeds(tokens)
        last = len(self.transformer.resblocks) - 1
        for index, block in enumerate(self.transformer.resblocks):
            wanted = own.ends if own and index == last and not words else None
            x = block(x, attn_mask=mask, tokens=own, wanted=wanted)
        out: Tensor = self.ln_final(x)
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
