"""Where the numbers of a run also go while it trains: a file a logger, by name in `runtime.log`.

metrics.jsonl and progress.jsonl are the record; a logger is a thin writer that gets each of their
lines once, also where a run is cut off, goes on, or is given the logger half-way.  What a logger
cannot do never ends a run.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from harness.config import RunConfig, Runtime
from harness.errors import one_line, require
from harness.files import numbers_of, read_json, read_jsonl, write_json
from harness.registry import Registry
from harness.store.record import RunDir

STEP = "samples_seen"
"""What every curve is drawn against, as in metrics.jsonl."""

_NO_CURVES = {STEP, "step", "seconds"}


class Logger(ABC):
    """Gets the numbers of one run; made when an attempt at the run begins.

    Args:
        run: its directory, for files beside the others.
        config: what it is.
        state: of this logger and run, empty at the first attempt; what is put in, plain values,
            is there again at the next.
    """

    needs: ClassVar[str] = ""
    """The module that it writes with; an extra of the harness is called as the logger is."""

    @classmethod
    def failures(cls) -> tuple[type[Exception], ...]:
        """What its calls may raise; the run then goes on without it."""
        return (OSError,)

    @abstractmethod
    def __init__(self, run: LoggedRun, config: RunConfig, state: dict[str, Any]) -> None: ...

    @abstractmethod
    def write(self, samples_seen: int, values: Mapping[str, float]) -> None:
        """Numbers by name, `terms/instance`, at a place of the training; in order."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """The attempt is over; the run may go on in another."""


LOGGERS: Registry[type[Logger]] = Registry("logger", package="harness.loggers")
"""Name -> class; a sweep file may register its own."""


def check_loggers(runtime: Runtime) -> None:
    """Raise ConfigError unless every logger of `runtime.log` is known and can be imported."""
    for name in runtime.log:
        logger = LOGGERS.get(name)
        own = logger.__module__.startswith(f"{__name__}.")
        needs = [logger.needs] if logger.needs else []
        require(f"runtime.log = {name!r}", needs, extra=name if own else None)


class LoggedRun(RunDir):
    """A run's directory that tells its loggers what is written there; a context that closes them.

    Attributes:
        label: what people call the run.
    """

    def __init__(self, path: Path, config: RunConfig, runtime: Runtime, label: str) -> None:
        super().__init__(path)
        self.label = label
        self._states = {name: self._state(name) for name in runtime.log}
        self._loggers: dict[str, Logger] = {}
        for name in runtime.log:
            self._begin(name, config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in list(self._loggers):
            self._try(name, lambda logger: logger.close(kind is not None))

    # ---- what is written

    def rewind_logs(self, samples_seen: int) -> None:
        """See RunDir; then whatever a logger has not had yet."""
        super().rewind_logs(samples_seen)
        for file in (self.metrics_file, self.progress_file):
            for line in read_jsonl(file):
                self._tell(file.stem, line)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """See RunDir."""
        super().append_metrics(line)
        self._tell(self.metrics_file.stem, line)

    def append_progress(self, line: Mapping[str, Any]) -> None:
        """See RunDir."""
        super().append_progress(line)
        self._tell(self.progress_file.stem, line)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """See RunDir; of the result, what was evaluated last."""
        super().write_result(result)
        for key, entry in list(result["evaluations"].items())[-1:]:
            values = {name: found["value"] for name, found in entry["metrics"].items()}
            self._tell(f"result {key}", {STEP: result["training"][STEP], **values})

    # ---- who is told

    def _state(self, name: str) -> dict[str, Any]:
        return {"sent": {}, "own": {}, **(read_json(self._state_file(name)) or {})}

    def _state_file(self, name: str) -> Path:
        return self.path / "loggers" / f"{name}.json"

    def _begin(self, name: str, config: RunConfig) -> None:
        kind = LOGGERS.get(name)
        try:
            self._loggers[name] = kind(self, config, self._states[name]["own"])
            self._keep(name)
        except ImportError as error:
            self._give_up(name, error)
        except kind.failures() as error:
            self._give_up(name, error)

    def _keep(self, name: str) -> None:
        write_json(self._state_file(name), self._states[name])

    def _tell(self, file: str, line: Mapping[str, Any]) -> None:
        """Send a line of `file` to the loggers that were not sent it in an earlier attempt."""
        values = {n: v for n, v in numbers_of(line).items() if n not in _NO_CURVES}
        for name in list(self._loggers):
            sent = self._states[name]["sent"]
            if values and line[STEP] > sent.get(file, -1):
                self._try(name, lambda logger: logger.write(line[STEP], values))
                sent[file] = line[STEP]
                self._keep(name)

    def _try(self, name: str, call: Callable[[Logger], None]) -> None:
        logger = self._loggers[name]
        try:
            call(logger)
        except logger.failures() as error:
            self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        self._loggers.pop(name, None)
        print(f"logger {name}: {one_line(error)}; no more of this attempt goes there",
              file=sys.stderr, flush=True)  # fmt: skip
