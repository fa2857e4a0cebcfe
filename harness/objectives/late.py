"""Late interaction: pictures and texts compared by their best tokens (FILIP, Yao et al., 2022).

Section 3.1 of arXiv 2111.07783: the similarity of a picture to a text is the mean over its patches
of the best cosine with a token of the text (equations 3 and 4), that of a text to a picture the
mean over its tokens of the best patch (5), and each is contrasted over the batch in its direction
(1 and 2).  Tokens are all but the padding.  Of each picture and each text the quarter of the tokens
with the best cosine with anything in the batch is kept ("Training efficiency"); they look at the
process's own share of the batch, here it is the global batch, so that a run is the same on any
number of processes.  FILIP scores pictures by tokens in evaluation too; here the pooled embeddings
are evaluated, so the term stands beside the instance term.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from harness.config import TERMS, Float, RunConfig
from harness.objectives.in_batch import CHUNK_ELEMENTS, computed_again, equally_long
from harness.objectives.patches import PatchTerm
from harness.objectives.terms import StepTensors

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.tokens import PatchLayout, TokenProjections, Tokens
    from harness.models.training import Pass
    from harness.models.two_tower import TwoTower

    Gather = Callable[[Tensor], Tensor]


@TERMS.register("late")
class LateLoss(PatchTerm):
    """FILIP's token-wise contrast, with a temperature of its own that is learnt."""

    added: ClassVar[float] = 6

    keep: Annotated[Float, Field(gt=0, le=1)] = 0.25
    """Share of the tokens of each picture and each text that is compared, rounded up; 1: all."""
    init_logit_scale: Annotated[Float, Field(gt=0)] = 1 / 0.07
    """Initial value of exp(logit_scale)."""

    def module(
        self, config: RunConfig, towers: TwoTower, layout: PatchLayout | None
    ) -> TokenProjections:
        """See Term: the projections, and the log of the temperature's inverse."""
        import torch

        made = super().module(config, towers, layout)
        made.logit_scale = torch.nn.Parameter(torch.tensor(math.log(self.init_logit_scale)))
        return made

    def outputs(self, seen: Pass, module: TokenProjections, inputs: object) -> Tokens:
        """See Term: the tokens, all of a text's but its padding."""
        import torch

        found: Tokens = module(seen.features, seen.hidden, seen.tokens)
        place = torch.arange(seen.tokens.shape[1], device=seen.tokens.device)
        return found._replace(mask=place <= seen.tokens.argmax(dim=-1, keepdim=True))

    def loss(self, step: StepTensors, outputs: Tokens, module: Any) -> Tensor:
        """See Term: a process's texts with the pictures of all."""
        return late_loss(*outputs, module.logit_scale, self.keep, step.gather, step.first)

    def log(self, progress: float, module: Any) -> dict[str, float]:
        """See Term: the temperature's inverse."""
        return {"late/logit_scale": float(module.logit_scale.detach().exp())}


def late_loss(
    patches: Tensor,
    words: Tensor,
    mask: Tensor,
    logit_scale: Tensor,
    keep: float = 1.0,
    gather: Gather = lambda rows: rows,
    first: int = 0,
) -> Tensor:
    """Symmetric InfoNCE of the token-wise best cosines, a scalar.

    Args:
        patches: unit-norm (N, P, d).
        words: unit-norm (N, L, d).
        mask: bool (N, L), true at a text's tokens, of which there is one at least.
        logit_scale: log of the factor on the similarities.
        keep: share of the tokens that are compared.
        gather, first: see `StepTensors`.
    """
    import torch
    from torch.nn import functional as F

    if keep < 1.0:
        patches, words, mask = strongest(patches, words, mask, keep, gather)
    by_words, by_patches = late_scores(gather(patches), words, mask)
    targets = torch.arange(first, first + len(words), device=words.device)
    by_patches = gather(by_patches)[:, first : first + len(words)].T
    scale = logit_scale.exp()
    of_texts = F.cross_entropy(scale * by_words, targets)
    return (of_texts + F.cross_entropy(scale * by_patches, targets)) / 2


def late_scores(patches: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity of each text to each picture, by its tokens and by their patches, each (M, N).

    Texts are taken a few at a time and their cosines computed again in the backward pass, so that
    memory grows with M x N alone.

    Args:
        patches: (N, P, d), words: (M, L, d), mask: bool (M, L).
    """
    import torch

    texts = max(1, CHUNK_ELEMENTS // (patches.shape[0] * patches.shape[1] * words.shape[1]))

    def some(_: object, patches: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        cosines = torch.einsum("ipd,jld->jilp", patches, words)
        of_words = cosines.max(dim=-1).values * mask[:, None]
        of_patches = cosines.masked_fill(~mask[:, None, :, None], -math.inf).max(dim=-2).values
        return of_words.sum(dim=-1) / mask.sum(dim=-1)[:, None], of_patches.mean(dim=-1)

    found = computed_again(some, [patches], [words, mask], texts)
    by_words, by_patches = (torch.cat(scores) for scores in zip(*found, strict=True))
    return by_words, by_patches


def strongest(
    patches: Tensor, words: Tensor, mask: Tensor, keep: float, gather: Gather
) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens with the best cosine with any token of the other kind in the batch.

    Returns:
        Patches (N, K, d), words (N, J, d) and their mask (N, J); the choice takes no gradient.
    """
    import torch

    with torch.no_grad():
        of_all = gather(patches)
        all_words, all_masks = (gather(part) for part in equally_long(words, mask, gather))
        anywhere = torch.ones(of_all.shape[:2], dtype=torch.bool, device=mask.device)
        of_patches = _best_cosine(patches, all_words, all_masks)
        of_words = _best_cosine(words, of_all, anywhere)
    every = anywhere[: len(patches)]
    kept, _ = _kept(patches, every, of_patches, keep)
    return kept, *_kept(words, mask, of_words, keep)


def _best_cosine(tokens: Tensor, others: Tensor, mask: Tensor) -> Tensor:
    """Largest cosine (N, T) of each of `tokens` (N, T, d) with any of `others` (M, S, d)."""
    import torch

    flat, absent = others.flatten(0, 1), ~mask.flatten()
    rows = max(1, CHUNK_ELEMENTS // (tokens.shape[1] * len(flat)))
    found = [
        (some @ flat.T).masked_fill(absent, -math.inf).amax(dim=-1)
        for some in torch.split(tokens, rows)
    ]
    return torch.cat(found)


def _kept(tokens: Tensor, mask: Tensor, score: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    """The best `keep` of each row's tokens (N, T, d), rounded up, and which of them there are."""
    import torch

    most = math.ceil(keep * tokens.shape[1] - 1e-5)
    places = score.masked_fill(~mask, -math.inf).topk(most, dim=-1).indices
    count = (keep * mask.sum(dim=-1, keepdim=True) - 1e-5).ceil()
    chosen = tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))
    return chosen, torch.arange(most, device=mask.device) < count
