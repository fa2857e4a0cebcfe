"""Image-text retrieval: recall@k in both directions, with several captions a picture.

Pure functions of embeddings and captions.  The recall is CLIP's: a query is a hit when *any* of
its positives is among the k best (Radford et al. 2021; CLIP_benchmark computes the same).  Two
rules for what is positive:

* own (the main figure, CLIP_benchmark's): only the picture a caption was written for;
* shared: a picture that owns the identical normalised caption is a positive too, because nothing
  in the text tells the two apart.

Pictures without captions stay in the pool of text -> image and are no queries of image -> text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from harness.data.captions import normalise_caption
from harness.evaluate.scoring.bidirectional_ranking import Relation, both_ways
from harness.evaluate.scoring.ranking import Standing
from harness.metrics import KS, Ranking


class Relevance:
    """Which captions and pictures match: those that share a label.

    Kept as arrays, so that the positives of many captions are found at once.  Two are equal that
    relate the same captions and pictures.

    Args:
        of_caption: label of each caption (M entries).
        of_image: labels of each picture (N entries); none for a picture without captions.
    """

    def __init__(self, of_caption: Sequence[int], of_image: Sequence[Iterable[int]]) -> None:
        owned = sorted((label, i) for i, labels in enumerate(of_image) for label in labels)
        self._labels, self._owners = np.array(owned, dtype=np.int64).reshape(-1, 2).T
        self._of_caption = np.asarray(of_caption, dtype=np.int64)
        self._images = len(of_image)
        bins = 1 + int(max(self._of_caption.max(initial=-1), self._labels.max(initial=-1)))
        self._images_with = np.bincount(self._labels, minlength=bins)
        self._captions_with = np.bincount(self._of_caption, minlength=bins)
        self._starts = np.cumsum(self._images_with) - self._images_with
        self._count = int(self._images_with[self._of_caption].sum())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Relevance) or hash(self) != hash(other):
            return False
        every = torch.arange(len(self._of_caption))
        pairs = zip(self._pairs(every), other._pairs(every), strict=True)
        return all(torch.equal(own, others) for own, others in pairs)

    def __hash__(self) -> int:
        return hash((self._count, len(self._of_caption)))

    def relation(self) -> Relation:
        """The same for `both_ways`."""
        return Relation(self._pairs, self._count)

    def _pairs(self, captions: Tensor) -> tuple[Tensor, Tensor]:
        labels = self._of_caption[captions.numpy()]
        counts = self._images_with[labels]
        rows = np.repeat(np.arange(len(labels)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        images = self._owners[np.repeat(self._starts[labels], counts) + within]
        return torch.from_numpy(rows), torch.from_numpy(images)

    def positives_of_captions(self) -> Tensor:
        """How many pictures each caption matches, int64 (M,)."""
        return torch.from_numpy(self._images_with[self._of_caption])

    def positives_of_images(self) -> Tensor:
        """How many captions each picture matches, int64 (N,)."""
        counts = self._captions_with[self._labels].astype(np.float64)
        found = np.bincount(self._owners, counts, self._images)
        return torch.from_numpy(found.astype(np.int64))


def own_relevance(image_index: Sequence[int], images: int) -> Relevance:
    """A caption matches the picture it was written for, `image_index` (M entries), and no other."""
    captioned = set(image_index)
    return Relevance(image_index, [[i] if i in captioned else [] for i in range(images)])


def shared_relevance(captions: Sequence[str], image_index: Sequence[int], images: int) -> Relevance:
    """A caption matches every picture that owns the same normalised caption."""
    labels: dict[str, int] = {}
    of_caption = [labels.setdefault(normalise_caption(text), len(labels)) for text in captions]
    of_image: list[set[int]] = [set() for _ in range(images)]
    for label, image in zip(of_caption, image_index, strict=True):
        of_image[image].add(label)
    return Relevance(of_caption, of_image)


def rank_both_ways(
    image: Tensor, text: Tensor, relevances: Sequence[Relevance]
) -> list[tuple[Ranking, Ranking]]:
    """Text -> image and image -> text under each rule of what is relevant.

    Every caption looks for its picture (CLIP_benchmark's image retrieval), and every picture with
    captions for one of them (its text retrieval).

    Args:
        image: unit-norm (N, D).
        text: unit-norm (M, D).

    Raises:
        InvariantError: an embedding is not finite.
    """
    distinct = list(dict.fromkeys(relevances))
    standings = both_ways(text, image, [each.relation() for each in distinct])
    found = dict(zip(distinct, standings, strict=True))
    return [_rankings(each, *found[each]) for each in relevances]


def _rankings(rule: Relevance, of_texts: Standing, of_images: Standing) -> tuple[Ranking, Ranking]:
    captions, images = len(of_texts.above), len(of_images.above)
    positives = rule.positives_of_images()
    queries = torch.nonzero(positives).flatten()
    down = _ranking(torch.arange(captions), of_texts, rule.positives_of_captions(), images)
    return down, _ranking(queries, of_images, positives, captions)


def _ranking(queries: Tensor, standing: Standing, positives: Tensor, pool: int) -> Ranking:
    hits, ranks = standing.hits(KS)[queries], standing.ranks()[queries]
    own = positives[queries]
    return Ranking(queries.numpy(), hits.numpy(), ranks.numpy(), own.numpy(), pool)
