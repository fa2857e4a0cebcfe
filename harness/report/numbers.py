"""Numbers of a report in words: decimals, means with their interval, differences with theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable

from harness import metrics
from harness.document import text
from harness.results.comparisons import Comparison
from harness.results.summary import Cell
from harness.stats.intervals import Estimate

_MOST_DECIMALS = 4
_DECIMALS = {"%": 1, "M": 2, "GMACs": 3, "ms": 2}


def decimals_of(column: Iterable[Cell]) -> int:
    """Decimals that show the sign of every interval of the column that excludes zero.

    Of a unit that can be of any size, such as cosines, they show the spread too.
    """
    column = list(column)
    metric = column[0].metric
    estimates = [cell.estimate for cell in column if cell.estimate is not None]
    decimals = decimals_for(metric, [each.sd or abs(each.mean) for each in estimates])
    bounds = [
        abs(bound) * metrics.scale(metric)
        for cell in column
        if cell.comparison is not None and (interval := cell.comparison.interval) is not None
        if interval[0] > 0 or interval[1] < 0
        for bound in interval[:2]
    ]
    return decimals + 1 if any(bound < 0.5 * 10**-decimals for bound in bounds) else decimals


def decimals_for(metric: str, sizes: Iterable[float]) -> int:
    """Decimals of a metric by its unit; of one of any size, as many as `sizes`, as recorded, ask
    for."""
    known = _DECIMALS.get(metrics.unit(metric))
    most = max(sizes, default=0.0) * metrics.scale(metric)
    if known is not None or not most:
        return known or 2
    return min(_MOST_DECIMALS, max(2, 1 - math.floor(math.log10(most))))


def estimate_text(estimate: Estimate, metric: str, decimals: int) -> str:
    """`42.1 ± 0.8`, in the metric's unit; without an interval where there is one seed."""
    scale = metrics.scale(metric)
    mean = text.number(estimate.mean * scale, decimals)
    if estimate.half_width is None:
        return mean
    return f"{mean} \u00b1 {text.number(estimate.half_width * scale, decimals)}"


def difference_text(comparison: Comparison, decimals: int) -> str:
    """As `interval_text` of what was judged."""
    bounds = None if comparison.interval is None else comparison.interval[:2]
    return interval_text(comparison.mean, bounds, comparison.metric, decimals)


def interval_text(
    mean: float, bounds: tuple[float, float] | None, metric: str, decimals: int
) -> str:
    """`+1.2 [0.3, 2.1]`, in the metric's unit; without an interval where there is none."""
    scale = metrics.scale(metric)
    shown = text.number(mean * scale, decimals, sign=True)
    if bounds is None:
        return shown
    low, high = (text.number(bound * scale, decimals) for bound in bounds)
    return f"{shown} [{low}, {high}]"
