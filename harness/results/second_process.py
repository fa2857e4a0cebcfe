"""Work that a second core does meanwhile: in a copy of this process, which has all that this one
has.

Knows nothing of what is done.  What comes back is pickled, so that it should be small.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

from harness.errors import HarnessError

T = TypeVar("T")


def begin(task: Callable[[], T]) -> Callable[[], T]:
    """Start `task`; returns what waits for its result.

    It is done when it is waited for where this process must not be copied: beside other threads,
    without a second core, and where a system cannot copy processes.
    """
    if threading.active_count() > 1 or (os.cpu_count() or 1) < 2 or not hasattr(os, "fork"):
        return task
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()

    def wait() -> T:
        try:
            found: T = ours.recv()
        except EOFError:  # it failed, or was killed: here that is told as it is
            return task()
        process.join()
        return found

    return wait


def _work(task: Callable[[], T], answer: Connection) -> None:
    """In the copy; without an answer the task is done, or fails, where it is waited for."""
    with contextlib.suppress(HarnessError, OSError, KeyboardInterrupt):
        answer.send(task())
