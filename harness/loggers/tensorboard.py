"""TensorBoard: event files in the run's directory; `--logdir results/runs` shows them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config import RunConfig
from harness.loggers import LOGGERS, LoggedRun, Logger


@LOGGERS.register("tensorboard")
class TensorBoardLogger(Logger):
    """A scalar a number, its step the samples seen; each attempt adds a file to the curves."""

    needs = "tensorboard"

    def __init__(self, run: LoggedRun, config: RunConfig, state: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.path / "tensorboard"))

    def write(self, samples_seen: int, values: Mapping[str, float]) -> None:
        """See Logger; on disk before it returns."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, samples_seen)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        """See Logger."""
        self._writer.close()
