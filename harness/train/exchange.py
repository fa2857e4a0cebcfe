"""Gradients of a run's processes, made their mean while the backward pass goes on.

What torch's DistributedDataParallel does (Li et al., 2020, "PyTorch Distributed", section 3.2), for
what it does not take: losses whose parameters stand outside the module's forward, and gradient
caching, whose backward passes are several and of which the last alone may be overlapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.train.distributed import ProcessGroup, put_back

BUCKET_BYTES = 8 << 20
"""Gradients averaged in one message: large for a network, small beside a model, so that most of it
is sent before the backward pass is over."""


class GradientExchange:
    """The gradients of a model over the processes of `group`.

    Which parameters have one is seen in the first step.  From then on they are sent in the reverse
    order of the model, a bucket as soon as the backward pass is through with it; every process
    sends the buckets in the same order, whatever order its own gradients come in.
    """

    def __init__(self, model: nn.Module, group: ProcessGroup) -> None:
        self._group = group
        self._parameters = [p for p in model.parameters() if p.requires_grad][::-1]
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[nn.Parameter, _Bucket] = {}
        self._sent = 0
        self._last_pass = False
        if group.size > 1:
            for parameter in self._parameters:
                parameter.register_post_accumulate_grad_hook(self._accumulated)  # type: ignore[no-untyped-call]

    @contextmanager
    def overlapped(self) -> Iterator[None]:
        """Around the backward pass that is the last one of a step."""
        self._last_pass = True
        try:
            yield
        finally:
            self._last_pass = False

    def finish(self, scalars: Sequence[Tensor]) -> None:
        """Put means over the processes in the place of all gradients, and of `scalars`."""
        if self._group.size == 1:
            return
        for bucket in self._buckets[self._sent :]:
            bucket.send(self._group)
        for bucket in self._buckets:
            bucket.receive(self._group.size)
        self._sent = 0
        new = [p for p in self._parameters if p.grad is not None and p not in self._bucket_of]
        self._group.all_reduce_mean([*(p.grad for p in new if p.grad is not None), *scalars])
        if new:
            self._fill_buckets(new)

    def _accumulated(self, parameter: nn.Parameter) -> None:
        """Send what is complete, when the gradient of a parameter is."""
        bucket = self._bucket_of.get(parameter)
        if not self._last_pass or bucket is None:
            return
        bucket.missing.discard(parameter)
        while self._sent < len(self._buckets) and not self._buckets[self._sent].missing:
            self._buckets[self._sent].send(self._group)
            self._sent += 1

    def _fill_buckets(self, new: Iterable[nn.Parameter]) -> None:
        known = {*self._bucket_of, *new}
        ordered = [parameter for parameter in self._parameters if parameter in known]
        self._buckets = [_Bucket(each) for each in _buckets_of(ordered)]
        self._bucket_of = {p: bucket for bucket in self._buckets for p in bucket.parameters}


class _Bucket:
    """Parameters whose gradients are sent in one message."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = tuple(parameters)
        self.missing = set(parameters)
        self._sum: Callable[[], Tensor] | None = None

    def send(self, group: ProcessGroup) -> None:
        """Begin to add the gradients up; one that this process lacks counts as zero."""
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        self._sum = group.begin_sum(torch.cat([part.flatten() for part in parts]))

    def receive(self, processes: int) -> None:
        """Wait for the sum, and put the mean in the place of each gradient."""
        assert self._sum is not None
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
        put_back(
            self._sum().div_(processes), [p.grad for p in self.parameters if p.grad is not None]
        )
        self._sum, self.missing = None, set(self.parameters)


def _buckets_of(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and size + parameter.nbytes > BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.nbytes
    if bucket:
        yield bucket
