"""Making very many objects that stay: without looking for garbage among them all the while."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage() -> Iterator[None]:
    """The cyclic collector rests; also a decorator.

    Records, cells and comparisons hold no cycles and all are kept, so that each of the collector's
    rounds over a million of them would be in vain.
    """
    rested = not gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not rested:
            gc.enable()


@contextmanager
def lasting() -> Iterator[None]:
    """What is there now is no garbage, and is not looked through; what comes is, also within
    `no_garbage`.

    Of drawing and of writing pages, which do leave garbage: beside a million of records and cells,
    whose collection would take longer than the work.
    """
    rested = not gc.isenabled()
    gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()
        if rested:
            gc.disable()
