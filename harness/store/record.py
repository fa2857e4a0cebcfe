"""The run directory: one writer a file, the result last.

    <root>/results/runs/<key>/
        config.json       the resolved configuration; its hash is the directory's name
        job.json          intent, written before anything starts (label, command, attempts)
        status.json       state, attempt, samples, beat; replaced atomically
        lease.json        who runs it now
        stop.json         why it shall stop, until a launcher wants it again
        fill.json         that its evaluation shall be filled up with what it lacks
        metrics.jsonl     one line a logging interval
        progress.jsonl    one line an evaluation while it trained
        provenance.json   one entry an attempt
        ends.json         what cut attempts short, by class
        checkpoints/ outcomes/ logs/
        result.json       written last: its valid presence is what "done" means

The state of a run is derived from these files and the clock, never from a scheduler.
Torch-free; knows nothing of what the numbers mean.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.config import RunConfig, unregistered_terms, validate
from harness.config.sweep import SweepFile
from harness.config.sweep_files import load_recorded
from harness.errors import RecordError, unknown
from harness.files import (
    append,
    dump_json,
    one_name,
    read_json,
    read_jsonl,
    write_atomic,
    write_json,
)
from harness.metrics import remember
from harness.store import first_stage
from harness.store.checksums import digest_of
from harness.store.lease import lease_is_live
from harness.store.shapes import ConfigShape, ProvenanceShape, ResultShape, StatusShape, shaped
from harness.store.state import State, Status

SCHEMA = 1
RESULT_SCHEMA = 2
"""Of results: since the first stage recalls have other names; see harness.store.first_stage."""


class _Inside:
    """What lies in the directory of a run by a name of its own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: RunDir, owner: type[RunDir]) -> Path:
        return run.path / self._name


