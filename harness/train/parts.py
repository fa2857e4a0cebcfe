"""A batch that passes through the towers in parts, under the loss of the whole batch.

Gradient caching for contrastive losses (Gao et al., 2021, "GradCache"): the parts pass once without
a graph, the whole loss is computed on what they gave and differentiated to there, and the parts
pass again, each with its share of that gradient.  Exact where a pair's outputs do not depend on the
others of its part; no term of the loss knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from harness.models.training import Outputs
from harness.objectives.terms import Loss
from harness.train.norms import RunningStatistics
from harness.train.ranks import Ranks


def backward_in_parts(
    parts: Sequence[Callable[[], Outputs]],
    loss_of: Callable[[Outputs], Loss],
    statistics: RunningStatistics,
    ranks: Ranks,
) -> Loss:
    """The loss of all parts' outputs; its gradient is added to the parameters'.

    Args:
        parts: each makes the outputs of some pairs, the same whenever it is called.
        loss_of: the loss of the outputs of this process's pairs.
        statistics: of the model that makes them; moved once.
    """
    whole = len(parts) == 1
    with statistics.of_step(ranks) as step:
        outputs = []
        for part in parts:
            with step.of_part(), nullcontext() if whole else torch.no_grad():
                outputs.append(part())
        cached = outputs[0] if whole else _leaves(outputs)
        loss = loss_of(cached)
        loss.total.backward()  # type: ignore[no-untyped-call]
        if not whole:
            _pass_back(parts, cached)
    return loss


def _pass_back(parts: Sequence[Callable[[], Outputs]], cached: Outputs) -> None:
    gradients = [leaf.grad for leaf in _differentiable(cached)]
    starts = [0] * len(gradients)
    for part in parts:
        made, received = [], []
        for place, tensor in enumerate(_differentiable(part())):
            gradient, start = gradients[place], starts[place]
            starts[place] += len(tensor)
            # what no term looked at has none, and a part without a hidden word has no states
            if gradient is not None and len(tensor):
                made.append(tensor)
                received.append(gradient[start : starts[place]])
        torch.autograd.backward(made, received)


def _leaves(outputs: Sequence[Outputs]) -> Outputs:
    """The parts' outputs, one after the other, as tensors that will receive a gradient."""
    joined = [torch.cat(of_parts) for of_parts in zip(*(o.tensors for o in outputs), strict=True)]
    return outputs[0].replaced([t.requires_grad_(t.is_floating_point()) for t in joined])


def _differentiable(outputs: Outputs) -> list[Tensor]:
    return [tensor for tensor in outputs.tensors if tensor.is_floating_point()]
