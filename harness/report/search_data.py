"""A search as its report sees it: the trials in a frame, their curves, and the confirmation.

Everything comes from the ledger, the manifest and the run directories, so a report needs neither
the sweep file, nor the data, nor the optimiser's journal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from harness import metrics
from harness.config.sweep import short_names
from harness.document.text import encodable
from harness.errors import RecordError
from harness.stats.analysis import Measured, Plan, analyse
from harness.stats.intervals import Estimate, estimate
from harness.stats.tests import Judged
from harness.store.manifest import Manifest, manifest_names, read_manifest
from harness.store.record import Store
from harness.store.trials import Ledger, Look, Origin, Outcome, Trial, best_trials, looks

CONFIRMED = "_confirmed"
"""What the name of a search ends in where the sweep that confirms it is meant."""


@dataclass(frozen=True)
class Axis:
    """One field of the space as it is drawn."""

    path: str
    name: str
    whole: bool
    """Whether it takes integers alone."""
    log: bool
    low: float
    high: float
    options: tuple[Any, ...] | None
    """None for numbers."""

    def place(self, value: Any) -> float:
        """Where a value lies between the ends, in [0, 1]."""
        if self.options is not None:
            at = [str(option) for option in self.options].index(str(value))
            return at / max(1, len(self.options) - 1)
        low, high, here = float(self.low), float(self.high), float(value)
        if self.log:
            low, high, here = math.log(low), math.log(high), math.log(here)
        return (here - low) / (high - low)


@dataclass(frozen=True)
class Confirmed:
    """One metric of one point of the confirmation, over the fresh seeds."""

    metric: str
    label: str
    values: Mapping[int, float]
    estimate: Estimate
    judged: Judged | None
    """The difference to the base; None for the base itself and for what has no seed with it."""


@dataclass(frozen=True)
class SearchData:
    """One search and all that is on disk of it."""

    name: str
    about: Mapping[str, Any]
    trials: tuple[Trial, ...]
    axes: tuple[Axis, ...]
    curves: Mapping[int, tuple[Look, ...]]
    """Trial -> its evaluations while it trained; of those that have any."""
    best: tuple[Trial, ...]
    confirmed: tuple[Confirmed, ...]
    holes: int
    """Runs of the confirmation that gave no number."""

    @property
    def goals(self) -> tuple[str, ...]:
        """The objectives."""
        return tuple(self.about["objectives"])

    @cached_property
    def shares(self) -> Mapping[str, Mapping[str, float]]:
        """`importances`, worked out once."""
        return importances(self)

    def early(self) -> tuple[str, dict[int, float]]:
        """The objective where most trials have one, and what to call that place.

        With a pruner that is the lowest rung, which all trials came to, else the end.
        """
        goal, rungs = self.goals[0], self.about["rungs"]
        at_end = {t.number: t.values[0] for t in self.trials if t.values is not None}
        first = {
            number: looked[0].value_of(goal)
            for number, looked in self.curves.items()
            if rungs and rungs[0] <= looked[0].samples_seen < 2 * rungs[0]
        }
        first = {number: value for number, value in first.items() if math.isfinite(value)}
        if len(first) > len(at_end):
            return f"at {rungs[0]:,} samples", first
        return "at the end", at_end

    def frame(self) -> pd.DataFrame:
        """A row a trial: number, outcome, origin, the fields, the objectives, samples, seconds."""
        rows = [
            {
                "trial": trial.number,
                "outcome": trial.outcome.value,
                "origin": trial.origin.value,
                **{axis.path: encodable(trial.point[axis.path]) for axis in self.axes},
                **dict(zip(self.goals, trial.values or [None] * len(self.goals), strict=True)),
                "samples_seen": trial.samples_seen,
                "seconds": round(trial.seconds, 3),
                "run": trial.key,
                "why": encodable(trial.why),
            }
            for trial in self.trials
        ]
        return pd.DataFrame(rows)


def read_search(name: str, store: Store) -> SearchData:
    """What is on disk of the search `name`; RecordError when that is nothing."""
    ledger = Ledger.of(store, name)
    about = ledger.about()
    trials = tuple(ledger)
    curves = {
        trial.number: found
        for trial in trials
        if trial.outcome is not Outcome.REPEAT and (found := tuple(_own_looks(trial, store)))
    }
    confirmed, holes = _confirmation(name, store)
    return SearchData(
        name=name,
        about=about,
        trials=trials,
        axes=_axes(about),
        curves=curves,
        best=tuple(best_trials(trials, about["objectives"])),
        confirmed=confirmed,
        holes=holes,
    )


def _own_looks(trial: Trial, store: Store) -> list[Look]:
    """The evaluations of a trial's run, those left out that came after the trial was over."""
    found = looks(store.run_dir(trial.key)) if trial.key else []
    return [look for look in found if not trial.over or look.samples_seen <= trial.samples_seen]


def _axes(about: Mapping[str, Any]) -> tuple[Axis, ...]:
    names = {**short_names(about["space"]), **about["labels"]}
    return tuple(
        Axis(
            path=path,
            name=names[path],
            whole=d["kind"] == "Integers",
            log=bool(d.get("log", False)),
            low=d.get("low", 0.0),
            high=d.get("high", 1.0),
            options=tuple(d["options"]) if "options" in d else None,
        )
        for path in about["fields"]
        for d in [about["space"][path]]
    )


