"""Targets softened by what is similar within a modality, the negatives apart as well (SoftCLIP).

Gao et al., 2024 (arXiv 2303.17561).  Their abstract says that the target is softened by the
self-similarity within each modality, and that the negatives are disentangled in the distributions,
because the positive dominates them.  They take the similarity of pictures from regions and tags of
an object detector; here it is of the embeddings that are trained, which take no gradient for it.
How much of the target is soft and the temperature of the similarity are fields: those of the paper
were not at hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from harness.config import TERMS, Float
from harness.objectives.instance import negative_weights, own_places
from harness.objectives.terms import RampedTerm, StepTensors

if TYPE_CHECKING:
    from torch import Tensor


@TERMS.register("self_similarity")
class SelfSimilarityLoss(RampedTerm):
    """CLIP's contrast against targets from within each modality; in place of the instance term."""

    added: ClassVar[float] = 4

    soft: Annotated[Float, Field(ge=0, le=1)] = 0.5
    """Share of the target that is the softmax of similarities; the rest is on the own pair."""
    tau: Annotated[Float, Field(gt=0)] = 0.1
    """Temperature of the similarities within a modality."""
    relation: Annotated[Float, Field(ge=0)] = 1.0
    """What the divergence of the distributions over the negatives alone is multiplied by; with this
    and `soft` 0 the term is CLIP's loss."""

    def idle(self) -> set[str]:
        """As for every ramped term, and the temperature where nothing is soft."""
        return super().idle() | (set() if self.soft or self.relation else {"tau"})

    def loss(self, step: StepTensors, outputs: object, module: object) -> Tensor:
        """See Term: a process's pictures with the texts of all, and its texts with the pictures."""
        return self_similarity_loss(
            step.image,
            step.text,
            step.logit_scale,
            self,
            batch=(step.gather(step.image), step.gather(step.text)),
            first=step.first,
        )


def self_similarity_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    config: SelfSimilarityLoss,
    *,
    batch: tuple[Tensor, Tensor],
    first: int = 0,
) -> Tensor:
    """Mean of both directions' divergence of the prediction from its softened target; a scalar.

    Args:
        image, text: unit-norm embeddings (N, D); pair i is (image i, text i).
        logit_scale: log of the factor on the cosines, a scalar.
        batch: those of all M pairs that are contrasted.
        first: place of pair 0 in the batch.
    """
    images, texts = batch
    scale = logit_scale.exp()
    to_texts = _divergence(scale * image @ texts.T, image, images, config, first)
    return (to_texts + _divergence(scale * text @ images.T, text, texts, config, first)) / 2


def _divergence(
    logits: Tensor, own: Tensor, of_all: Tensor, config: SelfSimilarityLoss, first: int
) -> Tensor:
    """KL(target || softmax of `logits` (N, M)), and `relation` times the same over the negatives.

    Args:
        own, of_all: embeddings (N, D) and (M, D) of the modality that asks.
    """
    from torch.nn import functional as F

    similarity = own.detach().float() @ of_all.detach().float().T
    positive = own_places(logits, first)
    target = config.soft * F.softmax(similarity / config.tau, dim=-1)
    target = target + (1.0 - config.soft) * positive
    loss = F.kl_div(F.log_softmax(logits, dim=-1), target, reduction="batchmean")
    if config.relation == 0.0:
        return loss
    negatives = F.log_softmax(logits.masked_fill(positive, float("-inf")), dim=-1)
    wanted = negative_weights(similarity, config.tau, first)
    # The own pair is no candidate: 0 * -inf there would be NaN.
    apart = F.kl_div(negatives.masked_fill(positive, 0.0), wanted, reduction="batchmean")
    return loss + config.relation * apart
