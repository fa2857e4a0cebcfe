"""The suites over a run's own splits: probes, geometry, calibration, length of texts.

All from embeddings that an evaluation has already; of the splits that something is fitted on, each
labelled picture is embedded once.  What each suite computes is in `scoring`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.config import VALIDATION
from harness.data.dataset import DataSet, Split, Task
from harness.evaluate.embed import embed_shortened
from harness.evaluate.scoring.job import Job
from harness.evaluate.scoring.probe import Rows, probe
from harness.evaluate.scoring.retrieval import own_relevance, rank_both_ways
from harness.evaluate.scoring.score import Scored, TaskClassifier, applies
from harness.evaluate.scoring.zeroshot import classify, fitted_temperature
from harness.metrics import (
    CALIBRATION,
    FITTED_ON,
    GEOMETRY,
    LENGTH,
    OWN_SUITES,
    PROBE,
    WAYS,
    Embedded,
    Ranking,
    why_not_fitted,
)
from harness.metrics.text_length import LENGTHS, Shortened

Facts = dict[str, Any]


def measure_own_suites(
    job: Job, data: DataSet, splits: Mapping[str, Scored], tasks: Sequence[TaskClassifier]
) -> dict[str, dict[str, Facts]]:
    """Compute every metric of the suites that are on; suite -> place -> facts of the protocol.

    Args:
        splits: the evaluated ones.
        tasks: those of `data` with the prompts' classifiers.

    Raises:
        DataError: too many pictures cannot be read.
        InvariantError: an embedding is not finite, or all are equal.
    """
    labelled = _Labelled(job, data, splits)
    found: dict[str, dict[str, Facts]] = {}
    for suite in job.settings.suites:
        if suite in _OF_CAPTIONS:
            captioned = [name for name, each in splits.items() if each.texts is not None]
            of = _OF_CAPTIONS[suite]
            found[suite] = {name: of(job, name, splits[name]) for name in captioned}
        elif suite in OWN_SUITES:
            found[suite] = {
                f"{name}/{of.task.name}": _fitted(suite, job, name, of, labelled)
                for name, of in product(splits, tasks)
                if applies(of.task, name)
            }
    return found


def _fitted(suite: str, job: Job, name: str, of: TaskClassifier, labelled: _Labelled) -> Facts:
    """What is fitted for one task of an evaluated split, or why it is not."""
    place, task = f"{name}/{of.task.name}", of.task
    test = labelled.of(name, task)
    facts: Facts = {"images": len(test.labels)}
    reason = why_not_fitted(task, name, suite)
    rows = {} if reason else {each: labelled.of(each, task) for each in FITTED_ON[suite]}
    if not all(len(each.labels) for each in rows.values()):
        reason = f"every labelled picture of {' or of '.join(rows)} is unreadable"
    if reason is not None:
        job.found.leave_out(place, suite, facts, reason)
        return facts
    if suite == PROBE:
        found = probe(rows["train"], rows[VALIDATION], test, len(task.classnames), task.name)
        job.found.compute(place, suite, found)
    else:
        facts["temperature"] = _calibrate(job, place, of, test, rows[VALIDATION])
    return facts | {each: len(those.labels) for each, those in rows.items()}


def _calibrate(job: Job, place: str, of: TaskClassifier, test: Rows, validation: Rows) -> float:
    """Compute what a temperature by `validation` gives on `test`; returns it."""
    features, labels = _tensors(validation)
    temperature = fitted_temperature(job.logit_scale * features @ of.weights.T, labels)
    features, labels = _tensors(test)
    found = classify(features, of.weights, labels, job.logit_scale / temperature)
    job.found.compute(place, CALIBRATION, found)
    return temperature


def _geometry(job: Job, name: str, scored: Scored) -> Facts:
    assert scored.texts is not None
    owners = np.array(scored.owners, dtype=np.int64)
    image, text = scored.pictures.embeddings.numpy(), scored.texts.numpy()
    job.found.compute(name, GEOMETRY, Embedded(image, text, owners))
    return _sizes(scored)


def _shorten(job: Job, name: str, scored: Scored) -> Facts:
    shortened = embed_shortened(job.model, scored.captions, LENGTHS, job.settings, job.share)
    image = scored.pictures.embeddings
    rules = [own_relevance(scored.owners, len(image))]
    assert scored.texts is not None
    rankings: dict[tuple[str, int], Ranking] = {}
    for tokens, text in {0: scored.texts, **shortened}.items():
        (both,) = rank_both_ways(image, text, rules)
        rankings |= {(way, tokens): ranking for way, ranking in zip(WAYS, both, strict=True)}
    job.found.compute(name, LENGTH, Shortened(rankings))
    return _sizes(scored)


def _sizes(scored: Scored) -> Facts:
    return {what: scored.facts[what] for what in ("images", "captioned", "captions")}


_OF_CAPTIONS: Mapping[str, Callable[[Job, str, Scored], Facts]] = {
    GEOMETRY: _geometry,
    LENGTH: _shorten,
}


def _tensors(rows: Rows) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(rows.features).float(), torch.from_numpy(rows.labels)


class _Labelled:
    """The labelled pictures of every split of a data set, embedded when they are asked for."""

    def __init__(self, job: Job, data: DataSet, splits: Mapping[str, Scored]) -> None:
        self._job, self._data = job, data
        self._seen = {name: _evaluated(scored) for name, scored in splits.items()}

    def of(self, split: str, task: Task) -> Rows:
        """Features and labels of the pictures of `split` that have a label of `task`."""
        if split not in self._seen:
            self._seen[split] = self._embedded(split)
        places, features = self._seen[split]
        labels = np.asarray(task.labels[split], dtype=np.int64)[places]
        return Rows(features[labels >= 0], labels[labels >= 0])

    def _embedded(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Place in the split, and features, of every picture with a label of any task."""
        split = self._data.split(name)
        labels = [task.labels[name] for task in self._data.tasks if name in task.labels]
        places = np.flatnonzero((np.array(labels) >= 0).any(axis=0))
        images = [split.images[place] for place in places]
        found = self._job.pictures(self._data, Split(images, [()] * len(images)))
        return places[list(found.kept)], found.embeddings.double().numpy()


def _evaluated(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    return np.array(scored.pictures.kept), scored.pictures.embeddings.double().numpy()
