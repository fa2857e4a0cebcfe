"""What a batch shows, all that decides it, and its bytes on file.

Two runs whose `PictureSpec` is equal see the same pictures at the same step.  Torch-free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from harness.config import Data, RunConfig, Runtime, content_key
from harness.data.account import Problem


@dataclass(frozen=True)
class PictureSpec:
    """All that decides the pictures of a run's batches, and all that those who make them are told.

    Attributes:
        size: of the pictures, in pixels; `sizes`: of those for teachers.
        data: where the pictures are from and how they are decoded and cropped.
        fingerprint: of the content.
        viewers: the terms of the loss that look at further views, by name.
        views: epochs whose draws are all that is seen; None: each has its own.
        known_bad: pictures that are not to be tried, with reasons.
        rank, processes: the share of each batch that is made.
    """

    seed: int
    batch_size: int
    size: int
    data: Data
    fingerprint: str
    max_pixels: int
    viewers: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    views: int | None = None
    known_bad: Mapping[str, str] = field(default_factory=dict)
    rank: int = 0
    processes: int = 1

    @classmethod
    def of(cls, config: RunConfig, runtime: Runtime, **others: Any) -> PictureSpec:
        """Of a run; `others` are what its configuration does not tell."""
        active = config.objective.active.items()
        return cls(
            config.seed,
            config.train.batch_size,
            config.model.image.size,
            config.data,
            max_pixels=runtime.max_pixels,
            viewers={name: term for name, term in active if term.further_views},
            processes=runtime.processes,
            **{"fingerprint": config.data.fingerprint or "", **others},
        )

    @cached_property
    def key(self) -> str:
        """The same for two runs only if each batch of one has the pictures of the other's."""
        tree = {each.name: getattr(self, each.name) for each in fields(self)}
        tree["data"] = self.data.model_dump(mode="json")
        tree["viewers"] = {
            name: [type(term).__qualname__, term.model_dump(mode="json")]
            for name, term in self.viewers.items()
        }
        return content_key(tree, digits=32)

    @property
    def rows(self) -> int:
        """Samples of a batch that are made."""
        return self.batch_size // self.processes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of each block of uint8 pixels of a batch."""
        of_views = {
            f"views {name}": (self.rows, term.further_views, self.size, self.size, 3)
            for name, term in self.viewers.items()
        }
        of_teachers = {f"size {size}": (self.rows, size, size, 3) for size in self.sizes}
        return {"pictures": (self.rows, self.size, self.size, 3), **of_teachers, **of_views}


class Pictured(NamedTuple):
    """What is seen of one sample.

    Attributes:
        view: uint8 (S, S, 3).
        problems: of pictures that it stands in place of.
        place: of the sample that is shown, in the split.
        at_sizes: the same crop at each size that teachers take.
        further: name of a term -> its views, uint8 (V, S, S, 3).
    """

    view: np.ndarray
    problems: tuple[Problem, ...]
    place: int
    at_sizes: tuple[np.ndarray, ...]
    further: Mapping[str, np.ndarray]


# --------------------------------------------------------------------------- a batch as bytes


def packed(rows: Sequence[Pictured], spec: PictureSpec) -> bytes:
    """A batch as one file of tensors."""
    from safetensors.numpy import save

    problems = [[i, p.where, p.reason] for i, row in enumerate(rows) for p in row.problems]
    blocks = {
        "pictures": [row.view for row in rows],
        **{f"size {s}": [row.at_sizes[i] for row in rows] for i, s in enumerate(spec.sizes)},
        **{f"views {name}": [row.further[name] for row in rows] for name in spec.viewers},
    }
    tensors = {name: np.stack(block) for name, block in blocks.items()}
    tensors["places"] = np.array([row.place for row in rows], np.int64)
    tensors["problems"] = np.frombuffer(json.dumps(problems).encode(), np.uint8)
    return save(tensors)


def unpacked(data: bytes, spec: PictureSpec, samples: int) -> list[Pictured] | None:
    """The batch that `packed` made of the same; None for anything else.

    Args:
        samples: of the split.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(data)
        places, told = found.pop("places"), json.loads(found.pop("problems").tobytes())
        problems: list[list[Problem]] = [[] for _ in range(spec.rows)]
        for row, where, reason in told:
            problems[row].append(Problem(str(where), str(reason)))
    except (SafetensorError, KeyError, IndexError, TypeError, ValueError, RecursionError):
        return None
    if {name: block.shape for name, block in found.items()} != spec.shapes():
        return None
    if any(block.dtype != np.uint8 for block in found.values()):
        return None
    if places.dtype != np.int64 or places.shape != (spec.rows,):
        return None
    if not ((places >= 0) & (places < samples)).all():
        return None
    return [
        Pictured(
            found["pictures"][row],
            tuple(problems[row]),
            int(places[row]),
            tuple(found[f"size {size}"][row] for size in spec.sizes),
            {name: found[f"views {name}"][row] for name in spec.viewers},
        )
        for row in range(spec.rows)
    ]
