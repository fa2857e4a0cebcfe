"""What each point chooses of the nuisance parameters: the combination that validates best.

The grid is a sweep of its own, `<name>_tuning`: every point with every combination, by the tuning
seeds, evaluated on the validation split alone.  A choice is a function of what is on record, so
whoever comes by makes the same one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from harness import metrics
from harness.config import VALIDATION, RunConfig, canonical_json, override
from harness.config.sweep import Point, Run, Show, Sweep, product, value_at
from harness.files import sha256_of
from harness.store.manifest import manifest_names, read_manifest
from harness.store.record import RunDir, Store
from harness.store.state import State
from harness.store.trials import TELLING

TUNING = "_tuning"
"""What the name of a sweep ends in where its grid is meant, an ordinary sweep."""


def only_validated(base: RunConfig) -> RunConfig:
    """`base` evaluated on what is chosen by and on nothing that is reported."""
    nothing: dict[str, object] = {"evaluate.suites": (), "evaluate.class_folders": ()}
    return override(base, {"evaluate.splits": (VALIDATION,), **nothing})


def tuning_sweep(sweep: Sweep) -> Sweep:
    """The grid of `sweep`, to be expanded with a base that is `only_validated`."""
    return replace(
        sweep,
        points=sweep.points * product(sweep.nuisance),
        seeds=sweep.tune_seeds,
        show=Show(x=next(iter(sweep.nuisance)), metrics=[sweep.tune_on]),
        nuisance={},
        until=None,
        looks=None,
        name=f"{sweep.name}{TUNING}",
        question=f"Chosen on the validation split: {sweep.question}",
    )


@dataclass(frozen=True)
class Combination:
    """Values of the nuisance parameters at one point, and how they validated."""

    values: Mapping[str, Any]
    scores: Mapping[int, float]
    """Tuning seed -> value of the metric, of the runs that have one."""
    failed: Mapping[int, str]
    """Tuning seed -> what failed; such a combination is never chosen."""
    is_base: bool
    """Whether they are the base's own."""
    waiting: int = 0
    """Runs that have not ended."""

    @property
    def mean(self) -> float:
        """Over the seeds; NaN where one failed or has not ended."""
        if self.failed or self.waiting or not self.scores:
            return math.nan
        return math.fsum(self.scores.values()) / len(self.scores)


@dataclass(frozen=True)
class PointChoice:
    """What one point chose."""

    point: Point
    tried: tuple[Combination, ...]
    sign: int
    """1 where higher is better, -1 where lower is."""
    edges: tuple[str, ...] = ()
    """Fields whose chosen value is the least or the greatest of the grid."""

    @cached_property
    def best(self) -> Combination | None:
        """The first of those that validated best; None where every combination failed."""
        known = [each for each in self.tried if not math.isnan(each.mean)]
        return max(known, key=lambda each: self.sign * each.mean, default=None)

    @property
    def reference(self) -> Combination | None:
        """The base's own values, where the grid has them and they did not fail."""
        own = [each for each in self.tried if each.is_base and not math.isnan(each.mean)]
        return next(iter(own), None)


@dataclass(frozen=True)
class Selection:
    """The choices of a sweep, as far as they can be made."""

    tune_on: str
    choices: Mapping[str, PointChoice]
    """Canonical JSON of a point -> its choice."""
    waiting: tuple[str, ...]
    """Keys of runs of the grid that have not ended."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """File, from the root -> SHA-256 of what it was made from."""

    def chosen(self, point: Point) -> Point:
        """What a point chose; nothing where all that it could choose failed."""
        best = self.choices[canonical_json(point)].best
        return {} if best is None else best.values


def select_by(sweep: Sweep, runs: Sequence[Run], store: Store) -> Selection:
    """The choices of `sweep` by the runs of its grid."""
    grouped: dict[str, tuple[Point, dict[str, list[tuple[Run, float | str | None]]]]] = {}
    waiting: list[str] = []
    for run in runs:
        values = {path: run.point[path] for path in sweep.nuisance}
        point = {path: value for path, value in run.point.items() if path not in values}
        place = grouped.setdefault(canonical_json(point), (point, {}))[1]
        ended = _ended(run, sweep.tune_on, store)
        waiting += [run.key] if ended is None else []
        place.setdefault(canonical_json(values), []).append((run, ended))
    sign = 1 if metrics.higher_is_better(sweep.tune_on) else -1
    choices = {
        text: _choice(point, [_combination(sweep, tried) for tried in place.values()], sign)
        for text, (point, place) in grouped.items()
    }
    return Selection(sweep.tune_on, choices, tuple(waiting))


def selection_on_file(sweep: Sweep, store: Store) -> Selection | None:
    """The same by the records alone, with what was read; None without a grid on file."""
    name = f"{sweep.name}{TUNING}"
    if not sweep.nuisance or name not in manifest_names(store):
        return None
    runs = read_manifest(store, name).runs
    files = [store.manifest_file(name)]
    for run in runs:
        directory = store.run_dir(run.key)
        files += [directory.result_file, directory.status_file]
    inputs = {
        file.relative_to(store.root).as_posix(): sha256_of(file) for file in files if file.exists()
    }
    return replace(select_by(sweep, runs, store), inputs=inputs)


def _ended(run: Run, metric: str, store: Store) -> float | str | None:
    """The value of the metric, why there is none, or None while the run may yet have one."""
    directory: RunDir = store.run_dir(run.key)
    status, result = directory.look(run.config.evaluation_key)
    if status.state is State.FAILED and status.failure in TELLING:
        return str(status.failure)
    if status.state is not State.DONE or result is None:
        return None
    evaluation = result["evaluations"][run.config.evaluation_key]
    found = evaluation.get("metrics", {}).get(metric, {})
    value = found.get("value")
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return str(found.get("reason") or "no value")
    return float(value)


def _combination(sweep: Sweep, tried: Sequence[tuple[Run, float | str | None]]) -> Combination:
    first = tried[0][0]
    values = {path: value_at(first.config, path) for path in sweep.nuisance}
    base = {path: value_at(sweep.base, path) for path in sweep.nuisance}
    return Combination(
        values,
        {run.seed: ended for run, ended in tried if isinstance(ended, float)},
        {run.seed: ended for run, ended in tried if isinstance(ended, str)},
        canonical_json(values) == canonical_json(base),
        sum(ended is None for _, ended in tried),
    )


def _choice(point: Point, tried: Sequence[Combination], sign: int) -> PointChoice:
    made = PointChoice(point, tuple(tried), sign)
    if made.best is None:
        return made
    edges = [path for path, value in made.best.values.items() if _is_edge(path, value, tried)]
    return replace(made, edges=tuple(edges))


def _is_edge(path: str, value: Any, tried: Sequence[Combination]) -> bool:
    grid = {canonical_json(each.values[path]): each.values[path] for each in tried}
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in grid.values())
    return numbers and len(grid) > 1 and value in {min(grid.values()), max(grid.values())}
