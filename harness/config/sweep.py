"""A sweep as a value that can be read back: points, their algebra, and `expand`.

Because axes are data, the report draws its own table.  Pure: touches no file; config.sweep_files
reads a sweep from one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

from harness.config import RunConfig, canonical_json, check_path, override
from harness.config.inheritance import read_inheritance
from harness.config.searchspace import Search
from harness.errors import ConfigError, SweepError, unknown
from harness.metrics import check_cost

Point = Mapping[str, Any]
"""Dotted field -> value: what one line of a table changes in the base."""


class Points(Sequence[Point]):
    """An ordered set of points; `a + b` concatenates, `a * b` crosses, doubles are dropped."""

    def __init__(self, points: Iterable[Point]) -> None:
        unique: dict[str, Point] = {}
        for point in points:
            unique.setdefault(canonical_json(point), dict(point))
        self._points = tuple(unique.values())

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> Points: ...
    def __getitem__(self, index: int | slice) -> Point | Points:
        return Points(self._points[index]) if isinstance(index, slice) else self._points[index]

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points)

    def __add__(self, other: Iterable[Point]) -> Points:
        return Points([*self, *other])

    def __mul__(self, other: Iterable[Point]) -> Points:
        """Every pair of a point here and one there; the right one wins a shared field."""
        return Points([{**a, **b} for a, b in itertools.product(self, list(other))])

    def exclude(self, when: Callable[[Point], bool]) -> Points:
        """The points for which `when` is false."""
        return Points([point for point in self if not when(point)])

    def __repr__(self) -> str:
        return f"Points({list(self._points)!r})"


def points(*given: Point) -> Points:
    """Points listed one by one."""
    return Points(given)


def product(axes: Mapping[str, Iterable[Any]]) -> Points:
    """Every combination of the values of `axes`, the last axis fastest."""
    names, values = list(axes), [list(v) for v in axes.values()]
    return Points([dict(zip(names, combo, strict=True)) for combo in itertools.product(*values)])


def zipped(axes: Mapping[str, Sequence[Any]]) -> Points:
    """The axes in step: the first values together, the second values together, and so on."""
    lengths = {name: len(values) for name, values in axes.items()}
    if len(set(lengths.values())) > 1:
        raise SweepError(f"zipped axes differ in length: {lengths}")
    return Points(
        [dict(zip(axes, combo, strict=True)) for combo in zip(*axes.values(), strict=True)]
    )


def one_at_a_time(baseline: Point, axes: Mapping[str, Iterable[Any]]) -> Points:
    """The baseline, then every point that differs from it in one axis."""
    unknown_axes = set(axes) - set(baseline)
    if unknown_axes:
        raise SweepError(f"the baseline gives no value for {', '.join(sorted(unknown_axes))}")
    changed = [{**baseline, name: value} for name, values in axes.items() for value in values]
    return Points([baseline, *changed])


#: What may stand after a mean, and where differences may stand, in the leading table.
SPREADS, DELTAS = ("sd", "ci", "se"), ("column", "line")


@dataclass(frozen=True)
class Show:
    """What the report draws: `metrics` against the axis `x`, a line per value of `hue`.

    A metric may hold `*` for any text without a slash: `*/*/acc1` is every zero-shot task there is.

    `baseline` is a point (or part of one) that differences are taken to, paired by seed.
    """

    x: str
    metrics: Sequence[str]
    baseline: Point | None = None
    hue: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Axis path -> the words a table's header and a figure's axis use."""
    names: Mapping[str, Point] = field(default_factory=dict)
    """Name -> the point that is known by it (`FILIP-like`), in the plan and in the report."""
    primary: str | None = None
    """The one metric that the question is answered by (it may hold `*` too): its comparisons are
    the verdict, those of all others are secondary.  None: all metrics are one family."""
    margin: float | None = None
    """Largest loss of the primary metric that still counts as none, in its printed unit (points):
    what "enough" means.  None: nothing is called enough."""
    cost: str = "cost/parameters/inference"
    """What the cheapest point that is enough is cheapest by."""
    columns: Sequence[str] | None = None
    """What the leading table shows after the axes, in this order: metrics (a name may hold `*`),
    costs, or an image and a text tower's cost side by side (`cost/parameters`).  None: parameters,
    GMACs and all of `metrics`."""
    spread: str = "sd"
    """What stands after a mean: `sd` and `se` (standard deviation and error over seeds) or `ci`
    (half-width of the 95 % t-interval)."""
    delta: str | None = None
    """Where the leading table has the differences to the baseline: in a `column` of their own, on
    a `line` below their means; None: not there."""
    ties: bool = False
    """Whether it marks with \u2248 what cannot be told from the best of its column."""

    def __post_init__(self) -> None:
        """Raise SweepError or ConfigError for what means nothing."""
        check_cost(self.cost)
        for field_, value, known in (
            ("spread", self.spread, SPREADS),
            ("delta", self.delta, (None, *DELTAS)),
        ):
            if value not in known:
                raise SweepError(unknown(field_, str(value), map(str, known)))
        if self.margin is None:
            return
        if self.primary is None:
            raise SweepError(
                f"margin = {self.margin!r} is of the primary metric, and none is declared: "
                'Show(primary="test/mean_recall", margin=...)'
            )
        is_number = isinstance(self.margin, (int, float)) and not isinstance(self.margin, bool)
        if not is_number or not 0 <= self.margin < math.inf:
            raise SweepError(
                f"margin = {self.margin!r}: a number from 0 on is wanted, in the unit that "
                f"{self.primary} is printed in"
            )

    @property
    def declared(self) -> dict[str, Any]:
        """What is on record before the first run: `primary`, `margin` and `cost`."""
        return {"primary": self.primary, "margin": self.margin, "cost": self.cost}


