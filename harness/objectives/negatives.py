"""Which other pairs of the global batch each pair is told apart from: K of them, and not all.

Pure functions of places and embeddings.  Knows nothing of how a pair is scored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DrawnPlaces(NamedTuple):
    """Place (N,) of each pair of a process in an order of the global batch, drawn for a step."""

    places: Tensor

    def to(self, device: torch.device) -> DrawnPlaces:
        """On a device."""
        from harness.device import upload

        return DrawnPlaces(upload(self.places, device))

    def rows(self, first: int, last: int) -> DrawnPlaces:
        """Of the pairs `first` to `last` alone."""
        return DrawnPlaces(self.places[first:last])


class Negatives(NamedTuple):
    """Pairs by their places in the global batch of N; the first of each row is the own one.

    Attributes:
        images: (N, 1 + K), the pictures that a text is compared with.
        texts: (N, 1 + K), the texts that a picture is compared with.
        mirrored: whether text k of a picture has that picture as its own candidate k.
    """

    images: Tensor
    texts: Tensor
    mirrored: bool


def drawn_negatives(places: Tensor, count: int) -> Negatives:
    """The `count` pairs that follow in the drawn order, for a text; those before, for a picture.

    So that pictures and texts are compared in the same N * (1 + count) pairs, each picture with as
    many texts as each text with pictures; with N - 1 they are all pairs.

    Args:
        places: (N,), of each pair of the global batch in that order.
    """
    import torch

    order = places.argsort()
    steps = torch.arange(count + 1, device=places.device)
    size = len(places)
    return Negatives(
        images=order[(places[:, None] + steps) % size],
        texts=order[(places[:, None] - steps) % size],
        mirrored=True,
    )


def hardest_negatives(image: Tensor, text: Tensor, count: int) -> Negatives:
    """The `count` most similar others by the embeddings (N, D), which take no gradient."""
    import torch

    similarity = image.detach().float() @ text.detach().float().T
    similarity.fill_diagonal_(float("-inf"))
    own = torch.arange(len(image), device=image.device)[:, None]
    of_images = similarity.topk(count, dim=1).indices
    of_texts = similarity.topk(count, dim=0).indices.T
    return Negatives(
        torch.cat([own, of_texts], dim=1), torch.cat([own, of_images], dim=1), mirrored=False
    )