# --------------------------------------------------------------------------- the confirmation


def _confirmation(name: str, store: Store) -> tuple[tuple[Confirmed, ...], int]:
    if name + CONFIRMED not in manifest_names(store):
        return (), 0
    manifest = read_manifest(store, name + CONFIRMED)
    labels = list(dict.fromkeys(run.label for run in manifest.runs))
    values = _values(manifest, labels, store)
    wanted = len(manifest.sweep.seeds) if isinstance(manifest.sweep.seeds, Sequence) else 0
    base = next((run.label for run in manifest.runs if _is_base(run.point, manifest)), labels[0])
    # Nothing is averaged over a hole.
    complete = {place: found for place, found in values.items() if len(found) == wanted}
    judged = _judged(labels, base, complete)
    confirmed = [
        Confirmed(metric, label, found, estimate(list(found.values())), judged.get((label, metric)))
        for (label, metric), found in complete.items()
    ]
    done = {
        (run.label, run.seed)
        for run in manifest.runs
        if all(run.seed in values[(run.label, m)] for m in manifest.sweep.show.metrics)
    }
    return tuple(confirmed), len(manifest.runs) - len(done)


def _judged(
    labels: Sequence[str], base: str, values: Mapping[tuple[str, str], Mapping[int, float]]
) -> dict[tuple[str, str], Judged]:
    """(point, metric) -> its difference to the base; the first metric, the goal, is the primary."""
    names = list(dict.fromkeys(metric for _, metric in values))
    measured = [
        Measured(
            metric,
            {
                n: values[label, metric]
                for n, label in enumerate(labels)
                if (label, metric) in values
            },
            metrics.higher_is_better(metric),
        )
        for metric in names
        if not metrics.is_cost(metric)
    ]
    first = labels.index(base)
    pairs = [(point, first) for point in range(len(labels)) if point != first]
    found = analyse(measured, Plan(pairs, primary=measured[0].name if measured else None))
    return {
        (labels[point], metric): judged
        for metric, each in found.by_metric.items()
        for (point, _), judged in each.comparisons.items()
    }


def _is_base(point: Mapping[str, Any], manifest: Manifest) -> bool:
    return manifest.sweep.show.baseline is not None and dict(point) == dict(
        manifest.sweep.show.baseline
    )


def _values(
    manifest: Manifest, labels: Sequence[str], store: Store
) -> dict[tuple[str, str], dict[int, float]]:
    """(point, metric) -> seed -> value, of the runs that gave one."""
    shown = manifest.sweep.show.metrics
    found: dict[tuple[str, str], dict[int, float]] = {(p, m): {} for p in labels for m in shown}
    for run in manifest.runs:
        with suppress(RecordError):
            result = store.run_dir(run.key).finished()
            for metric in shown:
                if (value := _value(result, run.evaluation_key, metric)) is not None:
                    found[run.label, metric][run.seed] = value
    return found


def _value(result: Mapping[str, Any], key: str, metric: str) -> float | None:
    if metrics.is_cost(metric):
        return metrics.cost_value(result["cost"], metric)
    reported = result["evaluations"].get(key, {}).get("metrics", {})
    value = reported.get(metric, {}).get("value")
    return None if value is None else float(value)


# --------------------------------------------------------------------------- what matters


def importances(data: SearchData) -> dict[str, dict[str, float]]:
    """Evaluator -> field -> share of the objective's spread that the field explains.

    By Optuna's fANOVA (Hutter et al., 2014) and PED-ANOVA (Watanabe et al., 2023), over the values
    of `early`; empty when fewer than 4 trials have one, or all have the same.
    """
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    _, values = data.early()
    if len(values) < 4 or len(set(values.values())) < 2:
        return {}
    distributions: dict[str, BaseDistribution] = {}
    for path, d in data.about["space"].items():
        if "options" in d:
            distributions[path] = CategoricalDistribution([str(o) for o in d["options"]])
        elif d["kind"] == "Integers":
            distributions[path] = IntDistribution(d["low"], d["high"], d["log"], d["step"])
        else:
            distributions[path] = FloatDistribution(d["low"], d["high"], log=d["log"])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    up = metrics.higher_is_better(data.goals[0])
    study = optuna.create_study(direction="maximize" if up else "minimize")
    for trial in data.trials:
        if trial.number in values:
            params = {p: _param(trial.point[p], d) for p, d in distributions.items()}
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=distributions, value=values[trial.number]
                )
            )
    evaluators = {
        "fANOVA": optuna.importance.FanovaImportanceEvaluator(seed=0),
        "PED-ANOVA": optuna.importance.PedAnovaImportanceEvaluator(),
    }
    return {
        name: optuna.importance.get_param_importances(study, evaluator=evaluator)
        for name, evaluator in evaluators.items()
    }


def _param(value: Any, distribution: Any) -> Any:
    return str(value) if hasattr(distribution, "choices") else value


def free(trials: Sequence[Trial]) -> int:
    """How many trials cost nothing."""
    return sum(trial.origin is Origin.FREE for trial in trials)
