"""What the bits of runs depend on beside their configuration, and what mixing it forbids to say.

Device, threads and precision move the weights by as much as a seed does (4 text layers on the
built-in drawings, same seed: 31.1 % role accuracy with one thread, 26.9 % with two).  What differs
in them between two points may be all that the points differ by, so there is no verdict between
such points.  What else moves the last bits is like another seed while every point has some of each,
and forbids a verdict where it tells two points apart.  Reads records; knows no statistics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.config import parts_of_a_batch
from harness.results.records import Record
from harness.store.provenance import NUMERIC_PACKAGES

STRICT = ("device", "threads", "precision")
"""Fields that two points must share for a verdict between them."""
_TITLES = {
    "gpu": "GPU model",
    "parts": "parts of a batch",
    "compile": "torch.compile",
    "open_clip_torch": "open_clip",
    "cudnn": "cuDNN",
    "cuda": "CUDA",
}

Fields = Mapping[str, str | None]
"""Field -> value as text; None: not on record.  Without `threads` where a GPU computes."""


@dataclass(frozen=True)
class Numerics:
    """What the finished runs of some points were computed with."""

    runs: Sequence[tuple[int, str, Fields]]
    """(point, precision that the configuration asks for, fields) of each."""

    @staticmethod
    def of(records: Iterable[Record]) -> Numerics:
        """Of the records that give numbers."""
        return Numerics(
            [
                (record.point, record.run.config.train.precision, fields_of(record))
                for record in records
                if record.reason is None and record.result is not None
            ]
        )

    def comparable(self, point: int, reference: int) -> str | None:
        """Why there can be no verdict between two points; None when there can.

        What is not on record forbids nothing; `warnings` say so.
        """
        for field in self._fields:
            own, others = self._values(point, field), self._values(reference, field)
            if field in STRICT:
                apart = len(own | others) > 1
            else:
                apart = bool(own and others) and own.isdisjoint(others)
            if apart and not (field == "precision" and self._is_asked(point, reference)):
                return (
                    f"{_title(field)} {_any_of(own)} against {_any_of(others)}: "
                    "a difference may be the machine's"
                )
        return None

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """One line for each field in which runs differ, and one for all that is not on record."""
        return tuple(self._warnings())

    def _warnings(self) -> Iterator[str]:
        unknown: dict[str, int] = {}
        for field in self._fields:
            values = [fields[field] for _, _, fields in self.runs if field in fields]
            found = Counter(value for value in values if value is not None)
            if field in STRICT or found:
                unknown |= {field: n} if (n := values.count(None)) else {}
            if len(found) > 1 and not (field == "precision" and self._precision_is_the_question):
                counts = ", ".join(f"{value}: {_runs(n)}" for value, n in found.items())
                yield f"runs differ in {_title(field)} ({counts}); {_consequence(field)}"
        if unknown:
            names = ", ".join(f"{_title(field)} ({_runs(n)})" for field, n in unknown.items())
            yield f"not on record: {names}; these runs are compared as if it were the others'"

    @cached_property
    def _fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(field for _, _, fields in self.runs for field in fields))

    def _values(self, point: int, field: str) -> frozenset[str]:
        """The known values of the runs of a point."""
        return self._known.get((point, field), frozenset())

    @cached_property
    def _known(self) -> dict[tuple[int, str], frozenset[str]]:
        found: dict[tuple[int, str], set[str]] = {}
        for point, _, fields in self.runs:
            for field, value in fields.items():
                if value is not None:
                    found.setdefault((point, field), set()).add(value)
        return {place: frozenset(values) for place, values in found.items()}

    @cached_property
    def _asked(self) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for point, asked, _ in self.runs:
            found.setdefault(point, set()).add(asked)
        return found

    def _is_asked(self, point: int, reference: int) -> bool:
        """Whether the points themselves ask for other precisions: then that is the question."""
        asked = self._asked
        return asked.get(point, set()).isdisjoint(asked.get(reference, set()))

    @property
    def _precision_is_the_question(self) -> bool:
        pairs = {(asked, fields["precision"]) for _, asked, fields in self.runs}
        return len(pairs) == len({asked for asked, _ in pairs})


def fields_of(record: Record) -> Fields:
    """What a finished run was computed with; of attempts that differ, `1 then 2`."""
    result = record.result or {}
    last = result.get("numerics") or _derived(record)
    told = [attempt["numerics"] for attempt in record.attempts if "numerics" in attempt]
    every = [_flat(numerics) for numerics in [*told, last]]
    return {
        field: _over_attempts([fields[field] for fields in every if field in fields])
        for field in _flat(last)
    }


def _over_attempts(values: Sequence[str | None]) -> str | None:
    known = dict.fromkeys(value for value in values if value is not None)
    return " then ".join(known) or None


def _flat(numerics: Mapping[str, Any]) -> Fields:
    """The entries of a record and those of its versions, as text."""
    tree = {**numerics, **numerics["versions"]}
    unused = "threads" if tree["device"] == "cuda" else "gpu"
    return {
        field: None if value is None else str(value)
        for field, value in tree.items()
        if field not in {"versions", unused}
    }


def _derived(record: Record) -> Mapping[str, Any]:
    """The same of a result that has none, from what it and its last attempt recorded."""
    training, last = record.training, record.attempts[-1] if record.attempts else {}
    device, versions = training.get("device"), last.get("versions", {})
    return {
        "device": device if device in {None, "cpu"} else "cuda",
        "gpu": device,
        **{name: training.get(name) for name in ("threads", "precision", "processes")},
        "parts": _parts(record),
        "compile": None,
        "versions": {name: versions.get(name) for name in NUMERIC_PACKAGES},
    }


def _parts(record: Record) -> int | None:
    training = record.training
    if not {"processes", "micro_batch"} <= training.keys():
        return None
    batch_size = record.run.config.train.batch_size
    return parts_of_a_batch(batch_size, training["processes"], training["micro_batch"])


def _title(field: str) -> str:
    return _TITLES.get(field, field)


def _runs(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"


def _any_of(values: Iterable[str]) -> str:
    return " or ".join(sorted(values))


def _consequence(field: str) -> str:
    if field in STRICT:
        return "no verdict is given between points that differ in it"
    return "no verdict is given between points that it tells apart"
