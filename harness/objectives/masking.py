"""Which words of a caption are hidden for masked language modelling, and by what.

A pure function of token ids and of uniform noise.  Knows nothing of a model: that the mask itself
has no row in CLIP's vocabulary, and what stands in its place, is `harness.models.fusion`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
"""Shares of the chosen words that are masked and replaced; the rest is kept (BERT, section 3.1)."""


class Masked(NamedTuple):
    """Captions with chosen words hidden; M words are chosen in the whole batch.

    Attributes:
        ids: int64 (N, L), randomly replaced where so drawn, and PAD where `hidden`, so that the
            word cannot leak.
        hidden: bool (N, L), where the learnt mask embedding takes the token's place.
        positions: int64 (M,), the chosen places in the flattened (N * L) batch, in rising order.
        targets: int64 (M,), the words that stood there.
    """

    ids: Tensor
    hidden: Tensor
    positions: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> Masked:
        """On a device."""
        from harness.device import upload

        return Masked(*(upload(tensor, device) for tensor in self))

    def rows(self, first: int, last: int) -> Masked:
        """The captions `first` to `last` alone, with their places counted from `first`."""
        length = self.ids.shape[1]
        low, high = first * length, last * length
        inside = (self.positions >= low) & (self.positions < high)
        places, targets = self.positions[inside] - low, self.targets[inside]
        return Masked(self.ids[first:last], self.hidden[first:last], places, targets)


def masking_noise(generator: torch.Generator, batch_size: int, context_length: int) -> Tensor:
    """Uniform noise (3, batch_size, context_length) for `mask_words`, drawn on the CPU.

    Drawn for the *global* batch and the full context; a process takes its own rows of dimension 1.
    So the same words are hidden whatever the number of processes, the device, and the length that
    a batch is cut to, and no other random draw of the step is moved.
    """
    import torch

    return torch.rand(3, batch_size, context_length, generator=generator)


def maskable(tokens: Tensor) -> Tensor:
    """Bool (N, L): the words, which stand between SOT (first) and EOT (highest id of its row).

    Id 0 is not one of them.  In a compact vocabulary it is every piece that the corpus lacks, and
    there is no word to guess behind it; it stays as context.  In the full vocabulary it is also the
    piece "!" inside a longer run of signs, given up for one rule in both.
    """
    from harness.data.text import OTHER, word_mask

    return word_mask(tokens) & (tokens != OTHER)


def mask_words(tokens: Tensor, noise: Tensor, *, ratio: float, vocab_size: int) -> Masked:
    """Hide `ratio` of each caption's words, rounded half up, at least one where there is a word.

    Of the chosen, 80 % are masked, 10 % replaced by a random word and 10 % kept; all are targets.
    SOT, EOT and pads are never chosen, and a replacement is drawn from word ids alone (neither 0
    nor the two highest, SOT and EOT), so the place of EOT, and with it pooling, never moves.

    Args:
        tokens: int64 (N, L) as `Tokenizer` gives them.
        noise: (3, N, C) of `masking_noise`, C >= L: who is chosen, what happens, which word.
        ratio: share of the words, in (0, 1].
        vocab_size: rows of the embedding table.
    """
    from harness.data.text import PAD

    order, action, draw = noise[:, :, : tokens.shape[1]]
    words = maskable(tokens)
    count = words.sum(dim=1)
    wanted = (ratio * count.double() + 0.5).floor().clamp(min=1).minimum(count)
    rank = order.masked_fill(~words, float("inf")).argsort(dim=1, stable=True).argsort(dim=1)
    chosen = rank < wanted[:, None]
    hidden = chosen & (action < MASK_SHARE)
    replaced = chosen & (action >= MASK_SHARE) & (action < MASK_SHARE + RANDOM_SHARE)
    ids = _random_words(draw, vocab_size).where(replaced, tokens).masked_fill(hidden, PAD)
    positions = chosen.flatten().nonzero().squeeze(1)
    return Masked(ids, hidden, positions, tokens.flatten()[positions])


def _random_words(draw: Tensor, vocab_size: int) -> Tensor:
    last = vocab_size - 3
    # in 32 bits a draw just below 1 may round up to 1
    return (1 + (draw * last).long()).clamp(max=last)
