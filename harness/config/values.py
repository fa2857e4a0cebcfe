"""Values as people give them: what Python code hands over, and text read by a declared type.

A sweep file may hold numpy's numbers, paths and members of enumerations; a command line holds text.
Both become the plain values that a configuration is made of.  Knows numbers and types and no field.
"""

from __future__ import annotations

import ast
import enum
import json
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from harness.errors import ConfigError

_PLAIN = {str, int, float, bool, type(None)}
_NOTHING = ("null", "none")
_YES_NO = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def plain(value: Any) -> Any:
    """`value` as plain Python: numbers and arrays of numpy, paths and enumerations replaced.

    A number of less than double precision is what it is printed as: `float32(0.1)` is 0.1.
    What is plain already, or is not known here, comes back as it is.
    """
    if type(value) in _PLAIN or isinstance(value, BaseModel):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(plain, value))
    if isinstance(value, list):
        return list(map(plain, value))
    if isinstance(value, range):
        return list(value)
    if callable(getattr(value, "tolist", None)):  # numpy's, pandas' and torch's
        return _from_array(value)
    return value


def _from_array(value: Any) -> Any:
    if getattr(value, "ndim", 1):
        return [plain(item) for item in value]
    single = value.tolist()
    is_numpy = type(value).__module__ == "numpy"
    return float(str(value)) if is_numpy and isinstance(single, float) else plain(single)


def divisors_near(number: int, wanted: int, *, least: int = 1) -> list[int]:
    """The divisors of `number`, of at least `least`, next to `wanted`: below and above it."""
    divisors = [d for d in range(least, number + 1) if number % d == 0]
    below, above = [d for d in divisors if d <= wanted], [d for d in divisors if d > wanted]
    return [*below[-1:], *above[:1]]


def at_path(tree: Mapping[str, Any], path: str) -> Any:
    """What stands at a dotted path of plain values; KeyError where nothing does."""
    return reduce(getitem, path.split("."), tree)


# --------------------------------------------------------------------------- what a type takes


