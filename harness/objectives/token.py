"""Token-level alignment of image patches with words (LightCLIP, abstract).

The abstract says that a relaxed bipartite matching aligns patches with words; what a match is told
apart from is our reading, hence a switch.  The matching (see `matching`) takes no gradient: it
chooses which cosines the loss looks at.

Every pair weighs the same, whatever its number of words, and one without words contributes 0: the
loss is a sum over pairs divided by N.  So `within_pair` and `none` of equal shares of a batch,
averaged, are those of the whole batch; `in_batch` wants the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from harness.config import TERMS, Float, Int, RunConfig
from harness.errors import ConfigError
from harness.objectives.in_batch import in_batch_loss, matched_cosine, over_matches
from harness.objectives.matching import ASSIGNED, begin_match, match, match_patches
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

    from harness.models.tokens import DrawnTokens, Matching, TokenProjections, Tokens
    from harness.models.training import Pass

    Gather = Callable[[Tensor], Tensor]

LEAST_EPS = 1e-4
"""Of `sinkhorn`: a cosine over it, in single precision, moves the plan by less than a hundredth."""


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

    @property
    def waits(self) -> bool:
        """See Term."""
        return self.matching in ASSIGNED

    def begin(self, outputs: Tokens | DrawnTokens, module: TokenProjections) -> None:
        """See Term: the matching within pairs; of a batch there are too many cosines to hold."""
        if self.waits and self.negatives != "in_batch":
            module.begun = _matching(*outputs[:3], self)

    def probe(self, seen: Pass, module: TokenProjections, inputs: object) -> Tensor:
        """See Term: the mean matched cosine of each text, 0 without words."""
        patches, words, mask = module(seen.features, seen.hidden, seen.tokens)
        return matched_cosine(words @ patches.mT, mask, self)

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
        begun = None
        if module is not None:
            begun, module.begun = module.begun, None
            if self.matching == "sinkhorn":
                module.last = (words.detach(), patches.detach(), mask)
        return token_loss(patches, words, mask, self, step.gather, chosen, step.first, begun)

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
    begun: Matching | None = None,
) -> Tensor:
    """The token-level loss of a batch of pairs, a scalar.

    Args:
        patches: unit-norm (N, P, d).
        words: unit-norm (N, L, d).
        mask: bool (N, L), true at words; start, end and padding are false.
        gather: used by `in_batch` alone, which wants the whole batch.
        chosen, first: see `in_batch_loss`.
        begun: the matching of these words, where it was begun before.

    Raises:
        ConfigError: negatives `in_batch` of a batch of one.
    """
    if config.negatives == "in_batch":
        patches, words = _wide(patches, words)
        return in_batch_loss(patches, words, mask, config, gather, chosen, first)
    if begun is None or begun.words is not words:
        begun = _matching(patches, words, mask, config)
    similarity, weights = begun.similarity, begun.weights()
    contrast = partial(within_pair_loss, tau=config.tau)
    if config.negatives == "none":
        contrast = matched_distance  # type: ignore[assignment]
    loss = contrast(similarity, weights)
    if not config.symmetric:
        return loss
    if config.matching == "many_to_one":
        weights = match_patches(similarity.detach(), mask, config)
    return (loss + contrast(similarity.mT, weights.mT)) / 2


def _wide(*tensors: Tensor) -> Iterator[Tensor]:
    return (tensor.float() if tensor.element_size() < 4 else tensor for tensor in tensors)


def _matching(patches: Tensor, words: Tensor, mask: Tensor, config: TokenLoss) -> Matching:
    """The matching within pairs, begun; cosines are of single precision at least."""
    import torch

    from harness.models.tokens import Matching

    with torch.autocast(words.device.type, enabled=False):
        wide_patches, wide_words = _wide(patches, words)
        similarity = wide_words @ wide_patches.mT
    return Matching(words, similarity, begin_match(similarity.detach(), mask, config))


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


def _mean_over_pairs(of_words: Tensor, weights: Tensor) -> Tensor:
    return over_matches(of_words, weights).mean()
