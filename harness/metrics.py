"""What a metric is called, which way is better, what chance gives, and how it is shown.

Owns the names that a sweep file, a record and a table share.  Torch-free and level 0: names are
checked before anything starts, on a machine that may not even have the data's pictures at hand.

    <split>/image_retrieval_recall@k          text -> image, by CLIP_benchmark's rule
    <split>/text_retrieval_recall@k           image -> text, likewise
    <split>/mean_recall                       mean of the six recalls above
    <split>/..._recall_shared@k               as above; a picture owning the same caption counts too
    <split>/mean_recall_shared                mean of these six
    <split>/<task>/acc1|acc5|mean_per_class_recall
    <class folder>/acc1|acc5|mean_per_class_recall
    <benchmark>/...                           as a split or a class folder of its name
    <suite>/mean                              mean over its benchmarks of the one metric of each
    cost/parameters/<which>, cost/gmacs/<tower>, cost/latency_ms/<tower>_batch1

Records hold fractions in [0, 1], parameters as a count, GMACs and milliseconds; `scale` and `unit`
say how a table shows them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import comb
from typing import Any, Protocol

from harness.config import Evaluate
from harness.errors import ConfigError, unknown

#: The k of recall@k (CLIP, and everyone since).
KS = (1, 5, 10)
#: The fewest classes with which top-5 accuracy says anything.
ACC5_CLASSES = 5

#: What most ablations show: recall@1 both ways, and accuracy in every zero-shot task there is.
HEADLINE = (
    "*/image_retrieval_recall@1",
    "*/text_retrieval_recall@1",
    "*/mean_recall",
    "*/*/acc1",
    "*/acc1",
)

IMAGE_RETRIEVAL = "image_retrieval_recall"
TEXT_RETRIEVAL = "text_retrieval_recall"
MEAN_RECALL = "mean_recall"
SHARED = "_shared"
"""Ends the name of a recall that counts any picture owning the identical caption."""
MEAN_PER_CLASS_RECALL = "mean_per_class_recall"
SUITE_MEAN = "mean"

_SHARED_WORDS = ", shared captions"
_DIRECTIONS = {IMAGE_RETRIEVAL: "T2I", TEXT_RETRIEVAL: "I2T"}
_CLASSIFICATION = {
    "acc1": "acc@1",
    "acc5": "acc@5",
    MEAN_PER_CLASS_RECALL: "mean per-class recall",
}
#: Cost metric -> (words of a table's header, factor, unit).
_COSTS: dict[str, tuple[str, float, str]] = {
    "cost/parameters/total": ("parameters when training", 1e-6, "M"),
    "cost/parameters/inference": ("parameters", 1e-6, "M"),
    "cost/parameters/inference_without_embeddings": (
        "parameters without embeddings",
        1e-6,
        "M",
    ),
    "cost/parameters/image": ("image tower parameters", 1e-6, "M"),
    "cost/parameters/text": ("text tower parameters", 1e-6, "M"),
    "cost/parameters/text_embeddings": ("token embedding parameters", 1e-6, "M"),
    "cost/gmacs/image": ("image tower GMACs", 1.0, "GMACs"),
    "cost/gmacs/text": ("text tower GMACs", 1.0, "GMACs"),
    "cost/latency_ms/image_batch1": ("image tower latency, batch 1", 1.0, "ms"),
    "cost/latency_ms/text_batch1": ("text tower latency, batch 1", 1.0, "ms"),
}

#: What the numbers of every protocol mean.
RULES = {
    "ties": "expected hit over uniformly random order of equal scores",
    "positives": "only the caption's own picture, as in CLIP_benchmark; shared: any picture owning "
    "the identical caption (case, spacing and final punctuation aside)",
    "recall": "share of queries with any positive among the k best; pictures without captions are "
    "in the pool and are no queries",
    "mean_per_class_recall": "over the classes that occur among the labels",
    "chance": "random ranking; uniform guess among the classes",
    "scores": "fp32",
}


class _Split(Protocol):
    @property
    def captions(self) -> Sequence[tuple[str, ...]]: ...


class _Task(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def classnames(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> Mapping[str, Sequence[int]]: ...


class _Benchmark(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> int | None: ...
    @property
    def metrics(self) -> tuple[str, ...]: ...


class _Data(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def splits(self) -> Mapping[str, _Split]: ...
    @property
    def tasks(self) -> Sequence[_Task]: ...


# --------------------------------------------------------------------------- names


def recall_name(split: str, direction: str, k: int, *, shared: bool = False) -> str:
    """`test/image_retrieval_recall@1`, or `test/image_retrieval_recall_shared@1`."""
    return f"{split}/{direction}{SHARED if shared else ''}@{k}"


def recall_names(split: str, *, shared: bool = False) -> list[str]:
    """The six recalls of a split under one rule, text -> image first."""
    return [recall_name(split, way, k, shared=shared) for way in _DIRECTIONS for k in KS]


def mean_recall_name(split: str, *, shared: bool = False) -> str:
    """`test/mean_recall`, or `test/mean_recall_shared`."""
    return f"{split}/{MEAN_RECALL}{SHARED if shared else ''}"


def recall_of(kind: str) -> tuple[str, bool] | None:
    """Direction of a recall and whether shared captions count; None for another metric.

    `kind` is the last part of a metric's name: `text_retrieval_recall_shared@5`.
    """
    way, at, _ = kind.partition("@")
    direction = way.removesuffix(SHARED)
    return (direction, way.endswith(SHARED)) if at and direction in _DIRECTIONS else None


def mean_recall_parts(name: str) -> list[str]:
    """The six recalls that the metric `name` is the mean of; none for another metric."""
    split, _, kind = name.rpartition("/")
    if kind.removesuffix(SHARED) != MEAN_RECALL:
        return []
    return recall_names(split, shared=kind.endswith(SHARED))


def _retrieval_names(place: str) -> list[str]:
    recalls = [name for shared in (False, True) for name in recall_names(place, shared=shared)]
    return [*recalls, *(mean_recall_name(place, shared=shared) for shared in (False, True))]


def known_metrics(data: _Data, evaluate: Evaluate) -> list[str]:
    """Every metric that `evaluate` on `data` will give a value, cost metrics included.

    Top-5 accuracy of a task with fewer than five classes is not among them.  The classes of a
    class folder are not looked at, so its `acc5` is always taken for known.

    Raises:
        ConfigError: a split is not in `data`.
    """
    names: list[str] = []
    for split in evaluate.splits:
        if split not in data.splits:
            raise ConfigError(f"data set {data.name}: {unknown('split', split, data.splits)}")
        names += _split_metrics(data, split)
    for folder in evaluate.class_folders:
        names += [f"{folder.name}/{kind}" for kind in _CLASSIFICATION]
    return [*names, *_COSTS]


def _split_metrics(data: _Data, split: str) -> list[str]:
    names: list[str] = []
    if any(data.splits[split].captions):
        names += _retrieval_names(split)
    for task in data.tasks:
        if any(label >= 0 for label in task.labels.get(split, ())):
            few = len(task.classnames) < ACC5_CLASSES
            kinds = [kind for kind in _CLASSIFICATION if not (few and kind == "acc5")]
            names += [f"{split}/{task.name}/{kind}" for kind in kinds]
    return names


def benchmark_metrics(benchmark: _Benchmark) -> list[str]:
    """Every metric of a public benchmark, whether or not it is the one that it is judged by."""
    name = benchmark.name
    if benchmark.classes is None:
        return _retrieval_names(name)
    few = benchmark.classes < ACC5_CLASSES
    return [f"{name}/{kind}" for kind in _CLASSIFICATION if not (few and kind == "acc5")]


def headline_metrics(benchmark: _Benchmark) -> list[str]:
    """The metric that a benchmark is judged by; two of them where it has two directions."""
    return [f"{benchmark.name}/{kind}" for kind in benchmark.metrics]


def suite_mean_name(suite: str) -> str:
    """`lightclip11/mean`."""
    return f"{suite}/{SUITE_MEAN}"


def match_metrics(patterns: Iterable[str], known: Iterable[str]) -> list[str]:
    """The metrics that `patterns` name, in their order, each once.

    A pattern with `*` (any text without a slash) stands for all known metrics that it matches, be
    it none: a sweep can show every zero-shot task there is, whatever the data.

    Raises:
        ConfigError: a name without `*` is not known (the nearest is named), or nothing matches.
    """
    known, patterns = list(known), list(patterns)
    found: list[str] = []
    for pattern in patterns:
        if "*" not in pattern and pattern not in known:
            raise ConfigError(unknown("metric", pattern, known))
        found += _matching(pattern, known)
    if patterns and not found:
        raise ConfigError(
            f"no metric of this data set matches {', '.join(patterns)}; "
            f"it has: {', '.join(name for name in known if name not in _COSTS)}"
        )
    return list(dict.fromkeys(found))


def match_primary(pattern: str, known: Iterable[str]) -> str:
    """The one metric of quality that `pattern` (a name, or one with `*`) stands for.

    Raises:
        ConfigError: it stands for none (the nearest is named), for several, or for a cost.
    """
    if is_cost(pattern):
        raise ConfigError(f"primary = {pattern!r} is a cost; a metric of quality is wanted")
    quality = [name for name in known if not is_cost(name)]
    found = list(dict.fromkeys(_matching(pattern, quality)))
    if not found:
        raise ConfigError(f"primary: {unknown('metric', pattern, quality)}")
    if len(found) > 1:
        raise ConfigError(f"primary = {pattern!r} is {len(found)} metrics: {', '.join(found)}")
    return found[0]


def check_cost(name: str) -> None:
    """ConfigError, naming the nearest, unless `name` is a cost metric."""
    if not is_cost(name):
        raise ConfigError(unknown("cost", name, _COSTS))


def _matching(pattern: str, known: Iterable[str]) -> list[str]:
    form = re.compile(re.escape(pattern).replace(r"\*", "[^/]*"))
    return [name for name in known if form.fullmatch(name)]


# --------------------------------------------------------------------------- how it is shown


def is_cost(name: str) -> bool:
    """Whether `name` measures the model's size or speed and not its quality."""
    return name in _COSTS


