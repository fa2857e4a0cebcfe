"""The figures of a search, each with the data it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from harness import metrics
from harness.document import text
from harness.document.escaping import frame_csv
from harness.figures import style
from harness.figures.base import SEARCH, Drawing, metric_words
from harness.report.search_data import Axis, SearchData
from harness.store.trials import Outcome

_MAP = "viridis"
_ENOUGH_FOR_A_SURFACE = 8
"""Trials below which a contour would be drawn through hardly more than its corners."""


# --------------------------------------------------------------------------- words and scales


def _scaled(goal: str, value: float) -> float:
    return value * metrics.scale(goal)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    return frame_csv(pd.DataFrame(list(rows)))


def _set_axis(ax: Axes, axis: Axis, which: str) -> None:
    """Ticks at round values of a field, which is drawn by its place between its ends."""
    ticks = _grid(axis)
    getattr(ax, f"set_{which}ticks")([at for at, _ in ticks], [text for _, text in ticks])
    getattr(ax, f"set_{which}lim")(-0.04, 1.04)
    getattr(ax, f"set_{which}label")(axis.name)


def _grid(axis: Axis) -> list[tuple[float, str]]:
    """Round values of a field with their places."""
    if axis.options is not None:
        return [(axis.place(option), text.plain(option)) for option in axis.options]
    if axis.log:
        between = (1.0,) if axis.high / axis.low >= 100 else (1.0, 3.0)
        values = ticker.LogLocator(subs=between).tick_values(axis.low, axis.high)
    else:
        values = ticker.MaxNLocator(5, integer=axis.whole).tick_values(axis.low, axis.high)
    return [(axis.place(v), f"{v:g}") for v in values if axis.low <= v <= axis.high]


def _colour_bar(figure: Figure, ax: Axes | list[Axes], norm: Normalize, words: str) -> None:
    bar = figure.colorbar(ScalarMappable(norm, _MAP), ax=ax, pad=0.02, aspect=30)
    bar.set_label(words)
    bar.outline.set_visible(False)


def _norm(goal: str, values: Mapping[int, float]) -> Normalize:
    """Colours over the upper three quarters of the values: one that diverged tells nothing."""
    scaled = sorted(_scaled(goal, value) for value in values.values())
    quarter = scaled[len(scaled) // 4]
    if metrics.higher_is_better(goal):
        return Normalize(quarter, scaled[-1], clip=True)
    return Normalize(scaled[0], scaled[-1 - len(scaled) // 4], clip=True)


# --------------------------------------------------------------------------- the figures


@SEARCH.register("history", place=10)
def _history(data: SearchData) -> Drawing | None:
    if not any(t.values for t in data.trials):
        return None
    goal = data.goals[0]
    figure, (ax,) = style.panels(1, row_height=2.3)
    up = metrics.higher_is_better(goal)
    done = [t for t in data.trials if t.values is not None]
    numbers = [t.number for t in done]
    values = [_scaled(goal, t.values[0]) for t in done if t.values is not None]
    best = np.maximum.accumulate(values) if up else np.minimum.accumulate(values)
    last = len(data.trials) - 1
    ax.step([*numbers, last], [*best, best[-1]], where="post", color=style.INK, label="best so far")
    free = [t.origin.value == "free" for t in done]
    for name, chosen, marker in (("finished", False, "o"), ("free", True, "D")):
        places = [i for i, is_free in enumerate(free) if is_free is chosen]
        if places:
            ax.plot(
                [numbers[i] for i in places],
                [values[i] for i in places],
                marker,
                color=style.colours(2, ordered=False)[int(chosen)],
                label=name,
            )
    floor = min(values) - 0.12 * (max(values) - min(values) or 1.0)
    for outcome, marker in ((Outcome.PRUNED, "|"), (Outcome.FAILED, "x")):
        places = [t.number for t in data.trials if t.outcome is outcome]
        if places:
            ax.plot(places, [floor] * len(places), marker, color=style.FAINT, label=outcome.value)
    ax.set_xlabel("trial")
    ax.set_ylabel(metric_words(goal))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    ax.legend(loc="best")
    style.finish([ax])
    rows = [{"trial": n, goal: v, "best": b} for n, v, b in zip(numbers, values, best, strict=True)]
    words = (
        f"{metrics.display(goal)} of the trials that were trained to the end, in the order in "
        "which they were begun; marks at the foot are trials that were stopped or failed."
    )
    return Drawing(words, figure, _csv(rows))


@SEARCH.register("curves", place=30)
def _curves(data: SearchData) -> Drawing | None:
    if not data.curves:
        return None
    goal = data.goals[0]
    figure, (ax,) = style.panels(1, row_height=2.3)
    ended = {t.number: t for t in data.trials}
    best = {t.number for t in data.best}
    rows = []
    for number, looked in data.curves.items():
        trial = ended[number]
        samples = [look.samples_seen for look in looked]
        values = [_scaled(goal, look.value_of(goal)) for look in looked]
        if trial.values is not None:
            samples.append(int(data.about["samples"]))
            values.append(_scaled(goal, trial.values[0]))
        rows += [
            {"trial": number, "samples_seen": s, goal: v, "outcome": trial.outcome.value}
            for s, v in zip(samples, values, strict=True)
        ]
        pruned = trial.outcome is Outcome.PRUNED
        colour = style.PALE if pruned else style.colours(1, ordered=False)[0]
        ax.plot(
            samples,
            values,
            color=style.INK if number in best else colour,
            lw=1.8 if number in best else 0.9,
            marker=".",
            ms=3,
            zorder=3 if number in best else 1 if pruned else 2,
        )
    for rung in data.about["rungs"]:
        ax.axvline(rung, color=style.FAINT, lw=0.6, ls=":")
    handles = [
        ax.plot([], [], color=c, lw=w, label=n)[0]
        for n, c, w in (
            ("best", style.INK, 1.8),
            ("finished", style.colours(1, ordered=False)[0], 0.9),
            ("pruned", style.PALE, 0.9),
        )
    ]
    ax.legend(handles=handles, loc="best")
    ax.set_xlabel("samples seen")
    ax.set_ylabel(metric_words(goal))
    ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    style.finish([ax])
    words = (
        f"{metrics.display(goal)} of every trial while it trained, at the rungs (dotted); the "
        "schedule of each is that of the full budget."
    )
    return Drawing(words, figure, _csv(rows))


@SEARCH.register("importance", place=40)
def _importance(data: SearchData) -> Drawing | None:
    shares = data.shares
    if not shares:
        return None
    where, values = data.early()
    first = next(iter(shares.values()))
    order = sorted(data.axes, key=lambda axis: first[axis.path])
    figure, (ax,) = style.panels(1, row_height=0.8 + 0.32 * len(order))
    colours = style.colours(len(shares), ordered=False)
    height = 0.8 / len(shares)
    for place, (name, found) in enumerate(shares.items()):
        ax.barh(
            [row + 0.4 - height * (place + 0.5) for row in range(len(order))],
            [found[axis.path] for axis in order],
            height=height * 0.9,
            color=colours[place],
            label=name,
        )
    ax.set_yticks(range(len(order)), [axis.name for axis in order])
    ax.set_xlabel("share of the spread explained")
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    figure.legend(loc="outside upper right", ncols=len(shares))
    style.finish([ax])
    rows = [{"field": a.path, **{n: found[a.path] for n, found in shares.items()}} for a in order]
    words = (
        f"How much of the spread of {metrics.display(data.goals[0])} {where} each field explains, "
        f"over {len(values)} trials: fANOVA over the whole space, PED-ANOVA among the best."
    )
    return Drawing(words, figure, _csv(rows))


@SEARCH.register("parallel_coordinates", place=50)
def _parallel(data: SearchData) -> Drawing | None:
    where, values = data.early()
    if len(values) < 2:
        return None
    goal = data.goals[0]
    figure = style.figure_of(2.6)
    ax = figure.subplots()
    norm, colours = _norm(goal, values), matplotlib.colormaps[_MAP]
    worst_first = sorted(
        (t for t in data.trials if t.number in values),
        key=lambda t: values[t.number],
        reverse=not metrics.higher_is_better(goal),
    )
    for rank, trial in enumerate(worst_first):
        share = rank / max(1, len(worst_first) - 1)
        ax.plot(
            range(len(data.axes)),
            [axis.place(trial.point[axis.path]) for axis in data.axes],
            color=colours(norm(_scaled(goal, values[trial.number]))),
            lw=0.7 + 1.1 * share,
            alpha=0.35 + 0.6 * share,
        )
    ax.set_xticks(range(len(data.axes)), [axis.name for axis in data.axes])
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.set_ylim(-0.06, 1.06)
    for place, axis in enumerate(data.axes):
        ax.axvline(place, color=style.FAINT, lw=0.7, zorder=0)
        for at, words in _grid(axis):
            ax.annotate(
                words,
                (place, at),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=style.SMALL,
                va="center",
                bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75},
            )
    for spine in ax.spines.values():
        spine.set_visible(False)
    _colour_bar(figure, ax, norm, metric_words(goal))
    rows = [
        {"trial": t.number, **dict(t.point), goal: _scaled(goal, values[t.number])}
        for t in worst_first
    ]
    words = f"Every trial as a line through its fields, by {metrics.display(goal)} {where}."
    return Drawing(words, figure, _csv(rows))


@SEARCH.register("slices", place=60)
def _slices(data: SearchData) -> Drawing | None:
    where, values = data.early()
    if len(values) < 2:
        return None
    goal = data.goals[0]
    figure, panels = style.panels(len(data.axes), row_height=1.9)
    best = {trial.number for trial in data.best}
    tried = [t for t in data.trials if t.number in values]
    for ax, axis in zip(panels, data.axes, strict=True):
        ax.scatter(
            [axis.place(t.point[axis.path]) for t in tried],
            [_scaled(goal, values[t.number]) for t in tried],
            s=[26 if t.number in best else 10 for t in tried],
            c=[style.INK if t.number in best else style.FAINT for t in tried],
            linewidths=0,
        )
        _set_axis(ax, axis, "x")
    panels[0].set_ylabel(metric_words(goal))
    style.finish(panels)
    rows = [
        {"trial": t.number, **dict(t.point), goal: _scaled(goal, values[t.number])} for t in tried
    ]
    words = (
        f"{metrics.display(goal)} {where} against each field, the others as they came; the large "
        "dot is the trial that was best in the end."
    )
    return Drawing(words, figure, _csv(rows))


@SEARCH.register("contour", place=70)
def _contour(data: SearchData) -> Drawing | None:
    where, values = data.early()
    numbers = [axis for axis in data.axes if axis.options is None]
    if len(values) < _ENOUGH_FOR_A_SURFACE or len(numbers) < 2:
        return None
    goal = data.goals[0]
    share = next(iter(data.shares.values()), {})
    x, y = sorted(numbers, key=lambda axis: -share.get(axis.path, 0.0))[:2]
    tried = [t for t in data.trials if t.number in values]
    xs = [x.place(t.point[x.path]) for t in tried]
    ys = [y.place(t.point[y.path]) for t in tried]
    zs = [_scaled(goal, values[t.number]) for t in tried]
    figure, (ax,) = style.panels(1, row_height=2.4)
    norm = _norm(goal, values)
    surface = np.clip(zs, norm.vmin, norm.vmax)
    if np.linalg.matrix_rank(np.array([np.ones(len(xs)), xs, ys])) == 3:
        ax.tricontourf(xs, ys, surface, levels=12, cmap=_MAP, norm=norm, alpha=0.75)
    ax.scatter(xs, ys, c=zs, cmap=_MAP, norm=norm, s=16, edgecolors="white", linewidths=0.5)
    for best in data.best:
        at = x.place(best.point[x.path]), y.place(best.point[y.path])
        ax.plot(*at, "*", color="white", mec=style.INK, ms=9)
    for axis, which in ((x, "x"), (y, "y")):
        _set_axis(ax, axis, which)
    ax.grid(visible=False)
    _colour_bar(figure, ax, norm, metric_words(goal))
    rows = [
        {"trial": t.number, x.path: t.point[x.path], y.path: t.point[y.path], goal: z}
        for t, z in zip(tried, zs, strict=True)
    ]
    words = (
        f"{metrics.display(goal)} {where} over the two numbers that matter most, drawn linearly "
        "between the trials (dots), the other fields as they came; the star is the best in the end."
    )
    return Drawing(words, figure, _csv(rows))


@SEARCH.register("pareto", place=20)
def _trade_off(data: SearchData) -> Drawing | None:
    if len(data.goals) < 2 or not data.best:
        return None
    a, b = data.goals[:2]
    figure, (ax,) = style.panels(1, row_height=2.4)
    done = [t for t in data.trials if t.values is not None]
    front = {trial.number for trial in data.best}
    for chosen, colour, name in (
        (False, style.FAINT, "beaten in every objective"),
        (True, style.colours(1, ordered=False)[0], "not beaten"),
    ):
        some = [t for t in done if (t.number in front) is chosen]
        ax.plot(
            [_scaled(b, t.values[1]) for t in some if t.values is not None],
            [_scaled(a, t.values[0]) for t in some if t.values is not None],
            "o",
            color=colour,
            label=name,
        )
    line = sorted((t.values[1], t.values[0]) for t in data.best if t.values is not None)
    ax.plot([_scaled(b, x) for x, _ in line], [_scaled(a, y) for _, y in line], lw=0.8, zorder=0)
    ax.set_xlabel(metric_words(b))
    ax.set_ylabel(metric_words(a))
    ax.legend(loc="best")
    style.finish([ax])
    rows = [
        {
            "trial": t.number,
            **{g: _scaled(g, v) for g, v in zip(data.goals, t.values or (), strict=True)},
            "not_beaten": t.number in front,
        }
        for t in done
    ]
    words = f"The trade-off between {metrics.display(a)} and {metrics.display(b)}."
    return Drawing(words, figure, _csv(rows))
