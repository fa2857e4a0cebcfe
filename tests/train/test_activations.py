"""Blocks that are computed again in the backward pass: the same bits, and less memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.config import Runtime, check_processes, override
from harness.errors import ConfigError
from harness.models.two_tower import TwoTower
from harness.store.record import RunDir
from harness.train.activations import (
    recomputed_activations,
    told_with_help,
    with_less_memory,
)
from tests.train.rank_cases import CASES, CLIP, VIT, assert_same, on_ranks, trainer, weights

EVERYTHING = override(CLIP, CASES["everything"])


UNPADDED = override(EVERYTHING, {"train.unpadded": True})


@pytest.mark.parametrize(
    "config",
    [EVERYTHING, override(CLIP, VIT), UNPADDED],
    ids=["batch norm and every term", "vit", "unpadded"],
)
def test_training_has_the_same_bits(tmp_path: Path, config: object) -> None:
    plain, spared = (
        trainer(tmp_path / str(wanted), config, checkpoint_activations=wanted)  # type: ignore[arg-type]
        for wanted in (False, True)
    )
    for t in (plain, spared):
        torch.manual_seed(0)
        t.train(lambda: False)
    found = weights(spared)
    for name, value in weights(plain).items():
        assert torch.equal(found[name], value), name


def test_two_processes_recompute_together(tmp_path: Path, in_64_bits: None) -> None:
    def train(ranks: object) -> dict[str, Tensor]:
        t = trainer(tmp_path / "runs", CLIP, ranks, checkpoint_activations=True)  # type: ignore[arg-type]
        t.train(lambda: False)
        return weights(t)

    alone = trainer(tmp_path / "alone", CLIP)
    alone.train(lambda: False)
    for found in on_ranks(tmp_path, 2, train):
        assert_same(found, weights(alone), 1e-8)


def kept_for_backward(towers: TwoTower, wanted: bool) -> int:
    """Bytes that a pass of both towers keeps."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    pixels, tokens = torch.rand(8, 3, 32, 32), torch.randint(1, 9, (8, 12))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with recomputed_activations(towers, wanted), hooks:
        towers(pixels, tokens)
    return sum(kept.values())


def test_less_is_kept_and_the_modules_are_as_they_were() -> None:
    deep = {"model.image.backbone": "resnet18", "model.text.layers": 6}
    towers = TwoTower(override(CLIP, {**deep, "model.text.vocabulary": "full"}).model, None, 0)
    assert kept_for_backward(towers, True) < 0.6 * kept_for_backward(towers, False)
    assert not any("forward" in vars(module) for module in towers.modules())


def test_it_excludes_a_compiled_pass() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint_activations with runtime\.compile"):
        check_processes(CLIP.train, Runtime(compile=True, checkpoint_activations=True))


# --------------------------------------------------------------------------- after a lack of memory


@pytest.mark.parametrize(
    ("status", "attempts", "spared"),
    [
        ({"failure": "out_of_memory"}, [{}], True),
        ({"failure": "killed"}, [{}], False),
        ({"state": "running"}, [{"checkpoint_activations": True}], True),
        ({}, [], False),
    ],
)
def test_a_run_that_was_out_of_memory_goes_on_with_less(
    tmp_path: Path, status: object, attempts: list[object], spared: bool
) -> None:
    directory = RunDir(tmp_path)
    directory.status_file.write_text(json.dumps(status))
    (tmp_path / "provenance.json").write_text(json.dumps({"schema": 1, "attempts": attempts}))
    assert with_less_memory(Runtime(), directory).checkpoint_activations is spared
    assert not with_less_memory(Runtime(compile=True), directory).checkpoint_activations


def test_the_line_of_a_lack_of_memory_says_what_helps() -> None:
    assert told_with_help(MemoryError("no memory"), Runtime()) == (
        "MemoryError: no memory; it helps to give runtime.checkpoint_activations=true, which the "
        "same command now takes, or more runtime.processes, or a smaller runtime.micro_batch "
        "(unless there is BatchNorm)"
    )
    assert "in place of runtime.compile" in told_with_help(MemoryError("no"), Runtime(compile=True))
    assert told_with_help(ValueError("wrong"), Runtime()) == "ValueError: wrong"
