"""The account of what was read: which files, how each split came about, what a user must know.

Plain values that the sources fill in while they open a data set; `harness.data check`, the plan
and the record of a run repeat them.  Knows no source and reads nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import DataError

_ROW = re.compile(r"(.+\.\w+)(?::(\d+)|\[(\d+)\])")


@dataclass(frozen=True)
class Problem:
    """A sample that cannot be used, and why."""

    where: str
    reason: str

    @property
    def place(self) -> tuple[str, int | None]:
        """The file, and the number of its row where one is known."""
        found = _ROW.fullmatch(self.where)
        return (self.where, None) if found is None else (found[1], int(found[2] or found[3]))


@dataclass(frozen=True)
class FileRead:
    """What was made of one file: its rows, how many of them are used, and why not all are.

    A row is a line or record of a table, or a sample of a shard.
    """

    file: str
    rows: int
    used: int
    reason: str | None = None


@dataclass(frozen=True)
class Leakage:
    """Pictures of equal content in several splits (or classes), and one by its names there."""

    splits: tuple[str, ...]
    pictures: int
    example: tuple[str, ...] = ()


@dataclass(frozen=True)
class Account:
    """What was read, and what became of it.

    Attributes:
        files: every file that was read, or that was not and might have been.
        origins: split -> how it came about.
        notes: what was decided for the user, a line each.
        repeated: split -> pictures whose content another one of the split has.
        leakage: pictures that several splits have.
    """

    files: tuple[FileRead, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    repeated: Mapping[str, int] = field(default_factory=dict)
    leakage: tuple[Leakage, ...] = ()

    def record(self) -> dict[str, Any]:
        """What the result of a run keeps of it."""
        return {"notes": list(self.notes), "splits": dict(self.origins)}


class RefusedData(DataError):
    """Data that were read and cannot be used, with what was read of them."""

    def __init__(
        self, line: str, account: Account, problems: Sequence[Problem] = (), seen: int = 0
    ) -> None:
        super().__init__(line)
        self.account, self.problems, self.seen = account, tuple(problems), seen
