"""Where the time of a run went: data wait, forward, backward, rest of the steps, evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from harness.document.escaping import csv_text
from harness.document.text import shorten
from harness.figures import style
from harness.figures.base import SWEEP, Drawing, Sheet
from harness.results.collect import PointRow

_PARTS = (
    "waiting for data",
    "forward and loss",
    "backward",
    "rest of the steps",
    "evaluation",
)
_MOST = 40
_LETTERS = 40


@SWEEP.register("time", place=110)
def time_spent(sheet: Sheet) -> Drawing | None:
    """A bar a point, mean seconds of its finished runs; None without a finished run."""
    collection = sheet.collection
    found: dict[int, tuple[PointRow, list[dict[str, float]]]] = {}
    for row in collection.points:
        runs = [
            parts_of(record.training)
            for record in collection.of_point(row.index)
            if record.reason is None
        ]
        known = [parts for parts in runs if parts is not None]
        if known:
            found[row.index] = (row, known)
    if not found:
        return None
    slowest = sorted(found.values(), key=lambda f: -sum(_means(f[1]).values()))[:_MOST]
    shown = sorted(slowest, key=lambda f: f[0].index)
    parts = [name for name in _PARTS if any(name in run for _, runs in shown for run in runs)]
    longest = max(len(row.label) for row, _ in shown)
    width = style.COLUMN if longest <= 24 else style.PAGE
    figure = Figure(figsize=(width, 0.85 + 0.16 * len(shown)), layout="constrained")
    ax = figure.subplots()
    palette = dict(zip(_PARTS, style.colours(len(_PARTS), ordered=False), strict=True))
    starts = [0.0] * len(shown)
    for name in parts:
        widths = [_means(runs).get(name, 0.0) for _, runs in shown]
        ax.barh(range(len(shown)), widths, left=starts, height=0.7, color=palette[name], label=name)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    style.down(ax, [shorten(row.label, _LETTERS) for row, _ in shown])
    ax.set_xlabel("seconds a run")
    figure.legend(loc="outside upper center", ncols=3 if width == style.COLUMN else 5, fontsize=6)
    style.finish([ax])
    words = "Where the time went: mean seconds over the finished runs of each point."
    if len(shown) < len(found):
        words += f" The {len(shown)} slowest of {len(found)}."
    return Drawing(words, figure, _data(list(found.values())))


def parts_of(training: Mapping[str, Any]) -> dict[str, float] | None:
    """Seconds of each part of a run that its record tells; None where it tells nothing.

    The parts add up to the training and evaluation time recorded: what no timer saw is the rest.
    """
    total, share = training.get("seconds"), training.get("data_wait")
    if total is None or share is None:
        return None
    parts = {"waiting for data": total * share}
    timed = training.get("parts") or {}
    for name, kept in (("forward and loss", "forward"), ("backward", "backward")):
        if kept in timed:
            parts[name] = timed[kept]
    parts["rest of the steps"] = max(0.0, total - sum(parts.values()))
    if training.get("evaluation_seconds") is not None:
        parts["evaluation"] = training["evaluation_seconds"]
    return parts


def _means(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of the parts that every run tells."""
    names = [name for name in _PARTS if all(name in run for run in runs)]
    return {name: sum(run[name] for run in runs) / len(runs) for name in names}


def _data(found: Sequence[tuple[PointRow, Sequence[Mapping[str, float]]]]) -> str:
    rows = [
        [row.label, len(runs), name, seconds]
        for row, runs in found
        for name, seconds in _means(runs).items()
    ]
    return csv_text(["label", "runs", "part", "seconds"], rows)
