"""The values of steps: read from the device, refused if not finite, summed for the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.config import Train
from harness.data.account import Problem
from harness.errors import DivergedError
from harness.objectives.terms import Loss
from harness.train.optimiser import learning_rate

_READ_EVERY_ON_GPU = 50
"""Steps between two readings on a GPU, each of which waits for the device."""


@dataclass
class _Sums:
    """Over the steps since the last line of the log."""

    steps: int = 0
    loss: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    weighted: dict[str, float] = field(default_factory=dict)
    grad_norm: float = 0.0


class Meter:
    """What the steps since the last line of metrics.jsonl came to.

    Attributes:
        last_loss: total of the last step that was read; None before the first.
    """

    def __init__(self, train: Train, device: torch.device) -> None:
        self._train = train
        self._every = 1 if device.type == "cpu" else _READ_EVERY_ON_GPU
        self._pending: list[tuple[int, Loss, Tensor]] = []
        self._sums = _Sums()
        self.last_loss: float | None = None

    def add(self, step: int, loss: Loss, grad_norm: Tensor) -> None:
        """Note the values of a step, the number of which counts from 1; read them if it is time."""
        self._pending.append((step, loss, grad_norm))
        if len(self._pending) >= self._every:
            self.read()

    def read(self) -> None:
        """Read what is pending; DivergedError at the first that is not finite."""
        for (step, loss, _), values in zip(self._pending, self._numbers(), strict=True):
            total, length, *of_terms = values
            raw = dict(zip(loss.raw, of_terms, strict=False))
            weighted = dict(zip(loss.weighted, of_terms[len(raw) :], strict=True))
            self._refuse_infinite(step, {**raw, "total": total, "gradient norm": length})
            sums = self._sums
            sums.steps += 1
            sums.loss += total
            sums.grad_norm += length
            sums.terms = {k: sums.terms.get(k, 0.0) + v for k, v in raw.items()}
            sums.weighted = {k: sums.weighted.get(k, 0.0) + v for k, v in weighted.items()}
            self.last_loss = total
        self._pending = []

    def _numbers(self) -> list[list[float]]:
        """Total, gradient norm and terms of each pending step, read from the device at once."""
        rows = [
            torch.stack([loss.total, norm, *loss.raw.values(), *loss.weighted.values()])
            for _, loss, norm in self._pending
        ]
        numbers: list[list[float]] = torch.stack(rows).tolist() if rows else []
        return numbers

    def _refuse_infinite(self, step: int, values: Mapping[str, float]) -> None:
        for what, value in values.items():
            if not abs(value) < float("inf"):
                seen = step * self._train.batch_size
                raise DivergedError(
                    f"{what} is {value} at step {step} ({seen} samples seen, "
                    f"lr {learning_rate(self._train, seen):.3g})"
                )

    def take_means(self) -> dict[str, Any]:
        """The means over the steps read since this was last asked for."""
        sums, self._sums = self._sums, _Sums()
        n = max(1, sums.steps)
        return {
            "loss": sums.loss / n,
            "terms": {name: total / n for name, total in sums.terms.items()},
            "weighted": {name: total / n for name, total in sums.weighted.items()},
            "grad_norm": sums.grad_norm / n,
        }

    # ---- in a checkpoint, so that no line of the log is lost

    def state(self) -> dict[str, Any]:
        """What `take_up` wants again."""
        return asdict(self._sums)

    def take_up(self, sums: Mapping[str, Any], last_loss: float | None) -> None:
        """Go on from the `state` of a checkpoint."""
        given = {name: value for name, value in sums.items() if value is not None}
        self._sums, self.last_loss = _Sums(**given), last_loss


@dataclass(frozen=True)
class Trained:
    """What a finished training says of itself; seconds are summed over attempts."""

    samples_seen: int
    steps: int
    epochs: float
    seconds: float
    wait_seconds: float
    parts: Mapping[str, float] | None
    """Seconds of `forward` (with the loss) and `backward`; None where no clock could see them."""
    final_loss: float
    problems: tuple[Problem, ...]