class RunDir:
    """The directory of one run."""

    result_file = _Inside("result.json")
    """Written last; its valid presence means done."""
    status_file = _Inside("status.json")
    """State and progress, replaced atomically."""
    metrics_file = _Inside("metrics.jsonl")
    """The training log."""
    provenance_file = _Inside("provenance.json")
    """An entry an attempt."""
    progress_file = _Inside("progress.jsonl")
    """What was evaluated while it trained."""
    lease_file = _Inside("lease.json")
    """Who runs it now."""
    checkpoints = _Inside("checkpoints")
    """States to go on from, and the final weights."""
    stop_file = _Inside("stop.json")
    """The wish that the run stop."""
    fill_file = _Inside("fill.json")
    """The wish that its evaluation be filled up."""
    outcomes = _Inside("outcomes")
    """Per-example results."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def key(self) -> str:
        """The run's key: the directory's name, up to the number of one that was set aside."""
        return self.path.name.partition(".")[0]

    def request_fill(self) -> None:
        """Have what its evaluation lacks computed and added; it has work left until it is."""
        write_json(self.fill_file, {"schema": SCHEMA})

    @property
    def begun(self) -> bool:
        """Whether there is a state to go on from, sound or not, or more."""
        return self.result_file.exists() or any(self.checkpoints.glob("step-*.pt"))

    def log_file(self, attempt: int) -> Path:
        """What attempt `attempt` printed."""
        return self.path / "logs" / f"attempt-{attempt}.txt"

    # ---- configuration

    def write_intent(self, config: RunConfig, job: Mapping[str, Any]) -> None:
        """Create the directory with its configuration and why it exists; safe to repeat.

        What is not identity (the data's place, the protocol) is brought up to date; a configuration
        edited by hand is refused (RecordError).
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / "config.json"
        if not file.exists() or self.read_config() != config:
            write_json(file, {"schema": SCHEMA, "config": config.model_dump(mode="json")})
        write_json(self.path / "job.json", {"schema": SCHEMA, "key": self.key, **job})
        self.stop_file.unlink(missing_ok=True)

    def request_stop(self, reason: str) -> None:
        """Have the run save its state at its next look and end, or not begin; see `StoppedRun`.

        It stands until a launcher wants the run again (`write_intent`).
        """
        if self.path.is_dir():
            write_json(self.stop_file, {"schema": SCHEMA, "reason": reason})

    def stop_requested(self) -> str | None:
        """The reason for which the run shall stop; None when it shall not."""
        written = read_json(self.stop_file)
        return None if written is None else str(of_this_schema(written, self.stop_file)["reason"])

    def read_config(self) -> RunConfig:
        """The configuration, verified against the directory's name.

        The sweep file that registered a term of its loss is imported, if it is the caller's own
        and as it was.
        """
        file = self.path / "config.json"
        tree = shaped(of_this_schema(read_json(file), file), ConfigShape, file)["config"]
        for term in unregistered_terms(tree.get("objective", {})):
            wants = f"run {self.key} wants loss term {term!r}, which a sweep file registered"
            load_recorded(self.sweep_file(), wants)
        config = validate(RunConfig, tree)
        if config.run_key != self.key:
            raise RecordError(
                f"{file} was edited: its content has key {config.run_key}, its folder is "
                f"{self.key}; restore it, or delete the folder to run it anew"
            )
        return config

    def sweep_file(self) -> SweepFile | None:
        """Where the sweep that wanted the run was read from; None if that is not on record."""
        return SweepFile.recorded((read_json(self.path / "job.json") or {}).get("sweep"))

    # ---- status

    def write_status(self, state: State, **details: Any) -> None:
        """Replace status.json; `details` may hold attempt, samples_seen, failure, error, ..."""
        beat = {"schema": SCHEMA, "state": state.value, "beat": round(time.time(), 3)}
        write_json(self.status_file, {**beat, **details})

    def status(
        self, evaluation_key: str | None = None, *, lives: Callable[[Path], bool] = lease_is_live
    ) -> Status:
        """The state derived from the files; see `look`."""
        return self.look(evaluation_key, lives=lives)[0]

    def look(
        self, evaluation_key: str | None = None, *, lives: Callable[[Path], bool] = lease_is_live
    ) -> tuple[Status, dict[str, Any] | None]:
        """The state derived from the files, and the result, which is read for it.

        With `evaluation_key`, a finished training whose result lacks that evaluation is
        INTERRUPTED: there is work left, none of it training.  So is one that is to be filled up.

        Args:
            lives: whether the holder of a lease still runs.
        """
        result = self.result()
        fill = evaluation_key is not None and self.fill_file.exists()
        return self.status_given(result, evaluation_key, lives=lives, fill=fill), result

    def status_given(
        self,
        result: Mapping[str, Any] | None,
        evaluation_key: str | None = None,
        *,
        lives: Callable[[Path], bool] = lease_is_live,
        fill: bool = False,
    ) -> Status:
        """`status`, for who has read the result already; `fill`: what it has is not enough."""
        if result is not None and (
            evaluation_key is None or (evaluation_key in result["evaluations"] and not fill)
        ):
            return Status(State.DONE, samples_seen=result["training"]["samples_seen"])
        written = read_json(self.status_file)
        if written is None:
            return Status(State.RUNNING if lives(self.lease_file) else State.NEW)
        shaped(of_this_schema(written, self.status_file), StatusShape, self.status_file)
        if written.get("state") not in list(State):
            raise RecordError(f"{self.status_file} names no state, but {written.get('state')!r}")
        state = State(written["state"])
        if lives(self.lease_file):
            state = State.RUNNING
        elif state in {State.RUNNING, State.DONE}:
            state = State.INTERRUPTED
        return Status(
            state,
            attempt=int(written.get("attempt", 0)),
            samples_seen=int(written.get("samples_seen", 0)),
            failure=written.get("failure") if state is State.FAILED else None,
            error=written.get("error") if state is State.FAILED else None,
            details=written,
        )

    def noted(self, what: str) -> Any:
        """What the last attempt that noted it says of the run's `parent` or `teachers`, or None."""
        notes = [entry[what] for entry in self.provenance() if what in entry]
        return notes[-1] if notes else None

    def provenance(self) -> list[dict[str, Any]]:
        """An entry an attempt, in order; RecordError where it is none."""
        written = read_json(self.provenance_file)
        if written is None:
            return []
        return list(shaped(written, ProvenanceShape, self.provenance_file)["attempts"])

    def attempts(self) -> int:
        """How often this run was started."""
        return len(self.provenance())

    def was_out_of_memory(self) -> bool:
        """Whether an attempt at this run ended for want of memory, so that the next takes less."""
        last = self.provenance()[-1:]
        spared = any(attempt.get("checkpoint_activations") for attempt in last)
        failure = (read_json(self.status_file) or {}).get("failure")
        classes = [failure, *(end["class"] for end in self.ends())]
        return spared or "out_of_memory" in classes

    def add_provenance(self, entry: Mapping[str, Any]) -> int:
        """Append the entry of a new attempt; returns its number, from 1."""
        entries = [*self.provenance(), dict(entry)]
        write_json(self.provenance_file, {"schema": SCHEMA, "attempts": entries})
        return len(entries)

    def complete_provenance(self, **more: Any) -> None:
        """Add to the entry of the present attempt what was not known at its start."""
        attempts = self.provenance()
        if not attempts:
            raise RecordError(f"{self.provenance_file} is missing")
        entries = [*attempts[:-1], {**attempts[-1], **more}]
        write_json(self.provenance_file, {"schema": SCHEMA, "attempts": entries})

    # ---- ends

    def ends(self) -> list[dict[str, Any]]:
        """What cut attempts short, in order; see `add_end`."""
        file = self.path / "ends.json"
        written = read_json(file)
        return [] if written is None else list(of_this_schema(written, file)["ends"])

    def add_end(self, failure: str, error: str, **details: Any) -> None:
        """Note what ended the last attempt; for the holder of the lease."""
        status = self.status()
        end = {
            "class": failure,
            "error": error,
            "attempt": self.attempts(),
            "samples_seen": status.samples_seen,
            "time": round(time.time(), 3),
        }
        ends = [*self.ends(), {**end, **details}]
        write_json(self.path / "ends.json", {"schema": SCHEMA, "ends": ends})

    # ---- metrics

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl, which has one writer: the holder of the lease."""
        _append_line(self.metrics_file, line)

    def append_progress(self, line: Mapping[str, Any]) -> None:
        """Add one line to progress.jsonl, which has the same writer."""
        _append_line(self.progress_file, {"names": first_stage.NAMES, **line})

    def rewind_logs(self, samples_seen: int) -> None:
        """Drop the lines after `samples_seen`: a resumed run writes them again."""
        for file in (self.metrics_file, self.progress_file):
            if file.exists():
                lines = [m for m in read_jsonl(file) if m["samples_seen"] <= samples_seen]
                write_atomic(file, "".join(_line(line) for line in lines).encode())

    # ---- result

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json, the last file of a run."""
        write_result_file(self.result_file, {**result, "key": self.key})

    def result(self) -> dict[str, Any] | None:
        """The result, or None before it is written; RecordError if it is not this run's."""
        result = read_json(self.result_file)
        return None if result is None else self.checked_result(result)

    def checked_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """`result`, which is what result.json holds; RecordError if it is not this run's."""
        if result.get("key") != self.key:
            raise RecordError(f"{self.result_file} is of run {result.get('key')}, not {self.key}")
        return current_result(result, self.result_file, ("training", "evaluations", "cost"))

    def finished(self) -> dict[str, Any]:
        """The result; RecordError, saying how far the run came, unless it has one."""
        result = self.result()
        if result is not None:
            return result
        status = self.status()
        how = status.how
        if status.state is not State.FAILED:
            asked = self.read_config().train.samples
            how += f" at {status.samples_seen:,} of {asked:,} samples"
        raise RecordError(f"run {self.key} {how}; a finished run is wanted")

    def set_aside(self) -> Path:
        """Move the whole directory to `runs/superseded/`, so that a rerun loses nothing."""
        for number in range(1, 10_000):
            target = self.path.parent / "superseded" / f"{self.key}.{number}"
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.path, target)
                return target
        raise RecordError(f"{self.path.parent}/superseded is full of {self.key}")


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False) + "\n"


