"""Fields by their dotted paths, sections of registered parts included, and validation."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ValidationError,
    create_model,
)

from harness.errors import ConfigError, unknown
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


# --------------------------------------------------------------------------- overrides


def field_paths(model: type[BaseModel]) -> tuple[str, ...]:
    """Every dotted path of a field of `model` that holds a value of its own, as of now."""
    return _field_paths(model, (*TERMS, *SOURCES))


@cache
def _field_paths(model: type[BaseModel], parts: tuple[str, ...]) -> tuple[str, ...]:
    paths: list[str] = []
    for name, annotation in _members(model).items():
        inner = _section_of(annotation)
        paths += [name] if inner is None else [f"{name}.{p}" for p in _field_paths(inner, parts)]
    return tuple(paths)


def _members(model: type[BaseModel]) -> dict[str, Any]:
    """Name -> annotation of each field, and of the sections of what is registered."""
    fields = {name: field.annotation for name, field in model.model_fields.items()}
    sections = getattr(model, "sections", dict)
    return {**fields, **sections()}


def _section_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in {Union, types.UnionType, Annotated}:
        for part in get_args(annotation):
            found = _section_of(part)
            if found is not None:
                return found
    return None


def validate(model: type[M], tree: object, *, given: Mapping[str, object] = {}) -> M:
    """`model` from plain values; a ValidationError becomes one ConfigError line."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(_problems(model, error, given))) from None


def _problems(
    model: type[BaseModel], error: ValidationError, given: Mapping[str, object]
) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            yield unknown("field", path, field_paths(model))
            continue
        message = problem["msg"].removeprefix("Value error, ")
        value = given.get(path, problem.get("input"))
        shown = "" if isinstance(value, (dict, BaseModel)) else f" = {value!r}"
        yield f"{path}{shown}: {message}"
