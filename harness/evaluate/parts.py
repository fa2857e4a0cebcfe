"""A test set's numbers for one model, kept by themselves: public benchmarks and class sets.

A part is keyed by all that its numbers depend on, so that an evaluation that was cut off goes on
with the next test set, and whoever asks for the same numbers again finds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import ClassFolder, Evaluate, Runtime, content_key
from harness.data.catalog import cache_dir, notes_on, open_class_folder
from harness.data.class_sets import SPLIT
from harness.data.dataset import DataSet
from harness.errors import NOT_WHOLE, InvariantError, RecordError
from harness.evaluate import invariants
from harness.evaluate.embed import EmbeddedBatch, Share, Work, alone, precision_of
from harness.evaluate.label_checks import suspicions
from harness.evaluate.model import Encoders, Identity
from harness.evaluate.scoring.choice import score_choices
from harness.evaluate.scoring.job import Findings, Job, npz
from harness.evaluate.scoring.relevance import score_relevance
from harness.evaluate.scoring.score import TaskClassifier, TestSet, facts_of, score, task_protocol
from harness.evaluate.suites import benchmarks_of
from harness.evaluate.suites.choices import ChoiceSet
from harness.evaluate.suites.relevance import RelevanceSet
from harness.evaluate.text_cache import TextCache
from harness.files import read_json, read_npz, write_atomic, write_json
from harness.metrics import CLASSIFICATION, OWN_SUITES, RETRIEVAL, rules, versions
from harness.store.checksums import OUTCOMES

FOLDER = "benchmarks"
_SCHEMA = 1


def protocol_head(settings: Evaluate, precision: str, terms: Iterable[str] = ()) -> dict[str, Any]:
    """What every protocol begins with; its sections are empty.

    Args:
        terms: names of the loss terms that are on, of which there are metrics too.
    """
    tasks = {RETRIEVAL, CLASSIFICATION, *(b.task for b in benchmarks_of(settings.suites))}
    found = versions([*sorted(tasks), *(set(settings.suites) & set(OWN_SUITES)), *terms])
    return {
        "metrics": found,
        "rules": rules(found),
        "precision": precision,
        "batch_size": settings.batch_size,
        "splits": {},
        "tasks": {},
        "class_folders": {},
    }


@dataclass(frozen=True)
class FoundTestSet:
    """A test set that has been found, and is opened once it is needed.

    Attributes:
        name: what its metrics are called by.
        task: `retrieval`, or the `classification` of its pictures.
        about: what a protocol says of it besides what is counted.
        by_batch: whether batches are normalised and not pictures, which is faster and has the last
            bits of a convolution in another order.
    """

    name: str
    task: str
    fingerprint: str
    open: Callable[[], DataSet]
    about: Mapping[str, Any]
    by_batch: bool = True


def class_set(folder: ClassFolder, runtime: Runtime) -> FoundTestSet:
    """A class folder as a test set; DataError when it is none."""
    data = open_class_folder(folder, runtime)
    about = {"notes": notes_on(data, runtime)}
    opened = partial(open_class_folder, folder, runtime)
    return FoundTestSet(folder.name, CLASSIFICATION, data.fingerprint, opened, about, False)


@dataclass(frozen=True)
class Part:
    """One test set's numbers for one model.

    Attributes:
        metrics, protocol: as in an entry, of this test set alone.
        outcomes: file of its per-example outcomes.
    """

    name: str
    key: str
    metrics: Mapping[str, Mapping[str, Any]]
    protocol: Mapping[str, Any]
    outcomes: Path

    def arrays(self) -> dict[str, np.ndarray]:
        """The per-example outcomes by name."""
        return read_npz(self.outcomes, None)


def part_key(identity: Identity, place: FoundTestSet, precision: str) -> str:
    """Key of one test set's numbers: everything that changes them, and nothing else."""
    return content_key(
        {
            "model": identity.plain(),
            "data": place.fingerprint,
            "precision": precision,
            "metrics": versions([place.task]),
        },
        digits=16,
    )


