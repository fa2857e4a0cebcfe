"""What a training step asks of a GPU, seen on tensors that have a place and a type and no content.

Backward passes are looked at on the CPU, where the same operations are dispatched.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

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
