"""Embeddings of one data set to metrics, per-example outcomes and the facts behind them.

Shared by a run's own splits, class folders and public benchmarks; the definitions are in
`retrieval` and `zeroshot`, the encoding in `embed`.  Knows nothing of where numbers are kept.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from harness.config import Evaluate, Runtime
from harness.data.dataset import DataSet, Problem, Split, Task
from harness.errors import DataError
from harness.evaluate.embed import Pictures, embed_images, embed_texts
from harness.evaluate.retrieval import (
    Recall,
    both_recalls,
    normalise_caption,
    own_relevance,
    shared_relevance,
)
from harness.evaluate.zeroshot import Classification, classifier, classify, prompts
from harness.metrics import (
    ACC5_CLASSES,
    IMAGE_RETRIEVAL,
    KS,
    MEAN_PER_CLASS_RECALL,
    TEXT_RETRIEVAL,
    accuracy_chance,
    mean_recall_name,
    recall_chance,
    recall_name,
    recall_names,
)

if TYPE_CHECKING:
    from harness.evaluate.model import Encoders


@dataclass
class Findings:
    """Metrics and outcomes as they are gathered."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, np.ndarray] = field(default_factory=dict)

    def metric(
        self,
        name: str,
        value: float | None,
        n: int,
        chance: float | None,
        reason: str | None = None,
    ) -> None:
        """One metric; without a value there is a reason."""
        self.metrics[name] = {"value": value, "n": n, "chance": chance, "reason": reason}

    def mean_of(self, name: str, outcomes: Tensor, chance: float) -> None:
        """A metric that is the mean of per-example `outcomes` (N,), which are kept."""
        self.outcomes[name] = _compact(outcomes)
        self.metric(name, float(outcomes.mean()), len(outcomes), chance)


