"""Affinity mimicking: which texts are like a picture, and how much, as teachers have it.

TinyCLIP (Wu et al., ICCV 2023, section 3.1); of several teachers the probabilities are averaged,
as MobileCLIP has it (Vasu et al., CVPR 2024, section 4.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from harness.config import TERMS
from harness.objectives.instance import products
from harness.objectives.taught import OneTeacher, TaughtTerm
from harness.objectives.terms import StepTensors

if TYPE_CHECKING:
    from torch import Tensor


@TERMS.register("affinity")
class AffinityLoss(TaughtTerm):
    """Cross-entropy to the teachers' probabilities over the batch, at their own temperature."""

    added: ClassVar[float] = 20
    projects: ClassVar[bool] = False

    def loss(self, step: StepTensors, outputs: Any, module: Any) -> Tensor:
        """See Term: a process's pictures with the texts of all, and its texts with the pictures."""
        images, texts = step.gather(step.image), step.gather(step.text)
        teachers = list(outputs.teachers)
        return affinity_loss(
            step.image,
            step.text,
            step.logit_scale,
            teachers,
            batch=(images, texts),
            batch_of_teachers=[(step.gather(t.image), step.gather(t.text)) for t in teachers],
        )


def affinity_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    teachers: Sequence[OneTeacher],
    *,
    batch: tuple[Tensor, Tensor],
    batch_of_teachers: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """Mean of both directions' cross-entropies to the teachers' mean probabilities; a scalar.

    Its gradient is 0 where the run's own probabilities are those.

    Args:
        image, text: unit-norm embeddings (N, D).
        logit_scale: log of the factor on the cosines, a scalar.
        teachers: what they make of the same pairs.
        batch: pictures and texts (M, D) of all pairs that are compared.
        batch_of_teachers: the same by each teacher.
    """
    import torch
    from torch.nn import functional as F

    scale = logit_scale.exp()
    own = products(scale * image, scale * text, batch)
    targets = [
        [logits.softmax(dim=-1) for logits in _logits_of(teacher, those)]
        for teacher, those in zip(teachers, batch_of_teachers, strict=True)
    ]
    rows, columns = (torch.stack(direction).mean(dim=0) for direction in zip(*targets, strict=True))
    return (F.cross_entropy(own[0], rows) + F.cross_entropy(own[1], columns)) / 2


def _logits_of(teacher: OneTeacher, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    scale = teacher.scale[:, None]
    return products(scale * teacher.image, scale * teacher.text, batch)
