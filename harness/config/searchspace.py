"""A search as a value that can be read back: its space, what it looks for, and when it stops.

    SWEEP = Sweep(
        base=SMALL,
        search=Search(
            space={"train.lr": Uniform(1e-4, 1e-2, log=True), "model.text.layers": Integers(1, 12)},
            objectives="validation/mean_recall",
            trials=40,
            pruner=Asha(first=4_500),
        ),
        show=Show(x="train.lr", metrics=["*/mean_recall"]),
    )

Pure: knows no run, no file and no optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness import metrics
from harness.config.evaluation import VALIDATION
from harness.config.identity import canonical_json
from harness.config.overrides import check_path, override
from harness.config.schema import RunConfig
from harness.config.values import plain
from harness.errors import ConfigError, SweepError, unknown

SAMPLERS = ("tpe", "gp", "random", "quasi_random", "nsga2")

_SAMPLES = "train.samples"

# --------------------------------------------------------------------------- dimensions


class _Plain:
    """A dataclass whose fields may be given as numpy's numbers, paths and enumerations."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, plain(value))


@dataclass(frozen=True)
class Uniform(_Plain):
    """A number in [low, high], uniform or uniform in its logarithm."""

    low: float
    high: float
    log: bool = False

    def problem(self) -> str | None:
        """What is wrong with the range, if anything is."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return f"{self.low:g}..{self.high:g} is not finite"
        if not self.low < self.high:
            return f"{self.low:g}..{self.high:g} is empty; low < high is wanted"
        if self.log and self.low <= 0:
            return f"{self.low:g}..{self.high:g} has no logarithm; 0 < low is wanted"
        return None

    def ends(self) -> list[Any]:
        """Values that must all be possible for the space to be."""
        return [self.low, self.high]

    def holds(self, value: object) -> bool:
        """Whether `value` lies in it."""
        number = _number(value)
        return number is not None and self.low <= number <= self.high

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True)
class Integers(_Plain):
    """An integer of low, low + step, ..., high."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def problem(self) -> str | None:
        """What is wrong with the range, if anything is."""
        if not all(isinstance(end, int) for end in (self.low, self.high, self.step)):
            return f"{self.low}..{self.high} step {self.step}: integers are wanted"
        if not self.low < self.high:
            return f"{self.low}..{self.high} is empty; low < high is wanted"
        if self.step < 1 or (self.high - self.low) % self.step:
            return f"steps of {self.step} do not lead from {self.low} to {self.high}"
        if self.log and (self.low < 1 or self.step != 1):
            return f"{self.low}..{self.high} (log): 1 <= low and a step of 1 are wanted"
        return None

    def ends(self) -> list[Any]:
        """Values that must all be possible for the space to be."""
        return [self.low, self.high]

    def holds(self, value: object) -> bool:
        """Whether `value` lies in it."""
        number = _number(value)
        if number is None or not number.is_integer():
            return False
        return self.low <= number <= self.high and (number - self.low) % self.step == 0

    def __str__(self) -> str:
        step = f" step {self.step}" if self.step != 1 else ""
        return f"{self.low}..{self.high}{step}{' (log)' if self.log else ''}"


@dataclass(frozen=True, init=False)
class Choice:
    """One of the values listed, without an order between them."""

    options: tuple[Any, ...]

    def __init__(self, *options: Any) -> None:
        object.__setattr__(self, "options", plain(options))

    def problem(self) -> str | None:
        """What is wrong with the options, if anything is."""
        if len(self.options) < 2:
            return f"{len(self.options)} options leave nothing to choose; at least 2 are wanted"
        texts = [canonical_json(option) for option in self.options]
        doubles = [text for text in texts if texts.count(text) > 1]
        return f"{doubles[0]} is listed twice" if doubles else None

    def ends(self) -> list[Any]:
        """Values that must all be possible for the space to be."""
        return list(self.options)

    def holds(self, value: object) -> bool:
        """Whether `value` is one of them."""
        return any(canonical_json(value) == canonical_json(option) for option in self.options)

    def __str__(self) -> str:
        return " | ".join(canonical_json(option).strip('"') for option in self.options)


