"""What writing a report comes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportResult:
    """What was written, and how much of the sweep it covers."""

    complete: bool
    """Whether every run gave every number that is shown."""
    holes: int
    """Runs that miss at least one of the shown numbers, for whatever reason."""
    failed: int
    """Those of them that failed, cannot be trusted or cannot be read."""
    files: tuple[Path, ...]
    runs: int | None = None
    """Runs that were asked for, where that is known beforehand."""
    unchecked: int = 0
    """Runs whose results, of an earlier version, tell no checksums of outcomes and logs."""
