"""Whether the records of a report give the same bytes again, and the records it can carry.

A report's folder may hold `records/`: what was read of its runs, laid out as a root of its own, so
that anyone with the folder can make the report again.  Nothing is ever changed in a copy.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config.parents import parent_keys
from harness.document.layout import NARROWEST
from harness.errors import RecordError
from harness.files import MAX_JSON_BYTES, inside, read_json, read_regular, replacing, sha256_of
from harness.report.folder import MANIFEST, RECORDS, build, listed, makers
from harness.results.records import Reader, Record
from harness.store.checksums import changed_files, is_told
from harness.store.manifest import read_manifest
from harness.store.record import RunDir, Store
from harness.store.state import State


def check(folder: Path, root: Path) -> list[str]:
    """What is not as the report's manifest has it, a line each; nothing when all is the same.

    Args:
        folder: of the report.
        root: where the records lie, if the folder holds none.

    Raises:
        RecordError: there is no report in `folder`, or its records are not to be found.
    """
    told, store = _made_from(folder, root)
    written = ((folder / name, digest) for name, digest in listed(folder).items())
    problems = [
        *_changed(written, "is gone", "was edited after the report was made"),
        *_changed(_inputs(told, store), "is gone: the report was made from it",
                  "is another than the one that the report was made from"),
        *_damaged(told, store),
    ]  # fmt: skip
    if problems:
        return problems
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary) / "report"
        _build_again(told, store, again)
        problems = list(_differences(listed(folder), folder, again))
    return problems and [*problems, *_other_makers(told)]


def unchecked(folder: Path, root: Path) -> int:
    """How many of its runs tell no checksums of outcomes and logs; raises as `check` does."""
    told, store = _made_from(folder, root)
    return sum(not is_told(result) for _, result in _results(told, store))


def _made_from(folder: Path, root: Path) -> tuple[dict[str, Any], Store]:
    """The manifest of the report, and where its records lie."""
    told = read_json(folder / MANIFEST)
    if told is None:
        raise RecordError(f"{folder} holds no report: there is no {MANIFEST} in it")
    return told, Store(folder / RECORDS if (folder / RECORDS).is_dir() else root)


def _build_again(told: Mapping[str, Any], store: Store, out: Path) -> None:
    made, layout = told.get("made", {}), told.get("layout", NARROWEST)
    if "compare" in made:
        from harness.report.compare import compare

        first, second = made["compare"]
        compare(store, first, second, made["names"], out, layout)
        return
    if "together" in made:
        from harness.report.together import together

        together(store, made["together"], made["name"], out, layout)
        return
    if "search" in made:
        from harness.report.search import build_search

        build_search(made["search"], store, out, layout)
        return
    manifest = read_manifest(store, str(made.get("sweep")))
    build(manifest.sweep, manifest.runs, store, out, layout)


def _changed(files: Iterable[tuple[Path, str]], gone: str, edited: str) -> Iterator[str]:
    """The files that are not what the manifest says was written, or read."""
    for file, digest in files:
        try:
            if sha256_of(file) != digest:
                yield f"{file} {edited}"
        except FileNotFoundError:
            yield f"{file} {gone}"


def _damaged(told: Mapping[str, Any], store: Store) -> Iterator[str]:
    """What is not as the results of the runs tell; see harness.store.checksums."""
    for folder, result in _results(told, store):
        yield from changed_files(folder, result)


def _results(told: Mapping[str, Any], store: Store) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The folder and the result of every run that has one."""
    for run in told["runs"]:
        directory = RunDir(_in_results(store, run["place"]))
        result = directory.result() if "result.json" in run["inputs"] else None
        if result is not None:
            yield directory.path, result


def _inputs(told: Mapping[str, Any], store: Store) -> Iterator[tuple[Path, str]]:
    """Every file that the report was made from, and its SHA-256; RecordError for one elsewhere."""
    folder = store.root / "results" / "external"
    for name, digest in told["external"].items():
        yield inside(folder, name), digest
    for place, digest in told.get("inputs", {}).items():
        yield _in_results(store, place), digest
    for run in told["runs"]:
        for name, digest in run["inputs"].items():
            yield inside(_in_results(store, run["place"]), name), digest


def _in_results(store: Store, place: str) -> Path:
    """What a manifest calls `place`, from the root; `results` and `runs` may be links."""
    if place.startswith(runs := "results/runs/"):
        return inside(store.runs, place.removeprefix(runs))
    return inside(store.root / "results", place.removeprefix("results/"))


def _differences(files: Mapping[str, str], folder: Path, again: Path) -> Iterator[str]:
    made = listed(again)
    for name in sorted({*files, *made}):
        if files.get(name) != made.get(name):
            yield f"{folder / name}: the same records give other bytes now"
    if not any(files.get(name) != made.get(name) for name in {*files, *made}):
        here, there = (read_regular(place / MANIFEST, MAX_JSON_BYTES) for place in (folder, again))
        if here != there:
            yield f"{folder / MANIFEST}: the same records give another manifest now"


def _other_makers(told: Mapping[str, Any]) -> Iterator[str]:
    """The likeliest cause: another version of a package that draws or sets."""
    for name, here in makers().items():
        then = told.get("makers", {}).get(name)
        if then != here:
            yield f"made with {name} {then}, here is {here}"


# --------------------------------------------------------------------------- carrying the records


def keep_records(store: Store, names: Sequence[str], out: Path) -> int:
    """Copy what the report in `out` of these sweeps or searches was made from to `out/records`.

    Returns the number of bytes.

    Raises:
        RecordError: a run is at work, so that its records will not stay what they are.
    """
    runs = {run.key: run for name in names for run in read_manifest(store, name).runs}
    reader = Reader(store)
    records = [reader.read(0, run, store.run_dir(key)) for key, run in runs.items()]
    busy = [record for record in records if record.status.state is State.RUNNING]
    if busy:
        raise RecordError(
            f"{len(busy)} runs are at work ({busy[0].run.label}, seed {busy[0].seed}, ...): "
            "records can be kept once they rest"
        )
    told = read_json(out / MANIFEST) or {"runs": [], "external": {}}
    files = {file for file, _ in _inputs(told, store)} | set(_of_parents(records, store))
    files |= set(map(store.manifest_file, names))
    with replacing(out / RECORDS) as target:
        return sum(_copy(file, store.root, target) for file in sorted(files))


def _of_parents(records: list[Record], store: Store) -> Iterator[Path]:
    """What says why a run that waits for its parent was not begun."""
    for record in records:
        waiting = record.status.state is State.NEW
        for key in parent_keys(record.run.config, begins=True) if waiting else ():
            directory: RunDir = store.run_dir(key)
            for file in (directory.status_file, directory.result_file):
                if file.exists():
                    yield file


def _copy(file: Path, root: Path, target: Path) -> int:
    to = target / file.relative_to(root)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)
    return to.stat().st_size
