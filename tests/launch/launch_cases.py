"""Hand-made runs to launch, and what the fakes in shadow/ leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.config import RunConfig, Train
from harness.plan import Step
from harness.record import Status, Store
from harness.space import Run

SHADOW = Path(__file__).parent / "shadow"


def runs_of(labels: Sequence[str], **train: object) -> list[Run]:
    """One run a label; the first has the most samples and so is the longest."""
    counts = range(1000 + len(labels), 1000, -1)
    return [
        Run(label, {}, 0, RunConfig(train=Train(samples=samples, **train)))
        for label, samples in zip(labels, counts, strict=True)
    ]


def trained(store: Store) -> list[str]:
    """Every training that came to its end, in order."""
    file = store.root / "trained.txt"
    return file.read_text().splitlines() if file.exists() else []


def status(store: Store, step: Step) -> Status:
    return store.run_dir(step.run.key).status(step.run.config.evaluation_key)
