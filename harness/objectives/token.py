"""Token-level alignment of image patches with words (LightCLIP, abstract).

The abstract says that a relaxed bipartite matching aligns patches with words; what a match is told
apart from is our reading, hence a switch.  The matching (see `matching`) takes no gradient: it
chooses which cosines the loss looks at.

Every pair weighs the same, whatever its number of words, and one without words contributes 0: the
loss is a sum over pairs divided by N.  So `within_pair` and `none` of equal shares of a batch,
averaged, are those of the whole batch; `in_batch` wants the whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from harness.config import TokenLoss
from harness.errors import ConfigError
from harness.objectives.matching import match

CHUNK_ELEMENTS = 2**22
"""Cosines that `in_batch` holds at once: 16 MB in fp32, whatever the batch."""


Gather = Callable[[Tensor], Tensor]
"""Rows of a process to those of the global batch; see `terms.StepTensors`."""


def token_loss(
    patches: Tensor,
    words: Tensor,
    mask: Tensor,
    config: TokenLoss,
    gather: Gather = lambda rows: rows,
) -> Tensor:
    """The token-level loss of a batch of pairs, a scalar.

    Args:
        patches: unit-norm (N, P, d).
        words: unit-norm (N, L, d).
        mask: bool (N, L), true at words; start, end and padding are false.
        gather: used by `in_batch` alone, which wants the whole batch.

    Raises:
        ConfigError: negatives `in_batch` of a batch of one.
    """
    if config.negatives == "in_batch":
        return in_batch_loss(patches, words, mask, config, gather)
    similarity = words @ patches.mT
    weights = match(similarity.detach(), mask, config)
    if config.negatives == "none":
        return matched_distance(similarity, weights)
    return within_pair_loss(similarity, weights, config.tau)


def matched_distance(similarity: Tensor, weights: Tensor) -> Tensor:
    """Mean of 1 - cosine over the matches of a pair, then over the pairs.

    Args:
        similarity, weights: (N, L, P), of words with the patches of their own pair.
    """
    return _mean_over_pairs((weights * (1.0 - similarity)).sum(dim=-1), weights)


def within_pair_loss(similarity: Tensor, weights: Tensor, tau: float) -> Tensor:
    """InfoNCE of each matched word against the matched patches of its own pair, a scalar.

    The negatives within a pair are SPARC's idea.  A patch that several words share is one
    candidate, so no word is its own negative; with soft weights a patch is a candidate with its
    share of the words, at most 1.  A pair with a single match has nothing to tell apart: 0.

    Args:
        similarity, weights: (N, L, P), of words with the patches of their own pair.
        tau: temperature of the cosines.
    """
    candidate = weights.sum(dim=1, keepdim=True).clamp(max=1.0)
    # A pair without words has no candidate; 0 * log 0 would be NaN in its gradient.
    candidate = torch.where(candidate.sum(dim=-1, keepdim=True) > 0, candidate, 1.0)
    logits = similarity / tau
    contrast = (logits + candidate.log()).logsumexp(dim=-1)
    return _mean_over_pairs(weights.sum(-1) * contrast - (weights * logits).sum(-1), weights)


def in_batch_loss(
    patches: Tensor,
    words: Tensor,
    mask: Tensor,
    config: TokenLoss,
    gather: Gather = lambda rows: rows,
) -> Tensor:
    """Symmetric InfoNCE over the batch of S_ij, the mean matched cosine of text j in image i.

    With `many_to_one` this is FILIP's text-to-image similarity.  Each of the N x N pairs is matched
    anew, so the cost is N times that of the other negatives.  A text without words is no candidate.
    A process scores its own texts against the gathered patches, and the scores are gathered.

    Raises:
        ConfigError: a batch of one, which has nothing to contrast.
    """
    patches = gather(patches)
    if len(patches) < 2:
        raise ConfigError(
            "objective.token.negatives = 'in_batch' contrasts pairs, and the batch has 1; "
            "a batch of one allows: none, within_pair"
        )
    scores = gather(pair_scores(patches, words, mask, config).T).T / config.tau
    (worded,) = torch.nonzero(gather(mask.any(dim=-1)), as_tuple=True)
    if not len(worded):
        return scores.sum() * 0.0
    of_texts = F.cross_entropy(scores.T[worded], worded, reduction="sum")
    own = torch.arange(len(worded), device=worded.device)
    of_images = F.cross_entropy(scores[worded][:, worded], own, reduction="sum")
    return (of_texts + of_images) / (2 * len(patches))


def pair_scores(patches: Tensor, words: Tensor, mask: Tensor, config: TokenLoss) -> Tensor:
    """S (N, M): mean matched cosine of text j's words with image i's patches; 0 without words.

    Texts are taken a few at a time and their cosines computed again in the backward pass, so that
    memory grows with N x M alone and not with the words and patches.

    Args:
        patches: unit-norm (N, P, d).
        words: unit-norm (M, L, d).
        mask: bool (M, L).
    """
    texts = max(1, CHUNK_ELEMENTS // (patches.shape[0] * patches.shape[1] * words.shape[1]))

    def some(patches: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        similarity = torch.einsum("ipd,jld->ijlp", patches, words)
        flat = similarity.detach().flatten(0, 1)
        of_each = mask.expand(len(patches), -1, -1).flatten(0, 1)
        weights = match(flat, of_each, config).view_as(similarity)
        return _over_matches((weights * similarity).sum(dim=-1), weights)

    columns = [
        checkpoint(some, patches, *chunk, use_reentrant=False, preserve_rng_state=False)
        for chunk in zip(torch.split(words, texts), torch.split(mask, texts), strict=True)
    ]
    return torch.cat(columns, dim=1)


def _over_matches(of_words: Tensor, weights: Tensor) -> Tensor:
    """Sum of `of_words` (..., L) over the mass of the matches (..., L, P); 0 if there is none."""
    mass = weights.sum(dim=(-2, -1))
    return of_words.sum(dim=-1) / torch.where(mass > 0, mass, 1.0)


def _mean_over_pairs(of_words: Tensor, weights: Tensor) -> Tensor:
    return _over_matches(of_words, weights).mean()
