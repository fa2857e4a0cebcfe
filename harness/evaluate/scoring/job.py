"""What stays the same throughout one evaluation, and what is gathered on the way.

Knows nothing of where numbers are kept.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from harness.config import Evaluate, Runtime
from harness.data.dataset import DataSet, Split
from harness.evaluate.embed import (
    Pictures,
    Share,
    alone,
    embed_images,
    embed_texts,
    precision_of,
)
from harness.metrics import Value, metrics_for

if TYPE_CHECKING:
    from harness.evaluate.model import Encoders


@dataclass
class Findings:
    """Metrics and outcomes as they are gathered."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, np.ndarray] = field(default_factory=dict)

    def compute(self, place: str, needs: str, outcome: object) -> None:
        """Every metric that there is of an outcome: `Retrieved` or `Classified`, as `needs`."""
        for metric in metrics_for(needs):
            value = metric.compute(outcome)
            self.metrics[f"{place}/{metric.kind}"] = value.recorded(metric.described())
            for name, items in value.items.items():
                self.outcomes[f"{place}/{name}"] = _compact(items)

    def note_images(self, place: str, names: Iterable[str]) -> None:
        """Keep which pictures the items of a place are of."""
        self.outcomes[f"{place}/items/images"] = np.array([*names], dtype=np.str_)

    def leave_out(self, place: str, needs: str, facts: Mapping[str, Any], reason: str) -> None:
        """Every metric of `needs` without a value, and why."""
        for metric in metrics_for(needs):
            missing = Value(None, metric.count(facts), reason=reason)
            self.metrics[f"{place}/{metric.kind}"] = missing.recorded(metric.described())


@dataclass(frozen=True)
class Job:
    """What stays the same throughout one evaluation; `share` says who embeds what."""

    model: Encoders
    settings: Evaluate
    runtime: Runtime
    found: Findings
    by_batch: bool = False
    share: Share = alone

    def pictures(self, data: DataSet, split: Split) -> Pictures:
        """Embeddings of the pictures of a split."""
        return embed_images(
            self.model,
            data,
            split.images,
            self.settings,
            self.runtime,
            by_batch=self.by_batch,
            share=self.share,
        )

    @property
    def precision(self) -> str:
        """Of the encoders, on the device where they are."""
        return precision_of(self.model, self.settings)

    @property
    def logit_scale(self) -> float:
        """The model's own factor on cosines."""
        return float(self.model.logit_scale.detach().exp())

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit-norm embeddings (N, D) of N texts."""
        return embed_texts(self.model, texts, self.settings, self.share)


# --------------------------------------------------------------------------- outcomes


def _compact(values: np.ndarray) -> np.ndarray:
    """uint8 when every outcome is 0 or 1, float32 when one is fractional; integers as they are."""
    if np.issubdtype(values.dtype, np.integer):
        return values
    whole = bool(np.isin(values, (0.0, 1.0)).all())
    return values.astype(np.uint8 if whole else np.float32)


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as a compressed .npz, the same bytes for the same arrays (no time is stored)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, arrays[name], allow_pickle=False)
    return buffer.getvalue()
