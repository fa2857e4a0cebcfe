"""Masked language modelling with the shortened text tower (LightCLIP, abstract).

The abstract says that masked language modelling makes the most of a shortened text encoder; how is
our reading.  The pass that makes the states, and every weight, is in `harness.models.fusion`.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def mlm_loss(
    states: Tensor, table: Tensor, bias: Tensor, targets: Tensor, count: float | None = None
) -> Tensor:
    """Mean cross-entropy over the M chosen words; a scalar in nats, 0 when there are none.

    Logits are made at the chosen places alone and in fp32: (M, V), never (N, L, V).

    Args:
        states: (M, C) at the chosen places, of the masked pass.
        table: (V, C), the token embedding (tied) or a table of its own.
        bias: (V,), one number a word.
        targets: int64 (M,), the words that stood there.
        count: what the sum is divided by in place of M: the mean of M over processes, whose mean
            is then that over all the words of the global batch.
    """
    count = float(len(targets)) if count is None else count
    logits = F.linear(states.float(), table.float(), bias.float())
    # the mean of nothing is NaN; the sum of nothing is 0 and keeps the graph whole
    return F.cross_entropy(logits, targets, reduction="sum") / (count or 1.0)
