"""Run directories read into one tidy frame, in which every number that is missing says why.

Reads and never writes.  A run that is not done, cannot be read or breaks an invariant becomes a
hole with a reason; nothing is computed from the numbers here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from harness import metrics
from harness.config import canonical_json
from harness.errors import InvariantError, RecordError, one_line, unknown
from harness.evaluate.invariants import check
from harness.record import RunDir, State, Status, Store, read_json, read_jsonl
from harness.space import Point, Run, Sweep, matches, short_names, value_at

UNREADABLE = "record"
INVALID = "invariant"


@dataclass(frozen=True)
class Record:
    """What one run's directory says; `reason` is why it gives no number, None when it does."""

    point: int
    run: Run
    status: Status
    reason: str | None
    result: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None
    attempts: Sequence[Mapping[str, Any]] = ()
    """Provenance, an entry an attempt."""
    curve: Sequence[Mapping[str, Any]] = ()
    """The lines of metrics.jsonl."""
    log: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    """File -> SHA-256 of what was read."""

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.run.seed

    @property
    def failed(self) -> bool:
        """Whether the run ended without a number that can be trusted."""
        return self.status.state is State.FAILED

    @property
    def training(self) -> Mapping[str, Any]:
        """The `training` section of the result; empty without one."""
        return {} if self.result is None else self.result["training"]


@dataclass(frozen=True)
class PointRow:
    """One line of the table: a point of the sweep, and where differences of it are taken to."""

    index: int
    label: str
    axes: Mapping[str, Any]
    """Axis -> value, as resolved in the configuration."""
    given: frozenset[str]
    """The axes that the point itself sets; the others have the base's value."""
    seeds: tuple[int, ...]
    baseline: int | None
    group: str = ""
    """The sweep it comes from, where several share a table."""


@dataclass(frozen=True)
class Collection:
    """A sweep and all that is on disk of it.

    `frame` has one row a (point, seed, metric): point, label, seed, the axes by their dotted names,
    metric, value, n, chance, key, state, reason.  A hole is a NaN value with a reason.
    """

    sweep: Sweep
    points: tuple[PointRow, ...]
    records: tuple[Record, ...]
    axes: tuple[str, ...]
    frame: pd.DataFrame

    @property
    def shown(self) -> list[str]:
        """The metrics of `Show`, each once."""
        return list(dict.fromkeys(self.sweep.show.metrics))

    @property
    def metrics(self) -> list[str]:
        """Every metric of the frame, the shown ones first."""
        return list(dict.fromkeys(self.frame["metric"]))

    def axis_name(self, path: str) -> str:
        """What a table or figure calls the axis `path`."""
        return self.sweep.show.labels.get(path) or short_names(self.axes)[path]

    def of_point(self, point: int) -> list[Record]:
        """The records of one point, by seed as the sweep orders them."""
        return self._by_point[point]

    @cached_property
    def varying_axes(self) -> tuple[str, ...]:
        """The axes that have more than one value."""
        values = {axis: {canonical_json(r.axes[axis]) for r in self.points} for axis in self.axes}
        return tuple(axis for axis in self.axes if len(values[axis]) > 1)

    @cached_property
    def baselines(self) -> tuple[int, ...]:
        """The points that others are compared with."""
        return tuple(sorted({r.baseline for r in self.points if r.baseline is not None}))

    @cached_property
    def _by_point(self) -> dict[int, list[Record]]:
        found: dict[int, list[Record]] = {row.index: [] for row in self.points}
        for record in self.records:
            found[record.point].append(record)
        return found


def collect(sweep: Sweep, runs: Sequence[Run], store: Store) -> Collection:
    """Read every one of `runs` from `store`, in the order of the points."""
    order = list(dict.fromkeys(canonical_json(run.point) for run in runs))
    indexed = [(order.index(canonical_json(run.point)), run) for run in runs]
    records = tuple(_read(point, run, store) for point, run in sorted(indexed, key=lambda i: i[0]))
    wanted = [sweep.show.x, sweep.show.hue, *sweep.axes]
    axes = tuple(dict.fromkeys(axis for axis in wanted if axis is not None))
    points = _points(sweep, records, axes)
    return Collection(sweep, points, records, axes, frame_of(sweep, points, records, axes))


# --------------------------------------------------------------------------- points


def _points(sweep: Sweep, records: Sequence[Record], axes: Sequence[str]) -> tuple[PointRow, ...]:
    grouped: dict[int, list[Record]] = {}
    for record in records:
        grouped.setdefault(record.point, []).append(record)
    given = [group[0].run.point for group in grouped.values()]
    return tuple(
        PointRow(
            index=index,
            label=group[0].run.label,
            axes={axis: value_at(group[0].run.config, axis) for axis in axes},
            given=frozenset(group[0].run.point),
            seeds=tuple(record.seed for record in group),
            baseline=baseline_of(index, given, sweep.show.baseline),
        )
        for index, group in grouped.items()
    )


def baseline_of(index: int, points: Sequence[Point], baseline: Point | None) -> int | None:
    """The point to compare point `index` with: the one that differs in the baseline's axes alone.

    Where no such point exists and a single one holds the baseline's values, it is that one; where
    several do, there is nothing to choose by and the answer is None.
    """
    if baseline is None:
        return None
    twin = canonical_json({**points[index], **baseline})
    for other, point in enumerate(points):
        if canonical_json(point) == twin:
            return other
    matching = [other for other, point in enumerate(points) if matches(point, baseline)]
    return matching[0] if len(matching) == 1 else None


