"""How embeddings of one kind are spread over the sphere: uniformity, and directions in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.metrics.base import GEOMETRY, Embedded, Metric, Value, register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS = 1024
"""Embeddings compared with all others at once."""


class Spread(Metric):
    """Of the pictures (`image`) or the captions (`text`) alone."""

    needs = GEOMETRY
    has_chance = False

    def __init__(self, kind: str, title: str, of: str) -> None:
        self.of = of
        self.kind = f"{kind}_{of}"
        self.title = f"{title}, {'pictures' if of == 'image' else 'captions'}"

    def count(self, facts: Mapping[str, Any]) -> int:
        """See Metric: pictures or captions."""
        return int(facts["images" if self.of == "image" else "captions"])

    def compute(self, found: Embedded) -> Value:
        """The value of `found`; none where all embeddings are one."""
        rows: NDArray[np.float32] = getattr(found, self.of)
        if (rows == rows[:1]).all():
            return Value(None, len(rows), reason="one embedding, and two are needed")
        return Value(self.value_of(rows), len(rows))

    def value_of(self, rows: NDArray[np.float32]) -> float:
        """The value of embeddings (N, D)."""
        raise NotImplementedError


class Uniformity(Spread):
    """Logarithm of the mean Gaussian potential of all pairs (Wang and Isola 2020), t = 2."""

    unit = "nats"
    higher_is_better = False
    least, most = -8.0, 0.0
    rules = (("uniformity", "log of the mean of exp(-2 squared distance) over all pairs"),)

    def value_of(self, rows: NDArray[np.float32]) -> float:
        """See Spread."""
        import numpy as np

        total = 0.0
        for start in range(0, len(rows), _ROWS):
            cosines = (rows[start : start + _ROWS] @ rows.T).astype(np.float64)
            np.fill_diagonal(cosines[:, start:], -np.inf)
            total += float(np.exp(4 * np.minimum(cosines, 1.0) - 4).sum())
        return min(0.0, float(np.log(total / len(rows) / (len(rows) - 1))))


class EffectiveRank(Spread):
    """Exponential of the entropy of the normalised singular values (Roy and Vetterli 2007)."""

    unit = "directions"
    most = None
    rules = (("effective_rank", "of the embeddings without their mean"),)

    def value_of(self, rows: NDArray[np.float32]) -> float:
        """See Spread."""
        import numpy as np

        centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
        values = np.sqrt(np.linalg.eigvalsh(centred.T @ centred).clip(min=0))
        share = values[values > 0] / values.sum()
        return float(np.exp(-(share * np.log(share)).sum()))


for _of in ("image", "text"):
    register(Uniformity("uniformity", "uniformity", _of))
    register(EffectiveRank("effective_rank", "effective rank", _of))
