"""A test set to metrics, per-example outcomes and the facts behind them.

A split, a class folder and a public benchmark are one kind of thing here; the definitions are in
`retrieval` and `zeroshot`, the encoding in `embed`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.account import Problem
from harness.data.captions import normalise_caption
from harness.data.classnames import prompts
from harness.data.dataset import DataSet, Split, Task
from harness.errors import DataError
from harness.evaluate.embed import Pictures
from harness.evaluate.scoring.job import Job
from harness.evaluate.scoring.retrieval import (
    own_relevance,
    rank_both_ways,
    shared_relevance,
)
from harness.evaluate.scoring.zeroshot import classifier, classify
from harness.metrics import (
    CLASSIFICATION,
    KS,
    RETRIEVAL,
    WAYS,
    Classified,
    Retrieved,
    items_of_way,
    recall_kind,
)


@dataclass(frozen=True)
class TaskClassifier:
    """A task, its prompt templates and the weights (C, D) they make."""

    task: Task
    templates: tuple[str, ...]
    weights: Tensor


@dataclass(frozen=True)
class TestSet:
    """Pictures with captions, labels or both, whose numbers have one name before them.

    Attributes:
        split: the one of `data` that is tested on.
        tasks: place of its metrics -> a task that the pictures have labels of.
    """

    name: str
    data: DataSet
    split: str
    tasks: Mapping[str, TaskClassifier] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """A test set as it was scored, and the embeddings, from which more can be told.

    Attributes:
        facts: counted from the data.
        answers: place of a task -> what was answered.
        captions: those of the pictures that could be read.
        texts: float32 (M, D), what they were embedded to; None without captions.
        owners: of each caption, its picture's row among `pictures`.
    """

    facts: dict[str, Any]
    answers: dict[str, Classified]
    pictures: Pictures
    captions: list[str]
    texts: Tensor | None
    owners: list[int]


def score(job: Job, test_set: TestSet) -> Scored:
    """Compute every metric of a test set that its captions and labels give.

    Raises:
        DataError: no picture of one of its parts can be read.
    """
    name, split = test_set.name, test_set.data.split(test_set.split)
    pictures = job.pictures(test_set.data, split)
    job.found.note_images(name, (split.images[place] for place in pictures.kept))
    facts = facts_of(split, pictures.problems)
    owned = [split.captions[place] for place in pictures.kept]
    owners = [image for image, of_image in enumerate(owned) for _ in of_image]
    captions = [text for of_image in owned for text in of_image]
    texts = None
    if any(split.captions):
        _some_left(facts["captions"], f"captioned picture of {name!r}")
        texts = job.texts(captions)
        facts |= _retrieve(job, name, captions, owners, pictures.embeddings, texts)
    answers = {
        place: _classify(job, place, of, test_set.split, pictures)
        for place, of in test_set.tasks.items()
    }
    return Scored(facts, answers, pictures, captions, texts, owners)


def _some_left(count: int, what: str) -> None:
    if not count:
        raise DataError(f"every {what} is unreadable: nothing is left to evaluate")


def facts_of(split: Split, problems: Sequence[Problem]) -> dict[str, Any]:
    """Sizes without the pictures that could not be read, independently of any metric."""
    left_out = {problem.where for problem in problems}
    rows = zip(split.images, split.captions, strict=True)
    counts = [len(captions) for image, captions in rows if image not in left_out]
    return {
        "images": len(counts),
        "captioned": sum(n > 0 for n in counts),
        "captions": sum(counts),
        "excluded": [{"where": p.where, "reason": p.reason} for p in problems],
    }


# --------------------------------------------------------------------------- retrieval


def _retrieve(
    job: Job,
    name: str,
    captions: Sequence[str],
    owners: Sequence[int],
    image: Tensor,
    text: Tensor,
) -> dict[str, Any]:
    """Both directions under both rules; returns facts about the captions."""
    rules = [
        own_relevance(owners, len(image)),
        shared_relevance(captions, owners, len(image)),
    ]
    both = zip((False, True), rank_both_ways(image, text, rules), strict=True)
    found = {(way, shared): r for shared, pair in both for way, r in zip(WAYS, pair, strict=True)}
    job.found.compute(name, RETRIEVAL, Retrieved(found))
    for way, items in zip(WAYS, (owners, list(dict.fromkeys(owners))), strict=True):
        job.found.outcomes[f"{name}/{items_of_way(way)}"] = np.array(items, dtype=np.int32)
    pools = dict(zip(WAYS, (len(image), len(captions)), strict=True))
    return {
        "shared_captions": _shared(captions, owners),
        "truncated_captions": sum(map(job.model.tokenizer.is_truncated, captions)),
        "k_beyond_pool": [
            recall_kind(way, k) for way, pool in pools.items() for k in KS if k > pool
        ],
    }


def _shared(captions: Sequence[str], owners: Sequence[int]) -> int:
    """Captions that another picture owns too."""
    texts = [normalise_caption(text) for text in captions]
    pictures = Counter(text for _, text in set(zip(owners, texts, strict=True)))
    return sum(pictures[text] > 1 for text in texts)


# --------------------------------------------------------------------------- classification


def applies(task: Task, split: str) -> bool:
    """Whether a picture of the split has a label of the task."""
    return any(label >= 0 for label in task.labels.get(split, ()))


def with_weights(job: Job, tasks: Sequence[tuple[Task, tuple[str, ...]]]) -> list[TaskClassifier]:
    """A classifier of each task, with its templates; all prompts are embedded together."""
    texts = [prompts(task.classnames, templates) for task, templates in tasks]
    if not texts:
        return []
    embedded = job.texts([text for part in texts for text in part])
    parts = torch.split(embedded, [len(part) for part in texts])
    return [
        TaskClassifier(task, templates, classifier(part, len(task.classnames)))
        for (task, templates), part in zip(tasks, parts, strict=True)
    ]


def _classify(
    job: Job, place: str, of: TaskClassifier, split: str, pictures: Pictures
) -> Classified:
    """Score the labelled pictures; metrics and outcomes are recorded under `place`."""
    given = of.task.labels[split]
    labels = torch.tensor([given[at] for at in pictures.kept], dtype=torch.int64)
    chosen = torch.nonzero(labels >= 0).flatten()
    _some_left(len(chosen), f"picture of {split!r} for task {of.task.name!r}")
    outcome = classify(pictures.embeddings[chosen], of.weights, labels[chosen], job.logit_scale)
    job.found.outcomes[f"{place}/items"] = chosen.numpy().astype(np.int32)
    job.found.outcomes[f"{place}/labels"] = outcome.labels.astype(np.int32)
    job.found.compute(place, CLASSIFICATION, outcome)
    return outcome


def task_protocol(of: TaskClassifier) -> dict[str, Any]:
    """What was asked of the text tower, as plain values."""
    return {
        "classes": len(of.task.classnames),
        "classnames": list(of.task.classnames),
        "templates": list(of.templates),
    }
