"""The papers that a table or a figure may stand in, and how wide words are in their letters.

Computer Modern is wider than Times, which most of these papers are set in, so what fits by these
widths fits in either.
"""

from __future__ import annotations

from dataclasses import dataclass

POINTS = 72.27
"""TeX's points in an inch."""


@dataclass(frozen=True)
class PaperLayout:
    """Widths of a paper in inches."""

    name: str
    text: float
    """Of the text, margin to margin."""
    column: float
    """Of one of its columns."""


LAYOUTS = {
    layout.name: layout
    for layout in (
        PaperLayout("neurips", 5.5, 5.5),
        PaperLayout("icml", 6.75, 3.25),
        PaperLayout("cvpr", 6.875, 3.28),
        PaperLayout("acl", 6.3, 3.03),
    )
}
NARROWEST = min(LAYOUTS.values(), key=lambda layout: layout.text).name

#: Thousandths of the letters' size that a character of cmr10 takes.
_WIDTHS = {
    278: "ijl.,:;'!|`[]",
    334: "f-\u00a0 ",
    394: "Irst()",
    445: "cez",
    501: "ago0123456789*/?~^_\u2013\\",
    556: "bdhknpquvxyJS",
    681: "EFLPZ",
    778: "ABCDGHKNOQRTUVXYw&@$+=<>\u2212\u00b1\u00d7",
    834: "m%#\u0394\u2713",
    1028: "MW\u2014\u2026\u2192\u2264\u2265\u2248\u00b5\u2018\u2019\u201c\u201d",
}
_WIDTH_OF = {letter: width for width, letters in _WIDTHS.items() for letter in letters}
_OTHER, _CODE_POINT = 834, 3400
"""Of a letter with an accent, and of one that is written as its code point: U+4E2D."""


def ems(words: str) -> float:
    """Width of `words` as multiples of the letters' size, rather too wide than too narrow."""
    return sum(map(_width_of, words)) / 1000


def _width_of(letter: str) -> int:
    return _WIDTH_OF.get(letter, _OTHER if letter <= "\u00ff" else _CODE_POINT)
