"""Names for the parts a sweep may choose by name, each added by one decorated function.

Knows nothing of what is registered; a name that is not there is answered with the nearest.  Names
of other modules, and of packages that import much, are had when they are asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
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
            raise _lacks(module, name)
        return getattr(importlib.import_module(homes[name]), name)

    return attribute


def _lacks(module: str, name: str) -> AttributeError:
    return AttributeError(f"module {module!r} has no attribute {name!r}")


_MEANS = ("IMAGENET_DEFAULT_MEAN", "IMAGENET_INCEPTION_MEAN")
_STDS = ("IMAGENET_DEFAULT_STD", "IMAGENET_INCEPTION_STD")
#: What a run wants a few classes of; to import all that they have takes longer than torch itself.
HEAVY: Mapping[str, Mapping[str, str]] = {
    "open_clip": {},
    "timm": {"__version__": "timm.version"},
    "timm.data": dict.fromkeys((*_MEANS, *_STDS), "timm.data.constants"),
    "timm.models": {},
    "timm.utils": {},
    "torchvision": {"__version__": "torchvision.version", "transforms": "torchvision.transforms"},
    "torchvision.models": {},
    "torchvision.ops": {},
}


def import_in_parts(packages: Mapping[str, Mapping[str, str]]) -> None:
    """From now on these packages run their `__init__` at the first look for a name of theirs.

    Their modules are imported as ever: who wants one class of a package that imports all it has,
    and all that this needs, writes `from package.module import Class` and waits for that module
    alone.  What was imported before stays as it is.

    Args:
        packages: package -> those of its names that do not make it run, with the modules that have
            them, or are them.
    """
    sys.meta_path.insert(0, _PartsFinder(packages))


class _PartsFinder:
    """See `import_in_parts`."""

    def __init__(self, packages: Mapping[str, Mapping[str, str]]) -> None:
        self._packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The usual one, with a loader that puts off running it."""
        if name not in self._packages:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _LaterLoader(spec.loader.name, spec.loader.path)
            spec.loader.homes = self._packages[name]
        return spec


class _LaterLoader(SourceFileLoader):
    homes: Mapping[str, str]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Unrun(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing yet: see `_Unrun`."""


_RUN = threading.RLock()
_ASKED_OF_ALL = ("__version__", "__all__")


class _Unrun(ModuleType):
    """A package that has not run.

    Until then it holds none of its modules: a name may be a module's and, once the package has
    run, that of a function.
    """

    def __getattr__(self, name: str) -> object:
        loader = self.__spec__ and self.__spec__.loader
        if not isinstance(loader, _LaterLoader) or (name[:2] == "__" and name not in _ASKED_OF_ALL):
            raise _lacks(self.__name__, name)
        if (home := loader.homes.get(name)) is not None:
            module = importlib.import_module(home)
            return module if home == f"{self.__name__}.{name}" else getattr(module, name)
        with _RUN:
            if "_running" not in vars(self) and type(self) is _Unrun:
                self._run(loader)
        if name not in vars(self):
            raise _lacks(self.__name__, name)
        return vars(self)[name]

    def __setattr__(self, name: str, value: object) -> None:
        own = isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}"
        if not own or "_running" in vars(self):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        if type(self) is _Unrun:
            getattr(self, "__all__", None)  # runs it
        return sorted(vars(self))

    def _run(self, loader: _LaterLoader) -> None:
        own = f"{self.__name__}."
        self._running = True
        try:
            for name, module in list(sys.modules.items()):
                if name.startswith(own) and "." not in (child := name.removeprefix(own)):
                    setattr(self, child, module)
            SourceFileLoader.exec_module(loader, self)
            self.__class__ = ModuleType  # type: ignore[assignment]
        finally:
            del self._running
