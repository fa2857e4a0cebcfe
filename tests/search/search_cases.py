"""A search over two fields, runs that end as they are told to, and a launch without processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import Evaluate, RunConfig, Train, override
from harness.config.searchspace import Asha, Integers, Search, Uniform
from harness.config.sweep import Point, Run
from harness.planning.plan import Step
from harness.search.source import Trials
from harness.search.study import Study
from harness.store.record import RunDir, Store
from harness.store.state import State
from harness.store.trials import Ledger

LR, LAYERS = "train.lr", "model.text.layers"
GOAL = "validation/mean_recall"
RUNGS = (100, 300)

BASE = RunConfig(
    train=Train(samples=1_000, batch_size=100),
    evaluate=Evaluate(splits=("validation", "test")),
)


def search(**changes: Any) -> Search:
    """10 trials by a random sampler, without a pruner."""
    wanted: dict[str, Any] = {
        "space": {LR: Uniform(1e-4, 1e-1, log=True), LAYERS: Integers(1, 6)},
        "objectives": GOAL,
        "trials": 10,
        "sampler": "random",
        **changes,
    }
    return Search(**wanted)


def halving(**changes: Any) -> Search:
    """The same with rungs at 100 and 300 of 1,000 samples."""
    return search(**{"pruner": Asha(first=100, reduction=3), **changes})


def run_of(point: Point) -> Run:
    config = override(BASE, dict(point))
    return Run(", ".join(f"{k}={v}" for k, v in point.items()), dict(point), 0, config)


def worth(config: RunConfig) -> float:
    """What the objective of a run comes to: best at a learning rate of 0.01 and many layers."""
    return 0.5 - 0.1 * abs(math.log10(config.train.lr) + 2) + 0.01 * config.model.text.layers


def finish(directory: RunDir, config: RunConfig, value: float, **metrics: float) -> None:
    """What a run leaves behind that came to its end."""
    reported = {GOAL: value, "test/mean_recall": value - 0.1, **metrics}
    entry = {"metrics": {n: {"value": v} for n, v in reported.items()}}
    directory.write_status(State.DONE, attempt=1, samples_seen=config.train.samples)
    directory.write_result(
        {
            "code": "c0de",
            "training": {"samples_seen": config.train.samples, "seconds": 36.0},
            "cost": {"parameters": {"inference": 1e6 * config.model.text.layers}},
            "evaluations": {config.evaluation_key: entry},
        }
    )


def progress(directory: RunDir, samples_seen: int, value: float | None) -> None:
    metrics = None if value is None else {GOAL: value}
    line = {"samples_seen": samples_seen, "step": samples_seen // 100, "metrics": metrics}
    directory.append_progress({**line, "reason": None, "seconds": 0.1})


def run_to_the_end(step: Step, directory: RunDir, source: Trials) -> str | None:
    """A run that looks up at each rung, as one under an executor would."""
    config = step.run.config
    for rung in RUNGS:
        progress(directory, rung, worth(config) * rung / 1_000)
        source.look_elsewhere()
        if directory.stop_requested():
            stopped = {"attempt": 1, "samples_seen": rung, "seconds": rung / 1_000 * 36}
            directory.write_status(State.INTERRUPTED, stopped="pruned", **stopped)
            return "pruned"
    finish(directory, config, worth(config))
    return None


Behaviour = Callable[[Step, RunDir, Trials], str | None]


@dataclass
class Desk:
    """A search and all that its controller holds; `open` is what a new command does."""

    root: Path
    search: Search
    points: Sequence[Point] = ()
    finished: Sequence[Point] = ()
    width: int | None = None
    said: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    """Keys of the runs that were started, each time."""

    @property
    def store(self) -> Store:
        return Store(self.root)

    def open(self, **more: Any) -> Trials:
        self.ledger = Ledger.of(self.store, "s")
        self.study = Study("s", self.search, self.ledger, self.store, self.definition(), 1_000)
        trials = Trials(
            self.search,
            self.ledger,
            self.study,
            self.store,
            run_of,
            self.said.append,
            points=self.points,
            finished=self.finished,
            width=self.width,
            **more,
        )
        trials.take_up()
        return trials

    def definition(self) -> Mapping[str, Any]:
        return {"space": {p: str(d) for p, d in self.search.space.items()}}

    def launch(self, behaviour: Behaviour = run_to_the_end, *, most: int = 1_000) -> Trials:
        """Run the trials one after the other, at most so many, and leave."""
        trials = self.open()
        for _ in range(most):
            step = trials.take() if len(trials) else None
            if step is None:
                break
            self.ran.append(step.run.key)
            directory = self.store.run_dir(step.run.key)
            trials.ended(step, behaviour(step, directory, trials))
        return trials

    def on_disk(self) -> Ledger:
        return Ledger.of(self.store, "s")

    def outcomes(self) -> list[str]:
        return [trial.outcome.value for trial in self.on_disk()]

    def told(self) -> list[tuple[Any, ...]]:
        """The study as anybody would load it: state, params, values, reports."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage = JournalStorage(JournalFileBackend(str(self.on_disk().journal_file)))
        study = optuna.load_study(study_name="s", storage=storage)
        return [(t.state.name, t.params, t.values, t.intermediate_values) for t in study.trials]