def _append_line(path: Path, value: Mapping[str, Any]) -> None:
    append(path, _line(value).encode())


def of_this_schema(
    value: dict[str, Any] | None, file: Path, schema: int = SCHEMA
) -> dict[str, Any]:
    """`value`, read from `file`; RecordError if there is none, or it is of another schema."""
    if value is None:
        raise RecordError(f"{file} is missing")
    if value.get("schema") != schema:
        raise RecordError(
            f"{file} is of schema {value.get('schema')!r}; this version reads schema {schema}. "
            "Use another --root, or the version that wrote it"
        )
    return value


def current_result(written: dict[str, Any], file: Path, sections: Iterable[str]) -> dict[str, Any]:
    """What `file` holds by the names of today; RecordError unless it is a result of some stage.

    Args:
        sections: what it must have.
    """
    old = written.get("schema") == first_stage.SCHEMA
    if not old:
        of_this_schema(written, file, RESULT_SCHEMA)
        if written.get("digest") != digest_of(written):
            raise RecordError(
                f"{file} is not as it was written: its digest is another one; restore it, or "
                "delete it to train and evaluate the run again"
            )
    missing = set(sections) - set(written)
    if missing:
        raise RecordError(f"{file} lacks {', '.join(sorted(missing))}")
    shaped(written, ResultShape, file)
    found = first_stage.result(written) if old else written
    for entry in found["evaluations"].values():
        for name, metric in entry.get("metrics", {}).items():
            remember(name, metric)
    return found


