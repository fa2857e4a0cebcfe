"""Trainers of tiny runs, and forked processes that train one together."""

from __future__ import annotations

import itertools
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness.config import RunConfig, Runtime, override
from harness.data.text import corpus_rows
from harness.device import placed
from harness.errors import InterruptedRun
from harness.files import write_atomic
from harness.models.training import TrainingModel
from harness.store.record import RunDir
from harness.train.distributed import (
    SINGLE_PROCESS,
    ProcessGroup,
    RankAddress,
    open_store,
    process_group,
)
from harness.train.loop import Trainer
from tests.conftest import MemoryData, memory_data

CPU = torch.device("cpu")
CLIP = override(
    RunConfig(),
    {
        "model.image.backbone": "test_resnet",
        "model.image.size": 32,
        "model.image.output_stride": 8,
        "model.text.layers": 2,
        "model.text.width": 16,
        "model.text.heads": 2,
        "model.text.context_length": 12,
        "model.text.vocabulary": "corpus",
        "model.embed_dim": 8,
        "train.batch_size": 8,
        "train.samples": 48,
        "train.warmup_samples": 12,
        "train.grad_clip": None,
        # Adam divides by the gradient's size: where that is nothing but rounding, so is the step.
        "train.eps": 1e-3,
    },
)
TOKEN = {"objective.token.weight": 0.5, "objective.token.dim": 8}
MLM = {"objective.mlm.weight": 0.5, "objective.mlm.mask_ratio": 0.4}
SOFT = {"objective.instance.a_max": 0.3, "objective.instance.schedule": "constant"}
IN_BATCH = {**TOKEN, "objective.token.negatives": "in_batch"}
DRAWN = {**IN_BATCH, "objective.token.negatives_per_pair": 3}
HARDEST = {
    **DRAWN,
    "objective.token.negatives_from": "hardest",
    "objective.token.matching": "many_to_one",
    "objective.token.symmetric": True,
}
OPEN = {
    **MLM,
    "objective.instance.a_max": 0.3,
    "objective.instance.schedule": "constant",
    "objective.instance.anneal": "linear",
    "objective.instance.per_sample": True,
    "objective.instance.normalise": False,
    "objective.mlm.operator": "concat",
    "objective.mlm.source": "stages",
    "objective.mlm.gate_init": 1.0,
    "objective.mlm.gate_lr_factor": 10.0,
}
CASES = {
    "clip": {},
    "softened": SOFT,
    "within_pair": TOKEN,
    "in_batch": IN_BATCH,
    "drawn": DRAWN,
    "hardest": HARDEST,
    "mlm": MLM,
    "everything": {**SOFT, **IN_BATCH, **MLM},
    "open": {**DRAWN, **OPEN},
}
RIVALS = {
    "label smoothing": {
        "objective.instance.a_max": 0.1,
        "objective.instance.weighting": "uniform",
        "objective.instance.schedule": "constant",
    },
    "sigmoid": {"objective.sigmoid.weight": 1.0, "objective.instance.weight": 0.0},
    "self_similarity": {"objective.self_similarity.weight": 1.0, "objective.instance.weight": 0.0},
    "grouped": {"objective.grouped.weight": 1.0, "objective.grouped.dim": 8},
    "late": {"objective.late.weight": 1.0, "objective.late.dim": 8},
    "nearest": {"objective.nearest.weight": 1.0, "objective.nearest.size": 20},
    "views": {
        "objective.views.weight": 1.0,
        "objective.views.hidden": 16,
        "objective.views.dim": 8,
    },
}
"""What LightCLIP is compared with."""
VIT = {"model.image.backbone": "test_vit", "model.image.output_stride": None}


def uneven_data() -> MemoryData:
    """Captions of 0 to 7 words, so that processes have different numbers of them.

    The split `validation` is that of `test`.
    """
    data = memory_data()
    data.splits["validation"] = data.splits["test"]  # type: ignore[index]
    captions = data.split("train").captions
    for i, (caption,) in enumerate(list(captions)):
        captions[i] = ("" if i % 8 == 5 else caption + " and on" * (i % 3),)
    return data


