"""Configurations with other values in some of their fields, and `path=value` as it is typed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from typing import Any

from pydantic import BaseModel

from harness.config.fields import (
    DeclaredField,
    M,
    declared_fields,
    field_paths,
    unknown_field,
    validate,
)
from harness.config.runtime import Runtime
from harness.config.schema import RunConfig
from harness.config.values import alternatives, no_constant, plain, read_text
from harness.errors import ConfigError

RUNTIME = "runtime."
"""What stands before a field of `Runtime` on a command line."""


def check_path(path: str, model: type[BaseModel] = RunConfig, prefix: str = "") -> None:
    """Raise ConfigError, naming the nearest, unless `path` is a field of `model`."""
    paths = field_paths(model)
    if path in paths:
        return
    inside = [f"{prefix}{p}" for p in paths if p.startswith(path + ".")]
    if inside:
        raise ConfigError(
            f"{prefix + path!r} is a section, not a field; its fields: {', '.join(inside)}"
        )
    if model is RunConfig and path.startswith(RUNTIME):
        raise ConfigError(
            f"{path} is where a run happens, no part of what it is: it stands on the command line, "
            f"{path}=..., and not in a sweep file"
        )
    raise ConfigError(unknown_field(f"{prefix}{path}", typed_fields()))


def typed_fields() -> dict[str, DeclaredField]:
    """Path, as a command line has it -> every field; those of a run before those of Runtime."""
    here = {f"{RUNTIME}{path}": field for path, field in declared_fields(Runtime).items()}
    return {**declared_fields(RunConfig), **here}


def override(config: RunConfig, values: Mapping[str, object]) -> RunConfig:
    """A new configuration with `values` (dotted path -> value) in place, validated anew."""
    return _override(config, values)


def override_runtime(runtime: Runtime, values: Mapping[str, object]) -> Runtime:
    """The same for `Runtime`; messages name fields as a command line does, with `runtime.`."""
    return _override(runtime, values, RUNTIME)


def _override(config: M, values: Mapping[str, object], prefix: str = "") -> M:
    values = {path: plain(value) for path, value in values.items()}
    tree = _tree(config, {path.split(".")[0] for path in values})
    for path, value in values.items():
        check_path(path, type(config), prefix)
        *sections, name = path.split(".")
        place = tree
        for section in sections:
            place = place[section]
        place[name] = value
    return validate(type(config), tree, given=values, prefix=prefix)


def _tree(config: BaseModel, touched: Set[str]) -> dict[str, Any]:
    """What is validated anew: of ten thousand runs, each would else hold all sections anew.

    Those that registered parts have a say in are read anew whenever they are validated.
    """
    return {
        name: value.model_dump()
        if isinstance(value, BaseModel) and (name in touched or value.model_extra)
        else value
        for name, value in config
    }


# --------------------------------------------------------------------------- the command line


def parse_assignments(texts: Sequence[str]) -> tuple[dict[str, object], dict[str, object]]:
    """The `path=value` of a command line: those of the configuration, and those of the Runtime.

    Raises:
        ConfigError: one is not of this form (the line says how to write it), or no such value.
    """
    _refuse_other_forms(texts)
    values = dict(parse_assignment(text) for text in texts)
    runtime = [path for path in values if path.startswith(RUNTIME)]
    return values, {path.removeprefix(RUNTIME): values.pop(path) for path in runtime}


def parse_assignment(text: str) -> tuple[str, object]:
    """`path=value`; the value is read by the type of the field, of one unknown as JSON or text."""
    path, sign, value = (part.strip() for part in text.partition("="))
    if not sign or not path:
        raise ConfigError(f"{text!r} is not of the form path=value, such as train.lr=0.0005")
    field = typed_fields().get(path)
    if field is None:
        return path, _untyped(value)
    try:
        found = read_text(value, field.annotation)
    except ConfigError as error:
        raise ConfigError(f"{path} = {value!r}: {error}") from None
    wanted = _wanted(alternatives(field.annotation)) if isinstance(found, str) else None
    if wanted is not None:
        raise ConfigError(f"{path} = {value!r}: {wanted[0]} is wanted, such as {path}={wanted[1]}")
    return path, found


def _untyped(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=no_constant)
    except json.JSONDecodeError:
        return value


def _wanted(kinds: Sequence[Any]) -> tuple[str, str] | None:
    """What a type that text cannot be wants, and an example; None if text may be right."""
    said = {
        int: ("an integer", "60000"),
        float: ("a number", "0.001"),
        bool: ("true or false", "true"),
    }
    return next((said[kind] for kind in kinds if kind in said), None)


def _refuse_other_forms(texts: Sequence[str]) -> None:
    """ConfigError, with the right form, for `path value`, `path = value` and `path= value`."""
    for text, after, last in zip(texts, [*texts[1:], ""], [*texts[2:], "", ""], strict=False):
        path, sign, value = text.partition("=")
        if value or not path or (sign and "=" in after):
            continue
        meant = last if after == "=" else after.removeprefix("=")
        if meant and "=" not in meant:
            raise ConfigError(f"{text!r} is not of the form path=value; write {path}={meant}")
