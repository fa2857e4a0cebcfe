"""Choices scored: cosines of every picture and caption of an item, and what they are worth.

Beside them the same texts without the pictures: every picture's embedding is replaced by the mean
of all, so that what is left is what the captions give away by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from harness.errors import DataError
from harness.evaluate.suites.records import ChoiceItem
from harness.metrics.choice import (
    BLIND_TEXT_SCORE,
    CHOICE,
    GROUP_SCORE,
    IMAGE_SCORE,
    TEXT_SCORE,
    Chosen,
    credit,
)

if TYPE_CHECKING:
    from harness.evaluate.embed import Pictures
    from harness.evaluate.scoring.job import Job

Scores = NDArray[np.float32]


def score_choices(
    job: Job, name: str, images: Sequence[str], pictures: Pictures, items: Sequence[ChoiceItem]
) -> int:
    """Compute every metric of choices; returns how many items had all of their pictures.

    Args:
        images: those that were asked for.
        pictures: embeddings of those that could be read.

    Raises:
        DataError: no item has all of its pictures.
    """
    place = {images[at]: row for row, at in enumerate(pictures.kept)}
    whole = [item for item in items if all(image in place for image in item.images)]
    if not whole:
        raise DataError(f"every item of {name!r} has an unreadable picture: nothing is left")
    image = pictures.embeddings
    blind = F.normalize(image.mean(0, keepdim=True), dim=-1)
    texts = job.texts([text for item in whole for text in item.captions])
    rows, seen = [], 0
    for item in whole:
        own = texts[seen : seen + len(item.captions)].T
        seen += len(item.captions)
        scores = image[[place[name] for name in item.images]] @ own
        rows.append((item, scores.numpy(), (blind @ own).numpy()))
    levels = [chances(item) for item in whole]
    kinds = [kind for kind in levels[0] if all(kind in each for each in levels)]
    credits = [credits_of(item, scores, unseen) for item, scores, unseen in rows]
    found = Chosen(
        {kind: np.array([each[kind] for each in credits]) for kind in kinds},
        {kind: np.array([each[kind] for each in levels]) for kind in kinds},
    )
    job.found.note_images(name, place)
    owners = [place[item.images[0]] for item in whole]
    job.found.outcomes[f"{name}/items"] = np.array(owners, dtype=np.int32)
    job.found.compute(name, CHOICE, found)
    return len(whole)


def credits_of(item: ChoiceItem, scores: Scores, blind: Scores) -> dict[str, float]:
    """Kind -> credit of one item.

    Args:
        scores: (pictures, captions).
        blind: (1, captions), of the mean picture.
    """
    if len(item.images) == 1:
        return {
            TEXT_SCORE: credit(*_halves(scores[0], item.right)),
            BLIND_TEXT_SCORE: credit(*_halves(blind[0], item.right)),
        }
    own = np.diag(scores)
    others = scores[~np.eye(len(scores), dtype=bool)]
    return {
        TEXT_SCORE: _every(scores),
        IMAGE_SCORE: _every(scores.T),
        GROUP_SCORE: credit(own.tolist(), others.tolist())
        if len(scores) == 2
        else _every(scores) * _every(scores.T),
        BLIND_TEXT_SCORE: _every(np.repeat(blind, len(scores), axis=0)),
    }


def _halves(row: Scores, right: int) -> tuple[list[float], list[float]]:
    return row[:right].tolist(), row[right:].tolist()


def _every(scores: Scores) -> float:
    """Credit of the diagonal in every row: ties in two rows are broken independently."""
    return float(
        np.prod([credit([row[i]], np.delete(row, i).tolist()) for i, row in enumerate(scores)])
    )


def chances(item: ChoiceItem) -> dict[str, float]:
    """Kind -> probability that random scores are all right."""
    captions = len(item.captions)
    if len(item.images) == 1:
        alone = credit([0.0] * item.right, [0.0] * (captions - item.right))
        return {TEXT_SCORE: alone, BLIND_TEXT_SCORE: alone}
    equal = np.zeros((captions, captions), np.float32)
    return credits_of(item, equal, equal[:1])
