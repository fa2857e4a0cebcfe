"""Rankings of texts by pictures and of pictures by texts from one look at every score.

A tile of scores serves both directions and every rule of what is positive, and is then forgotten:
memory does not grow with texts x pictures, and the matrix product, which is most of the work, is
done once.  Exact, ties included; knows nothing of captions or names.

A text sees all its candidates within one tile.  A picture's are spread over all tiles, so the score
it is compared with, that of its best positive, must be known before the first: it is estimated from
the positives alone.  What lies clear of the estimate is counted on the spot; what lies within a
margin of it is kept and compared at the end with the score that the tiles gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import InvariantError
from harness.evaluate.scoring.ranking import Standing, check_finite

_TILE_SCORES = 2**20
"""Scores held at once, unless one text has more candidates than that."""
_MARGIN = 2e-5
"""Around an estimated score; rounding of a dot product of unit vectors stays far below."""
_PAIRS_PER_ROW = 32
"""With more positives than that, scores are looked at twice instead of estimated."""
_PAIRS_AT_ONCE = 2**14
_MOST_COUNTED = 2**24
"""Ones that can be summed exactly in fp32."""

Pairs = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Relation:
    """Which texts and pictures are positives of one another.

    Attributes:
        pairs: places of texts, int64 (R,), to the positives among them: int64 (P,) rows of what was
            given and int64 (P,) pictures, each pair once.
        count: number of pairs of all texts.
    """

    pairs: Pairs
    count: int


def both_ways(
    texts: Tensor, pictures: Tensor, relations: Sequence[Relation]
) -> list[tuple[Standing, Standing]]:
    """Where the best positive stands, for every text and every picture.

    Equal candidates have equal scores.

    Args:
        texts: unit-norm (M, D).
        pictures: unit-norm (N, D).
        relations: one or more rules of what is positive; every text needs a positive in each.

    Returns:
        For each relation that of the texts (M,) and of the pictures (N,); of pictures without a
        positive it is of no meaning.

    Raises:
        InvariantError: an embedding is not finite, or a text has no positive.
    """
    check_finite("text", texts)
    check_finite("picture", pictures)
    tiles = _Tiles(texts.float().cpu(), pictures.float().cpu())
    sides = [_Sides(relation, tiles) for relation in relations]
    tiles.show([side.count for side in sides])
    again = [side for side in sides if not side.sound()]
    for side in again:
        side.start_over()
    if again:
        tiles.show([side.count for side in again])
    return [(side.of_texts(), side.of_pictures()) for side in sides]


# --------------------------------------------------------------------------- scores


class _Tiles:
    """Every score once, in tiles of some texts by all pictures.

    A matrix product does not promise equal columns (or rows) equal scores, so each distinct
    embedding is scored once.
    """

    def __init__(self, texts: Tensor, pictures: Tensor) -> None:
        self.texts, self.pictures = texts, pictures
        self.text_group, distinct = _groups(texts)
        self.picture_group, pictures_kept = _groups(pictures)
        self._texts = texts if len(distinct) == len(texts) else texts[distinct]
        alike = len(pictures_kept) < len(pictures)
        self._pictures = pictures[pictures_kept] if alike else pictures
        self._columns = self.picture_group if alike else None

    def show(self, looks: Sequence[Callable[[Tensor, Tensor], None]]) -> None:
        """Call every one of `looks` with each tile (R, N) and the places (R,) of its texts."""
        rows = max(1, _TILE_SCORES // max(1, len(self.pictures)))
        order = torch.argsort(self.text_group, stable=True)
        groups = self.text_group[order]
        for start in range(0, len(self._texts), rows):
            stop = min(start + rows, len(self._texts))
            scores = self._texts[start:stop] @ self._pictures.T
            if self._columns is not None:
                scores = scores[:, self._columns]
            first, last = torch.searchsorted(groups, torch.tensor([start, stop])).tolist()
            places = order[first:last]
            for part in range(0, len(places), rows):
                chosen = places[part : part + rows]
                inside = self.text_group[chosen] - start
                whole = len(chosen) == len(scores) and bool((inside[1:] > inside[:-1]).all())
                for look in looks:
                    look(scores if whole else scores[inside], chosen)


def _groups(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Number of each row's content (N,), by first appearance, and the first row of each."""
    # Adding 0 turns -0.0, which equals 0.0, into it.
    data = (rows + 0.0).numpy()
    seen: dict[bytes, int] = {}
    group = torch.tensor([seen.setdefault(row.tobytes(), len(seen)) for row in data])
    first = torch.full((len(seen),), len(rows), dtype=torch.int64)
    first.scatter_reduce_(0, group, torch.arange(len(rows)), "amin")
    return group, first


# --------------------------------------------------------------------------- counting


