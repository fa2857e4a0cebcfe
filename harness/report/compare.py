"""Two sweeps, or one sweep as made by two versions of the code, in one report.

A comparison is a sweep with one more axis, `version`, whose first value is the baseline: tables,
figures and pages know nothing else of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.config.sweep import Points, Run, Show, Sweep, declared_by_all
from harness.document.layout import NARROWEST
from harness.errors import RecordError, unknown
from harness.files import read_json
from harness.report.folder import locked, write_collection
from harness.report.result import ReportResult
from harness.results.collect import VERSION, collect_from
from harness.store.manifest import manifest_names, read_manifest
from harness.store.record import RunDir, Store

_Places = list[tuple[Run, RunDir]]


def compare(
    store: Store,
    first: str,
    second: str,
    names: Sequence[str],
    out: Path,
    layout: str = NARROWEST,
) -> ReportResult:
    """Write the report of `second` against `first` to `out`.

    Args:
        first, second: two sweeps on file, or how two code hashes or commits begin.
        names: sweeps whose runs are compared between two versions; none: all on file.

    Raises:
        RecordError: one of the two is neither, or nothing is there to compare.
    """
    known = manifest_names(store)
    if first in known and second in known:
        if names:
            raise RecordError(
                f"{first} and {second} are two sweeps; name others ({', '.join(names)}) only when "
                "two versions of the code are compared"
            )
        sweep, places = _of_sweeps(store, first, second)
    else:
        for name in names:
            if name not in known:
                raise RecordError(unknown("sweep", name, known))
        sweep, places = _of_versions(store, first, second, names or known)
    with locked(out):
        made = {"compare": [first, second], "names": list(names)}
        found = collect_from(sweep, places, store)
        return write_collection(found, store, out, made, layout)


def _of_sweeps(store: Store, first: str, second: str) -> tuple[Sweep, _Places]:
    manifests = {name: read_manifest(store, name) for name in (first, second)}
    places = [
        (_marked(run, name), store.run_dir(run.key))
        for name, manifest in manifests.items()
        for run in manifest.runs
    ]
    shows = [manifest.sweep.show for manifest in manifests.values()]
    return _joined(manifests[first].sweep, places, first, second, shows), places


def _of_versions(
    store: Store, first: str, second: str, names: Sequence[str]
) -> tuple[Sweep, _Places]:
    manifests = [read_manifest(store, name) for name in names]
    runs = {run.key: run for manifest in manifests for run in manifest.runs}
    if not runs:
        raise RecordError(f"no sweep is on file in {store.manifests}; nothing to compare")
    found = {version: _made_by(store, runs, version) for version in (first, second)}
    for version, directories in found.items():
        if not directories:
            raise RecordError(_no_version(store, runs, version))
    either = [key for key in runs if any(key in places for places in found.values())]
    places = [
        (_marked(runs[key], version), directories.get(key, _nowhere(store, key, version)))
        for version, directories in found.items()
        for key in either
    ]
    shows = [manifest.sweep.show for manifest in manifests]
    return _joined(manifests[0].sweep, places, first, second, shows), places


def _marked(run: Run, version: str) -> Run:
    """`run` as a point of the joined sweep."""
    point = {**run.point, VERSION: version}
    return replace(run, label=f"{run.label}, {VERSION}={version}", point=point)


def _joined(sweep: Sweep, places: _Places, first: str, second: str, shows: Sequence[Show]) -> Sweep:
    """The sweep of both versions; none is asked to be enough, so that there is no margin."""
    show = replace(
        sweep.show,
        metrics=tuple(dict.fromkeys(metric for show in shows for metric in show.metrics)),
        hue=sweep.show.hue or VERSION,
        baseline={VERSION: first},
        **{**declared_by_all(shows), "margin": None},
    )
    return replace(
        sweep,
        points=Points(run.point for run, _ in places),
        show=show,
        name=f"{first}-against-{second}",
        question=f"What changed from {first} to {second}?",
        source=None,
    )


# --------------------------------------------------------------------------- versions of the code


def _made_by(store: Store, runs: dict[str, Run], version: str) -> dict[str, RunDir]:
    """Key -> the directory of the run whose result `version` made; the latest of several."""
    found: dict[str, RunDir] = {}
    for key in runs:
        for directory in _directories(store, key):
            if any(name.startswith(version) for name in _versions(directory)):
                found[key] = directory
                break
    return found


def _directories(store: Store, key: str) -> Iterator[RunDir]:
    """Where a run lies, and where it was set aside, latest first."""
    yield store.run_dir(key)
    aside = (store.runs / "superseded").glob(f"{key}.*")
    for path in sorted(aside, key=lambda p: -int(p.suffix[1:])):
        yield RunDir(path)


def _versions(directory: RunDir) -> list[str]:
    """The code hash of the result, and the commit of the attempt that finished it."""
    result = read_json(directory.result_file)
    if result is None:
        return []
    attempts = (read_json(directory.path / "provenance.json") or {}).get("attempts", [])
    commits = [attempt.get("commit") for attempt in attempts[-1:]]
    return [str(name) for name in (result.get("code"), *commits) if name]


def _nowhere(store: Store, key: str, version: str) -> RunDir:
    """The directory of a run that this version has not made: there is none."""
    return RunDir(store.runs / "superseded" / f"{key}.by-{version}")


def _no_version(store: Store, runs: dict[str, Run], version: str) -> str:
    names = {
        name[:12]
        for key in runs
        for directory in _directories(store, key)
        for name in _versions(directory)
    }
    known = manifest_names(store)
    return unknown("sweep, code hash or commit of a finished run", version, {*names, *known})
