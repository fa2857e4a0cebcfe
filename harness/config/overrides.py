"""Configurations with other values in some of their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import (
    BaseModel,
)

from harness.config.fields import M, field_paths, validate
from harness.config.runtime import Runtime
from harness.config.schema import RunConfig
from harness.errors import ConfigError, unknown

if TYPE_CHECKING:
    pass


def check_path(path: str, model: type[BaseModel] = RunConfig) -> None:
    """Raise ConfigError, naming the nearest, unless `path` is a field of `model`."""
    paths = field_paths(model)
    if path in paths:
        return
    inside = [p for p in paths if p.startswith(path + ".")]
    if inside:
        raise ConfigError(f"{path!r} is a section, not a field; its fields: {', '.join(inside)}")
    raise ConfigError(unknown("field", path, paths))


def override(config: RunConfig, values: Mapping[str, object]) -> RunConfig:
    """A new configuration with `values` (dotted path -> value) in place, validated anew."""
    return _override(config, values)


def override_runtime(runtime: Runtime, values: Mapping[str, object]) -> Runtime:
    """The same for `Runtime`."""
    return _override(runtime, values)


def _override(config: M, values: Mapping[str, object]) -> M:
    tree = config.model_dump()
    for path, value in values.items():
        check_path(path, type(config))
        *sections, name = path.split(".")
        place = tree
        for section in sections:
            place = place[section]
        place[name] = value
    return validate(type(config), tree, given=values)


def parse_assignment(text: str) -> tuple[str, object]:
    """`path=value` from a command line; the value is read as JSON, else taken as text."""
    path, sign, value = text.partition("=")
    if not sign or not path:
        raise ConfigError(f"{text!r} is not of the form path=value, such as train.lr=0.0005")
    try:
        return path.strip(), json.loads(value, parse_constant=_no_constant)
    except json.JSONDecodeError:
        return path.strip(), value


def _no_constant(name: str) -> object:
    raise ConfigError(f"{name} is not a value a configuration can hold")
