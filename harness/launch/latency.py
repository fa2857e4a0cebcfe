"""A sitting: the towers of finished runs timed in turns, alone on the machine.

One lock a machine keeps two sittings apart.  Other work is not kept away but noticed: each timing
carries its own spread, the sitting the load before and after.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from harness.config import FORMS, DeployedForm, canonical_json
from harness.config.sweep import Run
from harness.errors import ConfigError, HarnessError, RecordError, one_line
from harness.files import read_regular
from harness.store.deployed import (
    Sitting,
    Timing,
    files_of,
    forms_of,
    now,
    read_sittings,
    write_sitting,
)
from harness.store.provenance import machine
from harness.store.record import RunDir, Store

BATCHES = (1, 32)
CALLS, TURNS = 200, 4
_SECONDS = 30.0
"""Of a batch of one tower in one turn, however slow its calls."""
_LOCK_SECONDS = 900.0
_TOWERS = ("image", "text")
_MOST_BYTES = 2 << 30


@dataclass(frozen=True)
class _Tower:
    """A file to time."""

    key: str
    form: str
    tower: str
    file: Path
    sha256: str


def sit(runs: Sequence[RunDir], threads: int, say: Callable[[str], None]) -> Sitting:
    """Time every deployed form of `runs`; the same file of two runs is timed once.

    Each turn times every file once in a process of its own, so that a slow spell of the machine
    falls on all of them alike.

    Raises:
        ConfigError: no run has a deployed form, or another sitting holds this machine for long.
        RecordError: a file is not the one that was scored, or is not to be run.
    """
    towers = [tower for run in runs for tower in _towers(run)]
    if not towers:
        raise ConfigError(
            'none of these runs has a deployed form; evaluate.deploy=["onnx", "onnx-int8"] '
            "makes them, and retrains nothing"
        )
    distinct = {tower.sha256: tower for tower in towers}
    turns: dict[str, list[Mapping[str, Any]]] = {sha256: [] for sha256 in distinct}
    with _alone():
        before, when = os.getloadavg()[0], now()
        for turn in range(1, TURNS + 1):
            say(f"turn {turn} of {TURNS}: {len(distinct)} towers, batches of {_listed(BATCHES)}")
            for sha256, tower in distinct.items():
                turns[sha256].append(_probe(tower, threads))
        after = os.getloadavg()[0]
    told = {"threads": threads, "onnxruntime": version("onnxruntime")}
    told |= {"load": [round(load, 2) for load in (before, after)]}
    rows = [row for tower in towers for row in _rows(tower, turns[tower.sha256])]
    return Sitting(when, {**machine(), **told}, tuple(rows))


def first_of_each_point(runs: Sequence[Run], store: Store) -> list[RunDir]:
    """One finished run a point: speed does not depend on the seed."""
    found: dict[str, RunDir] = {}
    for run in runs:
        directory = store.run_dir(run.key)
        point = canonical_json(run.point)
        if point not in found and directory.result_file.exists() and _scored(directory):
            found[point] = directory
    return list(found.values())


def time_what_is_untimed(
    runs: Sequence[Run], store: Store, threads: int, say: Callable[[str], None]
) -> None:
    """Hold a sitting for the deployed forms of a sweep unless an earlier one measured them all.

    Why it could not be held is said, and stops nothing.
    """
    chosen = first_of_each_point(runs, store)
    wanted = {
        digest for run in chosen for files in _scored(run).values() for digest in files.values()
    }
    sittings, _ = read_sittings(store)
    if any(wanted <= {timing.sha256 for timing in sitting.timings} for sitting in sittings):
        return
    try:
        write_sitting(store, sit(chosen, threads, say))
    except HarnessError as error:
        say(f"latency was not measured: {one_line(error)}")


def _listed(batches: Sequence[int]) -> str:
    return " and ".join(map(str, batches))


def _towers(run: RunDir) -> Iterator[_Tower]:
    """The files of every form that the run's latest evaluation scored."""
    from harness.evaluate.deploy.sessions import check_packages, check_self_contained

    check_packages("bench latency")
    for form, digests in _scored(run).items():
        for tower in _TOWERS:
            file = run.path / FORMS / form / f"{tower}.onnx"
            try:
                data = read_regular(file, _MOST_BYTES)
            except OSError as error:
                raise RecordError(f"{file} cannot be read: {error.strerror}") from None
            check_self_contained(data, str(file))
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 != digests[tower]:
                raise RecordError(f"{file} is not the file that was scored: its SHA-256 differs")
            yield _Tower(run.key, form, tower, file, sha256)


def _scored(run: RunDir) -> dict[str, dict[str, str]]:
    """Form -> tower -> SHA-256 of the file that the run's latest evaluation of it scored."""
    return {
        form: files
        for evaluation in run.finished()["evaluations"].values()
        for form, entry in forms_of(evaluation).items()
        if form in get_args(DeployedForm) and set(files := files_of(entry)) == set(_TOWERS)
    }


def _probe(tower: _Tower, threads: int) -> Mapping[str, Any]:
    """What `harness.evaluate.deploy.probe` prints of a file."""
    command = [sys.executable, "-m", "harness.evaluate.deploy.probe", str(tower.file)]
    command += ["--threads", str(threads), "--calls", str(-(-CALLS // TURNS))]
    command += ["--seconds", str(_SECONDS), "--batches", *map(str, BATCHES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"{tower.file} could not be timed: {last[:300]}")
    told: Mapping[str, Any] = json.loads(done.stdout)
    return told


def _rows(tower: _Tower, turns: Sequence[Mapping[str, Any]]) -> Iterator[Timing]:
    """What the turns of one file come to, for each batch."""
    for batch in turns[0]["times_ms"]:
        found = [each for told in turns for each in told["times_ms"][batch]]
        yield Timing(
            tower.key,
            tower.form,
            tower.tower,
            tower.sha256,
            int(batch),
            len(found),
            least=min(found),
            median=statistics.median(found),
            p90=statistics.quantiles(found, n=10, method="inclusive")[-1],
            load_ms=min(told["load_ms"] for told in turns),
            memory_mb=max(told["memory_mb"] for told in turns),
            waited=statistics.mean(told["waited"][batch] for told in turns),
        )


@contextmanager
def _alone() -> Iterator[None]:
    """The right to time on this machine, whoever asks; ConfigError when others have it for long."""
    path = Path(tempfile.gettempdir()) / "harness-latency.lock"
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags | os.O_CREAT, 0o644)
    except PermissionError:  # another user's file in a sticky folder, which locks as well
        handle = os.open(path, flags)
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened: {error.strerror}; remove it") from None
    try:
        end = time.monotonic() + _LOCK_SECONDS
        while not _locked(handle):
            if time.monotonic() > end:
                raise ConfigError(
                    f"another sitting has held this machine for {_LOCK_SECONDS / 60:g} minutes "
                    f"({path}); try again when it is done"
                )
            time.sleep(0.5)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
