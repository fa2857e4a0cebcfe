"""Deployed forms in the results store, and the sittings in which their speed was measured.

    <root>/results/runs/<key>/deploy/<form>/    a form's files; see harness.evaluate.deploy.forms
    <root>/results/latency/<time>-<host>.json   one sitting: all it measured, one after another

Speed is no property of a run but of a file on a machine at a time: it is kept apart, and a table
takes all its rows from one sitting.  Torch-free.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.errors import RecordError, one_line
from harness.files import read_json, sha256_of, write_json
from harness.store.record import Store, of_this_schema

_FOLDER = "latency"
_SCHEMA = 1
#: A 90th percentile beyond so many times the least was not measured quietly.
LOUD = 2.0
#: Nor was what waited for a core a greater share of its time.
WAITED = 0.1


def forms_of(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Form -> its entry in an evaluation on record, or {"hole": reason}.

    What is not as an evaluation writes it is a hole too.
    """
    found = evaluation.get("deployed", {})
    return {form: _sound(told) for form, told in found.items()} if isinstance(found, dict) else {}


def _sound(entry: Any) -> Mapping[str, Any]:
    if isinstance(entry, Mapping) and isinstance(entry.get("hole"), str):
        return {"hole": entry["hole"]}
    try:
        for told in entry["files"].values():
            told["sha256"].encode(), float(told["mb"])
        entry["protocol"]["metrics"].keys() | entry["metrics"].keys()
    except (AttributeError, KeyError, TypeError, ValueError):
        return {"hole": "the entry of this form was edited"}
    return entry  # type: ignore[no-any-return]


def files_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """Tower -> SHA-256 of the file that was scored; nothing of a hole."""
    return {tower: told["sha256"] for tower, told in entry.get("files", {}).items()}


@dataclass(frozen=True)
class Timing:
    """How long one tower of one form of a run takes, a batch at a time.

    Attributes:
        sha256: of the ONNX file.
        calls: how many were timed, over all turns.
        least, median, p90: milliseconds of a call.
        load_ms: time to make a session of the file, the least of the turns.
        memory_mb: growth of memory by loading and running it, the greatest of the turns.
        waited: share of the time in which the calling thread had no core, the mean of the turns.
    """

    key: str
    form: str
    tower: str
    sha256: str
    batch: int
    calls: int
    least: float
    median: float
    p90: float
    load_ms: float
    memory_mb: float
    waited: float = 0.0

    @property
    def quiet(self) -> bool:
        """Whether it was measured with little else going on."""
        return self.p90 <= LOUD * self.least and self.waited <= WAITED


@dataclass(frozen=True)
class Sitting:
    """All timings of one sitting, and on what.

    Attributes:
        machine: CPU, threads, versions, and the load of a minute before and after.
        sha256: of the file that it was read from; empty before it is written.
    """

    when: str
    machine: Mapping[str, Any]
    timings: tuple[Timing, ...]
    name: str = ""
    sha256: str = ""

    def of(self, key: str, form: str, sha256s: Iterable[str]) -> list[Timing]:
        """The timings of these files."""
        known = set(sha256s)
        return [t for t in self.timings if (t.key, t.form) == (key, form) and t.sha256 in known]


def write_sitting(store: Store, sitting: Sitting) -> Path:
    """Keep a sitting; returns its file, whose name no other has."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", str(sitting.machine.get("host", "")))[:60] or "host"
    folder = store.root / "results" / _FOLDER
    name = f"{re.sub('[^0-9T]', '', sitting.when)}-{host}"
    file = folder / f"{name}.json"
    for number in range(2, 1_000):
        if not file.exists():
            break
        file = folder / f"{name}.{number}.json"
    rows = [asdict(timing) for timing in sitting.timings]
    machine = dict(sitting.machine)
    write_json(file, {"schema": _SCHEMA, "when": sitting.when, "machine": machine, "timings": rows})
    return file


def read_sittings(store: Store) -> tuple[list[Sitting], list[str]]:
    """Every sitting below a root, the oldest first; and a line for each that cannot be read."""
    found, problems = [], []
    for file in sorted((store.root / "results" / _FOLDER).glob("*.json")):
        try:
            found.append(_read(file))
        except RecordError as error:
            problems.append(one_line(error))
    return found, problems


_SITTING = TypeAdapter(Sitting)


def _read(file: Path) -> Sitting:
    tree = of_this_schema(read_json(file), file)
    where = {"name": file.relative_to(file.parents[2]).as_posix(), "sha256": sha256_of(file)}
    try:
        return _SITTING.validate_python(tree | where)
    except ValidationError as error:
        raise RecordError(f"{file} was edited: {error.errors()[0]['msg']}") from None


def now() -> str:
    """The time as a sitting tells it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
