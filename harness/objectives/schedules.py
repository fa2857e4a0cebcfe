"""How a weight or a softened mass grows with the share of the budget that has been seen."""

from __future__ import annotations

import math

from harness.config import Schedule


def ramp(schedule: Schedule, progress: float, *, start: float = 0.0, steps: int = 4) -> float:
    """f(p) in [0, 1], non-decreasing in `progress` = samples_seen / total_samples.

    With u = clip((p - start) / (1 - start), 0, 1): `constant` is [p >= start], `linear` u, `cosine`
    (1 - cos(pi u)) / 2, `step` floor(steps * u) / steps.  A function of samples seen alone, so a
    resumed run and a run on any number of processes stand at the same value.
    """
    share = min(1.0, max(0.0, (progress - start) / (1.0 - start)))
    if schedule == "constant":
        return float(progress >= start)
    if schedule == "linear":
        return share
    if schedule == "cosine":
        return (1.0 - math.cos(math.pi * share)) / 2.0
    return math.floor(steps * share) / steps
