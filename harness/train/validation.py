"""An evaluation between two steps of a training, which must not notice it.

Weights, statistics of norms, modes and torch's generators are as they were before; per-example
outcomes are not kept.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from harness.config import VALIDATION, RunConfig, Runtime
from harness.data.dataset import DataSet
from harness.errors import InvariantError
from harness.evaluate.embed import Share, alone
from harness.evaluate.engine import evaluate
from harness.models.training import TrainingModel


def validate(
    training: TrainingModel,
    data: DataSet,
    config: RunConfig,
    runtime: Runtime,
    share: Share = alone,
) -> dict[str, Any]:
    """What the towers, and what trains beside them, are worth now on the split `validation`.

    Returns:
        `metrics`, name -> value, None for all when the numbers cannot be true (collapsed towers,
        NaN), with the `reason`; and the `seconds` that it took.
    """
    began = time.monotonic()
    settings = config.evaluate.model_copy(update={"splits": (VALIDATION,), "class_folders": ()})
    job = config.model_copy(update={"evaluate": settings})
    metrics: dict[str, Any] | None = None
    reason = None
    with torch.random.fork_rng(devices=[]):  # drawn from by the data loader alone
        try:
            entry = evaluate(
                training.model,
                data,
                job,
                runtime,
                checkpoint_sha256="",
                out=None,
                training=training,
                share=share,
            )
            metrics = {name: found["value"] for name, found in entry["metrics"].items()}
        except InvariantError as error:
            reason = str(error)
    return {"metrics": metrics, "reason": reason, "seconds": round(time.monotonic() - began, 3)}
