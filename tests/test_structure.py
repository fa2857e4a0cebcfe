"""The house stays small: few modules at the root, short files and functions, shallow folders."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import harness

ROOT = Path(harness.__file__).parent
MODULES_AT_THE_ROOT = 8
LINES_OF_A_DOOR = 12
LINES_OF_A_FILE = 450
LINES_OF_A_FUNCTION = 60
FLOORS = 8


@cache
def trees() -> dict[str, tuple[Path, ast.Module]]:
    """Module -> its file and its syntax."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = (file, ast.parse(file.read_text(encoding="utf-8")))
    return found


def lines_of(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of the harness that a module imports, wherever in it, types aside."""
    tree = trees()[module][1]
    for_types = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    return frozenset(
        name
        for node in ast.walk(tree)
        if id(node) not in for_types
        for name in _named(node)
        if name in trees() and name != module
    )


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in trees() else node.module


def longest_chain(folder: Path) -> list[str]:
    """The longest chain of imports among the modules of a folder."""
    inside = {name for name, (file, _) in trees().items() if folder in file.parents}

    found: dict[str, list[str]] = {}

    def below(module: str, above: tuple[str, ...] = ()) -> list[str]:
        assert module not in above, f"a circle of imports: {' -> '.join([*above, module])}"
        if module not in found:
            chains = [below(name, (*above, module)) for name in imports(module) & inside]
            found[module] = [module, *max(chains, key=len, default=[])]
        return found[module]

    return max((below(name) for name in inside), key=len)


def test_few_modules_at_the_root_beside_the_doors() -> None:
    files = [file for file in ROOT.glob("*.py") if lines_of(file) > LINES_OF_A_DOOR]
    assert len(files) <= MODULES_AT_THE_ROOT, sorted(file.name for file in files)


def test_no_file_is_longer_than_one_can_read_in_a_sitting() -> None:
    long = {name: lines_of(file) for name, (file, _) in trees().items()}
    assert {name: count for name, count in long.items() if count > LINES_OF_A_FILE} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{module}.{node.name}": int(node.end_lineno or 0) - node.lineno + 1
        for module, (_, tree) in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {name: count for name, count in long.items() if count > LINES_OF_A_FUNCTION} == {}


def test_no_class_name_is_defined_twice() -> None:
    where = defaultdict(list)
    for module, (_, tree) in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(module)
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}


def test_no_folder_has_more_than_eight_floors() -> None:
    folders = {file.parent for file, _ in trees().values()} - {ROOT}
    chains = {folder.relative_to(ROOT): longest_chain(folder) for folder in folders}
    assert {folder: chain for folder, chain in chains.items() if len(chain) > FLOORS} == {}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Of imports that run when a module is loaded; those in functions come later."""
    loaded = {
        name: imports(name) & {n for node in tree.body for n in _named(node) if n in trees()}
        for name, (_, tree) in trees().items()
    }
    assert list(TopologicalSorter(loaded).static_order())
