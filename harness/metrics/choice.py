"""Choosing among a few captions of a picture, or among a few pictures of a caption.

Scores of Winoground (Thrush et al. 2022): all captions right, all pictures right, both.  Credit is
by expectation over uniformly random order of equal scores, so that a collapsed model has chance and
not the place of the right answer in a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.metrics.base import Metric, Value, register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHOICE = "choice"
TEXT_SCORE, IMAGE_SCORE, GROUP_SCORE = "text_score", "image_score", "group_score"
BLIND_TEXT_SCORE = "blind_text_score"
_ONE_PICTURE = "an item has one picture, so there is no choice among pictures"


@dataclass(frozen=True)
class Chosen:
    """The outcomes of one test set of choices.

    Attributes:
        credit: kind -> float64 (N,), one an item; without what the items do not offer.
        chance: kind -> float64 (N,), of random scores.
    """

    credit: Mapping[str, NDArray[np.float64]]
    chance: Mapping[str, NDArray[np.float64]]


def credit(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Probability that all of `right` come before all of `wrong` by score, over order of ties."""
    best = max(wrong, default=-math.inf)
    least = min(right)
    if least != best:
        return float(least > best)
    ties = sum(score == best for score in right), sum(score == best for score in wrong)
    return 1 / math.comb(sum(ties), ties[0])


class ChoiceMetric(Metric):
    """Mean credit of one kind over items."""

    needs = CHOICE
    rules = (
        (
            CHOICE,
            "an item counts where every right answer scores above every wrong one; equal scores "
            "count by expectation over their order",
        ),
    )

    def __init__(self, kind: str, title: str, at_most: tuple[str, ...] = ()) -> None:
        self.kind = self.per_item = kind
        self.title, self.at_most = title, at_most

    def compute(self, found: Chosen) -> Value:
        """The mean over items; none where an item offers no such choice."""
        if self.kind not in found.credit:
            items = len(next(iter(found.credit.values())))
            return Value(None, items, reason=_ONE_PICTURE)
        chance = float(found.chance[self.kind].mean())
        return Value.mean(self.kind, found.credit[self.kind], chance)

    def count(self, facts: Mapping[str, Any]) -> int:
        """See Metric: items."""
        return int(facts["items"])


register(ChoiceMetric(TEXT_SCORE, "text score"))
register(ChoiceMetric(IMAGE_SCORE, "image score"))
register(ChoiceMetric(GROUP_SCORE, "group score", at_most=(TEXT_SCORE, IMAGE_SCORE)))
register(ChoiceMetric(BLIND_TEXT_SCORE, "blind text score"))
