"""Rankings judged by labels of what is relevant, many answers a query: mAP@R, R-Precision, R@k.

Equal scores count by expectation over their order.  Pure functions of embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.class_sets import SPLIT
from harness.errors import DataError
from harness.evaluate.embed import Pictures
from harness.evaluate.scoring.job import Job
from harness.evaluate.scoring.ranking import expected_hits
from harness.evaluate.suites.relevance import RelevanceSet
from harness.metrics import IMAGE_RETRIEVAL, KS, TEXT_RETRIEVAL, items_of_way, recall_chance
from harness.metrics.relevance import MAP_AT_R, R_PRECISION, RELEVANCE, Related, at_k, kind_of

Relevant = Sequence[NDArray[np.int64]]


def score_relevance(job: Job, name: str, data: RelevanceSet, pictures: Pictures) -> dict[str, int]:
    """Compute every metric of labels of relevance; direction -> number of queries.

    Args:
        pictures: those of `data` that could be read; what is relevant to others is left out.

    Raises:
        DataError: no query is left.
    """
    row = {place: at for at, place in enumerate(pictures.kept)}
    images = data.split(SPLIT).images
    job.found.note_images(name, (images[place] for place in row))
    texts = job.texts(data.captions)
    readable = {c: c for c, owner in enumerate(data.owners) if owner in row}
    column = {c: at for at, c in enumerate(c for c in data.pool if c in readable)}
    down = _those_left(data.images_of_caption, readable, row)
    up = _those_left(data.captions_of_image, row, column)
    if not down or not up:
        raise DataError(f"every query of {name!r} is unreadable: nothing is left to evaluate")
    directions = {
        IMAGE_RETRIEVAL: (texts[list(down)], pictures.embeddings, list(down.values())),
        TEXT_RETRIEVAL: (pictures.embeddings[list(up)], texts[list(column)], list(up.values())),
    }
    owners = {IMAGE_RETRIEVAL: [row[data.owners[c]] for c in down], TEXT_RETRIEVAL: list(up)}
    found = Related({}, {})
    for way, (queries, pool, relevant) in directions.items():
        found.values.update({kind_of(way, w): v for w, v in judge(queries, pool, relevant).items()})
        levels = chances(relevant, len(pool))
        found.chance.update({kind_of(way, what): level for what, level in levels.items()})
        job.found.outcomes[f"{name}/{items_of_way(way)}"] = np.array(owners[way], dtype=np.int32)
    job.found.compute(name, RELEVANCE, found)
    return {way: len(relevant) for way, (_, _, relevant) in directions.items()}


def _those_left(
    relevant: Mapping[int, Sequence[int]], query: Mapping[int, int], answer: Mapping[int, int]
) -> dict[int, NDArray[np.int64]]:
    """The same by rows of what could be read; a query without an answer is none."""
    rows = {
        query[asked]: np.array(sorted(answer[each] for each in given if each in answer), np.int64)
        for asked, given in relevant.items()
        if asked in query
    }
    return {asked: given for asked, given in rows.items() if len(given)}


def judge(queries: Tensor, pool: Tensor, relevant: Relevant) -> dict[str, NDArray[np.float64]]:
    """What each query's ranking of the pool is worth: name -> (Q,).

    Args:
        queries: unit-norm (Q, D).
        pool: unit-norm (M, D).
        relevant: rows of the pool that each query is to find, one at least.
    """
    at_r = np.zeros((len(relevant), 2))

    def positives(chunk: slice) -> Tensor:
        mask = torch.zeros(len(range(*chunk.indices(len(relevant)))), len(pool), dtype=torch.bool)
        for place, rows in enumerate(relevant[chunk]):
            mask[place, torch.from_numpy(rows)] = True
        return mask

    def look(chunk: slice, scores: Tensor) -> None:
        for place, (row, right) in enumerate(zip(scores.numpy(), relevant[chunk], strict=True)):
            at_r[chunk.start + place] = precision_at_r(row, right)

    hits = expected_hits(queries, pool, positives, KS, look).numpy()
    found = {at_k(k): hits[:, place] for place, k in enumerate(KS)}
    return {MAP_AT_R: at_r[:, 0], R_PRECISION: at_r[:, 1], **found}


def precision_at_r(
    scores: NDArray[np.floating], relevant: NDArray[np.int64]
) -> tuple[float, float]:
    """Average precision at R, and precision at R, of one query, R the number of `relevant`.

    Of t equal scores, p of them relevant, that begin after b others with h relevant, the j-th is
    relevant with probability p / t; then h + 1 + (j - 1)(p - 1) / (t - 1) of the first b + j are,
    in expectation.
    """
    r = len(relevant)
    right = np.zeros(len(scores), bool)
    right[relevant] = True
    inside = np.flatnonzero(scores >= np.partition(scores, -r)[-r])
    order = inside[np.argsort(-scores[inside], kind="stable")]
    levels, starts, sizes = np.unique(-scores[order], return_index=True, return_counts=True)
    average = precision = 0.0
    above = 0
    for place in range(len(levels)):
        b, t = int(starts[place]), int(sizes[place])
        p = int(right[order[b : b + t]].sum())
        if p:
            j = np.arange(1, min(t, r - b) + 1)
            before = above + 1 + (j - 1) * (p - 1) / max(1, t - 1)
            average += float((p / t * before / (b + j)).sum())
            precision += len(j) * p / t
        above += p
    return average / r, precision / r


def chances(relevant: Relevant, pool: int) -> dict[str, float]:
    """Name -> mean over queries in a random order of the pool."""
    counts = [len(rows) for rows in relevant]
    equal = np.zeros(pool)
    by_count = {r: precision_at_r(equal, np.arange(r)) for r in set(counts)}
    both = np.array([by_count[r] for r in counts]).mean(axis=0)
    recalls = {at_k(k): recall_chance(pool, counts, k) for k in KS}
    return {MAP_AT_R: float(both[0]), R_PRECISION: float(both[1]), **recalls}
