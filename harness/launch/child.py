"""What every process that a launcher starts has in common: its tasks, its signals, its output.

Tasks come in on standard input, a JSON line each; when the input ends, whoever started the process
is gone.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from harness.launch.signals import Stop, release_signals

ANSWER = b"answer: "
"""What the lines of a worker's standard output begin with that answer; others are mere prints."""

Task = dict[str, Any]


class Inbox:
    """The tasks of this process, until they end or a stop is asked for.

    SIGTERM and SIGINT ask for it, from the moment that this is made.

    Args:
        at_end: called in a thread when standard input ends; by default that asks for a stop too.
    """

    def __init__(self, stop: Stop, at_end: Callable[[], None] | None = None) -> None:
        self._stop = stop
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        faulthandler.enable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.close())
        release_signals()
        descriptor = os.dup(0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        arguments = (descriptor, at_end or self.close)
        threading.Thread(target=self._read, args=arguments, name="tasks", daemon=True).start()

    def __iter__(self) -> Iterator[Task]:
        while (task := self._tasks.get()) is not None and not self._stop():
            yield task

    def close(self) -> None:
        """Ask for a stop, and wake up who waits for a task."""
        self._stop.ask()
        self._tasks.put(None)

    def _read(self, descriptor: int, at_end: Callable[[], None]) -> None:
        with os.fdopen(descriptor, encoding="utf-8") as lines:
            for line in lines:
                self._tasks.put(json.loads(line))
        at_end()


def print_to(output: int | Path) -> None:
    """Send standard output and error, also of C code and of child processes, to a file.

    Args:
        output: a descriptor, or a file to append to.
    """
    if isinstance(output, Path):
        output.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        print_to(descriptor)
        os.close(descriptor)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(output, 1)
    os.dup2(output, 2)
