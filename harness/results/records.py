"""One run directory read as a report needs it: each file once, with the hash of what was read.

Reads and never writes.  A run that is not done, cannot be read or breaks an invariant is a record
without an evaluation and with a reason; nothing is computed from the numbers here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from harness import metrics
from harness.config import RunConfig
from harness.config.parents import parent_keys
from harness.config.sweep import Run
from harness.errors import InvariantError, RecordError, one_line, whole
from harness.evaluate.invariants import Expected, check
from harness.files import MAX_LOG_BYTES, parse_json, read_regular
from harness.metrics import lacking
from harness.metrics.base import remember
from harness.results.second_process import begin
from harness.store.checksums import LOGS
from harness.store.manifest import Trees
from harness.store.record import RunDir, Store
from harness.store.shapes import ProvenanceShape, shaped
from harness.store.state import State, Status

UNREADABLE = "record"
INVALID = "invariant"
#: Lines of a training log that are kept: more than a page has dots for.
_CURVE_LINES = 400
#: Runs past which a second process is worth its start.
_MANY = 400

Column = NDArray[np.float64] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Curve:
    """The numbers of metrics.jsonl by column (N,), thinned evenly to `_CURVE_LINES` lines.

    A section of numbers is a column each: `terms/mlm`.  What a line lacks is NaN.
    """

    columns: Mapping[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def points(self, name: str) -> NDArray[np.float64]:
        """(samples seen, value) of every line that tells `name`, (N, 2)."""
        places, values = self.columns.get("samples_seen"), self.columns.get(name)
        if places is None or values is None:
            return np.empty((0, 2))
        known = np.isfinite(values)
        return np.column_stack([places[known], values[known]]).astype(np.float64)


@dataclass(frozen=True)
class Record:
    """What one run's directory says; `reason` is why it gives no number, None when it does."""

    point: int
    run: Run
    directory: Path
    evaluation_key: str
    status: Status
    reason: str | None
    result: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None
    attempts: Sequence[Mapping[str, Any]] = ()
    """Provenance, an entry an attempt."""
    curve: Curve = field(default_factory=Curve)
    log_changed: bool = False
    """Whether the training log is not the one of the result, and so gives no curve."""
    log: str | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    """File, relative to the run's directory -> SHA-256 of what was read.  Who reads more of the run
    later, such as its per-example outcomes, adds it."""

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.run.seed

    @cached_property
    def key(self) -> str:
        """The name of the run's directory: its key, with a number where it was set aside."""
        return self.directory.name

    @property
    def starts(self) -> int:
        """How often the run was started, as far as its files say."""
        return max(len(self.attempts), self.status.attempt)

    @property
    def failed(self) -> bool:
        """Whether the run ended without a number that can be trusted."""
        return self.status.state is State.FAILED

    @property
    def training(self) -> Mapping[str, Any]:
        """The `training` section of the result; empty without one."""
        return {} if self.result is None else self.result["training"]

    @property
    def code(self) -> str | None:
        """Hash of the code that made the result."""
        return None if self.result is None else self.result.get("code")


def read_all(places: Sequence[tuple[int, Run, RunDir]], store: Store) -> list[Record]:
    """The record of each (point, run, directory), of very many by two processes."""
    if len(places) <= _MANY:
        return _read(places, store)
    half = len(places) // 2
    later = begin(lambda: [_without_run(record) for record in _read(places[half:], store)])
    records = _read(places[:half], store)
    for (_, run, _), told in zip(places[half:], later(), strict=True):
        records.append(Record(run=run, **told))
        for name, metric in (told["evaluation"] or {}).get("metrics", {}).items():
            remember(name, metric)  # in this process too
    return records


def _read(places: Iterable[tuple[int, Run, RunDir]], store: Store) -> list[Record]:
    reader = Reader(store)
    return [reader.read(*place) for place in places]


def _without_run(record: Record) -> dict[str, Any]:
    return {
        field.name: getattr(record, field.name) for field in fields(Record) if field.name != "run"
    }


