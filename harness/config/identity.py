"""What of a value is identity: canonical JSON, and the keys that are hashes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    field_validator,
)

from harness.config.values import plain

NOT_IDENTITY: dict[str, Any] = {"identity": False}
_UNSET = object()
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
)


def integer(value: object) -> object:
    """`value` as an integer, be it written 2 or 2.0; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("an integer is wanted")
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("an integer is wanted")
    return int(value)


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a number is wanted")
    return float(value)


Int = Annotated[int, BeforeValidator(integer)]
Float = Annotated[float, BeforeValidator(_number)]


class Strict(BaseModel):
    """Frozen, refuses unknown fields, and knows which of its fields are identity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _from_python(cls, value: object) -> object:
        return value if isinstance(value, dict) else plain(value)  # a section sees to its own

    def idle(self) -> set[str]:
        """Fields with a default that cannot change the run, given what the others hold."""
        return set()

    def identity(self) -> dict[str, Any]:
        """The part of this value that is hashed.

        A field marked `identity: False` is left out, and one marked `born: value` (a field
        added after keys existed) is left out while it holds the value it was born with.  A field
        that is idle counts as if it held its default.
        """
        out: dict[str, Any] = {}
        idle = self.idle()
        for name, default, born in _hashed_fields(type(self)):
            value = identity_of(default if name in idle else getattr(self, name))
            if born is _UNSET or born != value:
                out[name] = value
        return out


@cache
def _hashed_fields(model: type[BaseModel]) -> tuple[tuple[str, Any, Any], ...]:
    """Name, default and `born` value of each field of `model` that is identity."""
    fields = []
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if extra.get("identity", True) is not False:
            fields.append((name, field.default, extra.get("born", _UNSET)))
    return tuple(fields)


def identity_of(value: object) -> Any:
    """What of a value is hashed."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Strict):
        return value.identity()
    if isinstance(value, (list, tuple)):
        return [identity_of(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): identity_of(item) for key, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def canonical_json(value: object) -> str:
    """One text for one value: sorted keys, no spaces, `1.0` written as `1`, NaN refused."""
    return _CANONICAL.encode(identity_of(plain(value)))


def content_key(value: object, *, digits: int = 12) -> str:
    """First `digits` hex digits of SHA-256 over the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:digits]
