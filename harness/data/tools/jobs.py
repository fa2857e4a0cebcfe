"""Work on a data set shared out over processes: the same results for any number of them.

Knows nothing of what the work is; torch-free.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from harness.errors import DataError

if TYPE_CHECKING:
    from harness.data.dataset import DataSet

Task = TypeVar("Task")
Result = TypeVar("Result")

#: A function of what every process holds, and of one task.
Work = Callable[[Any, Task], Result]
Each = Iterator[tuple[Task, Result]]

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""
_LINE_SECONDS = 5.0

_held: Any = None


class ProgressLines:
    """Progress in a plain line now and then, none for what is done at once."""

    def __init__(self, what: str, units: str) -> None:
        self._what, self._units, self._last = what, units, time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        """See Progress."""
        if time.monotonic() - self._last >= _LINE_SECONDS:
            self._last = time.monotonic()
            print(f"{self._what}: {done:,} of {of:,} {self._units}", file=sys.stderr, flush=True)


class Chunk(NamedTuple):
    """Samples `first` to `stop` of a split; the one of that number there."""

    split: str
    number: int
    first: int
    stop: int


def chunks_of(data: DataSet, size: int) -> list[Chunk]:
    """Every sample of every split, up to `size` of them together."""
    return [
        Chunk(name, number, first, min(first + size, len(split)))
        for name, split in data.splits.items()
        for number, first in enumerate(range(0, len(split), size))
    ]


def samples_in(chunks: Iterable[Chunk]) -> int:
    """How many samples they hold together."""
    return sum(chunk.stop - chunk.first for chunk in chunks)


@contextmanager
def shared_out(
    work: Work[Task, Result],
    held: Any,
    tasks: Sequence[Task],
    workers: int,
    *,
    threads: bool = False,
) -> Iterator[Each[Task, Result]]:
    """Each task with its result, as they are done; in this process if `workers` is 1.

    Args:
        work: a function of a module, called with `held` and a task.
        held: sent to each process once.
        threads: in threads of this process.

    Raises DataError when a process is killed.
    """
    if workers == 1:
        yield ((task, work(held, task)) for task in tasks)
        return
    # Spawned: this process may have threads, which a fork would leave in the middle of things.
    context = multiprocessing.get_context("spawn")
    pool: Executor = (
        ThreadPoolExecutor(workers)
        if threads
        else ProcessPoolExecutor(workers, context, initializer=_hold, initargs=(held,))
    )
    given = partial(work, held) if threads else partial(_work, work)
    with pool:
        futures = {pool.submit(given, task): task for task in tasks}
        try:
            yield ((futures[future], future.result()) for future in as_completed(futures))
        except BrokenProcessPool:
            raise DataError(
                f"one of {workers} processes was killed at its work, which is what a machine short "
                "of memory does; try fewer --workers"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _hold(held: Any) -> None:
    global _held
    _held = held


def _work(work: Work[Task, Result], task: Task) -> Result:
    return work(_held, task)