def write_result_file(file: Path, result: Mapping[str, Any]) -> None:
    """Write a result of today's schema with its digest."""
    tree = json.loads(dump_json({**result, "schema": RESULT_SCHEMA}))
    write_json(file, {**tree, "digest": digest_of(tree)})


class Store:
    """All runs under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def runs(self) -> Path:
        """The folder of all run directories."""
        return self.root / "results" / "runs"

    @property
    def manifests(self) -> Path:
        """The folder of what each sweep came to; see harness.store.manifest."""
        return self.root / "results" / "sweeps"

    def manifest_file(self, sweep: str) -> Path:
        """The manifest of the sweep of that name, there or not."""
        return self.manifests / f"{one_name(sweep)}.json"

    def run_dir(self, key: str) -> RunDir:
        """The directory of the run `key`, there or not; RecordError where that is no name."""
        return RunDir(self.runs / one_name(key))

    def find(self, name: str) -> RunDir:
        """The run that `name` stands for: the path of its directory, its key, or how that begins.

        Raises RecordError when there is none, or more than one.
        """
        path = Path(name)
        if (path / "config.json").is_file():
            return RunDir(path.resolve())
        keys = sorted(file.parent.name for file in self.runs.glob("*/config.json"))
        if not keys:
            raise RecordError(f"{self.runs} holds no run, and so not {name!r}")
        found = [key for key in keys if key.startswith(name)]
        if len(found) > 1:
            raise RecordError(f"{name!r} begins the keys of {len(found)} runs: {', '.join(found)}")
        if not found:
            raise RecordError(unknown("run", name, keys))
        return self.run_dir(found[0])

    def finished_config(self, name: str) -> RunConfig:
        """The configuration of the finished run that `name` stands for; RecordError as `find`."""
        directory = self.find(name)
        directory.finished()
        return directory.read_config()
