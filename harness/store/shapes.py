"""The shapes of records: what their readers rely on, checked once where a record is read.

A record may be anybody's and hold any JSON; more than is named here may stand in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.errors import RecordError

_Numbers = dict[str, float | None]
_ABSENT: Any = None
T = TypeVar("T", bound=Mapping[str, Any])


class WeightsShape(BaseModel):
    """A file of weights."""

    file: str = _ABSENT
    sha256: str = _ABSENT


class TrainingShape(BaseModel):
    """What a result says of the training."""

    samples_seen: int
    seconds: float = _ABSENT
    evaluation_seconds: float = _ABSENT
    samples_per_second: float = _ABSENT
    final_loss: float | None = _ABSENT
    processes: int | None = _ABSENT
    threads: int | None = _ABSENT
    attempts: int = _ABSENT
    device: str = _ABSENT
    bad_samples: list[dict[str, Any]] = _ABSENT


class NumberShape(BaseModel):
    """One metric."""

    value: float | None
    n: float | None = _ABSENT
    chance: float | None = _ABSENT
    reason: str | None = _ABSENT


class ProtocolShape(BaseModel):
    """What was computed, and on what."""

    metrics: dict[str, int] = _ABSENT
    rules: dict[str, str] = _ABSENT
    splits: dict[str, dict[str, Any]] = _ABSENT
    tasks: dict[str, dict[str, Any]] = _ABSENT
    class_folders: dict[str, dict[str, Any]] = _ABSENT
    benchmarks: dict[str, dict[str, Any]] = _ABSENT
    suites: dict[str, list[str]] = _ABSENT
    precision: str = _ABSENT


class EvaluationShape(BaseModel):
    """One evaluation; what it lacks is for its invariants to tell."""

    metrics: dict[str, NumberShape] = _ABSENT
    protocol: ProtocolShape = _ABSENT
    outcomes: str | None = _ABSENT
    outcomes_sha256: str = _ABSENT


class ParentShape(BaseModel):
    """What a run began with."""

    run: str
    checkpoint: str
    blocks: list[int]


class ResultShape(BaseModel):
    """result.json, of a run or of a model from outside."""

    evaluations: dict[str, EvaluationShape]
    training: TrainingShape = _ABSENT
    cost: dict[str, _Numbers | str | float | None] = _ABSENT
    checkpoint: WeightsShape = _ABSENT
    training_modules: WeightsShape = _ABSENT
    parent: ParentShape = _ABSENT
    teachers: list[dict[str, str]] = _ABSENT
    logs: dict[str, str] = _ABSENT
    code: str | None = _ABSENT


class StatusShape(BaseModel):
    """status.json."""

    attempt: int = _ABSENT
    samples_seen: int = _ABSENT
    samples: int = _ABSENT
    beat: float = _ABSENT
    seconds: float | None = _ABSENT
    samples_per_second: float | None = _ABSENT
    data_wait: float | None = _ABSENT
    loss: float | None = _ABSENT
    failure: str | None = _ABSENT
    error: str | None = _ABSENT
    log: str | None = _ABSENT
    phase: str = _ABSENT


class AttemptShape(BaseModel):
    """One entry of provenance.json."""

    time: str = _ABSENT
    host: str = _ABSENT
    device: str = _ABSENT
    commit: str | None = _ABSENT
    dirty: str | None = _ABSENT
    code: str = _ABSENT
    slurm: dict[str, Any] = _ABSENT
    versions: dict[str, str] = _ABSENT
    numerics: dict[str, Any] = _ABSENT
    processes: int | None = _ABSENT
    threads: int | None = _ABSENT


class ProvenanceShape(BaseModel):
    """provenance.json."""

    attempts: list[AttemptShape]


class ConfigShape(BaseModel):
    """config.json."""

    config: dict[str, Any]


class ManifestRunShape(BaseModel):
    """One run of a manifest."""

    key: str
    label: str
    seed: int
    point: dict[str, Any] | list[Any]
    parent: str | None = _ABSENT
    parents: list[str] = _ABSENT


class ManifestShape(BaseModel):
    """The manifest of a sweep."""

    name: str
    question: str
    command: list[str]
    runs: list[ManifestRunShape]
    parents: list[ManifestRunShape]


def shaped(tree: T, shape: type[BaseModel], file: Path) -> T:
    """`tree`, which `file` holds; RecordError, naming the value, where it has another shape."""
    try:
        shape.model_validate(tree, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))[:200]
        raise RecordError(f"{file}: {where} is {first['input']!r:.60}: {first['msg']}") from None
    return tree
