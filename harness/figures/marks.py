"""Marks that several figures share: differences with their intervals, values of seeds, chance."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness import metrics
from harness.document import text
from harness.figures import style
from harness.report.numbers import decimals_for
from harness.results.comparisons import Comparison, Verdict
from harness.results.summary import Cell
from harness.stats.tests import Over

#: How many spans of the data chance may lie below it and still be drawn rather than named.
_REACH = 0.6
#: Towards a chance that is not drawn, by whether it lies below the data.
_ARROWS = {True: "\u2193", False: "\u2191"}
_SIDEWAYS = {True: "\u2190", False: "\u2192"}
#: Panels of a forest side by side, fewer where the names of rows are long.
_ACROSS, _NARROW, _LONG = 4, 3, 20
#: Letters of a title's line, and of the second one that takes the rest.
_TITLE, _REST = 12, 22
#: Inches around the rows of a panel, and of a title's second line.
_AROUND, _LINE = 0.52, 0.13
#: What the marks of differences mean, for captions.
FILLED = "Filled: significant (Holm); hollow: not."


def unit_of(cell: Cell) -> float:
    """What a value of the cell is multiplied by."""
    return metrics.scale(cell.metric)


def colour_of(comparison: Comparison) -> str:
    """By what may be said of the difference."""
    colours = {Verdict.BETTER: style.BETTER, Verdict.WORSE: style.WORSE}
    return colours.get(comparison.verdict, style.OPEN)


def draw_interval(
    ax: Axes,
    at: float,
    mean: float,
    ends: Sequence[float] | None,
    *,
    colour: str,
    filled: bool,
    upright: bool = False,
    dotted: bool = False,
    number: str = "",
    marker: str = "o",
) -> None:
    """A mark at `mean` with a line from end to end, along the panel or `upright`."""
    if ends is not None:
        line = ([at, at], list(ends)) if upright else (list(ends), [at, at])
        look: dict[str, Any] = {"linestyle": ":" if dotted else "-", "linewidth": 1.3}
        ax.plot(*line, color=colour, zorder=2, **look)
    face = colour if filled else "white"
    place = (at, mean) if upright else (mean, at)
    ax.plot(
        [place[0]], [place[1]], marker, color=colour, mfc=face, mew=1.0, markersize=4.2, zorder=3
    )
    if number:
        beside = (4, 1) if upright else (0, 2.6)
        ax.annotate(
            number,
            place,
            xytext=beside,
            textcoords="offset points",
            ha="left" if upright else "center",
            va="bottom",
            fontsize=style.SMALL,
            color=colour,
            bbox={"facecolor": "white", "alpha": 0.8, "pad": 0.4, "linewidth": 0},
        )


def number_words(estimate: float, error: float | None, metric: str) -> str:
    """What stands beside a mark: the difference or effect with the decimals that its error asks
    for."""
    decimals = decimals_for(metric, [error or abs(estimate)])
    return text.number(estimate * metrics.scale(metric), decimals, sign=True)


def draw_difference(
    ax: Axes,
    at: float,
    comparison: Comparison,
    *,
    number: bool = False,
    colour: str | None = None,
    **look: Any,
) -> None:
    """The difference to the baseline with its interval, filled where it is significant."""
    unit = metrics.scale(comparison.metric)
    error = None if comparison.judged is None else comparison.judged.test.error
    words = number_words(comparison.mean, error, comparison.metric) if number else ""
    ends = None
    if comparison.interval is not None:
        ends = [bound * unit for bound in comparison.interval[:2]]
    draw_interval(
        ax,
        at,
        comparison.mean * unit,
        ends,
        colour=colour or colour_of(comparison),
        filled=comparison.decided,
        dotted=comparison.interval is not None and comparison.interval[2] is Over.ITEMS,
        number=words,
        **look,
    )


def zero(ax: Axes, margin: float | None, metric: str, *, upright: bool = False) -> None:
    """Where there is no difference, and the losses that count as none, shaded."""
    line, span = (ax.axhline, ax.axhspan) if upright else (ax.axvline, ax.axvspan)
    line(0.0, color=style.INK, linewidth=0.8, zorder=1)
    if margin:
        loss = -margin if metrics.higher_is_better(metric) else margin
        span(min(0.0, loss), max(0.0, loss), color=style.PALE, alpha=0.45, linewidth=0, zorder=0)


def about_intervals(made: Iterable[Comparison]) -> str:
    """`with 95 % intervals over seeds`, as a caption says it."""
    found = {c.interval[2] for c in made if c.interval is not None}
    over = " or ".join(unit.value for unit in Over if unit in found)
    return f"with 95 % intervals over {over}" if over else "without an interval"


def down(ax: Axes, names: Sequence[str], *, ticks: int = 4, **look: Any) -> None:
    """A row a name, from the top, and about `ticks` lines to read their numbers by."""
    ax.set_yticks(range(len(names)), names, **look)
    ax.set_ylim(len(names) - 0.4, -0.9)
    ax.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")


def forest(
    metrics_shown: Sequence[str],
    names: Sequence[str],
    row: float,
    head: str = "",
    *,
    tallest: float = style.TALLEST,
) -> tuple[Figure, list[tuple[Axes, str]]]:
    """A panel a metric with a row a name, each `row` inches high; as many as `tallest` inches hold.

    Returns the figure, and each panel with its metric.
    """
    most = _NARROW if max(map(len, names)) > _LONG else _ACROSS
    titles = {metric: _in_two_lines(metrics.display(metric)) for metric in metrics_shown}
    height = _AROUND + row * len(names) + _LINE * any("\n" in each for each in titles.values())
    shown = metrics_shown[: most * max(1, int(tallest / height))]
    figure, axes = style.panels(len(shown), row_height=height, most=most, wide=True)
    across = -(-len(shown) // -(-len(shown) // most))
    for place, (ax, metric) in enumerate(zip(axes, shown, strict=True)):
        zero(ax, None, metric)
        down(ax, names, ticks=3)
        ax.set_title(titles[metric])
        if place % across:
            ax.tick_params(labelleft=False)
        else:
            head_of_rows(ax, head)
    return figure, list(zip(axes, shown, strict=True))


def _in_two_lines(words: str) -> str:
    """Broken between two words where a panel has no room for them side by side."""
    first, *rest = textwrap.wrap(words, _TITLE, break_long_words=False) or [""]
    return "\n".join(style.shorten(line, _REST) for line in [first, " ".join(rest)] if line)


def left_out(shown: int, names: Sequence[str]) -> str:
    """What a caption says of metrics that have no panel."""
    return "" if shown == len(names) else f" The first {shown} of {len(names)} metrics."


def head_of_rows(ax: Axes, words: str) -> None:
    """What the names of the rows are, above them."""
    ax.annotate(
        words,
        (0.0, 1.0),
        xycoords="axes fraction",
        xytext=(-6, 5),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=style.SMALL,
        color=style.FAINT,
    )


def chance_line(ax: Axes, cells: Sequence[Cell], metric: str, *, across: bool = True) -> None:
    """Chance as a dotted line; named at the edge where drawing it would flatten the data."""
    known = sorted({round(c.chance, 12) for c in cells if c.chance is not None})
    values = [value * unit_of(c) for c in cells for value in c.values.values()]
    if len(known) != 1 or not values:
        return
    chance = known[0] * metrics.scale(metric)
    name = f"chance {text.number(chance, 1)}"
    below = chance <= min(values)
    gap = min(values) - chance if below else chance - max(values)
    near = gap <= _REACH * (max(values) - min(values))
    if near:
        draw: Callable[..., object] = ax.axhline if across else ax.axvline
        draw(chance, color=style.FAINT, linestyle=(0, (1, 1.5)), linewidth=1.0, zorder=1)
        said = f"\u22ef {name}"
    else:
        said = f"{name} {_ARROWS[below]}" if across else f"{_SIDEWAYS[below]} {name}"
    ax.set_title(said, loc="right", fontsize=style.SMALL, color=style.FAINT)
