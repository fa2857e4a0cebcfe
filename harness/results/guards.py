"""Signs that a sweep measures its budget, or a mistake of its set-up, and not its axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import metrics
from harness.evaluate.label_checks import is_at_chance
from harness.results.collect import Collection
from harness.results.questions import Line
from harness.results.records import Record
from harness.stats.analysis import Measured, UnderTrained, under_trained

#: Share of the samples at the end of training whose loss is the final one.
_LAST = 0.1
_CONTRASTIVE = "terms/instance"


@dataclass(frozen=True)
class TrainingLoss:
    """A line of rising capacity along which the final training loss rises and the metric falls."""

    line: Line
    losses: tuple[float, ...]
    """Mean final loss of its points, in their order."""
    found: UnderTrained


def under_training(
    collection: Collection, lines: Sequence[Line], cost: Mapping[int, float], metric: Measured
) -> tuple[TrainingLoss, ...]:
    """The lines along which more capacity fits the training set worse.

    Only where cost rises strictly with the axis and the objective and the batch are the same, since
    else losses are not of one kind.

    Args:
        cost: of each point, in any unit.
        metric: the one that should profit from capacity.
    """
    found = []
    for line in lines:
        points = [row.index for row in line.rows]
        if not _rising([cost.get(point) for point in points]) or not _alike(collection, points):
            continue
        losses = {point: final_losses(collection.of_point(point)) for point in points}
        places = {point: math.log(cost[point]) for point in points}
        seen = under_trained(losses, metric, places)
        if seen is not None:
            means = (math.fsum(each.values()) / len(each) for each in losses.values() if each)
            found.append(TrainingLoss(line, tuple(means), seen))
    return tuple(found)


def _rising(cost: Sequence[float | None]) -> bool:
    known = [each for each in cost if each is not None and each > 0]
    return len(known) == len(cost) and all(a < b for a, b in itertools.pairwise(known))


def _alike(collection: Collection, points: Sequence[int]) -> bool:
    configs = [record.run.config for point in points for record in collection.of_point(point)]
    asked = [(each.objective, each.train.batch_size, each.train.samples) for each in configs]
    return all(each == asked[0] for each in asked)


def final_losses(records: Sequence[Record]) -> dict[int, float]:
    """Seed -> mean contrastive loss over the last tenth of the samples, of finished runs."""
    found = {}
    for record in records:
        logged = record.curve.points(_CONTRASTIVE)
        if record.reason is None and len(logged):
            start = (1 - _LAST) * record.run.config.train.samples
            last = logged[logged[:, 0] > start]
            if len(last):
                found[record.seed] = float(last[:, 1].mean())
    return found


@dataclass(frozen=True)
class Suspicious:
    """Numbers that look like a mistake of the set-up and not like a model's."""

    at_chance: Mapping[str, int]
    """Accuracy, or primary metric -> finished runs in which it is at chance."""
    finished: int
    said: Mapping[tuple[str, str], tuple[Record, ...]]
    """(test set, what its evaluation found odd) -> the runs of which it was said."""


def suspicious(collection: Collection, primary: str | None) -> Suspicious:
    """What the records of finished runs say of the accuracies and of the primary metric."""
    done = [(record, record.evaluation) for record in collection.records if record.evaluation]
    accuracies = [name for name in collection.shown if name.endswith(f"/{metrics.ACC1}")]
    counts = {
        name: runs_at_chance(collection.records, name)
        for name in dict.fromkeys(filter(None, [primary, *accuracies]))
    }
    said: dict[tuple[str, str], list[Record]] = {}
    for record, entry in done:
        protocol = entry["protocol"]
        for place, facts in (protocol.get("benchmarks", {}) | protocol["class_folders"]).items():
            for line in facts.get("warnings", ()):
                if f"{place}/{metrics.ACC1}" not in accuracies or not line.startswith("accuracy "):
                    said.setdefault((place, line), []).append(record)
    return Suspicious(
        {name: count for name, count in counts.items() if count},
        len(done),
        {key: tuple(records) for key, records in said.items()},
    )


def runs_at_chance(records: Iterable[Record], metric: str) -> int:
    """How many of these runs are at chance in `metric`, or below."""
    return sum(_is_at_chance(r.evaluation["metrics"].get(metric)) for r in records if r.evaluation)


def _is_at_chance(found: Mapping[str, Any] | None) -> bool:
    known = found is not None and None not in (found["value"], found["chance"]) and found["n"]
    return bool(known and found and is_at_chance(found["value"], found["chance"], found["n"]))
