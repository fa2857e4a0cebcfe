"""One temperature for all scores of a task, by the labels of a validation split."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

_WIDEST = 12.0
"""Of the logarithm of the factor that is looked for: of labels that are all right, or none, the
loss falls for ever."""


def fitted_temperature(scores: Tensor, labels: Tensor) -> float:
    """The T with which softmax(scores / T) gives `labels` the least cross-entropy.

    Guo et al. 2017, section 4.2.  Bounded to e^-12 .. e^12.

    Args:
        scores: (N, C), the model's own logits.
        labels: int64 (N,).
    """
    from scipy.optimize import minimize_scalar  # heavy

    exact = scores.double()

    def loss(log_factor: float) -> float:
        return float(F.cross_entropy(exact * math.exp(log_factor), labels))

    found = minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded")
    return math.exp(-float(found.x))