class _Sides:
    """What is counted under one relation: of each text at once, of each picture bit by bit."""

    def __init__(self, relation: Relation, tiles: _Tiles) -> None:
        self._relation = relation
        texts, pictures = len(tiles.texts), len(tiles.pictures)
        self._of_texts = torch.zeros(3, texts, dtype=torch.float64)
        self._estimate: Tensor | None = None
        if relation.count <= _PAIRS_PER_ROW * (texts + pictures):
            self._estimate = _best_of_pairs(relation, tiles)
        self._margin = _MARGIN
        self._reset(pictures)

    def _reset(self, pictures: int) -> None:
        self._above = torch.zeros(pictures, dtype=torch.float64)
        self._best = torch.full((pictures,), -torch.inf)
        self._near, self._own = _Kept(), _Kept()

    def count(self, scores: Tensor, places: Tensor) -> None:
        """Take in a tile (R, N) of the texts at `places` (R,)."""
        rows, columns = self._relation.pairs(places)
        own = scores[rows, columns]
        self._count_texts(scores, places, rows, own)
        self._best.scatter_reduce_(0, columns, own, "amax")
        if self._estimate is not None:
            self._count_pictures(scores, self._estimate, columns, own)

    def _count_texts(self, scores: Tensor, places: Tensor, rows: Tensor, own: Tensor) -> None:
        best = torch.full((len(scores),), -torch.inf).scatter_reduce_(0, rows, own, "amax")
        if bool(torch.isinf(best).any()):
            raise InvariantError("a query has no positive among the candidates")
        above = _count(scores, best[:, None], torch.gt, 1)
        tied = _count(scores, best[:, None], torch.eq, 1)
        tied_positive = torch.zeros_like(above).index_add_(
            0, rows, (own == best[rows]).to(above.dtype)
        )
        self._of_texts[:, places] = torch.stack([above, tied, tied_positive])

    def _count_pictures(
        self, scores: Tensor, estimate: Tensor, columns: Tensor, own: Tensor
    ) -> None:
        high, low = estimate + self._margin, estimate - self._margin
        above = _count(scores, high, torch.gt, 0)
        within = _count(scores, low, torch.ge, 0) - above
        self._above += above
        chosen = torch.nonzero(within).flatten()
        block = scores[:, chosen]
        row, column = torch.nonzero((block >= low[chosen]) & (block <= high[chosen]), as_tuple=True)
        self._near.add(chosen[column], block[row, column])
        mine = own >= low[columns]
        self._own.add(columns[mine], own[mine])

    def sound(self) -> bool:
        """Whether every picture's best positive was within the margin of its estimate."""
        if self._estimate is None:
            return False
        known = ~torch.isinf(self._best)
        gap = (self._best[known] - self._estimate[known]).abs()
        return bool((gap <= self._margin / 2).all())

    def start_over(self) -> None:
        """Count again, around the scores that the tiles gave."""
        self._estimate, self._margin = self._best, 0.0
        self._reset(len(self._best))

    def of_texts(self) -> Standing:
        """Of the texts, once every tile was counted."""
        return Standing(*self._of_texts)

    def of_pictures(self) -> Standing:
        """Of the pictures, likewise."""
        near, scores = self._near.all()
        own, own_scores = self._own.all()
        best, none = self._best, torch.zeros_like(self._above)
        above = self._above.index_add(0, near, (scores > best[near]).double())
        tied = none.index_add(0, near, (scores == best[near]).double())
        tied_positive = none.index_add(0, own, (own_scores == best[own]).double())
        return Standing(above, tied.clamp(min=1), tied_positive)


class _Kept:
    """Scores of some pictures, tile after tile, in one place that doubles when it is full.

    A small tensor kept of each tile would pin the memory between the tiles' own large ones, which
    then grows with their number.
    """

    def __init__(self) -> None:
        self._size = 0
        self._columns = torch.empty(1024, dtype=torch.int64)
        self._scores = torch.empty(1024)

    def add(self, columns: Tensor, scores: Tensor) -> None:
        """Keep `scores` (P,), float32, of the pictures at `columns` (P,), int64."""
        stop = self._size + len(columns)
        if stop > len(self._columns):
            room = max(stop, 2 * len(self._columns)) - self._size
            before = self.all()
            self._columns, self._scores = (
                torch.cat([part, part.new_empty(room)]) for part in before
            )
        self._columns[self._size : stop] = columns
        self._scores[self._size : stop] = scores
        self._size = stop

    def all(self) -> tuple[Tensor, Tensor]:
        """Every picture and score that was kept, in order."""
        return self._columns[: self._size], self._scores[: self._size]


def _count(scores: Tensor, bound: Tensor, compare: Callable[..., Tensor], dim: int) -> Tensor:
    """Scores that compare as wanted with `bound`, counted along `dim`, as float64."""
    # Ones written as fp32 and summed: ten times as fast as a mask of truth values.
    if scores.shape[dim] >= _MOST_COUNTED:
        return compare(scores, bound).sum(dim).double()
    return compare(scores, bound, out=torch.empty_like(scores)).sum(dim).double()


def _best_of_pairs(relation: Relation, tiles: _Tiles) -> Tensor:
    """About what the best positive of each picture scores (N,); -inf without one."""
    best = torch.full((len(tiles.pictures),), -torch.inf)
    for places in torch.split(torch.arange(len(tiles.texts)), _PAIRS_AT_ONCE):
        rows, columns = (torch.split(part, _PAIRS_AT_ONCE) for part in relation.pairs(places))
        for r, c in zip(rows, columns, strict=True):
            found = torch.linalg.vecdot(tiles.texts[places[r]], tiles.pictures[c])
            best.scatter_reduce_(0, c, found, "amax")
    return best
