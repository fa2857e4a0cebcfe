"""Wanted against on disk: what to do with each run, and what it will cost.

Pure reading: makes no directory and starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from harness.config import RunConfig
from harness.config.parents import parent_keys
from harness.config.sweep import Run
from harness.errors import whole
from harness.metrics import lacking
from harness.planning.costs import training_gmacs
from harness.store.deployed import forms_of
from harness.store.provenance import code_hash
from harness.store.record import Store
from harness.store.state import State, Status

#: Failure classes that the same command tries again: the machine failed, not the run.
TRANSIENT = frozenset(
    {"killed", "node_failure", "out_of_memory", "disk_full", "interrupted", "launch"}
)


class Rerun(StrEnum):
    """Which runs a command works on, besides those never started or cut off."""

    MISSING = "missing"
    STALE = "stale"
    FAILED = "failed"
    METRICS = "metrics"
    ALL = "all"


class Action(StrEnum):
    """What is done with one run."""

    SKIP = "skip"
    RUN = "run"
    RESUME = "resume"
    EVALUATE = "evaluate"
    RETRY = "retry"
    ATTACH = "attach"
    LEAVE = "leave"


@dataclass(frozen=True)
class Step:
    """One line of the plan."""

    run: Run
    status: Status
    action: Action
    note: str
    seconds: float | None
    """Estimated seconds left in one slot; None when nothing finished here tells the speed."""
    waits_for: tuple[str, ...] = ()
    """Keys of the runs that must have a result first: this one needs their weights."""
    trained: Mapping[str, Any] | None = None
    """What its result says of the training; None where there is no result."""

    @property
    def pending(self) -> bool:
        """Whether there is something to do or to wait for."""
        return self.action not in {Action.SKIP, Action.LEAVE}

    @property
    def from_scratch(self) -> bool:
        """Whether what is in the run's directory is set aside first."""
        return self.action is Action.RETRY or (
            self.action is Action.RUN and self.status.state is State.DONE
        )


def make_plan(runs: Sequence[Run], store: Store, rerun: Rerun = Rerun.MISSING) -> list[Step]:
    """What to do with each of `runs`, and before them with their parents.

    A parent that is none of `runs` is in the plan while one of them needs it, for its weights
    alone.  RecordError when a run directory cannot be trusted.
    """
    with whole(store.runs):
        return _planned(runs, store, rerun)


def _planned(runs: Sequence[Run], store: Store, rerun: Rerun) -> list[Step]:
    steps = [_step(run, store, rerun) for run in runs]
    parents = [_for_weights(_step(run, store, rerun)) for run in _parents_beside(steps)]
    refused = {step.run.key: step for step in [*parents, *steps] if step.action is Action.LEAVE}
    steps = [*parents, *(_unless_parent_failed(step, refused) for step in steps)]
    speed = _gmacs_per_second(steps)
    return [replace(step, seconds=_seconds(step, speed)) for step in steps]


def _step(run: Run, store: Store, rerun: Rerun) -> Step:
    directory = store.run_dir(run.key)
    if (directory.path / "config.json").exists():
        directory.read_config()
    status, result = directory.look(run.config.evaluation_key)
    lacks = _lacks(result, run.config)
    action, note = _decide(status, result, rerun, run.config.evaluation_key, lacks)
    trained = None if result is None else result["training"]
    step = Step(run, status, action, note, None, trained=trained)
    if not step.pending or (result is not None and not step.from_scratch):
        return step
    begins = step.from_scratch or not directory.begun
    return replace(step, waits_for=parent_keys(run.config, begins=begins))


def _parents_beside(steps: Sequence[Step]) -> list[Run]:
    """The parents that a step waits for and that are no step themselves, each once."""
    keys = {step.run.key for step in steps}
    wanted = [p for step in steps for p in step.run.parents if p.key in step.waits_for]
    return list({run.key: run for run in wanted if run.key not in keys}.values())