@dataclass(frozen=True)
class Job:
    """What stays the same throughout one evaluation."""

    model: Encoders
    settings: Evaluate
    runtime: Runtime
    found: Findings
    by_batch: bool = False

    def pictures(self, data: DataSet, split: Split) -> Pictures:
        """Embeddings of the pictures of a split."""
        return embed_images(
            self.model,
            data,
            split.images,
            self.settings,
            self.runtime,
            by_batch=self.by_batch,
        )

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit-norm embeddings (N, D) of N texts."""
        return embed_texts(self.model, texts, self.settings)


@dataclass(frozen=True)
class TaskClassifier:
    """A task, its prompt templates and the weights (C, D) they make."""

    task: Task
    templates: tuple[str, ...]
    weights: Tensor


def some_left(count: int, what: str) -> None:
    """Raise DataError, naming `what` is wanted, if none is left."""
    if not count:
        raise DataError(f"every {what} is unreadable: nothing is left to evaluate")


def facts_of(split: Split, pictures: Pictures) -> dict[str, Any]:
    """Sizes counted from the data, independently of any metric."""
    left_out = {problem.where for problem in pictures.problems}
    rows = zip(split.images, split.captions, strict=True)
    counts = [len(captions) for image, captions in rows if image not in left_out]
    return {
        "images": len(counts),
        "captioned": sum(n > 0 for n in counts),
        "captions": sum(counts),
        "excluded": excluded(pictures.problems),
    }


def excluded(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """Pictures left out, as plain values."""
    return [{"where": problem.where, "reason": problem.reason} for problem in problems]


def names_of(split: Split, pictures: Pictures) -> np.ndarray:
    """Names of the pictures that were embedded."""
    return np.array([split.images[place] for place in pictures.kept], dtype=np.str_)


# --------------------------------------------------------------------------- retrieval


def retrieve(job: Job, name: str, split: Split, pictures: Pictures) -> dict[str, Any]:
    """Both directions under both rules; returns facts about the captions."""
    owned = [split.captions[place] for place in pictures.kept]
    captions = [text for texts in owned for text in texts]
    index = [image for image, texts in enumerate(owned) for _ in texts]
    text = job.texts(captions)
    image = pictures.embeddings
    rules = [
        own_relevance(index, len(image)),
        shared_relevance(captions, index, len(image)),
    ]
    queries_of_both = len(captions) + sum(map(bool, owned))
    for shared, recalls in zip((False, True), both_recalls(image, text, rules), strict=True):
        for way, recall in zip((IMAGE_RETRIEVAL, TEXT_RETRIEVAL), recalls, strict=True):
            _record_recall(name, way, recall, job.found, shared=shared)
        _record_mean_recall(name, queries_of_both, job.found, shared=shared)
    job.found.outcomes[f"{name}/items/{IMAGE_RETRIEVAL}"] = np.array(index, dtype=np.int32)
    queries = [image for image, texts in enumerate(owned) if texts]
    job.found.outcomes[f"{name}/items/{TEXT_RETRIEVAL}"] = np.array(queries, dtype=np.int32)
    pools = {IMAGE_RETRIEVAL: len(image), TEXT_RETRIEVAL: len(captions)}
    return {
        "shared_captions": _shared(owned),
        "truncated_captions": sum(map(job.model.tokenizer.is_truncated, captions)),
        "k_beyond_pool": [f"{way}@{k}" for way, pool in pools.items() for k in KS if k > pool],
    }


def _record_recall(split: str, way: str, recall: Recall, found: Findings, *, shared: bool) -> None:
    positives = recall.positives.tolist()
    for k in KS:
        name = recall_name(split, way, k, shared=shared)
        found.mean_of(name, recall.at(k), recall_chance(recall.pool, positives, k))


def _record_mean_recall(split: str, n: int, found: Findings, *, shared: bool) -> None:
    six = [found.metrics[name] for name in recall_names(split, shared=shared)]
    value, chance = (sum(metric[what] for metric in six) / len(six) for what in ("value", "chance"))
    found.metric(mean_recall_name(split, shared=shared), value, n, chance)


def _shared(owned: Sequence[Sequence[str]]) -> int:
    """Captions that another picture owns too."""
    texts = [{normalise_caption(text) for text in captions} for captions in owned]
    owners = Counter(text for of_image in texts for text in of_image)
    return sum(owners[normalise_caption(text)] > 1 for captions in owned for text in captions)


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


def kept_labels(task: Task, split: str, pictures: Pictures) -> list[int]:
    """Labels of the pictures that were embedded; none if the split has none."""
    labels = task.labels.get(split)
    return [] if labels is None else [labels[place] for place in pictures.kept]


def classify_task(
    place: str, of: TaskClassifier, split: str, pictures: Pictures, found: Findings
) -> None:
    """Score the labelled pictures; metrics and outcomes go to `found`, under `place`."""
    labels = torch.tensor(kept_labels(of.task, split, pictures), dtype=torch.int64)
    chosen = torch.nonzero(labels >= 0).flatten()
    outcome = classify(pictures.embeddings[chosen], of.weights, labels[chosen])
    found.outcomes[f"{place}/items"] = chosen.numpy().astype(np.int32)
    found.outcomes[f"{place}/labels"] = outcome.labels.numpy().astype(np.int32)
    _record_classification(place, outcome, found)


def _record_classification(place: str, outcome: Classification, found: Findings) -> None:
    classes, n = outcome.classes, len(outcome.labels)
    chance = accuracy_chance(classes)
    found.mean_of(f"{place}/acc1", outcome.top(1), chance)
    if classes >= ACC5_CLASSES:
        found.mean_of(f"{place}/acc5", outcome.top(5), accuracy_chance(classes, 5))
    else:
        reason = f"{classes} classes, at least {ACC5_CLASSES} are needed"
        found.metric(f"{place}/acc5", None, n, None, reason)
    found.metric(f"{place}/{MEAN_PER_CLASS_RECALL}", outcome.mean_per_class_recall, n, chance)


def task_protocol(of: TaskClassifier) -> dict[str, Any]:
    """What was asked of the text tower, as plain values."""
    return {
        "classes": len(of.task.classnames),
        "classnames": list(of.task.classnames),
        "templates": list(of.templates),
    }


# --------------------------------------------------------------------------- outcomes


def _compact(outcomes: Tensor) -> np.ndarray:
    """uint8 when every outcome is 0 or 1, float32 when a tie made one fractional."""
    values = outcomes.numpy()
    whole = bool(np.isin(values, (0.0, 1.0)).all())
    return values.astype(np.uint8 if whole else np.float32)


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as a compressed .npz, the same bytes for the same arrays (no time is stored)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, arrays[name], allow_pickle=False)
    return buffer.getvalue()
