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
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from harness.config import TERMS, Float, Int, RunConfig
from harness.errors import ConfigError
from harness.objectives.matching import match
from harness.objectives.terms import RampedTerm, StepTensors

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.tokens import PatchLayout, TokenProjections, Tokens
    from harness.models.training import Pass
    from harness.models.two_tower import TwoTower

CHUNK_ELEMENTS = 2**22
"""Cosines that `in_batch` holds at once: 16 MB in fp32, whatever the batch."""


@TERMS.register("token")
class TokenLoss(RampedTerm):
    """Token-level alignment by relaxed bipartite matching (our reading of LightCLIP)."""

    added: ClassVar[float] = 1
    module_name: ClassVar[str | None] = "tokens"
    drawn_as: ClassVar[str | None] = "token projections"

    matching: Literal["one_to_one", "many_to_one", "top_k", "sinkhorn"] = "one_to_one"
    """Each word its own patch (of more words than patches, as many as there are patches); each word
    its best patch (FILIP's text-to-image side); the best `keep` of one_to_one; or the entropic
    relaxation of one_to_one."""
    negatives: Literal["within_pair", "in_batch", "none"] = "within_pair"
    """What a matched patch is told apart from: the patches matched in its own pair (as SPARC), the
    other pairs of the batch (as FILIP), or nothing."""
    keep: Annotated[Float, Field(gt=0, le=1)] = 0.5
    """`top_k`: share of a pair's matches that is kept, rounded up."""
    eps: Annotated[Float, Field(gt=0)] = 0.05
    """`sinkhorn`: strength of the entropy; towards 0 the plan becomes one_to_one."""
    iterations: Annotated[Int, Field(ge=1)] = 20
    """`sinkhorn`: sweeps over the rows and columns of the plan."""
    tau: Annotated[Float, Field(gt=0)] = 0.07
    """Temperature of the cosines; no effect with negatives `none`."""
    dim: Annotated[Int, Field(ge=2)] = 256
    """Dimension of the space that patches and words are projected to (FILIP's)."""

    def idle(self) -> set[str]:
        """As for every ramped term, and the settings of what is not chosen."""
        unused = {"keep"} if self.matching != "top_k" else set()
        if self.matching != "sinkhorn":
            unused |= {"eps", "iterations"}
        return super().idle() | unused | ({"tau"} if self.negatives == "none" else set())

    @property
    def needs_patches(self) -> bool:
        """See Term."""
        return True

    def module(
        self, config: RunConfig, towers: TwoTower, layout: PatchLayout | None
    ) -> TokenProjections:
        """See Term: the projections of both towers' tokens into one space."""
        from harness.models.tokens import TokenProjections

        assert layout is not None
        return TokenProjections(layout, config.model.text.width, self.dim)

    def outputs(self, seen: Pass, module: TokenProjections, inputs: object) -> Tokens:
        """See Term: the projected tokens."""
        tokens: Tokens = module(seen.features, seen.hidden, seen.tokens)
        return tokens

    def probe(self, seen: Pass, module: TokenProjections, inputs: object) -> Tensor:
        """See Term: the mean matched cosine of each text, 0 without words."""
        patches, words, mask = module(seen.features, seen.hidden, seen.tokens)
        similarity = words @ patches.mT
        weights = match(similarity, mask, self)
        return _over_matches((weights * similarity).sum(dim=-1), weights)

    def loss(self, step: StepTensors, outputs: Tokens, module: object) -> Tensor:
        """See Term."""
        return token_loss(*outputs, self, step.gather)


def token_loss(
    patches: Tensor,
    words: Tensor,
    mask: Tensor,
    config: TokenLoss,
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
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
    candidate = candidate.where(candidate.sum(dim=-1, keepdim=True) > 0, 1.0)
    logits = similarity / tau
    contrast = (logits + candidate.log()).logsumexp(dim=-1)
    return _mean_over_pairs(weights.sum(-1) * contrast - (weights * logits).sum(-1), weights)


def in_batch_loss(
    patches: Tensor,
    words: Tensor,
    mask: Tensor,
    config: TokenLoss,
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> Tensor:
    """Symmetric InfoNCE over the batch of S_ij, the mean matched cosine of text j in image i.

    With `many_to_one` this is FILIP's text-to-image similarity.  Each of the N x N pairs is matched
    anew, so the cost is N times that of the other negatives.  A text without words is no candidate.
    A process scores its own texts against the gathered patches, and the scores are gathered.

    Raises:
        ConfigError: a batch of one, which has nothing to contrast.
    """
    import torch
    from torch.nn import functional as F

    patches = gather(patches)
    if len(patches) < 2:
        raise ConfigError(
            "objective.token.negatives = 'in_batch' contrasts pairs, and the batch has 1; "
            "a batch of one allows: none, within_pair"
        )
    scores = gather(pair_scores(patches, words, mask, config).T).T / config.tau
    (worded,) = gather(mask.any(dim=-1)).nonzero(as_tuple=True)
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
    import torch
    from torch.utils.checkpoint import checkpoint

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
    return of_words.sum(dim=-1) / mass.where(mass > 0, 1.0)


def _mean_over_pairs(of_words: Tensor, weights: Tensor) -> Tensor:
    return _over_matches(of_words, weights).mean()
