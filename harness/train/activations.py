"""Less memory for the same bits: what the blocks of both towers made is computed again.

A block keeps its input alone, and its forward pass is repeated when the backward pass comes to it:
about a third more work.  Unlike micro-batches this is exact where a BatchNorm looks at the whole
batch, and where there is dropout.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from harness.config import Runtime
from harness.errors import failure_class, one_line
from harness.models.two_tower import TwoTower
from harness.store.record import RunDir
from harness.train.norms import batch_norms


@contextmanager
def recomputed_activations(towers: TwoTower, wanted: bool) -> Iterator[None]:
    """Have the towers' blocks keep nothing for the backward pass but their inputs."""
    blocks = [*_blocks(towers.image), *_blocks(towers.text)] if wanted else []
    for block in blocks:
        block.forward = partial(_forward, block, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _blocks(tower: nn.Module) -> Iterator[nn.Module]:
    """The links of the outermost chains of modules: residual blocks, or stages of them."""
    for child in tower.children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)):
            yield from (link for link in child.children() if any(True for _ in link.children()))
        else:
            yield from _blocks(child)


def _forward(block: nn.Module, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **named)
    contexts = partial(_contexts, batch_norms(block))
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **named)


def _contexts(
    norms: Sequence[_BatchNorm],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Of the first pass and of the repeated one, which moves no running statistics."""
    return nullcontext(), _standing(norms)


@contextmanager
def _standing(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Running statistics move by nothing; what the pass keeps of them stays the same."""
    momenta = [norm.momentum for norm in norms]
    counters = [n.num_batches_tracked for n in norms if n.num_batches_tracked is not None]
    counts = [counter.clone() for counter in counters]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for counter, count in zip(counters, counts, strict=True):
            counter.copy_(count)


# --------------------------------------------------------------------------- after a lack of memory


def with_less_memory(runtime: Runtime, directory: RunDir) -> Runtime:
    """`runtime`; a run that was out of memory before goes on with less, and has the same bits."""
    if runtime.checkpoint_activations or runtime.compile or not directory.was_out_of_memory():
        return runtime
    print("out of memory before: goes on with runtime.checkpoint_activations", file=sys.stderr)
    return runtime.model_copy(update={"checkpoint_activations": True})


def told_with_help(error: Exception, runtime: Runtime) -> str:
    """The error in one line; of a lack of memory, what may help."""
    line = one_line(error)
    if failure_class(error) != "out_of_memory":
        return line
    helps = [
        "more runtime.processes",
        "a smaller runtime.micro_batch (unless there is BatchNorm)",
    ]
    if not runtime.checkpoint_activations:
        helps.insert(0, "runtime.checkpoint_activations=true, which the same command now takes")
    if runtime.compile:
        helps[0] = "runtime.checkpoint_activations=true in place of runtime.compile"
    return f"{line}; it helps to give {', or '.join(helps)}"