def declared_by_all(shows: Sequence[Show]) -> dict[str, Any]:
    """`Show.declared` where it is the same for all of `shows`, else that of a Show without one."""
    first = shows[0].declared
    if all(show.declared == first for show in shows):
        return first
    return Show(x=shows[0].x, metrics=()).declared


@dataclass(frozen=True)
class SweepFile:
    """Where a sweep was read from: provenance, never identity."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """An ablation or a search: a base, the points that change it, seeds, and what to show."""

    base: RunConfig
    points: Points = field(default_factory=lambda: Points(()))
    seeds: Iterable[int] = (0,)
    show: Show
    search: Search | None = None
    """With it, the points are tried first and an optimiser chooses the others."""
    name: str = ""
    question: str = ""
    source: SweepFile | None = None

    @property
    def axes(self) -> list[str]:
        """Every field that the search or some point sets, in order of appearance."""
        searched = [] if self.search is None else list(self.search.space)
        return list(dict.fromkeys([*searched, *(name for point in self.points for name in point)]))


@dataclass(frozen=True)
class Run:
    """One point with one seed, resolved."""

    label: str
    point: Point
    seed: int
    config: RunConfig
    parent: Run | None = None
    """The run that this one's text tower starts from, where that is a run to be made like it; it
    need not be a point of the sweep."""
    source: SweepFile | None = None

    @cached_property
    def key(self) -> str:
        """Identity of the run."""
        return self.config.run_key

    @cached_property
    def evaluation_key(self) -> str:
        """Identity of the protocol by which it is evaluated."""
        return self.config.evaluation_key


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Dotted path -> the fewest trailing parts that tell it from the others."""
    paths = list(paths)
    names: dict[str, str] = {}
    for path in paths:
        parts = path.split(".")
        for take in range(1, len(parts) + 1):
            name = ".".join(parts[-take:])
            if sum(other == path or other.endswith("." + name) for other in paths) == 1:
                break
        names[path] = name
    return names


def label_of(point: Point, names: Mapping[str, str]) -> str:
    """`layers=4, a_max=0.2`; the base itself is called `base`."""
    return ", ".join(f"{names[path]}={_text(value)}" for path, value in point.items()) or "base"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def expand(
    sweep: Sweep,
    *,
    base: RunConfig | None = None,
    overrides: Mapping[str, object] | None = None,
    seeds: Iterable[int] | None = None,
    finish: Callable[[RunConfig], RunConfig] = lambda config: config,
    finished: Callable[[str], RunConfig] | None = None,
) -> list[Run]:
    """Every run of `sweep`, points outermost, seeds innermost; one run per key.

    Args:
        base: replaces the sweep's own base.
        overrides: dotted field -> value, set in the base before the points; an axis of the sweep
            cannot be overridden (SweepError), because the points would undo it.
        seeds: replace the sweep's own.
        finish: completes a configuration (the data's fingerprint) before it is hashed.
        finished: the configuration of the finished run whose key begins so, for points that name
            their parent by it.

    Raises:
        SweepError, ConfigError: a point cannot be made; the line names it.
    """
    overrides = dict(overrides or {})
    clash = [path for path in overrides if path in sweep.axes or path == "seed"]
    if clash:
        hint = "use --seeds" if clash == ["seed"] else "choose points with --only"
        raise SweepError(f"{clash[0]} is an axis of this sweep and cannot be overridden; {hint}")
    if not sweep.points:
        raise SweepError("the sweep has no points")
    start = base if base is not None else sweep.base
    general = _what_is_wrong(start, overrides)
    names = short_names(sweep.axes)
    wanted_seeds = list(seeds if seeds is not None else sweep.seeds)
    if not wanted_seeds or len(set(wanted_seeds)) < len(wanted_seeds):
        raise SweepError(f"seeds must be given, each once; these were: {wanted_seeds}")
    runs: dict[str, Run] = {}
    named = _names_of_points(sweep)
    for point in sweep.points:
        label = named.get(canonical_json(point)) or label_of(point, names)
        for seed in wanted_seeds:
            with _named(label, general):
                config = override(start, {**overrides, **point, "seed": seed})
            config = finish(config)
            with _named(label):
                config, parent = _with_parent(config, finished)
            above = None if parent is None else _parent_run(point, names, parent, sweep.source)
            runs.setdefault(config.run_key, Run(label, point, seed, config, above, sweep.source))
    _check_show(sweep)
    return [_known_parent(run, runs) for run in runs.values()]


