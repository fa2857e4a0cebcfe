"""Zero-shot classification: prompts to a classifier, scores to outcomes.

Pure functions of embeddings.  The classifier is CLIP's prompt ensemble (Radford et al. 2021,
section 3.1.4): each prompt's embedding normalised, averaged over templates, normalised again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.errors import InvariantError
from harness.evaluate.scoring.ranking import expected_hits
from harness.metrics import Classified

_TOP = (1, 5)


def classifier(embeddings: Tensor, classes: int) -> Tensor:
    """Weights (C, D), unit-norm, from the embeddings (C x T, D) of `prompts`, in fp32."""
    each = F.normalize(embeddings.float(), dim=-1)
    return F.normalize(each.reshape(classes, -1, each.shape[1]).mean(dim=1), dim=-1)


def classify(
    image: Tensor, weights: Tensor, labels: Tensor, logit_scale: float = 1.0
) -> Classified:
    """Score unit-norm pictures (N, D) against `weights` (C, D); `labels` int64 (N,).

    Args:
        logit_scale: factor on the cosines whose softmax is the model's confidence.

    Raises:
        InvariantError: an embedding is not finite, or a label is no class.
    """
    classes = len(weights)
    if len(labels) != len(image) or bool(((labels < 0) | (labels >= classes)).any()):
        raise InvariantError(
            f"{len(labels)} labels for {len(image)} pictures, all in 0..{classes - 1} wanted"
        )
    predictions = torch.zeros(len(labels), dtype=torch.int32)
    confidence = torch.zeros(len(labels), dtype=torch.float64)

    def positives(chunk: slice) -> Tensor:
        return F.one_hot(labels[chunk], classes).bool()

    def look(chunk: slice, scores: Tensor) -> None:
        predictions[chunk] = scores.argmax(dim=1).int()
        confidence[chunk] = (scores.double() * logit_scale).softmax(dim=1).amax(dim=1)

    hits = expected_hits(image, weights, positives, _TOP, look)
    return Classified(
        hits.numpy(), predictions.numpy(), confidence.numpy(), labels.numpy(), classes
    )


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