Dimension = Uniform | Integers | Choice


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


# --------------------------------------------------------------------------- pruners


@dataclass(frozen=True)
class _Halving(_Plain):
    first: int
    """Samples seen at the lowest rung; each further one is `reduction` times as high.

    A quarter of a run is early enough: on the built-in data the order of 12 trials at two ninths
    agreed with that of their ends (rank correlation 0.90), at a ninth much less so (0.69).
    """
    reduction: int = 2

    def rungs(self, samples: int) -> list[int]:
        """Samples seen at which a run of `samples` is looked at, its end not counted."""
        rungs, rung = [], self.first
        while rung < samples:
            rungs.append(rung)
            rung *= self.reduction
        return rungs

    def problem(self, samples: int) -> str | None:
        """What is wrong with it for runs of `samples`, if anything is."""
        if self.reduction < 2:
            return f"reduction = {self.reduction}: at least 2 is wanted"
        return _outside("first", self.first, samples)


@dataclass(frozen=True)
class Asha(_Halving):
    """Asynchronous successive halving: at each rung the best 1/`reduction` seen so far go on.

    A trial is compared when it gets to a rung and with those that got there before it, so no
    trial ever waits.  Who goes on was never stopped; who is stopped keeps its state on disk.
    """


@dataclass(frozen=True)
class Hyperband(_Halving):
    """Several successive halvings side by side, some of which begin to prune at a higher rung."""


@dataclass(frozen=True)
class Median(_Plain):
    """A trial is stopped when it is below the median of the earlier ones at the same rung."""

    every: int
    """Samples seen between two looks."""
    startup: int = 5
    """Trials that must have ended before any is stopped."""

    def rungs(self, samples: int) -> list[int]:
        """Samples seen at which a run of `samples` is looked at, its end not counted."""
        return list(range(self.every, samples, self.every))

    def problem(self, samples: int) -> str | None:
        """What is wrong with it for runs of `samples`, if anything is."""
        if self.startup < 1:
            return f"startup = {self.startup}: at least 1 trial is wanted"
        return _outside("every", self.every, samples)


Pruner = Asha | Hyperband | Median


def _outside(name: str, value: int, samples: int) -> str | None:
    if 0 < value < samples:
        return None
    return f"{name} = {value:,} lies outside the budget of a run, {samples:,} samples"


# --------------------------------------------------------------------------- the search


@dataclass(frozen=True)
class Search(_Plain):
    """What is searched, for what, and for how long.

    A trial is a run with the sweep's one seed.  The sweep's points are tried first.  When the
    trials are over, the best one and the base are made anew with the seeds of `confirm`, and the
    difference between those is what is reported.
    """

    space: Mapping[str, Dimension]
    """Dotted field -> the values it may take."""
    objectives: str | Sequence[str]
    """A metric of the split `validation`, or several metrics, of which some may be costs."""
    trials: int | None = None
    """Runs to start, beside those that are finished already."""
    gpu_hours: float | None = None
    """Hours of training, summed over the processes of all trials, after which none is begun."""
    sampler: str = "tpe"
    """`tpe`, `gp`, `random`, `quasi_random`, or `nsga2` for several objectives."""
    pruner: Pruner | None = None
    seed: int = 0
    """Of the sampler, not of the runs."""
    confirm: Sequence[int] = (101, 102, 103)
    """Seeds that no trial was selected by; none: nothing is confirmed."""

    @property
    def goals(self) -> tuple[str, ...]:
        """The objectives, be it one or several."""
        given = self.objectives
        return (given,) if isinstance(given, str) else tuple(given)

    def rungs(self, config: RunConfig) -> tuple[int, ...]:
        """Samples seen at which the runs of the search are looked at while they train."""
        return () if self.pruner is None else tuple(self.pruner.rungs(config.train.samples))

    def definition(self) -> dict[str, Any]:
        """What makes results of two commands those of one study, as plain values."""
        pruner = self.pruner
        return {
            "space": {path: str(dimension) for path, dimension in self.space.items()},
            "objectives": list(self.goals),
            "pruner": None if pruner is None else {type(pruner).__name__: asdict(pruner)},
        }

    def holds(self, point: Mapping[str, Any]) -> bool:
        """Whether `point` gives every field of the space, and no other, a value that is in it."""
        return set(point) == set(self.space) and all(
            self.space[path].holds(value) for path, value in point.items()
        )