class Reader:
    """Reads run directories of one store, keeping equal protocols once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._trees = Trees()
        self._sections: set[tuple[bytes, int]] = set()
        """Text of a section on disk, and the tree (kept by `_trees`) that it stands for."""
        self._protocols: dict[bytes, Mapping[str, Any]] = {}
        self._expected: dict[int, Expected] = {}
        self._lacking: dict[tuple[int, tuple[str, ...]], Mapping[str, Any]] = {}
        self._columns: dict[tuple[str, bytes], Column] = {}

    def read(self, point: int, run: Run, directory: RunDir) -> Record:
        """The record of `run` as point number `point`, from `directory`."""
        asked = run.evaluation_key
        try:
            with whole(directory.path):
                return self._read(point, run, directory, asked)
        except RecordError as error:
            text = one_line(error)
            status = Status(State.FAILED, failure=UNREADABLE, error=text)
            return Record(point, run, directory.path, asked, status, f"cannot be read: {text}")

    def _read(self, point: int, run: Run, directory: RunDir, asked: str) -> Record:
        files = _Files(directory.path)
        self._check_config(files.read("config.json"), run, directory)
        data = files.read("result.json")
        result = None
        if data is not None:
            result = directory.checked_result(parse_json(data, directory.result_file))
            result["cost"] = {
                section: values
                for section, values in result["cost"].items()
                if section not in metrics.MEASURED_APART  # timed beside a training, once
            }
            self._share_protocols(result)
        status = directory.status_given(result, asked)
        if status.state is not State.DONE:
            files.read("status.json")
        common: dict[str, Any] = {
            "result": result,
            "attempts": _attempts(files, directory),
            **self._curve(files, directory, (result or {}).get(LOGS, {})),
            "log": _log(status, directory),
            "inputs": files.digests,
        }
        start = (point, run, directory.path, asked)
        if status.state is not State.DONE or result is None:
            reason = _reason(status, result, run.config.train.samples)
            if status.state is State.NEW:
                reason += _why_of_parents(run.config, self._store)
            return Record(*start, status, reason, **common)
        evaluation = result["evaluations"][asked]
        try:
            check(evaluation, self._expected_of(evaluation))
        except InvariantError as error:
            broken = Status(State.FAILED, failure=INVALID, error=one_line(error))
            return Record(*start, broken, f"result refused: {one_line(error)}", **common)
        lacks = self._lacking_of(evaluation, tuple(run.config.objective.active))
        filled = {**evaluation, "metrics": {**evaluation["metrics"], **lacks}}
        return Record(*start, status, None, evaluation=filled, **common)

    def _check_config(self, data: bytes | None, run: Run, directory: RunDir) -> None:
        """RecordError unless the directory's configuration is the run's; it may lie elsewhere.

        What an earlier version wrote lacks newer fields, so that it is read in full; a section that
        was found to be the run's so is known by its text.
        """
        if data is None:
            return
        written = parse_json(data, directory.path / "config.json").get("config")
        tree = self._trees.of(run.config)
        if written == tree:
            return
        written = written if isinstance(written, Mapping) else {}
        texts = {name: _text_of(written, name) for name in tree}
        known = {name for name, text in texts.items() if (text, id(tree[name])) in self._sections}
        if {name for name in {*tree, *written} if written.get(name) != tree.get(name)} <= known:
            return
        read = directory.read_config().model_dump(mode="json")
        same = (name for name in tree if isinstance(tree[name], dict) and read[name] == tree[name])
        self._sections |= {(texts[name], id(tree[name])) for name in same}

    def _curve(
        self, files: _Files, directory: RunDir, told: Mapping[str, str]
    ) -> dict[str, Curve | bool]:
        """Columns that runs share, such as the samples seen, are one array."""
        name = directory.metrics_file.name
        data = files.read(name) or b""
        if name in told and told[name] != files.digests.get(name):
            return {"log_changed": True}
        found = _columns(_thinned(_log_lines(data, directory)))
        kept = {n: self._columns.setdefault((c.dtype.char, c.tobytes()), c) for n, c in found}
        return {"curve": Curve(kept)}

    def _expected_of(self, evaluation: Mapping[str, Any]) -> Expected | None:
        """By its protocol, which is one object for all that share it; None where it lacks a part,
        which the check tells."""
        place = id(evaluation.get("protocol"))
        if place not in self._expected:
            with suppress(KeyError):
                self._expected[place] = Expected.of(evaluation["protocol"])
        return self._expected.get(place)

    def _lacking_of(
        self, evaluation: Mapping[str, Any], terms: tuple[str, ...]
    ) -> Mapping[str, Any]:
        place = (id(evaluation["protocol"]), terms)
        if place not in self._lacking:
            self._lacking[place] = lacking(evaluation, terms)
        return self._lacking[place]

    def _share_protocols(self, result: dict[str, Any]) -> None:
        for evaluation in result["evaluations"].values():
            protocol = evaluation.get("protocol")
            if protocol is not None:
                same = orjson.dumps(protocol, option=orjson.OPT_SORT_KEYS)
                evaluation["protocol"] = self._protocols.setdefault(same, protocol)


def _text_of(tree: Mapping[str, Any], name: str) -> bytes:
    return orjson.dumps(tree.get(name), option=orjson.OPT_SORT_KEYS)


class _Files:
    """Files of a run directory with the SHA-256 of the very bytes that were returned."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.digests: dict[str, str] = {}

    def read(self, name: str) -> bytes | None:
        """The content of a file; None without one, RecordError when it cannot be read."""
        try:
            data = read_regular(self._folder / name, MAX_LOG_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"{self._folder / name} cannot be read: {error}") from None
        self.digests[name] = hashlib.sha256(data).hexdigest()
        return data


