"""The runs of one task of an array, and what a job notes of them in their directories.

Only the folder of the submission crosses into a job; the runs are found on disk, and the same task
may be started any number of times.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.pipes import check_pipes
from harness.config.sweep import Run, SweepFile
from harness.errors import HarnessError, one_line
from harness.files import read_json
from harness.launch.attempt import record_failure
from harness.launch.slurm import scheduler
from harness.launch.slurm.policy import bad_nodes, micro_batch_of, why_stop
from harness.launch.slurm.scheduler import Silent
from harness.launch.slurm.submissions import Intent, Submission
from harness.planning.plan import Step, make_plan
from harness.store.lease import Lease
from harness.store.record import Store
from harness.store.state import State, Status


@dataclass(frozen=True)
class ArrayTask:
    """A task of an array, as this job was given it."""

    submission: Submission
    array: int
    index: int
    job: str
    """What scontrol calls it: `12_3`."""
    restarts: int
    node: str

    @staticmethod
    def of_environment(submission: Submission, array: int, sha256: str) -> ArrayTask:
        """The task that SLURM's variables name, of the intent of that SHA-256."""
        submission.read_as(sha256)
        index = int(os.environ["SLURM_ARRAY_TASK_ID"])
        return ArrayTask(
            submission=submission,
            array=array,
            index=index,
            job=f"{os.environ['SLURM_ARRAY_JOB_ID']}_{index}",
            restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            node=os.environ.get("SLURMD_NODENAME", ""),
        )

    @property
    def intent(self) -> Intent:
        """What was submitted."""
        return self.submission.read()

    @property
    def store(self) -> Store:
        """Where the runs are."""
        return self.intent.store

    @property
    def nodes(self) -> int:
        """Nodes of the job; with several, SLURM starts the processes of a run."""
        return self.intent.profile.nodes

    @property
    def rendezvous(self) -> Path:
        """Where the processes of this start of the job find one another."""
        name = f"{self.array}-{self.index}-{self.restarts}"
        return self.submission.folder / "rendezvous" / name

    def runs(self) -> list[Run]:
        """The runs of the task, read from their directories; one that cannot be read is told."""
        runs = []
        for key in self.intent.arrays[self.array].tasks[self.index]:
            try:
                runs.append(self._run(key))
            except (HarnessError, OSError) as error:
                say(f"run {key} is left out: {one_line(error)}")
        return runs

    def _run(self, key: str) -> Run:
        directory = self.store.run_dir(key)
        config = directory.read_config()
        check_pipes(config.data.path)
        job = read_json(directory.path / "job.json") or {}
        source = SweepFile.recorded(job.get("sweep"))
        return Run(str(job.get("label", key)), {}, config.seed, config, source=source)

    def status(self, run: Run) -> Status:
        """What the files say of a run."""
        return self.store.run_dir(run.key).status(run.config.evaluation_key)

    def own_ends(self, run: Run) -> list[dict[str, Any]]:
        """The ends of a run in this submission."""
        ends = self.store.run_dir(run.key).ends()
        return [end for end in ends if end.get("submission") == self.intent.id]

    def add_end(self, run: Run, failure: str, error: str, **details: Any) -> None:
        """Note what ended the last attempt of a run; LeaseHeld if somebody runs it."""
        directory = self.store.run_dir(run.key)
        here = {"submission": self.intent.id, "job": self.job, "node": self.node}
        with Lease(directory.lease_file):
            directory.add_end(failure, error, **{**here, **details})

    def ended(
        self, run: Run, failure: str, error: str, *, stop: str | None = None, **details: Any
    ) -> bool:
        """Note an end, and give the run up if it is not to go on; False where that cannot be.

        Args:
            stop: why it is not; None: that is for its ends to say.
        """
        try:
            self.add_end(run, failure, error, **details)
            reason = stop or self.why_stop(run)
            if reason not in {None, error}:
                self.fail(run, failure, str(reason))
        except (OSError, HarnessError) as problem:
            say(f"{run.label} seed {run.seed} ({run.key}): {error}; {one_line(problem)}")
            return False
        return True

    def fail(self, run: Run, failure: str, error: str, log: Path | None = None) -> None:
        """Put a run on record as failed, for good as far as this submission is concerned.

        Args:
            log: what tells more, if that is not the log of its last attempt.
        """
        directory = self.store.run_dir(run.key)
        self.add_end(run, failure, error, final=True, micro_batch=None)
        record_failure(
            directory,
            run.config.evaluation_key,
            attempt=directory.attempts(),
            since=time.time(),
            failure=failure,
            error=error,
            log=log,
        )

    def micro_batch(self, run: Run) -> int | None:
        """Pairs at once on a process, after the ends that a run had; None: all."""
        return micro_batch_of(self.own_ends(run), run.config, self.intent.runtime)

    def why_stop(self, run: Run) -> str | None:
        """Why this submission is not to go on with a run; None if it is."""
        return why_stop(self.own_ends(run), self.intent.profile)

    def to_do(self) -> list[Step]:
        """The steps of the runs that are to go on."""
        steps: dict[str, Step] = {}
        for run in self.runs():
            for step in self._plan(run):
                if step.run.key == run.key or step.run.key not in steps:
                    steps[step.run.key] = step
        pending = [step for step in steps.values() if step.pending]
        return [s for s in pending if not self.why_stop(s.run) and not self.called_off(s.run)]

    def _plan(self, run: Run) -> list[Step]:
        try:
            return make_plan([run], self.store)
        except (HarnessError, OSError) as error:
            say(f"run {run.key} is left out: {one_line(error)}")
            return []

    def called_off(self, run: Run) -> bool:
        """Whether somebody wants no more of a run, such as a search that prunes it."""
        return self.store.run_dir(run.key).stop_requested() is not None

    def end_of_last_attempt_is_known(self, run: Run) -> bool:
        """Whether the last attempt ended with a word, or there was none yet."""
        directory = self.store.run_dir(run.key)
        attempts = directory.attempts()
        written = read_json(directory.status_file)
        if not attempts or written is None or written["state"] != State.RUNNING.value:
            return True
        return any(end["attempt"] == attempts for end in directory.ends())

    def go_back(self, exclude: Sequence[str] = ()) -> None:
        """Back in the queue, away from nodes that failed; says so when that is not taken."""
        ends = [end for run in self.runs() for end in self.own_ends(run)]
        profile = self.intent.profile
        avoided = [*profile.exclude, *bad_nodes(ends), *exclude]
        try:
            scheduler.requeue(self.job, exclude=scheduler.avoidable(avoided, profile.partition))
        except Silent as error:
            say(f"the job is not back in the queue ({error}); the same command submits it again")


def say(line: str) -> None:
    """Print a line with the time of day before it, to the log of the job."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
