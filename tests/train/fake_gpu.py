"""Training steps on a GPU that is not there: fake tensors, and what the host waits for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from harness import device as devices
from harness.config import RunConfig, Runtime
from harness.data.text import corpus_rows
from harness.models.training import TrainingModel
from harness.store.record import RunDir
from harness.train import loop
from harness.train.optimiser import make_optimiser
from tests.train.rank_cases import uneven_data

GPU = torch.device("cuda", 0)
SOME = 7
"""What a fake `item` gives, and a fake `nonzero` finds."""


class Waits(TorchDispatchMode):
    """Counts, by kind, where the host waits for the GPU; and refuses nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().removeprefix("aten::")
        given = [a for a in args if isinstance(a, Tensor)]
        on_gpu = any(t.device.type == "cuda" for t in given)
        self.operations += 1
        if on_gpu and name.startswith("_local_scalar_dense"):
            self.found["item"] += 1
            return float(SOME) if given[0].is_floating_point() else SOME
        if on_gpu and name.startswith("nonzero"):
            self.found["nonzero"] += 1
            return torch.empty(SOME, given[0].ndim, dtype=torch.int64, device=GPU)
        masks = [i for a in args if isinstance(a, (list, tuple)) for i in a]
        if name.startswith("index") and any(_is_mask(i) for i in masks):
            self.found["boolean index"] += 1
            return given[0].new_empty(SOME, *given[0].shape[1:])
        if name.startswith(("_to_copy", "copy_")):
            source = given[-1]
            target = kwargs.get("device") or given[0].device
            blocking = not (kwargs.get("non_blocking") or any(a is True for a in args))
            if torch.device(target).type != source.device.type and blocking:
                self.found[f"copy {source.device.type} to {torch.device(target).type}"] += 1
        return func(*args, **kwargs)


def _is_mask(index: object) -> bool:
    return isinstance(index, Tensor) and index.dtype in {torch.bool, torch.uint8}


@contextmanager
def step_on_fake_gpu(
    folder: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch, **runtime: Any
) -> Iterator[tuple[loop.Trainer, Any]]:
    """A trainer whose model is on a GPU that is not there, and its step as a function."""
    monkeypatch.setattr(devices, "_has_bf16", lambda device: True)
    data = uneven_data()
    rows = corpus_rows(c for captions in data.split("train").captions for c in captions)
    model = TrainingModel(config, rows)
    directory = RunDir(folder / config.run_key)
    directory.path.mkdir(exist_ok=True, parents=True)
    t = loop.Trainer(model, data, config, Runtime(**runtime), directory, GPU, attempt=1)
    batch = next(iter(t.batches.start()))
    inputs = {n: i for n, i in _drawn(t, batch.tokens).items() if i is not None}
    with FakeTensorMode(allow_non_fake_inputs=True):
        _move(model)
        # torch's engine wants a driver; see `step_on_meta` for the backward pass
        monkeypatch.setattr(Tensor, "backward", lambda loss: _fill_gradients(model))
        t.optimiser = make_optimiser(model, config.train, model.lr_factors())
        monkeypatch.setattr(t, "_inputs", lambda tokens: _faked(inputs))
        monkeypatch.setattr(loop, "upload", lambda tensor, device: _fake(tensor))
        model.train()
        yield t, lambda: t._step(batch.pictures, batch.tokens)


def _fill_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)


def _drawn(t: loop.Trainer, tokens: Tensor) -> Mapping[str, Any]:
    place = loop.BatchPlace(0, 0, 0, len(tokens), 12, t.towers.tokenizer.vocab_size)
    return {name: term.inputs(tokens, place) for name, term in t.model.terms.items()}


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=GPU)


def _faked(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {n: type(i)._make(_fake(t) for t in i) for n, i in inputs.items()}


def _move(model: nn.Module) -> None:
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(_fake(value), value.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = _fake(value)
