"""The masked pass: the text tower's own blocks over hidden words, with the picture let in.

LightCLIP's abstract injects the unmasked image embedding into the masked text embedding at
different stages of the network; operators, gates and stages are our reading, hence switches.  All
that is here is for training alone: the tower is passed in, never owned, so its table, its weights
and an export of it are those of a model that never saw this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import TextTower as TextConfig
from harness.models.text import TextEncoder, Unpadded

if TYPE_CHECKING:
    from harness.objectives.mlm import MlmLoss


_Which = Mapping[str, Any]
"""By the names of `harness.models.text.Block`: which tokens it looks at, and which are wanted."""


class _CrossAttention(nn.Module):
    """Text attends to patches ahead of a block: pre-norm, residual, behind Flamingo's gate."""

    def __init__(self, width: int, heads: int, image_width: int, gate: float | None) -> None:
        super().__init__()
        self.norm_text = nn.LayerNorm(width)
        self.norm_image = nn.LayerNorm(image_width)
        self.attention = nn.MultiheadAttention(
            width, heads, kdim=image_width, vdim=image_width, batch_first=True
        )
        self.gate = nn.Parameter(torch.tensor(gate or 0.0))

    def forward(
        self, block: nn.Module, x: Tensor, image: Tensor, mask: Tensor, which: _Which
    ) -> Tensor:
        keys = self.norm_image(image)
        seen = self.attention(self.norm_text(x), keys, keys, need_weights=False)[0]
        return _run(block, x + self.gate.tanh() * seen, mask, which)


class _Add(nn.Module):
    """The projected image embedding is added to every place ahead of a block, gated alike."""

    def __init__(self, width: int, heads: int, image_width: int, gate: float | None) -> None:
        super().__init__()
        self.norm_image = nn.LayerNorm(image_width)
        self.projection = nn.Linear(image_width, width)
        self.gate = nn.Parameter(torch.tensor(gate or 0.0))

    def forward(
        self, block: nn.Module, x: Tensor, image: Tensor, mask: Tensor, which: _Which
    ) -> Tensor:
        seen = self.projection(self.norm_image(image))[:, None]
        return _run(block, x + self.gate.tanh() * seen, mask, which)


class _Concat(nn.Module):
    """Projected patches stand ahead of the text in one block's self-attention, and leave after it.

    Each stage gets the picture afresh.  What a block would make of the patches themselves is thrown
    away with them, so it is not computed: the text alone asks, patches and text answer.  A gate
    mixes that answer with the one that the text gives alone.  Pads are not passed over.
    """

    def __init__(self, width: int, heads: int, image_width: int, gate: float | None) -> None:
        super().__init__()
        self.norm_image = nn.LayerNorm(image_width)
        self.projection = nn.Linear(image_width, width)
        self.gate = None if gate is None else nn.Parameter(torch.tensor(gate))

    def forward(
        self, block: nn.Module, x: Tensor, image: Tensor, mask: Tensor, which: _Which
    ) -> Tensor:
        patches = self.projection(self.norm_image(image))
        both = block.ln_1(torch.cat([patches, x], dim=1))  # type: ignore[operator]
        asking = both[:, patches.shape[1] :]
        seen_by_all = F.pad(mask, (patches.shape[1], 0))
        answer = block.attention(asking, both, both, _for_queries(seen_by_all, x))  # type: ignore[operator]
        if self.gate is not None:
            alone = block.attention(asking, asking, asking, _for_queries(mask, x))  # type: ignore[operator]
            answer = alone + self.gate.tanh() * (answer - alone)
        x = x + block.ls_1(answer)  # type: ignore[operator]
        out: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))  # type: ignore[operator]
        return out


_OPERATORS: dict[str, type[_CrossAttention | _Add | _Concat]] = {
    "cross_attention": _CrossAttention,
    "add": _Add,
    "concat": _Concat,
}


