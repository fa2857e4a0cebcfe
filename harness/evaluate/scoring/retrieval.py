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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.data.captions import normalise_caption
from harness.evaluate.scoring.bidirectional_ranking import Relation, both_ways
from harness.evaluate.scoring.ranking import Standing
from harness.metrics import KS, Ranking


@dataclass(frozen=True)
class Relevance:
    """Which captions and pictures match: those that share a label.

    Attributes:
        of_caption: label of each caption (M entries).
        of_image: labels of each picture (N entries); none for a picture without captions.
    """

    of_caption: Sequence[int]
    of_image: Sequence[frozenset[int]]


def own_relevance(image_index: Sequence[int], images: int) -> Relevance:
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
    rules = [_Rule.of(relevance) for relevance in relevances]
    standings = both_ways(text, image, [rule.relation() for rule in _distinct(rules)])
    found = dict(zip(_distinct(rules), standings, strict=True))
    return [_rankings(rule, *_standings_of(rule, found)) for rule in rules]


def _distinct(rules: Sequence[_Rule]) -> list[_Rule]:
    """Rules without those that relate the same captions and images as one before."""
    return [r for i, r in enumerate(rules) if not any(r.same_as(other) for other in rules[:i])]


def _standings_of(
    rule: _Rule, found: Mapping[_Rule, tuple[Standing, Standing]]
) -> tuple[Standing, Standing]:
    return next(standings for other, standings in found.items() if rule.same_as(other))


def _rankings(rule: _Rule, of_texts: Standing, of_images: Standing) -> tuple[Ranking, Ranking]:
    captions, images = len(of_texts.above), len(of_images.above)
    positives = rule.positives_of_images()
    queries = torch.nonzero(positives).flatten()
    down = _ranking(torch.arange(captions), of_texts, rule.positives_of_captions(), images)
    return down, _ranking(queries, of_images, positives, captions)


def _ranking(queries: Tensor, standing: Standing, positives: Tensor, pool: int) -> Ranking:
    hits, ranks = standing.hits(KS)[queries], standing.ranks()[queries]
    own = positives[queries]
    return Ranking(queries.numpy(), hits.numpy(), ranks.numpy(), own.numpy(), pool)


class _Rule:
    """A Relevance as arrays, so that the positives of many captions are found at once."""

    def __init__(self, of_caption: np.ndarray, owned: np.ndarray, images: int) -> None:
        """`owned` (P, 2): label and image of each label that an image has, sorted."""
        self._of_caption, self._labels, self._owners = of_caption, owned[:, 0], owned[:, 1]
        self._images = images
        bins = 1 + int(max(of_caption.max(initial=-1), self._labels.max(initial=-1)))
        self._images_with = np.bincount(self._labels, minlength=bins)
        self._captions_with = np.bincount(of_caption, minlength=bins)
        self._starts = np.cumsum(self._images_with) - self._images_with

    @classmethod
    def of(cls, relevance: Relevance) -> _Rule:
        owned = [(label, i) for i, labels in enumerate(relevance.of_image) for label in labels]
        table = np.array(sorted(owned), dtype=np.int64).reshape(-1, 2)
        of_caption = np.asarray(relevance.of_caption, dtype=np.int64)
        return cls(of_caption, table, len(relevance.of_image))

    @property
    def count(self) -> int:
        return int(self._images_with[self._of_caption].sum())

    def relation(self) -> Relation:
        return Relation(self._pairs, self.count)

    def same_as(self, other: _Rule) -> bool:
        """Whether both relate the same captions and images."""
        if self is other:
            return True
        if self.count != other.count or len(self._of_caption) != len(other._of_caption):
            return False
        every = torch.arange(len(self._of_caption))
        pairs = zip(self._pairs(every), other._pairs(every), strict=True)
        return all(torch.equal(own, others) for own, others in pairs)

    def _pairs(self, captions: Tensor) -> tuple[Tensor, Tensor]:
        labels = self._of_caption[captions.numpy()]
        counts = self._images_with[labels]
        rows = np.repeat(np.arange(len(labels)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        images = self._owners[np.repeat(self._starts[labels], counts) + within]
        return torch.from_numpy(rows), torch.from_numpy(images)

    def positives_of_captions(self) -> Tensor:
        return torch.from_numpy(self._images_with[self._of_caption])

    def positives_of_images(self) -> Tensor:
        counts = self._captions_with[self._labels].astype(np.float64)
        found = np.bincount(self._owners, counts, self._images)
        return torch.from_numpy(found.astype(np.int64))
