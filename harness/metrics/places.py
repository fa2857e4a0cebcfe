"""Where the numbers of an evaluation are, by its protocol: which there must be, which are lacking.

A place is a captioned set or a labelled one: a split, a task of it, a class folder, a benchmark;
the section `terms` has the splits on which the metrics of loss terms were computed, `own_suites`
the places of each suite over a run's own splits.
The section `metrics` of a protocol has kind -> version of every metric that was computed.  Pure
functions of plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.config import VALIDATION
from harness.metrics.base import CLASSIFICATION, RETRIEVAL, Metric, Value, metric_of, metrics_for
from harness.metrics.names import suite_mean_name


@dataclass(frozen=True)
class Place:
    """What metrics of one kind of need are computed on; `facts` are counted from the data."""

    name: str
    needs: str
    facts: Mapping[str, Any]


def places_of(protocol: Mapping[str, Any]) -> Iterator[Place]:
    """Every place that was evaluated."""
    for split, facts in protocol["splits"].items():
        if facts["captions"]:
            yield Place(split, RETRIEVAL, facts)
        for task, n in facts["labelled"].items():
            yield Place(f"{split}/{task}", CLASSIFICATION, {"images": n})
    for folder, facts in protocol["class_folders"].items():
        yield Place(folder, CLASSIFICATION, facts)
    for name, facts in protocol.get("benchmarks", {}).items():
        if "hole" not in facts:
            yield Place(name, facts["task"], facts)
    for suite, places in protocol.get("own_suites", {}).items():
        yield from (Place(name, suite, facts) for name, facts in places.items())
    for split, facts in protocol.get("terms", {}).items():
        yield from (Place(split, term, facts) for term in facts["measured"])


def computed(protocol: Mapping[str, Any]) -> Iterator[tuple[Place, Metric]]:
    """Every metric that was computed as this version defines it, place by place."""
    kinds = [metric for kind in protocol["metrics"] if (metric := same_as_today(protocol, kind))]
    for place in places_of(protocol):
        yield from ((place, metric) for metric in kinds if metric.needs == place.needs)


def same_as_today(protocol: Mapping[str, Any], kind: str) -> Metric | None:
    """The metric of that kind, if it was computed and has the same version now."""
    metric = metric_of(kind)
    same = metric is not None and protocol["metrics"].get(kind) == metric.version
    return metric if same else None


def holes_of(protocol: Mapping[str, Any]) -> set[str]:
    """Metrics of benchmarks that were not evaluated."""
    sections = protocol.get("benchmarks", {}).values()
    return {name for facts in sections if "hole" in facts for name in facts["metric"]}


def suite_means_of(protocol: Mapping[str, Any]) -> dict[str, int]:
    """Mean of a suite -> number of its benchmarks."""
    return {suite_mean_name(s): len(names) for s, names in protocol.get("suites", {}).items()}


def lacking(entry: Mapping[str, Any], terms: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """The numbers that an evaluation of today would have beside those of `entry`.

    Args:
        terms: names of the run's loss terms that are on.

    Returns:
        Name -> what a record says of it: no value, and why.
    """
    versions = entry["protocol"]["metrics"]
    return {
        f"{place.name}/{metric.kind}": _hole(place, metric, versions.get(metric.kind))
        for place in [*places_of(entry["protocol"]), *_unmeasured(entry["protocol"], terms)]
        for metric in metrics_for(place.needs)
        if versions.get(metric.kind) != metric.version
    }


def _unmeasured(protocol: Mapping[str, Any], terms: Iterable[str]) -> Iterator[Place]:
    """Where the terms of a run would be measured that was evaluated before they were.

    Which splits its data have is not on record, so that it is the one that they are for.
    """
    if "terms" not in protocol and protocol["splits"]:
        yield from (Place(VALIDATION, term, {"captions": 0}) for term in terms)


def _hole(place: Place, metric: Metric, version: int | None) -> dict[str, Any]:
    wanted = metric.title if version is None else f"{metric.title} of version {metric.version}"
    than = "" if version is None else f", which has version {version}"
    reason = f"{wanted} is newer than this evaluation{than}; --rerun metrics computes it without "
    missing = Value(None, metric.count(place.facts), reason=f"{reason}training")
    return missing.recorded(metric.described())
