"""Names for the parts a sweep may choose by name, each added by one decorated function.

Knows nothing of what is registered; a name that is not there is answered with the nearest.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from harness.errors import ConfigError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of named parts of one kind ("backbone", "data source", "loss term").

    Args:
        package: its modules register parts of this kind; they are imported at the first look.

    Attributes:
        check: raises ConfigError for what cannot be a part of this kind or cannot be called so.
    """

    def __init__(self, kind: str, package: str | None = None) -> None:
        self.kind = kind
        self._parts: dict[str, T] = {}
        self._package, self._home = package, f"{package}."
        self.check: Callable[[str, T], None] = lambda name, part: None

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a part under `name`; a second part of one name is refused."""

        def add(part: T) -> T:
            if not self._is_own(part):  # a module of the package may be the first that is imported
                self._import()
            self.check(name, part)
            before = self._parts.get(name)
            if before is not None and _place(before) != _place(part):
                raise ConfigError(f"{self.kind} {name!r} is registered twice")
            self._parts[name] = part
            return part

        return add

    def get(self, name: str) -> T:
        """The part called `name`; raises ConfigError naming the nearest."""
        if name not in self:
            raise ConfigError(unknown(self.kind, name, self._parts))
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        self._import()
        return name in self._parts

    def parts(self) -> Iterator[T]:
        """Every part: those of the package by the names of their modules, then the others; of one
        module in the order in which they were registered."""
        self._import()
        own = [part for part in self._parts.values() if self._is_own(part)]
        others = [part for part in self._parts.values() if not self._is_own(part)]
        return iter([*sorted(own, key=_module), *others])

    def unsorted(self) -> tuple[T, ...]:
        """Every part, quickly: a key for what is made of all of them."""
        self._import()
        return tuple(self._parts.values())

    def __iter__(self) -> Iterator[str]:
        self._import()
        return iter(sorted(self._parts))

    def _is_own(self, part: T) -> bool:
        return _module(part).startswith(self._home)

    def _import(self) -> None:
        package, self._package = self._package, None
        if package is not None:
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                importlib.import_module(f"{package}.{module.name}")


def _module(part: object) -> str:
    return str(getattr(part, "__module__", None) or type(part).__module__)


def _place(part: object) -> tuple[object, object]:
    """Where a part is defined: a sweep file that is loaded again defines the same part anew."""
    return getattr(part, "__module__", None), getattr(part, "__qualname__", type(part).__qualname__)


def lazy(module: str, **homes: str) -> Callable[[str], object]:
    """The `__getattr__` of a module that hands out names of others, imported when asked for.

    Args:
        homes: name -> the module that has it.
    """

    def attribute(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return attribute
