"""What the batch script does when its supervisor has ended, well or not.

    python -m harness.launch.slurm.aftermath FOLDER ARRAY CODE

When the supervisor was killed with everything that it ran, nobody else is left to put that on
record, nor the job back in the queue.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError, one_line
from harness.launch.signals import HELD_SIGNALS
from harness.launch.slurm import scheduler
from harness.launch.slurm.array_task import ArrayTask, say
from harness.launch.slurm.policy import why_stop
from harness.launch.slurm.scheduler import Silent
from harness.launch.slurm.submissions import Submission
from harness.space import Run

_SIGNALLED = {128 + number for number in HELD_SIGNALS}
_OUT_OF_MEMORY = re.compile(r"oom[-_ ]?kill|out of memory|exceeded (?:job |step )?memory", re.I)
_TAIL_BYTES = 20_000


def main(argv: Sequence[str] | None = None) -> int:
    """Tidy up, deaf to what a scheduler sends meanwhile."""
    for number in (signal.SIGINT, *HELD_SIGNALS):
        signal.signal(number, lambda *_: None)
    parser = argparse.ArgumentParser(prog="python -m harness.launch.slurm.aftermath")
    parser.add_argument("folder", type=Path, help="of the submission")
    parser.add_argument("array", type=int, help="which of its arrays")
    parser.add_argument("code", type=int, help="the supervisor's exit code")
    args = parser.parse_args(argv)
    task = ArrayTask.of_environment(Submission(args.folder), args.array)
    return Aftermath(task, args.code).tidy()


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
            try:
                self._record(run, failure, error)
            except (OSError, HarnessError) as problem:
                say(f"{run.label} seed {run.seed} ({run.key}): {one_line(problem)}")
        if failure != "cancelled" and self._unfinished():
            task.go_back()
        return 0

    def _record(self, run: Run, failure: str, error: str) -> None:
        task = self.task
        task.add_end(run, failure, error, micro_batch=task.micro_batch(run))
        reason = why_stop(task.own_ends(run), task.intent.profile)
        if failure == "out_of_memory" and not task.store.run_dir(run.key).attempts():
            reason = f"{error} before training began; give the profile more"
        if reason is not None and failure != "cancelled":
            task.fail(run, failure, reason)

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