def evaluate_part(
    model: Encoders,
    identity: Identity,
    place: FoundTestSet,
    settings: Evaluate,
    runtime: Runtime,
    store: Path,
    share: Share = alone,
) -> Part:
    """The part in `store`, evaluated first unless it is there.

    Args:
        share: see `embed_images`; asked for the set by its name and fingerprint.

    Raises:
        DataError: the data cannot be read or is not the benchmark's.
        InvariantError: NaN, a collapsed tower, or numbers that contradict one another.
    """
    device = next(model.parameters()).device
    precision = precision_of(model, settings)
    key = part_key(identity, place, precision)
    kept = kept_part(store, place, key)
    if kept is not None:
        return kept
    data = place.open()
    data.prepare()
    of_set = {"set": place.name, "fingerprint": place.fingerprint}

    def shared(asked: Mapping[str, Any], work: Work) -> Iterable[EmbeddedBatch]:
        return share({**asked, **of_set}, work)

    job = Job(model, settings, runtime, Findings(), place.by_batch, shared)
    kind = f"{precision}-{device.type}"
    cache = TextCache(cache_dir(runtime), identity.text_tower, kind, job.texts)
    protocol = {
        "key": key,
        "task": place.task,
        **place.about,
        "fingerprint": place.fingerprint,
        "precision": precision,
        "batch_size": settings.batch_size,
        "model": identity.plain(),
        **_score(job, place, data, cache),
    }
    part = Part(place.name, key, job.found.metrics, protocol, _file(store, place, key))
    invariants.check_part(part.name, part.metrics, part.protocol)
    arrays = npz(job.found.outcomes)
    write_atomic(part.outcomes, arrays)
    written = {"schema": _SCHEMA, "key": key, "metrics": part.metrics, "protocol": protocol}
    written[OUTCOMES] = hashlib.sha256(arrays).hexdigest()
    write_json(part.outcomes.with_suffix(".json"), written)
    return part


def kept_part(store: Path, place: FoundTestSet, key: str) -> Part | None:
    """The part of this key, if it is there and whole; its numbers are checked again."""
    outcomes = _file(store, place, key)
    file = outcomes.with_suffix(".json")
    try:
        written = read_json(file)
    except RecordError:  # damaged: evaluated anew
        return None
    if (
        written is None
        or written.get("schema") != _SCHEMA
        or written.get("key") != key
        or not _is_whole(outcomes, written.get(OUTCOMES))
    ):
        return None
    try:
        invariants.check_part(place.name, written["metrics"], written["protocol"])
    except (InvariantError, *NOT_WHOLE) as error:
        raise RecordError(f"{file} was edited ({error}); delete it to evaluate anew") from error
    return Part(place.name, key, written["metrics"], written["protocol"], outcomes)


def _is_whole(outcomes: Path, sha256: str | None) -> bool:
    """Whether outcomes are as they were written; those of earlier versions can be read at least."""
    try:
        read_npz(outcomes, sha256)
    except (OSError, ValueError):
        return False
    return True


def _file(store: Path, place: FoundTestSet, key: str) -> Path:
    return store / FOLDER / f"{place.name}-{key}.npz"


def _score(job: Job, place: FoundTestSet, data: DataSet, cache: TextCache) -> dict[str, Any]:
    if isinstance(data, ChoiceSet | RelevanceSet):
        split = data.split(SPLIT)
        pictures = job.pictures(data, split)
        facts = facts_of(split, pictures.problems) | {"warnings": []}
        if isinstance(data, RelevanceSet):
            return {**facts, "queries": score_relevance(job, place.name, data, pictures)}
        items = score_choices(job, place.name, split.images, pictures, data.items)
        return {**facts, "items": items}
    if place.task == RETRIEVAL:
        return {**score(job, TestSet(place.name, data, SPLIT)).facts, "warnings": []}
    task = data.tasks[0]
    of = TaskClassifier(task, task.templates, cache.weights(task.classnames, task.templates))
    scored = score(job, TestSet(place.name, data, SPLIT, {place.name: of}))
    found = scored.answers[place.name]
    return {
        **{what: scored.facts[what] for what in ("images", "excluded")},
        **task_protocol(of),
        "warnings": suspicions(found.predictions, found.labels, found.classes),
    }
