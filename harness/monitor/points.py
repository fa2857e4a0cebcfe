"""The runs of each point together as they stand: values of the seeds that are done, and failures by
their cause.

A mean here is over the seeds that are done so far and says how many; a report takes none over fewer
than all.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness import metrics
from harness.config import canonical_json
from harness.config.sweep import Show
from harness.errors import ConfigError
from harness.monitor.snapshot import RunSnapshot, RunState

_NUMBER = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?")


@dataclass(frozen=True)
class SeedValues:
    """One metric over the seeds of a point that are done, in the unit of the records."""

    mean: float
    sd: float | None
    """Standard deviation over seeds; None of one seed."""
    seeds: int


@dataclass(frozen=True)
class PointSnapshot:
    """The runs of one point at this moment, a seed each."""

    label: str
    runs: tuple[RunSnapshot, ...]

    def values(self, metric: str) -> SeedValues | None:
        """`metric` over the seeds that have it; None without any."""
        found = [one.finished.metrics.get(metric) for one in self.runs if one.finished is not None]
        known = [value for value in found if value is not None]
        if not known:
            return None
        sd = statistics.stdev(known) if len(known) > 1 else None
        return SeedValues(statistics.fmean(known), sd, len(known))

    @property
    def share(self) -> float:
        """Share of the samples of all its seeds that is done, in [0, 1]."""
        return statistics.fmean(one.share for one in self.runs)

    @property
    def left(self) -> float | None:
        """Seconds until the last of the seeds that train now."""
        return max((one.left for one in self.runs if one.left is not None), default=None)

    @property
    def is_done(self) -> bool:
        """Whether every seed is done."""
        return all(one.state is RunState.DONE for one in self.runs)


def by_point(snapshots: Iterable[RunSnapshot]) -> list[PointSnapshot]:
    """The points in their order, each with its runs."""
    grouped: dict[str, list[RunSnapshot]] = {}
    for one in snapshots:
        grouped.setdefault(canonical_json([one.run.label, one.run.point]), []).append(one)
    return [PointSnapshot(runs[0].run.label, tuple(runs)) for runs in grouped.values()]


def alike_failures(snapshots: Iterable[RunSnapshot]) -> list[list[RunSnapshot]]:
    """The failed runs by what they died of, the most frequent cause first.

    Errors that differ in numbers alone (a step, an address) are one cause.
    """
    grouped: dict[tuple[str, str], list[RunSnapshot]] = {}
    for one in snapshots:
        if one.state is RunState.FAILED:
            cause = _NUMBER.sub("#", one.status.error or "")
            grouped.setdefault((one.failure, cause), []).append(one)
    return sorted(grouped.values(), key=len, reverse=True)


def leading_metric(show: Show, snapshots: Sequence[RunSnapshot]) -> str | None:
    """The primary metric, else the first shown that is no cost; None where neither is known."""
    known = dict.fromkeys(show.metrics)
    for one in snapshots:
        known |= dict.fromkeys(() if one.finished is None else one.finished.metrics)
    if show.primary is not None:
        try:
            return metrics.match_primary(show.primary, known)
        except ConfigError:  # of no run yet, or of several
            pass
    return next((name for name in show.metrics if not metrics.is_cost(name)), None)
