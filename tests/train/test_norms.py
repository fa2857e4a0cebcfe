"""BatchNorm over several processes, as a GPU computes it; its kernels are written out for a CPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from harness.train import norms
from harness.train.distributed import SINGLE_PROCESS, ProcessGroup
from harness.train.norms import batch_norms, global_statistics
from tests.train.rank_cases import CLIP, after, assert_same, gradients, on_ranks, trainer

DIMS = (0, 2, 3)


class Two(ProcessGroup):
    """A group of two of which nobody may be waited for."""

    size = 2

    def all_gather(self, tensor: Tensor) -> Tensor:
        raise AssertionError("it waits for the other process")

    rows_of_all = all_gather
    all_reduce_sum = all_gather  # type: ignore[assignment]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100"])
def test_in_evaluation_no_process_waits_for_another_and_no_statistic_moves(name: str) -> None:
    model = timm.create_model(name, num_classes=0).eval()
    x = torch.rand(2, 3, 32, 32)
    before, plain = state(model), model(x)
    model.train()
    with torch.no_grad(), global_statistics(model, Two()):
        model.eval()
        assert torch.equal(model(x), plain)
    for key, value in state(model).items():
        assert torch.equal(value, before[key]), key


# --------------------------------------------------------------------------- the kernels


def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dim=DIMS, correction=0)
    return mean, (variance + eps).rsqrt()


def gathered(
    x: Tensor,
    means: Tensor,
    scales: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    count = counts.sum()
    mean = (counts[:, None] * means).sum(0) / count
    squares = scales**-2 - eps + (means - mean) ** 2
    variance = (counts[:, None] * squares).sum(0) / count
    if running_mean is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * count / (count - 1), momentum)
    return mean, (variance + eps).rsqrt()


def broad(value: Tensor) -> Tensor:
    return value[None, :, None, None]


def normalised(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, eps: float
) -> Tensor:
    return (x - broad(mean)) * broad(scale * weight) + broad(bias)


def reduced(
    gradient: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, *wanted: bool
) -> tuple[Tensor, ...]:
    total = gradient.sum(DIMS)
    with_x = (gradient * (x - broad(mean))).sum(DIMS)
    return total, with_x, with_x * scale, total


def passed_back(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weight: Tensor,
    total: Tensor,
    with_x: Tensor,
    counts: Tensor,
) -> Tensor:
    count = counts.sum()
    along = (x - broad(mean)) * broad(scale**2 * with_x / count)
    return (gradient - broad(total / count) - along) * broad(scale * weight)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What a GPU has kernels for; and that a CPU takes this way too."""
    called: dict[str, int] = {}

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            called[name] = called.get(name, 0) + 1
            return function(*args)

        return call

    for name, function in {
        "batch_norm_stats": stats,
        "batch_norm_gather_stats_with_counts": gathered,
        "batch_norm_elemt": normalised,
        "batch_norm_backward_reduce": reduced,
        "batch_norm_backward_elemt": passed_back,
    }.items():
        monkeypatch.setattr(torch, name, counted(name, function))
    monkeypatch.setattr(norms, "_on_cpu", norms._on_gpu)
    return called


def first_step(folder: Path, ranks: ProcessGroup = SINGLE_PROCESS) -> dict[str, Any]:
    return gradients(after(trainer(folder, CLIP, ranks), 1))


def test_two_processes_have_the_statistics_and_gradients_of_one(
    tmp_path: Path, kernels: dict[str, int], in_64_bits: None
) -> None:
    alone = first_step(tmp_path / "alone")
    assert not kernels
    for together in on_ranks(tmp_path, 2, partial(first_step, tmp_path / "both")):
        assert_same(together, alone, 1e-9)


class Counted(ProcessGroup):
    """Two processes with the same rows, that count what they say to one another."""

    size = 2

    def __init__(self) -> None:
        self.exchanges = 0

    def rows_of_all(self, tensor: Tensor) -> Tensor:
        self.exchanges += 1
        return torch.cat([tensor, tensor])

    def all_reduce_sum(self, tensor: Tensor) -> None:
        self.exchanges += 1
        tensor *= 2


def test_a_layer_takes_one_exchange_a_direction_and_reads_nothing_back(
    kernels: dict[str, int],
) -> None:
    group, norm = Counted(), nn.BatchNorm2d(3, momentum=0.25)
    x = torch.randn(4, 3, 5, 5, requires_grad=True)
    with global_statistics(norm, group):
        norm(x).square().mean().backward()
    assert group.exchanges == 2
    assert set(kernels.values()) == {1}
    plain, again = nn.BatchNorm2d(3, momentum=0.25), x.detach().requires_grad_()
    plain(torch.cat([again, again])).square().mean().backward()
    assert torch.allclose(norm.running_var, plain.running_var, atol=1e-6)  # type: ignore[arg-type]
    assert torch.allclose(norm.weight.grad, plain.weight.grad, atol=1e-6)  # type: ignore[arg-type]
    assert int(norm.num_batches_tracked) == 1  # type: ignore[arg-type]


def test_a_norm_without_weights_or_with_a_mean_of_all_steps_is_taken_too(
    kernels: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, none = torch.ones(3), torch.zeros(3)
    monkeypatch.setattr(
        torch, "batch_norm_elemt", lambda x, w, b, *more: normalised(x, one, none, *more)
    )
    norm, plain = (nn.BatchNorm2d(3, affine=False, momentum=None) for _ in range(2))
    with global_statistics(norm, Counted()):
        for _ in range(2):
            x = torch.randn(4, 3, 5, 5)
            assert torch.allclose(norm(x), plain(torch.cat([x, x]))[:4], atol=1e-5)
    assert torch.allclose(norm.running_mean, plain.running_mean, atol=1e-6)  # type: ignore[arg-type]


def test_the_modules_are_as_they_were_afterwards() -> None:
    model = timm.create_model("test_resnet", num_classes=0)
    names = list(model.state_dict())
    with global_statistics(model, Two()):
        assert all("forward" in vars(norm) for norm in batch_norms(model))
    assert not any("forward" in vars(norm) for norm in batch_norms(model))
    assert list(model.state_dict()) == names
