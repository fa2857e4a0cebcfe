"""Class weights kept on disk by text tower and prompt templates, a row a class name.

The sets of ImageNet share their rows, whichever is evaluated first and in whichever process: every
file is written once under a name of its own and never changed, so that no lock is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.config import content_key
from harness.data.classnames import prompts
from harness.evaluate.scoring.job import npz
from harness.evaluate.scoring.zeroshot import classifier
from harness.files import drop_leftovers, read_npz, read_regular, write_atomic


class TextCache:
    """Weights of zero-shot classifiers of one text tower.

    Args:
        folder: where caches are kept.
        text_tower: SHA-256 of the tower, its configuration and its tokenizer.
        precision: of the encoder, and the kind of device it ran on.
        embed: unit-norm embeddings (N, D) of N texts.
    """

    def __init__(
        self,
        folder: Path,
        text_tower: str,
        precision: str,
        embed: Callable[[Sequence[str]], Tensor],
    ) -> None:
        self._folder = folder / "texts" / f"{text_tower[:32]}-{precision}"
        self._embed = embed

    def weights(self, classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Unit-norm weights (C, D): each prompt normalised, averaged over templates, normalised.

        Only class names whose rows are not kept are embedded.
        """
        folder = self._folder / content_key(list(templates), digits=32)
        rows = _kept(folder, set(classnames))
        missing = [name for name in dict.fromkeys(classnames) if name not in rows]
        if missing:
            made = classifier(self._embed(prompts(missing, templates)), len(missing))
            _keep(folder, missing, made)
            rows |= dict(zip(missing, made, strict=True))
        return torch.stack([rows[name] for name in classnames])


def _keep(folder: Path, names: Sequence[str], weights: Tensor) -> None:
    data = npz({"names": np.array(names, dtype=np.str_), "weights": weights.numpy()})
    drop_leftovers(folder)
    write_atomic(folder / f"{content_key(list(names), digits=32)}.npz", data)
    sha256 = hashlib.sha256(data).hexdigest()
    write_atomic(folder / f"{content_key(list(names), digits=32)}.sha256", sha256.encode())


def _kept(folder: Path, wanted: set[str]) -> dict[str, Tensor]:
    """Name -> weights of the wanted names that are there; a torn file is passed over."""
    rows: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.npz")):
        try:
            kept = read_npz(file, read_regular(file.with_suffix(".sha256"), 100).decode())
            names, weights = kept["names"].tolist(), kept["weights"]
        except (OSError, ValueError, KeyError):
            continue  # damaged, or of an earlier version: made again
        if len(names) == len(weights):
            rows |= {
                name: torch.from_numpy(row)
                for name, row in zip(names, weights, strict=True)
                if name in wanted and name not in rows
            }
    return rows
