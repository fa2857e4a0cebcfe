"""One evaluation: which numbers are computed, under which protocol, and what is kept of them.

Puts the parts together; the definitions are in `retrieval` and `zeroshot`, the encoding in `embed`.
Writes one file, the per-example outcomes; the entry it returns is the caller's to record.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from harness.config import METRIC_VERSION, ClassFolder, Evaluate, RunConfig, Runtime, content_key
from harness.data.catalog import check_evaluated, open_class_folder
from harness.data.dataset import DataSet, Problem, Split, Task
from harness.device import resolve_precision
from harness.errors import ConfigError, DataError
from harness.evaluate import invariants
from harness.evaluate.embed import PRECISION_FIELD, Pictures, embed_images, embed_texts
from harness.evaluate.retrieval import (
    Recall,
    image_to_text,
    normalise_caption,
    shared_relevance,
    strict_relevance,
    text_to_image,
)
from harness.evaluate.zeroshot import Classification, classifier, classify, prompts
from harness.files import write_atomic
from harness.metrics import (
    ACC5_CLASSES,
    IMAGE_RETRIEVAL,
    KS,
    MEAN_PER_CLASS_RECALL,
    MEAN_RECALL,
    TEXT_RETRIEVAL,
    accuracy_chance,
    recall_chance,
    recall_name,
    recall_names,
)

if TYPE_CHECKING:
    from harness.models.two_tower import TwoTower

_RULES = {
    "ties": "expected hit over uniformly random order of equal scores",
    "positives": "any picture owning the identical caption (case, spacing and final punctuation "
    "aside); strict: only the caption's own picture",
    "recall": "share of queries with any positive among the k best; pictures without captions are "
    "in the pool and are no queries",
    "mean_per_class_recall": "over the classes that occur among the labels",
    "chance": "random ranking; uniform guess among the classes",
    "scores": "fp32",
}


@dataclass
class _Findings:
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
        self.metrics[name] = {"value": value, "n": n, "chance": chance, "reason": reason}

    def mean_of(self, name: str, outcomes: Tensor, chance: float) -> None:
        """A metric that is the mean of per-example `outcomes` (N,), which are kept."""
        self.outcomes[name] = _compact(outcomes)
        self.metric(name, float(outcomes.mean()), len(outcomes), chance)


@dataclass(frozen=True)
class _Job:
    """What stays the same throughout one evaluation."""

    model: TwoTower
    settings: Evaluate
    runtime: Runtime
    found: _Findings

    def pictures(self, data: DataSet, split: Split) -> Pictures:
        return embed_images(self.model, data, split.images, self.settings, self.runtime)

    def texts(self, texts: Sequence[str]) -> Tensor:
        return embed_texts(self.model, texts, self.settings)


@dataclass(frozen=True)
class _Classifier:
    """A task, its prompt templates and the weights (C, D) they make."""

    task: Task
    templates: tuple[str, ...]
    weights: Tensor


def evaluate(
    model: TwoTower,
    data: DataSet,
    config: RunConfig,
    runtime: Runtime,
    *,
    checkpoint_sha256: str,
    out: Path | None,
) -> dict[str, Any]:
    """Evaluate `model` as `config.evaluate` asks and check that the numbers can be true.

    Retrieval on every split that has captions, every task that has labels in a split, and every
    class folder.  The per-example outcomes go to `<out>/<evaluation_key>.npz`; `out` is the folder
    `outcomes` of the run's directory, or None to keep the metrics alone.

    Returns:
        {"content_key", "protocol", "metrics", "outcomes"}: plain values for the run's record.

    Raises:
        ConfigError: a split with nothing to evaluate, or bf16 without a GPU.
        DataError: an unknown split, or too many pictures that cannot be read.
        InvariantError: NaN, collapsed towers, or numbers that contradict one another.
    """
    check_evaluated(data, config.evaluate)
    device = next(model.parameters()).device
    precision = resolve_precision(config.evaluate.precision, device, PRECISION_FIELD)
    found = _Findings()
    job = _Job(model, config.evaluate, runtime, found)
    protocol = {
        "metric_version": METRIC_VERSION,
        "rules": _RULES,
        "precision": precision,
        "batch_size": config.evaluate.batch_size,
        "preprocessing": _preprocessing(config),
        "data": {"name": data.name, "fingerprint": data.evaluation_fingerprint},
        **_evaluate_data(job, data),
        "class_folders": {
            folder.name: _evaluate_folder(job, folder) for folder in config.evaluate.class_folders
        },
    }
    file = None if out is None else out / f"{config.evaluation_key}.npz"
    entry = {
        "content_key": content_key({"checkpoint": checkpoint_sha256, "protocol": protocol}),
        "protocol": protocol,
        "metrics": found.metrics,
        "outcomes": None if file is None else f"{file.parent.name}/{file.name}",
    }
    invariants.check(entry)
    if file is not None:
        write_atomic(file, _npz(found.outcomes))
    return entry


def _preprocessing(config: RunConfig) -> dict[str, Any]:
    tower = config.model.image
    return {
        "resize": "shortest side, bicubic",
        "crop": "centre",
        "size": tower.size,
        "mean": list(tower.mean),
        "std": list(tower.std),
    }


# --------------------------------------------------------------------------- the run's own data


def _evaluate_data(job: _Job, data: DataSet) -> dict[str, Any]:
    """All splits asked for; returns the `splits` and `tasks` sections of the protocol."""
    splits = {name: data.split(name) for name in job.settings.splits}
    for name, split in splits.items():
        if not any(split.captions) and not any(_applies(task, name) for task in data.tasks):
            raise ConfigError(
                f"split {name!r} of {data.name} has neither captions nor labels: "
                "nothing to evaluate"
            )
    tasks = [task for task in data.tasks if any(_applies(task, name) for name in splits)]
    classifiers = _classifiers(job, tasks)
    data.prepare()
    return {
        "splits": {name: _evaluate_split(job, data, name, classifiers) for name in splits},
        "tasks": {each.task.name: _task_protocol(each) for each in classifiers},
    }


def _evaluate_split(
    job: _Job, data: DataSet, name: str, classifiers: Sequence[_Classifier]
) -> dict[str, Any]:
    split = data.split(name)
    pictures = job.pictures(data, split)
    job.found.outcomes[f"{name}/items/images"] = _names(split, pictures)
    facts = _facts(split, pictures)
    if any(split.captions):
        _some_left(facts["captions"], f"captioned picture of {name!r}")
        facts |= _retrieve(job, name, split, pictures)
    labelled: dict[str, int] = {}
    for each in classifiers:
        task = each.task
        if _applies(task, name):
            labelled[task.name] = sum(label >= 0 for label in _kept_labels(task, name, pictures))
            _some_left(labelled[task.name], f"picture of {name!r} for task {task.name!r}")
            _classify(f"{name}/{task.name}", each, name, pictures, job.found)
    return {**facts, "labelled": labelled}


def _some_left(count: int, what: str) -> None:
    if not count:
        raise DataError(f"every {what} is unreadable: nothing is left to evaluate")


def _facts(split: Split, pictures: Pictures) -> dict[str, Any]:
    """Sizes counted from the data, independently of any metric."""
    excluded = {problem.where for problem in pictures.problems}
    rows = zip(split.images, split.captions, strict=True)
    counts = [len(captions) for image, captions in rows if image not in excluded]
    return {
        "images": len(counts),
        "captioned": sum(n > 0 for n in counts),
        "captions": sum(counts),
        "excluded": _excluded(pictures.problems),
    }


def _excluded(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"where": problem.where, "reason": problem.reason} for problem in problems]


def _names(split: Split, pictures: Pictures) -> np.ndarray:
    return np.array([split.images[place] for place in pictures.kept], dtype=np.str_)


# --------------------------------------------------------------------------- retrieval


def _retrieve(job: _Job, name: str, split: Split, pictures: Pictures) -> dict[str, Any]:
    """Both directions under both rules; returns facts about the captions."""
    owned = [split.captions[place] for place in pictures.kept]
    captions = [text for texts in owned for text in texts]
    index = [image for image, texts in enumerate(owned) for _ in texts]
    text = job.texts(captions)
    image = pictures.embeddings
    rules = {
        False: shared_relevance(captions, index, len(image)),
        True: strict_relevance(index, len(image)),
    }
    for strict, relevance in rules.items():
        recalls = {
            IMAGE_RETRIEVAL: text_to_image(image, text, relevance),
            TEXT_RETRIEVAL: image_to_text(image, text, relevance),
        }
        for way, recall in recalls.items():
            _record_recall(name, way, recall, job.found, strict=strict)
    _record_mean_recall(name, len(captions) + sum(map(bool, owned)), job.found)
    job.found.outcomes[f"{name}/items/{IMAGE_RETRIEVAL}"] = np.array(index, dtype=np.int32)
    queries = [image for image, texts in enumerate(owned) if texts]
    job.found.outcomes[f"{name}/items/{TEXT_RETRIEVAL}"] = np.array(queries, dtype=np.int32)
    pools = {IMAGE_RETRIEVAL: len(image), TEXT_RETRIEVAL: len(captions)}
    return {
        "shared_captions": _shared(owned),
        "truncated_captions": sum(map(job.model.tokenizer.is_truncated, captions)),
        "k_beyond_pool": [f"{way}@{k}" for way, pool in pools.items() for k in KS if k > pool],
    }


def _record_recall(split: str, way: str, recall: Recall, found: _Findings, *, strict: bool) -> None:
    positives = recall.positives.tolist()
    for k in KS:
        name = recall_name(split, way, k, strict=strict)
        found.mean_of(name, recall.at(k), recall_chance(recall.pool, positives, k))


def _record_mean_recall(split: str, n: int, found: _Findings) -> None:
    six = [found.metrics[name] for name in recall_names(split)]
    value, chance = (sum(metric[what] for metric in six) / len(six) for what in ("value", "chance"))
    found.metric(f"{split}/{MEAN_RECALL}", value, n, chance)


def _shared(owned: Sequence[Sequence[str]]) -> int:
    """Captions that another picture owns too."""
    texts = [{normalise_caption(text) for text in captions} for captions in owned]
    owners = Counter(text for of_image in texts for text in of_image)
    return sum(owners[normalise_caption(text)] > 1 for captions in owned for text in captions)


# --------------------------------------------------------------------------- classification


def _applies(task: Task, split: str) -> bool:
    return any(label >= 0 for label in task.labels.get(split, ()))


def _classifiers(job: _Job, tasks: Sequence[Task]) -> list[_Classifier]:
    """One for each task; the prompts of all of them are embedded together."""
    override = job.settings.templates
    templates = [task.templates if override is None else override for task in tasks]
    return _with_weights(job, list(zip(tasks, templates, strict=True)))


def _with_weights(job: _Job, tasks: Sequence[tuple[Task, tuple[str, ...]]]) -> list[_Classifier]:
    texts = [prompts(task.classnames, templates) for task, templates in tasks]
    if not texts:
        return []
    embedded = job.texts([text for part in texts for text in part])
    parts = torch.split(embedded, [len(part) for part in texts])
    return [
        _Classifier(task, templates, classifier(part, len(task.classnames)))
        for (task, templates), part in zip(tasks, parts, strict=True)
    ]


def _kept_labels(task: Task, split: str, pictures: Pictures) -> list[int]:
    labels = task.labels.get(split)
    return [] if labels is None else [labels[place] for place in pictures.kept]


def _classify(
    place: str, of: _Classifier, split: str, pictures: Pictures, found: _Findings
) -> None:
    labels = torch.tensor(_kept_labels(of.task, split, pictures), dtype=torch.int64)
    chosen = torch.nonzero(labels >= 0).flatten()
    outcome = classify(pictures.embeddings[chosen], of.weights, labels[chosen])
    found.outcomes[f"{place}/items"] = chosen.numpy().astype(np.int32)
    found.outcomes[f"{place}/labels"] = outcome.labels.numpy().astype(np.int32)
    _record_classification(place, outcome, found)


def _record_classification(place: str, outcome: Classification, found: _Findings) -> None:
    classes, n = outcome.classes, len(outcome.labels)
    chance = accuracy_chance(classes)
    found.mean_of(f"{place}/acc1", outcome.top(1), chance)
    if classes >= ACC5_CLASSES:
        found.mean_of(f"{place}/acc5", outcome.top(5), accuracy_chance(classes, 5))
    else:
        reason = f"{classes} classes, at least {ACC5_CLASSES} are needed"
        found.metric(f"{place}/acc5", None, n, None, reason)
    found.metric(f"{place}/{MEAN_PER_CLASS_RECALL}", outcome.mean_per_class_recall, n, chance)


def _task_protocol(of: _Classifier) -> dict[str, Any]:
    return {
        "classes": len(of.task.classnames),
        "classnames": list(of.task.classnames),
        "templates": list(of.templates),
    }


def _evaluate_folder(job: _Job, folder: ClassFolder) -> dict[str, Any]:
    """Zero-shot classification of a class folder; returns its section of the protocol."""
    data = open_class_folder(folder)
    if len(data.tasks) != 1:
        raise DataError(f"class folder {folder.name}: one task is expected, not {len(data.tasks)}")
    data.prepare()
    split = data.split("test")
    (of,) = _with_weights(job, [(data.tasks[0], folder.templates)])
    pictures = job.pictures(data, split)
    job.found.outcomes[f"{folder.name}/items/images"] = _names(split, pictures)
    _classify(folder.name, of, "test", pictures, job.found)
    return {
        "fingerprint": data.fingerprint,
        "images": len(split) - len(pictures.problems),
        "excluded": _excluded(pictures.problems),
        **_task_protocol(of),
    }


# --------------------------------------------------------------------------- outcomes


def _compact(outcomes: Tensor) -> np.ndarray:
    """uint8 when every outcome is 0 or 1, float32 when a tie made one fractional."""
    values = outcomes.numpy()
    whole = bool(np.isin(values, (0.0, 1.0)).all())
    return values.astype(np.uint8 if whole else np.float32)


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as a compressed .npz, the same bytes for the same arrays (no time is stored)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, arrays[name], allow_pickle=False)
    return buffer.getvalue()
