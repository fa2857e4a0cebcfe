"""How the processes of a launch are asked to stop, take signals, and are told what to do.

The tasks of a child process come in on its standard input, a JSON line each; when the input ends,
whoever started it is gone.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

from harness.config.pipes import allow_pipes
from harness.files import APPEND

INSIST_SECONDS = 1.0
"""A second signal this much later means it; an earlier one is a wrapper's copy of the first."""
HELD_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""What a scheduler may send to all processes of a job, those that have just begun too."""


class Stop:
    """A flag that signal handlers raise and everybody else only reads."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Whether a stop was asked for: what a run calls between two steps."""
        return self.asked

    def ask(self) -> None:
        """Ask for a stop; from now on calling the flag gives true."""
        self.asked = True


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM raise `stop`; when repeated they raise KeyboardInterrupt."""
    first: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        stop.ask()
        first.append(time.monotonic())
        if first[-1] - first[0] > INSIST_SECONDS:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def holding_signals() -> Iterator[None]:
    """Processes started within begin with `HELD_SIGNALS` kept back, and so not killed by them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release_signals() -> None:
    """Take what was kept back since the start of this process: a stop is for SIGTERM to ask for."""
    for number in HELD_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)


# --------------------------------------------------------------------------- a child process

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
                task = json.loads(line)
                allow_pipes(_data_paths(task))
                self._tasks.put(task)
        at_end()
        # Whatever waits in the main thread hears it as it would a signal, which it is.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _data_paths(task: Task) -> Iterator[object]:
    """What a launcher has found to be its caller's own, before it told this process."""
    for config in (task.get("config", {}), *task.get("preflight", ())):
        yield config.get("data", {}).get("path")


def print_to(output: int | Path) -> None:
    """Send standard output and error, also of C code and of child processes, to a file.

    Args:
        output: a descriptor, or a file to append to.
    """
    if isinstance(output, Path):
        output.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(output, APPEND, 0o644)
        print_to(descriptor)
        os.close(descriptor)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(output, 1)
    os.dup2(output, 2)
