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
from harness.objectives.mlm import mlm_loss
from harness.objectives.schedules import weight_at
from harness.objectives.token import token_loss
from harness.registry import Registry


@dataclass(frozen=True)
class StepTensors:
    """What the terms of one step may look at.

    Attributes:
        image, text: unit-norm embeddings (N, D) of the global batch.
        logit_scale: log of the temperature's inverse, a scalar.
        progress: samples_seen / total_samples before the step, in [0, 1).
        patches, words, word_mask: unit-norm (N, P, d), (N, L, d), bool (N, L); of the token term.
        states, table, bias, targets: (M, C), (V, C), (V,) and int64 (M,); of the MLM term.
    """

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    progress: float
    patches: Tensor | None = None
    words: Tensor | None = None
    word_mask: Tensor | None = None
    states: Tensor | None = None
    table: Tensor | None = None
    bias: Tensor | None = None
    targets: Tensor | None = None


@dataclass(frozen=True)
class Term:
    """A term of the loss and its weight, which may move with the share of the budget seen."""

    loss: Callable[[StepTensors, Objective], Tensor]
    weight: Callable[[Objective, float], float]


TERMS: Registry[Term] = Registry("loss term")


def _instance(step: StepTensors, objective: Objective) -> Tensor:
    config = objective.instance
    return instance_loss(
        step.image,
        step.text,
        step.logit_scale,
        mass=soft_label_mass(config, step.progress),
        weighting=config.weighting,
        tau=config.tau,
    )


def _token(step: StepTensors, objective: Objective) -> Tensor:
    assert step.patches is not None
    assert step.words is not None
    assert step.word_mask is not None
    return token_loss(step.patches, step.words, step.word_mask, objective.token)


def _mlm(step: StepTensors, objective: Objective) -> Tensor:
    assert step.states is not None
    assert step.table is not None
    assert step.bias is not None
    assert step.targets is not None
    return mlm_loss(step.states, step.table, step.bias, step.targets)


TERMS.register("instance")(Term(_instance, lambda objective, _: objective.instance.weight))
TERMS.register("token")(Term(_token, lambda objective, p: weight_at(objective.token, p)))
TERMS.register("mlm")(Term(_mlm, lambda objective, p: weight_at(objective.mlm, p)))


@dataclass(frozen=True)
class Loss:
    """The total and its terms, raw and weighted, each a scalar."""

    total: Tensor
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]


def active_terms(objective: Objective) -> list[str]:
    """The terms that are on: those whose section has a weight, wherever its ramp stands."""
    return [name for name in type(objective).model_fields if getattr(objective, name).weight > 0]


def compute_loss(step: StepTensors, objective: Objective) -> Loss:
    """Sum over the active terms of weight x term, the one place where they meet."""
    terms = {name: TERMS.get(name) for name in active_terms(objective)}
    raw = {name: term.loss(step, objective) for name, term in terms.items()}
    weighted = {
        name: term.weight(objective, step.progress) * raw[name] for name, term in terms.items()
    }
    return Loss(sum(weighted.values(), step.logit_scale.new_zeros(())), raw, weighted)
