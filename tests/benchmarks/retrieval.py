"""Our recall@k next to CLIP_benchmark's on the same embeddings: seconds and their ratio.

    python tests/benchmarks/retrieval.py [pictures] [captions a picture]

Not a test: it asserts that both agree and prints how long each took.  The reference's time is that
of its own scoring functions, without its progress bar, loader and model.
"""

from __future__ import annotations

import sys
import time

import torch
from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k
from torch import Tensor
from torch.nn import functional as F

from harness.evaluate.scoring.retrieval import own_relevance, rank_both_ways
from harness.metrics import KS

_DIM = 512
_BATCH = 64
_NOISE = 6.0
"""Length of what is added to a picture's embedding to make a caption's: recalls between 0 and 1."""


def theirs(image: Tensor, text: Tensor, index: list[int]) -> list[float]:
    """CLIP_benchmark's recalls, text -> image and image -> text for each k."""
    scores = text @ image.T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(text)), index] = True
    return [
        float((batchify(recall_at_k, s, p, _BATCH, "cpu", k=k) > 0).float().mean())
        for k in KS
        for s, p in ((scores, positive), (scores.T, positive.T))
    ]


def ours(image: Tensor, text: Tensor, index: list[int]) -> list[float]:
    """The same from this package."""
    relevance = own_relevance(index, len(image))
    (both,) = rank_both_ways(image, text, [relevance])
    return [float(recall.at(k).mean()) for k in KS for recall in both]


def main(pictures: int, captions: int) -> None:
    """Time both once on random embeddings and compare."""
    generator = torch.Generator().manual_seed(0)
    index = [i for i in range(pictures) for _ in range(captions)]
    image = F.normalize(torch.randn(pictures, _DIM, generator=generator), dim=-1)
    noise = torch.randn(len(index), _DIM, generator=generator)
    text = F.normalize(image[index] + _NOISE * F.normalize(noise, dim=-1), dim=-1)
    found, seconds = {}, {}
    for name, recall in (("ours", ours), ("clip_benchmark", theirs)):
        start = time.perf_counter()
        found[name] = recall(image, text, index)
        seconds[name] = time.perf_counter() - start
        print(f"{name:15} {seconds[name]:8.2f} s  {[round(value, 4) for value in found[name]]}")
    gap = max(abs(a - b) for a, b in zip(found["ours"], found["clip_benchmark"], strict=True))
    if gap > 1e-6:
        raise SystemExit(f"the recalls differ by {gap:g}")
    print(f"ratio {seconds['clip_benchmark'] / seconds['ours']:.1f} on {pictures} x {len(index)}")


if __name__ == "__main__":
    main(*(int(word) for word in (sys.argv[1:] or ["1000", "5"])))
