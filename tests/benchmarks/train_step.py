"""Our training step beside open_clip's own model and loss, on the same batch in one run.

    python tests/benchmarks/train_step.py [--size 112] [--layers 4] [--batch 64] [--steps 7]
        [--precision bf16] [--fused] [--unpadded]

Both do forward, backward, clipping and AdamW with the same towers and the same captions, with bf16
theirs by its own `amp_bf16`.
open_clip's text tower takes the full context of 77; ours the batch cut to its longest caption,
which is exact.  The two take turns, both with our allocator settings; medians of CPU and of wall
seconds of a step are printed with their ratio (theirs / ours).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import open_clip
import torch
from open_clip_train.precision import get_autocast
from torch.nn import functional as F
from turns import Sheet, in_turns, parser_of

from harness.config import ImageTower, Model, Objective, Runtime, TextTower, Train
from harness.data.transforms import normalise
from harness.device import autocast, set_up
from harness.models.text import unpadded
from harness.models.two_tower import TwoTower
from harness.objectives.terms import StepTensors, compute_loss
from harness.train.optimiser import make_optimiser

CAPTIONS = [
    "A child in a pink dress is climbing up a set of stairs in an entry way .",
    "A black dog and a spotted dog are fighting",
    "Two people are standing on a snowy hill .",
    "A man in a blue shirt is riding a bicycle down a dirt road .",
]


def our_step(
    config: Model, train: Train, pictures: torch.Tensor, captions: list[str]
) -> Callable[[], float]:
    """Our model, loss and optimiser."""
    model = TwoTower(config, None, 0).train()
    optimiser = make_optimiser(model, train)
    objective = Objective()

    def step() -> float:
        pixels = normalise(pictures, config.image)
        with autocast(train.precision, "cpu"):
            tokens = model.tokenizer(captions)
            own = unpadded(tokens) if train.unpadded else None
            hidden = model.text.hidden(tokens, own, words=False)
            text = F.normalize(model.text.pool(hidden, tokens).float(), dim=-1)
            image = model.encode_image(pixels)
        loss = compute_loss(StepTensors(image, text, model.logit_scale, 0.0), objective).total
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        model.clamp_logit_scale()
        return float(loss.detach())

    return step


def their_step(
    config: Model, train: Train, pictures: torch.Tensor, captions: list[str]
) -> Callable[[], float]:
    """open_clip's CustomTextCLIP, ClipLoss and tokenizer."""
    text = config.text
    model = open_clip.CustomTextCLIP(
        config.embed_dim,
        {
            "timm_model_name": config.image.backbone,
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": config.image.size,
        },
        {
            "context_length": text.context_length,
            "vocab_size": 49_408,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
        },
    ).train()
    optimiser = make_optimiser(model, Train())
    precision = get_autocast("amp_bf16" if train.precision == "bf16" else "fp32", "cpu")
    loss_function = open_clip.loss.ClipLoss()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    mean = torch.tensor(config.image.mean).view(1, 3, 1, 1)
    std = torch.tensor(config.image.std).view(1, 3, 1, 1)

    def step() -> float:
        pixels = (pictures.permute(0, 3, 1, 2).contiguous().float() / 255 - mean) / std
        with precision():
            image, words, scale = model(pixels, tokenizer(captions))
            loss = loss_function(image, words, scale)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach())

    return step


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--fused", action="store_true", help="ours with train.fused")
    parser.add_argument("--unpadded", action="store_true", help="ours with train.unpadded")
    given = parser.parse_args()
    train = Train(precision=given.precision, fused=given.fused, unpadded=given.unpadded)
    config = Model(
        image=ImageTower(backbone=given.backbone, size=given.size),
        text=TextTower(layers=given.layers, width=given.width),
    )
    rng = np.random.default_rng(0)
    size = (given.batch, given.size, given.size, 3)
    pictures = torch.from_numpy(rng.integers(0, 256, size, dtype=np.uint8))
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(given.batch)]
    steps = {
        "open_clip": their_step(config, train, pictures, captions),
        "ours": our_step(config, train, pictures, captions),
    }
    torch.set_num_threads(1)
    in_turns(steps, 0)  # warms up
    set_up(Runtime(), torch.device("cpu"))
    with Sheet(given.json) as sheet:
        sheet.say(
            f"{given.backbone} {given.size} px, text {given.layers} x {given.width}, "
            f"batch {given.batch}, {given.precision}"
            f"{', fused' if given.fused else ''}{', unpadded' if given.unpadded else ''}"
        )
        sheet.compare(in_turns(steps, given.steps, warm_up=0), "open_clip")


if __name__ == "__main__":
    main()