def trainer(
    folder: Path,
    config: RunConfig,
    ranks: ProcessGroup = SINGLE_PROCESS,
    data: MemoryData | None = None,
    device: torch.device = CPU,
    **runtime: Any,
) -> Trainer:
    """A trainer of the process `ranks`, the first of which writes to `folder`."""
    data = data or uneven_data()
    rows = corpus_rows(c for captions in data.split("train").captions for c in captions)
    directory = RunDir(folder / config.run_key)
    directory.path.mkdir(exist_ok=True, parents=True)
    return Trainer(
        placed(TrainingModel(config, rows), device),
        data,
        config,
        Runtime(log_samples=8, processes=ranks.size, **runtime),
        directory if ranks.rank == 0 else None,
        device,
        attempt=1,
        group=ranks,
    )


def stop_after(steps: int) -> Callable[[], bool]:
    """A `stop` that is false for `steps` steps, then true."""
    asked = itertools.count()
    return lambda: next(asked) >= steps


def after(t: Trainer, steps: int) -> Trainer:
    """The trainer once it was stopped after so many steps."""
    try:
        t.train(stop_after(steps))
    except InterruptedRun:
        return t
    raise AssertionError("it was not stopped")


def gradients(t: Trainer) -> dict[str, Any]:
    """What the last step left: gradients, buffers, and the loss with its terms."""
    named = {n: p.grad.clone() for n, p in t.model.named_parameters() if p.grad is not None}
    buffers = {n: b.clone() for n, b in t.model.named_buffers() if "running" in n}
    return {**named, **buffers, "loss": torch.tensor(t.meter.last_loss)}


def weights(t: Trainer) -> dict[str, Any]:
    """The whole state of the model."""
    return {name: value.clone() for name, value in t.model.state_dict().items()}


def assert_same(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Each tensor within `tolerance` of the length of what is expected."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        off = (found[name] - value).double().norm()
        assert off <= tolerance * (value.double().norm() + 1e-3), (name, float(off))


def on_ranks(folder: Path, size: int, action: Callable[[ProcessGroup], Any]) -> list[Any]:
    """What `action` gives in each of `size` forked processes; they must all end well."""
    folder.mkdir(exist_ok=True, parents=True)
    children = start_ranks(folder, size, action)
    codes = [os.waitpid(child, 0)[1] for child in children]
    texts = [file.read_text() for file in sorted(folder.glob("error-*.txt"))]
    assert codes == [0] * size, "\n".join(texts)
    return [torch.load(folder / f"answer-{rank}.pt", weights_only=True) for rank in range(size)]


def start_ranks(folder: Path, size: int, action: Callable[[ProcessGroup], Any]) -> list[int]:
    """Fork the processes; their numbers.  No thread runs in this one, so that forking is safe."""
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os._exit(_in_child(folder, RankAddress(rank, size, rank), action))
        children.append(child)
    return children


def _in_child(folder: Path, place: RankAddress, action: Callable[[ProcessGroup], Any]) -> int:
    try:
        port = folder / "port"
        if place.rank:
            while not port.exists():
                time.sleep(0.01)
            place = replace(place, port=int(port.read_text()))
        store = open_store(place, 60.0)
        if not place.rank:
            write_atomic(port, str(store.port).encode())
        with process_group(place, store, CPU, 60.0) as ranks:
            torch.save(action(ranks), folder / f"answer-{place.rank}.pt")
        threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
        (folder / f"threads-{place.rank}.txt").write_text("\n".join(threads))
    except Exception:  # noqa: BLE001 - told to the parent, which fails
        (folder / f"error-{place.rank}.txt").write_text(traceback.format_exc())
        return 1
    return 0
