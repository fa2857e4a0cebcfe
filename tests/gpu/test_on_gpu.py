"""What can only be seen on a GPU: `make test-gpu`.  Skipped where there is none.

With GPU_TESTS_ON=cpu those that can go there do, which shows that they are right themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as processes
from torch import Tensor

from harness.config import RunConfig, Runtime, override
from harness.device import set_up
from harness.errors import InterruptedRun, failure_class
from harness.train.distributed import (
    SINGLE_PROCESS,
    ProcessGroup,
    RankAddress,
    open_store,
    process_group,
)
from harness.train.loop import Trainer
from tests.train.rank_cases import CASES, CLIP, assert_same, stop_after, trainer, weights

ON = os.environ.get("GPU_TESTS_ON", "cuda")
HERE = torch.cuda.device_count() if torch.cuda.is_available() else 0
COUNT = HERE if ON == "cuda" else 2
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(COUNT == 0, reason="no GPU"),
]
gpu_alone = pytest.mark.skipif(HERE == 0, reason="shows something of a GPU alone")
two_gpus = pytest.mark.skipif(COUNT < 2, reason="fewer than two GPUs")
EXACT = {"train.precision": "fp32", "train.tf32": "none"}
EVERYTHING = override(CLIP, {**CASES["everything"], **EXACT})


def place_of(rank: int) -> torch.device:
    return torch.device(ON, rank) if ON == "cuda" else torch.device(ON)


def on_gpu(
    folder: Path, config: RunConfig, ranks: ProcessGroup = SINGLE_PROCESS, **runtime: Any
) -> Trainer:
    """A trainer of the process `ranks` on its GPU."""
    device = place_of(ranks.local_rank)
    set_up(Runtime(deterministic=True), device)
    return trainer(folder, config, ranks, device=device, deterministic=True, **runtime)


def host(t: Trainer) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in weights(t).items()}


def trained(
    folder: Path, config: RunConfig, ranks: ProcessGroup = SINGLE_PROCESS, **more: Any
) -> Any:
    t = on_gpu(folder, config, ranks, **more)
    t.train(lambda: False)
    return host(t)


# --------------------------------------------------------------------------- one GPU


def test_twice_the_same_seed_is_the_same_bits(tmp_path: Path) -> None:
    one, two = (trained(tmp_path / name, EVERYTHING) for name in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_that_goes_on_has_the_bits_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", EVERYTHING)
    t = on_gpu(tmp_path / "cut", EVERYTHING)
    with pytest.raises(InterruptedRun):
        t.train(stop_after(3))
    assert all(s["step"].device.type == "cpu" for s in t.optimiser.state.values())
    found = trained(tmp_path / "cut", EVERYTHING)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_in_fp32_a_gpu_trains_what_a_cpu_does(tmp_path: Path) -> None:
    one_step = override(EVERYTHING, {"train.samples": CLIP.train.batch_size})
    t = trainer(tmp_path / "cpu", one_step)
    t.train(lambda: False)
    assert_same(trained(tmp_path / "gpu", one_step), weights(t), 1e-3)


def test_activations_computed_again_are_the_same_bits(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", EVERYTHING)
    spared = trained(tmp_path / "spared", EVERYTHING, checkpoint_activations=True)
    assert all(torch.equal(spared[name], plain[name]) for name in plain)


@gpu_alone
def test_a_compiled_pass_trains_about_the_same(tmp_path: Path) -> None:
    one_step = override(CLIP, {**EXACT, "train.samples": CLIP.train.batch_size})
    compiled = trained(tmp_path / "compiled", one_step, compile=True)
    assert_same(compiled, trained(tmp_path / "plain", one_step), 1e-3)


@gpu_alone
def test_lack_of_memory_is_filed_as_such() -> None:
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8, device="cuda")
    assert failure_class(caught.value) == "out_of_memory"


@gpu_alone
def test_a_step_waits_for_the_gpu_nowhere(tmp_path: Path) -> None:
    t = on_gpu(tmp_path, override(CLIP, EXACT))
    stream = t.batches.start()
    t._step(next(stream))
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            t._step(next(stream))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu_alone
def test_the_step_is_measured_beside_open_clip_s() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "gpu_step.py"
    words = [sys.executable, str(script), "--batch", "64", "--steps", "5"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["samples_per_second"]["ours"] > 0.8 * found["samples_per_second"]["open_clip"]


# --------------------------------------------------------------------------- two GPUs


def _process(rank: int, folder: str, action: Any) -> None:
    port = Path(folder) / "port"
    while rank and not port.exists():
        pass
    place = RankAddress(rank, 2, rank, port=int(port.read_text()) if rank else 0)
    store = open_store(place, 60.0)
    if not rank:
        (Path(folder) / "new").write_text(str(store.port))
        os.replace(Path(folder) / "new", port)
    with process_group(place, store, place_of(rank), 60.0) as ranks:
        torch.save(action(ranks=ranks), Path(folder) / f"answer-{rank}.pt")


def on_both(folder: Path, action: Any) -> list[Any]:
    """What `action` gives on each of two GPUs."""
    folder.mkdir(parents=True, exist_ok=True)
    processes.spawn(_process, (str(folder), action), nprocs=2)
    return [torch.load(folder / f"answer-{rank}.pt") for rank in range(2)]


@two_gpus
def test_two_gpus_train_the_weights_of_one(tmp_path: Path) -> None:
    one_step = override(EVERYTHING, {"train.samples": CLIP.train.batch_size})
    alone = trained(tmp_path / "alone", one_step)
    first, second = on_both(tmp_path / "both", partial(trained, tmp_path / "runs", one_step))
    assert_same(first, alone, 1e-3)  # BatchNorm of both, by its kernels
    assert all(torch.equal(first[name], second[name]) for name in first)


@two_gpus
def test_validation_in_mid_training_ends(tmp_path: Path) -> None:
    train = partial(trained, tmp_path / "runs", EVERYTHING, validate_at=(16, 32))
    on_both(tmp_path / "both", train)
    (directory,) = (tmp_path / "runs").iterdir()
    assert len((directory / "progress.jsonl").read_text().splitlines()) == 2
