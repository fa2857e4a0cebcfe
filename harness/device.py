"""Where a run computes, and the settings that make a CPU fast."""

from __future__ import annotations

import ctypes
import platform
from typing import Any, Literal

import torch

from harness.config import Runtime, Train, parts_of_a_batch
from harness.errors import ConfigError
from harness.store.provenance import NUMERIC_PACKAGES, versions

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP_BYTES = 1 << 30


def pick_device(runtime: Runtime, local_rank: int = 0) -> torch.device:
    """The device named by `runtime.device`; ConfigError when this machine lacks it.

    Of several processes of a run on this machine, `local_rank` has the GPU of that number.
    """
    name = runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and runtime.processes > 1:
        name = f"cuda:{local_rank}"
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


def set_up(runtime: Runtime, device: torch.device) -> None:
    """Threads, and glibc's allocator told to keep large buffers from one step to the next.

    By default glibc hands every buffer over 128 KB back to the system when it is freed, and each
    step pays for the same pages again; measured on one core, EfficientNet-B0 inference became 1.9
    times and the training step of a 12-layer text tower 1.5 times as fast, at the same peak memory.
    """
    torch.set_num_threads(runtime.threads)
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_TOP_PAD, 64 << 20)


def numerics(
    train: Train, runtime: Runtime, device: torch.device, precision: str
) -> dict[str, Any]:
    """What the bits of a training depend on beside its configuration and the code.

    Args:
        precision: what `auto` became.
    """
    here = versions()
    packages: dict[str, Any] = {name: here[name] for name in NUMERIC_PACKAGES}
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        packages |= {"cuda": torch.version.cuda, "cudnn": cudnn}
    return {
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": runtime.threads,
        "precision": precision,
        "processes": runtime.processes,
        "parts": parts_of_a_batch(train.batch_size, runtime.processes, runtime.micro_batch),
        "compile": runtime.compile,
        "versions": packages,
    }


Precision = Literal["fp32", "bf16", "fp16"]


def resolve_precision(
    asked: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device, field: str
) -> Precision:
    """What `auto` means on `device`: bf16 autocast on a GPU, fp32 on a CPU.

    Raises ConfigError for bf16 or fp16 asked for by `field` where there is no GPU: a CPU emulates
    it, twenty times slower and with ties among the scores.
    """
    if device.type == "cuda":
        return "bf16" if asked == "auto" else asked
    if asked in ("bf16", "fp16"):
        raise ConfigError(
            f"{field} = {asked!r} needs a GPU, this is {device.type}; allowed: auto, fp32"
        )
    return "fp32"


#: The precisions of 16 bits.
NARROW = ("bf16", "fp16")


def autocast(precision: str) -> torch.autocast:
    """Autocast to 16 bits on the GPU, or nothing."""
    narrow = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast("cuda", narrow, enabled=precision != "fp32")