def alternatives(annotation: Any) -> list[Any]:
    """The types that `annotation` allows, NoneType among them; nested annotations are kept."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        return [one for part in get_args(annotation) for one in alternatives(part)]
    return [annotation]


def choices(annotation: Any) -> list[Any]:
    """The values of the Literal types in `annotation`; none for any other."""
    literal = [one for one in alternatives(annotation) if get_origin(one) is Literal]
    return [value for one in literal for value in get_args(one)]


def in_words(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """`integer from 1 to 48 or null`: what may be given, as a list of fields says it."""
    bounds = _bounds([*metadata, *_metadata(annotation)])
    parts = [_word(one, bounds) for one in alternatives(annotation)]
    return " or ".join(parts)


def _word(one: Any, bounds: str) -> str:
    if one is type(None):
        return "null"
    if get_origin(one) is Literal:
        return " | ".join(map(str, get_args(one)))
    if get_origin(one) is tuple:
        items = get_args(one)
        if items[-1] is Ellipsis:
            return f"list of {in_words(items[0])}"
        return f"{len(items)} of {in_words(items[0])}"
    if isinstance(one, type) and issubclass(one, BaseModel):
        return "{" + ", ".join(one.model_fields) + "}"
    names = {int: "integer", float: "number", str: "text", bool: "true | false"}
    return names.get(one, getattr(one, "__name__", str(one))) + bounds


def _metadata(annotation: Any) -> list[Any]:
    """What Annotated says of a type or of the one alternative to null."""
    if get_origin(annotation) is Annotated:
        inner, *said = get_args(annotation)
        flat = [item for one in said for item in (one, *getattr(one, "metadata", ()))]
        return [*flat, *_metadata(inner)]
    if get_origin(annotation) in {Union, types.UnionType}:
        return [item for part in get_args(annotation) for item in _metadata(part)]
    return []


def _bounds(metadata: Sequence[Any]) -> str:
    found = {
        name: getattr(item, name)
        for item in metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(item, name, None) is not None
    }
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    return "".join(f" {words[name]} {found[name]:,g}" for name in words if name in found)


# --------------------------------------------------------------------------- text


class Unwritten(str):
    """A number that stood in a list: its digits, which may be meant as text."""


def read_text(text: str, annotation: Any) -> Any:
    """`text` from a command line as a value of the declared type.

    Numbers are written as in Python (`.001`, `5.e-4`, `60_000`), nothing as `null` or `None`, lists
    as JSON, as in Python, or as what stands between commas.  Digits are text where text is wanted.

    Raises:
        ConfigError: it is no such value; the line says what is wanted, and how a list is written.
    """
    kinds = alternatives(annotation)
    if type(None) in kinds and text.strip().casefold() in _NOTHING:
        return None
    kinds = [kind for kind in kinds if kind is not type(None)]
    named = {str(value): value for value in choices(annotation)}
    if (name := text.strip().strip('"')) in named:
        return named[name]
    if any(get_origin(kind) is tuple for kind in kinds):
        return _read_list(text, next(kind for kind in kinds if get_origin(kind) is tuple))
    return _read_tree(_json(text) if text.lstrip()[:1] in {'"', "{"} else Unwritten(text), kinds[0])


def _read_list(text: str, kind: Any) -> list[Any]:
    """What a tuple is made of: `[0.5, 1]`, `(0.5, 1)`, `0.5,1` or a single item."""
    items = _items(text.strip())
    declared = get_args(kind)
    each = [declared[0]] * len(items) if declared[-1] is Ellipsis else [*declared]
    if len(each) != len(items):
        wanted = ",".join(["..."] * len(each))
        raise ConfigError(
            f"{len(each)} values are wanted, written {wanted}, and here are {len(items)}"
        )
    return [_read_tree(item, one) for item, one in zip(items, each, strict=True)]


def _items(text: str) -> list[Any]:
    if text[:1] in {"[", "("}:
        found = _json(text)
        if found is text:
            found = _python(text)
        if isinstance(found, (list, tuple)):
            return list(found)
        if text[-1:] in {"]", ")"}:  # [test, val] as a shell leaves it
            text = text[1:-1]
    found = _json(text) if text[:1] in {'"', "{"} else text
    if found is not text:
        return [found]
    return [Unwritten(part.strip()) for part in text.split(",") if part.strip()]


def _json(text: str) -> Any:
    """JSON with the digits of its numbers as they were written; `text` itself if it is none."""
    try:
        return json.loads(
            text, parse_int=Unwritten, parse_float=Unwritten, parse_constant=no_constant
        )
    except json.JSONDecodeError:
        return text


def _python(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text


def no_constant(name: str) -> object:
    """Raise ConfigError for NaN and Infinity, which JSON takes and a configuration does not."""
    raise ConfigError(f"{name} is not a value a configuration can hold")


def _read_tree(value: Any, annotation: Any) -> Any:
    """A value of `_json` by its type; what cannot be told stays, for the validation to judge."""
    kinds = alternatives(annotation)
    if isinstance(value, Unwritten) or (isinstance(value, str) and str not in kinds):
        return _read_word(str(value), kinds)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and str in kinds:
        return str(value)
    if isinstance(value, dict) and issubclass(kinds[0], BaseModel):
        fields = kinds[0].model_fields
        return {
            k: _read_tree(v, fields[k].annotation) if k in fields else v for k, v in value.items()
        }
    if isinstance(value, (list, tuple)) and get_origin(kinds[0]) is tuple:
        item = get_args(kinds[0])[0]
        return [_read_tree(one, item) for one in value]
    return value


def _read_word(text: str, kinds: Sequence[Any]) -> Any:
    if type(None) in kinds and text.strip().casefold() in _NOTHING:
        return None
    for kind in kinds:
        named = {str(value): value for value in choices(kind)}
        if text.strip() in named:
            return named[text.strip()]
    if str in kinds:
        return text
    if bool in kinds:
        return _YES_NO.get(text.strip().casefold(), text)
    if int in kinds or float in kinds:
        return _number(text, int in kinds)
    return text


def _number(text: str, whole: bool) -> int | float | str:
    """The number that `text` writes; `text` if it writes none."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        no_constant(text.strip())
    return int(number) if whole and number.is_integer() else number
