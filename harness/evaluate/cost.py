"""What a model costs at inference: parameters, multiply-accumulates and latency, per tower.

Measured on a re-parameterised copy, whose outputs are first checked against the model's own, so
that what is quoted is what would be deployed; the model itself is left alone.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import ConfigError, InvariantError
from harness.provenance import machine

if TYPE_CHECKING:
    from harness.models.two_tower import TwoTower

_WARM_UP = 5
_REPEATS = 30
_TOLERANCE = 1e-4
"""Largest difference of a unit-norm embedding that re-parameterising may make."""


def measure_cost(
    model: TwoTower, image_size: int, context_length: int, device: torch.device
) -> dict[str, Any]:
    """Parameters, GMACs of one sample and latency in milliseconds at batch 1.

    `total` counts every parameter of training; the others count what inference needs: both towers
    with their projections, re-parameterised where timm can, and logit_scale.  Text is measured at
    the full `context_length`, a picture at `image_size` pixels.  Latency is the median of 30 calls
    in fp32 on `device`, which is named together with its threads.

    Raises:
        InvariantError: re-parameterising changes an embedding by more than 1e-4.
        ConfigError: the tokenizer cannot fill `context_length`.
    """
    original = copy.deepcopy(model).to("cpu").eval()
    pixels = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    tokens = _full_text(model, context_length)
    deployed = copy.deepcopy(original)
    reparameterize_model(deployed.image, inplace=True)
    _check_equal(original, deployed, pixels)
    inputs = {"image": (deployed.encode_image, pixels), "text": (deployed.encode_text, tokens)}
    gmacs = {tower: _gmacs(*call) for tower, call in inputs.items()}
    parameters = _parameters(model, deployed)
    deployed.to(device)
    latency = {
        f"{tower}_batch1": _latency_ms(encode, sample.to(device))
        for tower, (encode, sample) in inputs.items()
    }
    return {
        "parameters": parameters,
        "gmacs": gmacs,
        "latency_ms": latency,
        "device": _device_name(device),
    }


def _full_text(model: TwoTower, context_length: int) -> Tensor:
    """Tokens (1, context_length) of a text that is longer than the context."""
    tokens = model.tokenizer(["a " * context_length])
    if tokens.shape != (1, context_length):
        raise ConfigError(
            f"a text of {context_length} words has {tokens.shape[1]} tokens; "
            f"the context length of the text tower is not {context_length}"
        )
    return tokens


@torch.no_grad()
def _check_equal(original: TwoTower, deployed: TwoTower, pixels: Tensor) -> None:
    gap = float((original.encode_image(pixels) - deployed.encode_image(pixels)).abs().max())
    if not gap <= _TOLERANCE:
        raise InvariantError(
            f"re-parameterising the image tower changes its embedding by {gap:g}, "
            f"more than {_TOLERANCE:g}; its cost would be another model's"
        )


# --------------------------------------------------------------------------- counts


def _parameters(model: TwoTower, deployed: TwoTower) -> dict[str, int]:
    embeddings = deployed.text.token_embedding.weight.numel()
    inference = _count(
        [*deployed.image.parameters(), *deployed.text.parameters(), deployed.logit_scale]
    )
    return {
        "total": _count(model.parameters()),
        "inference": inference,
        "inference_without_embeddings": inference - embeddings,
        "image": _count(deployed.image.parameters()),
        "text": _count(deployed.text.parameters()),
        "text_embeddings": embeddings,
    }


def _count(parameters: Iterable[nn.Parameter]) -> int:
    """Numbers in `parameters`, each tensor counted once however often it is used."""
    return sum(tensor.numel() for tensor in {id(p): p for p in parameters}.values())


@torch.no_grad()
def _gmacs(encode: Callable[[Tensor], Tensor], sample: Tensor) -> float:
    """Multiply-accumulates of one call, in 10^9: matrix products and convolutions, on the CPU."""
    # Fused attention and the fused encoder layer are single operations that the counter cannot
    # look into: both are taken apart here.
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), _no_fast_path(), counter:
        encode(sample)
    return counter.get_total_flops() / 2 / 1e9


@contextmanager
def _no_fast_path() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# --------------------------------------------------------------------------- latency


@torch.inference_mode()
def _latency_ms(encode: Callable[[Tensor], Tensor], sample: Tensor) -> float:
    seconds = []
    for call in range(_WARM_UP + _REPEATS):
        start = time.perf_counter()
        encode(sample)
        if sample.is_cuda:
            torch.cuda.synchronize(sample.device)
        if call >= _WARM_UP:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1e3


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{machine()['cpu']}, {threads} thread{'s' if threads > 1 else ''}"
