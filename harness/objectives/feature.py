"""Feature distillation: embeddings go where teachers have theirs (CLIP-KD, Yang et al., 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from harness.config import TERMS
from harness.objectives.taught import OneTeacher, TaughtTerm
from harness.objectives.terms import StepTensors

if TYPE_CHECKING:
    from torch import Tensor


@TERMS.register("feature")
class FeatureLoss(TaughtTerm):
    """Squared distance to a teacher's embeddings, of pictures and of texts (section 3.3, FD)."""

    added: ClassVar[float] = 21

    def loss(self, step: StepTensors, outputs: Any, module: Any) -> Tensor:
        """See Term: of a process's own pairs."""
        return self.mean_over_teachers(step, outputs, module, feature_loss)


def feature_loss(image: Tensor, text: Tensor, teacher: OneTeacher) -> Tensor:
    """Mean over N pairs of |image - teacher's|^2 + |text - teacher's|^2; a scalar.

    All embeddings (N, D) have unit norm.
    Its gradient is 0 where the embeddings are the teacher's.  Their public code takes the mean over
    dimensions as well, hence a weight of 2,000 there where 2,000 / D is meant here.
    """
    apart = (image - teacher.image).square().sum(dim=-1)
    return (apart + (text - teacher.text).square().sum(dim=-1)).mean()
