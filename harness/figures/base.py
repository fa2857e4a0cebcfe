"""What every figure has: a place in a registry, words and data, and scales and names in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Generic, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from harness import metrics
from harness.config import canonical_json
from harness.document import blocks, text
from harness.document.escaping import csv_text
from harness.figures import style
from harness.registry import Registry
from harness.report.external import PublishedResult
from harness.report.search_data import SearchData
from harness.results.collect import Collection, PointRow
from harness.results.comparisons import Comparison
from harness.results.findings import ReportFindings
from harness.results.summary import Cells

#: Letters of an axis' name, of a point's, a value's and a line's in a legend that a figure has room
#: for; tables and CSV have them in full.
_AXIS, _POINT, _VALUE, _LEGEND, _SETTING = 44, 38, 24, 36, 16


@dataclass(frozen=True)
class Drawing:
    """A figure, what it shows in words, and its data as CSV; the registry gives it its name."""

    words: str
    figure: Figure
    data: str
    name: str = ""

    def rendered(self) -> blocks.Figure:
        """The figure in a page, within the settings of `style.house()`."""
        files = {**style.figure_files(self.figure), "csv": self.data.encode()}
        wide = bool(self.figure.get_figwidth() > style.COLUMN + 0.5)
        return blocks.Figure(self.name, self.words[:1].upper() + self.words[1:], files, wide)


@dataclass(frozen=True)
class Sheet:
    """What the figures of a sweep are drawn from."""

    collection: Collection
    findings: ReportFindings
    published: Mapping[str, Sequence[PublishedResult]] = field(default_factory=dict)
    """Metric -> what others have published of it."""
    deployed: Sheet | None = None
    """The same of each point in the forms that ship, where runs were evaluated in any."""

    @property
    def cells(self) -> Cells:
        """(point, metric) -> what its seeds say."""
        return self.findings.cells

    @property
    def quality(self) -> tuple[str, ...]:
        """The metrics that figures show, the leading one first: all but costs, with averages."""
        shown = [name for name in self.findings.shown if not metrics.is_cost(name)]
        return tuple(dict.fromkeys(filter(None, [self.findings.primary, *shown])))

    @property
    def lead(self) -> str | None:
        """The metric that the question is answered by, else the first shown.

        None without two points that have it: one alone is a number and no figure.
        """
        for name in self.quality[:1]:
            known = [bool(self.cells[(row.index, name)].values) for row in self.collection.points]
            return name if sum(known) > 1 else None
        return None

    @property
    def margin(self) -> float | None:
        """The largest loss of the leading metric that counts as none, in its printed unit."""
        found = {each.margin for each in self.findings.answered if each.primary == self.lead}
        return found.pop() if len(found) == 1 else None

    def compared(self, metric: str) -> dict[int, Comparison]:
        """Point -> the difference of `metric` to its baseline, in the order of the points."""
        return self.findings.comparisons(metric, range(len(self.collection.points)))


M = TypeVar("M")


class Figures(Generic[M]):
    """The figures of one kind of report, by name; each draws itself or nothing from an `M`."""

    def __init__(self, kind: str) -> None:
        self._registry: Registry[_Placed[M]] = Registry(kind, "harness.figures")

    def register(self, name: str, *, place: int) -> Callable[[_Draw[M]], _Draw[M]]:
        """Decorator of the function that draws the figure `name`; a lesser `place` stands first."""

        def add(draw: _Draw[M]) -> _Draw[M]:
            self._registry.register(name)(_Placed(place, draw))
            return draw

        return add

    @property
    def names(self) -> list[str]:
        """Of all figures, in the order in which they stand."""
        return sorted(self._registry, key=lambda name: (self._registry.get(name).place, name))

    def draw(self, material: M, names: Sequence[str] | None = None) -> list[Drawing]:
        """Every figure there is data for, in order, or those of `names` alone."""
        asked = self.names if names is None else names
        drawn = [(name, self._registry.get(name).draw(material)) for name in asked]
        return [replace(drawing, name=name) for name, drawing in drawn if drawing is not None]

    def rendered(
        self, material: M, width: float = style.PAGE, names: Sequence[str] | None = None
    ) -> tuple[blocks.Figure, ...]:
        """The same as blocks of a page, for papers whose text is `width` inches wide."""
        with style.house(width):
            return tuple(drawing.rendered() for drawing in self.draw(material, names))


_Draw = Callable[[M], Drawing | None]


@dataclass(frozen=True)
class _Placed(Generic[M]):
    place: int
    draw: _Draw[M]


SWEEP: Figures[Sheet] = Figures("figure")
SEARCH: Figures[SearchData] = Figures("figure of a search")


def axis_words(collection: Collection, axis: str, letters: int = _AXIS) -> str:
    """What a figure calls an axis."""
    return style.shorten(collection.axis_name(axis), letters)


def point_words(collection: Collection, row: PointRow, *, without: Sequence[str] = ()) -> str:
    """What a figure calls a point: its name, or its values of the axes that vary.

    `by_words` tells the axes; where some points set other axes than others each tells its own.

    Args:
        without: axes whose values are told elsewhere.
    """
    axes = _told_apart_by(collection, without)
    if row.label in collection.sweep.show.names or not axes:
        return style.shorten(row.label, _POINT)
    values = [text.plain(row.axes[a]) if a in row.given else "\u2013" for a in axes]
    return style.shorten(", ".join(values), _POINT)


def _told_apart_by(collection: Collection, without: Sequence[str]) -> list[str]:
    """The axes whose values name points; none where not all points set them."""
    axes = [axis for axis in collection.varying_axes if axis not in without]
    return axes if without or collection.set_by_all.issuperset(axes) else []


def by_words(collection: Collection, letters: int = _AXIS, *, without: Sequence[str] = ()) -> str:
    """The axes whose values `point_words` has; empty where the sweep names its points."""
    if all(row.label in collection.sweep.show.names for row in collection.points):
        return ""
    axes = _told_apart_by(collection, without)
    return style.shorten(", ".join(collection.axis_name(axis) for axis in axes), letters)


def name_axes(ax: Axes, collection: Collection) -> None:
    """Above a panel that calls points by `point_words`: the axes whose values those are."""
    words = by_words(collection)
    said = f"named by {words}" if words else ""
    ax.set_title(said, loc="right", fontsize=style.SMALL, color=style.FAINT)


def legend_words(name: str) -> str:
    """What a legend calls a line of this name."""
    return style.shorten(name, _LEGEND)


def value_words(value: Any) -> str:
    """What a figure calls a value of an axis."""
    return style.shorten(text.plain(value), _VALUE)


def setting_words(collection: Collection, row: PointRow, axis: str) -> str:
    """What a narrow panel or a legend calls the point's value of an axis."""
    return f"{axis_words(collection, axis, _SETTING)} {value_words(row.axes[axis])}"


