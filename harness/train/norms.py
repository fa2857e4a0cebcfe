"""What in a model looks at more than one pair, and how to keep a run the same on many processes.

A BatchNorm normalises by the statistics of the global batch, unless `train.norm_batch` says
otherwise; that is arranged here, for the time of the training alone, and leaves neither the names
nor the modules of the model changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.errors import ConfigError
from harness.train.distributed import ProcessGroup

_SHOWN = 3


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The modules whose output for a picture depends on the others of its batch."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def refuse_micro_batch(model: nn.Module) -> None:
    """ConfigError, naming what stands against it, if smaller batches would change the run.

    That is every BatchNorm, whose statistics would be those of the smaller batch, and everything
    that draws random numbers (dropout, stochastic depth), which would draw others.
    """
    found = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) or _is_random(module)
    ]
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ConfigError(
            f"runtime.micro_batch would change what is trained, because of "
            f"{', '.join(found[:_SHOWN])}{more}; more runtime.processes save memory without that, "
            "and train.norm_batch makes the smaller batch part of the run"
        )


def _is_random(module: nn.Module) -> bool:
    """Whether a module drops at random: torch calls the rate p, timm drop_prob or prob."""
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0)
    rates = (getattr(module, name, 0) for name in ("p", "drop_prob", "prob"))
    dropping = "drop" in type(module).__name__.lower()
    return dropping and any(isinstance(rate, (int, float)) and rate > 0 for rate in rates)


# --------------------------------------------------------------------------- over all processes


@contextmanager
def global_statistics(model: nn.Module, group: ProcessGroup) -> Iterator[None]:
    """Have every BatchNorm of `model`, in training mode, see the batch of all processes.

    In evaluation mode each is itself: no process then waits for another.
    """
    norms = batch_norms(model) if group.size > 1 else []
    for norm in norms:
        norm.forward = partial(_over_processes, norm, group)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _over_processes(norm: _BatchNorm, group: ProcessGroup, x: Tensor) -> Tensor:
    """A BatchNorm over the rows (N, C, ...) of all processes, exact in value and gradient."""
    if not norm.training:
        out: Tensor = type(norm).forward(norm, x)
        return out
    y = _on_gpu(norm, group, x) if x.is_cuda else _on_cpu(norm, group, x)
    if isinstance(norm, BatchNormAct2d):
        y = norm.act(norm.drop(y))
    return y


def _on_cpu(norm: _BatchNorm, group: ProcessGroup, x: Tensor) -> Tensor:
    """The statistics of equal shares are averaged, the variance with the spread of the means.

    That does not cancel as a mean of squares would.
    """
    own = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
    variances, means = group.all_gather(torch.stack(own)[None]).unbind(dim=1)
    mean = means.mean(dim=0)
    variance = (variances + (means - mean).square()).mean(dim=0)
    if norm.track_running_stats:
        _move(norm, mean.detach(), variance.detach(), group.size * x.numel() // x.shape[1])
    scale = (variance + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
    shift = -mean * scale
    if norm.affine:
        shift = shift + norm.bias
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return torch.addcmul(shift.view(shape), x, scale.view(shape))


def _on_gpu(norm: _BatchNorm, group: ProcessGroup, x: Tensor) -> Tensor:
    moving = norm.track_running_stats and norm.running_mean is not None
    momentum = norm.momentum
    if moving:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1 / float(norm.num_batches_tracked)
    out: Tensor = _SyncedNorm.apply(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean if moving else None,
        norm.running_var if moving else None,
        0.0 if momentum is None else momentum,
        norm.eps,
        group,
    )
    return out


class _SyncedNorm(torch.autograd.Function):
    """torch's SyncBatchNorm for equal shares: its kernels, and an exchange a direction.

    torch's own, whose shares may be empty, picks the others by a mask, and for that the host waits
    for the GPU three times a layer.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
        group: ProcessGroup,
    ) -> Tensor:
        x = _dense(x)
        own = torch.stack(torch.batch_norm_stats(x, eps))
        means, scales = group.rows_of_all(own[None]).unbind(dim=1)
        counts = means.new_full((group.size,), x.numel() // x.shape[1])
        mean, scale = torch.batch_norm_gather_stats_with_counts(
            x, means, scales, running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(x, weight, mean, scale, counts.to(torch.int32))
        ctx.group = group
        return torch.batch_norm_elemt(x, weight, bias, mean, scale, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, counts = ctx.saved_tensors
        gradient = _dense(gradients[0])
        *sums, of_weight, of_bias = torch.batch_norm_backward_reduce(
            gradient, x, mean, scale, weight, *ctx.needs_input_grad[:3]
        )
        of_x = None
        if ctx.needs_input_grad[0]:
            both = torch.stack(sums)
            ctx.group.all_reduce_sum(both)
            of_x = torch.batch_norm_backward_elemt(  # type: ignore[call-arg]
                gradient, x, mean, scale, weight, *both.unbind(), counts
            )
        return of_x, of_weight, of_bias, *(None,) * 5


def _dense(x: Tensor) -> Tensor:
    """As the kernels take it: channels last stay so."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return x if last else x.contiguous()


@torch.no_grad()
def _move(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move the running statistics towards those of `count` values a channel, as torch does."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (count / max(1, count - 1)), share)


# --------------------------------------------------------------------------- in micro-batches


class RunningStatistics:
    """The running statistics of a model whose batch passes in micro-batches: one move a step.

    Each starts from where they stood before the step; afterwards they stand at the mean of where
    the micro-batches, of all processes, took them.
    """

    def __init__(self, model: nn.Module) -> None:
        norms = [norm for norm in batch_norms(model) if norm.running_mean is not None]
        self._moving = [b for n in norms for b in (n.running_mean, n.running_var) if b is not None]
        self._counters = [n.num_batches_tracked for n in norms if n.num_batches_tracked is not None]

    @contextmanager
    def of_step(self, group: ProcessGroup) -> Iterator[_OfStep]:
        """A step; each micro-batch passes once within `of_micro_batch`, then as often as wanted."""
        step = _OfStep(self._moving)
        counts = [counter.clone() for counter in self._counters]
        yield step
        step.settle(group)
        for counter, count in zip(self._counters, counts, strict=True):
            counter.copy_(count + 1)


class _OfStep:
    def __init__(self, moving: Sequence[Tensor]) -> None:
        self._moving = moving
        self._before = [buffer.clone() for buffer in moving]
        self._sums = [torch.zeros_like(buffer) for buffer in moving]
        self._count = 0

    @contextmanager
    def of_micro_batch(self) -> Iterator[None]:
        """The pass of one micro-batch that counts."""
        _copy(self._before, self._moving)
        yield
        self._count += 1
        for total, buffer in zip(self._sums, self._moving, strict=True):
            total += buffer

    def settle(self, group: ProcessGroup) -> None:
        """Put the mean over micro-batches and processes in place."""
        _copy([total / self._count for total in self._sums], self._moving)
        group.all_reduce_mean(self._moving)


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
