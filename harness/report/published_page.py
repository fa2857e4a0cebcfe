"""All published figures at hand as one sortable page and one CSV: reports/published/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.report import external, text
from harness.report.external import Figure, Published
from harness.report.folder import locked, write_files
from harness.report.html import render
from harness.report.words import Words, words


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
    page = render("published.html.j2", **_page(published))
    files = {
        "report.html": page.encode(),
        "table.csv": external.to_csv(published.figures).encode(),
    }
    manifest = {"external": {file.name: file.sha256 for file in published.files}}
    with locked(out):
        write_files(out, files, manifest)
    return out / "report.html"


def _page(published: Published) -> dict[str, object]:
    groups = [(source, _grid(_of(published, source))) for source in published.sources]
    return {
        "groups": groups,
        "figures": len(published.figures),
        "models": len({figure.model for figure in published.figures}),
        "datasets": len(published.datasets),
    }


def _of(published: Published, source: str) -> list[Figure]:
    return [figure for figure in published.figures if figure.source == source]


def _grid(figures: Sequence[Figure]) -> Words:
    """One row a model, one column a data set and metric."""
    columns = sorted({(figure.dataset, figure.metric) for figure in figures})
    rows: dict[str, dict[tuple[str, str], Figure]] = {}
    for figure in figures:
        rows.setdefault(figure.model, {})[(figure.dataset, figure.metric)] = figure
    sized = [
        (name, field)
        for name, field in (("params (M)", "params_m"), ("GMACs", "gmacs"))
        if any(getattr(figure, field) is not None for figure in figures)
    ]
    names = [f"{dataset} {metric}" for dataset, metric in columns]
    heads = ["model", *[name for name, _ in sized], *names]
    return words(
        heads,
        [
            [
                model,
                *[_size(next(iter(row.values())), field) for _, field in sized],
                *[_value(row.get(column)) for column in columns],
            ]
            for model, row in sorted(rows.items())
        ],
        numeric=heads[1:],
    )


def _size(figure: Figure, field: str) -> str:
    value = getattr(figure, field)
    return text.DASH if value is None else text.number(value, 2)


def _value(figure: Figure | None) -> str:
    return text.DASH if figure is None else text.number(100 * figure.value, 2)
