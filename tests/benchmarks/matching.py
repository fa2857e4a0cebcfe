"""Cost of matching words with patches beside the forward pass of the same batch.

    python tests/benchmarks/matching.py [--pairs 1024] [--patches 49] [--words 16] [--slice 128]

The forward pass is that of both towers (resnet18 at 112 px, text 4 x 512) with texts of `--words`
words, measured on slices of `--slice` pairs and scaled to all of them.  The bar: `one_to_one` of
1,024 pairs of 49 patches and 16 words takes at most a tenth of the forward pass of those pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from torch.nn import functional as F
from turns import Sheet, in_turns, parser_of

from harness.config import ImageTower, Model, Runtime, TextTower
from harness.device import set_up
from harness.models.two_tower import TwoTower
from harness.objectives.matching import match
from harness.objectives.token import TokenLoss

BAR = 0.1


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
    parser = parser_of(__doc__)
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--patches", type=int, default=49)
    parser.add_argument("--words", type=int, default=16)
    parser.add_argument("--dim", type=int, default=TokenLoss().dim)
    parser.add_argument("--slice", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    set_up(Runtime(), torch.device("cpu"))
    torch.manual_seed(0)
    words = F.normalize(torch.randn(given.pairs, given.words, given.dim), dim=-1)
    patches = F.normalize(torch.randn(given.pairs, given.patches, given.dim), dim=-1)
    similarity = words @ patches.mT
    mask = torch.ones(given.pairs, given.words, dtype=torch.bool)
    works = {"forward": forward_pass(given.slice, given.words)}
    for matching in get_args(TokenLoss.model_fields["matching"].annotation):
        config = TokenLoss(matching=matching)
        works[matching] = lambda config=config: match(similarity, mask, config)
    times = in_turns(works, given.repeats)
    forward = times.pop("forward").medians()["cpu"] * given.pairs / given.slice
    with Sheet(given.json) as sheet:
        sheet.say(f"forward pass of {given.pairs} pairs: {forward:.2f} CPU s", cpu=forward)
        for matching, found in times.items():
            share = found.medians()["cpu"] / forward
            bar = f", bar {BAR}" if matching == "one_to_one" else ""
            sheet.say(
                f"{matching:>12}: {found}, {share:.4f} of the forward{bar}",
                name=matching,
                share=share,
                **found.medians(),
            )


if __name__ == "__main__":
    main()
