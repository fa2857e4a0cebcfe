"""How a run stands by its own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """What the files say of a run."""

    NEW = "new"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True)
class Status:
    """The state of one run and what a row of the live view shows of it."""

    state: State
    attempt: int = 0
    samples_seen: int = 0
    failure: str | None = None
    error: str | None = None
    details: Mapping[str, Any] | None = None

    @property
    def how(self) -> str:
        """`failed (diverged): loss is NaN`, or `is interrupted`: what a run's name goes before."""
        if self.state is State.FAILED:
            return f"failed ({self.failure or 'bug'}): {self.error or 'no message'}"
        return f"is {self.state.value}"
