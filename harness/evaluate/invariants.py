"""What must hold of every evaluation, checked when it is written and again when it is reported.

Pure functions of plain values; torch-free.  A number that cannot be true is an error that names the
metric, never a row of a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from harness.errors import InvariantError
from harness.metrics import (
    IMAGE_RETRIEVAL,
    KS,
    MEAN_PER_CLASS_RECALL,
    MEAN_RECALL,
    TEXT_RETRIEVAL,
    recall_name,
    recall_names,
)

_SLACK = 1e-9
"""Room for the order in which floating-point numbers are summed."""

Metrics = Mapping[str, Mapping[str, Any]]


def check(entry: Mapping[str, Any]) -> None:
    """Check one evaluation of a result (its `metrics` against its `protocol`).

    Raises:
        InvariantError: a metric is missing or unasked for, was computed on another number of
            samples than the data offers, is no fraction or null without a reason, or contradicts
            another (R@1 > R@5, strict > shared captions, acc1 > acc5); or the entry lacks a part.
    """
    try:
        _check(entry["metrics"], entry["protocol"])
    except KeyError as error:
        raise InvariantError(f"the evaluation was edited: it lacks {error}") from error


def _check(metrics: Metrics, protocol: Mapping[str, Any]) -> None:
    expected = expected_counts(protocol)
    for name in sorted(set(expected) ^ set(metrics)):
        what = "is missing" if name in expected else "is of nothing that was evaluated"
        raise InvariantError(f"metric {name} {what}")
    for name, metric in metrics.items():
        _check_metric(name, metric, expected[name])
    for low, high in _ordered(protocol):
        _check_order(metrics, low, high)
    for split in _captioned(protocol):
        _check_mean(metrics, split)


def expected_counts(protocol: Mapping[str, Any]) -> dict[str, int]:
    """Metric name -> number of queries or examples it must have been computed on."""
    counts: dict[str, int] = {}
    for split, facts in protocol["splits"].items():
        if facts["captions"]:
            queries = {IMAGE_RETRIEVAL: facts["captions"], TEXT_RETRIEVAL: facts["captioned"]}
            for strict in (False, True):
                for way, n in queries.items():
                    counts |= {recall_name(split, way, k, strict=strict): n for k in KS}
            counts[f"{split}/{MEAN_RECALL}"] = sum(queries.values())
        for task, n in facts["labelled"].items():
            counts |= _classification(f"{split}/{task}", n)
    for folder, facts in protocol["class_folders"].items():
        counts |= _classification(folder, facts["images"])
    return counts


def _classification(place: str, n: int) -> dict[str, int]:
    return {f"{place}/{kind}": n for kind in ("acc1", "acc5", MEAN_PER_CLASS_RECALL)}


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
    return [split for split, facts in protocol["splits"].items() if facts["captions"]]


def _ordered(protocol: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Pairs of metrics of which the first cannot exceed the second."""
    for split in _captioned(protocol):
        yield from zip(recall_names(split, strict=True), recall_names(split), strict=True)
        for strict in (False, True):
            for way in (IMAGE_RETRIEVAL, TEXT_RETRIEVAL):
                names = [recall_name(split, way, k, strict=strict) for k in KS]
                yield from pairwise(names)
    splits = protocol["splits"].items()
    tasks = [f"{split}/{task}" for split, facts in splits for task in facts["labelled"]]
    for place in [*tasks, *protocol["class_folders"]]:
        yield f"{place}/acc1", f"{place}/acc5"


def _check_order(metrics: Metrics, low: str, high: str) -> None:
    a, b = metrics[low]["value"], metrics[high]["value"]
    if a is not None and b is not None and a > b + _SLACK:
        raise InvariantError(f"metric {low} = {a:g} exceeds {high} = {b:g}")


def _check_mean(metrics: Metrics, split: str) -> None:
    values = [metrics[name]["value"] for name in recall_names(split)]
    name = f"{split}/{MEAN_RECALL}"
    mean = metrics[name]["value"]
    if None in (mean, *values):
        raise InvariantError(f"metric {name} or one of the six recalls has no value")
    if abs(mean - sum(values) / len(values)) > _SLACK:
        raise InvariantError(f"metric {name} = {mean:g} is not the mean of the six recalls")
