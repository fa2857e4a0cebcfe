"""Published figures beside our own, with what makes the two incomparable said in each row.

Only figures on the very data set of a shown metric stand beside it; nothing is matched by
likeness.  A method whose own figures nobody has supplied has a row and no number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import metrics
from harness.document import text
from harness.document.table import Table, plain_table
from harness.files import sha256_of
from harness.report.external import UNSTATED, Published, PublishedResult, SourceFile
from harness.report.numbers import decimals_of, estimate_text
from harness.results.collect import Collection
from harness.results.summary import Cell, Cells
from harness.store.evaluations import RESULT, evaluations_root, read_evaluations
from harness.store.record import Store

#: The paper whose reading this project is.
METHOD = "LightCLIP"
_HERE = "evaluated by this harness"
#: Our rows beside the published ones.
_OURS = 12


Matched = Mapping[str, Sequence[PublishedResult]]
"""Metric -> the figures that stand beside ours."""


@dataclass(frozen=True)
class Beside:
    """The published neighbours of a report."""

    table: Table
    note: str
    files: Mapping[str, str] = field(default_factory=dict)
    """Name -> SHA-256 of the files of results/external/ that the table has figures of."""
    records: Mapping[str, str] = field(default_factory=dict)
    """The same of records of outside models, by their places below the root."""
    matched: Matched = field(default_factory=dict)


_NOTHING = Beside(
    plain_table([], []),
    "No published figure is on the data of this sweep. Those in results/external/ are shown by "
    "python -m harness.report published; python -m harness.report import FILE --source ADDRESS "
    "adds some.",
)


def beside_ours(
    collection: Collection, cells: Cells, published: Published, here: Published
) -> Beside:
    """The figures that are on the very data of a shown metric; an empty table without any.

    Args:
        here: outside models that were evaluated here, as `evaluated_here` has them.
    """
    every = Published((*published.figures, *here.figures))
    matched = {
        metric: found
        for metric in collection.shown
        if (found := _figures_for(metric, collection, every))
    }
    if not matched:
        return _NOTHING
    used = {figure for figures in matched.values() for figure in figures}
    files, records = (
        {f.name: f.sha256 for f in of.files if used.intersection(f.figures)}
        for of in (published, here)
    )
    return Beside(_table(collection, cells, matched), _note(matched), files, records, matched)


def evaluated_here(store: Store) -> Published:
    """The models outside of sweeps that were evaluated under this root, a file a model."""
    files = []
    for record in read_evaluations(store):
        if record["model"]["kind"] != "run":
            file = evaluations_root(store) / record["key"] / RESULT
            place = file.relative_to(store.root).as_posix()
            digest = sha256_of(file)
            files.append(SourceFile(place, digest, tuple(_figures_of(record, place))))
    return Published(tuple(figure for file in files for figure in file.figures), tuple(files))


def _figures_of(record: Mapping[str, Any], place: str) -> Iterator[PublishedResult]:
    """Each share that was measured, once: of several evaluations by the first of their keys."""
    told: set[str] = set()
    for _, entry in sorted(record["evaluations"].items()):
        for name, metric in sorted(entry["metrics"].items()):
            dataset, _, kind = name.rpartition("/")
            if metric["value"] is None or metrics.unit(name) != "%" or name in told:
                continue
            told.add(name)
            yield PublishedResult(
                method=record["model"]["name"],
                dataset=dataset,
                metric=kind,
                value=metric["value"],
                n=metric["n"],
                protocol=f"that of its benchmark, in {entry['protocol']['precision']}",
                source=f"{_HERE}, {place}",
            )


def _figures_for(
    metric: str, collection: Collection, published: Published
) -> list[PublishedResult]:
    """The published figures on the data set and of the kind of `metric`, or of no stated kind."""
    *place, kind = metric.split("/")
    trained = (protocol["data"]["name"] for protocol in collection.protocols)
    datasets = dict.fromkeys([*reversed(place), *trained])
    return [
        figure
        for dataset in datasets
        for figure in published.on(dataset)
        if figure.metric == kind or (figure.metric == UNSTATED and not kind.endswith("5"))
    ]


def _table(collection: Collection, cells: Cells, matched: Matched) -> Table:
    shown = [f"{metrics.display(m)} ({metrics.unit(m)})" for m in matched]
    heads = ["model", *shown, "differs in", "source"]
    ours = list(_our_rows(collection, cells, list(matched)))
    theirs = list(_their_rows(matched, collection, cells))
    return plain_table(
        heads,
        [*[row for row, _ in ours], *theirs],
        numeric=heads[1:-2],
        keys=[*[keys for _, keys in ours], *[()] * len(theirs)],
    )


def _our_rows(
    collection: Collection, cells: Cells, shown: Sequence[str]
) -> Iterator[tuple[list[str], tuple[str, ...]]]:
    first = [(cells[(row.index, shown[0])], row) for row in collection.points]
    known = [(cell, row) for cell, row in first if cell.estimate is not None]
    known.sort(key=lambda pair: -pair[0].merit)
    for cell, row in known[:_OURS]:
        values = [_ours(cells[(row.index, metric)]) for metric in shown]
        yield [f"ours: {row.label}", *values, "", "this report"], cell.keys


def _ours(cell: Cell) -> str:
    if cell.estimate is None:
        return text.DASH
    return estimate_text(cell.estimate, cell.metric, decimals_of([cell]))


def _their_rows(matched: Matched, collection: Collection, cells: Cells) -> Iterator[list[str]]:
    by_model: dict[tuple[str, str], dict[str, PublishedResult]] = {}
    for metric, figures in matched.items():
        for figure in figures:
            by_model.setdefault((figure.model, figure.source), {}).setdefault(metric, figure)
    if not any(figure.method == METHOD for row in by_model.values() for figure in row.values()):
        yield [METHOD, *[text.DASH] * len(matched), "", "no sourced figure has been supplied"]
    for (model, source), row in sorted(by_model.items()):
        values = [
            text.number(100 * row[metric].value, 1) if metric in row else text.DASH
            for metric in matched
        ]
        yield [model, *values, "; ".join(_differences(row, collection, cells)), source]


def _differences(
    row: Mapping[str, PublishedResult], collection: Collection, cells: Cells
) -> list[str]:
    """What is known to differ between their protocol and ours, and what is not known."""
    figure = next(iter(row.values()))
    trained = {record.run.config.data.source for record in collection.records}
    found = []
    if figure.pretrain is None or figure.pretrain.casefold() not in trained:
        found.append(f"trained on {figure.pretrain or 'data not stated'}")
    if any(f.metric == UNSTATED for f in row.values()):
        found.append("metric not stated")
    for metric, other in row.items():
        ours = sorted(
            {n for row in collection.points for n in cells[(row.index, metric)].samples if n}
        )
        if other.n is not None and ours and other.n not in ours:
            found.append(f"{other.n:,} test items, ours {', '.join(f'{n:,}' for n in ours)}")
    found.append(f"protocol: {figure.protocol}" if figure.protocol else "protocol not stated")
    return list(dict.fromkeys(found))


def _note(matched: Matched) -> str:
    sources = sorted({figure.source for figures in matched.values() for figure in figures})
    here = ", but for those evaluated here" if any(s.startswith(_HERE) for s in sources) else ""
    return (
        "Published figures are as printed by their sources and were not made by this harness"
        f"{here}; no difference to them is tested. "
        f"{'Source' if len(sources) == 1 else 'Sources'}: {'; '.join(sources)}."
    )
