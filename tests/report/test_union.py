"""Several sweeps in one table: groups, shared runs once, each row against its own baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_records import T2I, Records, sweep_of

from harness.config.sweep import Sweep, expand
from harness.document.text import flat
from harness.report.tables import build_tables
from harness.report.union import DifferentTestsError, merge
from harness.results.collect import Collection, collect
from harness.results.findings import find

LAYERS, WEIGHT, MASS = "model.text.layers", "objective.mlm.weight", "objective.instance.a_max"


def finished(records: Records, sweep: Sweep) -> Collection:
    runs = expand(sweep)
    for run in runs:
        more = 0.1 * run.config.objective.mlm.weight + 0.2 * run.config.objective.instance.a_max
        records.done(run, t2i=0.3 + 0.01 * run.seed + more * (1 + 0.05 * run.seed))
    return collect(sweep, runs, records.store)


@pytest.fixture
def merged(records: Records) -> Collection:
    mlm = sweep_of({WEIGHT: [0.0, 0.5]}, metrics=[T2I], baseline={WEIGHT: 0.0})
    soft = sweep_of({MASS: [0.0, 0.1]}, metrics=[T2I], baseline={MASS: 0.0})
    parts = [("masked words", finished(records, mlm)), ("soft labels", finished(records, soft))]
    return merge(parts, name="both", question="Which pays?")


def test_a_shared_run_stands_once_and_is_the_baseline_of_both(merged: Collection) -> None:
    assert [(row.group, row.baseline) for row in merged.points] == [
        ("masked words", 0), ("masked words", 0), ("soft labels", 0),
    ]  # fmt: skip
    assert len(merged.records) == 9
    assert len({record.run.key for record in merged.records}) == 9


def test_every_point_has_all_axes(merged: Collection) -> None:
    assert [tuple(row.axes.values()) for row in merged.points] == [(0, 0), (0.5, 0), (0, 0.1)]


def test_the_table_has_a_group_a_sweep(records: Records, merged: Collection) -> None:
    tables = build_tables(merged, find(merged))
    table = tables.lead

    assert [(group.title, len(group.rows)) for group in table.groups] == [
        ("masked words", 2), ("soft labels", 1),
    ]  # fmt: skip
    assert tables.every is not None
    differences = [flat(row[-1].text) for row in tables.every.rows]
    assert differences[0] == "baseline"
    assert differences[1].startswith("+5.2 [")
    assert differences[2].startswith("+2.1 [")


def test_sweeps_tested_differently_are_not_compared(records: Records) -> None:
    one = sweep_of({WEIGHT: [0.0]}, metrics=[T2I])
    other = replace(one, base=one.base.model_copy(
        update={"evaluate": one.base.evaluate.model_copy(update={"fingerprint": "b" * 64})}
    ))  # fmt: skip

    parts = [("one", finished(records, one)), ("other", finished(records, other))]
    with pytest.raises(DifferentTestsError, match=r"one and other .* evaluate\.fingerprint"):
        merge(parts, name="both", question="")
