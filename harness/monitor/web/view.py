"""What the page is told, as plain values: all sweeps, one sweep, one run.

The same words and numbers as `python -m harness.status`, from the same functions; text of sweeps,
runs and logs is passed on as it is, for the page to set as text.
"""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import metrics
from harness.config import RunConfig
from harness.config.sweep import Run
from harness.errors import HarnessError, RecordError, one_line, unknown
from harness.files import read_json
from harness.launch.slurm import scheduler
from harness.launch.slurm.places import QueuePlace
from harness.monitor.logs import POINTS, NumberLog, X, log_files, node_of, tail, thinned
from harness.monitor.points import PointSnapshot, alike_failures, by_point, leading_metric
from harness.monitor.snapshot import (
    RunSnapshot,
    RunState,
    SnapshotReader,
    Summary,
    device_hours,
    queue_of,
    sign,
)
from harness.monitor.terminal import submission_notes
from harness.store.manifest import Manifest, manifest_names, read_manifest
from harness.store.record import RunDir, Store
from harness.store.trials import Ledger, best_trials, search_folder

LOOK_SECONDS = 1.0
"""Between two looks at the files, however many pages ask."""
METRICS_SHOWN = 6
"""Columns of a sweep's table."""
CURVES_SHOWN = 60
"""Curves of a sweep in one picture."""
CURVE_POINTS = 250
"""Points of each of them."""
LOGS_KEPT = 256
REPORT = "report.html"
_RUNS_NAMED = 12
"""Runs of one cause of failure that are named."""
_KEY = re.compile(r"[0-9a-f]{12}")
_FIRST_DRAWN = {RunState.RUNNING: 0, RunState.FAILED: 1, RunState.DEAD: 2, RunState.STALE: 3}


