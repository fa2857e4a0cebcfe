"""Token-level alignment of image patches with words (LightCLIP, abstract).

The abstract says that a relaxed bipartite matching aligns patches with words; what a match is told
apart from is our reading, hence a switch.  The matching (see `matching`) takes no gradient: it
chooses which cosines the loss looks at.

Every pair weighs the same, whatever its number of words, and one without words contributes 0: the
loss is a sum over pairs divided by N.  So `within_pair` and `none` of equal shares of a batch,
averaged, are those of the whole batch; `in_batch` wants the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from harness.config import TERMS, Float, Int, RunConfig
from harness.errors import ConfigError
from harness.objectives.matching import match, match_patches
from harness.objectives.negatives import (
    DrawnPlaces,
    Negatives,
    drawn_negatives,
    hardest_negatives,
)
from harness.objectives.patches import PatchTerm
from harness.objectives.terms import BatchPlace, StepTensors

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.tokens import DrawnTokens, TokenProjections, Tokens
    from harness.models.training import Pass

    Gather = Callable[[Tensor], Tensor]

LEAST_EPS = 1e-4
"""Of `sinkhorn`: a cosine over it, in single precision, moves the plan by less than a hundredth."""
CHUNK_ELEMENTS = 2**22
"""Cosines that `in_batch` holds at once: 16 MB in fp32, whatever the batch."""


@TERMS.register("token")
class TokenLoss(PatchTerm):
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
    tolerance: Annotated[
        Annotated[Float, Field(gt=0, lt=1)] | None, Field(json_schema_extra={"born": None})
    ] = None
    """`sinkhorn`: sweep until no patch holds more than 1 + this; null: `iterations` times."""
    negatives_per_pair: Annotated[
        Annotated[Int, Field(ge=1)] | None, Field(json_schema_extra={"born": None})
    ] = None
    """`in_batch`: other pairs that each is told apart from; null: all of them.  Of N pairs, N times
    this are matched and not N^2."""
    negatives_from: Annotated[
        Literal["random", "hardest"], Field(json_schema_extra={"born": "random"})
    ] = "random"
    """Which ones: drawn anew for each step, or those whose embeddings are most similar."""
    symmetric: Annotated[bool, Field(json_schema_extra={"born": False})] = False
    """Contrast from the side of the patches too (SPARC, FILIP): `within_pair`, each matched patch
    against the words; `many_to_one`, pictures by each patch's best word."""
    tau: Annotated[Float, Field(gt=0)] = 0.07
    """Temperature of the cosines; no effect with negatives `none`."""

    def idle(self) -> set[str]:
        """As for every ramped term, and the settings of what is not chosen."""
        unused = {"keep"} if self.matching != "top_k" else set()
        if self.matching != "sinkhorn":
            unused |= {"eps", "iterations", "tolerance"}
        elif self.tolerance is not None:
            unused |= {"iterations"}
        if self.negatives != "in_batch":
            unused |= {"negatives_per_pair", "negatives_from"}
        elif self.negatives_per_pair is None:
            unused |= {"negatives_from"}
        if self.matching != "many_to_one" and self.negatives != "within_pair":
            unused |= {"symmetric"}
        return super().idle() | unused | ({"tau"} if self.negatives == "none" else set())

    def check(self, config: RunConfig) -> None:
        """See Term: there are as many other pairs, and single precision carries eps."""
        others, wanted = config.train.batch_size - 1, self.negatives_per_pair
        if self.negatives == "in_batch" and wanted is not None and wanted > others:
            raise ConfigError(
                f"objective.token.negatives_per_pair = {wanted} is more than the {others} other "
                f"pairs of train.batch_size = {config.train.batch_size}; up to {others} are allowed"
            )
        if self.matching == "sinkhorn" and self.eps < LEAST_EPS:
            raise ConfigError(
                f"objective.token.eps = {self.eps:g}: single precision carries a plan for eps of "
                f"{LEAST_EPS:g} and more; its limit at 0 is objective.token.matching = 'one_to_one'"
            )

    @property
    def compares_some(self) -> bool:
        """Whether a pair is told apart from some others of the batch, and not from all."""
        return self.negatives == "in_batch" and self.negatives_per_pair is not None

    @property
    def both_sides(self) -> bool:
        """Whether pictures ask `in_batch` by other scores than texts do."""
        return self.symmetric and self.matching == "many_to_one"

    def inputs(self, tokens: Tensor, place: BatchPlace) -> DrawnPlaces | None:
        """See Term: each pair's place in an order of the global batch, if negatives are drawn."""
        import torch

        if not self.compares_some or self.negatives_from != "random":
            return None
        drawn = torch.randperm(place.size, generator=place.generator("negatives"))
        return DrawnPlaces(drawn[place.first : place.first + len(tokens)])

    def outputs(
        self, seen: Pass, module: TokenProjections, inputs: DrawnPlaces | None
    ) -> Tokens | DrawnTokens:
        """See Term: the projected tokens, with the pairs' places where they are drawn."""
        from harness.models.tokens import DrawnTokens

        tokens: Tokens = module(seen.features, seen.hidden, seen.tokens)
        return tokens if inputs is None else DrawnTokens(*tokens, inputs.places)

    def probe(self, seen: Pass, module: TokenProjections, inputs: object) -> Tensor:
        """See Term: the mean matched cosine of each text, 0 without words."""
        patches, words, mask = module(seen.features, seen.hidden, seen.tokens)
        return _matched_cosine(words @ patches.mT, mask, self)

    def locate(self, seen: Pass, module: TokenProjections) -> Tensor:
        """See Term: the matching."""
        patches, words, mask = module(seen.features, seen.hidden, seen.tokens)
        return match(words @ patches.mT, mask, self)

    def loss(
        self, step: StepTensors, outputs: Tokens | DrawnTokens, module: TokenProjections | None
    ) -> Tensor:
        """See Term."""
        patches, words, mask, *drawn = outputs
        chosen = None
        if self.negatives == "in_batch" and self.negatives_per_pair is not None:
            if drawn:
                chosen = drawn_negatives(step.gather(drawn[0]), self.negatives_per_pair)
            else:
                image, text = step.gather(step.image), step.gather(step.text)
                chosen = hardest_negatives(image, text, self.negatives_per_pair)
        if module is not None and self.matching == "sinkhorn":
            module.last = (words.detach(), patches.detach(), mask)
        return token_loss(patches, words, mask, self, step.gather, chosen, step.first)

    def log(self, progress: float, module: TokenProjections) -> dict[str, float]:
        """See Term: of `sinkhorn`, the most words that a patch of the last step holds."""
        if module.last is None:
            return {}
        words, patches, mask = module.last
        held = match(words @ patches.mT, mask, self).sum(dim=-2)
        return {"token/words_on_a_patch": float(held.max())}


