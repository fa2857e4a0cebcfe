"""Cost of matching words with patches beside the forward pass of the same batch.

    python tests/benchmarks/matching.py [--pairs 1024] [--patches 49] [--words 16] [--slice 128]

The forward pass is that of both towers (resnet18 at 112 px, text 4 x 512) with texts of `--words`
words, measured on slices of `--slice` pairs and scaled to all of them.  The bar: `one_to_one` of
1,024 pairs of 49 patches and 16 words takes at most a tenth of the forward pass of those pairs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import get_args

import torch
from torch.nn import functional as F

from harness.config import ImageTower, Model, Runtime, TextTower
from harness.device import set_up
from harness.models.two_tower import TwoTower
from harness.objectives.matching import match
from harness.objectives.token import TokenLoss

BAR = 0.1


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall seconds of `work`, the first call not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def forward_pass(pairs: int, words: int) -> Callable[[], object]:
    """Both towers on `pairs` random pictures and texts, as in a training step."""
    config = Model(image=ImageTower(size=112), text=TextTower(layers=4))
    model = TwoTower(config, None, 0).train()
    pixels = torch.randn(pairs, 3, 112, 112)
    ids = torch.randint(1, 49_406, (pairs, words + 2))
    ids[:, 0], ids[:, -1] = 49_406, 49_407
    return lambda: model(pixels, ids)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--patches", type=int, default=49)
    parser.add_argument("--words", type=int, default=16)
    parser.add_argument("--dim", type=int, default=TokenLoss().dim)
    parser.add_argument("--slice", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    set_up(Runtime(), torch.device("cpu"))
    torch.manual_seed(0)
    of_slice = seconds(forward_pass(given.slice, given.words), given.repeats)
    forward = of_slice * given.pairs / given.slice
    print(f"forward pass of {given.pairs} pairs: {forward:.2f} s (1 thread)")
    words = F.normalize(torch.randn(given.pairs, given.words, given.dim), dim=-1)
    patches = F.normalize(torch.randn(given.pairs, given.patches, given.dim), dim=-1)
    similarity = words @ patches.mT
    mask = torch.ones(given.pairs, given.words, dtype=torch.bool)
    for matching in get_args(TokenLoss.model_fields["matching"].annotation):
        config = TokenLoss(matching=matching)
        taken = seconds(lambda config=config: match(similarity, mask, config), given.repeats)
        bar = f", bar {BAR}" if matching == "one_to_one" else ""
        print(f"{matching:>12}: {taken * 1e3:7.1f} ms, {taken / forward:.4f} of the forward{bar}")


if __name__ == "__main__":
    main()
