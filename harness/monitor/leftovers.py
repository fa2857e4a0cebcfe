"""What lies in a store, or in the cache of this machine, that nothing on record needs any more.

Reads and frees nothing itself.  A record is never among it: neither a configuration, a log, a
result nor the outcomes of a run.  What is linked to from elsewhere is not looked into.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.config.sweep import Run
from harness.errors import HarnessError
from harness.files import read_json
from harness.launch.slurm.submissions import submissions
from harness.planning.plan import TRANSIENT
from harness.store.lease import lease_is_live
from harness.store.manifest import manifest_names, read_manifest
from harness.store.record import RunDir, Store
from harness.store.state import State
from harness.store.trials import PRUNED

DAY = 86_400.0
_RESUMABLE = TRANSIENT | {"time_limit", "node_failure", "preempted"}


@dataclass(frozen=True)
class Leftover:
    """A file or folder that may go.

    Attributes:
        size: bytes, of all files in it.
        why: why nothing needs it.
    """

    path: Path
    size: int
    why: str


def leftovers(store: Store, cache: Path, days: float) -> list[Leftover]:
    """All there are, the largest first.

    Args:
        days: how long a cache or a temporary file has not been used or changed, at least; what
            was used since a run began that a sweep still waits for stays anyway.
    """
    before = time.time() - days * DAY
    wanted = min([before, *(_begun(run) for run in _with_work_left(store))])
    found = [
        *_of_runs(store),
        *_set_aside(store),
        *_of_rehearsals(store),
        *_frozen_code(store),
        *_temporaries(store, before),
        *_caches(cache, wanted),
    ]
    return sorted((each for each in found if each.size), key=lambda each: (-each.size, each.path))


def _files(folder: Path) -> list[Path]:
    """Every file below a folder that is none of a link; the folder itself is none either."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    return [
        Path(where) / name
        for where, _, names in os.walk(folder)
        for name in names
        if not (Path(where) / name).is_symlink()
    ]


def _size(paths: Iterable[Path]) -> int:
    return sum(path.lstat().st_size for path in paths)


def _leftover(path: Path, why: str) -> Leftover:
    return Leftover(path, _size(_files(path) if path.is_dir() else [path]), why)


# --------------------------------------------------------------------------- checkpoints


def _folders(parent: Path) -> list[Path]:
    if parent.is_symlink() or not parent.is_dir():
        return []
    return sorted(f for f in parent.iterdir() if f.is_dir() and not f.is_symlink())


def _of_runs(store: Store) -> Iterator[Leftover]:
    """States of runs that are finished, or failed so that they would begin anew."""
    for folder in _folders(store.runs):
        run = RunDir(folder)
        files = _files(run.checkpoints)
        if not files or lease_is_live(run.lease_file):
            continue
        try:
            status, result = run.look()
        except HarnessError:
            continue  # what cannot be read may be needed
        if result is not None:
            kept = {_named(result.get(part)) for part in ("checkpoint", "training_modules")}
            for file in files:
                if file.relative_to(folder).as_posix() not in kept:
                    yield _leftover(file, "not what the result of its run was made with")
        elif (status.details or {}).get("stopped") == PRUNED:
            yield from (_leftover(file, "its trial was pruned") for file in files)
        elif status.state is State.FAILED and status.failure not in _RESUMABLE:
            why = f"its run failed ({status.failure or 'bug'}) and would begin anew"
            yield from (_leftover(file, why) for file in files)


def _named(entry: object) -> str:
    return str(entry.get("file")) if isinstance(entry, dict) else ""


def _set_aside(store: Store) -> Iterator[Leftover]:
    for folder in _folders(store.runs / "superseded"):
        if _files(folder / "checkpoints"):
            yield _leftover(folder / "checkpoints", "its run was made anew; its records stay")


def _of_rehearsals(store: Store) -> Iterator[Leftover]:
    over = {each.folder.name for each in submissions(store) if not each.open}
    for rehearsal in _folders(store.root / "results" / "rehearsals"):
        if rehearsal.name in over:
            for folder in _folders(Store(rehearsal).runs):
                if _files(folder / "checkpoints"):
                    yield _leftover(folder / "checkpoints", "of a rehearsal that is over")


# --------------------------------------------------------------------------- code, caches


def _frozen_code(store: Store) -> Iterator[Leftover]:
    """Snapshots that no job in the queue runs, and from which no record's sweep file is read."""
    wanted = [each.read().code for each in submissions(store) if each.open]
    wanted += [path for path in _sweep_files(store) if path]
    for folder in _folders(store.root / "results" / "code"):
        if not any(Path(path).is_relative_to(folder) for path in wanted):
            yield _leftover(folder, "no submission that may be in the queue runs it")


def _sweep_files(store: Store) -> Iterator[str]:
    """Paths of the sweep files that the records name, resolved as they are."""
    files = [store.manifest_file(name) for name in manifest_names(store)]
    jobs = [folder / "job.json" for folder in _folders(store.runs)]
    for file, field in [*((f, "source") for f in files), *((f, "sweep") for f in jobs)]:
        source = (read_json(file) or {}).get(field)
        yield str(source.get("path", "")) if isinstance(source, dict) else ""


def _temporaries(store: Store, before: float) -> Iterator[Leftover]:
    """What killed writers left."""
    for file in _files(store.root / "results"):
        draft = file.name.startswith(".") and file.name.endswith(".tmp")
        if draft and file.lstat().st_mtime < before:
            yield _leftover(file, "a writer was killed")


def _with_work_left(store: Store) -> Iterator[RunDir]:
    """Runs of the sweeps on record that are not done, and would go on."""
    keys = {run.key for name in manifest_names(store) for run in _runs_of(store, name)}
    for run in map(store.run_dir, sorted(keys)):
        with suppress(HarnessError):
            status = run.status()
            given_up = status.state is State.FAILED and status.failure not in _RESUMABLE
            if status.state not in {State.NEW, State.DONE} and not given_up:
                yield run


def _runs_of(store: Store, name: str) -> Sequence[Run]:
    with suppress(HarnessError):
        return read_manifest(store, name).runs
    return ()


def _begun(run: RunDir) -> float:
    return (run.path / "config.json").stat().st_mtime


def _caches(cache: Path, before: float) -> Iterator[Leftover]:
    """What is made again when it is wanted, and was not wanted for long: each entry by itself."""
    for paths in _entries(cache).values():
        files = [file for path in paths for file in (_files(path) if path.is_dir() else [path])]
        if files and max(max(s.st_mtime, s.st_atime) for s in (f.lstat() for f in files)) < before:
            why = "a cache that was not used for long; it is made again"
            yield from (_leftover(path, why) for path in paths)


def _entries(cache: Path) -> dict[Path, list[Path]]:
    """What belongs together: an index (`shards-KEY`), else each of a folder, with its checksum."""
    if cache.is_symlink() or not cache.is_dir():
        return {}
    found: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(cache.iterdir()):
        several = path.is_dir() and not path.is_symlink() and "-" not in path.name
        for each in sorted(path.iterdir()) if several else [path]:
            if not each.is_symlink() and each.suffix != ".lock":
                beside = each.with_suffix("")
                found[beside if each.suffix == ".json" and beside.exists() else each].append(each)
    return found
