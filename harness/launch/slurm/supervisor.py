"""What runs inside a job: the runs of one task of an array, in worker processes under a supervisor.

    python -m harness.launch.slurm.supervisor FOLDER ARRAY --sha256 HASH               by srun
    python -m harness.launch.slurm.supervisor FOLDER ARRAY --sha256 HASH --after CODE  afterwards

The supervisor itself is light: a worker that is killed is put on record by it, and when the
supervisor is killed too, by the batch script.  Signals only raise a flag; the runs
save their state at the next step boundary, and the job goes back in the queue unless it was
cancelled.  Of a job with several nodes srun starts it once for each process of a run: the first one
supervises, the others help with its runs.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from harness.config.sweep import Run
from harness.errors import HarnessError, one_line
from harness.launch.backlog import Backlog
from harness.launch.executor import Assignment
from harness.launch.executors.local import LocalExecutor
from harness.launch.own_process import begin_process
from harness.launch.processes import HELD_SIGNALS, Stop
from harness.launch.ranks import end_rendezvous, help_with, runs_of_rendezvous
from harness.launch.slots import gpus_of_machine, slots_here
from harness.launch.slurm import scheduler
from harness.launch.slurm.array_task import ArrayTask, say
from harness.launch.slurm.launching import HOLD_AFTER, note_begin
from harness.launch.slurm.scheduler import Silent
from harness.launch.slurm.submissions import Submission, look_anew_at
from harness.launch.slurm.submit import submit_missing_report
from harness.planning.plan import TRANSIENT, Step
from harness.store.provenance import usable_cores
from harness.store.state import State

_SIGNALLED = {128 + number for number in HELD_SIGNALS}
_OUT_OF_MEMORY = re.compile(r"oom[-_ ]?kill|out of memory|exceeded (?:job |step )?memory", re.I)
_TAIL_BYTES = 20_000


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code is 0 if every run of the task is done."""
    stop = _Signals()
    begin_process()
    parser = argparse.ArgumentParser(prog="python -m harness.launch.slurm.supervisor")
    parser.add_argument("folder", type=Path, help="of the submission")
    parser.add_argument("array", type=int, help="which of its arrays")
    parser.add_argument("--after", type=int, metavar="CODE", help="the supervisor's exit code")
    parser.add_argument("--sha256", required=True, help="of what was submitted")
    args = parser.parse_args(argv)
    task = ArrayTask.of_environment(Submission(args.folder), args.array, args.sha256)
    task.intent.begin()
    if args.after is not None:
        return Aftermath(task, args.after).tidy()
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    if rank == 0:
        return Supervisor(task, stop).supervise()
    runs = runs_of_rendezvous(task.rendezvous, stop)
    local_rank = int(os.environ.get("SLURM_LOCALID", "0"))
    return help_with(runs, task.intent.sweep_file, stop, rank=rank, local_rank=local_rank)


class _Signals(Stop):
    """A stop asked for by each signal that tells a job to leave; remembers which came first."""

    def __init__(self) -> None:
        super().__init__()
        self.first: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT, *HELD_SIGNALS):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or number
        self.ask()


# --------------------------------------------------------------------------- the supervisor


