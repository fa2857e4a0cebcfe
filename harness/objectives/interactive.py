"""Interactive contrastive learning: against a teacher's pairs (CLIP-KD, Yang et al., 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from harness.config import TERMS
from harness.objectives.instance import instance_loss
from harness.objectives.taught import OneTeacher, TaughtTerm
from harness.objectives.terms import StepTensors

if TYPE_CHECKING:
    from torch import Tensor


@TERMS.register("interactive")
class InteractiveLoss(TaughtTerm):
    """CLIP's loss of own pictures with the teacher's texts, and own texts with its pictures (ICL).

    At the run's own temperature.  It tells pairs apart, so its gradient is not 0 where the run's
    embeddings are the teacher's.
    """

    added: ClassVar[float] = 22

    def loss(self, step: StepTensors, outputs: Any, module: Any) -> Tensor:
        """See Term: a process's pictures with the teacher's texts of all, and its texts alike."""

        def of_one(image: Tensor, text: Tensor, teacher: OneTeacher) -> Tensor:
            batch = (step.gather(teacher.image), step.gather(teacher.text))
            return instance_loss(image, text, step.logit_scale, batch=batch, first=step.first)

        return self.mean_over_teachers(step, outputs, module, of_one)
