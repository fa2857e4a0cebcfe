"""A run's batches with pictures that other runs may have decoded, as the loader asks for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from harness.data.shared import SharedBatches

if TYPE_CHECKING:
    from harness.data.loader import Batch, _Address, _Sample, _Samples


class SharedSamples(Dataset[Any]):
    """Batches by their steps, with pictures that other runs of this machine may have decoded."""

    def __init__(self, samples: _Samples, folder: Path) -> None:
        self._samples = samples
        self._shared = SharedBatches(folder, samples.spec, len(samples))

    def __getitems__(self, wanted: Mapping[int, list[_Address]]) -> tuple[list[_Sample], int]:
        """Of the first step in `wanted`; the others are this process's next ones."""
        before = self._shared.made
        seen = self._shared.get([*wanted], lambda step: self._samples.pictured(wanted[step]))
        first = next(iter(wanted.values()))
        return self._samples.with_texts(first, seen), self._shared.made - before

    def told(self, stream: Iterator[Batch]) -> Iterator[Batch]:
        """The stream, and in the end how much of it was decoded here."""
        seen = made = 0
        try:
            for batch in stream:
                seen, made = seen + 1, made + batch.made
                yield batch
        finally:
            self._shared.close()
            print(f"shared pictures: {made} batches decoded of {seen} seen", file=sys.stderr)
