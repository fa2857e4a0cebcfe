"""What the page knows of each run, packed small: ten thousand runs must fit in one file.

Configurations are told as what differs from the first run's, provenance once for all attempts that
share it, and training curves in a few dozen rounded points.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.document.text import one_line
from harness.results.collect import Collection
from harness.results.records import Record
from harness.store.manifest import Trees, differences, flat

#: Runs up to which every series of the log is shown; beyond it the loss alone.
_ALL_SERIES = 400
_POINTS, _FEW_POINTS = 80, 32
#: Digits of a SHA-256 on the page; the manifest has them in full.
_DIGITS = 12
#: Facts of an attempt that differ from one to the next.
_OF_ATTEMPT = ("time", "host", "command", "label")


def run_data(collection: Collection) -> str:
    """Every run by its key, as JSON that can stand in a script element."""
    return with_files(packed(collection), collection.records)


class Packed(NamedTuple):
    """Everything about the runs but the files that were read of them, a text a run."""

    shared: str
    runs: list[str]


def packed(collection: Collection) -> Packed:
    """What the page knows of each run, in the order of the records.

    Written run by run: as Python's objects, ten thousand of them are ten times as large.
    """
    trees = Trees()
    base = trees.of(collection.records[0].run.config)
    names = collection.metrics
    pool = _Pool()
    everything = len(collection.records) <= _ALL_SERIES
    runs = [
        to_script(_run(record, base, trees, names, pool, everything=everything))
        for record in collection.records
    ]
    shared = {"base": flat(base, base), "metrics": names, "pool": pool.items}
    return Packed(to_script(shared), runs)


def with_files(data: Packed, records: Sequence[Record]) -> str:
    """The page's data, with the hashes of what was read of each run so far."""
    runs = ",".join(
        f'{to_script(record.key)}:{run.removesuffix("}")},"files":{_files(record)}}}'
        for record, run in zip(records, data.runs, strict=True)
    )
    return f'{data.shared.removesuffix("}")},"runs":{{{runs}}}}}'


def _files(record: Record) -> str:
    return to_script({name: digest[:_DIGITS] for name, digest in sorted(record.inputs.items())})


def to_script(data: object) -> str:
    """JSON that can stand in a script element: no `<`, and no line break of JavaScript's."""
    packed = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return packed.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Pool:
    """Equal things once, by number."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, item: Any) -> int:
        text = json.dumps(item, sort_keys=True)
        if text not in self._numbers:
            self._numbers[text] = len(self.items)
            self.items.append(item)
        return self._numbers[text]


def _run(
    record: Record,
    base: Mapping[str, Any],
    trees: Trees,
    names: Sequence[str],
    pool: _Pool,
    *,
    everything: bool,
) -> dict[str, Any]:
    return {
        "label": one_line(record.run.label),
        "seed": record.seed,
        **_aside(record),
        "state": record.status.state.value,
        "reason": None if record.reason is None else one_line(record.reason),
        "attempts": record.starts,
        "log": record.log,
        "set": differences(base, trees.of(record.run.config)),
        "values": [_value(record, name) for name in names],
        "curve": _curve(record, everything=everything),
        "tries": [_attempt(attempt, pool) for attempt in record.attempts],
        "training": pool.number(_training(record)),
    }


def _aside(record: Record) -> dict[str, str]:
    """Where a run lies that another of the same key has taken the place of."""
    aside = record.directory.parent.name
    return {} if aside == "runs" else {"place": f"results/runs/{aside}/{record.key}"}


def _value(record: Record, name: str) -> float | None:
    if record.evaluation is None or record.result is None:
        return None
    found = record.evaluation["metrics"].get(name)
    if found is not None:
        value: float | None = found["value"]
        return value
    place: Any = {"cost": record.result["cost"]}
    for part in name.split("/"):
        place = place.get(part) if isinstance(place, Mapping) else None
    return place if isinstance(place, (int, float)) else None


def _training(record: Record) -> dict[str, Any]:
    return {name: record.training.get(name) for name in ("device", "precision", "threads")}


def _attempt(attempt: Mapping[str, Any], pool: _Pool) -> list[Any]:
    """[number of what it shares with others, its own facts]."""
    shared = {name: value for name, value in attempt.items() if name not in _OF_ATTEMPT}
    own = {name: attempt[name] for name in _OF_ATTEMPT[:2] if name in attempt}
    return [pool.number(shared), own]


def _curve(record: Record, *, everything: bool) -> dict[str, list[float | None]]:
    """Column -> values; `samples_seen` is the axis."""
    length, most = len(record.curve), _POINTS if everything else _FEW_POINTS
    chosen = np.arange(length)
    if length > most:
        chosen = np.array([round(i * (length - 1) / (most - 1)) for i in range(most)])
    found = record.curve.columns
    names = [n for n in found if "/" not in n] if everything else ["samples_seen", "loss"]
    columns = {name: found[name][chosen].tolist() for name in names if name in found}
    return {name: [_rounded(value) for value in column] for name, column in columns.items()}


def _rounded(value: float) -> float | None:
    if isinstance(value, int):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None
