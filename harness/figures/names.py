"""Names within a panel: beside their points, or at the ends of their lines, none over another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from harness.figures import style

#: Names that are tried, of those that matter most.
_MOST = 80
#: Letters of a name beside a point.
_LETTERS = 28
#: Points of space around a mark and between a mark and its name.
_MARK, _GAP = 3.0, 3.5
#: Points between the middles of two names at the ends of lines.
_STEP = 8.5
#: How much of a name lies before the side of it that stands at a place.
_BEFORE = {"left": 0.0, "bottom": 0.0, "center": 0.5, "right": 1.0, "top": 1.0}
#: Shares of the way along a stretch at which a line is looked for under a name.
_ALONG = np.linspace(0.0, 1.0, 24)


_Boxes = NDArray[np.float64]
"""Corners in pixels, (N, 4) or (N, 2)."""
_Shift = tuple[float, float, str, str]
"""Points to the right and up, and which side of the name stands there."""


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
    places = np.asarray(ax.transData.transform([(n.x, n.y) for n in names])).reshape(-1, 2)
    reach = _MARK * inch
    taken = np.hstack([places - reach, places + reach])
    path = _along(ax, lines)
    written = []
    for place, name in enumerate(names[:_MOST]):
        label = _annotate(ax, name)
        others = np.delete(taken, place, axis=0)
        chosen = _best_place(label, renderer, ax, others, path)
        if chosen is None:
            label.remove()
            continue
        _move(label, chosen[0])
        taken = np.vstack([taken, chosen[1]])
        written.append(name)
    return written


def _best_place(
    label: Any, renderer: Any, ax: Axes, taken: _Boxes, path: _Boxes
) -> tuple[_Shift, _Boxes] | None:
    """Where the name covers nothing taken and as little of the line as may be, and its box."""
    best: tuple[int, _Shift, _Boxes] | None = None
    room = ax.get_window_extent()
    for shift, box in _boxes(label, renderer):
        if not _is_inside(room, box) or _overlaps(box, taken):
            continue
        within = (path >= (box.x0, box.y0)) & (path <= (box.x1, box.y1))
        crossed = int(within.all(axis=1).sum())
        if best is None or crossed < best[0]:
            best = crossed, shift, np.array(box.extents)
        if not crossed:
            break
    return None if best is None else best[1:]


def _boxes(label: Any, renderer: Any) -> Iterator[tuple[_Shift, Bbox]]:
    """Each place of the name with the box that it then fills; it is measured once."""
    own = label.get_window_extent(renderer)  # to the right of its point, and above it
    inch = float(label.figure.dpi) / 72
    for shift in _shifts():
        right, up, side, edge = shift
        x = own.x0 + right * inch - own.width * _BEFORE[side]
        y = own.y0 + up * inch - own.height * _BEFORE[edge]
        yield shift, Bbox.from_bounds(x, y, own.width, own.height)


def _move(label: Any, shift: _Shift) -> None:
    label.xyann = shift[:2]
    label.set(ha=shift[2], va=shift[3])


def _overlaps(box: Bbox, taken: _Boxes) -> bool:
    left, low, right, high = taken.T
    apart = (right <= box.x0) | (left >= box.x1) | (high <= box.y0) | (low >= box.y1)
    return not bool(apart.all())


def _annotate(ax: Axes, name: Name) -> Any:
    return ax.annotate(
        style.shorten(name.text, _LETTERS),
        (name.x, name.y),
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=style.SMALL,
        color=name.colour,
        zorder=5,
        ha="left",
        va="bottom",
    )


def _shifts() -> Iterator[_Shift]:
    """Where a name may stand beside its point, the best place first."""
    for gap in (_GAP, 2.5 * _GAP):
        yield from ((gap, 0.6 * gap, "left", "bottom"), (-gap, 0.6 * gap, "right", "bottom"))
        yield from ((gap, -0.6 * gap, "left", "top"), (-gap, -0.6 * gap, "right", "top"))
        yield from ((0, 1.3 * gap, "center", "bottom"), (0, -1.3 * gap, "center", "top"))
        yield from ((1.4 * gap, 0, "left", "center"), (-1.4 * gap, 0, "right", "center"))


def _is_inside(room: Bbox, box: Bbox) -> bool:
    wide = room.x0 <= box.x0 and box.x1 <= room.x1
    return bool(wide and room.y0 <= box.y0 and box.y1 <= room.y1 + 2 * _GAP)


def _along(ax: Axes, corners: Sequence[tuple[float, float]]) -> _Boxes:
    """Places in pixels along the line through `corners`, (N, 2)."""
    if len(corners) < 2:
        return np.empty((0, 2))
    at = ax.transData.transform(corners)
    return np.concatenate([a + np.outer(_ALONG, b - a) for a, b in pairwise(at)])


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
