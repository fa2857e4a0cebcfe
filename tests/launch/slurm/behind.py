"""A file system that several machines share, as one of them knows it that is seconds behind."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest


class Behind:
    """This machine knows what was below `root` when this was made, and of a folder no more than
    that until it changes the folder itself: NFS without `noac`.

    What is written through `elsewhere` is another machine's.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._known = {place: {*folders, *files} for place, folders, files in os.walk(root)}
        self._elsewhere = 0
        scandir = os.scandir
        for name in ("stat", "lstat", "listdir", "open"):
            monkeypatch.setattr(os, name, self._reading(getattr(os, name)))
        for name in ("mkdir", "unlink", "rmdir", "replace", "rename", "link"):
            monkeypatch.setattr(os, name, self._changing(getattr(os, name)))
        reading = self._reading(io.open)
        monkeypatch.setattr(io, "open", reading)
        monkeypatch.setattr(builtins, "open", reading)

        def listed(path: Any = ".") -> Any:
            known = self._known.get(os.path.abspath(path)) if not self._elsewhere else None
            if known is None:
                return scandir(path)
            with scandir(path) as found:
                return nullcontext(iter([entry for entry in found if entry.name in known]))

        monkeypatch.setattr(os, "scandir", listed)

    def elsewhere(self, act: Callable[[], Any]) -> Any:
        """Have another machine do something."""
        self._elsewhere += 1
        try:
            return act()
        finally:
            self._elsewhere -= 1

    def _is_hidden(self, path: Any) -> bool:
        if self._elsewhere or not isinstance(path, (str, os.PathLike)):
            return False
        folder, name = os.path.split(os.path.abspath(path))
        known = self._known.get(folder)
        return (known is not None and name not in known) or (
            folder != "/" and self._is_hidden(folder)
        )

    def _reading(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def read(path: Any, *how: Any, **more: Any) -> Any:
            mode = more.get("mode", how[0] if how else "")
            creates = set(mode) & set("wxa") if isinstance(mode, str) else mode & os.O_CREAT
            if creates:
                self._changed(path)
            if self._is_hidden(path):
                raise FileNotFoundError(2, "No such file or directory, as far as is known", path)
            return real(path, *how, **more)

        return read

    def _changing(self, real: Callable[..., None]) -> Callable[..., None]:
        def change(*paths: Any, **more: Any) -> None:
            for path in paths:
                self._changed(path)
            real(*paths, **more)

        return change

    def _changed(self, path: Any) -> None:
        if not self._elsewhere and isinstance(path, (str, os.PathLike)):
            self._known.pop(os.path.dirname(os.path.abspath(path)), None)
