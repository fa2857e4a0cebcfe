"""A sweep as a value that can be read back: points and seeds on a base, and `expand`.

Because axes are data, the report draws its own table.  Pure: touches no file; config.sweep_files
reads a sweep from one.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from harness.config import VALIDATION, RunConfig, canonical_json, check_path, override
from harness.config.parents import LAYERS, points_own, with_parents
from harness.config.parents import value_at as value_at
from harness.config.points import Point as Point
from harness.config.points import Points as Points
from harness.config.points import as_points, plain_point, whole_numbers
from harness.config.points import label_of as label_of
from harness.config.points import one_at_a_time as one_at_a_time
from harness.config.points import points as points
from harness.config.points import product as product
from harness.config.points import short_names as short_names
from harness.config.points import zipped as zipped
from harness.config.searchspace import Search
from harness.config.values import plain
from harness.config.waves import check_looks, check_nuisance, check_tuning, seeds_in_order
from harness.errors import ConfigError, SweepError, few, refuse_controls, refuse_long, unknown
from harness.metrics import check_cost, mean_recall_kind

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
        made = {name: plain_point(point) for name, point in self.names.items()}
        object.__setattr__(self, "names", made)
        if self.baseline is not None:
            object.__setattr__(self, "baseline", plain_point(self.baseline))
        object.__setattr__(self, "margin", plain(self.margin))
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
    seal: str = ""
    """That the user of this machine read it; see harness.files.seal."""

    @classmethod
    def recorded(cls, tree: object) -> SweepFile | None:
        """What a record says, of whatever kind; None where that is not whole."""
        found = tree if isinstance(tree, Mapping) else {}
        words = [found.get(name, "") for name in ("path", "sha256", "seal")]
        return cls(*words) if all(isinstance(word, str) for word in words) and words[0] else None

    @property
    def told(self) -> str:
        """What is sealed of it."""
        return f"sweep file {self.path}\0{self.sha256}"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """An ablation or a search: a base, the points that change it, seeds, and what to show."""

    base: RunConfig
    points: Points = field(default_factory=lambda: Points(()))
    seeds: Iterable[int] = (0,)
    show: Show
    search: Search | None = None
    """With it, the points are tried first and an optimiser chooses the others."""
    nuisance: Mapping[str, Iterable[Any]] = field(default_factory=dict)
    """Field -> values: a grid that each point chooses from on the validation split, before it runs
    with its seeds."""
    tune_on: str = f"{VALIDATION}/{mean_recall_kind()}"
    """The metric that it chooses by."""
    tune_seeds: Iterable[int] = (100,)
    """Of the grid; none of them is reported."""
    until: int | None = None
    """Most seeds of a point: one whose comparison in the primary metric is still open after a look
    gets more."""
    looks: Iterable[int] | None = None
    """Numbers of seeds at which comparisons are judged; None: half as many again each time."""
    name: str = ""
    question: str = ""
    source: SweepFile | None = None
    lines: Mapping[str, int] = field(default_factory=dict)
    """Text in the sweep file, the name of an axis for one -> the line where it first stands."""

    def __post_init__(self) -> None:
        """Raise SweepError or ConfigError for seeds, a grid or looks that mean nothing."""
        object.__setattr__(self, "points", as_points(self.points))
        object.__setattr__(self, "seeds", whole_numbers(self.seeds))
        object.__setattr__(self, "tune_seeds", whole_numbers(self.tune_seeds))
        object.__setattr__(self, "nuisance", check_nuisance(self.nuisance, self.axes))
        if self.nuisance:
            check_tuning(self.tune_on, [*self.tune_seeds], self.seed_order)
        for field_, given in (("nuisance", self.nuisance), ("until", self.look_counts)):
            if given and self.search is not None:
                raise SweepError(f"{field_} is for a list of points, and this is a search")
        if self.look_counts and (self.show.primary is None or self.show.baseline is None):
            raise SweepError(
                "until: what is decided is the comparison of the primary metric with the baseline; "
                'Show(primary="test/mean_recall", baseline={...}) declares both'
            )

    @cached_property
    def look_counts(self) -> tuple[int, ...]:
        """Numbers of seeds of all looks; empty where the sweep is looked at once."""
        return check_looks([*self.seeds], self.until, self.looks)

    @property
    def seed_order(self) -> list[int]:
        """Every seed that a point may come to, in the order in which they are run."""
        taken = [*self.tune_seeds] if self.nuisance else []
        return seeds_in_order([*self.seeds], self.look_counts, taken)

    @property
    def declared(self) -> dict[str, Any]:
        """What is on record before the first run, in the first place what is asked."""
        looks = {"looks": list(self.look_counts)} if self.look_counts else {}
        return {**self.show.declared, **looks}

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
    parents: tuple[Run, ...] = ()
    """The runs that this one begins with or imitates, where they are to be made like it; they need
    not be points of the sweep."""
    source: SweepFile | None = None

    @cached_property
    def key(self) -> str:
        """Identity of the run."""
        return self.config.run_key

    @cached_property
    def evaluation_key(self) -> str:
        """Identity of the protocol by which it is evaluated."""
        return self.config.evaluation_key


def _labels(sweep: Sweep, names: Mapping[str, str]) -> dict[str, str]:
    """Canonical JSON of a point -> its label, another for each."""
    named, labels = _names_of_points(sweep), dict[str, str]()
    for point in sweep.points:
        text = canonical_json(point)
        label = named.get(text) or label_of(point, names)
        refuse_controls("the label", label)
        refuse_long("the label", label)
        numbered = (f"{label} #{number}" for number in itertools.count(2))
        free = (one for one in itertools.chain([label], numbered) if one not in labels.values())
        labels[text] = next(free)
    return labels


def expand(
    sweep: Sweep,
    *,
    base: RunConfig | None = None,
    overrides: Mapping[str, object] | None = None,
    seeds: Iterable[int] | None = None,
    finish: Callable[[RunConfig], RunConfig] = lambda config: config,
    finished: Callable[[str], RunConfig] | None = None,
    chosen: Callable[[Point], Point] = lambda point: {},
) -> list[Run]:
    """Every run of `sweep`, points outermost, seeds innermost; one run per key.

    Args:
        base: replaces the sweep's own base.
        overrides: dotted field -> value, set in the base before the points; an axis of the sweep
            cannot be overridden (SweepError), because the points would undo it.
        seeds: replace the sweep's own.
        finish: completes a configuration (the data's fingerprint) before it is hashed.
        finished: the configuration of the finished run whose key begins so, for points that name
            their parents by it.
        chosen: what a point chose of the nuisance parameters.

    Raises:
        SweepError, ConfigError: a point cannot be made; the line names it.
    """
    overrides = dict(overrides or {})
    refuse_clash(sweep, overrides)
    if not sweep.points:
        raise SweepError("the sweep has no points")
    start = base if base is not None else sweep.base
    general = _what_is_wrong(start, overrides)
    names = short_names(sweep.axes)
    wanted_seeds = list(sweep.seeds if seeds is None else whole_numbers(seeds))
    if not wanted_seeds or len(set(wanted_seeds)) < len(wanted_seeds):
        raise SweepError(f"seeds must be given, each once; these were: {wanted_seeds}")
    runs: dict[str, Run] = {}
    labels = _labels(sweep, names)
    for point in sweep.points:
        label = labels[canonical_json(point)]
        for seed in wanted_seeds:
            with _named(label, general, partial(_place, sweep, point)):
                config = override(start, {**overrides, **point, **chosen(point), "seed": seed})
            config = finish(config)
            with _named(label):
                config, parents = with_parents(config, finished)
            above = tuple(_parent_run(point, names, each, sweep.source) for each in parents)
            runs.setdefault(config.run_key, Run(label, point, seed, config, above, sweep.source))
    _check_show(sweep)
    return [_known_parents(run, runs) for run in runs.values()]


def refuse_clash(sweep: Sweep, overrides: Mapping[str, object]) -> None:
    """SweepError where an override sets what the sweep sets for each of its runs."""
    axes = [*sweep.axes, *sweep.nuisance, "seed"]
    clash = [path for path in overrides if path in axes]
    if clash and sweep.search is not None:
        raise SweepError(f"{clash[0]} is set by this search and cannot be overridden")
    if clash:
        hint = "use --seeds" if clash == ["seed"] else "choose points with --only"
        what = "a nuisance parameter" if clash[0] in sweep.nuisance else "an axis"
        hint = "its grid is in the sweep file" if clash[0] in sweep.nuisance else hint
        raise SweepError(f"{clash[0]} is {what} of this sweep and cannot be overridden; {hint}")


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
def _named(
    label: str,
    general: ConfigError | None = None,
    place: Callable[[str], str] = lambda text: "",
) -> Iterator[None]:
    """Put the point's place and label before what is wrong with it, unless it is so for all."""
    try:
        yield
    except ConfigError as error:
        if str(error) == str(general):
            raise
        raise ConfigError(f"{place(str(error))}{label}: {error}") from None


def _place(sweep: Sweep, point: Point, wrong: str) -> str:
    """`sweeps/mine.py:12: `, where the axis that `wrong` is about stands; empty where unknown."""
    named = [path for path in point if path in wrong] or list(point)
    lines = [sweep.lines[path] for path in named if path in sweep.lines]
    return "" if sweep.source is None or not lines else f"{sweep.source.path}:{lines[0]}: "


# --------------------------------------------------------------------------- parents


def _parent_run(
    point: Point, names: Mapping[str, str], parent: RunConfig, source: SweepFile | None
) -> Run:
    taught = [name for name, term in parent.objective.terms.items() if term.needs_teacher]
    own = {f"objective.{name}.weight" for name in taught}
    kept = {p: value for p, value in point.items() if p not in own and not points_own(p)}
    above = {**kept, LAYERS: parent.model.text.layers}
    label = label_of(above, {LAYERS: "layers", **names})
    return Run(label, above, parent.seed, parent, source=source)


def _known_parents(run: Run, runs: Mapping[str, Run]) -> Run:
    """With the points of the sweep as parents, where one is a point."""
    known = tuple(runs.get(parent.key, parent) for parent in run.parents)
    return replace(run, parents=known) if known else run


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


def baselines_of(points: Sequence[Point], baseline: Point | None) -> list[int | None]:
    """For each point the one to compare it with: that which differs in the baseline's axes alone.

    Where no such point exists and a single one holds the baseline's values, it is that one; where
    several do, there is nothing to choose by and the answer is None.
    """
    if baseline is None:
        return [None] * len(points)
    index = {canonical_json(point): number for number, point in reversed([*enumerate(points)])}
    matching = [number for number, point in enumerate(points) if matches(point, baseline)]
    single = matching[0] if len(matching) == 1 else None
    return [index.get(canonical_json({**point, **baseline}), single) for point in points]


def compared_with_nothing(runs: Sequence[Run], baseline: Point | None) -> str | None:
    """Which points of a sweep with a baseline meet no other one; None where all do."""
    labels = {canonical_json(run.point): (run.point, run.label) for run in runs}
    found = baselines_of([point for point, _ in labels.values()], baseline)
    used = Counter(found)
    names = [
        label
        for number, (_, label) in enumerate(labels.values())
        if found[number] is None or (found[number] == number and used[number] == 1)
    ]
    if baseline is None or not names or len(labels) < 2:
        return None
    are, it = ("is", "it") if len(names) == 1 else ("are", "them")
    return (
        f"{few(names)} {are} compared with no other point: none differs from {it} in "
        f"{few(short_names(baseline).values())} alone, the axes of Show(baseline=...)"
    )
