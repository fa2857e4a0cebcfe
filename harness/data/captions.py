"""What a text must be to count as a caption, and what the captions in a small file are.

One rule for shards, folders and test sets: a JSON record's own captions, else a line is a caption.
"""

from __future__ import annotations

import ast
import html
import json
import unicodedata
from collections.abc import Mapping, Sequence

from harness.errors import DataError

_FINAL_PUNCTUATION = ".,;:!?\N{HORIZONTAL ELLIPSIS}"
MAX_CAPTION = 10_000
"""Characters; a longer text is a mistake of the table (an unclosed quote), not a caption."""


def checked_caption(value: object) -> str:
    """The caption with its white space made single spaces; DataError says why it is none."""
    if not isinstance(value, str):
        raise DataError("caption is null" if value is None else "caption is not text")
    text = " ".join(value.split())
    if not text or _shows_nothing(text):
        raise DataError("empty caption")
    if len(text) > MAX_CAPTION:
        raise DataError(f"caption of more than {MAX_CAPTION} characters")
    if text.casefold() in {"nan", "none", "null"}:
        raise DataError(f"caption is the word {text!r}, which stands for no caption")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError("caption is not UTF-8")
    return text


def written_list(text: object) -> list[str] | None:
    """The captions of a cell that holds a list of texts, as JSON or Python write it; else None."""
    if not isinstance(text, str) or not (text.lstrip()[:1] == "[" and text.rstrip()[-1:] == "]"):
        return None
    if len(text) > MAX_LIST:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list) and found and all(isinstance(one, str) for one in found):
            return found
    return None


MAX_LIST = 100_000
"""Characters of a written list."""


def normalise_caption(text: str) -> str:
    """The form in which captions are compared: case, spacing and final punctuation removed."""
    folded = " ".join(text.casefold().split())
    return folded.rstrip(_FINAL_PUNCTUATION + " ") or folded


def _shows_nothing(text: str) -> bool:
    """Whether nothing is left once entities are characters, as the tokenizer will read it."""
    if text[0].isalnum() or len(text) > _LONGEST_BLANK:
        return False
    letters = html.unescape(html.unescape(text))
    return all(unicodedata.category(letter) in _INVISIBLE for letter in letters)


_INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
_LONGEST_BLANK = 200


def lines_of(text: str) -> list[str]:
    """The lines of a text, ended by a line feed, a carriage return and one, or that alone.

    No other character ends a line, so that none cuts a caption.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")
    return text.split("\n")


def sample_captions(
    record: str | None, text: str | None, names: Sequence[str] = ("captions", "caption")
) -> list[object]:
    """The captions of a picture, of its JSON record, its .txt file, or both; none is checked.

    The record's own (under the first of `names` that it has: a text or a list) win, for they are
    whole; else each line of the text is one.  DataError when neither holds any.
    """
    try:
        given = None if record is None else _in_record(record, names)
    except DataError:
        if text is None:
            raise
        given = None
    if given is not None and (text is None or any(isinstance(one, str) for one in given)):
        return given
    if text is None:
        raise DataError("no caption" if record is None else f'no "{names[-1]}" in its JSON')
    return [line for line in lines_of(text) if line.strip()] or [""]


def _in_record(record: str, names: Sequence[str]) -> list[object] | None:
    try:
        tree = json.loads(record)
    except (ValueError, RecursionError) as error:
        raise DataError(f"caption is not JSON: {error}") from error
    if not isinstance(tree, Mapping):
        return None
    name = next((name for name in names if name in tree), None)
    if name is None:
        return None
    return tree[name] if isinstance(tree[name], list) else [tree[name]]
