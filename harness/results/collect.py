"""Run directories read into one collection, in which every number that is missing says why.

A run that is not done, cannot be read or breaks an invariant becomes a hole with a reason; nothing
is computed from the numbers here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from harness import metrics
from harness.config import TERMS, canonical_json
from harness.config.sweep import (
    Point,
    Run,
    Show,
    Sweep,
    baselines_of,
    compared_with_nothing,
    short_names,
    value_at,
)
from harness.errors import unknown
from harness.planning.selection import Selection, selection_on_file
from harness.results.lasting import no_garbage
from harness.results.records import Record, read_all
from harness.store.manifest import changed_declaration, printed_before
from harness.store.record import RunDir, Store

#: Name of the axis that tells two versions of one sweep apart; it is no field of a configuration.
VERSION = "version"


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

    @cached_property
    def told(self) -> Mapping[str, str]:
        """Axis -> its value as canonical JSON, by which values are told apart."""
        return {axis: canonical_json(value) for axis, value in self.axes.items()}


@dataclass(frozen=True)
class SweepPart:
    """One sweep of a collection: its own points, and what it asks of them."""

    name: str
    points: tuple[int, ...]
    baselines: Mapping[int, int | None]
    """Point -> the point that its differences are taken to."""
    show: Show
    looks: tuple[int, ...] = ()
    """Numbers of seeds at which it is looked at; empty where that is done once."""
    order: tuple[int, ...] = ()
    """The seeds in the order in which a point gets them."""
    printed: int | None = None
    """Seeds of the verdict that may have been printed before the looks were declared."""

    @classmethod
    def of(
        cls,
        name: str,
        sweep: Sweep,
        baselines: Mapping[int, int | None],
        printed: int | None = None,
    ) -> SweepPart:
        """What `sweep` asks of the points of `baselines`."""
        looks = (sweep.look_counts, tuple(sweep.seed_order), printed)
        return cls(name, tuple(baselines), baselines, sweep.show, *looks)


@dataclass(frozen=True)
class Collection:
    """A sweep and all that is on disk of it."""

    sweep: Sweep
    points: tuple[PointRow, ...]
    records: tuple[Record, ...]
    axes: tuple[str, ...]
    parts: tuple[SweepPart, ...] = ()
    """The sweeps that it was put together from, where there are several."""
    notes: tuple[str, ...] = ()
    """What a reader must know of how it came about."""
    selection: Selection | None = None
    """What the points chose of the nuisance parameters."""
    printed: int | None = None
    """See `SweepPart`."""

    @cached_property
    def studies(self) -> tuple[SweepPart, ...]:
        """Each sweep of it by itself: what is said of one depends on no other."""
        baselines = {row.index: row.baseline for row in self.points}
        return self.parts or (SweepPart.of(self.sweep.name, self.sweep, baselines, self.printed),)

    @property
    def shown(self) -> list[str]:
        """The metrics of `Show`, each once."""
        return list(dict.fromkeys(self.sweep.show.metrics))

    @cached_property
    def metrics(self) -> list[str]:
        """Every metric that is shown or recorded, the shown ones first."""
        return _metric_names(self.sweep, self.records)

    @cached_property
    def readings(self) -> list[list[Reading]]:
        """Of each record, what it says of each of `metrics`."""
        return [[_reading(record, name) for name in self.metrics] for record in self.records]

    def axis_name(self, path: str) -> str:
        """What a table or figure calls the axis `path`."""
        return self.sweep.show.labels.get(path) or self._short_names[path]

    def of_point(self, point: int) -> list[Record]:
        """The records of one point, by seed as the sweep orders them."""
        return self._by_point[point]

    @cached_property
    def varying_axes(self) -> tuple[str, ...]:
        """The axes that have more than one value."""
        values = {axis: {r.told[axis] for r in self.points} for axis in self.axes}
        return tuple(axis for axis in self.axes if len(values[axis]) > 1)

    @cached_property
    def set_by_all(self) -> frozenset[str]:
        """The axes that every point sets, rather than the base."""
        return frozenset(self.axes).intersection(*(row.given for row in self.points))

    @cached_property
    def baselines(self) -> tuple[int, ...]:
        """The points that others are compared with."""
        return tuple(sorted({r.baseline for r in self.points if r.baseline is not None}))

    @cached_property
    def places(self) -> tuple[str, ...]:
        """The axes in which the baselines differ from one another."""
        rows = [self.points[index] for index in self.baselines]
        values = {axis: {row.told[axis] for row in rows} for axis in self.axes}
        return tuple(axis for axis in self.axes if len(values[axis]) > 1)

    @cached_property
    def used(self) -> tuple[Record, ...]:
        """The records that give numbers."""
        return tuple(record for record in self.records if record.reason is None)

    @cached_property
    def protocols(self) -> tuple[Mapping[str, Any], ...]:
        """Of the evaluations, each distinct one once, as far as equal ones are one object."""
        known = [r.evaluation["protocol"] for r in self.records if r.evaluation]
        return tuple({id(protocol): protocol for protocol in known}.values())

    @cached_property
    def _short_names(self) -> dict[str, str]:
        return short_names(self.axes)

    @cached_property
    def _by_point(self) -> dict[int, list[Record]]:
        found: dict[int, list[Record]] = {row.index: [] for row in self.points}
        for record in self.records:
            found[record.point].append(record)
        return found


def collect(sweep: Sweep, runs: Sequence[Run], store: Store) -> Collection:
    """Read every one of `runs` from `store`, in the order of the points."""
    found = collect_from(sweep, [(run, store.run_dir(run.key)) for run in runs], store)
    told = [changed_declaration(store, sweep), compared_with_nothing(runs, sweep.show.baseline)]
    notes = tuple(f"{note[:1].upper()}{note[1:]}." for note in told if note)
    selection, printed = selection_on_file(sweep, store), printed_before(store, sweep)
    return replace(found, notes=notes, selection=selection, printed=printed)


@no_garbage()
def collect_from(sweep: Sweep, places: Sequence[tuple[Run, RunDir]], store: Store) -> Collection:
    """The same, of runs that lie in any directories under the root of `store`."""
    order = {canonical_json(point): n for n, point in enumerate(_named_first(sweep, places))}
    indexed = [(order[canonical_json(run.point)], run, place) for run, place in places]
    records = tuple(read_all(sorted(indexed, key=lambda item: item[0]), store))
    wanted = [sweep.show.x, sweep.show.hue, *sweep.axes]
    axes = tuple(dict.fromkeys(axis for axis in wanted if axis is not None))
    points = _points(sweep, records, axes)
    return Collection(sweep, points, records, axes)


# --------------------------------------------------------------------------- points


def _named_first(sweep: Sweep, places: Sequence[tuple[Run, RunDir]]) -> list[Point]:
    """Every point once: those with a name in the order of the names, then the others."""
    points = {canonical_json(run.point): run.point for run, _ in places}
    named = [text for each in sweep.show.names.values() if (text := canonical_json(each)) in points]
    return [points[text] for text in dict.fromkeys([*named, *points])]


def _points(sweep: Sweep, records: Sequence[Record], axes: Sequence[str]) -> tuple[PointRow, ...]:
    grouped: dict[int, list[Record]] = {}
    for record in records:
        grouped.setdefault(record.point, []).append(record)
    given = [group[0].run.point for group in grouped.values()]
    baselines = baselines_of(given, sweep.show.baseline)
    return tuple(
        PointRow(
            index=index,
            label=group[0].run.label,
            axes={axis: _axis_value(group[0].run, axis) for axis in axes},
            given=frozenset(group[0].run.point),
            seeds=tuple(record.seed for record in group),
            baseline=baselines[index],
        )
        for index, group in grouped.items()
    )


def _axis_value(run: Run, axis: str) -> Any:
    return run.point.get(axis) if axis == VERSION else value_at(run.config, axis)


# --------------------------------------------------------------------------- the readings


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


class Reading(NamedTuple):
    """What one record says of one metric; what is missing is NaN, and a NaN value has a reason."""

    value: float
    n: float
    chance: float
    reason: str | None = None
    off: bool = False
    """Whether no run of the point can have one: the metric is of a loss term that it has off."""


def _reading(record: Record, name: str) -> Reading:
    if record.reason is not None or record.result is None or record.evaluation is None:
        return _hole(record, name, record.reason or "no value")
    found = record.evaluation["metrics"].get(name)
    if found is None and metrics.is_cost(name):
        found = {"value": metrics.cost_value(record.result["cost"], name), "reason": "not measured"}
    elif found is None:
        return _hole(record, name, unknown("metric", name, record.evaluation["metrics"]))
    value = found["value"]
    if value is None:
        return _hole(record, name, found.get("reason") or "no value", found)
    return Reading(float(value), _or_nan(found.get("n")), _or_nan(found.get("chance")))


def _hole(
    record: Record, name: str, reason: str, found: Mapping[str, float | None] | None = None
) -> Reading:
    term, found = _term_off(record, name), found or {}
    why = reason if term is None else f"of the loss term {term}, which is off in this run"
    counts = _or_nan(found.get("n")), _or_nan(found.get("chance"))
    return Reading(math.nan, *counts, why, term is not None)


def _term_off(record: Record, name: str) -> str | None:
    """The loss term that the metric `name` is of, if it is off in this run."""
    described, on = metrics.described(name), record.run.config.objective.active
    if described is not None and described.needs in TERMS and described.needs not in on:
        return described.needs
    return None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
