"""Weights & Biases: one run there for a run here, however many attempts it takes.

Project, entity and mode are its own settings (WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any

from harness.config import RunConfig
from harness.loggers import LOGGERS, STEP, LoggedRun, Logger


@LOGGERS.register("wandb")
class WandbLogger(Logger):
    """Numbers against the samples seen; the identity of the run there is kept in its directory."""

    needs = "wandb"

    @classmethod
    def failures(cls) -> tuple[type[Exception], ...]:
        """See Logger."""
        import wandb

        return (OSError, wandb.errors.Error)

    def __init__(self, run: LoggedRun, config: RunConfig, state: dict[str, Any]) -> None:
        import wandb

        state.setdefault("id", f"{run.key}-{uuid.uuid4().hex[:8]}")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lightclip"),
            id=state["id"],
            name=f"{run.label} seed {config.seed}",
            config={"key": run.key, **config.model_dump(mode="json")},
            dir=str(run.path),
            resume="allow",
            settings=wandb.Settings(console="off"),
        )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)

    def write(self, samples_seen: int, values: Mapping[str, float]) -> None:
        """See Logger."""
        self._run.log({STEP: samples_seen, **values})

    def close(self, failed: bool) -> None:
        """See Logger."""
        self._run.finish(exit_code=int(failed))
