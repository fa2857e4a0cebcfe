"""Names for the parts a sweep may choose by name, each added by one decorated function.

Knows nothing of what is registered; a name that is not there is answered with the nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from harness.errors import ConfigError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of named parts of one kind ("backbone", "data source", "loss term")."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a part under `name`; a second part of one name is refused."""

        def add(part: T) -> T:
            before = self._parts.get(name)
            if before is not None and _place(before) != _place(part):
                raise ConfigError(f"{self.kind} {name!r} is registered twice")
            self._parts[name] = part
            return part

        return add

    def get(self, name: str) -> T:
        """The part called `name`; raises ConfigError naming the nearest."""
        if name not in self._parts:
            raise ConfigError(unknown(self.kind, name, self._parts))
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def parts(self) -> Iterator[T]:
        """Every part, in the order in which they were registered."""
        return iter(self._parts.values())

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))


def _place(part: object) -> tuple[object, object]:
    """Where a part is defined: a sweep file that is loaded again defines the same part anew."""
    return getattr(part, "__module__", None), getattr(part, "__qualname__", type(part).__qualname__)