def check_search(search: Search, base: RunConfig, points: Sequence[Mapping[str, Any]]) -> None:
    """Raise ConfigError or SweepError unless the search can be begun from `base`."""
    if not search.space:
        raise SweepError("the space of the search is empty; give a field its Uniform(low, high)")
    for path, dimension in search.space.items():
        _check_dimension(path, dimension, base)
    _check_objectives(search.goals)
    _check_budget(search)
    for point in points:
        if not search.holds(point):
            raise SweepError(f"the point {dict(point)} does not lie in the space of the search")


def _check_dimension(path: str, dimension: Dimension, base: RunConfig) -> None:
    if path == "seed":
        raise SweepError("seed: a search over seeds selects luck; take it out of the space")
    check_path(path)
    if not isinstance(dimension, (Uniform, Integers, Choice)):
        raise SweepError(
            f"{path} = {dimension!r} is no dimension; Uniform(low, high), Integers(low, high) or "
            "Choice(a, b, ...) is wanted"
        )
    problem = dimension.problem()
    if problem is not None:
        raise SweepError(f"{path}: {problem}")
    for value in dimension.ends():
        override(base, {path: value})


def _check_objectives(goals: Sequence[str]) -> None:
    if not goals or len(set(goals)) < len(goals):
        raise SweepError(f"objectives must be given, each once; these were: {list(goals)}")
    if all(metrics.is_cost(goal) for goal in goals):
        raise SweepError(f"{', '.join(goals)}: a cost alone is least for the worst model there is")
    for goal in goals:
        if metrics.is_measured_apart(goal):
            raise SweepError(
                f"objective {goal!r}: speed is measured apart, of runs that are done "
                "(python -m harness.bench latency); a search can weigh parameters and GMACs"
            )
        if not metrics.is_cost(goal) and not goal.startswith(f"{VALIDATION}/"):
            raise SweepError(
                f"objective {goal!r}: a search selects on the split {VALIDATION!r}, so that what "
                "is reported was not selected on; such as "
                f"{VALIDATION}/{metrics.mean_recall_kind()}"
            )


def _check_budget(search: Search) -> None:
    if search.trials is None and search.gpu_hours is None:
        raise SweepError("the search has no end: give trials or gpu_hours")
    for name, value in (("trials", search.trials), ("gpu_hours", search.gpu_hours)):
        if value is not None and not value > 0:
            raise SweepError(f"{name} = {value}: more than 0 is wanted")
    if search.sampler not in SAMPLERS:
        raise SweepError(unknown("sampler", search.sampler, SAMPLERS))
    if len(set(search.confirm)) < len(search.confirm):
        raise SweepError(f"confirm = {list(search.confirm)}: each seed once")


def check_pruner(search: Search, base: RunConfig) -> None:
    """Raise ConfigError unless rungs mean the same for every trial of the search."""
    if search.pruner is None:
        return
    if len(search.goals) > 1:
        raise ConfigError("a pruner needs one objective to go by; this search has several")
    if _SAMPLES in search.space:
        raise ConfigError(
            f"{_SAMPLES} is searched, and so a rung would be another share of the schedule for "
            "each trial; leave the pruner out, or the field"
        )
    problem = search.pruner.problem(base.train.samples)
    if problem is not None:
        raise ConfigError(f"{type(search.pruner).__name__}: {problem}")
