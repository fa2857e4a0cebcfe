"""The report of a search: what was best, whether that holds, what mattered, what it cost.

Made from the records alone, and the same records give the same bytes.  The comparison with fresh
seeds is an ordinary sweep with an ordinary report, to which the page points.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from harness.ledger import Ledger, Outcome
from harness.manifest import manifest_names, read_manifest
from harness.record import Store
from harness.report import ReportResult, style, text, words
from harness.report.collect import Collection, collect
from harness.report.folder import facts_of_run, figure_files, locked, makers, write_files
from harness.report.html import page_of_runs
from harness.report.pdf import drawings_of, grid_of, paper
from harness.report.records import Record
from harness.report.search_content import Finding, SearchContent, write_search_content
from harness.report.search_data import CONFIRMED, SearchData, read_search
from harness.report.search_figures import draw_search
from harness.space import Run

_PRINTED_TRIALS = 200
"""Rows past which the paper refers to the page."""


def build_search(name: str, store: Store, out: Path) -> ReportResult:
    """Write the report of the search `name` to the folder `out`.

    Raises:
        RecordError: there is nothing on disk of that search.
        ReportBusyError: another process has been writing this report for a minute.
    """
    with locked(out):
        data = read_search(name, store)
        collection = _collection(name, store)
        records = () if collection is None else collection.records
        files = dict(_files(data, collection, records))
        written = write_files(out, files, _manifest(data, store, records))
    left = sum(not trial.over for trial in data.trials)
    return ReportResult(
        complete=bool(data.trials) and not left + data.holes and not _to_confirm(data),
        holes=left + data.holes,
        failed=sum(trial.outcome is Outcome.FAILED for trial in data.trials),
        files=written,
    )


def _to_confirm(data: SearchData) -> bool:
    return bool(data.best and data.about["confirm"] and not data.confirmed)


def _collection(name: str, store: Store) -> Collection | None:
    """The runs of the trials and of the confirmation; None before any is on file."""
    known = manifest_names(store)
    manifests = [read_manifest(store, n) for n in (name, name + CONFIRMED) if n in known]
    runs: dict[str, Run] = {run.key: run for manifest in manifests for run in manifest.runs}
    return collect(manifests[0].sweep, list(runs.values()), store) if runs else None


# --------------------------------------------------------------------------- files


def _files(
    data: SearchData, collection: Collection | None, records: Sequence[Record]
) -> Iterator[tuple[str, bytes]]:
    with style.house(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # evaluators of importance that are marked experimental
        drawings = draw_search(data)
        pictures = {d.name: style.svg(d.figure) for d in drawings}
        yield from figure_files(drawings, pictures)
    content = write_search_content(data, drawings, records)
    yield "trials.csv", data.frame().to_csv(index=False, lineterminator="\n").encode()
    yield "report.md", to_markdown(content).encode()
    yield (
        "report.html",
        page_of_runs("search.html.j2", collection, pictures, c=content, suffix=CONFIRMED),
    )
    yield "report.pdf", _to_pdf(content, pictures)


def _manifest(data: SearchData, store: Store, records: Sequence[Record]) -> dict[str, Any]:
    """Every file read, with its hash."""
    return {
        "made": {"search": data.name},
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
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            yield file.relative_to(store.root).as_posix(), digest


# --------------------------------------------------------------------------- Markdown

_TEMPLATE = """\
# {{ c.title | md }}

{% for warning in c.warnings %}
> **Note.** {{ warning | md }}

{% endfor %}
## Answer

{% for finding in c.answers %}
- {{ finding | told }}
{% endfor %}

{{ c.point | grid }}
{% if c.confirmed %}
## With fresh seeds

{{ c.confirmed | grid }}
Mean over the seeds with its 95 % interval (Student), and the difference to the base, paired by \
seed. The whole comparison: [report](../{{ (c.name ~ suffix) | urlencode }}/report.md).

{% endif %}
{% if c.drawings %}
## Figures

{% for drawing in c.drawings %}
![{{ drawing.name | replace("_", " ") }}](figures/{{ drawing.name }}.png)

{{ drawing.words | md }} Files: [SVG](figures/{{ drawing.name }}.svg), \
[data](figures/{{ drawing.name }}.csv).

{% endfor %}
{% endif %}
## What was done

{% for line in c.protocol %}
- {{ line | md }}
{% endfor %}

## Trials

{{ c.trials | grid }}
In full precision, with the run of each: [CSV](trials.csv).
"""


def to_markdown(content: SearchContent) -> str:
    """The page in Markdown."""
    # Not HTML: every foreign word passes through text.markdown, which escapes for both.
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"md": text.markdown, "grid": words.to_markdown, "told": _told}
    return environment.from_string(_TEMPLATE).render(c=content, suffix=CONFIRMED)


def _told(finding: Finding) -> str:
    verdict = f": **{text.markdown(finding.verdict)}**" if finding.verdict else ""
    return f"**{text.markdown(finding.lead)}** {text.markdown(finding.words)}{verdict}"


# --------------------------------------------------------------------------- paper


def _to_pdf(content: SearchContent, pictures: Mapping[str, bytes]) -> bytes:
    document = {
        "title": content.title,
        "name": content.name,
        "coverage": content.coverage,
        "warnings": content.warnings,
        "answers": [asdict(finding) for finding in content.answers],
        "point": grid_of(content.point),
        "confirmed": grid_of(content.confirmed),
        "drawings": drawings_of(content.drawings),
        "protocol": content.protocol,
        "trials": grid_of(content.trials, _PRINTED_TRIALS),
        "footer": content.footer,
    }
    return paper("search.typ", document, pictures)
