"""A process that executes runs, one after the other, as it is told on its standard input.

Each line read is a task, each line written to the answers' descriptor says how it ended.  What a
run prints goes to the log of its attempt, down to the last words of a crash in C.  A known failure
(HarnessError) ends only its run; after an unknown one the process is not trusted with another run
and ends too.  When the input ends the launcher is gone: the run saves its state and the process
ends.  Started by `harness.launch.local`; the only module of the package that imports torch at once.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from harness.config import RunConfig, Runtime, validate
from harness.errors import HarnessError, InterruptedRun, failure_class, one_line
from harness.launch.base import Stop, release_signals
from harness.launch.companions import Companions
from harness.launch.slurm.meeting import Meeting
from harness.lease import LeaseHeld
from harness.sweep_files import load_sweep

Task = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop, or until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m harness.launch.worker", description=__doc__)
    parser.add_argument("--answers", type=int, required=True, help="descriptor to answer on")
    parser.add_argument("--sweep", help="sweep file, for the parts that it registers")
    parser.add_argument("--meeting", type=Path, help="folder to find the processes of a job in")
    args = parser.parse_args(argv)
    os.set_inheritable(args.answers, False)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    companions = Companions(args.sweep) if args.meeting is None else Meeting(args.meeting)
    worker = Worker(args.answers, companions)
    worker.listen()
    if args.sweep is not None:
        load_sweep(args.sweep)
    try:
        worker.serve()
    finally:
        worker.companions.dismiss()
    return 0


class Worker:
    """The tasks of one process, and whether it shall stop."""

    def __init__(self, answers: int, companions: Companions | Meeting) -> None:
        self._answers = answers
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._stop = Stop()
        self._idle_output = os.dup(1)
        self.companions = companions

    def listen(self) -> None:
        """Take tasks from standard input and stop at its end, at SIGTERM and at SIGINT."""
        signal.signal(signal.SIGTERM, lambda *_: self._ask_to_stop())
        signal.signal(signal.SIGINT, lambda *_: self._ask_to_stop())
        release_signals()
        sys.excepthook = self._last_words
        tasks = os.dup(0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        threading.Thread(target=self._read, args=(tasks,), name="tasks", daemon=True).start()

    def serve(self) -> None:
        """Work on one task after the other until there are no more."""
        # Heavy, so only once signals and the end of the input are listened to.
        importlib.import_module("harness.run")
        while (task := self._tasks.get()) is not None and not self._stop():
            if "preflight" in task:
                self._answer(problems=self._preflight(task))
            else:
                answer = self._run(task)
                self._answer(**answer, leaving=self._stop())
            print_to(self._idle_output)

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8") as lines:
            for line in lines:
                self._tasks.put(json.loads(line))
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        self._stop.ask()
        self._tasks.put(None)

    def _preflight(self, task: Task) -> list[str]:
        from harness import run

        configs = [validate(RunConfig, tree) for tree in task["preflight"]]
        return run.preflight(configs, validate(Runtime, task["runtime"]))

    def _run(self, task: Task) -> dict[str, str]:
        log = Path(task["log"])
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        print_to(descriptor)
        os.close(descriptor)
        try:
            self._execute(task)
        except LeaseHeld:
            return {"outcome": "held"}
        except InterruptedRun as error:
            return {"outcome": "interrupted", "failure": error.failure}
        except HarnessError as error:
            traceback.print_exc()
            return _failed(error)
        return {"outcome": "done"}

    def _execute(self, task: Task) -> None:
        from harness import run

        config = validate(RunConfig, task["config"])
        runtime = validate(Runtime, task["runtime"])
        run.execute(
            config,
            Path(task["root"]),
            runtime,
            label=task["label"],
            stop=self._stop,
            company=self.companions.of(config, runtime, Path(task["log"])),
        )

    def _answer(self, **answer: Any) -> None:
        line = (json.dumps(answer) + "\n").encode()
        try:
            while line:
                line = line[os.write(self._answers, line) :]
        except BrokenPipeError:
            self._ask_to_stop()

    def _last_words(
        self,
        kind: type[BaseException],
        error: BaseException,
        trace: TracebackType | None,
    ) -> None:
        traceback.print_exception(kind, error, trace)
        self._answer(**_failed(error), leaving=True)


def _failed(error: BaseException) -> dict[str, str]:
    return {"outcome": "failed", "failure": failure_class(error), "error": one_line(error)}


def print_to(descriptor: int) -> None:
    """Send standard output and error, also of C code and of child processes, to a descriptor."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


if __name__ == "__main__":
    sys.exit(main())
