"""The processes that train one run together: who there is, and what they tell one another.

Every process holds the whole model and takes its share of each batch.  A loss is the mean of the
processes' losses, and so is a gradient; what a term of the loss wants of the whole batch it
gathers.  Gradients pass back through a gathered tensor to the process that gave each row, summed
over those that used it, so the mean over processes is that of one process with the whole batch (as
in open_clip's loss with `gather_with_grad`).  Knows neither files nor how processes are started.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from harness.data.account import Problem
from harness.errors import ConfigError, RankLost, failure_class, one_line
from harness.train.members import check_members, member, name_interface

_PIECE_BYTES = 256 << 20
"""Of a state that is sent to the others."""
_POLL_SECONDS = 0.05
_LAST_WORDS_SECONDS = 0.1
"""For gloo's threads that still live to free the tensors of the last exchange: to do so they need
Python, and one that asks when Python has ended aborts the process."""
_GIVE_UP_SECONDS = 10.0
"""Of leaving processes that do not answer any more."""
_FAILURE = "failure"


class ProcessGroup:
    """The processes of a run as one of them sees them; here that of a single process.

    Attributes:
        rank: number of this process among all, 0 for the one that writes.
        size: how many there are.
        local_rank: number of this process on its machine, which picks its GPU.
    """

    rank = 0
    size = 1
    local_rank = 0

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Rows (N, ...) of this process to those of all (size * N, ...), by rank, with gradient."""
        return tensor

    def rows_of_all(self, tensor: Tensor) -> Tensor:
        """The same rows without gradient."""
        return tensor

    def all_reduce_sum(self, tensor: Tensor) -> None:
        """Put the sum over all processes in the place of a tensor."""

    def begin_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin to put the sum in the place of a tensor, beside every other exchange; the order of
        such sums is the same on all processes.  Returns what waits for it."""
        return lambda: tensor

    def all_reduce_mean(self, tensors: Iterable[Tensor]) -> None:
        """Put the mean over all processes in the place of each tensor; shapes are the same."""

    def all_reduce_stop(
        self, stop: bool, problems: Sequence[Problem]
    ) -> tuple[bool, tuple[Problem, ...]]:
        """Whether any process was asked to stop, and what any could not use, by rank."""
        return stop, tuple(problems)

    def broadcast(self, data: Callable[[], bytes]) -> bytes | None:
        """What `data` gives on the first process, to the others; None to the first itself."""
        return None

    def bytes_of_all(self, data: bytes) -> list[bytes]:
        """What every process gives, by rank; the lengths may differ."""
        return [data]

    def wait_for_first(self, what: str) -> None:
        """Until the first process has come here too, however long `what` takes it."""


SINGLE_PROCESS = ProcessGroup()

JoinGroup = Callable[[torch.device], AbstractContextManager[ProcessGroup]]
"""Joins the process group of a run, for a process that computes on a device, and leaves it."""


@contextmanager
def single_process(device: torch.device) -> Iterator[ProcessGroup]:
    """The group of a process that trains by itself."""
    yield SINGLE_PROCESS


# --------------------------------------------------------------------------- several processes


@dataclass(frozen=True)
class RankAddress:
    """One process of a run, and where it finds the others.

    Attributes:
        rank, size, local_rank: see ProcessGroup.
        address, port: of the store that rank 0 holds; port 0 lets rank 0 take a free one.
    """

    rank: int
    size: int
    local_rank: int
    address: str = "127.0.0.1"
    port: int = 0


def open_store(own: RankAddress, timeout: float) -> TCPStore:
    """The store of a run: made by rank 0, found by the others within `timeout` seconds.

    Raises:
        RankLost: rank 0 is not to be found.
        ConfigError: rank 0 cannot listen at the address.
    """
    try:
        return TCPStore(
            own.address,
            own.port,
            is_master=own.rank == 0,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,
        )
    except RuntimeError as error:
        where = f"{own.address}:{own.port}"
        if own.rank == 0:
            raise ConfigError(f"cannot listen at {where}: {one_line(error)}") from error
        raise RankLost(f"rank 0 was not found at {where} in {timeout:g} s") from error


@contextmanager
def process_group(
    own: RankAddress,
    store: TCPStore,
    device: torch.device,
    timeout: float,
    check: Callable[[], None] = lambda: None,
) -> Iterator[ProcessGroup]:
    """The processes that meet at `store`, until left; an error raised inside is told to the rest.

    Args:
        own: which of them this one is.
        device: what it computes on: messages go through gloo, tensors of a GPU through NCCL.
        timeout: seconds to wait for one another, now and in each exchange.
        check: called while waiting for the others to come; raises when they never will.

    Raises:
        RankLost: the others did not come, or one is gone.
        ConfigError: they do not fit together; see `check_members`.
    """
    store.set(f"here/{own.rank}", json.dumps(member(device)))
    _wait_for_all(own, store, timeout, check)
    check_members([json.loads(store.get(f"here/{rank}")) for rank in range(own.size)])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    name_interface(own.address)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=own.rank,
            world_size=own.size,
            timeout=timedelta(seconds=timeout),
        )
        group = _Connected(own, store, timedelta(seconds=timeout))
    except (RuntimeError, ValueError) as error:
        raise RankLost(f"the processes of the run did not connect: {one_line(error)}") from error
    try:
        yield group
        group.barrier()
    except BaseException as error:
        if isinstance(error, Exception):
            group.report_failure(error)
        group.let_go()
        _give_up(device)
        raise
    group.let_go()
    dist.destroy_process_group()
    time.sleep(_LAST_WORDS_SECONDS)


def _give_up(device: torch.device) -> None:
    """Leave processes of which one may be dead, without waiting for it longer than a while.

    If that does not come to an end this process can meet no others again, and says so when it is
    to: that is a RankLost, of which the next start knows nothing.
    """

    def leave() -> None:
        with suppress(RuntimeError, ValueError):
            if device.type == "cuda":
                for group in list(dist.distributed_c10d._world.pg_map):
                    group._get_backend(device).abort()
            dist.destroy_process_group()

    leaving = Thread(target=leave, name="leaving", daemon=True)
    leaving.start()
    leaving.join(_GIVE_UP_SECONDS)


def _wait_for_all(
    own: RankAddress, store: TCPStore, timeout: float, check: Callable[[], None]
) -> None:
    deadline = time.monotonic() + timeout
    missing = [f"here/{rank}" for rank in range(own.size)]
    while not store.check(missing):
        check()
        if time.monotonic() > deadline:
            absent = [name.partition("/")[2] for name in missing if not store.check([name])]
            raise RankLost(
                f"rank {', '.join(absent)} of {own.size} did not come within {timeout:g} s"
            )
        time.sleep(_POLL_SECONDS)


class _Connected(ProcessGroup):
    """One of several processes."""

    def __init__(self, own: RankAddress, store: TCPStore, timeout: timedelta) -> None:
        self.rank, self.size, self.local_rank = own.rank, own.size, own.local_rank
        self._store, self._waits = store, 0
        self._beside: Any = dist.new_group(timeout=timeout)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """See ProcessGroup."""
        out: Tensor = _Gather.apply(tensor, self)
        return out

    def all_reduce_sum(self, tensor: Tensor) -> None:
        """See ProcessGroup."""
        with self._exchange():
            dist.all_reduce(tensor)

    def begin_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """See ProcessGroup."""
        with self._exchange():
            work = dist.all_reduce(tensor, group=self._beside, async_op=True)
        assert work is not None  # only of a process outside the group

        def wait() -> Tensor:
            with self._exchange():
                work.wait()
            return tensor

        return wait

    def all_reduce_mean(self, tensors: Iterable[Tensor]) -> None:
        """See ProcessGroup."""
        if means := list(tensors):
            flat = torch.cat([tensor.flatten() for tensor in means])
            self.all_reduce_sum(flat)
            put_back(flat / self.size, means)

    def all_reduce_stop(
        self, stop: bool, problems: Sequence[Problem]
    ) -> tuple[bool, tuple[Problem, ...]]:
        """See ProcessGroup."""
        counts = torch.tensor([int(stop), len(problems)])
        self.all_reduce_sum(counts)
        stops, found = counts.tolist()
        if found:
            text = json.dumps([[p.where, p.reason] for p in problems])
            of_all = [json.loads(part) for part in self.bytes_of_all(text.encode())]
            problems = [Problem(*pair) for of_rank in of_all for pair in of_rank]
        return stops > 0, tuple(problems)

    def broadcast(self, data: Callable[[], bytes]) -> bytes | None:
        """See ProcessGroup."""
        sent = bytearray(data()) if self.rank == 0 else bytearray()
        length = torch.tensor([len(sent)])
        with self._exchange():
            dist.broadcast(length, 0)
            buffer = sent or bytearray(int(length))
            for piece in torch.split(torch.frombuffer(buffer, dtype=torch.uint8), _PIECE_BYTES):
                dist.broadcast(piece, 0)
        return None if self.rank == 0 else bytes(buffer)

    def bytes_of_all(self, data: bytes) -> list[bytes]:
        """See ProcessGroup."""
        lengths = self.rows_of_all(torch.tensor([len(data)])).tolist()
        if not (longest := max(lengths)):
            return [b""] * self.size
        padded = torch.frombuffer(bytearray(data.ljust(longest)), dtype=torch.uint8)
        rows = self.rows_of_all(padded[None]).numpy()
        return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]

    def wait_for_first(self, what: str) -> None:
        """See ProcessGroup; the store tells of a first process that failed or is gone."""
        self._waits += 1
        here = f"wait {self._waits}"
        if self.rank == 0:
            self._store.set(here, "")
            return
        while True:
            try:
                if self._store.check([here]):
                    return
                failed = self._store.check([_FAILURE])
            except RuntimeError as error:
                raise self._lost(error) from error
            if failed:
                raise self._lost(RuntimeError(f"it failed during {what}"))
            time.sleep(_POLL_SECONDS)

    def barrier(self) -> None:
        """Wait until all are done, so that nobody hangs up on one that is still reading."""
        self.all_reduce_sum(torch.zeros(1))

    def let_go(self) -> None:
        """Hold nothing of gloo's, whose threads end with what nobody holds."""
        self._beside = None

    def report_failure(self, error: Exception) -> None:
        """Leave word of why this process goes, unless it goes because of another."""
        if isinstance(error, RankLost):
            return
        words = {"rank": self.rank, "failure": failure_class(error), "error": one_line(error)}
        try:
            self._store.compare_set(_FAILURE, "", json.dumps(words))
        except RuntimeError:
            return  # rank 0 is gone, and the store with it

    # ---- what the methods above are made of

    def rows_of_all(self, tensor: Tensor) -> Tensor:
        """See ProcessGroup."""
        out = tensor.new_empty((self.size * len(tensor), *tensor.shape[1:]))
        with self._exchange():
            dist.all_gather(list(out.chunk(self.size)), tensor.contiguous())
        return out

    def own_rows_of_sum(self, tensor: Tensor) -> Tensor:
        """This process's rows of the sum over processes; the reverse of `rows_of_all`."""
        parts = list(tensor.contiguous().chunk(self.size))
        out = torch.empty_like(parts[0])
        with self._exchange():
            dist.reduce_scatter(out, parts)
        return out

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """An exchange: when it fails, the word that a process left says more than the back end."""
        try:
            yield
        except RuntimeError as error:
            if failure_class(error) == "out_of_memory":
                raise
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> RankLost:
        try:
            word = json.loads(self._store.get(_FAILURE)) if self._store.check([_FAILURE]) else None
        except RuntimeError:
            word = None
        if word is None:
            said = one_line(error).partition(". ")[0]  # gloo goes on with advice
            return RankLost(f"another process of the run is gone: {said}")
        return RankLost(f"rank {word['rank']}: {word['error']}", word["failure"])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: _Connected) -> Tensor:
        ctx.group = group
        return group.rows_of_all(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.group.own_rows_of_sum(gradients[0]), None


def put_back(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Into each of `tensors` its part of `flat`, where they were joined in this order."""
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
