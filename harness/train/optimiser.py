"""AdamW with the field's no-decay group, and a learning rate in samples seen."""

from __future__ import annotations

import math

import torch
from torch import nn

from harness.config import Train


def make_optimiser(model: nn.Module, train: Train) -> torch.optim.AdamW:
    """AdamW; biases, norms, other one-dimensional parameters and logit_scale do not decay."""
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (no_decay if parameter.ndim < 2 else decay).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": train.weight_decay},
            {"params": no_decay, "weight_decay": 0.0},
        ],
        lr=train.lr,
        betas=(train.beta1, train.beta2),
        eps=train.eps,
        foreach=True,
    )


def learning_rate(train: Train, samples_seen: int) -> float:
    """Rate of the step that starts at `samples_seen`: linear warm-up, then cosine to 0.

    In samples, so that it is the same curve for any batch size, worker or process count.
    """
    if samples_seen < train.warmup_samples:
        return train.lr * min(1.0, (samples_seen + train.batch_size) / train.warmup_samples)
    rest = max(1, train.samples - train.warmup_samples)
    share = min(1.0, (samples_seen - train.warmup_samples) / rest)
    return train.lr * 0.5 * (1.0 + math.cos(math.pi * share))
