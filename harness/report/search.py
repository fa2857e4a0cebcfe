"""The report of a search: what was best, whether that holds, what mattered, what it cost.

Made from the records alone, and the same records give the same bytes.  The comparison with fresh
seeds is an ordinary sweep with an ordinary report, to which the page points.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.config.sweep import Run
from harness.document.blocks import Figure
from harness.document.escaping import frame_csv
from harness.document.layout import LAYOUTS, NARROWEST, PaperLayout
from harness.figures.base import SEARCH
from harness.files import sha256_of
from harness.report.folder import document_files, facts_of_run, locked, makers, write_files
from harness.report.result import ReportResult
from harness.report.run_data import run_data
from harness.report.search_content import write_search_content
from harness.report.search_data import CONFIRMED, SearchData, read_search
from harness.results.collect import Collection, collect
from harness.results.records import Record
from harness.store.manifest import manifest_names, read_manifest
from harness.store.record import Store
from harness.store.trials import Ledger, Outcome


def build_search(name: str, store: Store, out: Path, layout: str = NARROWEST) -> ReportResult:
    """Write the report of the search `name` to the folder `out`.

    Raises:
        RecordError: there is nothing on disk of that search.
        ReportBusyError: another process has been writing this report for a minute.
    """
    with locked(out):
        data = read_search(name, store)
        collection = _collection(name, store)
        records = () if collection is None else collection.records
        runs = None if collection is None else run_data(collection)
        paper = LAYOUTS[layout]
        document = write_search_content(data, _figures(data, paper), records)
        trials = frame_csv(data.frame()).encode()
        files = {**document_files(document, paper, runs), "trials.csv": trials}
        written = write_files(out, files, _manifest(data, store, records, layout))
    left = sum(not trial.over for trial in data.trials)
    return ReportResult(
        complete=bool(data.trials) and not left + data.holes and not _to_confirm(data),
        holes=left + data.holes,
        failed=sum(trial.outcome is Outcome.FAILED for trial in data.trials),
        files=written,
    )


def _figures(data: SearchData, layout: PaperLayout) -> tuple[Figure, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # evaluators of importance that are marked experimental
        return SEARCH.rendered(data, layout.text)


def _to_confirm(data: SearchData) -> bool:
    return bool(data.best and data.about["confirm"] and not data.confirmed)


def _collection(name: str, store: Store) -> Collection | None:
    """The runs of the trials and of the confirmation; None before any is on file."""
    known = manifest_names(store)
    manifests = [read_manifest(store, n) for n in (name, name + CONFIRMED) if n in known]
    runs: dict[str, Run] = {run.key: run for manifest in manifests for run in manifest.runs}
    return collect(manifests[0].sweep, list(runs.values()), store) if runs else None


def _manifest(
    data: SearchData, store: Store, records: Sequence[Record], layout: str
) -> dict[str, Any]:
    """Every file read, with its hash."""
    return {
        "made": {"search": data.name},
        "layout": layout,
        "makers": makers(),
        "external": {},
        "inputs": dict(_inputs(data, store)),
        "runs": [facts_of_run(record, store) for record in records],
    }


def _inputs(data: SearchData, store: Store) -> Iterator[tuple[str, str]]:
    """What is read beside the records of the runs: the ledger, manifests, progress."""
    ledger = Ledger.of(store, data.name)
    files = [ledger.definition_file, *sorted((ledger.folder / "trials").glob("*.json"))]
    files += [store.manifest_file(name) for name in (data.name, data.name + CONFIRMED)]
    files += [store.run_dir(t.key).progress_file for t in data.trials if t.number in data.curves]
    for file in dict.fromkeys(files):
        if file.exists():
            digest = sha256_of(file)
            yield file.relative_to(store.root).as_posix(), digest
