"""One attempt at a run, in whichever process: what it is told, and how its end is put on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import RunConfig, Runtime, validate
from harness.config.pipes import check_pipes
from harness.errors import HarnessError, InterruptedRun, RecordError, failure_class, one_line
from harness.files import read_json
from harness.launch.backlog import Say, StepSource, name_of
from harness.planning.plan import Step
from harness.store.lease import Lease, LeaseHeld
from harness.store.record import RunDir, Store
from harness.store.state import State

if TYPE_CHECKING:
    from harness.launch.ranks import OtherRanks

Answer = Mapping[str, Any]
"""How an attempt ended: its outcome (done, held, interrupted, failed), its failure and error."""


@dataclass(frozen=True)
class Attempt:
    """A step that a process has been given.

    `number` and `since` (seconds of the epoch) tell its records from those of earlier attempts.
    """

    step: Step
    store: Store
    number: int
    since: float

    @classmethod
    def at(cls, step: Step, store: Store) -> Attempt:
        """The next attempt at a step, which begins now."""
        return cls(step, store, store.run_dir(step.run.key).attempts() + 1, time.time())

    @property
    def log(self) -> Path:
        """Where what it prints belongs."""
        return self.store.run_dir(self.step.run.key).log_file(self.number)

    def task(self, runtime: Mapping[str, Any]) -> dict[str, Any]:
        """What `run_task` is to be told, in whichever process.

        Raises DataError where the data is behind a command that is not the caller's own.
        """
        check_pipes(self.step.run.config.data.path)
        return {
            "config": self.step.run.config.model_dump(mode="json"),
            "root": str(self.store.root),
            "label": self.step.run.label,
            "log": str(self.log),
            "runtime": runtime,
        }

    def ended(self, answer: Answer, source: StepSource, say: Say) -> None:
        """Tell the source, and file a failure that the run could not file itself."""
        outcome, failure = answer["outcome"], answer.get("failure")
        try:
            if outcome == "failed":
                self._file(str(failure), str(answer["error"]))
        except LeaseHeld:
            outcome = "held"
        except (OSError, HarnessError) as problem:
            say(f"{name_of(self.step)}: {answer['error']}; not on record: {one_line(problem)}")
            failure = RecordError.failure
        if outcome == "held":
            source.held(self.step)
        else:
            source.ended(self.step, failure)

    def _file(self, failure: str, error: str) -> None:
        run = self.step.run
        record_failure(
            self.store.run_dir(run.key),
            run.config.evaluation_key,
            attempt=self.number,
            since=self.since,
            failure=failure,
            error=error,
        )


def run_task(task: Mapping[str, Any], stop: Callable[[], bool], others: OtherRanks) -> Answer:
    """Execute a run in this process, and say how it ended; raises what made it fail."""
    from harness import run

    config, runtime = validate(RunConfig, task["config"]), validate(Runtime, task["runtime"])
    try:
        run.execute(
            config,
            Path(task["root"]),
            runtime,
            label=task["label"],
            stop=stop,
            company=others.of(config, runtime, Path(task["log"])),
        )
    except LeaseHeld:
        return {"outcome": "held"}
    except InterruptedRun as error:
        return {"outcome": "interrupted", "failure": error.failure}
    return {"outcome": "done"}


def failed(error: BaseException) -> dict[str, str]:
    """The answer of an attempt that ended with an error."""
    return {"outcome": "failed", "failure": failure_class(error), "error": one_line(error)}


def record_failure(
    directory: RunDir,
    evaluation_key: str,
    *,
    attempt: int,
    since: float,
    failure: str,
    error: str,
    log: Path | None = None,
) -> None:
    """File a failure that the run could not file itself (it was killed, or never began).

    Nothing is written if the run recorded a failure of its own after `since` (seconds of the
    epoch), or is done.  Raises LeaseHeld when somebody has taken the run over already.
    """
    with Lease(directory.lease_file):
        written = read_json(directory.status_file) or {}
        recorded = written.get("state") == State.FAILED.value and written["beat"] >= since
        if recorded or directory.status(evaluation_key).state is State.DONE:
            return
        directory.write_status(
            State.FAILED,
            failure=failure,
            error=error,
            attempt=attempt,
            samples_seen=int(written.get("samples_seen", 0)),
            log=str(log or directory.log_file(attempt)),
        )