# --------------------------------------------------------------------------- one run


def _read(point: int, run: Run, store: Store) -> Record:
    directory = store.run_dir(run.key)
    try:
        return _read_trusted(point, run, directory, store)
    except RecordError as error:
        text = one_line(error)
        status = Status(State.FAILED, failure=UNREADABLE, error=text)
        return Record(point, run, status, f"cannot be read: {text}")


def _read_trusted(point: int, run: Run, directory: RunDir, store: Store) -> Record:
    if (directory.path / "config.json").exists():
        directory.read_config()
    status = directory.status(run.config.evaluation_key)
    result, inputs = _result(directory)
    files = ["config.json", "metrics.jsonl", "provenance.json"]
    if status.state is not State.DONE:
        files.append("status.json")
    inputs |= {name: digest for name in files if (digest := _digest(directory.path / name))}
    common: dict[str, Any] = {
        "result": result,
        "attempts": (read_json(directory.path / "provenance.json") or {}).get("attempts", []),
        "curve": list(read_jsonl(directory.metrics_file)),
        "inputs": inputs,
        "log": _log(status, directory, store),
    }
    if status.state is not State.DONE or result is None:
        parent = run.config.model.text.init_parent
        reason = _reason(status, result, run.config.train.samples)
        if status.state is State.NEW and parent is not None:
            reason += _why_of_parent(parent, store)
        return Record(point, run, status, reason, **common)
    evaluation = result["evaluations"][run.config.evaluation_key]
    try:
        check(evaluation)
    except InvariantError as error:
        broken = Status(State.FAILED, failure=INVALID, error=one_line(error))
        return Record(point, run, broken, f"result refused: {one_line(error)}", **common)
    return Record(point, run, status, None, evaluation=evaluation, **common)


def _result(directory: RunDir) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The result with the hash of the very bytes it came from, though a launcher may replace it."""
    while True:
        before = _digest(directory.result_file)
        result = directory.result()
        if before == _digest(directory.result_file):
            return result, {} if before is None else {directory.result_file.name: before}


def _digest(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error}") from None


def _log(status: Status, directory: RunDir, store: Store) -> str | None:
    """The log of the last attempt, relative to the root where it lies in it."""
    given = (status.details or {}).get("log")
    if given is None and not status.attempt:
        return None
    path = Path(given) if given else directory.log_file(status.attempt)
    return path.relative_to(store.root).as_posix() if path.is_relative_to(store.root) else str(path)


def _reason(status: Status, result: Mapping[str, Any] | None, samples: int) -> str:
    seen = f"{status.samples_seen:,} of {samples:,} samples"
    if status.state is State.FAILED:
        return status.how
    if status.state is State.RUNNING:
        return f"still running ({seen})"
    if result is not None:
        return "trained, not evaluated with this protocol"
    if status.state is State.INTERRUPTED:
        return f"interrupted at {seen}"
    return "not run"


def _why_of_parent(key: str, store: Store) -> str:
    status = store.run_dir(key).status()
    return f": its parent {key} {status.how}" if status.state is State.FAILED else ""


# --------------------------------------------------------------------------- the frame


def frame_of(
    sweep: Sweep,
    points: Sequence[PointRow],
    records: Sequence[Record],
    axes: Sequence[str],
) -> pd.DataFrame:
    """A row a (point, seed, metric), as `Collection` describes it."""
    names = _metric_names(sweep, records)
    rows = [
        {
            "point": record.point,
            "label": record.run.label,
            "seed": record.seed,
            **{axis: points[record.point].axes[axis] for axis in axes},
            "metric": name,
            **_measured(record, name),
            "key": record.run.key,
            "state": record.status.state.value,
        }
        for record in records
        for name in names
    ]
    numbers = {"value": "float64", "n": "float64", "chance": "float64"}
    return pd.DataFrame(rows).astype(numbers)


def _metric_names(sweep: Sweep, records: Sequence[Record]) -> list[str]:
    evaluated = {name for r in records if r.evaluation for name in r.evaluation["metrics"]}
    costs = {
        name
        for record in records
        if record.evaluation and record.result
        for section, values in record.result["cost"].items()
        if isinstance(values, Mapping)
        for which in values
        if metrics.is_cost(name := f"cost/{section}/{which}")
    }
    return list(dict.fromkeys([*sweep.show.metrics, *sorted(evaluated), *sorted(costs)]))


def _measured(record: Record, name: str) -> dict[str, Any]:
    """Value, n and chance of one metric of one run; a NaN value comes with its reason."""
    if record.reason is not None or record.result is None or record.evaluation is None:
        return {"value": math.nan, "n": math.nan, "chance": math.nan, "reason": record.reason}
    if metrics.is_cost(name):
        value = metrics.cost_value(record.result["cost"], name)
        found: Mapping[str, Any] = {"value": value, "reason": "not measured"}
    elif name in record.evaluation["metrics"]:
        found = record.evaluation["metrics"][name]
    else:
        found = {"value": None, "reason": unknown("metric", name, record.evaluation["metrics"])}
    missing = found["value"] is None
    return {
        "value": math.nan if missing else found["value"],
        "n": _or_nan(found.get("n")),
        "chance": _or_nan(found.get("chance")),
        "reason": (found.get("reason") or "no value") if missing else None,
    }


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
