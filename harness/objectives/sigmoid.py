"""Sigmoid loss: every pair of the batch is right or wrong by itself (SigLIP, Zhai et al., 2023)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from harness.config import TERMS, Float, RunConfig
from harness.objectives.terms import RampedTerm, StepTensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.models.tokens import PatchLayout
    from harness.models.two_tower import TwoTower


@TERMS.register("sigmoid")
class SigmoidLoss(RampedTerm):
    """The sigmoid loss, with a temperature and a bias of its own that are learnt (section 3.2)."""

    added: ClassVar[float] = 3

    init_logit_scale: Annotated[Float, Field(gt=0)] = 10.0
    """Initial value of exp(logit_scale), t in the paper."""
    init_logit_bias: Float = -10.0
    """Initial value of what is added to the logits: most pairs are wrong ones."""

    def module(self, config: RunConfig, towers: TwoTower, layout: PatchLayout | None) -> nn.Module:
        """See Term: the log of the temperature's inverse and the bias, scalars."""
        import torch
        from torch import nn

        scale, bias = math.log(self.init_logit_scale), self.init_logit_bias
        return nn.ParameterDict(
            {"logit_scale": torch.tensor(scale), "logit_bias": torch.tensor(bias)}
        )

    def loss(self, step: StepTensors, outputs: object, module: Any) -> Tensor:
        """See Term: a process's pictures with the texts of all."""
        texts = step.gather(step.text)
        return sigmoid_loss(step.image, texts, **module, first=step.first)

    def log(self, progress: float, module: Any) -> dict[str, float]:
        """See Term: the temperature's inverse and the bias."""
        return {
            "sigmoid/logit_scale": float(module["logit_scale"].detach().exp()),
            "sigmoid/logit_bias": float(module["logit_bias"].detach()),
        }


def sigmoid_loss(
    image: Tensor, text: Tensor, logit_scale: Tensor, logit_bias: Tensor, *, first: int = 0
) -> Tensor:
    """Sum over the M texts of -log sigmoid(z (t cosine + b)), mean over the N pictures; a scalar.

    Args:
        image, text: unit-norm embeddings (N, D) and (M, D).
        logit_scale: log of t.
        logit_bias: b.
        first: picture i belongs to text first + i, where z is 1; it is -1 elsewhere.
    """
    from torch.nn import functional as F

    logits = logit_scale.exp() * image @ text.T + logit_bias
    right = logits.diagonal(first)
    return (F.softplus(logits).sum() - right.sum()) / len(image)
