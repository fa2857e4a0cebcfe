"""Main effects and two-way interactions of points that form a full or partial factorial.

Each is a contrast of the points' means, so the same model judges it that judges every other.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.stats.layout import Array, Contrast

Levels = Mapping[int, Mapping[str, Hashable]]
"""Point -> axis -> level."""


@dataclass(frozen=True)
class Effect:
    """A change of one axis averaged over the others, or how two such changes depend on each other.

    A main effect has one part, an interaction two.
    """

    parts: tuple[tuple[str, Hashable, Hashable], ...]
    """(axis, level, level it is compared with)."""
    contrast: Contrast

    @property
    def axes(self) -> tuple[str, ...]:
        """Its axes."""
        return tuple(axis for axis, _, _ in self.parts)


def effects_of(levels: Levels, reference: Mapping[str, Hashable]) -> tuple[Effect, ...]:
    """Every main effect and every two-way interaction that the points allow to be estimated.

    A level that a single point has (a baseline outside the crossed block) is left out with its
    point.  Where the crossing is full, a main effect is the difference of plain means over all
    points of a level; where it is partial, that of a linear model of the points.  Nothing where no
    two axes are crossed.

    Args:
        levels: of every point, all with the same axes.
        reference: axis -> the level that others are compared with; else the first level.
    """
    block = _crossed(levels)
    order = {axis: _order(block, axis, reference.get(axis)) for axis in _axes(block)}
    order = {axis: found for axis, found in order.items() if len(found) > 1}
    if len(order) < 2:
        return ()
    columns = {axis: _coded(block, axis, found) for axis, found in order.items()}
    ones = np.ones((len(block), 1))
    design = np.hstack([ones, *columns.values()])
    if np.linalg.matrix_rank(design) < design.shape[1] or len(block) == design.shape[1]:
        return ()
    pairs: dict[tuple[str, str], Array] = {}
    for pair in itertools.combinations(order, 2):
        extra = _products(*(columns[axis] for axis in pair))
        wider = np.hstack([design, extra])
        if np.linalg.matrix_rank(wider) == wider.shape[1]:
            pairs[pair], design = extra, wider
    rows = np.linalg.pinv(design)
    starts = np.cumsum([1, *(each.shape[1] for each in [*columns.values(), *pairs.values()])])
    places = dict(zip([*columns, *pairs], starts.tolist(), strict=False))
    points = list(block)
    found = [
        Effect(
            ((axis, level, levels_[0]),),
            _contrast(points, _level_row(rows, places[axis], len(levels_), number)),
        )
        for axis, levels_ in order.items()
        for number, level in enumerate(levels_)
        if number
    ]
    for pair in pairs:
        found += _interactions(pair, order, rows, places[pair], points)
    return tuple(found)


def _interactions(
    pair: tuple[str, str],
    order: Mapping[str, Sequence[Hashable]],
    rows: Array,
    start: int,
    points: Sequence[int],
) -> list[Effect]:
    first, second = (order[axis] for axis in pair)
    width = len(second) - 1
    table = rows[start : start + (len(first) - 1) * width].reshape(len(first) - 1, width, -1)
    full = np.stack([_all_levels(row) for row in table])
    full = np.concatenate([full, -full.sum(axis=0, keepdims=True)])
    return [
        Effect(
            ((pair[0], first[i], first[0]), (pair[1], second[j], second[0])),
            _contrast(points, full[i, j] - full[0, j] - full[i, 0] + full[0, 0]),
        )
        for i in range(1, len(first))
        for j in range(1, len(second))
    ]


def _all_levels(rows: Array) -> Array:
    """Sum-to-zero coding leaves out the last level, which is minus the others' sum."""
    return np.concatenate([rows, -rows.sum(axis=0, keepdims=True)])


def _level_row(rows: Array, start: int, levels: int, number: int) -> Array:
    every = _all_levels(rows[start : start + levels - 1])
    found: Array = every[number] - every[0]
    return found


def _contrast(points: Sequence[int], weights: Array) -> dict[int, float]:
    cleaned = np.where(np.abs(weights) < 1e-9, 0.0, weights)
    return {point: float(w) for point, w in zip(points, cleaned, strict=True) if w}


def _axes(levels: Levels) -> list[str]:
    return list(next(iter(levels.values()), {}))


def _crossed(levels: Levels) -> dict[int, Mapping[str, Hashable]]:
    """Without the points that alone have some level of an axis with more than two."""
    block = dict(levels)
    while True:
        counts = {axis: Counter(each[axis] for each in block.values()) for axis in _axes(block)}
        alone = [
            point
            for point, each in block.items()
            if any(counts[a][each[a]] == 1 and len(counts[a]) > 1 for a in each)
        ]
        if not alone or len(alone) == len(block):
            return {} if alone else block
        block = {point: each for point, each in block.items() if point not in alone}


def _order(levels: Levels, axis: str, reference: Hashable) -> list[Hashable]:
    found = list(dict.fromkeys(each[axis] for each in levels.values()))
    return sorted(found, key=lambda level: level != reference)


def _coded(levels: Levels, axis: str, order: Sequence[Hashable]) -> Array:
    """Sum-to-zero coding (points x levels - 1) of one axis."""
    rows = [order.index(each[axis]) for each in levels.values()]
    code = np.vstack([np.eye(len(order) - 1), -np.ones((1, len(order) - 1))])
    return code[rows]


def _products(first: Array, second: Array) -> Array:
    found: Array = np.einsum("pi,pj->pij", first, second).reshape(len(first), -1)
    return found
