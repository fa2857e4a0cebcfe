"""Each point of a sweep again in every deployed form, against the model as it was trained.

The forms are rows of a collection like any other, so that they are paired by seeds and by items and
judged within the sweep's own margin by the same statistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness import metrics
from harness.config.sweep import Sweep
from harness.errors import InvariantError, one_line
from harness.evaluate.invariants import check
from harness.results.collect import Collection, PointRow
from harness.results.records import Record
from harness.store.deployed import Sitting, Timing, files_of, forms_of

#: Name of the axis; it is no field of a configuration.
FORM = "form"
TRAINED = "as trained"
_COLUMNS = ("cost/size_mb", "cost/latency_least_ms", "cost/latency_ms", "cost/memory_mb")


def deployed(collection: Collection, sitting: Sitting | None) -> Collection | None:
    """The points in every form that a run of them has; None where none has any.

    Args:
        sitting: where latency and memory are taken from.
    """
    forms = list(dict.fromkeys(form for r in collection.records for form in _entries(r)))
    if not forms:
        return None
    rows: list[PointRow] = []
    records: list[Record] = []
    for row in collection.points:
        own, first = collection.of_point(row.index), len(rows)
        for form in (TRAINED, *forms):
            axes, given = {**row.axes, FORM: form}, row.given | {FORM}
            label = row.label if form == TRAINED else f"{row.label} \u00b7 {form}"
            place = len(rows)
            baseline = None if form == TRAINED else first
            rows.append(replace(row, index=place, label=label, axes=axes, given=given,
                                baseline=baseline))  # fmt: skip
            timings = _timings(own, form, sitting)
            records += [_in_form(record, place, form, timings) for record in own]
    return Collection(_sweep(collection), tuple(rows), tuple(records), (*collection.axes, FORM))


def newest_with_most(collection: Collection, sittings: Iterable[Sitting]) -> Sitting | None:
    """The sitting that measured most of the files of these runs, of several the latest."""
    best, most = None, 1
    for sitting in sittings:
        known = {
            (timing.key, timing.form)
            for record in collection.records
            for form, entry in _entries(record).items()
            for timing in sitting.of(record.key, form, files_of(entry).values())
        }
        if len(known) >= most:
            best, most = sitting, len(known)
    return best


def _entries(record: Record) -> Mapping[str, Mapping[str, Any]]:
    """Form -> its entry, of a run that gave numbers."""
    return {} if record.evaluation is None else forms_of(record.evaluation)


def _timings(own: Sequence[Record], form: str, sitting: Sitting | None) -> list[Timing]:
    """What was measured of one run of a point: its speed does not depend on the seed."""
    if sitting is None:
        return []
    for record in own:
        entry = _entries(record).get(form, {})
        if found := sitting.of(record.key, form, files_of(entry).values()):
            return found
    return []


def _in_form(record: Record, place: int, form: str, timings: Sequence[Timing]) -> Record:
    if record.evaluation is None or form == TRAINED:
        return replace(record, point=place)
    entry = _entries(record).get(form, {"hole": "this run was not evaluated in this form"})
    key = record.run.config.form_key(form)
    reason = entry.get("hole") or _broken(entry)
    if reason is not None:
        return replace(record, point=place, evaluation_key=key, evaluation=None, reason=reason)
    numbers = {**entry, "metrics": {**entry["metrics"], **metrics.lacking(entry)}}
    assert record.result is not None
    cost = {**record.result["cost"], **_costs(entry, timings)}
    result = {**record.result, "cost": cost}
    return replace(record, point=place, evaluation_key=key, evaluation=numbers, result=result)


def _broken(entry: Mapping[str, Any]) -> str | None:
    try:
        check(entry)
    except InvariantError as error:
        return f"result refused: {one_line(error)}"
    return None


def _costs(entry: Mapping[str, Any], timings: Sequence[Timing]) -> dict[str, dict[str, float]]:
    """Sections of costs as a result has them; what was not measured quietly is absent."""
    quiet = [timing for timing in timings if timing.quiet]
    return {
        "size_mb": {tower: told["mb"] for tower, told in entry["files"].items()},
        "latency_least_ms": {f"{t.tower}_batch{t.batch}": t.least for t in quiet},
        "latency_ms": {f"{t.tower}_batch{t.batch}": t.median for t in quiet},
        "load_ms": {t.tower: t.load_ms for t in quiet},
        "memory_mb": {t.tower: t.memory_mb for t in timings},
    }


def _sweep(collection: Collection) -> Sweep:
    """The sweep's own question, asked of the forms."""
    show = collection.sweep.show
    asked = [name for name in show.metrics if not metrics.is_cost(name)]
    if show.columns is not None:
        asked = [n for n in show.columns if n in asked] or asked
    shown = replace(
        show,
        metrics=[name for name in show.metrics if not metrics.is_cost(name)],
        columns=(*_COLUMNS, *asked),
        baseline=None,
        delta=None,
        labels={**show.labels, FORM: "form"},
        names={},
    )
    return replace(
        collection.sweep,
        name=f"{collection.sweep.name}-deployed",
        question="What of each model's quality is left in the form that ships?",
        show=shown,
    )
