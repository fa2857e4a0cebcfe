"""What the picture tower's features tell of classes by themselves: neighbours and linear probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.metrics.accuracy import accuracy_chance
from harness.metrics.base import PROBE, Metric, Value, register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEIGHBOURS, LINEAR = "knn", "linear_probe"
#: Training pictures a class of the probes that see few.
SHOTS = (1, 4, 16)


def few_shot(shots: int) -> str:
    """Kind of the linear probe that sees so many pictures a class."""
    return f"{LINEAR}_{shots}shot"


@dataclass(frozen=True)
class Probed:
    """The outcomes of one task.

    Attributes:
        credit: kind -> float64 (N,), probability that the true class is answered: over the order of
            equal scores, and over the draws of training pictures.
        classes: number of classes.
    """

    credit: Mapping[str, NDArray[np.float64]]
    classes: int


class ProbeAccuracy(Metric):
    """Share of test pictures whose class a probe answers."""

    needs = PROBE
    rules = (
        (
            PROBE,
            "trained on the labelled pictures of train alone; C of logistic regression is the one "
            "of 1e-2 to 1e4 that validates best; few shots: the mean over three draws, the same "
            "for all runs; neighbours: the 20 nearest, weighed by exp(cosine / 0.07)",
        ),
    )

    def __init__(self, kind: str, title: str, *, shown: bool = True) -> None:
        self.kind = self.per_item = kind
        self.title, self.shown = title, shown

    def compute(self, found: Probed) -> Value:
        """The value of `found`."""
        return Value.mean(self.kind, found.credit[self.kind], accuracy_chance(found.classes))


register(ProbeAccuracy(NEIGHBOURS, "kNN acc@1"))
register(ProbeAccuracy(LINEAR, "linear probe acc@1"))
for _shots in SHOTS:
    _title = f"linear probe acc@1, {_shots} shot{'s' * (_shots > 1)}"
    register(ProbeAccuracy(few_shot(_shots), _title, shown=False))
