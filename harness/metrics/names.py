"""Names of metrics: which ones a data set has, what a pattern stands for, and how they are shown.

    <split>/<kind>                  of retrieval
    <split>/<task>/<kind>           of classification
    <class folder>/<kind>           likewise
    <benchmark>/<kind>              as of a split or a class folder of its name
    <split>/<kind>, <split>/<task>/<kind>   likewise, of the suites over a run's own splits
    <suite>/mean                    mean over its benchmarks of the metric that each is judged by
    cost/<section>/<which>          size and speed

Kinds are those of the registry.  Names are checked before anything starts, on a machine that may
not even have the data's pictures at hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING

from harness.config import VALIDATION, Evaluate
from harness.errors import ConfigError, unknown
from harness.metrics.accuracy import ACC1
from harness.metrics.base import (
    CALIBRATION,
    CLASSIFICATION,
    GEOMETRY,
    IMAGE_RETRIEVAL,
    LENGTH,
    OWN_SUITES,
    PROBE,
    RETRIEVAL,
    TEXT_RETRIEVAL,
    Described,
    Metric,
    metrics_for,
    recorded_of,
)
from harness.metrics.costs import COSTS, is_cost
from harness.metrics.recall import mean_recall_kind, recall_kind

if TYPE_CHECKING:
    from harness.data.dataset import DataSet, Split, Task
    from harness.evaluate.suites.records import Benchmark

#: What most ablations show: recall@1 both ways, and accuracy in every zero-shot task there is.
HEADLINE = (
    f"*/{recall_kind(IMAGE_RETRIEVAL, 1)}",
    f"*/{recall_kind(TEXT_RETRIEVAL, 1)}",
    f"*/{mean_recall_kind()}",
    f"*/*/{ACC1}",
    f"*/{ACC1}",
)
#: Own suite -> the splits whose labels it looks at beside the evaluated one.
FITTED_ON = {PROBE: ("train", VALIDATION), CALIBRATION: (VALIDATION,)}
SUITE_MEAN = "mean"
_OF_SUITE = Described(SUITE_MEAN, "mean")


# --------------------------------------------------------------------------- which there are


def known_metrics(data: DataSet, evaluate: Evaluate, terms: Iterable[str] = ()) -> list[str]:
    """Every metric that `evaluate` on `data` will give a value, cost metrics included.

    Top-5 accuracy of a task with fewer than five classes is not among them.  The classes of a
    class folder are not looked at, so all its metrics are taken for known.

    Args:
        terms: names of the loss terms that are on.

    Raises:
        ConfigError: a split is not in `data`.
    """
    names: list[str] = []
    for split in evaluate.splits:
        if split not in data.splits:
            raise ConfigError(f"data set {data.name}: {unknown('split', split, data.splits)}")
        names += _split_metrics(data, split)
    for folder in evaluate.class_folders:
        names += _of_classes(folder.name, None)
    further = [*metrics_of_terms(data, evaluate, terms), *metrics_of_suites(data, evaluate)]
    return [*names, *(name for name, _ in further), *COSTS]


def metrics_of_terms(
    data: DataSet, evaluate: Evaluate, terms: Iterable[str]
) -> Iterator[tuple[str, Metric]]:
    """The metrics of what loss terms learnt, by their names."""
    for split, term in product(splits_of_terms(data.splits, evaluate), terms):
        yield from ((f"{split}/{metric.kind}", metric) for metric in metrics_for(term))


def metrics_of_suites(data: DataSet, evaluate: Evaluate) -> Iterator[tuple[str, Metric]]:
    """The metrics of the suites over a run's own splits, by their names."""
    for suite, split in product(evaluate.suites, evaluate.splits):
        if suite in OWN_SUITES and suite not in FITTED_ON and any(data.splits[split].captions):
            yield from ((f"{split}/{metric.kind}", metric) for metric in metrics_for(suite))
        elif suite in FITTED_ON:
            for task in data.tasks:
                named = f"{split}/{task.name}"
                if why_not_fitted(task, split, suite) is None and _labelled(task, split):
                    yield from ((f"{named}/{metric.kind}", metric) for metric in metrics_for(suite))


