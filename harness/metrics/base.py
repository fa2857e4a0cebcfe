"""What a metric is: one class a family, in a file of this folder, found by the registry.

A metric says what it is called, in which unit it is shown, which way is better, what chance gives,
what it needs and how it is computed from that, and every number that is recorded carries this
description.  A metric that is added, or raised in `version`, touches no number of another one: an
evaluation of before lacks it until it is filled in (`places.lacking`).

Torch-free: outcomes are numpy arrays, and numpy is imported where something is computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: What a metric needs: rankings of a captioned set, class scores of a labelled one, what the loss
#: term of that name makes of captions (`Contrasted`), or what a suite of that name looks at.
RETRIEVAL, CLASSIFICATION = "retrieval", "classification"
#: The k of recall@k (CLIP, and everyone since).
KS = (1, 5, 10)
#: Captions that look for pictures, and pictures that look for captions, as CLIP_benchmark has it.
IMAGE_RETRIEVAL, TEXT_RETRIEVAL = WAYS = ("image_retrieval", "text_retrieval")
#: What titles call them.
TITLES_OF_WAYS = {IMAGE_RETRIEVAL: "T2I", TEXT_RETRIEVAL: "I2T"}

#: Suites over a run's own splits, from embeddings that are there already -> heading of a report.
PROBE, GEOMETRY, CALIBRATION, LENGTH = "probe", "geometry", "calibration", "length"
OWN_SUITES = {
    PROBE: "Probes",
    GEOMETRY: "Geometry of the embeddings",
    CALIBRATION: "Calibration",
    LENGTH: "Text length",
}

#: The array that says which picture each caption of a metric of a loss term belongs to.
ITEMS_OF_TERMS = "items/terms"

_SCALES = {"%": 100.0, "M": 1e-6}
_DIRECTIONS = ("lower", "higher")

#: What the numbers of every protocol mean, beside what each metric says of itself.
COMMON_RULES = {
    "ties": "expected hit over uniformly random order of equal scores",
    "chance": "random ranking; uniform guess among the classes",
    "scores": "fp32",
}


# --------------------------------------------------------------------------- what is computed from


@dataclass(frozen=True)
class Ranking:
    """The outcomes of one direction under one rule of what is positive.

    Attributes:
        queries: int64 (Q,), place of each query among the captions or pictures.
        hits: float64 (Q, len(KS)), probability of a hit over the order of ties.
        ranks: float64 (Q,), place of the best positive, 1 the first, expected over that order.
        positives: int64 (Q,), number of positives of each query in the pool.
        pool: number of candidates.
    """

    queries: NDArray[np.int64]
    hits: NDArray[np.float64]
    ranks: NDArray[np.float64]
    positives: NDArray[np.int64]
    pool: int

    def at(self, k: int) -> NDArray[np.float64]:
        """Per-query outcomes (Q,) of recall@k, k one of KS."""
        return self.hits[:, KS.index(k)]


@dataclass(frozen=True)
class Retrieved:
    """Both directions: where only the own picture counts, and where shared captions do too.

    Attributes:
        rankings: (way, shared) -> outcomes.
    """

    rankings: Mapping[tuple[str, bool], Ranking]

    def ranking(self, way: str, *, shared: bool = False) -> Ranking:
        """The outcomes of one direction, `way` one of WAYS."""
        return self.rankings[(way, shared)]


@dataclass(frozen=True)
class Classified:
    """The outcomes of one zero-shot task.

    Attributes:
        hits: float64 (N, 2), probability that the true class is among the 1 and 5 best-scored ones,
            over the order of ties.
        predictions: int32 (N,), the best-scored class; of equal ones the first.
        confidence: float64 (N,), softmax of its score at the model's temperature.
        labels: int64 (N,), the true classes.
        classes: number of classes offered.
    """

    hits: NDArray[np.float64]
    predictions: NDArray[np.int32]
    confidence: NDArray[np.float64]
    labels: NDArray[np.int64]
    classes: int

    def top(self, k: int) -> NDArray[np.float64]:
        """Per-example outcomes (N,) of top-k accuracy, k = 1 or 5."""
        return self.hits[:, (1, 5).index(k)]


@dataclass(frozen=True)
class Embedded:
    """A captioned set as unit-norm embeddings.

    Attributes:
        image: float32 (N, D).
        text: float32 (M, D).
        owners: int64 (M,), the row in `image` of each caption's picture.
    """

    image: NDArray[np.float32]
    text: NDArray[np.float32]
    owners: NDArray[np.int64]


@dataclass(frozen=True)
class Contrasted:
    """What a term of the loss makes of each of N captions, with its own picture and with another.

    Attributes:
        own, other: float64 (N,).
        located: float64 (N,), share of its words on the own picture where both stand side by side;
            None of a term that puts no words on patches.
    """

    own: NDArray[np.float64]
    other: NDArray[np.float64]
    located: NDArray[np.float64] | None = None


# --------------------------------------------------------------------------- a metric


@dataclass(frozen=True)
class Value:
    """One number, and what is kept of the items behind it.

    Attributes:
        n: queries or examples.
        chance: None where there is no such level.
        reason: why there is no value.
        items: arrays (n,) by their names below the place of the metric.
    """

    value: float | None
    n: int
    chance: float | None = None
    reason: str | None = None
    items: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def recorded(self, of: Described | None) -> dict[str, Any]:
        """What an evaluation says of it, and of its metric where that is known."""
        own = {"value": self.value, "n": self.n, "chance": self.chance, "reason": self.reason}
        return own | ({} if of is None else of.plain())

    @classmethod
    def mean(cls, name: str, outcomes: NDArray[np.float64], chance: float | None = None) -> Value:
        """The mean of `outcomes` (N,), one an item, which are kept as `name`."""
        return cls(float(outcomes.mean()), len(outcomes), chance, items={name: outcomes})


@dataclass(frozen=True)
class Described:
    """What a recorded number says of its metric, and all that showing it takes."""

    kind: str
    """The last part of its name: `acc1` of `test/role/acc1`; of a cost the whole."""
    title: str
    """Words of a table's header."""
    unit: str = "%"
    higher_is_better: bool = True
    version: int = 1
    needs: str = ""

    @property
    def scale(self) -> float:
        """What a recorded value is multiplied by to be shown in its unit."""
        return _SCALES.get(self.unit, 1.0)

    def plain(self) -> dict[str, Any]:
        """As it is recorded beside the value."""
        return {
            "title": self.title,
            "unit": self.unit,
            "direction": _DIRECTIONS[self.higher_is_better],
            "version": self.version,
            "needs": self.needs,
        }

    @classmethod
    def of(cls, kind: str, recorded: Mapping[str, Any]) -> Described:
        """What `plain` gave."""
        return cls(
            kind,
            str(recorded["title"]),
            str(recorded["unit"]),
            recorded["direction"] == _DIRECTIONS[True],
            int(recorded["version"]),
            str(recorded["needs"]),
        )