def higher_is_better(name: str) -> bool:
    """True for recalls and accuracies, False for parameters, GMACs and latency."""
    return not is_cost(name)


def scale(name: str) -> float:
    """What a recorded value is multiplied by to be shown in `unit(name)`."""
    return _COSTS[name][1] if is_cost(name) else 100.0


def unit(name: str) -> str:
    """`%`, `M` (million parameters), `GMACs` or `ms`."""
    return _COSTS[name][2] if is_cost(name) else "%"


def display(name: str) -> str:
    """The words of a table's header: `T2I R@1`, `role acc@1`; the split `test` goes unnamed."""
    if is_cost(name):
        return _COSTS[name][0]
    place, _, rest = name.partition("/")
    shown = _display_in_split(rest)
    if shown is None:
        return name
    if rest in _CLASSIFICATION or rest == SUITE_MEAN:
        return f"{place} {shown}"
    return shown if place == "test" else f"{place} {shown}"


def _display_in_split(rest: str) -> str | None:
    if rest.removesuffix(SHARED) == MEAN_RECALL:
        return "mean recall" + (_SHARED_WORDS if rest.endswith(SHARED) else "")
    if rest == SUITE_MEAN:
        return "mean"
    if rest in _CLASSIFICATION:
        return _CLASSIFICATION[rest]
    section, _, kind = rest.rpartition("/")
    recall = recall_of(kind)
    if recall is not None and not section:
        direction, shared = recall
        return f"{_DIRECTIONS[direction]} R@{kind.partition('@')[2]}{_SHARED_WORDS * shared}"
    if kind in _CLASSIFICATION and section:
        return f"{section} {_CLASSIFICATION[kind]}"
    return None


def cost_value(cost: Mapping[str, Any], name: str) -> float | None:
    """The value of a cost metric in the `cost` section of a result; None where it has none."""
    _, section, which = name.split("/")
    value = cost.get(section, {}).get(which)
    return None if value is None else float(value)


# --------------------------------------------------------------------------- chance


def recall_chance(pool: int, positives: Iterable[int], k: int) -> float:
    """Expected recall@k of a random ranking of `pool` candidates, averaged over queries.

    A query with p positives is missed when all k drawn are negatives, so its chance is
    1 - C(pool - p, k) / C(pool, k) (hypergeometric).  `positives` holds p of each query; a k
    beyond the pool counts as the whole pool.
    """
    k = min(k, pool)
    queries = Counter(positives)
    misses = sum(n * comb(pool - p, k) / comb(pool, k) for p, n in queries.items())
    return 1.0 - misses / queries.total()


def accuracy_chance(classes: int, k: int = 1) -> float:
    """Expected top-k accuracy, and per-class recall, of a uniform guess among `classes`."""
    return min(k / classes, 1.0)