class Supervisor:
    """Brings the runs of a task to their ends."""

    def __init__(self, task: ArrayTask, stop: _Signals) -> None:
        self.task = task
        self.stop = stop
        self.stuck: set[str] = set()
        """Runs that cannot be started, or not be put on record, by this process."""

    def supervise(self) -> int:
        """Run what is to be run; 0 if every run of the task is done."""
        task = self.task
        note_begin(task.submission, task.array, task.index, task.restarts)
        say(f"task {task.job} of submission {task.intent.id} on {task.node}")
        held = task.submission.held()
        if held is not None:
            say(f"the sweep holds itself back: {held}")
            return 1
        wants_gpu = task.intent.profile.gpus > 0 and task.intent.runtime.device != "cpu"
        if wants_gpu and not gpus_of_machine():
            return self._leave_this_node()
        _warn_of_few_cores()
        for run in task.runs():
            look_anew_at(task.store.run_dir(run.key))  # another node may have had it until now
            self._settle_earlier(run)
        while not self.stop() and (steps := self._steps()):
            self._work(steps)
            if task.nodes > 1 and self._steps():
                break  # whatever cut one run short has sent the other processes away
        return self._finish()

    def _steps(self) -> list[Step]:
        return [step for step in self.task.to_do() if step.run.key not in self.stuck]

    def _work(self, steps: Sequence[Step]) -> None:
        """Launch those that take the same parts of a batch at once, and see what came of them."""
        sizes = {step.run.key: self.task.micro_batch(step.run) for step in steps}
        size = sizes[steps[0].run.key]
        group = [step for step in steps if sizes[step.run.key] == size]
        with self._executor(size, len(group)) as executor:
            group = [step for step in group if self._fits(step.run, size, executor)]
            alike = executor.work.share_data
            executor.launch(Backlog(group, self.task.store, say, intended=True, alike=alike), say)
        for step in group:
            self._took(step, size)

    def _fits(self, run: Run, size: int | None, executor: LocalExecutor) -> bool:
        """Whether a run that was out of memory can do with less, which is `size` now.

        One that cannot, because that would be another run, is put on record and given up.
        """
        ends = self.task.own_ends(run)
        if not ends or ends[-1]["class"] != "out_of_memory":
            return True
        if ends[-1].get("whole"):
            say(f"{run.label} seed {run.seed}: out of memory; again, activations computed twice")
            return True
        error = str(ends[-1]["error"])
        problems = ["it is one pair at a time"]
        if size != ends[-1]["micro_batch"]:
            problems = executor.preflight([run.config])
        if problems and self._may_recompute(ends):
            parts = ends[-1]["micro_batch"]
            self._ended(run, "out_of_memory", error, micro_batch=parts, whole=True)
            return False  # its turn comes with those that take the batch in the same parts
        if problems:
            words = f"{error}; smaller parts of a batch are no way out: {problems[0]}"
            self.task.fail(run, "out_of_memory", words)
            return False
        say(f"{run.label} seed {run.seed}: out of memory; again with {size} pairs at once")
        return True

    def _may_recompute(self, ends: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a run can go on with the same parts and less memory, and has not tried to."""
        runtime = self.task.intent.runtime
        spared = runtime.checkpoint_activations or any(end.get("whole") for end in ends)
        return not spared and not runtime.compile

    def _executor(self, micro_batch: int | None, runs: int) -> LocalExecutor:
        intent, nodes = self.task.intent, self.task.nodes
        runtime = intent.runtime.model_copy(update={"micro_batch": micro_batch})
        on_this_node = runtime.model_copy(update={"processes": runtime.processes // nodes})
        return LocalExecutor(
            Assignment(
                self.task.store,
                runtime,
                sweep_file=None if intent.sweep_file is None else Path(intent.sweep_file),
                share_data=intent.profile.share_data,
            ),
            self.stop,
            slots_here(on_this_node, max(1, min(intent.profile.pack, runs))),
            rendezvous=(self.task.rendezvous, _address()) if nodes > 1 else None,
        )

    # ---- what came of a run

    def _took(self, step: Step, size: int | None) -> None:
        run = step.run
        status = self.task.status(run)
        if status.state is State.DONE:
            return
        if self.stop() and status.state is not State.FAILED:
            return  # it may not even have begun; why is for _finish to find out
        if status.state is State.INTERRUPTED:
            self._ended(run, "interrupted", "its process was told to stop", micro_batch=size)
        elif status.state is State.FAILED:
            failure, error = status.failure or "bug", status.error or "no message"
            self._ended(run, failure, error, micro_batch=size)
        else:
            self.stuck.add(run.key)

    def _ended(self, run: Run, failure: str, error: str, **details: Any) -> None:
        """Note an end; a run whose end cannot be noted is let be."""
        if not self.task.ended(run, failure, error, **details):
            self.stuck.add(run.key)

    # ---- the beginning

    def _settle_earlier(self, run: Run) -> None:
        """Note the end of an attempt that left no word: its whole job is gone.

        One that lives on, on a node that was given up, is waited for like any other launcher's.
        """
        live = self.task.status(run).state is State.RUNNING
        if live or self.task.end_of_last_attempt_is_known(run):
            return
        attempt = self.task.store.run_dir(run.key).provenance()[-1]
        job = attempt.get("slurm", {})
        failure, node = "killed", str(job.get("node", ""))
        if job.get("array"):
            with suppress(Silent):
                failure = scheduler.last_end(f"{job['array']}_{job['index']}") or failure
        error = f"the job was gone without a word ({failure})"
        self._ended(run, failure, error, node=node, micro_batch=attempt.get("micro_batch"))

    def _leave_this_node(self) -> int:
        error = f"node {self.task.node} has no GPU that can be seen"
        say(error)
        for step in self._steps():
            self._ended(step.run, "node_failure", error)
        self._note_end()
        if self._steps():
            self.task.go_back([self.task.node])
        return 1

    # ---- the end

    def _finish(self) -> int:
        cause, ours_to_requeue = self._why_stopped() if self.stop() else ("", True)
        for step in self._steps():
            saved = {State.INTERRUPTED: "its state was saved", State.NEW: "it had not begun"}
            if cause and step.status.state in saved:
                error = f"{cause.replace('_', ' ')}; {saved[step.status.state]}"
                self._ended(step.run, cause, error, micro_batch=self.task.micro_batch(step.run))
        self._note_end()
        if self.task.nodes > 1:
            end_rendezvous(self.task.rendezvous)
        if ours_to_requeue and self._steps():
            say(f"{cause.replace('_', ' ') or 'a process is lost'}: back in the queue")
            self.task.go_back()
        runs = self.task.runs()
        left = [run for run in runs if self.task.status(run).state is not State.DONE]
        say(f"{len(runs) - len(left)} of {len(runs)} runs are done")
        if not self.stop() and not any(map(self.task.called_off, runs)):
            self._see_to_report()
        return 0 if all(map(self.task.called_off, left)) else 1

    def _see_to_report(self) -> None:
        """Of the last task to end: have a report follow, if none does."""
        task = self.task
        if len(task.submission.ends()) == task.intent.tasks:
            try:
                submit_missing_report(task.submission, say)
            except (OSError, HarnessError) as error:
                say(f"no report job: {one_line(error)}")

    def _why_stopped(self) -> tuple[str, bool]:
        """The class of the end, and whether it is for this process to put the job back."""
        profile = self.task.intent.profile
        if self.stop.first == getattr(signal, f"SIG{profile.signal}"):
            return "time_limit", True
        try:
            state = scheduler.own_state(self.task.job)
        except Silent as error:
            say(f"why the job is to stop is not known: {error}")
            return "preempted", False
        if state == "CANCELLED":
            return "cancelled", False
        if scheduler.ENDED.get(state) == "time_limit":
            return "time_limit", True
        return "preempted", state == "RUNNING"

    def _note_end(self) -> None:
        task = self.task
        ends: dict[str, Mapping[str, Any]] = {}
        for run in task.runs():
            status = task.status(run)
            ends[run.key] = {
                "state": status.state.value,
                "failure": status.failure,
                "error": status.error,
            }
        task.submission.note_end(task.array, task.index, ends, restarts=task.restarts)
        reason = same_death(task.submission.ends(), task.intent.tasks)
        if reason is not None:
            say(f"the sweep holds itself back: {reason}")
            task.submission.hold(reason)


def same_death(ends: Sequence[Mapping[str, Any]], tasks: int) -> str | None:
    """Why a submission is to hold itself back: its first tasks all died of the same error."""
    first = ends[:HOLD_AFTER]
    if len(first) < HOLD_AFTER or tasks <= HOLD_AFTER:
        return None
    deaths = {_death(end) for end in first}
    death = deaths.pop()
    if deaths or death is None:
        return None
    return f"the first {HOLD_AFTER} tasks died of the same error ({death[0]}): {death[1]}"


def _death(end: Mapping[str, Any]) -> tuple[str, str] | None:
    """Class and error, without its numbers, of a task of which every run failed."""
    runs = list(end["runs"].values())
    if not all(r["state"] == State.FAILED.value and r["failure"] not in TRANSIENT for r in runs):
        return None
    return runs[0]["failure"], re.sub(r"\d+", "#", str(runs[0]["error"]))


def _address() -> str:
    """Where other nodes find this one: by its name, unless that is only known to itself."""
    given = os.environ.get("SLURM_LAUNCH_NODE_IPADDR")
    if given:
        return given
    name = socket.gethostname()
    try:
        if not socket.gethostbyname(name).startswith("127."):
            return name
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing; any address outside would do
            return str(probe.getsockname()[0])
    except OSError:
        return name


def _warn_of_few_cores() -> None:
    asked = int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
    if usable_cores() < asked:
        say(
            f"warning: {asked} CPUs were asked for, and this process may use {usable_cores()} "
            "(its affinity): runs will be slow"
        )


# --------------------------------------------------------------------------- the batch script


class Aftermath:
    """What the batch script does when the supervisor has ended, well or not."""

    def __init__(self, task: ArrayTask, code: int) -> None:
        self.task = task
        self.code = code

    def tidy(self) -> int:
        """Put on record what the supervisor could not, and the job back in the queue."""
        task = self.task
        if task.submission.has_ended(task.array, task.index, task.restarts):
            return 0
        if task.submission.held() is not None or not self._unfinished():
            return 0
        failure, error = self._cause()
        say(f"the supervisor is gone (exit code {self.code}): {error}")
        for run in self._cut_short():
            hopeless = failure == "out_of_memory" and not task.store.run_dir(run.key).attempts()
            stop = f"{error} before training began; give the profile more" if hopeless else None
            task.ended(run, failure, error, stop=stop, micro_batch=task.micro_batch(run))
        if failure != "cancelled" and self._unfinished():
            task.go_back()
        return 0

    def _cut_short(self) -> list[Run]:
        """The runs whose attempts ended without a word, or else the one that never began."""
        unfinished = self._unfinished()
        cut = [run for run in unfinished if not self.task.end_of_last_attempt_is_known(run)]
        return cut or unfinished[:1]

    def _unfinished(self) -> list[Run]:
        """The runs that are to go on by themselves."""
        return [step.run for step in self.task.to_do()]

    def _cause(self) -> tuple[str, str]:
        try:
            state = scheduler.own_state(self.task.job)
        except Silent:
            state = "UNKNOWN"
        if state == "CANCELLED":
            return "cancelled", "the job was cancelled"
        if _OUT_OF_MEMORY.search(self._log()):
            return "out_of_memory", "the job was killed for the memory it used"
        if self.code in _SIGNALLED:
            return "preempted", "the job was told to stop as it began"
        return "killed", f"the job's processes were killed (exit code {self.code})"

    def _log(self) -> str:
        """The end of what the job printed."""
        texts = []
        job = self.task.job
        for file in self.task.submission.logs.glob(f"{job}_*_log.out"):
            data = file.read_bytes()[-_TAIL_BYTES:]
            texts.append(data.decode(errors="backslashreplace"))
        text = "\n".join(texts)
        return text[max(0, text.rfind(f"task {job} of submission")) :]


if __name__ == "__main__":
    sys.exit(main())
