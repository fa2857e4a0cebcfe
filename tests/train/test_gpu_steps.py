"""What a training step asks of a GPU, seen on tensors that have a place and a type and no content.

Backward passes are looked at on the CPU, where the same operations are dispatched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.config import override
from harness.train import loop
from harness.train.checkpoint import from_bytes, to_bytes
from tests.train.fake_gpu import RESUMED, STEPS, Waits
from tests.train.rank_cases import CASES, CLIP, after, trainer

pytestmark = pytest.mark.thorough
MATCHED = {"within_pair", "in_batch", "drawn", "everything", "open", "top_k"}
"""Whose words are assigned on the CPU, by similarities that have come when an event says so."""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.train.fake_gpu"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize("case", STEPS)
def test_the_host_waits_for_nothing_but_the_matching(found: dict[str, Any], case: str) -> None:
    waits = found[case]["waits"]
    assert waits == ({"event": 1} if case in MATCHED else {})


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_waits_for_no_more(found: dict[str, Any], case: str) -> None:
    assert found[case]["after a resume"] == found[case]["waits"]
    assert found[case]["steps on"] == ["cuda:0" if case == "fused" else "cpu"]


@pytest.mark.parametrize("case", STEPS)
def test_everything_is_on_the_gpu_and_products_are_in_16_bits_unless_fp32_is_asked_for(
    found: dict[str, Any], case: str
) -> None:
    assert found[case]["places"] == ["cuda:0"]
    kind = "torch.float32" if case == "fp32" else "torch.bfloat16"
    assert set(found[case]["kinds"]) == {kind}


@pytest.mark.parametrize("case", CASES)
def test_no_backward_pass_or_optimiser_reads_what_it_computes(tmp_path: Path, case: str) -> None:
    t = after(trainer(tmp_path, override(CLIP, CASES[case])), 1)
    batch = next(iter(t.batches.start(1)))
    outputs = t._outputs(loop.normalise(batch.pictures, CLIP.model.image), batch.tokens, {})
    with Waits(torch.device("cpu")) as waits:
        outputs.image.sum().backward()
        torch.nn.utils.clip_grad_norm_(t.model.parameters(), 1.0)
    assert waits.found == {}
    assert waits.operations > 50


UNDETERMINED = {
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "_ctc_loss_backward",
    "_embedding_bag_dense_backward",
    "fractional_max_pool2d_backward",
    "grid_sampler_2d_backward",
    "histc",
    "kthvalue",
    "max_pool3d_with_indices_backward",
    "max_unpool2d",
    "median.dim",
    "nll_loss2d_forward",
    "put",
    "put_",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "scatter_reduce.two",
    "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward",
    "upsample_nearest2d_backward",
}
"""Operations that torch refuses on a GPU under use_deterministic_algorithms, by its manual."""


class Operations(TorchDispatchMode):
    """Notes the names of all that is dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name().removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", STEPS)
def test_no_step_has_an_operation_that_deterministic_refuses(tmp_path: Path, case: str) -> None:
    config = override(CLIP, STEPS[case])
    runtime = {"micro_batch": 4} if case == "micro_batch" else {}
    t = trainer(tmp_path, config, **runtime)
    t.model.train()
    with Operations() as seen:
        t._step(next(iter(t.batches.start())))
    assert len(seen.names) > 50
    assert not UNDETERMINED & seen.names


def test_the_benchmark_of_a_step_goes_through(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import gpu_step  # type: ignore[import-not-found]

    monkeypatch.setattr(gpu_step, "_WARM_UP", 1)
    monkeypatch.setattr(gpu_step, "_DECODING_SECONDS", 0.05)
    sizes = ("--backbone", "test_resnet", "--size", "32", "--layers", "1", "--batch", "4")
    gpu_step.main(["--device", "cpu", "--steps", "2", *sizes])
    found = json.loads(capsys.readouterr().out)
    assert found["samples_per_second"].keys() == {"ours", "open_clip", "ours again"}
    assert found["milliseconds"]["ours"].keys() == {
        "forward", "loss", "backward", "update", "whole"
    }  # fmt: skip
    assert all(rate > 0 for rate in found["samples_per_second"].values())
    assert found["decoded_per_second_and_core"]["packed"] > 0


def test_the_tests_for_a_gpu_are_right_where_a_cpu_can_go_through_them() -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "gpu", "tests/gpu"]
    root = Path(__file__).parents[2]
    there = {**os.environ, "GPU_TESTS_ON": "cpu", "PYTHONPATH": str(root)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=root, env=there)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "6 passed" in done.stdout or torch.cuda.is_available()


def test_states_are_read_to_the_cpu_from_where_each_tensor_finds_its_place() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    optimiser = torch.optim.AdamW([weight], foreach=True)
    weight.grad = torch.ones(3)
    optimiser.step()
    state = from_bytes(to_bytes(optimiser.state_dict()))
    assert state["state"][0]["step"].device == torch.device("cpu")
    there = torch.nn.Parameter(torch.zeros(3, device="meta"))
    place = torch.optim.Optimizer._process_value_according_to_param_policy
    group = {"params": [0], "fused": False, "capturable": False}
    step = place(there, state["state"][0]["step"], 0, [group], "step")
    assert step.device == torch.device("cpu")
    group["fused"] = True
    assert place(there, state["state"][0]["step"], 0, [group], "step").is_meta
