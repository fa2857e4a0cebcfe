"""A training step on a GPU beside open_clip's own, and what the host waits for in it.

    python tests/benchmarks/gpu_step.py [--size 224] [--layers 4] [--batch 512] [--steps 30]
        [--json FILE]

For a rented GPU: under 8 minutes, and nothing is read from disk.  `--device cpu` goes the same way
without one, at sizes for which there is time; its numbers say nothing of a GPU.  Both steps take
the same decoded pictures and captions, with the same towers, AdamW and bf16 autocast; open_clip's
text tower takes 77 tokens, ours the batch cut to its longest caption.  Prints JSON: samples a
second of both and their ratio, milliseconds of each part of our step, waits of the host in a step
(of torch's profiler), and samples a second that one core decodes from JPEGs of 512 pixels and from
packed ones.
"""

from __future__ import annotations

import io
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor, nn
from turns import parser_of

from harness.bases import CC3M
from harness.config import RunConfig, Runtime, override
from harness.data.images import Encoded
from harness.data.transforms import normalise, scaled_view
from harness.device import autocast, placed, resolve_precision, set_up, upload
from harness.models.training import TrainingModel
from harness.objectives.terms import StepTensors, compute_loss
from harness.seeding import generator
from harness.train.optimiser import make_optimiser

CAPTIONS = (
    "A child in a pink dress is climbing up a set of stairs in an entry way .",
    "A black dog and a spotted dog are fighting",
    "Two people are standing on a snowy hill .",
    "A man in a blue shirt is riding a bicycle down a dirt road .",
)
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
_WARM_UP, _DECODING_SECONDS = 5, 2.0

Part = Callable[[], None]


def our_step(config: RunConfig, device: torch.device, pictures: Tensor) -> dict[str, Part]:
    """The parts of our step, to be called in order."""
    model = placed(TrainingModel(config, None), device).train()
    optimiser = make_optimiser(model, config.train, model.lr_factors())
    precision = resolve_precision(config.train.precision, device, "train.precision")
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(len(pictures))]
    tokens = model.model.tokenizer(captions)
    tokens = ready(tokens[:, : int((tokens != 0).sum(dim=1).max())], device)
    now: dict[str, Any] = {}

    def forward() -> None:
        pixels = normalise(upload(pictures, device), config.model.image)
        with autocast(precision, device.type):
            now["out"] = model(pixels, upload(tokens, device))

    def loss() -> None:
        out = now["out"]
        tensors = StepTensors(out.image, out.text, model.model.logit_scale, 0.0)
        now["loss"] = compute_loss(tensors, config.objective).total

    def backward() -> None:
        optimiser.zero_grad(set_to_none=True)
        now["loss"].backward()

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        model.model.clamp_logit_scale()

    return {"forward": forward, "loss": loss, "backward": backward, "update": update}


def their_step(config: RunConfig, device: torch.device, pictures: Tensor) -> dict[str, Part]:
    """open_clip's CustomTextCLIP, ClipLoss and tokenizer, as its training loop calls them."""
    text, image = config.model.text, config.model.image
    vision = {
        "timm_model_name": image.backbone,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": image.size,
    }
    sizes = {"width": text.width, "heads": text.heads, "layers": text.layers}
    model = open_clip.CustomTextCLIP(config.model.embed_dim, vision, sizes)
    model = model.to(device).train()
    optimiser = make_optimiser(model, config.train)
    loss_of = open_clip.loss.ClipLoss()
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(len(pictures))]
    tokens = ready(open_clip.get_tokenizer("ViT-B-32")(captions), device)
    normalised = ready(normalise(pictures, image).contiguous(), device)

    def step() -> None:
        pixels = normalised.to(device, non_blocking=True)
        words = tokens.to(device, non_blocking=True)
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = loss_of(*model(pixels, words))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return {"step": step}


def ready(tensor: Tensor, device: torch.device) -> Tensor:
    """On the host, where a GPU copies it from without anybody waiting."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def finished(device: torch.device) -> float:
    """The clock once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def clock(device: torch.device) -> Callable[[], Any]:
    """What notes a place in the work of the device: an event of a GPU, a time on a CPU."""

    def event() -> Any:
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark

    return event if device.type == "cuda" else time.perf_counter


def between(start: Any, end: Any) -> float:
    """Seconds between two notes of a `clock`."""
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1e3


def seconds(parts: dict[str, Part], steps: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each part, by events on the device; and of a `step`, which nobody cuts."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    now = clock(device)
    for number in range(_WARM_UP + steps):
        marks = [now()]
        for part in parts.values():
            part()
            marks.append(now())
        if number >= _WARM_UP:
            finished(device)
            for name, start, end in zip(parts, marks, marks[1:], strict=False):
                times[name].append(between(start, end))
    began = finished(device)
    for _ in range(steps):
        for part in parts.values():
            part()
    whole = (finished(device) - began) / steps
    return {name: statistics.median(found) for name, found in times.items()} | {"whole": whole}


def waits(parts: dict[str, Part], steps: int, device: torch.device) -> float:
    """How often the host waits for the device in a step, by torch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            for part in parts.values():
                part()
    counts = {event.key: event.count for event in profile.key_averages()}
    return sum(counts.get(name, 0) for name in WAITS) / steps


def decoded_per_second(config: RunConfig, side: int) -> float:
    """Training views a second that one core makes of JPEGs of `side` pixels."""
    image = Image.effect_noise((side, side), 40).convert("RGB")
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    rng, began, count = generator(0, "decode"), time.perf_counter(), 0
    while time.perf_counter() - began < _DECODING_SECONDS:
        view = Encoded(data.getvalue(), max_pixels=1 << 26)
        scaled_view(view, config.model.image.size, config.data.crop_scale, False, rng)
        count += 1
    return count / (time.perf_counter() - began)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    given = parser.parse_args(argv)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; train_step.py measures the step of a CPU")
    device = torch.device(given.device)
    on_gpu = device.type == "cuda"
    set_up(Runtime(), device)
    config = override(
        CC3M,
        {
            "model.image.backbone": given.backbone,
            "model.image.size": given.size,
            "model.text.layers": given.layers,
            "train.batch_size": given.batch,
        },
    )
    numbers = np.random.default_rng(0).integers(0, 256, (given.batch, given.size, given.size, 3))
    pictures = ready(torch.from_numpy(numbers.astype(np.uint8)), device)
    ours, theirs = our_step(config, device, pictures), their_step(config, device, pictures)
    times = {
        "ours": seconds(ours, given.steps, device),
        "open_clip": seconds(theirs, given.steps, device),
        "ours again": seconds(ours, given.steps, device),
    }
    rates = {name: given.batch / found["whole"] for name, found in times.items()}
    text = json.dumps(
        {
            "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
            "torch": torch.__version__,
            "settings": {k: v for k, v in vars(given).items() if k != "json"},
            "samples_per_second": rates,
            "ours / open_clip": rates["ours"] / rates["open_clip"],
            "milliseconds": {
                name: {part: 1e3 * value for part, value in found.items()}
                for name, found in times.items()
            },
            "host_waits_per_step": {
                "ours": waits(ours, given.steps, device),
                "open_clip": waits(theirs, given.steps, device),
            },
            "peak_memory_gb": torch.cuda.max_memory_allocated(device) / 1e9 if on_gpu else None,
            "decoded_per_second_and_core": {
                "jpeg of 512": decoded_per_second(config, 512),
                "packed": decoded_per_second(config, given.size + given.size // 8),
            },
        },
        indent=1,
    )
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
