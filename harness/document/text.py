"""Words of a page, before any format: plain text with a minimum of markup, and values in words.

Text is other people's (labels, errors, paths) and never markup; what is set apart is an `Inline`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

MINUS, DASH = "\u2212", "\u2014"
Style = Literal["strong", "code", "superscript", "subscript", "link"]


@dataclass(frozen=True, slots=True)
class Inline:
    """Words set apart from those around them."""

    text: str
    style: Style
    href: str = ""
    """Of a link: an address, or a file relative to the page, in which the ending `.*` is that of
    the page itself."""


Text = str | tuple[str | Inline, ...]


def strong(text: object) -> Inline:
    """Words that stand out."""
    return Inline(str(text), "strong")


def code(text: object) -> Inline:
    """A key, a path, a name in a program."""
    return Inline(str(text), "code")


def link(text: str, href: str) -> Inline:
    """Words that lead to `href`; see `Inline.href`."""
    return Inline(text, "link", href)


def write(text: Text, plain: Callable[[str], str], apart: Callable[[Inline], str]) -> str:
    """`text` in a format, given how it writes plain words and words set apart."""
    if isinstance(text, str):
        return plain(text)
    return "".join(
        apart(piece) if isinstance(piece, Inline) else _spaced(piece, plain) for piece in text
    ).strip()


def _spaced(words: str, plain: Callable[[str], str]) -> str:
    """`words` with the space at either end, which sets them off from what stands beside them."""
    within = words.strip()
    before, after = (" " * (words != kept) for kept in (words.lstrip(), words.rstrip()))
    return f"{before}{plain(within)}{after}" if within else before


def flat(text: Text) -> str:
    """The letters of `text` alone."""
    return write(text, str, lambda inline: inline.text)


# --------------------------------------------------------------------------- values in words


def one_line(text: object) -> str:
    """`text` without line breaks, control and direction characters, and lone surrogates."""
    words = str(text)
    if words.isprintable():  # nothing of the kind is in it
        return " ".join(words.split())
    spaced = "".join(" " if unicodedata.category(c) in {"Cc", "Zl", "Zp"} else c for c in words)
    seen = "".join(c for c in spaced if unicodedata.category(c) not in {"Cf", "Cs"})
    return " ".join(seen.split())


_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
    "\U000e0000-\U000e007f]"
)
"""Controls, escapes, and what turns the direction of a line or hides in it."""


def visible_line(text: object) -> str:
    """`text` as one line, what `visible` writes and line breaks and tabs as `\\x0a`."""
    return re.sub("[\t\n]", lambda found: _escaped(ord(found[0])), visible(str(text)))


def visible(text: str) -> str:
    """`text` with what steers a terminal, or the direction of a line, written as `\\x1b`."""
    return _STEERING.sub(lambda found: _escaped(ord(found[0])), text)


def _escaped(point: int) -> str:
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"


class VisibleStream:
    """A text stream that shows what a terminal would obey; see `visible`."""

    def __init__(self, raw: IO[str]) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Write `text` as letters that can be seen; the number of those given."""
        self.raw.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


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


def encodable(value: object) -> object:
    """`value`, of a text its lone surrogates as `\\ud800`: pandas takes none."""
    return plain(value) if isinstance(value, str) else value


def number(value: float, decimals: int, *, sign: bool = False) -> str:
    """`value` with a true minus sign, and never `-0.0`."""
    text = f"{abs(value):,.{decimals}f}"
    if not any(digit in text for digit in "123456789"):
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


def shorten(words: str, letters: int) -> str:
    """`words` on one line, cut to `letters` with an ellipsis: in the middle, for names of points
    often differ in their ends alone."""
    whole = one_line(words)
    if len(whole) <= letters:
        return whole
    end = (letters - 1) // 2
    return f"{whole[: letters - 1 - end]}\u2026{whole[len(whole) - end :]}"
