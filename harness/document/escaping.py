"""Foreign text made safe for Markdown, LaTeX, HTML, Typst and CSV.

Each function takes any text at all and gives what its format shows as that very text.
"""

from __future__ import annotations

import csv
import html as _html
import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from harness.document.text import DASH, MINUS, one_line, plain, visible

if TYPE_CHECKING:
    import pandas as pd

#: What is markup anywhere, and what is markup only at the start of a line (lists, rules, headings,
#: tasks) or of a link's target.
_MARKDOWN = re.compile(
    r"[\\`*_|$~]|^#(?=[#\s]|$)|^[-+](?=\s|$)|^[-=](?=[-=\s]*$)|^\[|(?:(?<=^\d)|(?<=^\d\d))[.)](?=\s|$)"
    r"|\](?=[(\[:])"
)
_FORMULA = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    MINUS: "$-$",
    "\u00b1": r"$\pm$",
    "\u00d7": r"$\times$",
    "\u00b5": r"$\mu$",
    "\u0394": r"$\Delta$",
    "\u2192": r"$\rightarrow$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
    "\u2248": r"$\approx$",
    "\u2713": r"$\checkmark$",
    DASH: "---",
    "\u2013": "--",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u2026": r"\ldots{}",
    "\u00a0": "~",
}
#: Letters beyond ASCII that LaTeX sets with its default font encoding, whose inputs are UTF-8.
_LATEX_LETTERS = frozenset(map(chr, range(0x00C0, 0x0100))) - frozenset(
    "\u00d7\u00f7\u00d0\u00f0\u00de\u00fe"
)


def markdown(text: object) -> str:
    """`text` as Markdown shows it, in a paragraph, a list and a table's cell alike.

    Only what would mean something is escaped: nothing of `+1.2 [0.3, 2.1]`.
    """
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\g<0>", plain)


def markdown_code(text: object) -> str:
    """`text` as a code span that survives back-ticks and, in a table's cell, bars."""
    plain = one_line(text).replace("|", "\\|") or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def latex(text: object) -> str:
    """`text` as LaTeX shows it without any package; a check mark wants amssymb.

    A letter that LaTeX's own fonts lack is written as its code point, `U+4E2D`, because an unknown
    character would stop the paper from compiling.
    """
    return one_line(text).translate(_LATEX_OF)


class _Latex(dict[int, str]):
    """Code point -> what LaTeX is given for it, worked out when first met."""

    def __missing__(self, point: int) -> str:
        character = chr(point)
        known = character.isascii() or character in _LATEX_LETTERS
        found = _LATEX.get(character, character if known else rf"\texttt{{U+{point:04X}}}")
        return self.setdefault(point, found)


_LATEX_OF = _Latex()


def html(text: object) -> str:
    """`text` as HTML shows it, between tags and between quotation marks alike."""
    return _html.escape(one_line(text), quote=True)


def typst_string(text: object, *, lines: bool = False) -> str:
    """`text` as a string literal of Typst, in which nothing is markup.

    What the fonts lack that Typst carries is written as its code point.

    Args:
        lines: keep line breaks and indentation.
    """
    if lines:
        rows = [(row, row[: len(row) - len(row.lstrip())]) for row in str(text).splitlines()]
        return '"' + "\\n".join(before + typst_string(row)[1:-1] for row, before in rows) + '"'
    shown = "".join(c if _is_typeset(ord(c)) else f"U+{ord(c):04X}" for c in one_line(text))
    quoted = shown.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def _is_typeset(point: int) -> bool:
    """Latin, Greek, Cyrillic; punctuation, arrows and signs; the check mark."""
    return point < 0x0530 or 0x1E00 <= point < 0x2300 or 0x25A0 <= point < 0x2600 or point == 0x2713


def csv_field(value: object) -> object:
    """`value` for a CSV cell: numbers in full, text that a spreadsheet might run made inert.

    Text that begins, after spaces, with one of = + - @, their full-width forms, a tab or a line
    break has an apostrophe before it; controls are shown as `visible` shows them.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return value
    text = plain(value)
    inert = "'" + text if text.lstrip(" \xa0").startswith(_FORMULA) else text
    return "\r".join(map(visible, inert.split("\r")))  # a line break, as \n is


def csv_given(text: str) -> str:
    """The text of a cell that `csv_field` made inert."""
    rest = text[1:]
    return rest if text[:1] == "'" and rest.lstrip(" \xa0").startswith(_FORMULA) else text


def frame_csv(frame: pd.DataFrame) -> str:
    """A frame by `csv_text`, a row a row; truth as pandas writes it."""
    rows = frame.itertuples(index=False, name=None)
    told = ([str(cell) if isinstance(cell, bool) else cell for cell in row] for row in rows)
    return csv_text(list(frame.columns), told)


#: What a writer of CSV writes as `csv_field` does, but for NaN.
_AS_IS = (int, float, type(None))


class _Lines(list[str]):
    """Takes the rows of a writer that puts a cell with either kind of line break into quotes."""

    END = "\r\n"

    def write(self, row: str) -> None:
        self.append(row.removesuffix(self.END))


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as RFC 4180 text with `\\n` line ends; `csv_field` says what becomes of text."""
    lines = _Lines()
    writer = csv.writer(lines, lineterminator=_Lines.END)
    writer.writerow([csv_field(head) for head in heads])
    words = cache(csv_field)  # the same stand in very many rows
    writer.writerows(
        [
            f if type(f) in _AS_IS and f == f else words(f) if type(f) is str else csv_field(f)
            for f in row
        ]
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)
