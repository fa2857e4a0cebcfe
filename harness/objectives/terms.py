"""The loss as named terms, weighted in one place.

A term is a function of the step's tensors; adding one is one decorated function and one section of
`Objective` of the same name that has a `weight`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from harness.config import Objective
from harness.objectives.instance import instance_loss, soft_label_mass
from harness.registry import Registry


@dataclass(frozen=True)
class StepTensors:
    """What the terms of one step may look at.

    Attributes:
        image, text: unit-norm embeddings (N, D) of the global batch.
        logit_scale: log of the temperature's inverse, a scalar.
        progress: samples_seen / total_samples before the step, in [0, 1).
    """

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    progress: float


Term = Callable[[StepTensors, Objective], Tensor]
TERMS: Registry[Term] = Registry("loss term")


@TERMS.register("instance")
def instance(step: StepTensors, objective: Objective) -> Tensor:
    """Contrastive loss with progressively softened labels."""
    config = objective.instance
    return instance_loss(
        step.image,
        step.text,
        step.logit_scale,
        mass=soft_label_mass(config, step.progress),
        weighting=config.weighting,
        tau=config.tau,
    )


@dataclass(frozen=True)
class Loss:
    """The total and its terms, raw and weighted, each a scalar."""

    total: Tensor
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]


def compute_loss(step: StepTensors, objective: Objective) -> Loss:
    """Sum over the terms of weight x term; a term of weight 0 is not computed."""
    weights = {name: getattr(objective, name).weight for name in type(objective).model_fields}
    raw = {name: TERMS.get(name)(step, objective) for name, w in weights.items() if w > 0}
    weighted = {name: weights[name] * value for name, value in raw.items()}
    return Loss(sum(weighted.values(), step.logit_scale.new_zeros(())), raw, weighted)