def _for_weights(step: Step) -> Step:
    """A parent's step: its weights are wanted and not its numbers."""
    if step.action is Action.EVALUATE:
        step = replace(step, action=Action.SKIP, note="")
    return replace(step, note=f"parent; {step.note}" if step.note else "parent")


def _unless_parent_failed(step: Step, refused: Mapping[str, Step]) -> Step:
    parent = next((refused[key] for key in step.waits_for if key in refused), None)
    if parent is None:
        return step
    note = f"its parent {parent.run.key} failed ({parent.status.failure or 'bug'})"
    return replace(step, action=Action.LEAVE, note=note)


def request_fills(steps: Sequence[Step], store: Store) -> None:
    """Have the finished runs that are to be evaluated again filled up, on whatever executor."""
    for step in steps:
        if step.action is Action.EVALUATE and step.status.state is State.DONE:
            store.run_dir(step.run.key).request_fill()


def _decide(
    status: Status,
    result: Mapping[str, Any] | None,
    rerun: Rerun,
    evaluation_key: str,
    lacks: str,
) -> tuple[Action, str]:
    older = result is not None and result.get("code") != code_hash()
    if status.state is State.RUNNING:
        return Action.ATTACH, "another launcher runs it"
    if status.state is State.DONE:
        if rerun is Rerun.ALL:
            return Action.RUN, "asked for again; the old result is kept in superseded/"
        if older and rerun is Rerun.STALE:
            return Action.RUN, "made by other code; the old result is kept in superseded/"
        if lacks and rerun in {Rerun.STALE, Rerun.METRICS}:
            return Action.EVALUATE, f"lacks {lacks}; filled in without training"
        if older:
            return Action.SKIP, "made by other code (--rerun stale repeats it)"
        return Action.SKIP, f"lacks {lacks} (--rerun metrics fills them in)" if lacks else ""
    if result is not None:
        known = evaluation_key in result["evaluations"]
        return Action.EVALUATE, "to be filled in" if known else "trained; this protocol is new"
    if status.state is State.FAILED:
        failure = status.failure or "bug"
        if rerun in {Rerun.FAILED, Rerun.ALL}:
            return Action.RETRY, f"failed before ({failure})"
        if failure in TRANSIENT:
            return Action.RESUME, f"failed before ({failure})"
        return Action.LEAVE, f"{failure}; --rerun failed tries it again"
    if status.state is State.INTERRUPTED:
        return Action.RESUME, "cut off"
    return Action.RUN, ""


def _lacks(result: Mapping[str, Any] | None, config: RunConfig) -> str:
    """`4 metrics and form onnx`, which an evaluation of today may have beside those there are."""
    entry = {} if result is None else result["evaluations"].get(config.evaluation_key, {})
    if not {"metrics", "protocol"} <= set(entry):
        return ""
    kinds = {name.rpartition("/")[2] for name in lacking(entry, config.objective.active)}
    counted = f"{len(kinds)} {'metric' if len(kinds) == 1 else 'metrics'}" if kinds else ""
    forms = forms_of(entry)
    holes = [f"form {f}" for f in config.evaluate.deploy if "metrics" not in forms.get(f, {})]
    return " and ".join(filter(None, [counted, *holes]))


# --------------------------------------------------------------------------- cost


def _gmacs_per_second(steps: Sequence[Step]) -> float | None:
    """Median training speed of the finished runs among these, in GMACs a second and slot."""
    speeds = sorted(
        training_gmacs(step.run.config, step.trained["samples_seen"]) / step.trained["seconds"]
        for step in steps
        if step.trained is not None and step.trained.get("seconds")
    )
    return speeds[len(speeds) // 2] if speeds else None


def _seconds(step: Step, speed: float | None) -> float | None:
    if step.action is Action.SKIP:
        return 0.0
    config, status = step.run.config, step.status
    evaluates = status.state is not State.DONE or step.action is Action.EVALUATE
    if step.trained is not None and evaluates:
        return float(step.trained.get("evaluation_seconds", 0.0))
    left = max(0, config.train.samples - status.samples_seen)
    return training_gmacs(config, left) / speed if speed else None