def _names_of_points(sweep: Sweep) -> dict[str, str]:
    """Canonical JSON of a point -> its name; SweepError for a name that no point has."""
    named = {canonical_json(point): name for name, point in sweep.show.names.items()}
    there = {canonical_json(point) for point in sweep.points}
    for text, name in named.items():
        if text not in there:
            raise SweepError(f"{name!r} names a point that the sweep does not have: {text}")
    return named


def _what_is_wrong(start: RunConfig, overrides: Mapping[str, object]) -> ConfigError | None:
    """With the overrides alone; a point may still make it good, as with a stage the base lacks."""
    try:
        override(start, overrides)
    except ConfigError as error:
        return error
    return None


@contextmanager
def _named(label: str, general: ConfigError | None = None) -> Iterator[None]:
    """Put the point's label before what is wrong with it, unless all points have it in common."""
    try:
        yield
    except ConfigError as error:
        if str(error) == str(general):
            raise
        raise ConfigError(f"{label}: {error}") from None


# --------------------------------------------------------------------------- parents

_LAYERS = "model.text.layers"
_INIT_FIELDS = ("model.text.init", "model.text.init_parent", "model.text.init_blocks")
_SAME_TEXT = (
    "model.text.vocabulary",
    "model.text.width",
    "model.text.heads",
    "model.text.context_length",
    "model.embed_dim",
)


def _with_parent(
    config: RunConfig, finished: Callable[[str], RunConfig] | None
) -> tuple[RunConfig, RunConfig | None]:
    """`config` with its text tower's parent filled in, and the parent if that is to be made too."""
    text = config.model.text
    if text.init is None:
        return config, None
    init = read_inheritance(text.init)
    sibling = None
    if init.run is None:
        sibling = override(config, {**dict.fromkeys(_INIT_FIELDS), _LAYERS: init.layers})
        parent = sibling
    elif finished is None:
        raise SweepError(
            f"model.text.init = {text.init!r}: there is no store to look the run up in"
        )
    else:
        parent = finished(init.run)
        _check_same_text(config, parent)
    blocks = init.blocks(text.layers, parent.model.text.layers)
    filled = {"model.text.init_parent": parent.run_key, "model.text.init_blocks": blocks}
    return override(config, filled), sibling


def _check_same_text(config: RunConfig, parent: RunConfig) -> None:
    """ConfigError, listing what differs, unless the weights of the parent's text tower fit."""
    paths = [*_SAME_TEXT]
    if config.model.text.vocabulary == "corpus":
        paths.append("data.fingerprint")  # whose captions say what the rows of the table are
    differ = [
        f"{path} = {mine!r} here, {theirs!r} there"
        for path in paths
        if (mine := value_at(config, path)) != (theirs := value_at(parent, path))
    ]
    if differ:
        raise ConfigError(
            f"model.text.init = {config.model.text.init!r}: the text tower of run "
            f"{parent.run_key} does not fit: {'; '.join(differ)}"
        )


def _parent_run(
    point: Point, names: Mapping[str, str], parent: RunConfig, source: SweepFile | None
) -> Run:
    kept = {path: value for path, value in point.items() if path not in _INIT_FIELDS}
    above = {**kept, _LAYERS: parent.model.text.layers}
    label = label_of(above, {_LAYERS: "layers", **names})
    return Run(label, above, parent.seed, parent, source=source)


def _known_parent(run: Run, runs: Mapping[str, Run]) -> Run:
    """With the point of the sweep as the parent, where the parent is one."""
    if run.parent is None or run.parent.key not in runs:
        return run
    return replace(run, parent=runs[run.parent.key])


def _check_show(sweep: Sweep) -> None:
    show = sweep.show
    for path in [show.x, *([show.hue] if show.hue else [])]:
        check_path(path)
    baseline = show.baseline
    if baseline is not None and not any(matches(point, baseline) for point in sweep.points):
        raise SweepError(f"no point of the sweep is its baseline {dict(baseline)}")


def matches(point: Point, part: Point) -> bool:
    """Whether `point` holds every value of `part` (1 and 1.0 are one value)."""
    return all(
        path in point and canonical_json(point[path]) == canonical_json(value)
        for path, value in part.items()
    )


def value_at(config: RunConfig, path: str) -> Any:
    """The value of a dotted field of `config`."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value
