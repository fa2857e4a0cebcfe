"""Slopes along ordered axes, main effects and interactions as a table: a row each, by metric."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness import metrics
from harness.document import text
from harness.document.table import Column, RowGroup, Table, TableCell
from harness.document.text import Inline
from harness.report.numbers import decimals_for, interval_text
from harness.results.collect import Collection
from harness.results.contrast import listed, value_of
from harness.results.findings import Answered, ReportFindings, Trend, trends_of
from harness.results.questions import Line
from harness.stats.effects import Effect
from harness.stats.tests import Judged

STAR = "*"
"""What stands after a difference, a slope or an effect that is significant in its family."""
_MOST_ROWS = 40
"""Lines and effects past which they would fill a book; sentences count the significant ones."""


_MEANINGS = {
    "Slopes": "",
    "Main effects": (
        "A main effect is the difference that a value makes on average over the others."
    ),
    "Interactions": "An interaction is how far two values together differ from their sum.",
}


@dataclass(frozen=True)
class _EffectRow:
    words: str
    judged: Mapping[str, Judged]
    """Metric -> the test."""


def effects_table(collection: Collection, findings: ReportFindings) -> Table | None:
    """None where no sweep has an ordered axis or crossed ones."""
    names = [name for name in findings.shown if not metrics.is_cost(name)]
    found = [
        (_titled(title, answered, findings), rows, _MEANINGS[title])
        for answered in findings.answered
        for title, rows in _groups(collection, answered)
        if 0 < len(rows) <= _MOST_ROWS
    ]
    if not found:
        return None
    judged = [each for _, rows, _ in found for row in rows for each in row.judged.items()]
    known = {name for name, _ in judged}
    names = [name for name in names if name in known]
    groups = [
        RowGroup(tuple(_cells(row, names) for row in rows), title) for title, rows, _ in found
    ]
    starred = any(each.significant for _, each in judged)
    said = ["With 95 % intervals.", f"{STAR}: significant (Holm)." * starred]
    said += [meaning for _, _, meaning in found]
    heads = [Column((f"{metrics.display(name)} ({metrics.unit(name)})",)) for name in names]
    caption = " ".join(filter(None, dict.fromkeys(said)))
    return Table((Column(("",), numeric=False), *heads), tuple(groups), caption=caption)


def _titled(title: str, answered: Answered, findings: ReportFindings) -> str:
    return title if len(findings.answered) == 1 else f"{answered.study.name}: {title}"


def _groups(collection: Collection, answered: Answered) -> Iterator[tuple[str, list[_EffectRow]]]:
    """Title and rows of the slopes, of the main effects and of the interactions."""
    by_line: dict[int, dict[str, Judged]] = {}
    lines = {id(line): line for line in answered.lines}
    for trend in trends_of(answered):
        by_line.setdefault(id(trend.line), {})[trend.metric] = trend.judged
    yield "Slopes", [_EffectRow(slope_words(collection, lines[n]), by_line[n]) for n in by_line]
    for parts, title in ((1, "Main effects"), (2, "Interactions")):
        rows = [
            _EffectRow(effect_words(collection, effect), found)
            for number, effect in enumerate(answered.effects)
            if len(effect.parts) == parts
            if (found := answered.sizes_of(number))
        ]
        yield title, rows


def _cells(row: _EffectRow, names: Sequence[str]) -> tuple[TableCell, ...]:
    return (TableCell(row.words), *(_cell(row.judged.get(name), name) for name in names))


def _cell(judged: Judged | None, metric: str) -> TableCell:
    if judged is None:
        return TableCell(text.DASH)
    return TableCell(
        size_words(judged, metric),
        value=judged.test.estimate * metrics.scale(metric),
        after=(Inline(STAR, "superscript"),) if judged.significant else (),
    )


# --------------------------------------------------------------------------- words


def size_words(judged: Judged, metric: str) -> str:
    """`+1.2 [0.3, 2.1]`, in the metric's unit."""
    test = judged.test
    decimals = decimals_for(metric, [test.error or abs(test.estimate)])
    return interval_text(test.estimate, test.interval, metric, decimals)


def slope_words(collection: Collection, line: Line) -> str:
    """`per doubling of text layers, at MLM weight 0.5`."""
    step = "doubling" if line.doubling else "level"
    return f"per {step} of {collection.axis_name(line.axis)}{held_words(collection, line)}"


def held_words(collection: Collection, line: Line) -> str:
    """`, at MLM weight 0.5`: what the points of a line share; empty where that is nothing."""
    held = [value_of(collection.axis_name(path), value) for path, value in line.held.items()]
    return f", at {listed(held)}" if held else ""


def effect_words(collection: Collection, effect: Effect) -> str:
    """`MLM weight 0.5 against 0`, and `MLM weight 0.5 x token weight 0.5` of two."""
    if len(effect.parts) == 1:
        ((axis, new, old),) = effect.parts
        return f"{collection.axis_name(axis)} {_level(new)} against {_level(old)}"
    return " x ".join(
        f"{collection.axis_name(axis)} {_level(new)}" for axis, new, _ in effect.parts
    )


def _level(level: object) -> str:
    """A level of an effect, which is canonical JSON."""
    return text.plain(json.loads(str(level)))


def left_out_words(collection: Collection, trend: Trend) -> str:
    """`; without text layers 8 and 12`, of levels that have no value."""
    if not trend.left_out:
        return ""
    axis = collection.axis_name(trend.line.axis)
    return f"; without {axis} {listed([f'{level:g}' for level in trend.left_out])}"