def token_loss(
    patches: Tensor,
    words: Tensor,
    mask: Tensor,
    config: TokenLoss,
    gather: Gather = lambda rows: rows,
    chosen: Negatives | None = None,
    first: int = 0,
) -> Tensor:
    """The token-level loss of a batch of pairs, a scalar.

    Args:
        patches: unit-norm (N, P, d).
        words: unit-norm (N, L, d).
        mask: bool (N, L), true at words; start, end and padding are false.
        gather: used by `in_batch` alone, which wants the whole batch.
        chosen, first: see `in_batch_loss`.

    Raises:
        ConfigError: negatives `in_batch` of a batch of one.
    """
    patches, words = (t.float() if t.element_size() < 4 else t for t in (patches, words))
    if config.negatives == "in_batch":
        return in_batch_loss(patches, words, mask, config, gather, chosen, first)
    similarity = words @ patches.mT
    contrast = partial(within_pair_loss, tau=config.tau)
    if config.negatives == "none":
        contrast = matched_distance  # type: ignore[assignment]
    loss = contrast(similarity, match(similarity.detach(), mask, config))
    if not config.symmetric:
        return loss
    from_patches = match_patches(similarity.detach(), mask, config)
    return (loss + contrast(similarity.mT, from_patches.mT)) / 2


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
    from torch.utils.checkpoint import checkpoint

    texts = max(1, CHUNK_ELEMENTS // (patches.shape[0] * patches.shape[1] * words.shape[1]))

    def some(patches: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        similarity = torch.einsum("ipd,jld->ijlp", patches, words)
        of_each = mask.expand(len(patches), -1, -1).flatten(0, 1)
        flat = _matched_cosine(similarity.flatten(0, 1), of_each, config, from_patches)
        return flat.view(similarity.shape[:2])

    columns = [
        checkpoint(some, patches, *chunk, use_reentrant=False, preserve_rng_state=False)
        for chunk in zip(torch.split(words, texts), torch.split(mask, texts), strict=True)
    ]
    return torch.cat(columns, dim=1)


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
    from torch.utils.checkpoint import checkpoint

    (_, p, d), length = patches.shape, words.shape[1]
    pairs = max(1, CHUNK_ELEMENTS // max(p * length, (p + length) * d))

    def some(patches: Tensor, words: Tensor, of_images: Tensor, of_texts: Tensor) -> Tensor:
        similarity = words[of_texts] @ patches[of_images].mT
        return _matched_cosine(similarity, mask[of_texts], config, from_patches)

    flat = (torch.split(places.flatten(), pairs) for places in (images, texts))
    chunks = zip(*flat, strict=True)
    scores = [
        checkpoint(some, patches, words, *chunk, use_reentrant=False, preserve_rng_state=False)
        for chunk in chunks
    ]
    return torch.cat(scores).view(images.shape)


def _matched_cosine(
    similarity: Tensor, mask: Tensor, config: TokenLoss, from_patches: bool = False
) -> Tensor:
    """Mean (B,) of the matched ones of the cosines (B, L, P); 0 without words."""
    matched = match_patches if from_patches else match
    weights = matched(similarity.detach(), mask, config)
    return _over_matches((weights * similarity).sum(dim=-1), weights)


def _over_matches(of_words: Tensor, weights: Tensor) -> Tensor:
    """Sum of `of_words` (..., L) over the mass of the matches (..., L, P); 0 if there is none."""
    mass = weights.sum(dim=(-2, -1))
    return of_words.sum(dim=-1) / mass.where(mass > 0, 1.0)


def _mean_over_pairs(of_words: Tensor, weights: Tensor) -> Tensor:
    return _over_matches(of_words, weights).mean()
