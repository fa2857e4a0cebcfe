"""Image-text retrieval: recall@k in both directions, with several captions a picture.

Pure functions of embeddings and captions.  The recall is CLIP's: a query is a hit when *any* of
its positives is among the k best (Radford et al. 2021; CLIP_benchmark computes the same).  Two
rules for what is positive:

* shared captions (the main figure): a picture that owns the identical normalised caption is a
  positive too, because nothing in the text tells the two apart;
* strict: only the picture a caption was written for.

Pictures without captions stay in the pool of text -> image and are no queries of image -> text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.evaluate.ranking import expected_hits
from harness.metrics import KS

_FINAL_PUNCTUATION = ".,;:!?\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True)
class Relevance:
    """Which captions and pictures match: those that share a label.

    Attributes:
        of_caption: label of each caption (M entries).
        of_image: labels of each picture (N entries); none for a picture without captions.
    """

    of_caption: Sequence[int]
    of_image: Sequence[frozenset[int]]


@dataclass(frozen=True)
class Recall:
    """The outcomes of one direction.

    Attributes:
        queries: int64 (Q,), place of each query among the captions or pictures.
        hits: float64 (Q, len(KS)), probability of a hit over the order of ties.
        positives: int64 (Q,), number of positives of each query in the pool.
        pool: number of candidates.
    """

    queries: Tensor
    hits: Tensor
    positives: Tensor
    pool: int

    def at(self, k: int) -> Tensor:
        """Per-query outcomes (Q,) of recall@k, k one of KS."""
        return self.hits[:, KS.index(k)]


def normalise_caption(text: str) -> str:
    """The form in which captions are compared: case, spacing and final punctuation removed."""
    folded = " ".join(text.casefold().split())
    return folded.rstrip(_FINAL_PUNCTUATION + " ") or folded


def strict_relevance(image_index: Sequence[int], images: int) -> Relevance:
    """A caption matches the picture it was written for, `image_index` (M entries), and no other."""
    captioned = set(image_index)
    return Relevance(image_index, [frozenset({i} if i in captioned else ()) for i in range(images)])


def shared_relevance(captions: Sequence[str], image_index: Sequence[int], images: int) -> Relevance:
    """A caption matches every picture that owns the same normalised caption."""
    labels: dict[str, int] = {}
    of_caption = [labels.setdefault(normalise_caption(text), len(labels)) for text in captions]
    of_image: list[set[int]] = [set() for _ in range(images)]
    for label, image in zip(of_caption, image_index, strict=True):
        of_image[image].add(label)
    return Relevance(of_caption, [frozenset(labels) for labels in of_image])


def text_to_image(image: Tensor, text: Tensor, relevance: Relevance) -> Recall:
    """Every caption looks for its picture (CLIP_benchmark's `image_retrieval_recall`).

    Args:
        image: unit-norm (N, D).
        text: unit-norm (M, D).

    Raises:
        InvariantError: an embedding is not finite.
    """
    wanted = [frozenset({label}) for label in relevance.of_caption]
    return _recall(text, image, range(len(text)), wanted, relevance.of_image)


def image_to_text(image: Tensor, text: Tensor, relevance: Relevance) -> Recall:
    """Every picture with captions looks for one of them (`text_retrieval_recall`).

    Arguments and errors as `text_to_image`.
    """
    queries = [i for i, labels in enumerate(relevance.of_image) if labels]
    wanted = [relevance.of_image[i] for i in queries]
    offered = [frozenset({label}) for label in relevance.of_caption]
    return _recall(image, text, queries, wanted, offered)


def _recall(
    queries: Tensor,
    candidates: Tensor,
    of_query: Sequence[int],
    wanted: Sequence[frozenset[int]],
    offered: Sequence[frozenset[int]],
) -> Recall:
    places: dict[int, list[int]] = {}
    for place, labels in enumerate(offered):
        for label in labels:
            places.setdefault(label, []).append(place)
    owners = {label: torch.tensor(found) for label, found in places.items()}
    counts = torch.zeros(len(wanted), dtype=torch.int64)

    def positives(chunk: slice) -> Tensor:
        rows = wanted[chunk]
        mask = torch.zeros(len(rows), len(candidates), dtype=torch.bool)
        for row, labels in zip(mask, rows, strict=True):
            for label in labels:
                row[owners[label]] = True
        counts[chunk] = mask.sum(dim=1)
        return mask

    chosen = torch.tensor(list(of_query), dtype=torch.int64)
    hits = expected_hits(queries[chosen], candidates, positives, KS)
    return Recall(chosen, hits, counts, len(candidates))
