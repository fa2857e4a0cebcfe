"""Pairs of a batch told apart by how their words match their patches, for the token term.

Owns which pairs are scored, by which process and how many at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from harness.errors import ConfigError
from harness.objectives.matching import (
    ASSIGNED,
    assignment_of,
    match,
    match_patches,
    patch_of_words,
)
from harness.objectives.negatives import Negatives

if TYPE_CHECKING:
    from torch import Tensor

    from harness.objectives.token import TokenLoss

    Gather = Callable[[Tensor], Tensor]

Made = TypeVar("Made")

CHUNK_ELEMENTS = 2**22
"""Cosines that `in_batch` holds at once: 16 MB in fp32, whatever the batch."""


def in_batch_loss(
    patches: Tensor,
    words: Tensor,
    mask: Tensor,
    config: TokenLoss,
    gather: Gather = lambda rows: rows,
    chosen: Negatives | None = None,
    first: int = 0,
) -> Tensor:
    """Symmetric InfoNCE over the batch of S_ij, the mean matched cosine of text j in image i.

    With `many_to_one` this is FILIP's text-to-image similarity, and with `symmetric` pictures ask
    by its image-to-text similarity.  Each pair that is compared is matched anew: all N x N, or with
    K others chosen N x (K + 1).  A text without words is no candidate.  A process scores its own
    texts against the gathered patches, and the scores are gathered.

    Args:
        chosen: which pairs are compared; None: all of the batch.
        first: place of the first pair in the global batch.

    Raises:
        ConfigError: a batch of one, which has nothing to contrast.
    """
    import torch
    from torch.nn import functional as F

    of_all = gather(patches)
    if len(of_all) < 2:
        raise ConfigError(
            "objective.token.negatives = 'in_batch' contrasts pairs, and the batch has 1; "
            "a batch of one allows: none, within_pair"
        )
    worded = gather(mask.any(dim=-1))
    if chosen is None:
        texts, images, targets = _all_pairs(of_all, words, mask, config, gather)
        images = images.masked_fill(~worded, -math.inf)
    else:
        texts, images = _chosen_pairs(patches, of_all, words, mask, config, gather, chosen, first)
        images = images.masked_fill(~worded[chosen.texts], -math.inf)
        targets = torch.zeros(len(of_all), dtype=torch.int64, device=worded.device)
    # A text without words asks nothing; picking the others by their mask would stop a GPU's queue.
    targets = targets.where(worded, -100)
    losses = [
        F.cross_entropy(scores / config.tau, targets, reduction="sum") for scores in (texts, images)
    ]
    return (losses[0] + losses[1]) / (2 * len(of_all))


def _all_pairs(
    patches: Tensor, words: Tensor, mask: Tensor, config: TokenLoss, gather: Gather
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (N, N) of each text with all pictures and of each picture with all texts, targets."""
    import torch

    scores = gather(pair_scores(patches, words, mask, config).T)
    by_images = scores
    if config.both_sides:
        by_images = gather(pair_scores(patches, words, mask, config, from_patches=True).T)
    return scores, by_images.T, torch.arange(len(patches), device=patches.device)


def _chosen_pairs(
    patches: Tensor,
    of_all: Tensor,
    words: Tensor,
    mask: Tensor,
    config: TokenLoss,
    gather: Gather,
    chosen: Negatives,
    first: int,
) -> tuple[Tensor, Tensor]:
    """Scores (N, 1 + K) of each text with its pictures and of each picture with its texts."""
    import torch

    own = slice(first, first + len(words))
    rows = torch.arange(len(words), device=words.device)[:, None].expand(-1, chosen.images.shape[1])
    score = partial(scores_of, config=config)
    by_texts = gather(score(of_all, words, mask, chosen.images[own], rows))
    if chosen.mirrored and not config.both_sides:  # the same pairs: picture i is candidate k there
        places = torch.arange(chosen.texts.shape[1], device=words.device)
        return by_texts, by_texts[chosen.texts, places]
    all_words, all_masks = equally_long(words, mask, gather)
    all_words, all_masks = gather(all_words), gather(all_masks)
    asked = score(
        patches, all_words, all_masks, rows, chosen.texts[own], from_patches=config.both_sides
    )
    return by_texts, gather(asked)


