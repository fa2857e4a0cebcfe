"""What a finished run gives to others: its model, and weights for a run to start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.config import RunConfig
from harness.errors import (
    ConfigError,
    RecordError,
)
from harness.files import one_name
from harness.models.training import TrainingModel
from harness.models.two_tower import TwoTower, rows_of, take_up
from harness.store.record import RunDir
from harness.train.checkpoint import (
    load_weights,
)

_TEXT = "text."
"""What the names of a text tower's weights begin with."""


def inherit(model: TwoTower, config: RunConfig, directory: RunDir) -> None:
    """Start the text tower from its parent's, and note whose weights those were."""
    text = config.model.text
    if text.init_parent is None or text.init_blocks is None:
        return
    parent = RunDir(directory.path.parent / one_name(text.init_parent))
    checkpoint = parent.finished()["checkpoint"]
    weights = load_weights(parent.path, checkpoint)
    rows, own = weights.get("token_rows"), model.token_rows
    if isinstance(own, Tensor) and (rows is None or not torch.equal(rows, own.cpu())):
        raise ConfigError(
            f"model.text.init = {text.init!r}: the rows of run {parent.key}'s token table stand "
            "for other tokens than this run's"
        )
    model.text.inherit(
        {n.removeprefix(_TEXT): t for n, t in weights.items() if n.startswith(_TEXT)},
        text.init_blocks,
    )
    directory.complete_provenance(
        parent={
            "run": parent.key,
            "checkpoint": checkpoint["sha256"],
            "blocks": list(text.init_blocks),
        }
    )


def parent_record(directory: RunDir, config: RunConfig) -> dict[str, Any]:
    """Entries of the result for the run it started from and for its teachers; none without any."""
    there = {
        "parent": config.model.text.init_parent is not None,
        "teachers": "teacher" not in config.idle(),
    }
    return {what: directory.noted(what) for what, has in there.items() if has}


def load_finished(directory: RunDir) -> TrainingModel:
    """A finished run as it was trained, on the CPU: the towers and what trained beside them.

    Raises:
        RecordError: the run is not finished, or a file is not the one that its result names.
    """
    result = directory.finished()
    config = directory.read_config()
    towers = load_weights(directory.path, result["checkpoint"])
    training = TrainingModel(config, rows_of(towers))
    take_up(training.model, towers)
    if not take_up_training_only(training, directory, result):
        raise RecordError(
            f"run {directory.key} kept the towers alone, as an earlier version did; "
            "the sweep that has it, with --rerun all, makes it anew"
        )
    return training.eval()


def take_up_training_only(
    training: TrainingModel, directory: RunDir, result: Mapping[str, Any]
) -> bool:
    """Load what trained beside the towers; False if it was not kept, as by an earlier version."""
    wanted = training.training_only()
    if wanted and "training_modules" not in result:
        return False
    kept = load_weights(directory.path, result["training_modules"]) if wanted else {}
    take_up(training, {**training.state_dict(), **kept})
    return True
