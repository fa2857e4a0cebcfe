"""Retrieval on hand-made embeddings, and against CLIP_benchmark on random ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.data.captions import normalise_caption
from harness.evaluate.scoring.retrieval import (
    Relevance,
    own_relevance,
    rank_both_ways,
    shared_relevance,
)
from harness.metrics import KS, Ranking
from tests.evaluate.benchmark_cases import Given


def unit(*rows: tuple[float, ...]) -> Tensor:
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def text_to_image(image: Tensor, text: Tensor, relevance: Relevance) -> Ranking:
    return rank_both_ways(image, text, [relevance])[0][0]


def image_to_text(image: Tensor, text: Tensor, relevance: Relevance) -> Ranking:
    return rank_both_ways(image, text, [relevance])[0][1]


@pytest.mark.parametrize(
    ("given", "compared"),
    [
        ("A  red\tball.", "a red ball"),
        ("A red ball !?", "a red ball"),
        ("STRASSE", "strasse"),
        ("stra\N{LATIN SMALL LETTER SHARP S}e", "strasse"),
        ("Dr. No", "dr. no"),
        ("...", "..."),
    ],
)
def test_captions_are_compared_without_case_spacing_and_final_punctuation(
    given: str, compared: str
) -> None:
    assert normalise_caption(given) == compared


def test_any_caption_of_a_picture_is_a_hit() -> None:
    # Picture 0 is nearest to its second caption; picture 1 to a caption of picture 0.
    image = unit((1, 0), (0.8, 0.6))
    text = unit((0, 1), (1, 0.1), (-1, 0))
    relevance = own_relevance([0, 0, 1], 2)
    assert image_to_text(image, text, relevance).at(1).tolist() == [1.0, 0.0]
    # Caption 0 points at picture 1, caption 1 at its own, caption 2 away from both.
    assert text_to_image(image, text, relevance).at(1).tolist() == [0.0, 1.0, 1.0]


def test_picture_of_the_identical_caption_is_a_positive_but_not_strictly() -> None:
    image = unit((1, 0), (0, 1), (-1, 0))
    captions = ["A ball.", "a  ball", "a cube"]
    text = unit((0.1, 1), (0.1, 1), (-1, 0))
    index = [0, 1, 2]
    shared = text_to_image(image, text, shared_relevance(captions, index, 3))
    own = text_to_image(image, text, own_relevance(index, 3))
    assert shared.at(1).tolist() == [1.0, 1.0, 1.0]
    assert own.at(1).tolist() == [0.0, 1.0, 1.0]
    assert shared.positives.tolist() == [2, 2, 1]
    assert own.positives.tolist() == [1, 1, 1]


def test_identical_captions_tie_in_the_strict_figure() -> None:
    image = unit((1, 0), (0.9, 0.1))
    text = unit((1, 0), (1, 0))
    captions, index = ["a ball", "a ball"], [0, 1]
    own = image_to_text(image, text, own_relevance(index, 2))
    shared = image_to_text(image, text, shared_relevance(captions, index, 2))
    assert own.at(1).tolist() == [0.5, 0.5]
    assert shared.at(1).tolist() == [1.0, 1.0]


def test_picture_without_captions_is_in_the_pool_and_no_query() -> None:
    image = unit((1, 0), (0, 1))
    text = unit(
        (1, 0.1),
    )
    relevance = shared_relevance(["a cube"], [1], 2)
    down = text_to_image(image, text, relevance)
    up = image_to_text(image, text, relevance)
    assert (down.pool, down.at(1).tolist()) == (2, [0.0])
    assert (up.queries.tolist(), up.at(1).tolist()) == ([1], [1.0])


# --------------------------------------------------------------------------- independent library


@pytest.mark.parametrize("captions_each", [[1] * 40, [5] * 40, [1, 3, 2, 5] * 10])
def test_equals_clip_benchmark(captions_each: list[int]) -> None:
    from clip_benchmark.datasets.builder import image_captions_collate_fn
    from clip_benchmark.metrics import zeroshot_retrieval

    generator = torch.Generator().manual_seed(sum(captions_each))
    index = [i for i, n in enumerate(captions_each) for _ in range(n)]
    image = F.normalize(torch.randn(40, 16, generator=generator), dim=-1)
    noise = torch.randn(len(index), 16, generator=generator)
    text = F.normalize(image[index] + 0.4 * noise, dim=-1)
    rows: list[Any] = []
    for i in range(40):
        rows.append((torch.tensor([i]), [str(m) for m, of in enumerate(index) if of == i]))
    loader = torch.utils.data.DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=7,
        collate_fn=image_captions_collate_fn,
    )
    theirs = zeroshot_retrieval.evaluate(
        Given(image, text),
        loader,
        lambda texts: torch.tensor([int(text) for text in texts]),
        "cpu",
        amp=False,
        recall_k_list=list(KS),
    )
    relevance = shared_relevance([f"caption {m}" for m in range(len(index))], index, 40)
    down, up = text_to_image(image, text, relevance), image_to_text(image, text, relevance)
    ours = {}
    for k in KS:
        ours[f"image_retrieval_recall@{k}"] = float(down.at(k).mean())
        ours[f"text_retrieval_recall@{k}"] = float(up.at(k).mean())
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert 0.1 < ours["image_retrieval_recall@1"] < 0.9
