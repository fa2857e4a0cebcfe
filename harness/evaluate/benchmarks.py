"""Suites of public benchmarks on one model: where they are, and one entry of all their parts.

A benchmark that is not on disk is a hole with its reason, and no mean is taken over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from harness.config import Evaluate, Runtime
from harness.data.catalog import cache_dir
from harness.data.dataset import DataSet
from harness.errors import DataError, HarnessError
from harness.evaluate import invariants
from harness.evaluate.parts import FoundTestSet, Part, class_set
from harness.evaluate.suites import SUITES, benchmarks_of
from harness.evaluate.suites.choices import open_choices
from harness.evaluate.suites.find import Found, Hole, find
from harness.evaluate.suites.open import open_found
from harness.evaluate.suites.relevance import open_relevance
from harness.metrics import Value, described, headline_metrics, suite_mean_name
from harness.metrics.choice import CHOICE
from harness.metrics.relevance import RELEVANCE


def place_of(found: Found, runtime: Runtime) -> FoundTestSet:
    """A benchmark that was found, as a test set."""
    benchmark = found.benchmark
    about = {
        "metric": headline_metrics(benchmark),
        "source": benchmark.source,
        "split": benchmark.split,
        "layout": found.layout,
    }
    openers = {CHOICE: open_choices, RELEVANCE: open_relevance}
    opened = partial(openers.get(benchmark.task, open_found), found, cache_dir(runtime))
    return FoundTestSet(benchmark.name, benchmark.task, found.fingerprint, opened, about)


def opened(name: str, fingerprint: str, settings: Evaluate, runtime: Runtime) -> DataSet | None:
    """The class folder or benchmark of that name, ready to be read; None unless it is here, with
    that content."""
    try:
        sets = [class_set(each, runtime) for each in settings.class_folders if each.name == name]
        places = located(settings, runtime.data_root, name)
        sets += [place_of(place, runtime) for place in places if isinstance(place, Found)]
        for place in sets:
            if place.fingerprint == fingerprint:
                data = place.open()
                data.prepare()
                return data
    except (HarnessError, OSError):
        return None
    return None


def located(
    settings: Evaluate, data_root: str | None, name: str | None = None
) -> list[Found | Hole]:
    """Where every benchmark of the suites is, or that called `name`, as it was when the
    configuration was made.

    Raises DataError when the content of one has changed since.
    """
    wanted = [each for each in benchmarks_of(settings.suites) if name in (None, each.name)]
    places = [find(benchmark, data_root) for benchmark in wanted]
    known = {data.name: data.fingerprint for data in settings.benchmarks}
    return [_as_planned(place, known) for place in places]


def _as_planned(place: Found | Hole, known: Mapping[str, str | None]) -> Found | Hole:
    name = place.benchmark.name
    if name not in known:
        return place
    wanted = known[name]
    if isinstance(place, Found) and wanted is None:
        return Hole(place.benchmark, "was not there when this evaluation was planned")
    if isinstance(place, Hole) and wanted is not None:
        raise DataError(f"data set {place}; it was there when this evaluation was planned")
    if isinstance(place, Found) and place.fingerprint != wanted:
        raise DataError(
            f"data set {name} has fingerprint {place.fingerprint[:12]}, but the configuration "
            f"was made for {str(wanted)[:12]}: its content has changed since"
        )
    return place


def combine(
    suites: Sequence[str], parts: Mapping[str, Part | Hole]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Metrics and the protocol's sections of several suites, from the parts of their benchmarks.

    A hole's metrics are null with the reason, and so is the mean of a suite that has one.
    """
    if not suites:
        return {}, {}
    metrics: dict[str, dict[str, Any]] = {}
    sections: dict[str, Any] = {}
    for benchmark in benchmarks_of(suites):
        part = parts[benchmark.name]
        if isinstance(part, Part):
            metrics |= {name: dict(metric) for name, metric in part.metrics.items()}
            sections[benchmark.name] = dict(part.protocol)
        else:
            headline = headline_metrics(benchmark)
            missing = Value(None, 0, reason=part.brief)
            metrics |= {name: missing.recorded(described(name)) for name in headline}
            sections[benchmark.name] = {"hole": part.brief, "metric": headline}
    groups = {name: [b.name for b in SUITES[name]] for name in suites if name in SUITES}
    for suite, names in groups.items():
        metrics[suite_mean_name(suite)] = _mean(suite, names, metrics, sections)
    return metrics, {"benchmarks": sections, "suites": groups}


def _mean(
    suite: str,
    names: Sequence[str],
    metrics: Mapping[str, Mapping[str, Any]],
    sections: Mapping[str, Any],
) -> dict[str, Any]:
    missing = [name for name in names if "hole" in sections[name]]
    if missing:
        reason = f"{len(missing)} of {len(names)} sets of {suite} are missing: {', '.join(missing)}"
        mean = Value(None, len(names), reason=reason)
    else:
        judged = [sections[name]["metric"] for name in names]
        value, chance = (
            invariants.mean_of_benchmarks(judged, metrics, what) for what in ("value", "chance")
        )
        mean = Value(value, len(names), chance)
    return mean.recorded(described(suite_mean_name(suite)))
