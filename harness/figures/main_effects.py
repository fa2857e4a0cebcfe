"""What each axis of a factorial changes by itself, averaged over the settings of the others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from harness import metrics
from harness.document.escaping import csv_text
from harness.figures import marks, style
from harness.figures.base import SWEEP, Drawing, Sheet, axis_words, value_words
from harness.results.findings import Answered
from harness.stats.effects import Effect
from harness.stats.tests import Judged

#: Inches of a row.
_HIGH = 0.23
#: Rows past which only those with the largest effects on the leading metric are drawn.
_MOST = 16
#: Interactions drawn, the largest of those that are significant.
_INTERACTIONS = 4
#: Inches that leave room for the table on the first page.
_TALLEST = 4.4
#: Letters of an axis beside the rows, and of a whole name.
_LETTERS, _ROW_LETTERS = 18, 34


@dataclass(frozen=True)
class _Row:
    """One effect, and its size on each metric that tells it."""

    name: str
    effect: Effect
    sizes: dict[str, Judged]

    @property
    def main(self) -> bool:
        return len(self.effect.parts) == 1


@SWEEP.register("main_effects", place=15)
def main_effects(sheet: Sheet) -> Drawing | None:
    """A panel a metric, a row an effect; None where no two axes are crossed, or few of many."""
    found = [each for each in sheet.findings.answered if each.effects]
    if len(found) != 1 or sheet.lead is None:
        return None
    crossed = {axis for effect in found[0].effects for axis in effect.axes}
    if 2 * len(crossed) < len(sheet.collection.varying_axes):
        return None  # the sweep is a list of other things
    rows = _rows(sheet, found[0])
    names = [m for m in sheet.quality if any(m in row.sizes for row in rows)]
    shown = _shown(rows, names)
    if not shown or not names:
        return None
    figure, panels = marks.forest(names, [row.name for row in shown], _HIGH, tallest=_TALLEST)
    for ax, metric in panels:
        _panel(ax, metric, shown)
    figure.supxlabel("effect (points)", fontsize=style.LETTERS)
    style.finish([ax for ax, _ in panels])
    words = (
        "Main effects in points: the change of one axis, averaged over the settings of the others, "
        f"with 95 % intervals. {marks.FILLED}"
    )
    if any(not row.main for row in shown):
        words += " Below: the largest interactions that are significant on some metric."
    return Drawing(words + marks.left_out(len(panels), names), figure, _data(rows))


def _rows(sheet: Sheet, answered: Answered) -> list[_Row]:
    rows = []
    pairs = Counter(effect.axes for effect in answered.effects)
    for number, effect in enumerate(answered.effects):
        name = _name(sheet, effect, levels=pairs[effect.axes] > 1)
        rows.append(_Row(name, effect, answered.sizes_of(number)))
    return rows


def _name(sheet: Sheet, effect: Effect, *, levels: bool) -> str:
    """`token weight 0 \u2192 0.5`; an interaction has its levels where its axes have several."""
    if len(effect.parts) == 1:
        axis, new, old = effect.parts[0]
        ends = " \u2192 ".join(value_words(json.loads(str(level))) for level in (old, new))
        return f"{axis_words(sheet.collection, axis, _LETTERS)} {ends}"
    pairs = [(axis_words(sheet.collection, axis, _LETTERS), new) for axis, new, _ in effect.parts]
    if levels:
        pairs = [(f"{axis} {value_words(json.loads(str(new)))}", new) for axis, new in pairs]
    return style.shorten(" \u00d7 ".join(name for name, _ in pairs), _ROW_LETTERS)


def _shown(rows: Sequence[_Row], names: Sequence[str]) -> list[_Row]:
    """The main effects, and the largest interactions that are significant on a metric shown."""
    if not names:
        return []
    by_size = sorted(rows, key=lambda row: -_size(row, names[0]))
    main = [row for row in by_size if row.main][:_MOST]
    crossed = [
        row
        for row in by_size
        if not row.main and any(row.sizes[m].significant for m in names if m in row.sizes)
    ][:_INTERACTIONS]
    return [row for row in rows if row in main] + [row for row in rows if row in crossed]


def _size(row: _Row, metric: str) -> float:
    return abs(row.sizes[metric].test.estimate) if metric in row.sizes else 0.0


def _panel(ax: Axes, metric: str, rows: Sequence[_Row]) -> None:
    unit = metrics.scale(metric)
    for at, row in enumerate(rows):
        judged = row.sizes.get(metric)
        if judged is None:
            continue
        test = judged.test
        up = (test.estimate > 0) == metrics.higher_is_better(metric)
        decided = style.BETTER if up else style.WORSE
        marks.draw_interval(
            ax,
            at,
            test.estimate * unit,
            None if test.interval is None else [bound * unit for bound in test.interval],
            colour=decided if judged.significant else style.OPEN,
            filled=judged.significant,
            number=marks.number_words(test.estimate, test.error, metric),
        )


def _data(rows: Sequence[_Row]) -> str:
    heads = ["effect", "metric", "estimate", "low", "high", "p", "p_holm", "significant"]
    lines: list[list[object]] = []
    for row in rows:
        for metric, judged in row.sizes.items():
            test = judged.test
            ends = test.interval or (None, None)
            told = [test.estimate, *ends, test.p, judged.adjusted, judged.significant]
            lines.append([row.name, metric, *told])
    return csv_text(heads, lines)
