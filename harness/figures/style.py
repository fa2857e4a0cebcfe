"""How every figure looks, and how it becomes the same bytes each time.

Owns sizes (inches of a two-column paper), colours that survive colour-blindness and a grey printer,
and the writers of SVG and PNG.  Knows nothing of what is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLUMN, PAGE = 3.35, 6.9
"""Width of one column and of a page of two, in inches."""
ROW = 2.15
"""Height of a row of panels, in inches."""
ACROSS = 3
"""Panels side by side."""
DOTS_PER_INCH = 220
INK, FAINT, PALE = "#262626", "#8a8a8a", "#d4d4d4"
MOST_PATHS = 400
"""Points or lines of a figure past which they are drawn as pixels within the vector picture."""
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")

_RC: Any = {
    **sns.axes_style("ticks"),
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.linewidth": 0.7,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.2,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "text.parse_math": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "harness",
    "savefig.dpi": DOTS_PER_INCH,
}


@contextmanager
def house() -> Iterator[None]:
    """The settings of every figure, whatever the user's own matplotlib settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def colours(count: int, *, ordered: bool) -> list[tuple[float, float, float]]:
    """`count` colours: a dark-to-light ramp where order means something, else distinct hues."""
    if ordered and count > 1:
        ramp = sns.color_palette("viridis", 20)
        return [ramp[index] for index in _spread(count, 18)]
    return list(sns.color_palette("colorblind", max(count, 1)))


def _spread(count: int, top: int) -> list[int]:
    return [round(index * (top - 1) / (count - 1)) for index in range(count)]


def panels(
    count: int, *, row_height: float = ROW, most: int = ACROSS, wide: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most `most` in a row; as wide as a page if several stand side
    by side, or if it is to be `wide`."""
    rows = -(-count // most)
    columns = -(-count // rows)
    width = PAGE if wide or columns > 1 else COLUMN
    figure = Figure(figsize=(width, row_height * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in grid[count:]:
        unused.set_axis_off()
    return figure, grid[:count]


def down(ax: Axes, names: Sequence[str], *, rows: int | None = None, **look: Any) -> None:
    """A row a name, from the top, with room for `rows`, and lines to read their numbers by."""
    ax.set_yticks(range(len(names)), names, **look)
    ax.set_ylim((rows or len(names)) - 0.4, -0.6)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")


def finish(axes: Sequence[Axes]) -> None:
    """Take away the spines that carry nothing."""
    for ax in axes:
        sns.despine(ax=ax)


def svg(figure: Figure) -> bytes:
    """The figure as SVG with outlined letters; no date, no version.

    The canvas writes by itself: `savefig` would draw everything once more, for the layout, which
    drawing settles anyway.
    """
    stream = io.BytesIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(stream, metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")  # settled by now, and the slowest part of drawing
    return stream.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as PNG; no date, no version."""
    stream = io.BytesIO()
    figure.set_dpi(DOTS_PER_INCH)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(stream, metadata={"Software": None})
    FigureCanvasBase(figure)  # takes the place of the canvas, which keeps every pixel
    return stream.getvalue()
