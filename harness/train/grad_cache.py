"""A batch that passes through the towers in micro-batches, under the loss of the whole batch.

Gradient caching for contrastive losses (Gao et al., 2021, "GradCache"): they pass once without a
graph, the whole loss is computed on what they gave and differentiated to there, and they pass
again, each with its share of that gradient.  Exact where a pair's outputs do not depend on the
others of its micro-batch; no term of the loss knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from harness.models.training import Outputs
from harness.objectives.terms import Loss
from harness.train.distributed import ProcessGroup
from harness.train.exchange import GradientExchange
from harness.train.norms import RunningStatistics


def cached_backward(
    micro_batches: Sequence[Callable[[], Outputs]],
    loss_of: Callable[[Outputs], Loss],
    statistics: RunningStatistics,
    exchange: GradientExchange,
    group: ProcessGroup,
) -> Loss:
    """The loss of all micro-batches' outputs; its gradient is added to the parameters'.

    Args:
        micro_batches: each makes the outputs of some pairs, the same whenever it is called.
        loss_of: the loss of the outputs of this process's pairs.
        statistics: of the model that makes them; moved once.
        exchange: of its gradients, which begins in the last backward pass.
    """
    whole = len(micro_batches) == 1
    with statistics.of_step(group) as step:
        outputs = []
        for micro_batch in micro_batches:
            with step.of_micro_batch(), nullcontext() if whole else torch.no_grad():
                outputs.append(micro_batch())
        cached = outputs[0] if whole else _leaves(outputs)
        loss = loss_of(cached)
        with exchange.overlapped() if whole else nullcontext():
            loss.total.backward()  # type: ignore[no-untyped-call]
        if not whole:
            _pass_back(micro_batches, cached, exchange)
    return loss


def _pass_back(
    micro_batches: Sequence[Callable[[], Outputs]], cached: Outputs, exchange: GradientExchange
) -> None:
    gradients = [leaf.grad for leaf in _differentiable(cached)]
    starts = [0] * len(gradients)
    for micro_batch in micro_batches:
        made, received = [], []
        for i, tensor in enumerate(_differentiable(micro_batch())):
            gradient, start = gradients[i], starts[i]
            starts[i] += len(tensor)
            # what no term looked at has none, and a micro-batch without a hidden word has no states
            if gradient is not None and len(tensor) and tensor.requires_grad:
                made.append(tensor)
                received.append(gradient[start : starts[i]])
        with exchange.overlapped() if micro_batch is micro_batches[-1] else nullcontext():
            torch.autograd.backward(made, received)


def _leaves(outputs: Sequence[Outputs]) -> Outputs:
    """The micro-batches' outputs, one after the other, as tensors that will receive a gradient."""
    joined = [torch.cat(tensors) for tensors in zip(*(o.tensors for o in outputs), strict=True)]
    return outputs[0].replaced([t.requires_grad_(t.is_floating_point()) for t in joined])


def _differentiable(outputs: Outputs) -> list[Tensor]:
    return [tensor for tensor in outputs.tensors if tensor.is_floating_point()]