class Metric(ABC):
    """One metric; a subclass is a family, and says what differs from this.

    Raise `version` when the same outcomes would give another number.
    """

    kind: str
    title: str
    needs: str
    unit: str = "%"
    higher_is_better: bool = True
    version: int = 1
    rules: tuple[tuple[str, str], ...] = ()
    """What the protocol says of it: a name and a line each."""
    has_chance: bool = True
    """Whether a random answer has a level of its own."""
    least: float = 0.0
    most: float | None = 1.0
    """Between which a value can be true; None: no bound."""
    at_most: tuple[str, ...] = ()
    """Kinds that it cannot exceed at the same place."""
    parts: tuple[str, ...] = ()
    """Kinds that it is the mean of."""
    ways: tuple[str, ...] = ()
    """Directions of retrieval whose queries it is over."""
    per_item: str | None = None
    """The kept array that it is the mean of."""
    per_class: bool = False
    """Whether it is the mean over classes of the mean of `per_item`."""
    shown: bool = True
    """Of a loss term or an own suite: whether every report shows it where that is on."""
    beside: tuple[str, ...] = ()
    """Kinds of the same place that a report shows with it."""

    @property
    def items(self) -> str:
        """The kept array, below its place, that says which picture each item belongs to.

        Of retrieval the place is the captioned set, of classification the task.
        """
        return items_of_way(self.ways[0]) if self.ways else "items"

    @abstractmethod
    def compute(self, found: Any) -> Value:
        """The value of `found`, what `needs` says: `Retrieved`, `Classified`, `Contrasted` ..."""

    def why_not(self, classes: int) -> str | None:
        """Why a task of so many classes has no value; None where it has one."""
        del classes
        return None

    def count(self, facts: Mapping[str, Any]) -> int:
        """Queries or examples that it must be computed on, by the facts of the protocol."""
        queries = {IMAGE_RETRIEVAL: "captions", TEXT_RETRIEVAL: "captioned"}
        return sum(facts[queries[way]] for way in self.ways) if self.ways else facts["images"]

    def described(self) -> Described:
        """What is recorded of it."""
        return Described(
            self.kind, self.title, self.unit, self.higher_is_better, self.version, self.needs
        )


class TermMetric(Metric):
    """A metric of what a term of the loss learnt, read through the modules that trained with it.

    Of every caption of the split `validation`, and of the evaluated splits where there is none.
    """

    @property
    def items(self) -> str:
        """See Metric: the caption's picture."""
        return ITEMS_OF_TERMS

    def count(self, facts: Mapping[str, Any]) -> int:
        """See Metric: captions."""
        return int(facts["captions"])


def items_of_way(way: str) -> str:
    """The array that says which picture each query of one direction belongs to."""
    return f"items/{way}_recall"


# --------------------------------------------------------------------------- which there are

METRICS: Registry[Metric] = Registry("metric", "harness.metrics")
_MET: dict[str, Described] = {}


def register(metric: Metric) -> Metric:
    """File a metric under its kind; ConfigError if another one has it."""
    return METRICS.register(metric.kind)(metric)


def metrics_for(needs: str) -> Iterator[Metric]:
    """The metrics that are computed from `needs`, in the order in which they were registered."""
    return (metric for metric in METRICS.parts() if metric.needs == needs)


def metric_of(kind: str) -> Metric | None:
    """The metric of that kind, if this version has it."""
    return METRICS.get(kind) if kind in METRICS else None


def remember(name: str, recorded: Mapping[str, Any]) -> None:
    """Know how to show a metric that a record describes and nothing here registers."""
    kind = name.rpartition("/")[2]
    if kind not in METRICS and "title" in recorded:
        _MET[kind] = Described.of(kind, recorded)


def recorded_of(kind: str) -> Described | None:
    """What is known of a metric, be it from a record alone."""
    metric = metric_of(kind)
    return _MET.get(kind) if metric is None else metric.described()


def versions(needs: Sequence[str] = (RETRIEVAL, CLASSIFICATION)) -> dict[str, int]:
    """Kind -> version of all metrics that need one of these."""
    return {m.kind: m.version for m in METRICS.parts() if m.needs in needs}


def rules(names: Iterable[str] | None = None) -> dict[str, str]:
    """What the numbers mean, as a protocol says it: of all metrics, or of those called so."""
    kinds = METRICS if names is None else {name.rpartition("/")[2] for name in names}
    found = dict(COMMON_RULES)
    for metric in METRICS.parts():
        found |= dict(metric.rules) if metric.kind in set(kinds) else {}
    return found
