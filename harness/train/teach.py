"""A teacher's embeddings of every training sample, made once and stored, view by view.

A run that takes them sees what it would with the teacher beside it, to the rounding of 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.config import RunConfig, Runtime, override
from harness.data import taught
from harness.data.dataset import DataSet
from harness.data.loader import Batch, pairs_of_view
from harness.data.taught import Rows, Stored
from harness.data.tools.jobs import Progress
from harness.errors import ConfigError, DataError
from harness.files import locked
from harness.train.teacher import LoadedTeacher, first_without_number


class TooFewSamples(DataError):
    """More samples are unusable than is allowed."""

    exit_code = 3


def teach(
    teacher: LoadedTeacher,
    content: str,
    data: DataSet,
    config: RunConfig,
    runtime: Runtime,
    *,
    views: int,
    cache: Path,
    precision: str,
    progress: Progress,
) -> Path:
    """Store the embeddings of `views` views with the seed and the crops of `config`; where.

    Parts that are there, whole and without a missing sample, stay as they are.

    Raises:
        ConfigError: an embedding is no number.
        TooFewSamples: more are unusable than `runtime.max_bad_fraction` allows.
    """
    wanted = Stored.of(content, data.fingerprint, config.data, config.seed)
    folder = wanted.folder(cache)
    views = max(views, taught.kept_views(folder, cache))
    sizes = list(taught.part_sizes(len(data.split("train"))))
    ends = list(accumulate(sizes))
    config = override(config, {"model.image.size": teacher.size})
    missing: set[int] = set()
    taught.begin_store(folder)
    with locked(folder / "store"):
        for view in range(views):
            for part, (end, size) in enumerate(zip(ends, sizes, strict=True)):
                places = range(end - size, end)
                lacks = taught.kept_part(folder, view, part, teacher.record)
                if lacks is None or lacks:
                    batches = pairs_of_view(data, config, runtime, view, places)
                    rows = _embedded(teacher, batches, places, precision)
                    lacks = taught.write_part(folder, view, part, rows, teacher.record)
                missing |= {places[place] for place in lacks}
                _bound(data, missing, runtime)
                progress(view * ends[-1] + end, views * ends[-1])
        about: dict[str, Any] = {"samples": ends[-1], "views": views, "scale": teacher.scale}
        about |= {"record": teacher.record, "missing": sorted(missing)}
        taught.finish_store(folder, wanted, about)
    return folder


def _embedded(
    teacher: LoadedTeacher, batches: Iterator[Batch], places: Sequence[int], precision: str
) -> Rows:
    """(N, 2, D) of the samples at `places`; NaN of those that cannot be used."""
    found: list[Rows] = []
    for batch in batches:
        assert batch.lesson is not None  # asked for
        pair = teacher.embed(batch.pictures, batch.lesson.captions, precision)
        rows = torch.stack(pair, dim=1).cpu()
        own = batch.lesson.places.numpy()
        if (row := first_without_number(rows)) is not None:
            raise ConfigError(
                f"{teacher.name} gives an embedding that is no number (NaN or infinite) of "
                f"training sample {own[row]}, {batch.lesson.captions[row][:60]!r}"
            )
        asked = np.array(places[sum(map(len, found)) :][: len(rows)])
        halves = rows.numpy().astype(np.float16)
        halves[own != asked] = np.nan  # another sample in the place of one that cannot be used
        found.append(halves)
    return np.concatenate(found)


def _bound(data: DataSet, missing: set[int], runtime: Runtime) -> None:
    of = len(data.split("train"))
    if len(missing) > runtime.max_bad_fraction * of:
        first = data.split("train").images[min(missing)]
        raise TooFewSamples(
            f"{len(missing)} of {of} training samples cannot be used, more than "
            f"--max-bad-fraction {runtime.max_bad_fraction:g} allows; the first: {first}"
        )
