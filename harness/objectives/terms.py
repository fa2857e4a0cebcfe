"""The loss as named terms, weighted in one place.

A term is a function of the step's tensors; adding one is one decorated function and one section of
`Objective` of the same name that has a `weight`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.config import Objective
from harness.objectives.instance import instance_loss, soft_label_mass
from harness.objectives.mlm import mlm_loss
from harness.objectives.schedules import weight_at
from harness.objectives.token import token_loss
from harness.registry import Registry


def _alone(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class StepTensors:
    """What the terms of one step may look at: a process's own pairs, and those of the others.

    A term is the mean, over processes with N pairs each, of what it gives on them.

    Attributes:
        image, text: unit-norm embeddings (N, D).
        logit_scale: log of the temperature's inverse, a scalar.
        progress: samples_seen / total_samples before the step, in [0, 1).
        patches, words, word_mask: unit-norm (N, P, d), (N, L, d), bool (N, L); of the token term.
        states, table, bias, targets: (M, C), (V, C), (V,) and int64 (M,); of the MLM term.
        gather: rows (N, ...) of this process to those of the global batch, in its order and with
            gradient; the same rows where a process is alone.
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
    gather: Callable[[Tensor], Tensor] = _alone


@dataclass(frozen=True)
class Term:
    """A term of the loss and its weight, which may move with the share of the budget seen."""

    loss: Callable[[StepTensors, Objective], Tensor]
    weight: Callable[[Objective, float], float]


TERMS: Registry[Term] = Registry("loss term")


def _instance(step: StepTensors, objective: Objective) -> Tensor:
    config = objective.instance
    return instance_loss(
        step.gather(step.image),
        step.gather(step.text),
        step.logit_scale,
        mass=soft_label_mass(config, step.progress),
        weighting=config.weighting,
        tau=config.tau,
    )


def _token(step: StepTensors, objective: Objective) -> Tensor:
    assert step.patches is not None
    assert step.words is not None
    assert step.word_mask is not None
    return token_loss(step.patches, step.words, step.word_mask, objective.token, step.gather)


def _mlm(step: StepTensors, objective: Objective) -> Tensor:
    assert step.states is not None
    assert step.table is not None
    assert step.bias is not None
    assert step.targets is not None
    count = step.gather(torch.tensor([float(len(step.targets))])).mean().item()
    return mlm_loss(step.states, step.table, step.bias, step.targets, count)


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
