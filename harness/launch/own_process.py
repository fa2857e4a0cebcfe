"""What a process of ours begins with: streams to print to, and large packages imported in parts.

`import harness` in somebody's notebook does neither.  Knows nothing of runs.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_MEANS = ("IMAGENET_DEFAULT_MEAN", "IMAGENET_INCEPTION_MEAN")
_STDS = ("IMAGENET_DEFAULT_STD", "IMAGENET_INCEPTION_STD")
_TIMM_REGISTRY = ("get_pretrained_cfg", "is_model")
#: What a run wants a few classes of; to import all that they have takes longer than torch itself.
#: Where their names are defined is their own business: what is not there is had of the package.
HEAVY: Mapping[str, Mapping[str, str]] = {
    "open_clip": {"tokenizer": "open_clip.tokenizer"},
    "timm": {"__version__": "timm.version"},
    "timm.data": dict.fromkeys((*_MEANS, *_STDS), "timm.data.constants"),
    "timm.models": {
        "create_model": "timm.models._factory",
        **dict.fromkeys(_TIMM_REGISTRY, "timm.models._registry"),
    },
    "timm.utils": {},
    "torchvision": {"__version__": "torchvision.version", "transforms": "torchvision.transforms"},
    "torchvision.models": {},
    "torchvision.ops": {},
}


def begin_process() -> None:
    """The first thing that a command, a worker or a supervisor does."""
    _open_streams()
    if not any(isinstance(finder, _PartsFinder) for finder in sys.meta_path):
        import_in_parts(HEAVY)


def _open_streams() -> None:
    """Make the standard streams safe to print to, at the start of a process.

    One that was closed leads nowhere, and a character that one lacks is written as its number.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number free: that of the stream
            os.set_inheritable(nowhere, True)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(nowhere, mode, closefd=False))  # noqa: SIM115
        elif name != "stdin" and getattr(stream, "errors", "") == "strict":
            stream.reconfigure(errors="backslashreplace")


def import_in_parts(packages: Mapping[str, Mapping[str, str]]) -> None:
    """From now on these packages run their `__init__` at the first look for a name of theirs.

    Their modules are imported as ever: who wants one class of a package that imports all it has,
    and all that this needs, writes `from package.module import Class` and waits for that module
    alone.  What was imported before stays as it is.

    Args:
        packages: package -> those of its names that do not make it run, with the modules that have
            them, or are them.  A name that its module lacks makes the package run.
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
_ABSENT = object()


class _Unrun(ModuleType):
    """A package that has not run.

    Until then it holds none of its modules: a name may be a module's and, once the package has
    run, that of a function.
    """

    def __getattr__(self, name: str) -> object:
        loader = self.__spec__ and self.__spec__.loader
        if not isinstance(loader, _LaterLoader) or (name[:2] == "__" and name not in _ASKED_OF_ALL):
            raise _lacks(self, name)
        if (found := self._at_home(loader.homes.get(name), name)) is not _ABSENT:
            return found
        with _RUN:
            if "_running" not in vars(self) and type(self) is _Unrun:
                self._run(loader)
        if name not in vars(self):
            raise _lacks(self, name)
        return vars(self)[name]

    def __setattr__(self, name: str, value: object) -> None:
        own = isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}"
        if not own or "_running" in vars(self):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        if type(self) is _Unrun:
            getattr(self, "__all__", None)  # runs it
        return sorted(vars(self))

    def _at_home(self, home: str | None, name: str) -> object:
        """The name by the module that should have it, or be it."""
        if home is None:
            return _ABSENT
        try:
            module = importlib.import_module(home)
        except ImportError:
            return _ABSENT
        return module if home == f"{self.__name__}.{name}" else getattr(module, name, _ABSENT)

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


def _lacks(module: ModuleType, name: str) -> AttributeError:
    return AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
