"""The code that was submitted is the code that runs, whatever becomes of the checkout meanwhile.

    <root>/results/code/<hash>/
        harness/        the package
        sweeps/         the sweep file
        beside/         modules of its own folder and of the working directory that it imported
        snapshot.json   commit and uncommitted changes of the checkout it was taken from

The folder is named by its content, so that a sweep submitted twice has one, and is never written
to again.  Jobs find it first on PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.config import sweep_files
from harness.files import write_json
from harness.store.provenance import SNAPSHOT, git_state
from harness.store.record import Store

_PACKAGE = Path(harness.__file__).parent


@dataclass(frozen=True)
class Frozen:
    """A snapshot, and the sweep file in it."""

    path: Path
    sweep: Path | None

    def environment(self) -> dict[str, str]:
        """What a process has in its environment to run this code.

        The working directory is not looked into, or it would come before the snapshot.
        """
        places = [str(self.path), str(self.path / "beside")]
        return {"PYTHONPATH": os.pathsep.join(places), "PYTHONSAFEPATH": "1"}


def freeze(store: Store, sweep: Path | None) -> Frozen:
    """A snapshot of the package as it is, and of the sweep file with the modules it imports.

    The sweep file has been loaded in this process.
    """
    contents = {name: file.read_bytes() for name, file in sorted(_files(sweep).items())}
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(name.encode() + b"\0" + content + b"\0")
    target = store.root / "results" / "code" / digest.hexdigest()[:12]
    inside = None if sweep is None else target / "sweeps" / sweep.name
    if not (target / SNAPSHOT).exists():
        _make(target, contents)
    return Frozen(target, inside)


def _files(sweep: Path | None) -> dict[str, Path]:
    """Name in the snapshot -> file."""
    found = {
        f"harness/{file.relative_to(_PACKAGE).as_posix()}": file
        for file in _PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    if sweep is not None:
        found[f"sweeps/{sweep.name}"] = sweep
    return {**found, **_beside(sweep)}


def _beside(sweep: Path | None) -> Mapping[str, Path]:
    folders = [Path.cwd(), *([] if sweep is None else [sweep.resolve().parent])]
    installed = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}
    found = {}
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        if file.suffix != ".py" or not any(map(file.is_relative_to, folders)):
            continue
        if name == "__main__" or name.startswith(f"{sweep_files.__name__}."):
            continue
        if file.is_relative_to(_PACKAGE) or any(file.is_relative_to(p) for p in installed):
            continue
        parts = name.split(".")
        inside = Path(*parts) / "__init__.py" if file.name == "__init__.py" else Path(*parts)
        found[f"beside/{inside.with_suffix('.py').as_posix()}"] = file
    return found


def _make(target: Path, contents: Mapping[str, bytes]) -> None:
    """Write beside the place and move there at once; of two who try, either one's will do."""
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    for name, content in contents.items():
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).write_bytes(content)
    write_json(draft / SNAPSHOT, dict(git_state()))
    try:
        os.replace(draft, target)
    except OSError:
        shutil.rmtree(draft)
        if not (target / SNAPSHOT).exists():
            raise
