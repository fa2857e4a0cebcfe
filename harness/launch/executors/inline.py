"""Runs one after the other in this very process: for a debugger, a notebook, a single slot."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from functools import cached_property
from types import TracebackType

from harness.config import RunConfig, Runtime
from harness.files import append
from harness.launch.attempt import Attempt, failed, run_task
from harness.launch.backlog import POLL_SECONDS, Say, StepSource
from harness.launch.executor import EXECUTORS, Assignment, Executor
from harness.launch.processes import Stop
from harness.launch.ranks import Spawned
from harness.launch.slots import Capacity, capacity_of, decoders, slots_here
from harness.planning.plan import Step


@EXECUTORS.register("inline")
class InlineExecutor(Executor):
    """Executes runs where it is called; what a run prints appears where it is printed."""

    def __init__(self, work: Assignment, stop: Stop | None = None) -> None:
        super().__init__(work, stop)
        self._others = Spawned(work.sweep_file)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes that helped the runs; nothing else outlives one here."""
        self._others.dismiss()

    def capacity(self, runs: int) -> Capacity:
        """See Executor."""
        runtime = self.work.runtime
        return capacity_of(slots_here(runtime, 1), runtime, runs)

    @cached_property
    def _runtime(self) -> Runtime:
        runtime = self.work.runtime
        workers = decoders(runtime, slots_here(runtime, 1))
        return runtime.model_copy(update={"workers": workers})

    def preflight(self, configs: Sequence[RunConfig]) -> list[str]:
        """See Executor."""
        from harness import run

        return run.preflight(configs, self._runtime)

    def launch(self, source: StepSource, say: Say) -> None:
        """See Executor; an unknown failure of one run is recorded with its traceback."""
        while len(source) and not self.stop():
            step = source.take()
            if step is not None:
                self._run(step, source, say)
            elif len(source):
                time.sleep(POLL_SECONDS)
                source.look_elsewhere()

    def _run(self, step: Step, source: StepSource, say: Say) -> None:
        attempt = Attempt.at(step, self.work.store)

        def look_around() -> bool:
            """The one moment at which a run lets others look around."""
            source.look_elsewhere()
            return self.stop()

        task = attempt.task(self._runtime.model_dump(mode="json"))
        try:
            answer = run_task(task, look_around, self._others)
        except Exception as error:  # noqa: BLE001
            # The boundary between two runs: what ends one is put on record, and the next begins.
            attempt.log.parent.mkdir(parents=True, exist_ok=True)
            told = "".join(traceback.format_exception(error))
            append(attempt.log, told.encode(errors="backslashreplace"))
            answer = failed(error)
        attempt.ended(answer, source, say)
