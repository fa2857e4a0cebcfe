"""How every figure looks, and how it becomes the same bytes each time.

Owns sizes (inches of a paper's text), colours that survive colour-blindness and a grey printer, and
the writers of PDF, SVG and PNG.  Knows nothing of what is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from harness.document import text

COLUMN, PAGE = 3.03, 5.5
"""The narrowest column, and the narrowest text, of the papers a figure may stand in, in inches."""
ROW = 1.9
"""Height of a row of panels, in inches."""
ACROSS = 3
"""Panels side by side."""
TALLEST = 8.6
"""Inches that a figure may be high, its caption below it on the page."""
DOTS_PER_INCH = 220
LETTERS, SMALL = 8, 7
"""Points of a figure's letters, and of the names and numbers within a panel."""
INK, FAINT, PALE = "#262626", "#767676", "#d4d4d4"
BETTER, WORSE, OPEN = "#0072b2", "#c24a00", "#767676"
"""Of a difference that is significant, by its direction, and of one that is not."""
ON_COLOURS = ("#111111", "#fefefe")
"""Of dark and of light letters on the colours of a map."""
MOST_PATHS = 400
"""Points or lines of a figure past which they are drawn as pixels within the vector picture."""
_ROUNDING = 1e-9
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")

_FAMILIES = ("DejaVu Sans", "Verdana", "Helvetica", "Arial")
"""The first is matplotlib's own, whose measures all places follow; no later one is wider."""
_RC: Any = {
    **sns.axes_style("ticks"),
    "font.family": "sans-serif",
    "font.sans-serif": _FAMILIES[:1],
    "font.size": LETTERS,
    "axes.labelsize": LETTERS,
    "axes.titlesize": LETTERS,
    "axes.titlelocation": "left",
    "axes.titlepad": 5,
    "xtick.labelsize": LETTERS,
    "ytick.labelsize": LETTERS,
    "legend.fontsize": LETTERS,
    "legend.title_fontsize": LETTERS,
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
    "axes.formatter.useoffset": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "harness",
    "pdf.fonttype": 42,
    "savefig.dpi": DOTS_PER_INCH,
}
#: What a picture for screens looks like in the dark, and the brightness that data has there.
_DARK = {
    "#ffffff": "#14181d",
    INK: "#e6e9ec",
    FAINT: "#9aa5b1",
    PALE: "#3c444d",
    "#e6e6e6": "#2b3138",
    "#000000": "#e6e9ec",
}
_BRIGHT = 0.22
_page_width: ContextVar[float] = ContextVar("_page_width", default=PAGE)


def _in_the_dark(colour: str) -> str:
    """The same hue, bright enough on a dark ground; letters on colours stay as they are."""
    if colour in _DARK or colour in ON_COLOURS:
        return _DARK.get(colour, colour)
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    while 0.2126 * parts[0] ** 2.2 + 0.7152 * parts[1] ** 2.2 + 0.0722 * parts[2] ** 2.2 < _BRIGHT:
        parts = [part + 0.05 * (1 - part) for part in parts]
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def shorten(words: str, letters: int) -> str:
    """`words` cut to `letters`, those that the figures' font lacks as code points: `U+4E2D`."""
    return text.shorten("".join(map(_legible, text.one_line(words))), letters)


def _legible(letter: str) -> str:
    return letter if ord(letter) in _known_letters() else f"U+{ord(letter):04X}"


@cache
def _known_letters() -> frozenset[int]:
    """The code points that the figures' font has."""
    return frozenset(get_font(findfont(_FAMILIES[0])).get_charmap())


@contextmanager
def house(width: float = PAGE) -> Iterator[None]:
    """The settings of every figure, whatever the user's own matplotlib settings are.

    Args:
        width: inches of the text of the paper that the figures are for.
    """
    token = _page_width.set(width)
    try:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_RC)
            yield
    finally:
        _page_width.reset(token)


def colours(count: int, *, ordered: bool) -> list[str]:
    """`count` colours: a dark-to-light ramp where order means something, else distinct hues."""
    if ordered and count > 1:
        ramp = sns.color_palette("viridis", 20).as_hex()
        return [ramp[index] for index in _spread(count, 16)]
    return list(sns.color_palette("colorblind", max(count, 1)).as_hex())


def _spread(count: int, top: int) -> list[int]:
    return [round(index * (top - 1) / (count - 1)) for index in range(count)]


def figure_of(height: float, *, wide: bool = True) -> Figure:
    """An empty figure as wide as the text or as a column, at most a page high."""
    width = _page_width.get() if wide else COLUMN
    return Figure(figsize=(width, min(height, TALLEST)), layout="constrained")


