"""Public benchmarks on one model: each a part of its own on disk, then combined into one entry.

A part is keyed by all that its numbers depend on, so that a run that was cut off goes on with the
next data set, and whoever asks for the same numbers again finds them.  A benchmark that is not on
disk is a hole with its reason, and no mean is taken over it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import Evaluate, Runtime, content_key
from harness.data.catalog import cache_dir
from harness.data.dataset import DataSet
from harness.device import Precision, resolve_precision
from harness.errors import InvariantError, RecordError
from harness.evaluate import invariants
from harness.evaluate.embed import PRECISION_FIELD
from harness.evaluate.label_checks import suspicions
from harness.evaluate.model import Encoders, Identity
from harness.evaluate.scoring import (
    Findings,
    Job,
    TaskClassifier,
    TestSet,
    npz,
    score,
    task_protocol,
)
from harness.evaluate.suites import SUITES, benchmarks_of
from harness.evaluate.suites.find import Found, Hole
from harness.evaluate.suites.open import SPLIT, open_found
from harness.evaluate.suites.records import Benchmark
from harness.evaluate.text_cache import TextCache
from harness.files import write_atomic
from harness.metrics import RETRIEVAL, described, headline_metrics, suite_mean_name, versions

FOLDER = "benchmarks"
_SCHEMA = 1


@dataclass(frozen=True)
class Part:
    """One benchmark's numbers for one model.

    Attributes:
        metrics, protocol: as in an entry, of this benchmark alone.
        outcomes: file of its per-example outcomes.
    """

    name: str
    key: str
    metrics: Mapping[str, Mapping[str, Any]]
    protocol: Mapping[str, Any]
    outcomes: Path

    def arrays(self) -> dict[str, np.ndarray]:
        """The per-example outcomes by name."""
        with np.load(self.outcomes, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}


def part_key(identity: Identity, found: Found, precision: Precision) -> str:
    """Key of one benchmark's numbers: everything that changes them, and nothing else."""
    return content_key(
        {
            "model": identity.plain(),
            "data": found.fingerprint,
            "precision": precision,
            "metrics": versions([found.benchmark.task]),
        },
        digits=16,
    )


def evaluate_part(
    model: Encoders,
    identity: Identity,
    found: Found,
    settings: Evaluate,
    runtime: Runtime,
    store: Path,
) -> Part:
    """The part in `store`, evaluated first unless it is there.

    Raises:
        DataError: the data cannot be read or is not the benchmark's.
        InvariantError: NaN, a collapsed tower, or numbers that contradict one another.
    """
    device = next(model.parameters()).device
    precision = resolve_precision(settings.precision, device, PRECISION_FIELD)
    key = part_key(identity, found, precision)
    kept = kept_part(store, found.benchmark, key)
    if kept is not None:
        return kept
    data = open_found(found, cache_dir(runtime))
    data.prepare()
    job = Job(model, settings, runtime, Findings(), by_batch=True)
    cache = TextCache(
        cache_dir(runtime), identity.text_tower, f"{precision}-{device.type}", job.texts
    )
    facts = _score(job, found.benchmark, data, cache)
    protocol = {
        "key": key,
        "task": found.benchmark.task,
        "metric": headline_metrics(found.benchmark),
        "source": found.benchmark.source,
        "split": found.benchmark.split,
        "fingerprint": found.fingerprint,
        "layout": found.layout,
        "precision": precision,
        "batch_size": settings.batch_size,
        "model": identity.plain(),
        **facts,
    }
    part = Part(
        found.benchmark.name, key, job.found.metrics, protocol, _file(store, found.benchmark, key)
    )
    invariants.check_part(part.name, part.metrics, part.protocol)
    write_atomic(part.outcomes, npz(job.found.outcomes))
    text = json.dumps(
        {"schema": _SCHEMA, "key": key, "metrics": part.metrics, "protocol": protocol},
        indent=1,
        sort_keys=True,
        allow_nan=False,
    )
    write_atomic(part.outcomes.with_suffix(".json"), (text + "\n").encode())
    return part


def kept_part(store: Path, benchmark: Benchmark, key: str) -> Part | None:
    """The part of this key, if it is there and whole; its numbers are checked again."""
    outcomes = _file(store, benchmark, key)
    file = outcomes.with_suffix(".json")
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    whole = isinstance(written, dict) and written.get("schema") == _SCHEMA
    if not whole or written.get("key") != key or not outcomes.exists():
        return None
    try:
        invariants.check_part(benchmark.name, written["metrics"], written["protocol"])
    except (InvariantError, KeyError) as error:
        raise RecordError(f"{file} was edited ({error}); delete it to evaluate anew") from error
    return Part(benchmark.name, key, written["metrics"], written["protocol"], outcomes)


def _file(store: Path, benchmark: Benchmark, key: str) -> Path:
    return store / FOLDER / f"{benchmark.name}-{key}.npz"


# --------------------------------------------------------------------------- scoring


def _score(job: Job, benchmark: Benchmark, data: DataSet, cache: TextCache) -> dict[str, Any]:
    if benchmark.task == RETRIEVAL:
        facts, _ = score(job, TestSet(benchmark.name, data, SPLIT))
        return {**facts, "warnings": []}
    task = data.tasks[0]
    of = TaskClassifier(task, task.templates, cache.weights(task.classnames, task.templates))
    facts, answers = score(job, TestSet(benchmark.name, data, SPLIT, {benchmark.name: of}))
    found = answers[benchmark.name]
    return {
        **{what: facts[what] for what in ("images", "excluded")},
        **task_protocol(of),
        "warnings": suspicions(found.predictions, found.labels, found.classes),
    }


# --------------------------------------------------------------------------- one entry


def combine(
    suites: Sequence[str], parts: Mapping[str, Part | Hole]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Metrics and the protocol's sections of several suites, from the parts of their benchmarks.

    A hole's metrics are null with the reason, and so is the mean of a suite that has one.
    """
    metrics: dict[str, dict[str, Any]] = {}
    sections: dict[str, Any] = {}
    for benchmark in benchmarks_of(suites):
        part = parts[benchmark.name]
        if isinstance(part, Part):
            metrics |= {name: dict(metric) for name, metric in part.metrics.items()}
            sections[benchmark.name] = dict(part.protocol)
        else:
            headline = headline_metrics(benchmark)
            metrics |= {name: _none(name, part.brief) for name in headline}
            sections[benchmark.name] = {"hole": part.brief, "metric": headline}
    groups = {name: [b.name for b in SUITES[name]] for name in suites if name in SUITES}
    for suite, names in groups.items():
        metrics[suite_mean_name(suite)] = _mean(suite, names, metrics, sections)
    return metrics, {"benchmarks": sections, "suites": groups}


def _none(name: str, reason: str, n: int = 0) -> dict[str, Any]:
    return {"value": None, "n": n, "chance": None, "reason": reason, **_description(name)}


def _description(name: str) -> dict[str, Any]:
    found = described(name)
    return {} if found is None else found.plain()


def _mean(
    suite: str,
    names: Sequence[str],
    metrics: Mapping[str, Mapping[str, Any]],
    sections: Mapping[str, Any],
) -> dict[str, Any]:
    missing = [name for name in names if "hole" in sections[name]]
    if missing:
        reason = f"{len(missing)} of {len(names)} sets of {suite} are missing: {', '.join(missing)}"
        return _none(suite_mean_name(suite), reason, len(names))
    means = {
        what: invariants.mean_of_benchmarks([sections[n]["metric"] for n in names], metrics, what)
        for what in ("value", "chance")
    }
    return {**means, "n": len(names), "reason": None, **_description(suite_mean_name(suite))}