class MaskedPass(nn.Module):
    """Masked captions, and their pictures, to states from which the hidden words are guessed.

    Args:
        config: attention, stages, operator and head.
        text: the text tower's configuration.
        vocab_size: rows of the tower's embedding table.
        image_widths: C of the image tensor that `forward` will be given, for each of its stages.

    Raises:
        ConfigError: a stage that the tower does not have.

    Attributes:
        bias: (V,), the head's.
    """

    def __init__(
        self, config: MlmLoss, text: TextConfig, vocab_size: int, *image_widths: int
    ) -> None:
        super().__init__()
        self.config = config
        blocks = config.blocks(text.layers)
        # ahead of the operators, so that their draws leave the control's weights as they are
        self.mask_embedding = nn.Parameter(torch.empty(text.width).normal_(std=0.02))
        self.transform = nn.Sequential(
            nn.Linear(text.width, text.width), nn.GELU(), nn.LayerNorm(text.width)
        )
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.own_table = (
            nn.Parameter(torch.empty(vocab_size, text.width).normal_(std=0.02))
            if config.head == "untied"
            else None
        )
        self.stages = nn.ModuleDict()
        if config.operator != "none":
            make = _OPERATORS[config.operator]
            widths = image_widths if len(image_widths) > 1 else image_widths * len(blocks)
            for block, width in zip(blocks, widths, strict=True):
                gate = config.gate_init
                self.stages[str(block)] = make(text.width, text.heads, width, gate)

    def forward(
        self,
        text: TextEncoder,
        ids: Tensor,
        hidden: Tensor,
        positions: Tensor,
        *images: Tensor,
        own: Unpadded | None = None,
    ) -> Tensor:
        """States (M, width) at the chosen places, for `mlm_loss`.

        Args:
            text: the tower whose blocks, table and last norm are shared with this pass.
            ids, hidden, positions: of `harness.objectives.masking.Masked`, on the tower's device.
            images: of the unmasked pictures, with gradient, one for all stages or one for each:
                tokens (N, P, C), or for `add` an embedding (N, C).
            own: where the tokens are, for pads to be passed over; and no more of the last block is
                made than is asked for.
        """
        embedded = text.token_embedding(ids)
        embedded = torch.where(hidden[..., None], self.mask_embedding.to(embedded), embedded)
        x = embedded + text.positional_embedding[: ids.shape[1]]
        mask = self._mask(text, ids)
        of_stages = dict(
            zip(
                self.stages,
                images if len(images) > 1 else images * len(self.stages),
                strict=True,
            )
        )
        last = len(text.transformer.resblocks) - 1
        for index, block in enumerate(text.transformer.resblocks):
            which: _Which = {"tokens": own, "wanted": positions if index == last else None}
            if str(index) in self.stages:
                x = self.stages[str(index)](block, x, of_stages[str(index)], mask, which)
            else:
                x = _run(block, x, mask, which)
        out: Tensor = self.transform(text.ln_final(x.flatten(0, 1)[positions]))
        return out

    def gates(self) -> dict[str, float]:
        """Block -> how far its gate is open, in (-1, 1); without the blocks that have none."""
        gates = {block: stage.gate for block, stage in self.stages.items()}
        return {b: float(g.detach().tanh()) for b, g in gates.items() if isinstance(g, Tensor)}

    def table(self, text: TextEncoder) -> Tensor:
        """Rows (V, width) against which states are scored: the tower's own when tied."""
        rows: Tensor = text.token_embedding.weight if self.own_table is None else self.own_table
        return rows

    def _mask(self, text: TextEncoder, ids: Tensor) -> Tensor:
        """Added to attention: the causal (L, L), or (N * heads, 1, L) that hides what follows EOT.

        In floating point, because open_clip's block casts it to the dtype of its input: a boolean
        mask would become an offset of 0 and 1.
        """
        length = ids.shape[1]
        if self.config.attention == "causal":
            causal: Tensor = text.attn_mask[:length, :length]
            return causal
        after_eot = torch.arange(length, device=ids.device) > ids.argmax(dim=1, keepdim=True)
        mask = torch.zeros(ids.shape, device=ids.device).masked_fill(after_eot, float("-inf"))
        return mask.repeat_interleave(text.heads, dim=0)[:, None]


def _for_queries(mask: Tensor, x: Tensor) -> Tensor:
    """One row of `mask` for every place of `x` (N, L, C), without a copy."""
    return mask.expand(*mask.shape[:-2], x.shape[1], -1)


def _run(block: nn.Module, x: Tensor, mask: Tensor, which: _Which) -> Tensor:
    out: Tensor = block(x, attn_mask=_for_queries(mask, x), **which)
    return out
