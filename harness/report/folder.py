"""The report folder: which files a report has, how they are replaced, and what they were made from.

Every date and number comes from the records, so the same records give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.config.sweep import Run, Sweep
from harness.document.blocks import Document
from harness.document.html import to_html
from harness.document.latex import to_latex
from harness.document.layout import LAYOUTS, NARROWEST, PaperLayout
from harness.document.markdown import to_markdown
from harness.document.table import Table
from harness.document.typst import to_pdf
from harness.errors import HarnessError, RecordError
from harness.figures.base import SWEEP, Sheet
from harness.files import drop_leftovers, dump_json, inside, read_json, write_atomic
from harness.report import external
from harness.report.content import Parts, runs_with_holes, write_content
from harness.report.csv_files import runs_csv, statistics_csv
from harness.report.deployed import device_blocks, on_devices
from harness.report.published import beside_ours, evaluated_here
from harness.report.result import ReportResult
from harness.report.run_data import Packed, packed, with_files
from harness.report.tables import Tables, build_tables
from harness.results.collect import Collection, collect
from harness.results.findings import ReportFindings, find
from harness.results.lasting import lasting, no_garbage
from harness.results.records import Record
from harness.results.second_process import begin
from harness.store.checksums import is_told
from harness.store.record import Store

MANIFEST = "manifest.json"
RUNS = "runs.csv"
RECORDS = "records"
"""Folder of the records that a report may carry, laid out as a root of its own."""
_SCHEMA = 1
_LOCK_SECONDS = 60.0
#: What has a say in the bytes of a page.
_MAKERS = ("matplotlib", "seaborn", "numpy", "pandas", "scipy", "pillow", "typst")


class ReportBusyError(HarnessError):
    """Another process is writing the same report."""


@no_garbage()
def build(
    sweep: Sweep, runs: Sequence[Run], store: Store, out: Path, layout: str = NARROWEST
) -> ReportResult:
    """Write the report of `sweep` to the folder `out`, from what is on disk now.

    Args:
        runs: the whole expansion of the sweep, finished or not.
        out: replaced file by file, each atomically; files of an earlier report that are not part
            of this one are removed.  The same records give the same bytes.
        layout: the paper that tables and figures fit, a name of `harness.document.layout`.

    Raises:
        ReportBusyError: another process has been writing this report for a minute.
    """
    with locked(out):
        made = {"sweep": sweep.name}
        return write_collection(collect(sweep, runs, store), store, out, made, layout)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """The right to write the report at `out`; ReportBusyError after a minute of waiting."""
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.parent / f".{out.name}.lock", timeout=_LOCK_SECONDS)
    try:
        held = lock.acquire()
    except Timeout:
        raise ReportBusyError(
            f"{out} is being written by another process for over {_LOCK_SECONDS:g} s; "
            "call again with --report-only"
        ) from None
    with held:
        yield


def write_collection(
    collection: Collection,
    store: Store,
    out: Path,
    made: Mapping[str, Any],
    layout_name: str = NARROWEST,
) -> ReportResult:
    """Write the report of `collection` to `out`, whose lock is held.

    Args:
        made: what was asked for, in the words of the manifest; see `check.py`.
        layout_name: the paper that tables and figures fit, one of `LAYOUTS`.
    """
    of_runs = begin(lambda: (packed(collection), runs_csv(collection).encode()))
    findings = find(collection)
    with lasting():
        return _write(collection, findings, of_runs, store, out, made, LAYOUTS[layout_name])


def _write(
    collection: Collection,
    findings: ReportFindings,
    of_runs: Callable[[], tuple[Packed, bytes]],
    store: Store,
    out: Path,
    made: Mapping[str, Any],
    layout: PaperLayout,
) -> ReportResult:
    findings.note_inputs(collection.records)
    printed = external.load(store.root / "results" / "external")
    published = beside_ours(collection, findings.cells, printed, evaluated_here(store))
    devices = on_devices(collection, store)
    shipped = None if devices is None else Sheet(devices.forms, devices.findings)
    sheet = Sheet(collection, findings, published.matched, shipped)
    data_of_runs, table_of_runs = of_runs()
    names = SWEEP.names
    figures = begin(lambda: SWEEP.rendered(sheet, layout.text, names[::2]))
    tables = build_tables(collection, findings)
    others = SWEEP.rendered(sheet, layout.text, names[1::2])
    drawn = tuple(sorted((*figures(), *others), key=lambda figure: names.index(figure.name)))
    beside = _table_files(collection, findings, tables, layout)
    made_beside = begin(lambda: {name: make().encode() for name, make in beside.items()})
    of_devices = tuple(device_blocks(collection, devices))
    parts = Parts(tables, drawn, published, (*beside, RUNS), of_devices)
    document = write_content(collection, findings, parts)
    runs = with_files(data_of_runs, collection.records)
    files = {**document_files(document, layout, runs), **made_beside(), RUNS: table_of_runs}
    chosen = {} if collection.selection is None else collection.selection.inputs
    read = {**published.records, **({} if devices is None else devices.inputs), **chosen}
    inputs = {"external": dict(published.files), "inputs": read}
    written = write_files(out, files, _manifest(collection, store, inputs, made, layout))
    holes = runs_with_holes(collection)
    return ReportResult(
        complete=holes == 0,
        holes=holes,
        failed=sum(record.failed for record in collection.records),
        files=written,
        runs=len(collection.records),
        unchecked=sum(not is_told(r.result) for r in collection.records if r.result is not None),
    )


def _table_files(
    collection: Collection, findings: ReportFindings, tables: Tables, layout: PaperLayout
) -> dict[str, Callable[[], str]]:
    """The tables for a paper and for other programs: name of a file -> what makes it."""
    question = collection.sweep.question.strip()

    def tex(*given: Table) -> str:
        told = [replace(each, caption=f"{question} {each.caption}".strip()) for each in given]
        return to_latex(question, told, layout)

    appendix = [each for each in (tables.every, tables.effects) if each is not None]
    return {
        "table.tex": partial(tex, tables.lead),
        **({"appendix.tex": partial(tex, *appendix)} if appendix else {}),
        "table.csv": partial(statistics_csv, collection, findings),
    }


def document_files(
    document: Document, layout: PaperLayout, runs: str | None = None
) -> dict[str, bytes]:
    """The files of a page: each figure in all its forms, and Markdown, HTML and PDF.

    Args:
        layout: the paper that tables fit when they are copied as LaTeX.
        runs: what the page in HTML knows of the runs behind its numbers.
    """
    files = {
        f"figures/{figure.name}.{ending}": data
        for figure in document.figures()
        for ending, data in figure.files.items()
    }
    with ThreadPoolExecutor(1) as beside:
        paper = beside.submit(to_pdf, document)  # another process sets it meanwhile
        files["report.md"] = to_markdown(document).encode()
        files["report.html"] = to_html(document, runs, layout)
        files["report.pdf"] = paper.result()
    return files


def write_files(
    out: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> tuple[Path, ...]:
    """Put `files` into `out`, each atomically, and `manifest` with the hash of each beside them.

    Those of an earlier report that are not part of this one go, foreign ones stay.  Returns what
    was written.  RecordError, and nothing is, where a folder below `out` is a link that leaves it.
    """
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    told = {"schema": _SCHEMA, **manifest, "files": digests}
    stale = sorted(set(listed(out)) - set(files))
    places = {name: inside(out, name, replaced=True) for name in [*files, *stale, MANIFEST]}
    for folder in {place.parent for place in places.values()}:
        drop_leftovers(folder)
    for name, data in {**files, MANIFEST: dump_json(told)}.items():
        write_atomic(places[name], data)
    for name in stale:
        places[name].unlink(missing_ok=True)
    return tuple(out / name for name in [*files, MANIFEST])


def listed(out: Path) -> dict[str, str]:
    """Files of the report that is there now with their SHA-256, as its manifest lists them."""
    files = (read_json(out / MANIFEST) or {}).get("files", {})
    return {name: digest for name, digest in files.items() if _is_inside(out, name)}


def _is_inside(out: Path, name: str) -> bool:
    try:
        return inside(out, name, replaced=True) == out / name
    except RecordError:
        return False


def makers() -> dict[str, str]:
    """Package -> version of what has a say in the bytes of a page."""
    return {name: version(name) for name in _MAKERS}


def _manifest(
    collection: Collection,
    store: Store,
    inputs: Mapping[str, Any],
    made: Mapping[str, Any],
    layout: PaperLayout,
) -> dict[str, Any]:
    """Every run that was asked for with the hash of each file read."""
    return {
        "made": dict(made),
        "layout": layout.name,
        "makers": makers(),
        "sweep": collection.sweep.name,
        "question": collection.sweep.question,
        "sweep_sha256": collection.sweep.source and collection.sweep.source.sha256,
        "metrics": collection.metrics,
        **inputs,
        "runs": [
            {
                **facts_of_run(record, store),
                "used": record.reason is None,
                "reason": record.reason,
                "code": record.code,
                "evaluation_key": record.evaluation_key,
            }
            for record in collection.records
        ],
    }


def facts_of_run(record: Record, store: Store) -> dict[str, Any]:
    """What every manifest tells of a run: what it is, where it lies, the hash of each file read."""
    return {
        "key": record.run.key,
        "label": record.run.label,
        "seed": record.seed,
        "state": record.status.state.value,
        "place": record.directory.relative_to(store.root).as_posix(),
        "inputs": dict(sorted(record.inputs.items())),
    }