class Board:
    """What is known of a root, looked at when asked; safe to ask from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._reader = SnapshotReader(store)
        self._queue = _Queue(store)
        self._manifests: dict[str, tuple[Any, Manifest]] = {}
        self._looked: dict[str, tuple[float, list[RunSnapshot]]] = {}
        self._ledgers: dict[str, tuple[Any, Ledger]] = {}
        self._logs: OrderedDict[Path, NumberLog] = OrderedDict()

    # ---- all sweeps

    def overview(self) -> dict[str, Any]:
        """Each sweep in a few numbers, and all of them together, a run of two counted once."""
        with self._lock:
            sweeps: list[dict[str, Any]] = []
            everything: dict[tuple[str, str], RunSnapshot] = {}
            for name in manifest_names(self._store):
                try:
                    manifest, known = self._manifest(name), self._known(name)
                    search = self._ledger(name) is not None
                except HarnessError as error:
                    sweeps.append({"name": name, "problem": one_line(error)})
                    continue
                everything |= {_identity(one.run): one for one in known}
                question = manifest.sweep.question
                about = {"name": name, "question": question, "search": search}
                sweeps.append({**about, **_summary(known)})
            return {
                "root": str(self._store.root),
                "sweeps": sweeps,
                "all": _summary(list(everything.values())),
                "notes": self._queue.notes,
            }

    # ---- a sweep

    def sweep(self, name: str) -> dict[str, Any]:
        """The runs of a sweep; RecordError if there is none of that name."""
        with self._lock:
            manifest, known = self._manifest(name), self._known(name)
            show = manifest.sweep.show
            shown = list(dict.fromkeys(filter(None, [leading_metric(show, known), *show.metrics])))
            shown = shown[:METRICS_SHOWN]
            return {
                "name": name,
                "question": manifest.sweep.question,
                "command": " ".join(manifest.command),
                "file": None if manifest.sweep.source is None else manifest.sweep.source.path,
                "summary": _summary(known),
                "search": self._search(name),
                "notes": [*self._queue.notes, *submission_notes(self._store, name, known)],
                "metrics": [_about_metric(metric) for metric in shown],
                "points": [_point_row(point, shown) for point in by_point(known)],
                "failures": [_failure_row(alike) for alike in alike_failures(known)],
                "report": self._report(name),
                "runs": [_run_row(one, shown) for one in known],
            }

    def report_file(self, name: str, path: str) -> Path:
        """A file of the report of a sweep; RecordError if there is none, or it lies elsewhere."""
        with self._lock:
            self._manifest(name)
        reports = (self._store.root / "reports").resolve()
        folder = (reports / name).resolve()
        file = (folder / path).resolve()
        inside = folder.is_relative_to(reports) and file.is_relative_to(folder)
        if not inside or not file.is_file():
            raise RecordError(f"the report of {name} has no file {path}")
        return file

    def sweep_curves(self, name: str, series: str) -> dict[str, Any]:
        """One number of the training logs of a sweep's runs, and which numbers there are.

        Of more than `CURVES_SHOWN` runs those that go on come first, then those that ended last.
        """
        with self._lock:
            known = self._known(name)
            begun = [one for one in known if one.state != "new"]
            begun.sort(key=lambda one: (_FIRST_DRAWN.get(one.state, 3), -(one.beat or 0.0)))
            names: dict[str, None] = {}
            curves = []
            for one in begun[:CURVES_SHOWN]:
                run = one.run
                logs = self._number_logs(self._store.run_dir(run.key))
                for columns in logs:
                    names |= dict.fromkeys(columns)
                found = next((columns for columns in logs if series in columns), None)
                if found is not None:
                    about = {"key": run.key, "label": run.label, "seed": run.seed}
                    drawn = thinned(found, [series], CURVE_POINTS)
                    curves.append({**about, "state": one.state, **_one_series(drawn, series)})
            names.pop(X, None)
            names.pop("step", None)
            return {
                "series": series,
                "names": sorted(names, key=_rank),
                "curves": curves,
                "left_out": max(0, len(begun) - CURVES_SHOWN),
            }

    def _report(self, name: str) -> dict[str, Any]:
        """When the page of the report was made, None if there is none; how to make it (again)."""
        found = sign(self._store.root / "reports" / name / REPORT)
        made = None if found is None else found[0] / 1e9
        return {"made": made, "command": f"python -m harness.report {shlex.quote(name)}"}

    # ---- a run

    def run(self, key: str) -> dict[str, Any]:
        """All there is on a run; RecordError if there is no such run."""
        with self._lock:
            run, sweeps = self._find(key)
            (known,) = self._reader.read([run], self._queue.places)
            directory = self._store.run_dir(key)
            return {
                **_run_row(known, []),
                "directory": str(directory.path),
                "sweeps": sweeps,
                "samples": run.config.train.samples,
                "point": dict(run.point),
                "config": run.config.model_dump(mode="json"),
                "hours": device_hours([known]),
                "parents": [parent.key for parent in run.parents],
                **_records(directory, run.config),
                "logs": [file.name for file in self._log_files(directory)],
            }

    def run_curves(self, key: str) -> dict[str, Any]:
        """The training log of a run and its evaluations while it trained, as columns."""
        with self._lock:
            self._find(key)
            logs = self._number_logs(self._store.run_dir(key))
            parts = [thinned(log, [n for n in log if n not in {X, "step"}], POINTS) for log in logs]
            return {"training": parts[0], "evaluations": parts[1]}

    def run_log(self, key: str, name: str | None) -> dict[str, Any]:
        """The end of one of a run's logs, the last one unless its `name` is given."""
        self._find(key)
        files = {file.name: file for file in self._log_files(self._store.run_dir(key))}
        if not files:
            return {"file": None, "text": "", "bytes": 0, "cut": False}
        chosen = name if name is not None else list(files)[-1]
        if chosen not in files:
            raise RecordError(unknown("log", chosen, files))
        try:
            return tail(files[chosen])
        except OSError as error:
            raise RecordError(f"{files[chosen]} cannot be read: {one_line(error)}") from None

    # ---- looking

    def _manifest(self, name: str) -> Manifest:
        if name not in manifest_names(self._store):
            raise RecordError(unknown("sweep", name, manifest_names(self._store)))
        signs = sign(self._store.manifest_file(name))
        before = self._manifests.get(name)
        if before is None or before[0] != signs:
            before = (signs, read_manifest(self._store, name))
            self._manifests[name] = before
            self._looked.pop(name, None)
        return before[1]

    def _ledger(self, name: str) -> Ledger | None:
        """What was tried, if the sweep is a search; read again when it changed."""
        signs = sign(search_folder(self._store, name) / "trials")
        if signs is None:
            return None
        before = self._ledgers.get(name)
        if before is None or before[0] != signs:
            before = (signs, Ledger.of(self._store, name))
            self._ledgers[name] = before
        return before[1]

    def _search(self, name: str) -> dict[str, Any] | None:
        """How far a search is, and its best trial so far; None for a list of runs."""
        ledger = self._ledger(name)
        if ledger is None:
            return None
        about = ledger.about()
        best = next(iter(best_trials(list(ledger), about["objectives"])), None)
        return {
            "wanted": about["trials"],
            "over": sum(trial.over and trial.counts for trial in ledger),
            "objectives": [_about_metric(goal) for goal in about["objectives"]],
            "best": [] if best is None else list(best.values or ()),
            "trial": None if best is None else best.number,
            "run": None if best is None else best.key,
        }

    def _known(self, name: str) -> list[RunSnapshot]:
        manifest = self._manifest(name)
        looked, known = self._looked.get(name, (-LOOK_SECONDS, []))
        if time.monotonic() - looked >= LOOK_SECONDS:
            known = self._reader.read(manifest.runs, self._queue.places)
            self._looked[name] = (time.monotonic(), known)
        return known

    def _find(self, key: str) -> tuple[Run, list[str]]:
        """The run, and the sweeps it is in; one that is in none is known by its directory alone."""
        found: Run | None = None
        sweeps = []
        with self._lock:
            for name in manifest_names(self._store):
                try:
                    manifest = self._manifest(name)
                except HarnessError:
                    continue  # the overview tells of it
                for run in manifest.runs:
                    if run.key == key:
                        found = run
                        sweeps.append(name)
        if found is not None:
            return found, sweeps
        if not _KEY.fullmatch(key) or not (self._store.run_dir(key).path / "config.json").is_file():
            raise RecordError(f"there is no run {key} under {self._store.root}")
        directory = self._store.run_dir(key)
        job = read_json(directory.path / "job.json") or {}
        config = directory.read_config()
        return Run(str(job.get("label", key)), {}, config.seed, config), []

    def _log_files(self, directory: RunDir) -> list[Path]:
        try:
            return log_files(self._store, directory)
        except FileNotFoundError:  # set aside at this moment
            return []

    def _number_logs(self, directory: RunDir) -> list[Mapping[str, Any]]:
        """Columns of the training log, and of the evaluations while it trained."""
        return [
            self._number_log(file).columns()
            for file in (directory.metrics_file, directory.path / "progress.jsonl")
        ]

    def _number_log(self, file: Path) -> NumberLog:
        log = self._logs.pop(file, None) or NumberLog(file)
        self._logs[file] = log
        while len(self._logs) > LOGS_KEPT:
            self._logs.popitem(last=False)
        return log


