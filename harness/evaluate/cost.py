"""What a model costs at inference: parameters and multiply-accumulates of each tower.

Counted on a re-parameterised copy, whose outputs are first checked against the model's own, so
that what is quoted is what would be deployed; the model itself is left alone.  The parts serve a
tower by itself as well as the two of a run; `latency_ms` is for one that is measured alone.
"""

from __future__ import annotations

import copy
import inspect
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.errors import ConfigError, InvariantError
from harness.store.provenance import machine

if TYPE_CHECKING:
    from harness.models.two_tower import TwoTower

_WARM_UP, _WARM_UP_SECONDS = 5, 2.0
_REPEATS, _LEAST, _SECONDS = 30, 5, 10.0
_TOLERANCE = 1e-4
"""Largest difference of a unit-norm embedding that re-parameterising may make."""
M = TypeVar("M", bound=nn.Module)


def measure_cost(model: TwoTower, image_size: int, context_length: int) -> dict[str, Any]:
    """Parameters, and GMACs of one sample.

    `total` counts every parameter of training; the others count what inference needs: both towers
    with their projections, re-parameterised where timm can, and logit_scale.  Text is measured at
    the full `context_length`, a picture at `image_size` pixels.

    Raises:
        InvariantError: re-parameterising changes an embedding by more than 1e-4.
        ConfigError: the tokenizer cannot fill `context_length`.
    """
    deployed = copy.deepcopy(model).to("cpu").eval()
    pixels = noise_pictures(1, image_size)
    tokens = _full_text(model, context_length)
    deployed.image = re_parameterised(deployed.image, pixels)
    inputs = {"image": (deployed.encode_image, pixels), "text": (deployed.encode_text, tokens)}
    gmacs = {tower: count_gmacs(*call) for tower, call in inputs.items()}
    parameters = _parameters(model, deployed)
    return {"parameters": parameters, "gmacs": gmacs}


def noise_pictures(count: int, size: int) -> Tensor:
    """(count, 3, size, size), the same at each call."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


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
def re_parameterised(tower: M, pixels: Tensor) -> M:
    """A copy of an image tower in evaluation mode as it is deployed: branches and norms merged.

    InvariantError if that changes the unit-norm embedding of `pixels` by more than 1e-4.
    """
    deployed = copy.deepcopy(tower)
    reparameterize_model(deployed, inplace=True)
    before, after = (F.normalize(t(pixels).float(), dim=-1) for t in (tower, deployed))
    gap = float((before - after).abs().max())
    if not gap <= _TOLERANCE:
        raise InvariantError(
            f"re-parameterising the image tower changes its embedding by {gap:g}, "
            f"more than {_TOLERANCE:g}; its cost would be another model's"
        )
    return deployed


# --------------------------------------------------------------------------- counts


def _parameters(model: TwoTower, deployed: TwoTower) -> dict[str, int]:
    embeddings = deployed.text.token_embedding.weight.numel()
    inference = count_parameters(
        [*deployed.image.parameters(), *deployed.text.parameters(), deployed.logit_scale]
    )
    return {
        "total": count_parameters(model.parameters()),
        "inference": inference,
        "inference_without_embeddings": inference - embeddings,
        "image": count_parameters(deployed.image.parameters()),
        "text": count_parameters(deployed.text.parameters()),
        "text_embeddings": embeddings,
    }


def count_parameters(parameters: Iterable[nn.Parameter]) -> int:
    """Numbers in `parameters`, each tensor counted once however often it is used."""
    return sum(tensor.numel() for tensor in {id(p): p for p in parameters}.values())


@torch.no_grad()
def count_gmacs(encode: Callable[[Tensor], Tensor], sample: Tensor) -> float:
    """Multiply-accumulates of one call, in 10^9: matrix products and convolutions, on the CPU."""
    from torch.utils import flop_counter  # imports triton

    # torch marks the method as not to be compiled, which would import its compiler here.
    mode: Any = getattr(flop_counter, "_FlopCounterMode", None)
    if mode is not None:
        mode.__torch_dispatch__ = inspect.unwrap(mode.__torch_dispatch__)
    # Fused attention and the fused encoder layer are single operations that the counter cannot
    # look into: both are taken apart here.
    counter = flop_counter.FlopCounterMode(display=False)
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
def latency_ms(encode: Callable[[Tensor], Tensor], sample: Tensor) -> float:
    """Milliseconds of one call where `sample` is: the median of 30 calls, after 5 to warm up.

    Slow calls are fewer: warming up ends after 2 seconds, and the calls that count, of which there
    are at least 5, after 10 seconds.
    """
    _call_times(encode, sample, least=1, most=_WARM_UP, seconds=_WARM_UP_SECONDS)
    times = _call_times(encode, sample, least=_LEAST, most=_REPEATS, seconds=_SECONDS)
    return statistics.median(times) * 1e3


def _call_times(
    encode: Callable[[Tensor], Tensor], sample: Tensor, *, least: int, most: int, seconds: float
) -> list[float]:
    """Seconds of each of `most` calls, or of `least` or more once `seconds` have passed."""
    times: list[float] = []
    while len(times) < least or (len(times) < most and sum(times) < seconds):
        times.append(_seconds(encode, sample))
    return times


def _seconds(encode: Callable[[Tensor], Tensor], sample: Tensor) -> float:
    start = time.perf_counter()
    encode(sample)
    if sample.is_cuda:
        torch.cuda.synchronize(sample.device)
    return time.perf_counter() - start


def device_name(device: torch.device) -> str:
    """The processor's or GPU's name; of a processor with the threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{machine()['cpu']}, {threads} thread{'s' if threads > 1 else ''}"
