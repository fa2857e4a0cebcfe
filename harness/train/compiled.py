"""A pass that torch compiles, which takes minutes, and which a stop does not have to wait for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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

    Raises InterruptedRun as soon as SIGTERM or SIGINT comes while it is compiled, and when it comes
    before that in the same call: of a step that was not made nothing is kept, and the newest state
    on disk is what the same command goes on from.  A call that compiles nothing goes on to its end,
    after which the step is kept.
    """
    inner = torch.compile(model)

    def called(*given: Any) -> Any:
        try:
            with _compiling_ended_by_signals():
                return inner(*given)
        except _StopHeard:
            raise InterruptedRun("stopped while its pass was compiled; state is on disk") from None

    return called


@contextmanager
def _compiling_ended_by_signals() -> Iterator[None]:
    """A signal that asks for a stop ends compiling too; handlers are heard in the main thread."""
    from torch._dynamo.callback import callback_handler

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    compiling = asked = False

    def begun(_: object) -> None:
        nonlocal compiling
        compiling = True
        if asked:
            raise _StopHeard

    def ended(_: object) -> None:
        nonlocal compiling
        compiling = False

    def heard(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if callable(handler := before[signal.Signals(number)]):
            handler(number, frame)
        if compiling:
            raise _StopHeard

    callback_handler.register_start_callback(begun)
    callback_handler.register_end_callback(ended)
    for number in _SIGNALS:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with suppress(ValueError):  # torch._dynamo.reset has forgotten them
            callback_handler.remove_start_callback(begun)
            callback_handler.remove_end_callback(ended)
