"""What must hold of every evaluation, checked when it is written and again when it is reported.

Pure functions of plain values; torch-free.  A number that cannot be true is an error that names the
metric, never a row of a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from harness.errors import InvariantError
from harness.metrics import (
    IMAGE_RETRIEVAL,
    KS,
    MEAN_PER_CLASS_RECALL,
    TEXT_RETRIEVAL,
    mean_recall_name,
    recall_name,
    recall_names,
    suite_mean_name,
)

_SLACK = 1e-9
"""Room for the order in which floating-point numbers are summed."""

_NOTHING: dict[str, Any] = {"splits": {}, "class_folders": {}}

Metrics = Mapping[str, Mapping[str, Any]]


def check(entry: Mapping[str, Any]) -> None:
    """Check one evaluation of a result (its `metrics` against its `protocol`).

    Raises:
        InvariantError: a metric is missing or unasked for, was computed on another number of
            samples than the data offers, is no fraction or null without a reason, or contradicts
            another (R@1 > R@5, own > shared captions, acc1 > acc5); or the entry lacks a part.
    """
    try:
        _check(entry["metrics"], entry["protocol"])
    except KeyError as error:
        raise InvariantError(f"the evaluation was edited: it lacks {error}") from error


def check_part(name: str, metrics: Metrics, protocol: Mapping[str, Any]) -> None:
    """Check one benchmark by itself, as `check` does an entry; InvariantError likewise."""
    check({"metrics": metrics, "protocol": {**_NOTHING, "benchmarks": {name: protocol}}})


def mean_of_benchmarks(metrics_of: Sequence[Sequence[str]], metrics: Metrics, what: str) -> float:
    """The mean over benchmarks, each the mean of the metrics that it is judged by."""
    each = [float(sum(metrics[n][what] for n in names)) / len(names) for names in metrics_of]
    return sum(each) / len(each)


def _check(metrics: Metrics, protocol: Mapping[str, Any]) -> None:
    expected = expected_counts(protocol)
    for name in sorted(set(expected) ^ set(metrics)):
        what = "is missing" if name in expected else "is of nothing that was evaluated"
        raise InvariantError(f"metric {name} {what}")
    holes = _holes(protocol)
    for name, metric in metrics.items():
        if name in holes:
            _check_hole(name, metric)
        else:
            _check_metric(name, metric, expected[name])
    for low, high in _ordered(protocol):
        _check_order(metrics, low, high)
    for place in _captioned(protocol):
        for shared in (False, True):
            _check_mean(metrics, place, shared=shared)
    for suite, names in protocol.get("suites", {}).items():
        _check_suite(metrics, protocol["benchmarks"], suite, names)


def expected_counts(protocol: Mapping[str, Any]) -> dict[str, int]:
    """Metric name -> number of queries or examples it must have been computed on."""
    counts: dict[str, int] = {}
    for split, facts in protocol["splits"].items():
        if facts["captions"]:
            counts |= _retrieval(split, facts)
        for task, n in facts["labelled"].items():
            counts |= _classification(f"{split}/{task}", n)
    for folder, facts in protocol["class_folders"].items():
        counts |= _classification(folder, facts["images"])
    for name, facts in protocol.get("benchmarks", {}).items():
        if "hole" in facts:
            counts |= dict.fromkeys(facts["metric"], 0)
        elif facts["task"] == "retrieval":
            counts |= _retrieval(name, facts)
        else:
            counts |= _classification(name, facts["images"])
    suites = protocol.get("suites", {}).items()
    return counts | {suite_mean_name(suite): len(names) for suite, names in suites}


def _retrieval(place: str, facts: Mapping[str, Any]) -> dict[str, int]:
    queries = {IMAGE_RETRIEVAL: facts["captions"], TEXT_RETRIEVAL: facts["captioned"]}
    counts = {
        recall_name(place, way, k, shared=shared): n
        for shared in (False, True)
        for way, n in queries.items()
        for k in KS
    }
    means = (mean_recall_name(place, shared=shared) for shared in (False, True))
    return {**counts, **dict.fromkeys(means, sum(queries.values()))}


def _classification(place: str, n: int) -> dict[str, int]:
    return {f"{place}/{kind}": n for kind in ("acc1", "acc5", MEAN_PER_CLASS_RECALL)}


def _holes(protocol: Mapping[str, Any]) -> set[str]:
    """Metrics of benchmarks that were not evaluated."""
    sections = protocol.get("benchmarks", {}).values()
    return {name for facts in sections if "hole" in facts for name in facts["metric"]}


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


def _check_metric(name: str, metric: Mapping[str, Any], expected: int) -> None:
    if metric["n"] != expected or expected < 1:
        raise InvariantError(f"metric {name} is of {metric['n']} samples, {expected} are expected")
    value, chance = metric["value"], metric["chance"]
    if value is None:
        if not metric["reason"]:
            raise InvariantError(f"metric {name} has neither a value nor a reason for having none")
        return
    for what, number in (("value", value), ("chance", chance)):
        if not _is_fraction(number):
            raise InvariantError(f"metric {name}: its {what} {number!r} is no fraction in [0, 1]")


def _is_fraction(number: object) -> bool:
    return (
        isinstance(number, (int, float))
        and not isinstance(number, bool)
        and math.isfinite(number)
        and -_SLACK <= number <= 1 + _SLACK
    )


def _captioned(protocol: Mapping[str, Any]) -> list[str]:
    splits = [split for split, facts in protocol["splits"].items() if facts["captions"]]
    return [*splits, *_benchmarks(protocol, "retrieval")]


def _benchmarks(protocol: Mapping[str, Any], task: str) -> list[str]:
    """The benchmarks of a task that were evaluated."""
    sections = protocol.get("benchmarks", {}).items()
    return [name for name, facts in sections if facts.get("task") == task]


def _ordered(protocol: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Pairs of metrics of which the first cannot exceed the second."""
    for split in _captioned(protocol):
        for shared in (False, True):
            for way in (IMAGE_RETRIEVAL, TEXT_RETRIEVAL):
                names = [recall_name(split, way, k, shared=shared) for k in KS]
                yield from pairwise(names)
        yield from zip(recall_names(split), recall_names(split, shared=True), strict=True)
    splits = protocol["splits"].items()
    tasks = [f"{split}/{task}" for split, facts in splits for task in facts["labelled"]]
    places = [*tasks, *protocol["class_folders"], *_benchmarks(protocol, "classification")]
    for place in places:
        yield f"{place}/acc1", f"{place}/acc5"


def _check_order(metrics: Metrics, low: str, high: str) -> None:
    a, b = metrics[low]["value"], metrics[high]["value"]
    if a is not None and b is not None and a > b + _SLACK:
        raise InvariantError(f"metric {low} = {a:g} exceeds {high} = {b:g}")


def _check_mean(metrics: Metrics, split: str, *, shared: bool) -> None:
    values = [metrics[name]["value"] for name in recall_names(split, shared=shared)]
    name = mean_recall_name(split, shared=shared)
    mean = metrics[name]["value"]
    if None in (mean, *values):
        raise InvariantError(f"metric {name} or one of the six recalls has no value")
    if abs(mean - sum(values) / len(values)) > _SLACK:
        raise InvariantError(f"metric {name} = {mean:g} is not the mean of the six recalls")
