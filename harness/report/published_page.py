"""All published figures at hand as one sortable page and one CSV: reports/published/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.document import text
from harness.document.blocks import Document, Section
from harness.document.html import to_html
from harness.document.table import Table, plain_table
from harness.report import external
from harness.report.external import Published, PublishedResult
from harness.report.folder import locked, write_files


def write_published(folder: Path, out: Path) -> Path:
    """Write the page of the figures in `folder` to `out`; returns its file.

    Raises:
        ExternalError: there are none, or a file cannot be used.
    """
    published = external.load(folder)
    if not published.figures:
        raise external.ExternalError(
            f"{folder} holds no figure; `python -m harness.report import FILE --source ADDRESS` "
            "adds some"
        )
    files = {
        "report.html": to_html(_page(published)),
        "table.csv": external.to_csv(published.figures).encode(),
    }
    manifest = {"external": {file.name: file.sha256 for file in published.files}}
    with locked(out):
        write_files(out, files, manifest)
    return out / "report.html"


def _page(published: Published) -> Document:
    figures = published.figures
    extent = (
        f"{len(figures):,} figures of {len({figure.model for figure in figures})} models on "
        f"{len(published.datasets)} data sets, in %, as their sources print them. No figure here "
        "was made by this harness."
    )
    sections = [
        Section(source, (_grid([figure for figure in figures if figure.source == source]),))
        for source in published.sources
    ]
    return Document("Published figures", tuple(sections), extent)


def _grid(figures: Sequence[PublishedResult]) -> Table:
    """One row a model, one column a data set and metric."""
    columns = sorted({(figure.dataset, figure.metric) for figure in figures})
    rows: dict[str, dict[tuple[str, str], PublishedResult]] = {}
    for figure in figures:
        rows.setdefault(figure.model, {})[(figure.dataset, figure.metric)] = figure
    sized = [
        (name, field)
        for name, field in (("params (M)", "params_m"), ("GMACs", "gmacs"))
        if any(getattr(figure, field) is not None for figure in figures)
    ]
    heads = ["model", *[name for name, _ in sized], *[f"{d} {metric}" for d, metric in columns]]
    made = []
    for model, row in sorted(rows.items()):
        first = next(iter(row.values()))
        sizes = [_number(getattr(first, field)) for _, field in sized]
        found = [row.get(column) for column in columns]
        made.append(
            [model, *sizes, *[_number(None if f is None else 100 * f.value) for f in found]]
        )
    return plain_table(heads, made, numeric=heads[1:])


def _number(value: float | None) -> str:
    return text.DASH if value is None else text.number(value, 2)
