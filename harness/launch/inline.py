"""Runs one after the other in this very process: for a debugger, a notebook, a single slot."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from harness.config import RunConfig, Runtime
from harness.errors import InterruptedRun, failure_class, one_line
from harness.launch.base import POLL_SECONDS, Say, Source, Stop, name_of, record_failure
from harness.launch.ranks import Spawned
from harness.lease import LeaseHeld
from harness.plan import Step
from harness.record import Store


class InlineExecutor:
    """Executes runs where it is called; what a run prints appears where it is printed."""

    def __init__(
        self, store: Store, runtime: Runtime, stop: Stop, sweep: Path | None = None
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._stop = stop
        self._others = Spawned(sweep)

    def __enter__(self) -> InlineExecutor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes that helped the runs; nothing else outlives one here."""
        self._others.dismiss()

    def preflight(self, configs: Sequence[RunConfig]) -> list[str]:
        """See Executor."""
        from harness import run

        return run.preflight(configs, self._runtime)

    def launch(self, source: Source, say: Say) -> None:
        """See Executor; an unknown failure of one run is recorded with its traceback."""
        while len(source) and not self._stop():
            step = source.take()
            if step is not None:
                self._run(step, source, say)
            elif len(source):
                time.sleep(POLL_SECONDS)
                source.look_elsewhere()

    def _run(self, step: Step, source: Source, say: Say) -> None:
        from harness import run

        config, label = step.run.config, step.run.label
        directory = self._store.run_dir(step.run.key)
        since, attempt = time.time(), directory.attempts() + 1
        company = self._others.of(config, self._runtime, directory.log_file(attempt))
        try:
            run.execute(
                config,
                self._store.root,
                self._runtime,
                label=label,
                stop=lambda: self._look(source),
                company=company,
            )
            source.ended(step, None)
        except LeaseHeld:
            source.held(step)
        except InterruptedRun as error:
            source.ended(step, error.failure)
        except Exception as error:  # noqa: BLE001
            # The boundary between two runs: what ends one is put on record, and the next begins.
            try:
                self._record(step, attempt, since, error)
            except (OSError, LeaseHeld) as problem:
                say(f"{name_of(step)} failed, which is not on record: {one_line(problem)}")
            source.ended(step, failure_class(error))

    def _look(self, source: Source) -> bool:
        """Whether a stop was asked for: the one moment at which a run lets others look around."""
        source.look_elsewhere()
        return self._stop()

    def _record(self, step: Step, attempt: int, since: float, error: Exception) -> None:
        directory = self._store.run_dir(step.run.key)
        _append(directory.log_file(attempt), "".join(traceback.format_exception(error)))
        record_failure(
            directory,
            step.run.config.evaluation_key,
            attempt=attempt,
            since=since,
            failure=failure_class(error),
            error=one_line(error),
        )


def _append(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)