# --------------------------------------------------------------------------- where on the x axis


@dataclass(frozen=True)
class Scale:
    """Positions of the values of an axis, and how its ticks are written."""

    kind: str
    """`linear`, `log2` or `categorical`."""
    values: tuple[Any, ...]

    def at(self, value: Any, shift: float = 0.0) -> float:
        """The position of `value`, moved by `shift`, a share of the axis' length."""
        if self.kind == "categorical":
            return self._places[canonical_json(value)] + shift * len(self.values)
        if self.kind == "log2":
            return float(value * (self.values[-1] / self.values[0]) ** shift)
        return float(value + shift * (self.values[-1] - self.values[0]))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {canonical_json(value): place for place, value in enumerate(self.values)}

    def apply(self, ax: Axes) -> None:
        """Put ticks at the values, and nowhere else."""
        positions = [self.at(value) for value in self.values]
        if self.kind == "log2":
            ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(positions))
        ax.xaxis.set_minor_locator(NullLocator())
        names = [value_words(value) for value in self.values]
        crowded = sum(map(len, names)) > 26
        ax.set_xticks(
            positions,
            names,
            rotation=30 if crowded else 0,
            ha="right" if crowded else "center",
            rotation_mode="anchor",
        )
        if self.kind == "categorical":
            ax.set_xlim(-0.5, len(self.values) - 0.5)
        else:
            ax.margins(x=0.08)


def scale_of(values: Sequence[Any]) -> Scale:
    """Numbers stand where they belong, on whichever of linear and log2 keeps them further apart."""
    unique = list({canonical_json(value): value for value in values}.values())
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in unique):
        return Scale("categorical", tuple(unique))
    ordered = tuple(sorted(unique))
    if len(ordered) < 3 or ordered[0] <= 0:
        return Scale("linear", ordered)
    log = _least_gap([math.log2(value) for value in ordered])
    return Scale("log2" if log > 1.05 * _least_gap(ordered) else "linear", ordered)


def _least_gap(ordered: Sequence[float]) -> float:
    gaps = [b - a for a, b in pairwise(ordered)]
    return min(gaps) / (ordered[-1] - ordered[0])


def is_one_axis(collection: Collection) -> bool:
    """Whether the points differ in the shown axis, and in the hue, alone."""
    show = collection.sweep.show
    places = [
        canonical_json([r.axes[show.x], r.axes.get(show.hue or "")]) for r in collection.points
    ]
    others = [axis for axis in collection.axes if axis not in {show.x, show.hue}]
    held = {tuple(row.told[axis] for axis in others) for row in collection.points}
    return len(held) == 1 and len(set(places)) == len(places)


def has_ordered_axis(collection: Collection) -> bool:
    """Whether the values of the shown axis are numbers."""
    x = collection.sweep.show.x
    return scale_of([row.axes[x] for row in collection.points]).kind != "categorical"


def metric_words(metric: str) -> str:
    """What a panel calls a metric: its name and unit."""
    return f"{metrics.display(metric)} ({metrics.unit(metric)})"


def samples_axis(figure: Figure, axes: Sequence[Axes], top: float) -> None:
    """Samples seen, up to `top`, along the x axis of every panel, in a unit with few digits."""
    unit = 1_000_000 if top >= 2_000_000 else 1_000 if top >= 2_000 else 1
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value / unit:g}")
    name = {1: "", 1_000: " (thousands)", 1_000_000: " (millions)"}[unit]
    figure.supxlabel(f"samples seen{name}", fontsize=style.LETTERS)
    style.finish(axes)


# --------------------------------------------------------------------------- data beside a figure


def metric_data(sheet: Sheet) -> str:
    """Every mark of the figure: a row a seed, and a row `mean` with its interval."""
    collection, cells = sheet.collection, sheet.cells
    heads = ["label", *collection.axes, "metric", "seed", "value", "low", "high", "chance"]
    rows: list[list[object]] = []
    for metric in sheet.quality[:1]:
        for row in collection.points:
            cell = cells[(row.index, metric)]
            place = [row.label, *[row.axes[axis] for axis in collection.axes], metric]
            rows += [[*place, s, v, None, None, cell.chance] for s, v in cell.values.items()]
            if cell.estimate is not None:
                mean, low, high = cell.estimate.mean, cell.estimate.low, cell.estimate.high
                rows.append([*place, "mean", mean, low, high, cell.chance])
    return csv_text(heads, rows)
