"""What a run writes while it goes on: where, numbers as columns, and the end of what it prints.

A log of numbers that grew is read on from where it ended.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.files import numbers_of, open_regular
from harness.launch.slurm.submissions import submissions
from harness.store.first_stage import progress
from harness.store.record import RunDir, Store

X = "samples_seen"
POINTS = 1000
"""Most points of a curve that are shown; of a longer one every n-th is, and the last."""
TAIL_BYTES = 64 * 1024
_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class NumberLog:
    """A log of one JSON object a line, such as metrics.jsonl, kept as columns.

    Values in objects within a line have names with a slash, `terms/instance`; text is left out.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._forget()

    def _forget(self) -> None:
        self._inode, self._read = -1, 0
        self._lines = 0
        self._columns: dict[str, array[float]] = {}

    def columns(self) -> dict[str, array[float]]:
        """Name -> values, all of one length, NaN where a line has none; as the file is now."""
        try:
            with open_regular(self._file) as file:
                self._go_on(file)
        except FileNotFoundError:
            self._forget()
        return self._columns

    def _go_on(self, file: Any) -> None:
        inode = _inode(file)
        size = file.seek(0, 2)
        if inode != self._inode or size < self._read:  # rewound by a run that was resumed
            self._forget()
            self._inode = inode
        file.seek(self._read)
        whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for line in whole.splitlines():
            self._add(line)

    def _add(self, line: bytes) -> None:
        try:
            written = json.loads(line)
        except (ValueError, RecursionError):  # torn, when a machine went down
            return
        if not isinstance(written, dict) or X not in written:
            return
        for name, value in numbers_of(progress(written)).items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = array("d", [math.nan] * self._lines)
            column.append(value)
        self._lines += 1
        for column in self._columns.values():
            if len(column) < self._lines:
                column.append(math.nan)


def _inode(file: Any) -> int:
    import os

    return os.fstat(file.fileno()).st_ino


def thinned(columns: Mapping[str, array[float]], names: list[str], points: int) -> dict[str, Any]:
    """`x`, `names` and how many lines there are, as strict JSON holds them."""
    count = len(columns.get(X, ()))
    every = max(1, math.ceil(count / points))
    chosen = sorted({*range(0, count, every), count - 1}) if count else []
    return {
        "lines": count,
        "every": every,
        "x": [_plain(columns[X][i]) for i in chosen],
        "series": {name: [_plain(columns[name][i]) for i in chosen] for name in names},
    }


def _plain(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.6g}")


def tail(file: Path) -> dict[str, Any]:
    """The end of a text file, as a terminal would leave it: without colours and overwritten text.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(file) as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - TAIL_BYTES))
        data = opened.read(TAIL_BYTES)
    if size > TAIL_BYTES:
        data = data.partition(b"\n")[2] or data
    text = _ESCAPE.sub("", data.decode("utf-8", errors="backslashreplace"))
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return {
        "file": str(file),
        "bytes": size,
        "cut": size > TAIL_BYTES,
        "text": _CONTROL.sub("\ufffd", "\n".join(lines)),
    }


# --------------------------------------------------------------------------- where


def node_of(directory: RunDir) -> str | None:
    """Where the last attempt of a run was, or is."""
    attempts = directory.provenance()
    if not attempts:
        return None
    last = attempts[-1]
    return str(last.get("slurm", {}).get("node") or last.get("host", "")) or None


def log_files(store: Store, directory: RunDir) -> list[Path]:
    """What the attempts of a run printed, the last one last; its job if the run never began."""
    files = _inside(directory.path, (directory.path / "logs").glob("attempt-*.txt"))
    return sorted(files, key=lambda file: file.stat().st_mtime) or _job_logs(store, directory.key)


def _job_logs(store: Store, key: str) -> list[Path]:
    found: list[Path] = []
    for submission in submissions(store):
        for number, jobs in enumerate(submission.read().arrays):
            job = submission.job(number)
            for index, keys in enumerate(jobs.tasks):
                if key in keys and job is not None:
                    logs = submission.logs.glob(f"{job}_{index}_*_log.out")
                    found += sorted(_inside(submission.folder, logs))
    return found


def _inside(folder: Path, files: Iterable[Path]) -> list[Path]:
    """The regular files that are in `folder`, and no links that lead out of it."""
    home = folder.resolve()
    return [f for f in files if f.is_file() and f.resolve().is_relative_to(home)]
