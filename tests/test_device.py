"""Devices, and the numerics of a GPU, without one: what torch is told and what is put on record."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness import device as devices
from harness.config import RunConfig, Runtime, Train, override
from harness.device import numerics, pick_device, resolve_precision, set_up, tf32, upload
from harness.errors import ConfigError, DeviceError, failure_class
from harness.evaluate.embed import encoding

GPU = torch.device("cuda", 0)


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Torch's switches are put back, and a GPU of a name can be claimed."""
    monkeypatch.setattr(devices, "_claim", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "V100")
    before, chosen = flags(), torch.backends.cudnn.deterministic
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    torch.backends.cudnn.deterministic = chosen
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("none", (False, False)), ("convolutions", (True, False)), ("all", (True, True))],
)
def test_training_does_in_tf32_what_it_is_asked_to_and_nothing_else_does(
    asked: Any, expected: tuple[bool, bool]
) -> None:
    set_up(Runtime(), GPU)
    assert flags() == (False, False)
    with tf32(asked):
        assert flags() == expected
        with encoding(torch.nn.Linear(1, 1), "fp32"):
            assert flags() == (False, False)
        assert flags() == expected
    assert flags() == (False, False)


def test_the_default_is_what_torch_does_of_itself_and_is_in_no_key() -> None:
    assert override(RunConfig(), {"train.tf32": "convolutions"}).run_key == RunConfig().run_key
    assert override(RunConfig(), {"train.tf32": "none"}).run_key != RunConfig().run_key


def test_deterministic_sets_all_that_the_bits_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    set_up(Runtime(deterministic=True), GPU)
    assert torch.backends.cudnn.deterministic
    assert torch.are_deterministic_algorithms_enabled()
    assert devices.os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    set_up(Runtime(), GPU)
    assert not torch.backends.cudnn.deterministic
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_numerics_of_a_gpu_are_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    found = numerics(Train(tf32="all"), Runtime(deterministic=True), GPU, "fp32")
    assert (found["tf32"], found["deterministic"]) == ("all", True)
    on_cpu = numerics(Train(), Runtime(), torch.device("cpu"), "fp32")
    assert {"tf32", "deterministic"}.isdisjoint(on_cpu)


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_gpu_has_it_and_does_not_only_emulate_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: str
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_precision("auto", GPU, "train.precision") == expected
    if not native:
        with pytest.raises(ConfigError, match=r"'bf16': V100 only emulates it.*allowed: auto"):
            resolve_precision("bf16", GPU, "train.precision")


CPU = torch.device("cpu")


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16", "bf16", "sve_bf16"])
def test_bf16_trains_on_a_cpu_that_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, instructions: str
) -> None:
    found = {"cpu_name": "X", "avx512_bf16": False, instructions: True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert resolve_precision("bf16", CPU, "train.precision") == "bf16"
    assert resolve_precision("auto", CPU, "train.precision") == "fp32"
    assert numerics(Train(), Runtime(), CPU, "bf16")["precision"] == "bf16"
    with pytest.raises(ConfigError, match=r"evaluate\.precision = 'bf16' needs a GPU"):
        resolve_precision("bf16", CPU, "evaluate.precision")


def test_bf16_on_a_cpu_that_would_emulate_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cpu_name": "Haswell", "avx2": True, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    with pytest.raises(ConfigError) as caught:
        resolve_precision("bf16", CPU, "train.precision")
    assert str(caught.value) == (
        "train.precision = 'bf16': this CPU (Haswell) has no instructions for it and would emulate "
        "it, slower than fp32; allowed: auto (fp32 here), fp32"
    )
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # torch of before 2.9
    with pytest.raises(ConfigError, match="this CPU \\(unknown\\)"):
        resolve_precision("bf16", CPU, "train.precision")


# --------------------------------------------------------------------------- which GPU


@pytest.mark.parametrize(
    ("gpus", "local_rank", "expected"), [(4, 3, "cuda:3"), (1, 0, "cuda:0"), (1, 3, "cuda:0")]
)
def test_each_process_has_a_gpu_or_the_one_that_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, gpus: int, local_rank: int, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    found = pick_device(Runtime(device="cuda", processes=4), local_rank)
    assert found == torch.device(expected)


def test_more_processes_than_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError) as caught:
        pick_device(Runtime(device="cuda", processes=4), 2)
    assert str(caught.value) == (
        "runtime.processes = 4: this is process 3 on its machine, and torch sees 2 CUDA devices "
        "there; each process wants one of its own"
    )


def test_a_gpu_that_another_process_has_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def busy(*size: int, device: torch.device) -> None:
        raise RuntimeError(
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable\n"
            "CUDA kernel errors might be asynchronously reported at some other API call"
        )

    monkeypatch.setattr(torch, "zeros", busy)
    with pytest.raises(DeviceError) as caught:
        devices._claim(GPU)
    assert str(caught.value) == (
        "cuda:0 cannot be used: RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or "
        "unavailable; nvidia-smi shows which processes have it"
    )
    assert failure_class(caught.value) == "node_failure"


# --------------------------------------------------------------------------- how it gets there


def test_what_goes_to_a_gpu_is_pinned_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, object]] = []
    pinned = SimpleNamespace(
        to=lambda device, non_blocking: calls.append(("to", non_blocking)) or "there"
    )
    tensor = SimpleNamespace(
        device=torch.device("cpu"), pin_memory=lambda: calls.append(("pin", None)) or pinned
    )
    assert upload(tensor, GPU) == "there"  # type: ignore[arg-type,comparison-overlap]
    assert calls == [("pin", None), ("to", True)]


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_every_way_to_say_that_memory_is_lacking_is_one_class(said: str) -> None:
    assert failure_class(RuntimeError(said)) == "out_of_memory"
    assert failure_class(RuntimeError("NCCL error: remote process exited")) == "bug"