def _attempts(files: _Files, directory: RunDir) -> Sequence[Mapping[str, Any]]:
    data = files.read("provenance.json")
    if data is None:
        return ()
    file = directory.path / "provenance.json"
    return tuple(shaped(parse_json(data, file), ProvenanceShape, file)["attempts"])


def _log_lines(data: bytes, directory: RunDir) -> list[Mapping[str, Any]]:
    """The training log; a torn last line (a killed writer) is left out."""
    *lines, torn = data.split(b"\n")
    known = [(number, line) for number, line in enumerate(lines, 1) if line]
    try:
        found: list[Any] = orjson.loads(b"[" + b",".join(line for _, line in known) + b"]")
    except orjson.JSONDecodeError:
        found = [_log_line(line, number, directory) for number, line in known]
    for (number, _), line in zip(known, found, strict=False):
        if not isinstance(line, dict):
            raise RecordError(f"{directory.metrics_file}:{number} holds no JSON object")
    try:
        return [*found, orjson.loads(torn)] if torn else found
    except orjson.JSONDecodeError:
        return found


def _log_line(line: bytes, number: int, directory: RunDir) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        raise RecordError(f"{directory.metrics_file}:{number} is not valid JSON") from None


def _thinned(lines: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if len(lines) <= _CURVE_LINES:
        return lines
    step = (len(lines) - 1) / (_CURVE_LINES - 1)
    return [lines[round(index * step)] for index in range(_CURVE_LINES)]


def _columns(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Column]]:
    """What is a number in every line that tells it."""
    names = list(lines[0]) if lines else []
    alike = all(list(line) == names for line in lines)
    if not alike:
        names = list(dict.fromkeys(name for line in lines for name in line))
    for name in names:
        values = [line[name] for line in lines] if alike else [line.get(name) for line in lines]
        if {*map(type, values)} <= {int, float}:
            yield name, np.array(values)
            continue
        told = [value for value in values if value is not None]
        if told and all(isinstance(value, Mapping) for value in told):
            for part, column in _columns([value or {} for value in values]):
                yield f"{name}/{part}", column
        elif told and all(type(value) in (int, float) for value in told):
            yield name, np.array([math.nan if value is None else value for value in values])


def _log(status: Status, directory: RunDir) -> str | None:
    """The log of the last attempt, from the root; in full when it lies outside the run's directory.

    The run may have been moved since, or be a copy that a report carries.
    """
    given = (status.details or {}).get("log")
    if given is None:
        return (
            f"results/runs/{directory.key}/logs/attempt-{status.attempt}.txt"
            if status.attempt
            else None
        )
    parts = Path(given).parts
    if directory.key not in parts:
        return str(given)
    return "/".join(("results", "runs", *parts[parts.index(directory.key) :]))


def _reason(status: Status, result: Mapping[str, Any] | None, samples: int) -> str:
    seen = f"{status.samples_seen:,} of {samples:,} samples"
    if status.state is State.FAILED:
        return status.how
    if status.state is State.RUNNING:
        return f"still running ({seen})"
    if result is not None:
        return "trained, not evaluated with this protocol"
    if status.state is State.INTERRUPTED:
        return f"interrupted at {seen}"
    return "not run"


def _why_of_parents(config: RunConfig, store: Store) -> str:
    known = {key: store.run_dir(key).status() for key in parent_keys(config, begins=True)}
    failed = [f"{k} {status.how}" for k, status in known.items() if status.state is State.FAILED]
    return f": its parent {failed[0]}" if failed else ""
