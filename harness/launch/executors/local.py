"""Several runs side by side on this machine, each in a worker process of its own.

A slot is a GPU for each process of a run, or a core for each of its threads.  A worker serves its
slot from run to run, so that imports are paid once; when it dies its run is put on record as
killed, and another worker takes the slot.  What runs next is the source's to say.
"""

from __future__ import annotations

import selectors
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from harness.config import RunConfig
from harness.config.pipes import check_pipes
from harness.data.shared import shared_folder
from harness.errors import HarnessError, one_line
from harness.launch.attempt import Attempt
from harness.launch.backlog import Say, StepSource
from harness.launch.executor import EXECUTORS, SHARE, SLOTS, Assignment, Executor, Option
from harness.launch.processes import Stop
from harness.launch.slots import Capacity, Slot, capacity_of, decoders, slots_here
from harness.launch.worker_process import WorkerProcess
from harness.planning.plan import Step

TICK_SECONDS = 0.25
"""How often dead workers are looked for."""
GRACE_SECONDS = 60.0
"""How long a run may take to save its state after a stop was asked for."""


@EXECUTORS.register("local")
class LocalExecutor(Executor):
    """Keeps every slot busy until its source is empty.

    Args:
        slots: None: as many as the machine has room for.
        wanted: how many there shall be then.
        rendezvous: folder and address where the other processes of the one worker's runs, which
            something else started, look for it; None: it starts them itself.
    """

    options: ClassVar[tuple[Option, ...]] = (SLOTS, SHARE)

    def __init__(
        self,
        work: Assignment,
        stop: Stop | None = None,
        slots: Sequence[Slot] | None = None,
        *,
        wanted: int | None = None,
        rendezvous: tuple[Path, str] | None = None,
    ) -> None:
        super().__init__(work, stop)
        self._given = slots
        self._wanted = wanted
        self._rendezvous = rendezvous
        self._workers: dict[int, WorkerProcess] = {}
        self._shared: Path | None = None
        self._open = ExitStack()

    @classmethod
    def of(cls, work: Assignment, args: Namespace) -> Self:
        """See Executor."""
        work = replace(work, share_data=bool(SHARE.value(args)))
        return cls(work, wanted=SLOTS.value(args))

    @cached_property
    def slots(self) -> Sequence[Slot]:
        """Where runs run; ConfigError when there is no room for one."""
        if self._given is not None:
            return self._given
        return slots_here(self.work.runtime, self._wanted)

    @property
    def side_by_side(self) -> int:
        """See Executor."""
        return len(self.slots) if SHARE in self.options else 1

    def capacity(self, runs: int) -> Capacity:
        """See Executor."""
        return capacity_of(self.slots, self.work.runtime, runs, f"{SLOTS.flag} N")

    def __enter__(self) -> Self:
        self._selector = selectors.DefaultSelector()
        if self.work.share_data and len(self.slots) > 1:
            try:
                self._shared = self._open.enter_context(shared_folder())
            except OSError as error:
                line = f"{SHARE.flag}: {one_line(error)}: each run decodes its pictures itself"
                print(line, file=sys.stderr)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers.values():
            worker.dismiss()
        try:
            if kind is None:
                self._await_all(GRACE_SECONDS)
        finally:
            for number in list(self._workers):
                self._drop(number)
            self._selector.close()
            self._open.close()

    # ---- preflight

    def preflight(self, configs: Sequence[RunConfig]) -> list[str]:
        """See Executor; HarnessError when the worker that checks dies of it."""
        if not configs:
            return []
        for number in range(min(len(self.slots), len(configs))):
            self._worker(number)  # they import side by side while the first one checks
        return self._checked_by(0, configs)

    def _checked_by(self, number: int, configs: Sequence[RunConfig]) -> list[str]:
        worker = self._worker(number)
        trees = [config.model_dump(mode="json") for config in configs]
        for config in configs:
            check_pipes(config.data.path)
        worker.tell({"preflight": trees, "runtime": self._runtime_in(number)})
        while not self.stop():
            self._selector.select(TICK_SECONDS)
            dead = worker.dead()
            for answer in worker.hear():
                return [answer["error"]] if "error" in answer else list(answer["problems"])
            if dead:
                _, error = self._drop(number)
                which = "the first worker" if number == 0 else f"worker {number + 1}"
                raise HarnessError(f"{which} died while it checked the runs: {error}")
        return []

    # ---- launch

    def launch(self, source: StepSource, say: Say) -> None:
        """See Executor; a run whose process dies is recorded by how it died."""
        while not self.stop():
            self._fill(source)
            if not any(worker.attempt for worker in self._workers.values()) and not len(source):
                return
            self._listen(source, say)
            source.look_elsewhere()
        say("stopping: running runs save their state (interrupt again to kill them)")
        for worker in self._workers.values():
            worker.dismiss()
        if not self._await_all(GRACE_SECONDS):
            say(f"some runs did not stop within {GRACE_SECONDS:.0f} s and are killed")

    def _fill(self, source: StepSource) -> None:
        for number in range(len(self.slots)):
            if number in self._workers and not self._workers[number].free:
                continue
            step = source.take()
            if step is None:
                return
            self._start(step, number)

    def _start(self, step: Step, number: int) -> None:
        attempt = Attempt.at(step, self.work.store)
        self._worker(number).give(attempt, self._runtime_in(number))

    def _runtime_in(self, number: int) -> dict[str, Any]:
        tree = self.work.runtime.model_dump(mode="json")
        tree["workers"] = decoders(self.work.runtime, self.slots)
        if self.slots[number].gpu is None:
            return tree
        # A worker sees its slot's GPU alone, so the ordinal of the launcher is not its own.
        return {**tree, "device": self.work.runtime.device.partition(":")[0]}

    def _worker(self, number: int) -> WorkerProcess:
        if number not in self._workers:
            worker = WorkerProcess(
                self.slots[number], self.work.sweep_file, self._rendezvous, self._shared
            )
            self._workers[number] = worker
            self._selector.register(worker.answers, selectors.EVENT_READ)
        return self._workers[number]

    def _drop(self, number: int) -> tuple[str, str]:
        worker = self._workers.pop(number)
        self._selector.unregister(worker.answers)
        return worker.bury()

    def _listen(self, source: StepSource, say: Say) -> None:
        self._selector.select(TICK_SECONDS)
        for number, worker in list(self._workers.items()):
            dead = worker.dead()
            for answer in worker.hear():
                worker.leaving = bool(answer["leaving"])
                if worker.attempt is not None:
                    worker.attempt.ended(answer, source, say)
                worker.attempt = None
            if dead:
                failure, error = self._drop(number)
                if worker.attempt is not None:
                    answer = {"outcome": "failed", "failure": failure, "error": error}
                    worker.attempt.ended(answer, source, say)

    def _await_all(self, seconds: float) -> bool:
        """Wait for every worker to end; False if some still live after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for number in [n for n, worker in self._workers.items() if worker.dead()]:
                self._drop(number)
            if not self._workers:
                return True
            time.sleep(TICK_SECONDS / 5)
        return False