def why_not_fitted(task: Task, split: str, suite: str) -> str | None:
    """Why a probe or a temperature cannot be fitted for a task of `split`; None where it can."""
    if split in FITTED_ON[suite]:
        return f"it is fitted on the split {split}"
    lacking = [name for name in FITTED_ON[suite] if not _labelled(task, name)]
    return f"no picture of the split {lacking[0]} has a label of {task.name}" if lacking else None


def splits_of_terms(splits: Mapping[str, Split], evaluate: Evaluate) -> list[str]:
    """The splits on which the terms of the loss are measured: `validation`, else the evaluated."""
    captioned = [name for name, split in splits.items() if any(split.captions)]
    wanted = [VALIDATION] if VALIDATION in captioned else evaluate.splits
    return [name for name in wanted if name in captioned]


def _split_metrics(data: DataSet, split: str) -> Iterator[str]:
    if any(data.splits[split].captions):
        yield from _of_captions(split)
    for task in data.tasks:
        if _labelled(task, split):
            yield from _of_classes(f"{split}/{task.name}", len(task.classnames))


def _labelled(task: Task, split: str) -> bool:
    return any(label >= 0 for label in task.labels.get(split, ()))


def _of_captions(place: str) -> list[str]:
    return [f"{place}/{metric.kind}" for metric in metrics_for(RETRIEVAL)]


def _of_classes(place: str, classes: int | None) -> list[str]:
    return [
        f"{place}/{metric.kind}"
        for metric in metrics_for(CLASSIFICATION)
        if classes is None or metric.why_not(classes) is None
    ]


def benchmark_metrics(benchmark: Benchmark) -> list[str]:
    """Every metric of a public benchmark, whether or not it is the one that it is judged by."""
    if benchmark.task == CLASSIFICATION:
        return _of_classes(benchmark.name, benchmark.classes)
    return [f"{benchmark.name}/{metric.kind}" for metric in metrics_for(benchmark.task)]


def headline_metrics(benchmark: Benchmark) -> list[str]:
    """The metric that a benchmark is judged by; two of them where it has two directions."""
    return [f"{benchmark.name}/{kind}" for kind in benchmark.metrics]


def suite_mean_name(suite: str) -> str:
    """`lightclip11/mean`."""
    return f"{suite}/{SUITE_MEAN}"


# --------------------------------------------------------------------------- patterns


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
            f"it has: {', '.join(name for name in known if not is_cost(name))}"
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


def _matching(pattern: str, known: Iterable[str]) -> list[str]:
    form = re.compile(re.escape(pattern).replace(r"\*", "[^/]*"))
    return [name for name in known if form.fullmatch(name)]


# --------------------------------------------------------------------------- how it is shown


def described(name: str) -> Described | None:
    """What is known of the metric `name`; None for a name that nobody gave."""
    kind = name.rpartition("/")[2]
    if is_cost(name):
        return COSTS[name]
    return _OF_SUITE if kind == SUITE_MEAN else recorded_of(kind)


def higher_is_better(name: str) -> bool:
    """True for recalls and accuracies, False for errors, ranks, parameters, GMACs and latency."""
    found = described(name)
    return found is None or found.higher_is_better


def scale(name: str) -> float:
    """What a recorded value is multiplied by to be shown in `unit(name)`."""
    found = described(name)
    return 100.0 if found is None else found.scale


def unit(name: str) -> str:
    """`%`, `place`, `M` (million parameters), `GMACs` or `ms`."""
    found = described(name)
    return "%" if found is None else found.unit


def unit_of_difference(name: str) -> str:
    """`points` of what is shown in per cent, else its unit."""
    found = unit(name)
    return "points" if found == "%" else found


def display(name: str) -> str:
    """The words of a table's header: `T2I R@1`, `role acc@1`; the split `test` goes unnamed."""
    found = described(name)
    place, _, _ = name.rpartition("/")
    if found is None or not place:
        return name
    if is_cost(name):
        return found.title
    split, _, task = place.partition("/")
    if found.needs in {RETRIEVAL, GEOMETRY, LENGTH} or task:
        named = f"{task} {found.title}" if task else found.title
        return named if split == "test" else f"{split} {named}"
    return f"{place} {found.title}"
