"""The code that was submitted is the code that runs, whatever becomes of the checkout meanwhile.

    <root>/results/code/<hash>/
        harness/        the package
        sweeps/         the sweep file
        beside/         modules of its own folder and of the working directory that it imported
        snapshot.json   commit and uncommitted changes of the checkout it was taken from

The folder is named by its content, so that a sweep submitted twice has one, and is never written
to again.  Jobs find it first on PYTHONPATH, after they have looked whether it is as it was frozen
and nobody else could change it; see frozen_check.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.config import sweep_files
from harness.errors import HarnessError
from harness.files import beside, drop_leftovers, telling_no_space, write_json
from harness.launch.slurm.frozen_check import digest_of, fault_of
from harness.store.provenance import SNAPSHOT, git_state
from harness.store.record import Store

_PACKAGE = Path(harness.__file__).parent


@dataclass(frozen=True)
class Frozen:
    """A snapshot, the sweep file in it, and the SHA-256 of its contents."""

    path: Path
    sweep: Path | None
    sha256: str

    def environment(self) -> dict[str, str]:
        """What a process has in its environment to run this code.

        The working directory is not looked into, or it would come before the snapshot.
        """
        places = [str(self.path), str(self.path / "beside")]
        return {
            "PYTHONPATH": os.pathsep.join(places),
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # or the folder would change as it is used
        }


def freeze(store: Store, sweep: Path | None) -> Frozen:
    """A snapshot of the package as it is, and of the sweep file with the modules it imports.

    The sweep file has been loaded in this process.
    """
    contents = {name: file.read_bytes() for name, file in _files(sweep).items()}
    sha256 = digest_of(contents)
    target = _own_place(store, sha256, contents)
    return Frozen(target, None if sweep is None else target / "sweeps" / sweep.name, sha256)


def size_of_code() -> int:
    """Bytes of the package, as it would be frozen."""
    return sum(file.stat().st_size for file in _files(None).values())


def _own_place(store: Store, sha256: str, contents: Mapping[str, bytes]) -> Path:
    """The folder of the snapshot, made unless it is there; where it is not sound, another."""
    name, faults = sha256[:12], []
    for target in (store.root / "results" / "code" / n for n in (name, f"{name}-{os.getuid()}")):
        if not (target / SNAPSHOT).exists():
            _make(target, contents)
        fault = fault_of(str(target), sha256)
        if not fault:
            return target
        faults.append(fault)
    raise HarnessError(f"no code can be frozen: {'; '.join(faults)}; move it away")


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
    drop_leftovers(target.parent)
    draft = beside(target)
    try:
        with telling_no_space(target):
            for name, content in contents.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                (draft / name).write_bytes(content)
        write_json(draft / SNAPSHOT, dict(git_state()))
        for path in [draft, *draft.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o022)
        os.replace(draft, target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not (target / SNAPSHOT).exists():
            raise OSError(error.errno, error.strerror, error.filename or str(target)) from error
