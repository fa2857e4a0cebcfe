"""How a launch is asked to stop, and how its processes take the signals of a scheduler."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
