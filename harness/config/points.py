"""Points of a sweep: their algebra, plain values whatever Python handed over, and their labels.

Pure values of dotted fields; knows no configuration.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, overload

from harness.config.identity import canonical_json, integer
from harness.config.values import plain, read_text
from harness.errors import SweepError

Point = Mapping[str, Any]
"""Dotted field -> value: what one line of a table changes in the base."""


class Points(Sequence[Point]):
    """An ordered set of points; `a + b` concatenates, `a * b` crosses, doubles are dropped."""

    def __init__(self, points: Iterable[Point]) -> None:
        unique: dict[str, Point] = {}
        for point in points:
            made = plain_point(point)
            unique.setdefault(canonical_json(made), made)
        self._points = tuple(unique.values())

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> Points: ...
    def __getitem__(self, index: int | slice) -> Point | Points:
        return Points(self._points[index]) if isinstance(index, slice) else self._points[index]

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points)

    def __add__(self, other: Iterable[Point]) -> Points:
        return Points([*self, *other])

    def __mul__(self, other: Iterable[Point]) -> Points:
        """Every pair of a point here and one there; the right one wins a shared field."""
        return Points([{**a, **b} for a, b in itertools.product(self, list(other))])

    def exclude(self, when: Callable[[Point], bool]) -> Points:
        """The points for which `when` is false."""
        return Points([point for point in self if not when(point)])

    def __repr__(self) -> str:
        return f"Points({list(self._points)!r})"


def plain_point(point: Point) -> Point:
    """`point` with plain values; SweepError, naming the field, for what a run cannot hold."""
    if not isinstance(point, Mapping) or not all(isinstance(path, str) for path in point):
        raise SweepError(f"the point {point!r}: {{field: value, ...}} is wanted")
    return {path: _plain_value(path, value) for path, value in point.items()}


def _plain_value(path: str, value: Any) -> Any:
    made = plain(value)
    try:
        canonical_json(made)
    except (TypeError, ValueError):
        raise SweepError(
            f"{path} = {value!r} is no value that a run can hold; numbers, text, True, False, None "
            "and lists of them are"
        ) from None
    return made


def axis_values(axis: str, given: Iterable[Any]) -> list[Any]:
    """The values of an axis in their order; SweepError, naming it, where they have none."""
    ordered = not isinstance(given, (str, bytes, Mapping, Set))
    try:
        return [*(given if ordered else None)]  # type: ignore[misc]
    except TypeError:
        wanted = f"[{given!r}]" if not isinstance(given, (Mapping, Set)) else "[a, b]"
        raise SweepError(
            f"{axis} = {given!r}: a list of values is wanted, such as {wanted}"
        ) from None


def as_points(given: object) -> Points:
    """What a sweep is given as its points: `Points`, or a list of them; SweepError for others."""
    if isinstance(given, Points):
        return given
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping)):
        raise SweepError(
            f"points = {given!r}: a list of points is wanted, as product({{...}}) and "
            "points({...}, {...}) make it"
        )
    return Points(given)


def points(*given: Point) -> Points:
    """Points listed one by one."""
    return Points(given)


def product(axes: Mapping[str, Iterable[Any]]) -> Points:
    """Every combination of the values of `axes`, the last axis fastest."""
    names, values = list(axes), [axis_values(*axis) for axis in axes.items()]
    return Points([dict(zip(names, combo, strict=True)) for combo in itertools.product(*values)])


def zipped(axes: Mapping[str, Iterable[Any]]) -> Points:
    """The axes in step: the first values together, the second values together, and so on."""
    listed = {name: axis_values(name, values) for name, values in axes.items()}
    lengths = {name: len(values) for name, values in listed.items()}
    if len(set(lengths.values())) > 1:
        raise SweepError(f"zipped axes differ in length: {lengths}")
    return Points(
        [dict(zip(axes, combo, strict=True)) for combo in zip(*listed.values(), strict=True)]
    )


def one_at_a_time(baseline: Point, axes: Mapping[str, Iterable[Any]]) -> Points:
    """The baseline, then every point that differs from it in one axis."""
    unknown_axes = set(axes) - set(baseline)
    if unknown_axes:
        raise SweepError(f"the baseline gives no value for {', '.join(sorted(unknown_axes))}")
    changed = [
        {**baseline, n: value} for n, given in axes.items() for value in axis_values(n, given)
    ]
    return Points([baseline, *changed])


def whole_numbers(given: Iterable[int]) -> tuple[int, ...]:
    """Seeds, be they numpy's or written 1.0; SweepError for what is none."""
    try:
        return tuple(int(integer(plain(seed))) for seed in axis_values("seeds", given))  # type: ignore[call-overload]
    except ValueError:
        raise SweepError(f"seeds = {given!r}: whole numbers are wanted, as in range(3)") from None


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Dotted path -> the fewest trailing parts that tell it from the others."""
    paths = list(paths)
    names: dict[str, str] = {}
    for path in paths:
        parts = path.split(".")
        for take in range(1, len(parts) + 1):
            name = ".".join(parts[-take:])
            if sum(other == path or other.endswith("." + name) for other in paths) == 1:
                break
        names[path] = name
    return names


def label_of(point: Point, names: Mapping[str, str]) -> str:
    """`layers=4, a_max=0.2`; the base itself is called `base`."""
    return ", ".join(f"{names[path]}={_text(value)}" for path, value in point.items()) or "base"


def _text(value: object) -> str:
    """As short as it may be without being the text of another value."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return repr(value) if isinstance(value, str) and _is_no_word(value) else str(value)


def _is_no_word(text: str) -> bool:
    """Whether `text` would be read as a number, as nothing, or as true or false."""
    return bool(read_text(text, float | bool | None) != text)
