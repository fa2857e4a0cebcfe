"""Names within a panel: beside their points, or at the ends of their lines, none over another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from harness.figures import style

#: Letters of a name beside a point.
_LETTERS = 28
#: Points of space around a mark and between a mark and its name.
_MARK, _GAP = 3.0, 3.5
#: Points between the middles of two names at the ends of lines.
_STEP = 8.5
#: Shares of the way along a stretch at which a line is looked for under a name.
_ALONG = np.linspace(0.0, 1.0, 24)


@dataclass(frozen=True)
class Name:
    """A name of something at a place of a panel, in the panel's own units."""

    text: str
    x: float
    y: float
    colour: str = style.INK


def name_points(
    ax: Axes, names: Sequence[Name], lines: Sequence[tuple[float, float]] = ()
) -> list[Name]:
    """Write each name beside its point if there is room; returns those that were written.

    Lays the figure out for good, so the panel must be otherwise complete.

    Args:
        names: those that matter most first.
        lines: corners of a line that names should rather not cross.
    """
    figure: Any = ax.figure
    renderer = style.settle(figure)
    inch = float(figure.dpi) / 72  # of a point
    places: Any = ax.transData.transform([(name.x, name.y) for name in names]) if names else []
    taken = [_around(place, _MARK * inch) for place in places]
    marks = list(taken)
    path = _along(ax, lines)
    written = []
    for name, own in zip(names, marks, strict=True):
        label = _annotate(ax, name)
        chosen = None
        for shift in _shifts():
            label.xyann, ha, va = (shift[0], shift[1]), shift[2], shift[3]
            label.set(ha=ha, va=va)
            box = label.get_window_extent(renderer)
            if not _is_inside(ax, box) or any(box.overlaps(o) for o in taken if o is not own):
                continue
            crossed = sum(box.contains(x, y) for x, y in path)
            if chosen is None or crossed < chosen[0]:
                chosen = (crossed, shift, box)
            if not crossed:
                break
        if chosen is None:
            label.remove()
            continue
        label.xyann = chosen[1][:2]
        label.set(ha=chosen[1][2], va=chosen[1][3])
        taken.append(chosen[2])
        written.append(name)
    return written


def _annotate(ax: Axes, name: Name) -> Any:
    return ax.annotate(
        style.shorten(name.text, _LETTERS),
        (name.x, name.y),
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=style.SMALL,
        color=name.colour,
        zorder=5,
    )


def _shifts() -> Iterator[tuple[float, float, str, str]]:
    """Where a name may stand beside its point, the best place first."""
    for gap in (_GAP, 2.5 * _GAP):
        yield from ((gap, 0.6 * gap, "left", "bottom"), (-gap, 0.6 * gap, "right", "bottom"))
        yield from ((gap, -0.6 * gap, "left", "top"), (-gap, -0.6 * gap, "right", "top"))
        yield from ((0, 1.3 * gap, "center", "bottom"), (0, -1.3 * gap, "center", "top"))
        yield from ((1.4 * gap, 0, "left", "center"), (-1.4 * gap, 0, "right", "center"))


def _around(place: Any, reach: float) -> Bbox:
    x, y = place
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def _is_inside(ax: Axes, box: Bbox) -> bool:
    room = ax.get_window_extent()
    wide = room.x0 <= box.x0 and box.x1 <= room.x1
    return bool(wide and room.y0 <= box.y0 and box.y1 <= room.y1 + 2 * _GAP)


def _along(ax: Axes, corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places in pixels along the line through `corners`."""
    if len(corners) < 2:
        return []
    at = ax.transData.transform(corners)
    stretches = [a + np.outer(_ALONG, b - a) for a, b in pairwise(at)]
    return [(float(x), float(y)) for x, y in np.concatenate(stretches)]


def name_line_ends(ax: Axes, names: Sequence[Name]) -> None:
    """Write each name to the right of the panel, at the height of its line's end.

    Lays the figure out for good, so the panel must be otherwise complete.
    """
    labels = [
        ax.annotate(
            style.shorten(name.text, _LETTERS),
            (1.0, name.y),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=style.SMALL,
            color=name.colour,
            annotation_clip=False,
        )
        for name in names
    ]
    figure: Any = ax.figure
    style.settle(figure)
    inch = float(figure.dpi) / 72
    room = ax.get_window_extent()
    heights = [float(ax.transData.transform((name.x, name.y))[1]) / inch for name in names]
    apart = spread(heights, _STEP, room.y0 / inch, room.y1 / inch)
    for label, own, found in zip(labels, heights, apart, strict=True):
        label.xyann = (4, found - own)


def spread(heights: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """`heights` moved as little as needed to stand `step` apart between `low` and `high`."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    moved = [min(max(heights[index], low), high) for index in order]
    for place in range(1, len(moved)):
        moved[place] = max(moved[place], moved[place - 1] + step)
    over = moved[-1] - high if moved else 0.0
    for place in range(len(moved) - 1, -1, -1):
        limit = high if place == len(moved) - 1 else moved[place + 1] - step
        moved[place] = min(moved[place], limit) if over > 0 else moved[place]
    found = [0.0] * len(heights)
    for index, height in zip(order, moved, strict=True):
        found[index] = height
    return found
