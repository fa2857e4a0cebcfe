"""Which word goes with which patch: assignments from similarities alone.

Owns the relaxed bipartite matching of LightCLIP's abstract.  How it is relaxed is our reading,
hence a switch.  Every function takes similarities (N, L, P) of N pairs with L words and P patches
and the mask (N, L) of real words, and gives weights (N, L, P) in [0, 1] without gradient: a word
that is not matched, and every word that the mask leaves out, has a row of zeros.  Knows nothing of
encoders or of what a loss does with the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

ASSIGNED = ("one_to_one", "top_k")
"""Matchings found on the CPU, which the host waits for; a word has one patch or none."""
MOST_SWEEPS = 2_000
"""Of a plan that does not come within its tolerance; how far it is off is in the log."""
_FIRST_EPS, _SWEEPS_AT_ONCE = 0.5, 10

if TYPE_CHECKING:
    from torch import Tensor

    from harness.objectives.token import TokenLoss


def many_to_one(similarity: Tensor, mask: Tensor) -> Tensor:
    """Each word its most similar patch, which words may share (FILIP's text-to-image side)."""
    from torch.nn import functional as F

    best = F.one_hot(similarity.argmax(dim=-1), similarity.shape[-1])
    return best.to(similarity.dtype) * mask.unsqueeze(-1)


def one_to_one(similarity: Tensor, mask: Tensor) -> Tensor:
    """Exact rectangular assignment: the largest total similarity with no patch used twice.

    Surplus patches stay unmatched; of more words than patches, as many as there are patches are
    matched.  Runs on the CPU, about 10 to 30 microseconds a pair of 16 words and 49 patches, for
    which a GPU's queue is waited for once.
    """
    from harness.device import begin_download

    return _assigned(similarity, begin_download(similarity.detach(), mask))


def _assigned(similarity: Tensor, arrive: Callable[[], list[Tensor]]) -> Tensor:
    """`one_to_one` of similarities that are on their way to the host with the mask."""
    import numpy as np
    import torch
    from scipy.optimize import linear_sum_assignment

    from harness.device import upload

    found, words_of = arrive()
    # A NaN is none of the matching's business: it reaches the loss, where training stops by name.
    cost = -found.double().nan_to_num().numpy()
    weights = np.zeros_like(cost)
    for pair, wanted in enumerate(words_of.numpy()):
        words = np.flatnonzero(wanted)
        rows, patches = linear_sum_assignment(cost[pair, words])
        weights[pair, words[rows], patches] = 1.0
    return upload(torch.from_numpy(weights).to(similarity.dtype), similarity.device)


def top_k(similarity: Tensor, mask: Tensor, keep: float) -> Tensor:
    """`one_to_one`, of which each pair keeps the best `keep` of its matches, rounded up."""
    return _best(one_to_one(similarity, mask), similarity, keep)


def _best(weights: Tensor, similarity: Tensor, keep: float) -> Tensor:
    matched = weights.sum(dim=-1) > 0
    value = (weights * similarity).sum(dim=-1).masked_fill(~matched, -math.inf)
    rank = value.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    # 0.6 * 25 is a little more than 15 in single precision, and must not become 16.
    count = (keep * matched.sum(dim=-1, keepdim=True) - 1e-5).ceil()
    return weights * (matched & (rank < count)).unsqueeze(-1)


def sinkhorn(
    similarity: Tensor, mask: Tensor, eps: float, iterations: int, tolerance: float | None = None
) -> Tensor:
    """Entropic transport plan of the rectangular assignment, in the log domain (Cuturi, 2013).

    A word has mass 1 and a patch room for 1.  A slack row takes up the room of surplus patches, a
    slack column the mass of surplus words, so as eps goes to 0 the plan becomes `one_to_one`.

    Args:
        iterations: sweeps over rows and columns, without a `tolerance`.
        tolerance: sweeps go on until no patch's room is missed by more, `MOST_SWEEPS` at most; they
            begin at a greater eps that falls, which takes far fewer of them.
    """
    similarity = similarity.detach()
    similarity = similarity.float() if similarity.element_size() < 4 else similarity
    if tolerance is None:
        plan = _Plan(similarity, mask, eps)
        for _ in range(iterations - 1):
            plan.sweep()
    else:
        plan = _Plan(similarity, mask, max(eps, _FIRST_EPS))
        while plan.eps > eps:
            for _ in range(_SWEEPS_AT_ONCE):
                plan.sweep()
            plan.sharpen(max(eps, plan.eps / 2))
        for _ in range(MOST_SWEEPS // _SWEEPS_AT_ONCE):
            for _ in range(_SWEEPS_AT_ONCE):
                plan.sweep()
            if not plan.violation() > tolerance:  # of a NaN too, which reaches the loss
                break
    return plan.weights()


class _Plan:
    """A plan whose rows hold their mass exactly, and its columns after enough sweeps."""

    def __init__(self, similarity: Tensor, mask: Tensor, eps: float) -> None:
        import torch
        from torch.nn import functional as F

        patches = similarity.shape[-1]
        surplus = patches - mask.sum(dim=-1, keepdim=True)
        rows = torch.cat([mask, surplus.clamp(min=0)], dim=-1)
        room = torch.ones(len(mask), patches, device=mask.device)
        columns = torch.cat([room, (-surplus).clamp(min=0)], dim=-1)
        self.rows, self.columns = (m.to(similarity.dtype).log() for m in (rows, columns))
        self.similarity, self.eps = F.pad(similarity, (0, 1, 0, 1)), eps
        self.scores = self.similarity / eps
        self.of_columns = self.columns
        self._fill_rows()

    def sweep(self) -> None:
        """Fill the columns, then the rows."""
        filled = (self.scores + self.of_rows.unsqueeze(2)).logsumexp(dim=1)
        self.of_columns = self.columns - filled
        self._fill_rows()

    def _fill_rows(self) -> None:
        filled = (self.scores + self.of_columns.unsqueeze(1)).logsumexp(dim=2)
        self.of_rows = self.rows - filled

    def sharpen(self, eps: float) -> None:
        """Go on from here at a smaller eps."""
        self.of_columns = (self.of_columns - self.columns) * (self.eps / eps) + self.columns
        self.of_columns = self.of_columns.where(self.columns.isfinite(), self.columns)
        self.eps, self.scores = eps, self.similarity / eps
        self._fill_rows()

    def violation(self) -> float:
        """By how much a column's mass is missed at most."""
        plan = self.scores + self.of_rows.unsqueeze(2) + self.of_columns.unsqueeze(1)
        return float((plan.logsumexp(dim=1).exp() - self.columns.exp()).abs().max())

    def weights(self) -> Tensor:
        """Of words and patches alone, (N, L, P)."""
        plan = (self.scores + self.of_rows.unsqueeze(2) + self.of_columns.unsqueeze(1)).exp()
        return plan[:, :-1, :-1]


def begin_match(similarity: Tensor, mask: Tensor, config: TokenLoss) -> Callable[[], Tensor]:
    """`match` in two steps: the similarities begin their way to where they are assigned.

    What is done, and queued, before the weights are asked for costs a GPU no time.
    """
    from harness.device import begin_download

    if config.matching not in ASSIGNED:
        return partial(match, similarity, mask, config)
    arrive = begin_download(similarity.detach(), mask)

    def weights() -> Tensor:
        found = _assigned(similarity, arrive)
        return found if config.matching == "one_to_one" else _best(found, similarity, config.keep)

    return weights


def match(similarity: Tensor, mask: Tensor, config: TokenLoss) -> Tensor:
    """Weights (N, L, P) by the matching that `config` names."""
    if config.matching in ASSIGNED:
        return begin_match(similarity, mask, config)()
    if config.matching == "many_to_one":
        return many_to_one(similarity, mask)
    return sinkhorn(similarity, mask, config.eps, config.iterations, config.tolerance)


def patch_of_words(weights: Tensor) -> Tensor:
    """Of an assignment (N, L, P), the patch of each word, int16 (N, L); -1 for none."""
    import torch

    assert weights.shape[-1] <= torch.iinfo(torch.int16).max  # 181 x 181 patches
    matched, patch = weights.max(dim=-1)
    return patch.to(torch.int16).where(matched > 0, -1)


def assignment_of(patches: Tensor, similarity: Tensor) -> Tensor:
    """The weights that `patch_of_words` was made of, in the shape and type of `similarity`."""
    import torch

    weights = torch.zeros_like(similarity)
    matched = (patches >= 0).to(weights.dtype).unsqueeze(-1)
    return weights.scatter_(-1, patches.clamp(min=0).long().unsqueeze(-1), matched)


def match_patches(similarity: Tensor, mask: Tensor, config: TokenLoss) -> Tensor:
    """The same from the side of the patches: with `many_to_one` each patch has its best word."""
    if config.matching != "many_to_one":
        return match(similarity, mask, config)
    words = similarity.masked_fill(~mask.unsqueeze(-1), -math.inf)
    best = many_to_one(words.mT, mask.any(dim=-1, keepdim=True).expand(-1, words.shape[-1]))
    return best.mT