class _Queue:
    """What the scheduler says of the runs, asked now and then beside everything else."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked = float("-inf")
        self._asking: threading.Thread | None = None
        self._found: tuple[dict[str, QueuePlace], list[str]] = ({}, [])

    @property
    def places(self) -> dict[str, QueuePlace]:
        """Key -> place, as it was when the scheduler answered last."""
        self._ask_if_due()
        return self._found[0]

    @property
    def notes(self) -> list[str]:
        """Why the scheduler says nothing, if so."""
        return self._found[1]

    def _ask_if_due(self) -> None:
        busy = self._asking is not None and self._asking.is_alive()
        if busy or time.monotonic() - self._asked < scheduler.POLL_SECONDS:
            return
        self._asked = time.monotonic()
        self._asking = threading.Thread(target=self._ask, name="queue", daemon=True)
        self._asking.start()

    def _ask(self) -> None:
        notes: list[str] = []
        try:
            places = queue_of(self._store, notes.append).places
        except (HarnessError, OSError) as error:
            self._found = ({}, [one_line(error)])
            return
        self._found = (places, notes)


# --------------------------------------------------------------------------- words and numbers


def _identity(run: Run) -> tuple[str, str]:
    return run.key, run.evaluation_key


def _summary(snapshots: Sequence[RunSnapshot]) -> dict[str, Any]:
    """The runs by state and failure, and how fast they go on."""
    summary = dict(vars(Summary.of(snapshots)))
    failures = Counter(summary.pop("reasons").get(RunState.FAILED))
    return {**summary, "failures": dict(failures.most_common())}


def _run_row(one: RunSnapshot, shown: Iterable[str]) -> dict[str, Any]:
    values = {} if one.finished is None else one.finished.metrics
    return {
        "key": one.run.key,
        "label": one.run.label,
        "seed": one.run.seed,
        "state": one.state,
        "words": one.words,
        "share": round(one.share, 4),
        "seen": one.status.samples_seen,
        "rate": one.rate,
        "wait": one.data_wait,
        "loss": one.loss,
        "left": one.left,
        "beat": one.beat,
        "failure": one.status.failure,
        "error": one.status.error,
        "values": [values.get(name) for name in shown],
    }


def _point_row(point: PointSnapshot, shown: Iterable[str]) -> dict[str, Any]:
    """The seeds of a point as they stand, and each metric over those that are done."""
    return {
        "label": point.label,
        "share": round(point.share, 4),
        "seeds": [{"seed": r.run.seed, "key": r.run.key, "state": r.state} for r in point.runs],
        "values": [None if (v := point.values(name)) is None else vars(v) for name in shown],
    }


def _failure_row(alike: Sequence[RunSnapshot]) -> dict[str, Any]:
    """What these runs died of, in the words of the first, and which they are."""
    first = alike[0]
    named = [{"key": r.run.key, "label": r.run.label, "seed": r.run.seed} for r in alike]
    about = {"failure": first.failure, "error": first.status.error, "count": len(alike)}
    return {**about, "runs": named[:_RUNS_NAMED]}


def _about_metric(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "words": metrics.display(name),
        "scale": metrics.scale(name),
        "unit": metrics.unit(name),
    }


def _records(directory: RunDir, config: RunConfig) -> dict[str, Any]:
    """What the run's files say beyond its state; a file that cannot be read says why instead."""
    found: dict[str, Any] = {"problems": []}
    for name, read in (
        ("result", lambda: _result(directory, config)),
        ("attempts", lambda: (read_json(directory.path / "provenance.json") or {}).get("attempts")),
        ("ends", directory.ends),
        ("stop", directory.stop_requested),
        ("node", lambda: node_of(directory)),
        ("trace", lambda: (read_json(directory.status_file) or {}).get("trace")),
    ):
        try:
            found[name] = read()
        except (RecordError, KeyError, TypeError, AttributeError) as error:
            found[name] = None
            found["problems"].append(one_line(error))
    return found


def _result(directory: RunDir, config: RunConfig) -> dict[str, Any] | None:
    result = directory.result()
    if result is None:
        return None
    evaluation = result["evaluations"].get(config.evaluation_key)
    values = {} if evaluation is None else evaluation["metrics"]
    return {
        "metrics": [{**_about_metric(name), **values[name]} for name in sorted(values)],
        "training": result["training"],
        "cost": result["cost"],
        "checkpoint": result["checkpoint"],
        "code": result.get("code"),
    }


def _one_series(drawn: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"x": drawn["x"], "y": drawn["series"][name], "lines": drawn["lines"]}


def _rank(name: str) -> tuple[int, str]:
    """The loss first, then its terms, then what was evaluated, then the rest."""
    first = ("loss", "terms/", "validation/", "test/")
    return next((i for i, start in enumerate(first) if name.startswith(start)), len(first)), name
