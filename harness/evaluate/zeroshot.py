"""Zero-shot classification: prompts to a classifier, scores to outcomes.

Pure functions of embeddings.  The classifier is CLIP's prompt ensemble (Radford et al. 2021,
section 3.1.4): each prompt's embedding normalised, averaged over templates, normalised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.errors import InvariantError
from harness.evaluate.ranking import expected_hits

_TOP = (1, 5)


@dataclass(frozen=True)
class Classification:
    """The outcomes of one task.

    Attributes:
        hits: float64 (N, 2), probability that the true class is among the 1 and 5 best-scored ones,
            over the order of ties.
        labels: int64 (N,), the true classes.
        classes: number of classes offered.
    """

    hits: Tensor
    labels: Tensor
    classes: int

    def top(self, k: int) -> Tensor:
        """Per-example outcomes (N,) of top-k accuracy, k = 1 or 5."""
        return self.hits[:, _TOP.index(k)]

    @property
    def mean_per_class_recall(self) -> float:
        """Top-1 recall averaged over the classes that occur among the labels.

        A class without examples has no recall and is left out (scikit-learn's balanced accuracy
        does the same).
        """
        totals = torch.bincount(self.labels, minlength=self.classes)
        right = torch.zeros(self.classes, dtype=torch.float64)
        right.index_add_(0, self.labels, self.top(1))
        present = totals > 0
        return float((right[present] / totals[present]).mean())


def prompts(classnames: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every template filled with every class name, class by class (C x T texts)."""
    return [template.replace("{c}", name) for name in classnames for template in templates]


def classifier(embeddings: Tensor, classes: int) -> Tensor:
    """Weights (C, D), unit-norm, from the embeddings (C x T, D) of `prompts`, in fp32."""
    each = F.normalize(embeddings.float(), dim=-1)
    return F.normalize(each.reshape(classes, -1, each.shape[1]).mean(dim=1), dim=-1)


def classify(image: Tensor, weights: Tensor, labels: Tensor) -> Classification:
    """Score unit-norm pictures (N, D) against `weights` (C, D); `labels` int64 (N,).

    Raises:
        InvariantError: an embedding is not finite, or a label is no class.
    """
    classes = len(weights)
    if len(labels) != len(image) or bool(((labels < 0) | (labels >= classes)).any()):
        raise InvariantError(
            f"{len(labels)} labels for {len(image)} pictures, all in 0..{classes - 1} wanted"
        )

    def positives(chunk: slice) -> Tensor:
        return F.one_hot(labels[chunk], classes).bool()

    return Classification(expected_hits(image, weights, positives, _TOP), labels, classes)
