"""Sweep files: found by name, and imported as modules that any process can import again.

A loaded file is the module `harness.config.sweep_files.<stem>_<hash of its path>`: two files of one
stem are two modules, and what a file defines can be pickled to a spawned process, which finds it on
`sys.path`, where the file's folder is put for the modules beside it.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import harness
from harness.config import override
from harness.config.pipes import allow_pipes
from harness.config.sweep import Sweep, SweepFile
from harness.errors import ConfigError, HarnessError, SweepError, refuse_controls, unknown
from harness.files import is_sealed, read_regular, seal

__path__: list[str] = []
"""What lets a module have others below it; where they are is for `_Finder` to say."""

_PACKAGE = Path(harness.__file__).parent
_SHIPPED = (_PACKAGE.parent / "sweeps", _PACKAGE / "_sweeps")
"""Where they lie in a checkout, and in what is installed of it."""
MAX_SOURCE_BYTES = 16 << 20
_HINT = "--sweep PATH names it"
_named: dict[str, Path] = {}
"""The sweep files that this process was told to load."""
_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    HarnessError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a mistake in a sweep file comes to; told in a line with its place."""


def shipped_sweeps() -> dict[str, Path]:
    """Name -> file of every sweep at hand: `./sweeps` first, then those of the package."""
    found: dict[str, Path] = {}
    for folder in (Path("sweeps"), *_SHIPPED):
        for file in sorted(folder.glob("*.py")) if folder.is_dir() else []:
            if not file.name.startswith("_"):
                found.setdefault(file.stem, file)
    return found


def question_of(file: Path) -> str:
    """First line of the docstring of a sweep file, read without running it."""
    try:
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, ValueError):
        return "(cannot be read)"
    return text.strip().partition("\n")[0]


def find_sweep(name: str) -> Path:
    """The file of a sweep given by name or path; SweepError names the nearest."""
    if name.endswith(".py") or "/" in name:
        file = Path(name)
        if not file.is_file():
            raise SweepError(f"no sweep file at {name}")
        return file
    known = shipped_sweeps()
    if name not in known:
        raise SweepError(unknown("sweep", name, known))
    return known[name]


def load_sweep(name: str) -> Sweep:
    """Import a sweep file anew and return its SWEEP, named after the file.

    Raises:
        SweepError: there is no such file, it cannot be imported, or it defines no sweep.
    """
    file = find_sweep(name)
    refuse_controls("the sweep file", str(file.resolve()))
    sweep = getattr(_import(file), "SWEEP", None)
    if not isinstance(sweep, Sweep):
        raise SweepError(f"{file} defines no SWEEP = Sweep(...)")
    text = file.read_bytes()
    source = SweepFile(str(file.resolve()), hashlib.sha256(text).hexdigest())
    name_sweep_file(file)
    allow_pipes(_data_paths(sweep))
    return replace(
        sweep,
        base=override(sweep.base, {}),  # which knows every term that the file registers
        name=file.stem,
        question=question_of(file),
        source=replace(source, seal=seal(source.told)),
        lines=_lines_of_texts(text),
    )


def name_sweep_file(file: Path) -> None:
    """Take `file` for one of the caller's own, to be imported when a record wants it."""
    _named[str(file.resolve())] = file.resolve()


def _data_paths(sweep: Sweep) -> Iterator[object]:
    """Every value that the sweep may give to `data.path`."""
    yield sweep.base.data.path
    yield from (point.get("data.path") for point in sweep.points)
    if sweep.search is not None:
        yield from getattr(sweep.search.space.get("data.path"), "options", ())


def _lines_of_texts(source: bytes) -> dict[str, int]:
    """Each text in a sweep file -> the line where it first stands."""
    texts = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    found = sorted((node.lineno, node.value) for node in texts if isinstance(node.value, str))
    return {text: line for line, text in reversed(found)}


def load_recorded(source: SweepFile | None, wants: str) -> None:
    """Import the sweep file of a record, if it is the caller's own; see `own_file`.

    Args:
        wants: who wants it and why, ahead of what is wrong.

    Raises:
        ConfigError: the file is not on record, gone, changed, or somebody else's.
        SweepError: it cannot be imported.
    """
    if source is None:
        raise ConfigError(f"{wants} that is not on record; {_HINT}")
    file = own_file(source)
    if file is None:
        raise ConfigError(f"{wants}: {_why_not(source)}")
    load_sweep(str(file))
    print(f"parts of {file} are in use", file=sys.stderr)


def own_file(source: SweepFile) -> Path | None:
    """The sweep file of a record, if the caller has it as it was.

    That is one that this process was told to load, the recorded path if the record bears the
    caller's seal, or one in ./sweeps or of the package; each with the recorded content.  A path
    for which a record alone speaks is not opened.
    """
    places = [*_named.values(), *([Path(source.path)] if _is_own(source) else []), *_own_sweeps()]
    return next((file for file in places if _sha256_of(file) == source.sha256), None)


def _is_own(source: SweepFile) -> bool:
    return is_sealed(source.told, source.seal)


def _own_sweeps() -> Iterator[Path]:
    for folder in (Path("sweeps"), *_SHIPPED):
        yield from sorted(folder.rglob("*.py"))


def _sha256_of(file: Path) -> str:
    try:
        return hashlib.sha256(read_regular(file, MAX_SOURCE_BYTES)).hexdigest()
    except OSError:
        return ""


def _why_not(source: SweepFile) -> str:
    was = source.sha256[:12]
    if not _is_own(source):
        return (
            f"the record names {source.path} (SHA-256 {was}), and a file is not imported on the "
            f"word of a record: look into it first; {_HINT}"
        )
    try:
        found = hashlib.sha256(read_regular(Path(source.path), MAX_SOURCE_BYTES)).hexdigest()
    except OSError as error:
        return f"{source.path} cannot be read ({error.strerror or error}); {_HINT}"
    return (
        f"{source.path} has changed since (SHA-256 {found[:12]}, was {was}); {_HINT}, or it as it "
        "is now"
    )


# --------------------------------------------------------------------------- a file as a module


def _import(file: Path) -> ModuleType:
    folder, name = str(file.resolve().parent), module_name(file)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = _spec(name, file)
    before = sys.modules.get(name)
    sys.modules[name] = module = module_from_spec(spec)
    assert spec.loader is not None  # that of a Python file
    try:
        spec.loader.exec_module(module)
    except _BROKEN as error:
        sys.modules.pop(name) if before is None else sys.modules.update({name: before})
        kind = "" if isinstance(error, HarnessError) else f"{type(error).__name__}: "
        raise SweepError(f"{file}{_line_in(file, error)}: {kind}{error}") from error
    return module


def module_name(file: Path) -> str:
    """What the module of a sweep file is called, in every process of this machine."""
    path = str(file.resolve())
    stem = re.sub(r"\W", "_", file.stem)
    return f"{__name__}.{stem}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def _spec(name: str, file: Path) -> ModuleSpec:
    spec = spec_from_file_location(name, file.resolve())
    if spec is None:
        raise SweepError(f"{file} is not a Python file")
    return spec


class _Finder(MetaPathFinder):
    """Finds the file of a module that was named by `module_name`, in a process that lacks it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of a sweep file in a folder of `sys.path`."""
        if not fullname.startswith(f"{__name__}."):
            return None
        files = (file for folder in sys.path for file in Path(folder).glob("*.py"))
        return next((_spec(fullname, f) for f in files if module_name(f) == fullname), None)


sys.meta_path.append(_Finder())


def _line_in(file: Path, error: BaseException) -> str:
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file.resolve()):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f":{line}" if line else ""
