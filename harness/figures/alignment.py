"""The figure of a text on a picture: each word's patches, and how like it every patch is.

Owns the drawing alone; what is matched, and how, is handed in.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from harness.figures import style

if TYPE_CHECKING:
    from harness.evaluate.alignment import Alignment, WordMatch

#: Distinct hues that survive colour-blindness; past them the number beside a word tells.
_HUES = 10
#: Words up to which their heat maps stand three in a row; more stand four in a row.
_FEW = 6
#: Share of a word's greatest weight from which a patch counts as matched; for soft matchings.
_SHARE = 0.5

# Inches.  Places are set by hand: a layout solver moves them in the last digit from one process to
# the next, and the SVG with them.
_MARGIN, _GAP = 0.08, 0.13
_PICTURE = 1.9
_TITLE = 0.34
"""Height of the two lines above a heat map."""
_LINE = 0.15
"""Height of a line of the text below the picture."""
_BAR, _BAR_WORDS = 0.09, 0.42
"""Height of the colour bar, and of its numbers and label."""
_LETTERS = 32
"""Letters of a line below the picture."""
_LETTER = 0.061
"""Width of a letter above a heat map."""


def draw_alignment(alignment: Alignment, text: str, about: str) -> Figure:
    """The picture with each word on its patches, the words with their cosines, a heat map each.

    Args:
        text: the caption, as it was given.
        about: a line on the run, below the caption.
    """
    words = alignment.words
    lines = [*textwrap.wrap(text, _LETTERS, max_lines=4, placeholder=" …"), ""]
    lines += textwrap.wrap(about, _LETTERS)
    columns = 3 if len(words) <= _FEW else 4
    side = (style.PAGE - _PICTURE - 2 * _MARGIN - columns * _GAP) / columns
    rows = -(-len(words) // columns)
    top_of_bar = _MARGIN + rows * (_TITLE + side + _GAP)
    height = max(
        top_of_bar + _BAR + _BAR_WORDS, _TITLE + _PICTURE + _LINE * (len(lines) + 1) + 2 * _MARGIN
    )
    figure = Figure(figsize=(style.PAGE, height))
    colours = list(islice(cycle(style.colours(_HUES, ordered=False)), len(words)))

    ax = _axes(figure, _MARGIN, _MARGIN + _TITLE, _PICTURE, _PICTURE)
    _draw_picture(ax, alignment, colours)
    below = 1 - (_MARGIN + _TITLE + _PICTURE + _LINE) / height
    figure.text(_MARGIN / style.PAGE, below, "\n".join(lines), va="top", color=style.INK)

    scale = _scale(words)
    for number, word in enumerate(words):
        row, column = divmod(number, columns)
        left = _MARGIN + _PICTURE + _GAP + column * (side + _GAP)
        top = _MARGIN + _TITLE + row * (_TITLE + side + _GAP)
        ax = _axes(figure, left, top, side, side)
        shown = _draw_map(ax, word, colours[number], scale)
        ax.set_title(_title(number, word, side), fontsize=style.SMALL, loc="left", pad=3)
    left = _MARGIN + _PICTURE + _GAP
    bar = _axes(figure, left, top_of_bar, 2 * (side + _GAP) - _GAP, _BAR)
    _draw_bar(figure, bar, shown)
    return figure


def matched(word: WordMatch) -> list[tuple[int, int]]:
    """Row and column of the patches that `word` is shown on, row by row."""
    most = float(word.weights.max())
    if most == 0:
        return []
    return [(int(r), int(c)) for r, c in np.argwhere(word.weights >= _SHARE * most)]


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes without ticks at a place in inches, measured from the upper left corner."""
    wide, high = figure.get_size_inches()
    ax = figure.add_axes(
        (left / wide, 1 - (top + height) / high, width / wide, height / high), xticks=[], yticks=[]
    )
    ax.grid(False)
    return ax


# --------------------------------------------------------------------------- the picture


def _draw_picture(ax: Axes, alignment: Alignment, colours: Sequence[str]) -> None:
    _show(ax, alignment.picture, alignment.grid)
    for line in range(1, alignment.grid):
        ax.axhline(line, color=style.FAINT, linewidth=0.4)
        ax.axvline(line, color=style.FAINT, linewidth=0.4)
    for (row, column), numbers in _by_patch(alignment.words).items():
        share = 1 / len(numbers)
        for place, number in enumerate(numbers):
            _mark(ax, (column + place * share, row), share, number, colours[number])


def _show(ax: Axes, values: np.ndarray, grid: int, **options: Any) -> AxesImage:
    """A picture in units of patches, row 0 on top, every pixel a plain square."""
    return ax.imshow(values, extent=(0, grid, grid, 0), interpolation="nearest", **options)


def _by_patch(words: Sequence[WordMatch]) -> dict[tuple[int, int], list[int]]:
    """Patch -> the words on it, by place in the text."""
    found: dict[tuple[int, int], list[int]] = {}
    for number, word in enumerate(words):
        for patch in matched(word):
            found.setdefault(patch, []).append(number)
    return found


def _mark(ax: Axes, corner: tuple[float, float], width: float, number: int, colour: str) -> None:
    """Tint, outline and number a patch, or the share of its width that one of its words has."""
    left, top = corner
    inset = 0.06 * width
    box = ((left + inset, top + 0.06), width - 2 * inset, 0.88)
    ax.add_patch(Rectangle(*box, facecolor=colour, alpha=0.25, linewidth=0))
    ax.add_patch(Rectangle(*box, fill=False, edgecolor=colour, linewidth=1.6))
    ax.text(
        left + width / 2,
        top + 0.5,
        str(number + 1),
        ha="center",
        va="center",
        fontsize=style.SMALL,
        color=style.INK,
        bbox={
            "boxstyle": "round,pad=0.15",
            "facecolor": "white",
            "edgecolor": colour,
            "linewidth": 0.8,
        },
    )


# --------------------------------------------------------------------------- the heat maps


def _scale(words: Sequence[WordMatch]) -> Normalize:
    values = [word.similarity for word in words]
    return Normalize(float(np.min(values)), float(np.max(values)))


def _draw_map(ax: Axes, word: WordMatch, colour: str, scale: Normalize) -> AxesImage:
    shown = _show(ax, word.similarity, len(word.similarity), cmap="cividis", norm=scale)
    for row, column in matched(word):
        # A dark line on a light one is seen on every colour of the scale.
        for colour_of_line, width in (("white", 2.4), (style.INK, 0.9)):
            box = ((column + 0.08, row + 0.08), 0.84, 0.84)
            line = Rectangle(*box, fill=False, edgecolor=colour_of_line, linewidth=width)
            ax.add_patch(line)
    for spine in ax.spines.values():
        spine.set(color=colour, linewidth=2.0)
    return shown


def _title(number: int, word: WordMatch, side: float) -> str:
    name = f"{number + 1} {word.text}"
    most = round(side / _LETTER)
    name = name if len(name) <= most else name[: most - 1] + "…"
    return f"{name}\n{_value(word)}{'' if word.known else ', unseen'}"


def _value(word: WordMatch) -> str:
    if word.cosine is None:
        return "unmatched"
    return f"{word.cosine:.2f}".replace("-", "\N{MINUS SIGN}")


def _draw_bar(figure: Figure, ax: Axes, shown: AxesImage) -> None:
    bar = figure.colorbar(shown, cax=ax, orientation="horizontal", ticks=MaxNLocator(5))
    bar.set_label("cosine of word and patch")
    ax.tick_params(length=2)
