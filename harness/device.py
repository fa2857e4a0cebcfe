"""Where a run computes, and the settings that its bits and its speed there depend on."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from harness.config import Runtime, Train, parts_of_a_batch
from harness.errors import ConfigError, DeviceError, one_line
from harness.store.provenance import NUMERIC_PACKAGES, versions

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP_BYTES = 1 << 30


def pick_device(runtime: Runtime, local_rank: int = 0) -> torch.device:
    """The device named by `runtime.device`; ConfigError when this machine lacks it.

    Of several processes of a run on this machine, `local_rank` has the GPU of that number, or the
    only one there is: a scheduler may show each process its own.
    """
    name = runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and runtime.processes > 1:
        name = f"cuda:{_own_gpu(runtime.processes, local_rank)}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"runtime.device {name!r} is not a device; allowed: auto, cpu, cuda, cuda:N"
        ) from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(f"runtime.device {name!r}: torch sees {count} CUDA devices here")
    return device


def _own_gpu(processes: int, local_rank: int) -> int:
    count = torch.cuda.device_count()
    if local_rank < count:
        return local_rank
    if count == 1:
        return 0
    raise ConfigError(
        f"runtime.processes = {processes}: this is process {local_rank + 1} on its machine, and "
        f"torch sees {count} CUDA devices there; each process wants one of its own"
    )


def set_up(runtime: Runtime, device: torch.device) -> None:
    """Threads; on a GPU exact fp32 and the algorithms of `runtime.deterministic`; the allocator.

    TF32 is off but within `tf32`.  glibc is told to keep large buffers from one step to the next:
    by default glibc hands every buffer over 128 KB back to the system when it is freed, and each
    step pays for the same pages again; measured on one core, EfficientNet-B0 inference became 1.9
    times and the training step of a 12-layer text tower 1.5 times as fast, at the same peak memory.
    """
    torch.set_num_threads(runtime.threads)
    if device.type == "cuda":
        _allow_tf32(convolutions=False, products=False)
        _set_deterministic(runtime.deterministic)
        _claim(device)
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_TOP_PAD, 64 << 20)


def _claim(device: torch.device) -> None:
    """DeviceError where a GPU cannot be used now, as when another process has it for itself."""
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        said = one_line(error).partition(". ")[0].partition(" CUDA kernel errors")[0]
        raise DeviceError(
            f"{device} cannot be used: {said}; nvidia-smi shows which processes have it"
        ) from error


def _set_deterministic(wanted: bool) -> None:
    """Algorithms that give the same bits each time, or torch's own choice, which is faster."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = wanted
    torch.use_deterministic_algorithms(wanted)


def _allow_tf32(*, convolutions: bool, products: bool) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_tf32 = products


@contextmanager
def tf32(used: Literal["none", "convolutions", "all"]) -> Iterator[None]:
    """fp32 operations of a GPU with 10 bits of mantissa in place of 23, by `train.tf32`."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    _allow_tf32(convolutions=used != "none", products=used == "all")
    try:
        yield
    finally:
        _allow_tf32(convolutions=before[0], products=before[1])


Module = TypeVar("Module", bound=nn.Module)


def placed(model: Module, device: torch.device) -> Module:
    """`model` on `device`; on a GPU convolutions have channels last, as the pictures come."""
    model.to(device)
    if device.type == "cuda":
        model.to(memory_format=torch.channels_last)
    return model


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; to a GPU from pinned memory, so that nobody waits for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def begin_download(*tensors: Tensor) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors to the host; what gives the copies, once they are there.

    From a GPU into pinned memory, with one wait for all of them, and for nothing queued later.
    """
    if tensors[0].device.type != "cuda":
        return lambda: [tensor.cpu() for tensor in tensors]
    host = [
        torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
        for tensor in tensors
    ]
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(tensors[0].device))

    def wait() -> list[Tensor]:
        arrived.synchronize()
        return host

    return wait


def numerics(
    train: Train, runtime: Runtime, device: torch.device, precision: str
) -> dict[str, Any]:
    """What the bits of a training depend on beside its configuration and the code.

    Args:
        precision: what `auto` became.
    """
    here, chosen = versions(), {}
    packages: dict[str, Any] = {name: here[name] for name in NUMERIC_PACKAGES}
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        packages |= {"cuda": torch.version.cuda, "cudnn": cudnn}
        chosen = {"tf32": train.tf32, "deterministic": runtime.deterministic}
    return {
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": runtime.threads,
        "precision": precision,
        "processes": runtime.processes,
        "parts": parts_of_a_batch(train.batch_size, runtime.processes, runtime.micro_batch),
        "compile": runtime.compile,
        **chosen,
        "versions": packages,
    }


Precision = Literal["fp32", "bf16", "fp16"]

#: The precisions of 16 bits.
NARROW = ("bf16", "fp16")
#: The field of the precision to train in.
TRAINING = "train.precision"


def resolve_precision(
    asked: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device, field: str
) -> Precision:
    """What `auto` means on `device`: bf16 autocast on a GPU that has it, fp32 elsewhere.

    Emulated bf16 does not count: it is slower than fp32.

    Raises ConfigError for bf16 or fp16 asked for by `field` where there is no GPU, for a CPU gives
    ties among the scores; but bf16 to train in is given by a CPU with instructions for it, as the
    others emulate it twenty times slower; and for bf16 on a GPU without it.
    """
    if device.type != "cuda":
        if asked == "bf16" and field == TRAINING:
            return _bf16_of_cpu()
        if asked in NARROW:
            raise ConfigError(
                f"{field} = {asked!r} needs a GPU, this is {device.type}; allowed: auto, fp32"
            )
        return "fp32"
    if asked == "auto":
        return "bf16" if _has_bf16(device) else "fp32"
    if asked == "bf16" and not _has_bf16(device):
        raise ConfigError(
            f"{field} = 'bf16': {torch.cuda.get_device_name(device)} only emulates it, slower than "
            "fp32; allowed: auto (fp32 there), fp32"
        )
    return asked


def _bf16_of_cpu() -> Precision:
    """Torch names what each kind of CPU has: AVX512_BF16, AMX_BF16, BF16 or SVE_BF16."""
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if any(has and "bf16" in name for name, has in found.items()):
        return "bf16"
    raise ConfigError(
        f"{TRAINING} = 'bf16': this CPU ({found.get('cpu_name', 'unknown')}) has no instructions "
        "for it and would emulate it, slower than fp32; allowed: auto (fp32 here), fp32"
    )


def _has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def autocast(precision: str, device_type: str = "cuda") -> torch.autocast:
    """Autocast to 16 bits on a kind of device, or nothing."""
    narrow = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device_type, narrow, enabled=precision in NARROW)