def equally_long(words: Tensor, mask: Tensor, gather: Gather) -> tuple[Tensor, Tensor]:
    """Words (N, L, d) and mask at the length of the process with the longest text of the batch."""
    import torch
    from torch.nn import functional as F

    lengths = gather(torch.tensor([words.shape[1]]))  # known to the host: nobody waits for a GPU
    more = int(lengths.max()) - words.shape[1]
    return F.pad(words, (0, 0, 0, more)), F.pad(mask, (0, more))


def pair_scores(
    patches: Tensor,
    words: Tensor,
    mask: Tensor,
    config: TokenLoss,
    *,
    from_patches: bool = False,
) -> Tensor:
    """S (N, M): mean matched cosine of text j's words with image i's patches; 0 without words.

    Texts are taken a few at a time and their cosines computed again in the backward pass, so that
    memory grows with N x M alone and not with the words and patches.

    Args:
        patches: unit-norm (N, P, d).
        words: unit-norm (M, L, d).
        mask: bool (M, L).
        from_patches: matched from the side of the patches.
    """
    import torch

    texts = max(1, CHUNK_ELEMENTS // (patches.shape[0] * patches.shape[1] * words.shape[1]))

    def some(kept: list[Tensor], patches: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        similarity = torch.einsum("ipd,jld->ijlp", patches, words)
        of_each = mask.expand(len(patches), -1, -1).flatten(0, 1)
        flat = matched_cosine(similarity.flatten(0, 1), of_each, config, from_patches, kept)
        return flat.view(similarity.shape[:2])

    return torch.cat(computed_again(some, [patches], [words, mask], texts), dim=1)


def scores_of(
    patches: Tensor,
    words: Tensor,
    mask: Tensor,
    images: Tensor,
    texts: Tensor,
    config: TokenLoss,
    *,
    from_patches: bool = False,
) -> Tensor:
    """The scores of `pair_scores`, of pictures and texts by their places in `images` and `texts`.

    Memory is bounded in the same way.

    Args:
        images, texts: int64 of one shape, which is that of the scores.
    """
    import torch

    (_, p, d), length = patches.shape, words.shape[1]
    pairs = max(1, CHUNK_ELEMENTS // max(p * length, (p + length) * d))

    def some(
        kept: list[Tensor], patches: Tensor, words: Tensor, of_images: Tensor, of_texts: Tensor
    ) -> Tensor:
        similarity = words[of_texts] @ patches[of_images].mT
        return matched_cosine(similarity, mask[of_texts], config, from_patches, kept)

    places = [images.flatten(), texts.flatten()]
    return torch.cat(computed_again(some, [patches, words], places, pairs)).view(images.shape)


def computed_again(
    some: Callable[..., Made], whole: Sequence[Tensor], chunked: Sequence[Tensor], rows: int
) -> list[Made]:
    """What `some` makes of `whole` and of each few rows of `chunked`.

    It is called a second time in the backward pass, for nothing that it computes is kept but what
    it puts into the list that it is given first, which is its own for each few rows.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    again = partial(checkpoint, some, use_reentrant=False, preserve_rng_state=False)
    chunks = zip(*(torch.split(each, rows) for each in chunked), strict=True)
    return [again([], *whole, *chunk) for chunk in chunks]


def matched_cosine(
    similarity: Tensor,
    mask: Tensor,
    config: TokenLoss,
    from_patches: bool = False,
    kept: list[Tensor] | None = None,
) -> Tensor:
    """Mean (B,) of the matched ones of the cosines (B, L, P); 0 without words.

    An assignment is left in `kept`, and taken from there when the cosines are computed again.
    """
    if kept:
        weights = assignment_of(kept[0], similarity)
    else:
        matched = match_patches if from_patches else match
        weights = matched(similarity.detach(), mask, config)
        if kept is not None and config.matching in ASSIGNED:
            kept.append(patch_of_words(weights))
    return over_matches((weights * similarity).sum(dim=-1), weights)


def over_matches(of_words: Tensor, weights: Tensor) -> Tensor:
    """Sum of `of_words` (..., L) over the mass of the matches (..., L, P); 0 if there is none."""
    mass = weights.sum(dim=(-2, -1))
    return of_words.sum(dim=-1) / mass.where(mass > 0, 1.0)
