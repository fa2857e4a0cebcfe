"""Fields by their dotted paths, sections of registered parts included: what each is declared as
and means, what else people call it, and validation."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import (
    BaseModel,
    ValidationError,
    create_model,
)

from harness.config.values import alternatives
from harness.errors import ConfigError, nearest
from harness.registry import Registry

if TYPE_CHECKING:
    from harness.objectives.terms import Term


M = TypeVar("M", bound=BaseModel)

TERMS: Registry[type[Term]] = Registry("loss term", package="harness.objectives")
"""Name -> class of every term of the loss; a sweep file may register its own."""


@cache
def reader_of(sections: tuple[tuple[str, type[BaseModel]], ...]) -> type[BaseModel]:
    """A model with a field a section, which says where in which section a value is wrong."""
    fields: dict[str, Any] = {name: (section, section()) for name, section in sections}
    return create_model("Sections", **fields)


# --------------------------------------------------------------------------- data


SOURCES: Registry[Any] = Registry("data source", package="harness.data.sources")
"""Name -> where a data set comes from: a class (`harness.data.source.Source`) whose options are
the section of `data` that has its name, or a function of `data` and the cache folder for one
without any.  A sweep file may register its own."""


def tree_of(section: object) -> object:
    """A section as plain values; its class may have been defined anew since."""
    return section.model_dump() if isinstance(section, BaseModel) else section


# --------------------------------------------------------------------------- paths


@dataclass(frozen=True)
class DeclaredField:
    """A field that holds a value of its own: the class that declares it, and its name there."""

    owner: type[BaseModel]
    name: str

    @property
    def annotation(self) -> Any:
        """Its type, as it is declared."""
        return self.owner.model_fields[self.name].annotation

    @property
    def metadata(self) -> list[Any]:
        """What bounds its value, as pydantic keeps it."""
        return self.owner.model_fields[self.name].metadata

    @property
    def meaning(self) -> str:
        """Its docstring in one line, without what others call it; empty if it has none."""
        return _ELSEWHERE.sub("", _docstring(self)).strip()

    @property
    def aliases(self) -> list[str]:
        """What it is called elsewhere: the names that end its docstring after `Elsewhere:`."""
        found = _ELSEWHERE.search(_docstring(self))
        return [] if found is None else found[1].replace(" ", "").split(",")


_ELSEWHERE = re.compile(r"\s*Elsewhere: ([\w, ]+)\.$")


def declared_fields(model: type[BaseModel]) -> Mapping[str, DeclaredField]:
    """Dotted path -> declaration of every field of `model` that holds a value, as of now."""
    return _declared_fields(model, (*TERMS.unsorted(), *SOURCES.unsorted()))


def field_paths(model: type[BaseModel]) -> tuple[str, ...]:
    """Every dotted path of a field of `model` that holds a value of its own, as of now."""
    return tuple(declared_fields(model))


@cache
def _declared_fields(model: type[BaseModel], parts: tuple[Any, ...]) -> dict[str, DeclaredField]:
    found: dict[str, DeclaredField] = {}
    for name, annotation in _members(model).items():
        inner = _section_of(annotation)
        if inner is None:
            found[name] = DeclaredField(model, name)
        else:
            below = _declared_fields(inner, parts)
            found |= {f"{name}.{path}": field for path, field in below.items()}
    return found


def _members(model: type[BaseModel]) -> dict[str, Any]:
    """Name -> annotation of each field, and of the sections of what is registered."""
    fields = {name: field.annotation for name, field in model.model_fields.items()}
    sections = getattr(model, "sections", dict)
    return {**fields, **sections()}


def _section_of(annotation: object) -> type[BaseModel] | None:
    for one in alternatives(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _docstring(field: DeclaredField) -> str:
    for owner in field.owner.__mro__:
        text = _docstrings(owner).get(field.name)
        if text is not None:
            return " ".join(text.split())
    return ""


@cache
def _docstrings(owner: type) -> dict[str, str]:
    """Name -> docstring of each field that a class declares with one, read from its source."""
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    except (OSError, TypeError, SyntaxError, ValueError):  # made without a file, or in a block
        return {}
    assert isinstance(body, ast.ClassDef)
    return {
        before.target.id: str(after.value.value)
        for before, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


# --------------------------------------------------------------------------- names


def unknown_field(given: str, fields: Mapping[str, DeclaredField]) -> str:
    """One line that says `given` is none of `fields` (path -> field), and which was meant."""
    called = _called(given, fields)
    here = _deepest_section(given, fields)
    synonyms = dict.fromkeys(here + path.rpartition(".")[2] for path in called)
    meant = [path for path in synonyms if here and path in fields]
    meant = meant or [path for path in called if path.endswith(f".{given}")] or called
    if len(meant) == 1 and meant[0].rpartition(".")[2] != given.rpartition(".")[2]:
        meaning = re.split(r"(?<!`)[.;:](?: |$)", fields[meant[0]].meaning)[0]
        return f"unknown field {given!r}; here it is {meant[0]}: {meaning}"
    close = [*_nearest_below(here, given, fields)]
    close += _nearest_below(f"{given.partition('.')[0]}.", given, fields)
    close = close or [*nearest(given, meant), *meant] or nearest(given, fields)
    return (
        f"unknown field {given!r}; nearest: {', '.join([*dict.fromkeys(close)][:3])}; "
        f"python -m harness.fields lists all {len(fields)}"
    )


def _deepest_section(given: str, fields: Iterable[str]) -> str:
    """The longest beginning of `given` that is a section of `fields`, its dot included."""
    names = given.split(".")[:-1]
    beginnings = (".".join(names[:n]) + "." for n in range(len(names), 0, -1))
    return next((each for each in beginnings if any(p.startswith(each) for p in fields)), "")


def _nearest_below(section: str, given: str, fields: Iterable[str]) -> list[str]:
    own = [path.removeprefix(section) for path in fields if section and path.startswith(section)]
    return [section + path for path in nearest(given.removeprefix(section), own)]


def _called(given: str, fields: Mapping[str, DeclaredField]) -> list[str]:
    """The paths whose last name or alias is the last name of `given`, dashes and case aside."""
    wanted = _folded(given.rpartition(".")[2])
    return [
        path
        for path, field in fields.items()
        if wanted and wanted in map(_folded, [path.rpartition(".")[2], *field.aliases])
    ]


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.casefold())


# --------------------------------------------------------------------------- validation


def validate(
    model: type[M], tree: object, *, given: Mapping[str, object] = {}, prefix: str = ""
) -> M:
    """`model` from plain values; a ValidationError becomes one ConfigError line.

    Args:
        given: path -> value as it was given, where `tree` no longer tells.
        prefix: what stands before the names of all fields where they are written.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = _problems(model, error, given, prefix)
        raise ConfigError("; ".join(problems)) from None


def _problems(
    model: type[BaseModel], error: ValidationError, given: Mapping[str, object], prefix: str
) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            fields = {f"{prefix}{p}": field for p, field in declared_fields(model).items()}
            yield unknown_field(f"{prefix}{path}", fields)
            continue
        message = problem["msg"].removeprefix("Value error, ")
        value = given.get(path, problem.get("input"))
        if isinstance(value, (dict, BaseModel)):
            yield prefix + in_section(path, message, declared_fields(model))
        else:
            yield f"{prefix}{path} = {value!r}: {message}"


def in_section(section: str, message: str, fields: Iterable[str]) -> str:
    """A message of a section's own check with the dotted path of the field that it begins with.

    Args:
        fields: every dotted path; of one that is in the message whole, nothing is said again.
    """
    first = re.match(r"\w*", message)
    if first is not None and f"{section}.{first[0]}" in fields:
        return f"{section}.{message}"
    said = not section or f"{section}." in message
    return message if said else f"{section}: {message}"
