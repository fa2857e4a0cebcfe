"""Numbers and foreign text made safe for Markdown, LaTeX, HTML, Typst and CSV.

Labels, errors and paths are other people's words: each function here takes any text at all and
gives something that its format shows as that text.  Knows nothing of sweeps.
"""

from __future__ import annotations

import html as _html
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

MINUS, DASH = "\u2212", "\u2014"
#: What is markup anywhere, and what is markup only at the start of a line (lists, rules, headings,
#: tasks) or of a link's target.
_MARKDOWN = re.compile(
    r"[\\`*_|$~]|^#(?=[#\s]|$)|^[-+](?=\s|$)|^[-=](?=[-=\s]*$)|^\[|(?:(?<=^\d)|(?<=^\d\d))[.)](?=\s|$)"
    r"|\](?=[(\[:])"
)
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


def one_line(text: object) -> str:
    """`text` without line breaks, control and direction characters, and lone surrogates."""
    words = str(text)
    if words.isprintable():  # nothing of the kind is in it
        return " ".join(words.split())
    flat = "".join(" " if unicodedata.category(c) in {"Cc", "Zl", "Zp"} else c for c in words)
    seen = "".join(c for c in flat if unicodedata.category(c) not in {"Cf", "Cs"})
    return " ".join(seen.split())


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
    """`text` as LaTeX shows it without any package.

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


def typst(text: object) -> str:
    """`text` as a string literal of Typst, in which nothing is markup."""
    plain = typeset(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


def typeset(text: object) -> str:
    """`text` for the fonts that Typst carries: what they lack is written as its code point."""
    return "".join(c if _is_typeset(ord(c)) else f"U+{ord(c):04X}" for c in one_line(text))


def _is_typeset(point: int) -> bool:
    """Latin, Greek, Cyrillic; punctuation, arrows and signs."""
    return point < 0x0530 or 0x1E00 <= point < 0x2300 or 0x25A0 <= point < 0x2600


def csv_field(value: object) -> object:
    """`value` for a CSV cell: numbers in full, text that a spreadsheet might run made inert."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return value
    text = plain(value)
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def plain(value: object) -> str:
    """A value of an axis in words."""
    if isinstance(value, str) and value.isascii():
        return value
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={plain(item)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value))
    return str(value).encode("utf-8", errors="backslashreplace").decode()


def number(value: float, decimals: int, *, sign: bool = False) -> str:
    """`value` with a true minus sign, and never `-0.0`."""
    text = f"{abs(value):,.{decimals}f}"
    if not any(digit in text for digit in "123456789"):
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


def shorten(words: str, letters: int) -> str:
    """`words` on one line, cut to `letters` with an ellipsis: in the middle, for names of points
    often differ in their ends alone."""
    flat = one_line(words)
    if len(flat) <= letters:
        return flat
    end = (letters - 1) // 2
    return f"{flat[: letters - 1 - end]}\u2026{flat[len(flat) - end :]}"
