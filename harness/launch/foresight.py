"""What a planned sweep can find, and the most that it may cost, before anything of it starts.

The variance is that of earlier runs in the same metric on the same data: those of the sweep itself
or else of another one on file.  scipy is imported where there are some, and nothing heavier.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from harness import metrics
from harness.config import Data, Runtime, canonical_json
from harness.config.sweep import Run, Sweep, matches
from harness.data.catalog import open_data
from harness.errors import ConfigError, HarnessError
from harness.launch.backlog import stream_of
from harness.launch.executor import SHARE, Executor
from harness.launch.preview import makespan, seconds_of
from harness.launch.slots import Capacity
from harness.launch.waves import Wave
from harness.planning.costs import decode_share, duration
from harness.planning.plan import Step, make_plan
from harness.store.manifest import manifest_names, read_manifest
from harness.store.record import Store

FEWEST_DEGREES = 2
"""Degrees of freedom below which a variance says too little."""
_MOST_SEEDS = 100
_WORTH_SHARING = 0.2
"""Share of the training time that goes into pictures."""
_PHOTOGRAPH_BYTES = 20_000
"""Of a file: from here on it takes about the time to decode that is assumed."""


@dataclass(frozen=True)
class Variance:
    """Of a run in the primary metric, as earlier runs have it."""

    metric: str
    square: float
    df: int
    sweep: str
    """Whose runs they are."""


def can_find(sweep: Sweep, runs: Sequence[Run], store: Store) -> Iterator[str]:
    """What the planned seeds detect and how many the margin needs, a line each.

    Args:
        runs: planned ones, of which the data is known.
    """
    show = sweep.show
    if show.primary is None or show.baseline is None or len(sweep.points) < 2:
        return
    found = earlier_variance(sweep, runs, store)
    if found is None:
        name = metrics.display(show.primary) if "*" not in show.primary else show.primary
        yield f"no earlier run here tells the variance of {name}: what can be found is not known"
        return
    tests, seeds = _tests(sweep), len(sweep.seed_order)
    unit, scale = metrics.unit_of_difference(found.metric), metrics.scale(found.metric)
    looks = f", {len(sweep.look_counts)} looks" if sweep.look_counts else ""
    least = detectable_with(found.square, seeds, tests, sweep)
    if least is not None:
        yield (
            f"{seeds} seeds find a difference of {least * scale:.1f} {unit} in "
            f"{metrics.display(found.metric)} (80 % power, {tests} tests{looks}; by the runs of "
            f"{found.sweep}, {found.df} degrees of freedom, test items not counted)"
        )
    if show.margin is not None:
        wanted = seeds_for(found.square, show.margin / scale, tests, sweep)
        how = "more than 100" if wanted is None else f"about {wanted}"
        yield f"a difference of the margin, {show.margin:g} {unit}, needs {how} seeds"


def upper_cost(wave: Wave, store: Store, capacity: Capacity) -> Iterator[str]:
    """The most that the wave and all that may follow it come to; nothing where nothing may."""
    if not wave.later:
        return
    steps = [step for step in make_plan([*wave.runs, *wave.later], store) if step.pending]
    times = [seconds_of(step, capacity) for step in steps]
    known = [seconds for seconds in times if seconds is not None]
    slots = f"{capacity.slots} slot{'s' if capacity.slots > 1 else ''}"
    line = f"upper cost: {len(steps)} runs in all waves, of which {_pending(wave, steps)} now"
    if len(known) == len(times):
        line += f"; at most about {duration(makespan(known, capacity.slots))} in {slots}"
    yield line


def sharing(steps: Sequence[Step], executor: Executor, capacity: Capacity) -> Iterator[str]:
    """Whether runs side by side may as well have their pictures from one another; one line at most.

    It is proposed where finished runs waited for pictures, or, of loose photographs, where runs
    should at the assumed speeds.
    """
    configs = [step.run.config for step in steps if step.pending]
    streams = Counter(map(stream_of, configs))
    alike = min(executor.side_by_side, max(streams.values(), default=0))
    if executor.work.share_data:
        if configs and alike < 2:
            one = executor.side_by_side < 2
            why = "one run at a time on a machine" if one else "no two runs see the same pictures"
            yield f"{SHARE.flag} changes nothing here: {why}"
    elif alike >= 2:
        share, how = _waiting(steps, executor.work.runtime, capacity)
        if share >= _WORTH_SHARING:
            yield (
                f"{share:.0%} of the training time goes into decoding ({how}): {SHARE.flag} "
                f"decodes once for {alike} runs side by side"
            )


def _waiting(steps: Sequence[Step], runtime: Runtime, capacity: Capacity) -> tuple[float, str]:
    """The share of the training time that runs wait for pictures, and how that is known."""
    found = [(step.trained or {}).get("data_wait") for step in steps]
    known = [share for share in found if share is not None]
    if known:
        return median(known), f"as in {len(known)} finished runs"
    pending = [step.run.config for step in steps if step.pending]
    if capacity.on_gpu and capacity.pace is None:
        return 0.0, ""
    large = {data: _is_photographs(data, runtime) for data in {c.data for c in pending}}
    shares = [decode_share(c, capacity.pace) if large[c.data] else 0.0 for c in pending]
    return median(shares), "at assumed speeds"


def _is_photographs(data: Data, runtime: Runtime) -> bool:
    """Whether pictures are large: neither drawn here, nor made small by `pack`, nor unknown."""
    sizes = None if data.path is None else open_data(data, runtime).sizes("train")
    return sizes is not None and len(sizes) > 0 and sizes.mean() > _PHOTOGRAPH_BYTES


def _pending(wave: Wave, steps: Sequence[Step]) -> int:
    own = {run.key for run in wave.runs}
    return sum(step.run.key in own for step in steps)


# --------------------------------------------------------------------------- the variance


def earlier_variance(sweep: Sweep, runs: Sequence[Run], store: Store) -> Variance | None:
    """Residual of `point + seed` over the finished runs of one sweep; None without any."""
    data = {run.config.data.fingerprint for run in runs}
    on_file = manifest_names(store)
    own = [name for name in on_file if name == sweep.name]
    for name in [*own, *(name for name in on_file if name not in own)]:
        try:
            manifest = read_manifest(store, name)
        except HarnessError:
            continue  # of another version, or edited: nothing is known of it
        same = [run for run in manifest.runs if run.config.data.fingerprint in data]
        found = _variance(sweep, same, store, name)
        if found is not None:
            return found
    return None


def _variance(sweep: Sweep, runs: Sequence[Run], store: Store, name: str) -> Variance | None:
    values: dict[str, dict[int, float]] = {}
    metric = ""
    for run in runs:
        try:
            result = store.run_dir(run.key).result()
        except HarnessError:
            continue
        evaluation = (result or {"evaluations": {}})["evaluations"].get(run.evaluation_key, {})
        recorded = evaluation.get("metrics", {})
        try:
            metric = metrics.match_primary(sweep.show.primary or "", recorded)
        except ConfigError:
            continue
        value = recorded[metric].get("value")
        if isinstance(value, (int, float)) and math.isfinite(value):
            values.setdefault(canonical_json(run.point), {})[run.seed] = float(value)
    if sum(map(len, values.values())) < len(values) + FEWEST_DEGREES:
        return None
    from harness.stats.layout import Layout

    layout = Layout(dict(enumerate(values.values())))
    if layout.df < FEWEST_DEGREES or layout.mean_square is None:
        return None
    return Variance(metric, layout.mean_square, layout.df, name)


# --------------------------------------------------------------------------- the design


def _tests(sweep: Sweep) -> int:
    """Comparisons with the baseline, and a slope where the axis has three numbers."""
    baseline = sweep.show.baseline or {}
    compared = sum(not matches(point, baseline) for point in sweep.points)
    values = [point.get(sweep.show.x) for point in sweep.points]
    numbers = {v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return compared + (len(numbers) >= 3 and len(numbers) == len(sweep.points))


def detectable_with(square: float, seeds: int, tests: int, sweep: Sweep) -> float | None:
    """The difference that so many seeds for every point find with a probability of 0.8."""
    from harness.stats.power import noncentrality
    from harness.stats.spending import Looks
    from harness.stats.tests import ALPHA

    df = (len(sweep.points) - 1) * (seeds - 1)
    if df < 1:
        return None
    level = ALPHA / tests
    if sweep.look_counts:
        looks = Looks(sweep.look_counts)
        level = looks.level(len(looks.counts) - 1, level)
    return noncentrality(df, level) * math.sqrt(2 * square / seeds)


def seeds_for(square: float, difference: float, tests: int, sweep: Sweep) -> int | None:
    """The fewest seeds that find `difference`; None past a hundred."""
    for seeds in range(2, _MOST_SEEDS + 1):
        least = detectable_with(square, seeds, tests, sweep)
        if least is not None and least <= difference:
            return seeds
    return None
