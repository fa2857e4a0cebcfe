"""A process that executes runs, one after the other, as it is told on its standard input.

Each line read is a task; what is written to the standard output says how it ended.  What a run
prints goes to the log of its attempt, down to the last words of a crash in C.  A known failure
(HarnessError) ends only its run; after an unknown one the process is not trusted with another run
and ends too.  When the input ends the launcher is gone: the run saves its state and the process
ends.  Started by `harness.launch.worker_process`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.config import RunConfig, Runtime, validate
from harness.config.sweep_files import load_sweep
from harness.errors import HarnessError
from harness.launch.attempt import Answer, failed, run_task
from harness.launch.own_process import begin_process
from harness.launch.processes import ANSWER, Inbox, Stop, Task, print_to
from harness.launch.ranks import OtherRanks, Rendezvous, Spawned


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop, or until standard input ends."""
    begin_process()
    parser = argparse.ArgumentParser(prog="python -m harness.launch.worker", description=__doc__)
    parser.add_argument("--directory", help="to work in, if it is not the current one")
    parser.add_argument("--sweep", help="sweep file, for the parts that it registers")
    parser.add_argument(
        "--rendezvous",
        nargs=2,
        metavar=("FOLDER", "ADDRESS"),
        help="where the other processes of the runs look for this one",
    )
    args = parser.parse_args(argv)
    if args.directory is not None:
        os.chdir(args.directory)
    others: OtherRanks = Spawned(args.sweep)
    if args.rendezvous is not None:
        folder, address = args.rendezvous
        others = Rendezvous(Path(folder), address)
    worker = Worker(others)
    if args.sweep is not None:
        load_sweep(args.sweep)
    try:
        worker.serve()
    finally:
        others.dismiss()
    return 0


class Worker:
    """The tasks of one process, and whether it shall stop; it listens from the beginning."""

    def __init__(self, others: OtherRanks) -> None:
        self._answers = os.dup(1)
        print_to(2)
        self._others = others
        self._idle_output = os.dup(1)
        self._stop = Stop()
        self._tasks = Inbox(self._stop)
        sys.excepthook = self._last_words

    def serve(self) -> None:
        """Work on one task after the other until there are no more."""
        # Heavy, so only once signals and the end of the input are listened to.
        importlib.import_module("harness.run")
        for task in self._tasks:
            if "preflight" in task:
                self._answer(problems=self._preflight(task))
            else:
                answer = self._run(task)
                self._answer(**answer, leaving=self._stop())
            print_to(self._idle_output)

    def _preflight(self, task: Task) -> list[str]:
        from harness import run

        configs = [validate(RunConfig, tree) for tree in task["preflight"]]
        return run.preflight(configs, validate(Runtime, task["runtime"]))

    def _run(self, task: Task) -> Answer:
        print_to(Path(task["log"]))
        try:
            return run_task(task, self._stop, self._others)
        except HarnessError as error:
            traceback.print_exc()
            return failed(error)

    def _answer(self, **answer: Any) -> None:
        line = ANSWER + json.dumps(answer).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._answers, line) :]
        except BrokenPipeError:
            self._tasks.close()

    def _last_words(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        traceback.print_exception(kind, error, trace)
        self._answer(**failed(error), leaving=True)


if __name__ == "__main__":
    sys.exit(main())
