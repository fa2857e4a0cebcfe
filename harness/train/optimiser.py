"""AdamW with the field's no-decay group, and a learning rate in samples seen."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from harness.config import Train


class EagerAdamW(torch.optim.AdamW):
    """torch's, to the bit, for steps that are never compiled.

    Its methods are torch's without the marks for torch's compiler: to make a mark takes importing
    the compiler, as long as importing all the rest of torch.
    """

    add_param_group: Any = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad: Any = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict: Any = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict: Any = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step: Any = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def make_optimiser(
    model: nn.Module, train: Train, lr_factors: Mapping[str, float] = {}
) -> torch.optim.AdamW:
    """AdamW; biases, norms, other one-dimensional parameters and logit_scale do not decay.

    Args:
        lr_factors: name of a parameter -> what the learning rate is multiplied by for it; 1 for the
            others, which are the first two groups.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = (lr_factors.get(name, 1.0), parameter.ndim >= 2)
            groups.setdefault(group, []).append(parameter)
    return EagerAdamW(
        [
            {
                "params": parameters,
                "weight_decay": train.weight_decay if decays else 0.0,
                "lr_factor": factor,
            }
            for (factor, decays), parameters in groups.items()
        ],
        lr=train.lr,
        betas=(train.beta1, train.beta2),
        eps=train.eps,
        foreach=not train.fused,
        fused=train.fused,
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The rate of a step, times each group's factor; a checkpoint of before has none."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)


def learning_rate(train: Train, samples_seen: int) -> float:
    """Rate of the step that starts at `samples_seen`: linear warm-up, then cosine to 0.

    In samples, so that it is the same curve for any batch size, worker or process count.
    """
    if samples_seen < train.warmup_samples:
        return train.lr * min(1.0, (samples_seen + train.batch_size) / train.warmup_samples)
    rest = max(1, train.samples - train.warmup_samples)
    share = min(1.0, (samples_seen - train.warmup_samples) / rest)
    return train.lr * 0.5 * (1.0 + math.cos(math.pi * share))
