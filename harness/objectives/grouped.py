"""Words against the patches that they group, within each pair (SPARC, Bica et al., 2024).

Section 2 of arXiv 2401.09865: each word weighs the patches by their similarity, scaled to [0, 1]
and cut off below 1 / P (equations 2 to 4); the weighted patches are the word's group (5), and words
and groups of a pair are told apart by cosine in both directions (6).  The weights take a gradient.
The sum with the global contrast (7) is that with the instance term, whose temperature is this one's
too, as in the paper's listing 1.  Its token adaptors are shared with the global embeddings; here
they are projections of the term's own, because pooling comes before the projection in our towers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from harness.config import TERMS
from harness.objectives.patches import PatchTerm
from harness.objectives.terms import StepTensors

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.tokens import TokenProjections, Tokens
    from harness.models.training import Pass


@TERMS.register("grouped")
class GroupedLoss(PatchTerm):
    """SPARC's fine-grained term: L_f of equation 6; it stands beside the instance term."""

    added: ClassVar[float] = 5

    def outputs(self, seen: Pass, module: TokenProjections, inputs: object) -> Tokens:
        """See Term: the projected tokens, not normalised."""
        return module.projected(seen.features, seen.hidden, seen.tokens)

    def loss(self, step: StepTensors, outputs: Tokens, module: object) -> Tensor:
        """See Term: a pair looks at itself alone, so processes' means are that of the batch."""
        return grouped_loss(*outputs, step.logit_scale)


def group_patches(similarity: Tensor) -> Tensor:
    """Weights (..., P) of the patches for each word; rows sum to 1 (equations 2 to 4).

    Args:
        similarity: inner products (..., P).  Where all are equal so are the weights.
    """
    patches = similarity.shape[-1]
    low, high = similarity.amin(dim=-1, keepdim=True), similarity.amax(dim=-1, keepdim=True)
    spread = high - low
    scaled = (similarity - low) / spread.where(spread > 0, 1.0)
    scaled = scaled.where(spread > 0, 1.0)
    sparse = scaled.where(scaled >= 1.0 / patches, 0.0)
    return sparse / sparse.sum(dim=-1, keepdim=True)


def grouped_loss(patches: Tensor, words: Tensor, mask: Tensor, logit_scale: Tensor) -> Tensor:
    """Contrast of the words with their groups, mean over a pair's words and over pairs; a scalar.

    Args:
        patches: (N, P, d), not normalised.
        words: (N, L, d), not normalised.
        mask: bool (N, L), true at words; a pair without words contributes 0.
        logit_scale: log of the factor on the cosines, a scalar.
    """
    from torch.nn import functional as F

    groups = group_patches(words @ patches.mT) @ patches
    words, groups = (F.normalize(tokens, dim=-1) for tokens in (words, groups))
    logits = logit_scale.exp() * groups @ words.mT
    own = logits.diagonal(dim1=-2, dim2=-1)
    # A pair without words has no candidate, and its row no weight.
    candidates = mask | ~mask.any(dim=-1, keepdim=True)
    losses = [
        side.masked_fill(~candidates[:, None], -math.inf).logsumexp(dim=-1) - own
        for side in (logits, logits.mT)
    ]
    count = mask.sum(dim=-1).clamp(min=1)
    of_pairs = [loss.where(mask, 0.0).sum(dim=-1) / count for loss in losses]
    return (of_pairs[0] + of_pairs[1]).mean() / 2
