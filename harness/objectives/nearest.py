"""The nearest text of a queue as a second text of a picture (DeCLIP, Li et al., 2022).

Section 3.3 of arXiv 2110.05208, nearest-neighbour supervision: texts of earlier batches stand in a
first-in first-out queue, and a picture is contrasted with the batch by the text that is nearest to
its own one there, in the direction from pictures to texts and by the temperature of CLIP's loss (as
their code has it).  What is in the queue takes no gradient.

The queue is part of the state: a run that is cut off goes on with the same bits.  It takes in the
texts of the global batch in their order, so it is the same on every process and for any number of
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from harness.config import TERMS, Int, RunConfig
from harness.errors import ConfigError
from harness.objectives.terms import RampedTerm, StepTensors

if TYPE_CHECKING:
    from torch import Tensor

    from harness.models.queue import TextQueue
    from harness.models.tokens import PatchLayout
    from harness.models.two_tower import TwoTower


@TERMS.register("nearest")
class NearestLoss(RampedTerm):
    """DeCLIP's nearest-neighbour supervision; it stands beside the instance term."""

    added: ClassVar[float] = 7

    size: Annotated[Int, Field(ge=2)] = 65_536
    """Texts in the queue.  One that is longer than an epoch finds the picture's own caption."""

    def check(self, config: RunConfig) -> None:
        """See Term: a batch fits into the queue, and the budget fills it."""
        least, most = config.train.batch_size, config.train.samples
        if not least <= self.size <= most:
            raise ConfigError(
                f"objective.nearest.size = {self.size}: the queue holds a batch (train.batch_size "
                f"= {least}) at least, and no more texts than the run sees (train.samples = "
                f"{most}); nearest: {min(max(least, self.size), most)}"
            )

    def module(self, config: RunConfig, towers: TwoTower, layout: PatchLayout | None) -> TextQueue:
        """See Term: the queue, empty."""
        from harness.models.queue import TextQueue

        return TextQueue(self.size, config.model.embed_dim)

    def loss(self, step: StepTensors, outputs: object, module: Any) -> Tensor:
        """See Term: a process's pictures with the neighbours of all texts, which are then added."""
        neighbours = step.gather(module.nearest(step.text.detach()))
        module.push(step.gather(step.text.detach()))
        return nearest_loss(step.image, neighbours, step.logit_scale, step.first)


def nearest_loss(image: Tensor, neighbours: Tensor, logit_scale: Tensor, first: int = 0) -> Tensor:
    """InfoNCE from N pictures to the M neighbours of the batch's texts, a scalar.

    Args:
        image, neighbours: unit-norm (N, D) and (M, D); neighbours of an empty queue are 0, and then
            the loss is log M and without a gradient.
        logit_scale: log of the factor on the cosines.
        first: picture i belongs to neighbour first + i.
    """
    import torch
    from torch.nn import functional as F

    targets = torch.arange(first, first + len(image), device=image.device)
    return F.cross_entropy(logit_scale.exp() * image @ neighbours.T, targets)
