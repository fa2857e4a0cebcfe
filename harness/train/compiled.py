"""A pass that torch compiles, which takes minutes, and which a stop does not have to wait for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn

from harness.errors import InterruptedRun

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _StopHeard(BaseException):
    """No Exception: the compiler takes those for faults of the model."""


def compiled(model: nn.Module) -> Callable[..., Any]:
    """`model` compiled at its first call, and for other shapes later.

    Raises InterruptedRun as soon as SIGTERM or SIGINT comes during a call: of a step that was not
    made nothing is kept, and the newest state on disk is what the same command goes on from.
    """
    inner = torch.compile(model)

    def called(*given: Any) -> Any:
        try:
            with _ended_by_signals():
                return inner(*given)
        except _StopHeard:
            raise InterruptedRun("stopped while its pass was compiled; state is on disk") from None

    return called


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A signal that asks for a stop ends the block too; handlers are heard in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def heard(number: int, frame: FrameType | None) -> None:
        if callable(handler := before[signal.Signals(number)]):
            handler(number, frame)
        raise _StopHeard

    for number in _SIGNALS:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
