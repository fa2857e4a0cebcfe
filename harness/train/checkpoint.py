"""Checkpoints: written whole or not at all, verified before use, the previous one kept.

    checkpoints/step-00000120-<sha256[:16]>.pt     model, optimiser, counters
    checkpoints/final-<sha256[:16]>.safetensors    the weights that are evaluated and exported
    checkpoints/training-<sha256[:16]>.safetensors what trained beside them, to look into the run

The hash is in the name, so that a torn or rotten file is known without a second file that could
itself be torn.  Precedence on resume: the newest step whose content matches its name, then the one
before it, then the beginning.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from harness.errors import RecordError, one_line
from harness.files import inside, read_regular, write_atomic

KEEP = 2
_STEP = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")


def save_step(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `step` steps and drop all but the newest `KEEP`."""
    data = to_bytes(state)
    file = folder / f"step-{step:08d}-{_digest(data)}.pt"
    write_atomic(file, data)
    for old in _steps(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    _sweep_leftovers(folder)
    return file


class StateWriter:
    """Writes states from copies, in a thread, while training goes on.

    Attributes:
        stalled: seconds that the last `save` kept its caller.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self.stalled = 0.0

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Copy the state after `step` steps and begin to write it, once the last one is written.

        Raises OSError if that could not be written.
        """
        began = time.monotonic()
        self.wait()
        copy = _on_host(state)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # the copies were only queued
        self._thread = threading.Thread(target=self._write, args=(step, copy), name="checkpoint")
        self._thread.start()
        self.stalled = time.monotonic() - began

    def wait(self) -> None:
        """Until all is written; raises OSError if it could not be."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, step: int, state: Mapping[str, Any]) -> None:
        try:
            save_step(self._folder, step, state)
        except Exception as error:  # noqa: BLE001 - raised where somebody hears it
            self._error = error


def _on_host(value: Any) -> Any:
    """A copy of a state that no training step changes; tensors on the CPU."""
    if isinstance(value, Mapping):
        return {key: _on_host(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_host(item) for item in value)
    if isinstance(value, Tensor):
        value = value.detach()
        host = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        return host.copy_(value, non_blocking=True)
    return value


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """A state as `from_bytes` reads it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    """The state in `data`, on the CPU; tensors and plain values alone are read.

    Who takes it up sends each tensor to where it belongs: AdamW's count of steps stays, for on a
    GPU every later step would read it back, twice a tensor.
    """
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest state whose content matches its name; None to start from the beginning."""
    for file in _steps(folder):
        data = read_regular(file, None)
        if _digest(data) == file.stem.rpartition("-")[2]:
            return from_bytes(data)
        file.unlink(missing_ok=True)
    return None


def can_go_on(folder: Path) -> bool:
    """Whether there is a state to go on from; those whose content does not match are removed."""
    for file in _steps(folder):
        if _digest(read_regular(file, None)) == file.stem.rpartition("-")[2]:
            return True
        file.unlink(missing_ok=True)
    return False


def save_final(folder: Path, model: nn.Module) -> tuple[Path, str]:
    """Write the weights alone; returns the file and its SHA-256."""
    return _save_weights(folder, "final", model.state_dict())


def save_training_only(folder: Path, weights: Mapping[str, Tensor]) -> tuple[Path, str]:
    """Write what trained beside the towers, apart from them; returns the file and its SHA-256."""
    return _save_weights(folder, "training", weights)


def load_weights(folder: Path, entry: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in the run's `folder` that an entry of its result names with their SHA-256.

    Raises RecordError unless they are those.
    """
    file = inside(folder, entry.get("file"))
    try:
        data = read_regular(file, None)
    except FileNotFoundError:
        raise RecordError(f"{file} is missing: its result cannot be evaluated again") from None
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error}") from None
    if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
        raise RecordError(f"{file} is not the checkpoint that its result names")
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise RecordError(f"{file} holds no weights: {one_line(error)}") from None


def drop_steps(folder: Path) -> None:
    """Remove the optimiser's states of a finished run."""
    for file in _steps(folder):
        file.unlink(missing_ok=True)
    _sweep_leftovers(folder)


def _steps(folder: Path) -> list[Path]:
    found = [file for file in folder.glob("step-*.pt") if _STEP.fullmatch(file.name)]
    return sorted(found, key=lambda file: file.name, reverse=True)


def _sweep_leftovers(folder: Path) -> None:
    """Remove temporaries of killed writers; the lease makes this process the only writer."""
    for file in folder.glob(".*.tmp"):
        file.unlink(missing_ok=True)


def _save_weights(folder: Path, name: str, weights: Mapping[str, Tensor]) -> tuple[Path, str]:
    data = safetensors.torch.save({k: v.contiguous() for k, v in weights.items()})
    sha256 = hashlib.sha256(data).hexdigest()
    file = folder / f"{name}-{sha256[:16]}.safetensors"
    write_atomic(file, data)
    return file, sha256


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
