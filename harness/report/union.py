"""Several sweeps as one collection: one table and one set of figures; each judged by itself.

A run that several sweeps share (the same baseline, often) stands once, in the group of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.config import canonical_json
from harness.config.sweep import Points, Show, Sweep, declared_by_all, value_at
from harness.errors import HarnessError
from harness.results.collect import Collection, PointRow, SweepPart
from harness.results.records import Record


class DifferentTestsError(HarnessError):
    """Sweeps that were evaluated differently cannot be compared in one table."""


def merge(parts: Sequence[tuple[str, Collection]], *, name: str, question: str) -> Collection:
    """The points of all `parts` (title, collection), in groups, each against its own baseline.

    A shared run has the baseline of the first sweep.  Every point is described by all axes of all
    sweeps, with its own value of those that its sweep holds fixed.  The axis shown is that of the
    first part.

    Args:
        parts: with different titles, read from one store.
        name, question: of the whole, for its label and caption.

    Raises:
        DifferentTestsError: the parts were evaluated on different data or by different rules.
    """
    _check_same_tests(parts)
    axes = tuple(dict.fromkeys(axis for _, part in parts for axis in part.axes))
    records: list[Record] = []
    rows: list[PointRow] = []
    places: dict[tuple[str, ...], int] = {}
    studies: list[SweepPart] = []
    for title, part in parts:
        index_of = {}
        for row in part.points:
            own = part.of_point(row.index)
            keys = tuple(record.run.key for record in own)
            index_of[row.index] = place = places.setdefault(keys, len(places))
            if place == len(rows):
                config = own[0].run.config
                values = {axis: value_at(config, axis) for axis in axes}
                rows.append(replace(row, index=place, axes=values, group=title))
                records += [replace(record, point=place) for record in own]
        baselines = {
            new: None if (base := part.points[old].baseline) is None else index_of[base]
            for old, new in index_of.items()
        }
        studies.append(SweepPart.of(title, part.sweep, baselines, part.printed))
        for new, baseline in baselines.items():
            if rows[new].group == title:
                rows[new] = replace(rows[new], baseline=baseline)
    sweep = _sweep([part for _, part in parts], records, name, question)
    notes = tuple(f"{title}: {note}" for title, part in parts for note in part.notes)
    return Collection(sweep, tuple(rows), tuple(records), axes, tuple(studies), notes)


def _sweep(
    parts: Sequence[Collection], records: Sequence[Record], name: str, question: str
) -> Sweep:
    shows = [part.sweep.show for part in parts]
    return Sweep(
        base=parts[0].sweep.base,
        points=Points(record.run.point for record in records),
        seeds=tuple(dict.fromkeys(record.seed for record in records)),
        show=Show(
            x=shows[0].x,
            metrics=list(dict.fromkeys(metric for show in shows for metric in show.metrics)),
            labels={path: words for show in shows for path, words in show.labels.items()},
            names={words: point for show in shows for words, point in show.names.items()},
            spread=shows[0].spread,
            delta=shows[0].delta,
            **declared_by_all(shows),
        ),
        name=name,
        question=question,
    )


def _check_same_tests(parts: Sequence[tuple[str, Collection]]) -> None:
    first = _test_of(parts[0][1])
    for title, part in parts[1:]:
        other = _test_of(part)
        differ = [
            what for what in first if canonical_json(first[what]) != canonical_json(other[what])
        ]
        if differ:
            raise DifferentTestsError(
                f"{parts[0][0]} and {title} cannot stand in one table: they differ in "
                f"{', '.join(differ)}"
            )


def _test_of(part: Collection) -> dict[str, Any]:
    config = part.records[0].run.config
    evaluate = config.evaluate.model_dump(mode="json", exclude={"batch_size"})
    fields = {f"evaluate.{field}": value for field, value in evaluate.items()}
    return {"data.source": config.data.source, **fields}
