"""Training steps on a GPU that is not there: fake tensors, and what the host waits for."""

from __future__ import annotations

import json
import tempfile
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
from harness.config import RunConfig, Runtime, override
from harness.data.text import corpus_rows
from harness.models.training import TrainingModel
from harness.objectives import matching
from harness.store.record import RunDir
from harness.train import loop
from harness.train.optimiser import make_optimiser
from tests.train.rank_cases import CASES, CLIP, RIVALS, TOKEN, VIT, uneven_data

GPU = torch.device("cuda", 0)
STEPS: dict[str, dict[str, Any]] = {
    **CASES,
    **RIVALS,
    "sinkhorn": {**TOKEN, "objective.token.matching": "sinkhorn"},
    "top_k": {**TOKEN, "objective.token.matching": "top_k"},
    "many_to_one": {**TOKEN, "objective.token.matching": "many_to_one"},
    "norm_batch": {"train.norm_batch": 4},
    "micro_batch": VIT,
    "fused": {"train.fused": True},
    "unpadded": {"train.unpadded": True},
    "fp32": {"train.precision": "fp32", **CASES["mlm"]},
}
"""Name -> overrides of each configuration that is looked at."""
RESUMED = ("clip", "everything", "fused")
"""Those that go on from a state on disk, too."""
SOME = 7
"""What a fake `item` gives, and a fake `nonzero` finds."""


class Waits(TorchDispatchMode):
    """Counts, by kind, where the host waits for the GPU; and refuses nothing."""

    def __init__(self, place: torch.device = GPU) -> None:
        super().__init__()
        self.place = place
        self.found: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().removeprefix("aten::")
        given = [a for a in args if isinstance(a, Tensor)]
        on_gpu = any(t.device.type == self.place.type for t in given)
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
    monkeypatch.setattr(loop, "autocast", _autocast)
    data = uneven_data()
    rows = corpus_rows(c for captions in data.split("train").captions for c in captions)
    model = TrainingModel(config, rows)
    directory = RunDir(folder / config.run_key)
    directory.path.mkdir(exist_ok=True, parents=True)
    t = loop.Trainer(model, data, config, Runtime(**runtime), directory, GPU, attempt=1)
    batch = next(iter(t.batches.start()))
    with monkeypatch.context() as here:
        here.setattr(t, "device", torch.device("cpu"))
        inputs = t._inputs(batch)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _move(model)
        # torch's engine wants a driver; see `step_on_meta` for the backward pass
        monkeypatch.setattr(Tensor, "backward", lambda loss: _fill_gradients(model))
        t.optimiser = make_optimiser(model, config.train, model.lr_factors())
        monkeypatch.setattr(t, "_inputs", lambda batch: _faked(inputs))
        monkeypatch.setattr(loop, "upload", lambda tensor, device: _fake(tensor))
        model.train()
        yield t, lambda: t._step(batch)


@contextmanager
def _autocast(precision: str, device_type: str) -> Iterator[None]:
    """torch's own context switches itself off where there is no GPU."""
    torch.set_autocast_enabled("cuda", precision != "fp32")
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


def _fill_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)


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


# --------------------------------------------------------------------------- every configuration


def stand_in(similarity: Tensor, arrive: Any) -> Tensor:
    """The device traffic of an assignment, whose answer wants numbers."""
    arrive()
    return torch.zeros_like(similarity)


def events_in(found: Counter[str]) -> Any:
    """A `device.begin_download` that counts its wait."""
    return lambda *tensors: lambda: found.update(["event"])


def report(folder: Path) -> dict[str, Any]:
    """Of the step of each configuration: what the host waits for, where and what tensors are."""
    return {name: _of_case(folder, name) for name in STEPS}


def _of_case(folder: Path, name: str) -> dict[str, Any]:
    config = override(CLIP, STEPS[name])
    patch = pytest.MonkeyPatch()
    patch.setattr(matching, "_assigned", stand_in)
    runtime = {"micro_batch": 4} if config.model.image.backbone == "test_vit" else {}
    with patch.context(), step_on_fake_gpu(folder, config, patch, **runtime) as (t, step):
        kinds: Counter[str] = Counter()
        for module in t.model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(lambda m, i, o: kinds.update([str(o.dtype)]))
        with Waits() as first:
            patch.setattr(devices, "begin_download", events_in(first.found))
            step()
        with Waits() as resumed:
            if name in RESUMED:
                t._take_up(_resumed(t))
                resumed.found.clear()
                patch.setattr(devices, "begin_download", events_in(resumed.found))
                step()
        steps = {str(s["step"].device) for s in t.optimiser.state.values()}
        found = {"waits": first.found, "after a resume": resumed.found, "kinds": kinds}
        places = {str(value.device) for value in t.model.state_dict().values()}
    patch.undo()
    return {**{k: dict(v) for k, v in found.items()}, "steps on": [*steps], "places": [*places]}


def _resumed(t: loop.Trainer) -> dict[str, Any]:
    """The state as it is read from disk: all of it on the CPU."""
    state = t._state()
    host = {
        "model": {n: torch.empty_like(v, device="cpu") for n, v in state["model"].items()},
        "optimiser": {
            **state["optimiser"],
            "state": {
                key: {
                    name: torch.tensor(1.0) if name == "step" else torch.empty_like(v, device="cpu")
                    for name, v in of_one.items()
                }
                for key, of_one in state["optimiser"]["state"].items()
            },
        },
    }
    return {**state, **host}


def main() -> None:
    """Print the report as JSON: torch cannot go back once it pretends that there is a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(report(Path(folder))))


if __name__ == "__main__":
    main()
