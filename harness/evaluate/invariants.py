"""What must hold of every evaluation, checked when it is written and again when it is reported.

Pure functions of plain values; torch-free.  A number that cannot be true is an error that names the
metric, never a row of a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from harness.errors import InvariantError
from harness.metrics import Metric, metric_of, suite_mean_name, versions
from harness.metrics.places import (
    Place,
    computed,
    holes_of,
    places_of,
    same_as_today,
    suite_means_of,
)

_SLACK = 1e-9
"""Room for the order in which floating-point numbers are summed."""

_NOTHING: dict[str, Any] = {"splits": {}, "class_folders": {}}

Metrics = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Expected:
    """What must be there of every evaluation by one protocol."""

    counts: Mapping[str, int]
    """Metric -> number of samples that it is of."""
    holes: Set[str]
    known: Sequence[tuple[Place, Metric]]
    """Those that are computed as this version defines them."""

    @classmethod
    def of(cls, protocol: Mapping[str, Any]) -> Expected:
        """By the protocol alone; KeyError where it lacks a part."""
        holes, known = holes_of(protocol), list(computed(protocol))
        counts = suite_means_of(protocol) | dict.fromkeys(holes, 0)
        counts |= {_name(place, metric): metric.count(place.facts) for place, metric in known}
        return cls(counts, holes, known)


def check(entry: Mapping[str, Any], expected: Expected | None = None) -> None:
    """Check one evaluation of a result (its `metrics` against its `protocol`).

    Args:
        expected: of its protocol, where that is known already.

    Raises:
        InvariantError: a metric is missing or unasked for, was computed on another number of
            samples than the data offers, is no fraction or null without a reason, or contradicts
            another (R@1 > R@5, own > shared captions, acc1 > acc5); or the entry lacks a part.
    """
    try:
        _check(entry["metrics"], entry["protocol"], expected or Expected.of(entry["protocol"]))
    except KeyError as error:
        raise InvariantError(f"the evaluation was edited: it lacks {error}") from error


def check_part(name: str, metrics: Metrics, protocol: Mapping[str, Any]) -> None:
    """Check one benchmark by itself, as `check` does an entry; InvariantError likewise."""
    alone = {**_NOTHING, "metrics": versions([protocol["task"]]), "benchmarks": {name: protocol}}
    check({"metrics": metrics, "protocol": alone})


def mean_of_benchmarks(metrics_of: Sequence[Sequence[str]], metrics: Metrics, what: str) -> float:
    """The mean over benchmarks, each the mean of the metrics that it is judged by."""
    each = [float(sum(metrics[n][what] for n in names)) / len(names) for names in metrics_of]
    return sum(each) / len(each)


def _check(metrics: Metrics, protocol: Mapping[str, Any], expected: Expected) -> None:
    holes, known, counts = expected.holes, expected.known, expected.counts
    here = [name for name in metrics if name in counts or not _is_foreign(name, protocol)]
    for name in sorted(set(counts) ^ set(here)):
        what = "is missing" if name in counts else "is of nothing that was evaluated"
        raise InvariantError(f"metric {name} {what}")
    for name in here:
        if name in holes:
            _check_hole(name, metrics[name])
        else:
            _check_metric(name, metrics[name], counts[name])
    values = {_name(p, m): metrics[_name(p, m)]["value"] for p, m in known}
    for place, metric in known:
        _check_against_others(values, place.name, metric)
    for suite, names in protocol.get("suites", {}).items():
        _check_suite(metrics, protocol["benchmarks"], suite, names)


def _name(place: Place, metric: Metric) -> str:
    return f"{place.name}/{metric.kind}"


def _is_foreign(name: str, protocol: Mapping[str, Any]) -> bool:
    """Whether a metric was computed that this version does not have, or defines otherwise."""
    place, _, kind = name.rpartition("/")
    foreign = kind in protocol["metrics"] and same_as_today(protocol, kind) is None
    return foreign and any(place == each.name for each in places_of(protocol))


def _check_hole(name: str, metric: Mapping[str, Any]) -> None:
    if metric["value"] is not None or not metric["reason"]:
        raise InvariantError(f"metric {name} was not evaluated, and is not a hole with a reason")


def _check_suite(
    metrics: Metrics, sections: Mapping[str, Any], suite: str, names: Sequence[str]
) -> None:
    name = suite_mean_name(suite)
    mean = metrics[name]["value"]
    if any("hole" in sections[each] for each in names):
        if mean is not None:
            raise InvariantError(f"metric {name} is a mean over a data set that is missing")
        return
    found = mean_of_benchmarks([sections[each]["metric"] for each in names], metrics, "value")
    if mean is None or abs(mean - found) > _SLACK:
        raise InvariantError(f"metric {name} = {mean} is not the mean of its {len(names)} sets")


def _check_metric(name: str, found: Mapping[str, Any], expected: int) -> None:
    if found["n"] != expected or expected < 1:
        raise InvariantError(f"metric {name} is of {found['n']} samples, {expected} are expected")
    value, chance = found["value"], found["chance"]
    if value is None:
        if not found["reason"]:
            raise InvariantError(f"metric {name} has neither a value nor a reason for having none")
        return
    metric = metric_of(name.rpartition("/")[2])
    least, most = (0.0, 1.0) if metric is None else (metric.least, metric.most)
    for what, number in (("value", value), ("chance", chance)):
        if what == "chance" and number is None and metric is not None and not metric.has_chance:
            continue
        if not _is_between(number, least, most):
            allowed = f"in [{least:g}, {most:g}]" if most is not None else f"of {least:g} or more"
            raise InvariantError(
                f"metric {name}: its {what} {number!r} is no "
                f"{'fraction' if most == 1.0 else 'number'} {allowed}"
            )


def _is_between(number: object, least: float, most: float | None) -> bool:
    return (
        isinstance(number, (int, float))
        and not isinstance(number, bool)
        and math.isfinite(number)
        and least - _SLACK <= number
        and (most is None or number <= most + _SLACK)
    )


def _check_against_others(values: Mapping[str, float | None], place: str, metric: Metric) -> None:
    """Its bounds and its parts, of which the same evaluation has the numbers."""
    name = f"{place}/{metric.kind}"
    value = values[name]
    for other in metric.at_most:
        bound = values.get(f"{place}/{other}")
        if value is not None and bound is not None and value > bound + _SLACK:
            raise InvariantError(f"metric {name} = {value:g} exceeds {place}/{other} = {bound:g}")
    parts = [values[part] for kind in metric.parts if (part := f"{place}/{kind}") in values]
    if not parts or len(parts) < len(metric.parts):
        return
    known = [part for part in parts if part is not None]
    if value is None or len(known) < len(parts):
        raise InvariantError(f"metric {name} or one of its {len(parts)} parts has no value")
    if abs(value - sum(known) / len(known)) > _SLACK:
        raise InvariantError(f"metric {name} = {value:g} is not the mean of its {len(parts)} parts")
