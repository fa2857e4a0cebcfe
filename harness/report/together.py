"""Several sweeps on file as one report: `python -m harness.report A B --together NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.document.layout import NARROWEST
from harness.errors import ConfigError
from harness.report.folder import locked, write_collection
from harness.report.result import ReportResult
from harness.report.union import merge
from harness.results.collect import collect
from harness.results.contrast import listed
from harness.store.manifest import manifest_names, read_manifest
from harness.store.record import Store


def together(
    store: Store, names: Sequence[str], name: str, out: Path, layout: str = NARROWEST
) -> ReportResult:
    """Write the report `name` of the sweeps `names` to `out`.

    Raises:
        ConfigError: fewer than two sweeps, or a name that is a sweep's or no folder's.
        DifferentTestsError: the sweeps were evaluated on different data or by different rules.
    """
    check_name(store, names, name)
    manifests = [read_manifest(store, each) for each in names]
    parts = [(m.sweep.name, collect(m.sweep, m.runs, store)) for m in manifests]
    collection = merge(parts, name=name, question=f"{listed(list(names))} in one table")
    made = {"together": list(names), "name": name}
    with locked(out):
        return write_collection(collection, store, out, made, layout)


def check_name(store: Store, names: Sequence[str], name: str) -> None:
    """ConfigError unless `names` can be put together under `name`."""
    if len(names) < 2:
        raise ConfigError(f"--together is for several sweeps, and {len(names)} is given")
    if name in {"", ".", ".."} or Path(name).name != name:
        raise ConfigError(f"--together names the report, and its folder: {name!r} is no such name")
    if name in manifest_names(store):
        raise ConfigError(f"{name} is a sweep, which has a report of its own; give another name")