def panels(
    count: int, *, row_height: float = ROW, most: int = ACROSS, wide: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most `most` in a row; as wide as the text if several stand
    side by side, or if it is to be `wide`."""
    rows = -(-count // most)
    columns = -(-count // rows)
    figure = figure_of(row_height * rows, wide=wide or columns > 1)
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in grid[count:]:
        unused.set_axis_off()
    return figure, grid[:count]


def finish(axes: Sequence[Axes]) -> None:
    """Take away the spines that carry nothing, and write the ticks of logarithmic axes plainly."""
    for ax in axes:
        sns.despine(ax=ax)
        for axis in (ax.xaxis, ax.yaxis):
            if axis.get_scale() == "log" and not isinstance(axis.get_minor_locator(), NullLocator):
                _plain_log(axis)
            low, high = sorted(axis.get_view_interval())
            if axis.get_scale() == "linear" and high - low < _ROUNDING:  # of equal values
                axis.set_view_interval(low - 0.5, high + 0.5, ignore=True)


def _plain_log(axis: Axis) -> None:
    """Ticks as plain numbers: matplotlib's own are markup, which no text here is read as."""
    low, high = sorted(axis.get_view_interval())
    steps: Sequence[float] = (1.0, 2.0, 5.0) if high < 200 * low else (1.0,)
    if high < 4 * low:
        steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=list(steps), numticks=12))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def figure_files(figure: Figure) -> dict[str, bytes]:
    """Ending -> the figure in that format, fit for papers (PDF), pages (SVG) and anything else."""
    pdf = _pdf(figure)  # first, as it settles the layout
    return {"pdf": pdf, "svg": svg(figure), "png": png(figure)}


def settle(figure: Figure) -> Any:
    """Lay the figure out for good; returns what measures its texts."""
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    if not isinstance(figure.get_layout_engine(), PlaceHolderLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the slowest part of drawing
        for ax in figure.axes:
            _fit_titles(ax, renderer)
            _thin_out(ax, renderer)
    return renderer


def _thin_out(ax: Axes, renderer: Any) -> None:
    """Hide every other number below a panel where two of them touch."""
    room = ax.get_window_extent()
    boxes = {label: label.get_window_extent(renderer) for label in ax.get_xticklabels()}
    shown = [e for e, box in boxes.items() if box.x1 > room.x0 and box.x0 < room.x1 and box.width]
    if any(boxes[a].x1 + 1 > boxes[b].x0 for a, b in pairwise(shown) if not a.get_rotation()):
        for label in shown[1::2]:
            label.set_visible(False)


def _fit_titles(ax: Axes, renderer: Any) -> None:
    """Cut a title to its panel's width; what stands to the right of it goes where both have no
    room."""
    room = ax.get_window_extent().width
    left, right = ax.title if ax.get_title() else ax._left_title, ax._right_title  # type: ignore[attr-defined]
    words = left.get_text()
    lines = words.split("\n")
    for letters in range(max(map(len, lines)), 5, -1):
        left.set_text("\n".join(text.shorten(line, letters) for line in lines))
        if left.get_window_extent(renderer).width <= room + 2:
            break
    taken = left.get_window_extent(renderer).width if words else 0.0
    if right.get_text() and taken + right.get_window_extent(renderer).width + 6 > room:
        right.set_text("")


def _pdf(figure: Figure) -> bytes:
    """The figure as PDF with its fonts whole (type 42); no date, no version."""
    settle(figure)
    stream = io.BytesIO()
    canvas: Any = FigureCanvasPdf(figure)
    nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
    canvas.print_pdf(stream, metadata=nothing)
    return stream.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG in which text is text, dark where the reader's screen is; no date, no
    version."""
    settle(figure)
    stream = io.BytesIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(stream, metadata={"Date": None, "Creator": None})
    picture = stream.getvalue().decode()
    own = ", ".join(f"'{name}'" for name in _FAMILIES)
    picture = picture.replace("'DejaVu Sans', sans-serif", f"{own}, sans-serif")
    return picture.replace("<defs>", f"<style>{_dark_rules(picture)}</style>\n <defs>", 1).encode()


def _dark_rules(picture: str) -> str:
    """Style sheet that changes the colours of the picture where the screen is dark."""
    used = sorted(set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", picture)))
    rules = [
        f'[style*="{what}: {colour}"]{{{what}:{dark} !important}}'
        for what, colour in used
        if (dark := _in_the_dark(colour)) != colour
    ]
    rest = f'text:not([style*="fill"]){{fill:{_DARK["#000000"]}}}'
    return f"@media (prefers-color-scheme: dark){{{''.join([*rules, rest])}}}"


def png(figure: Figure) -> bytes:
    """The figure as PNG; no date, no version."""
    stream = io.BytesIO()
    figure.set_dpi(DOTS_PER_INCH)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(stream, metadata={"Software": None})
    FigureCanvasBase(figure)  # takes the place of the canvas, which keeps every pixel
    return stream.getvalue()
