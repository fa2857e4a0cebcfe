"""What the verdicts of a report are worth: null and non-null sweeps simulated through `analyse`.

    python tests/benchmarks/statistics.py [--sweeps 4000] [--jobs 2] [--json FILE] [--only WORD]

A simulated run answers N items rightly or wrongly.  Items differ in difficulty, which all runs
share; each trained run has a random effect, each seed one that its points share; with an
interaction, points differ from item to item as well.  The truth is known, so every sentence that
a report makes can be counted as right or wrong.  Percentages and points throughout; every share
comes with its Monte Carlo standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.stats.analysis import Analysis, Measured, Plan, analyse, under_trained
from harness.stats.layout import ItemSpread, Values
from harness.stats.power import POWER

METRICS = 7
LEVELS = (1.0, 2.0, 4.0, 8.0, 12.0)
MANY = tuple(float(level) for level in range(1, 13))
MARGIN = 2.0
POWER_AT = (4, 8, 12)
#: Residual standard deviations (points) of the built-in depth sweep of 18,000 samples: mean recall
#: (the primary metric), T2I R@1, I2T R@1, role, gender and skin-tone accuracy, and their average.
BUILT_IN = (1.54, 1.52, 2.20, 3.53, 3.13, 2.53, 1.85)
#: Items differ by this in probit units; it makes a slope of 28 points a unit at 50 %.
DIFFICULTY = 1.0
_SLOPE = 100 / math.sqrt(2 * math.pi * (1 + DIFFICULTY**2))


@dataclass(frozen=True)
class Design:
    """One kind of sweep; standard deviations and effects in points."""

    name: str
    seeds: int = 3
    items: int = 417
    run_sd: float | None = 2.0
    """Of a trained run; None for the spreads of the built-in sweep."""
    interaction: float = 0.0
    """Of points x items, in probit units."""
    noise: Mapping[int, float] = field(default_factory=dict)
    """Point -> factor on its runs' standard deviation."""
    holes: frozenset[tuple[int, int]] = frozenset()
    means: tuple[float, ...] = (0.0,) * len(LEVELS)
    """True means of the points; all equal for a sweep in which nothing differs."""
    shared: float = 0.0
    """Of the variance of a trained run, what its metrics have in common."""
    aims: bool = True
    """Whether the aims for equal noise hold."""

    @property
    def levels(self) -> tuple[float, ...]:
        """Of the axis; the last point is the baseline."""
        return LEVELS if len(self.means) == len(LEVELS) else MANY


def designs() -> Iterator[Design]:
    """Every design that is simulated."""
    for seeds in (2, 3, 5):
        for sd in (1.0, 2.0, 4.0):
            yield Design("equal noise", seeds, 417, sd)
    for seeds in (2, 3, 5):
        for sd in (1.0, 4.0):
            yield Design("equal noise", seeds, 5_000, sd)
    for seeds in (3, 5):
        for items in (417, 5_000):
            yield Design("points x items", seeds, items, 2.0, interaction=0.5)
    for seeds in (2, 3, 5):
        yield Design("built-in mix", seeds, 417, None)
    for seeds in (3, 5):
        yield Design("a hole", seeds, 417, 2.0, holes=frozenset({(1, 0)}))
    yield from _noisy_designs()
    just = MARGIN + 0.05
    for seeds in (3, 5):
        beyond = (-just,) * 4 + (0.0,)
        yield Design("four just beyond the margin", seeds, 417, 2.0, means=beyond)
        yield Design("cheapest just beyond", seeds, 417, 1.0, means=(-just, 0, 0, 0, 0))
        yield Design("two best, cheap beyond", seeds, 417, 2.0, means=(-just, -just, -just, 0, 0))


def _noisy_designs() -> Iterator[Design]:
    """One point noisier than the others, beside equal noise where that is not among the rest."""
    designs = [(5, 2, 0.0), (5, 3, 0.0), (5, 5, 0.0), (12, 2, 0.0), (12, 3, 0.0)]
    for points, seeds, shared in [*designs, (5, 2, 0.7), (12, 2, 0.7)]:
        of = f" of {points}{', like metrics' if shared else ''}" * (points > 5 or shared > 0)
        equal = Design(f"equal noise{of}", seeds, means=(0.0,) * points, shared=shared)
        if of:
            yield equal
        for word, noisy in (("one point", 1), ("baseline", points - 1)):
            yield replace(equal, name=f"{word} 4 x as noisy{of}", noise={noisy: 4.0}, aims=False)


# --------------------------------------------------------------------------- one sweep


@dataclass(frozen=True)
class Sweep:
    """Simulated metrics, and the true means (points) of their points."""

    measured: tuple[Measured, ...]
    means: NDArray[np.float64]
    loss: Values


def simulate(design: Design, rng: np.random.Generator) -> Sweep:
    """One sweep of `design`; values are fractions, as in records."""
    points, seeds, items = len(design.means), design.seeds, design.items
    if design.run_sd is None:
        outcomes, means = _gaussian(design, rng), np.tile(design.means, (METRICS, 1))
    else:
        shifts = np.array(design.means) / _SLOPE
        noise = np.array([design.noise.get(point, 1.0) for point in range(points)])
        runs = math.sqrt(1 - design.shared) * rng.normal(size=(METRICS, points, seeds))
        if design.shared:
            runs += math.sqrt(design.shared) * rng.normal(size=(points, seeds))
        runs *= noise[:, None] * design.run_sd / _SLOPE
        runs += rng.normal(size=(METRICS, 1, seeds)) / _SLOPE
        difficulty = DIFFICULTY * rng.normal(size=(METRICS, 1, 1, items))
        own = design.interaction * rng.normal(size=(METRICS, points, 1, items))
        latent = (shifts[:, None] + runs)[..., None] + difficulty + own
        outcomes = rng.random(latent.shape, dtype=np.float32) < special.ndtr(latent)
        means = np.tile(_true_means(design, shifts, noise), (METRICS, 1))
    return Sweep(
        tuple(_measured(f"m{number}", table, design) for number, table in enumerate(outcomes)),
        means,
        _loss(design, rng),
    )


def _true_means(design: Design, shifts: NDArray[Any], noise: NDArray[Any]) -> NDArray[np.float64]:
    """Over other seeds and other items, exactly: a probit of normals is a probit."""
    runs = (noise * (design.run_sd or 0.0)) ** 2 + 1.0
    spread = 1 + DIFFICULTY**2 + design.interaction**2 + runs / _SLOPE**2
    found: NDArray[np.float64] = 100 * special.ndtr(shifts / np.sqrt(spread))
    return found


def _gaussian(design: Design, rng: np.random.Generator) -> NDArray[np.float64]:
    """Scores of items whose residual has the spreads of the built-in sweep."""
    shape = (METRICS, len(design.means), design.seeds)
    sd = np.array(BUILT_IN)[:, None, None] / 100
    runs = 0.5 + np.array(design.means)[:, None] / 100 + 0.8 * sd * rng.normal(size=shape)
    scores = runs[..., None] + 0.3 * rng.normal(size=(METRICS, 1, 1, design.items))
    own = 0.6 * sd[..., None] * math.sqrt(design.items)
    found: NDArray[np.float64] = scores + own * rng.normal(size=(*shape, design.items))
    return found


def _measured(name: str, outcomes: NDArray[Any], design: Design) -> Measured:
    there = [
        (point, seed)
        for point in range(len(design.means))
        for seed in range(design.seeds)
        if (point, seed) not in design.holes
    ]
    values: dict[int, dict[int, float]] = {}
    for point, seed in there:
        values.setdefault(point, {})[seed] = float(outcomes[point, seed].mean())
    common = [s for s in range(design.seeds) if all((p, s) in there for p in values)]
    items = None
    if len(common) > 1:
        items = ItemSpread({place: outcomes[place] for place in there})
    return Measured(name, values, items=items)


def _loss(design: Design, rng: np.random.Generator) -> Values:
    """A healthy sweep: no point fits the training set worse than another."""
    return {
        point: {seed: float(1 + 0.05 * rng.normal()) for seed in range(design.seeds)}
        for point in range(len(design.means))
    }


def plan_of(primary: str | None, levels: tuple[float, ...] = LEVELS) -> Plan:
    """What a sweep of text depths asks; the last point is the baseline."""
    places = {point: math.log2(level) for point, level in enumerate(levels)}
    baseline = len(levels) - 1
    return Plan(
        comparisons=[(point, baseline) for point in range(baseline)],
        lines=[places],
        primary=primary,
        margin=None if primary is None else MARGIN / 100,
        cost=dict(enumerate(levels)),
    )


# --------------------------------------------------------------------------- what is counted


def count(design: Design, seed: int, sweeps: int) -> dict[str, list[float]]:
    """Name -> what was seen, one number a sweep (or a test of it)."""
    rng = np.random.default_rng([seed, *design.name.encode()])
    seen: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seen.setdefault(name, []).append(float(value))

    for number in range(sweeps):
        sweep = simulate(design, rng)
        plan = plan_of("m0", design.levels)
        found = analyse(sweep.measured, plan)
        for name, value in _claims(sweep, found).items():
            note(name, value)
        for inside in _covered(sweep, found):
            note("coverage", inside)
        guard = under_trained(sweep.loss, sweep.measured[0], plan.lines[0])
        note("false_guard", guard is not None and guard.falls)
        printed = found.by_metric["m0"].detectable
        if printed is not None:
            note("detectable_printed", 100 * printed)
        note("names_noisy", all(p in found.by_metric["m0"].noisy for p in design.noise))
        if not any(design.means) and number < max(100, sweeps // 4):
            for name, value in _power(sweep, design.levels):
                note(name, value)
    return seen


def _claims(sweep: Sweep, found: Analysis) -> dict[str, bool]:
    """Which false sentences stand in a report of `sweep`."""
    wrong: dict[bool, list[bool]] = {True: [], False: []}
    trends, won = [], []
    levels = LEVELS if sweep.means.shape[1] == len(LEVELS) else MANY
    places = np.log2(levels) - np.log2(levels).mean()
    for number, each in enumerate(found.by_metric.values()):
        means = sweep.means[number]
        for (point, base), judged in each.comparisons.items():
            truth = means[point] - means[base]
            wrong[each.primary].append(judged.significant and truth * judged.test.estimate <= 0)
        for judged in each.trends.values():
            false = judged.significant and float(means @ places) * judged.test.estimate <= 0
            wrong[each.primary].append(false)
            if each.primary:
                trends.append(false)
        if each.best is not None:
            rivals = np.delete(means, each.best.leader)
            won.append(each.best.won and bool(means[each.best.leader] <= rivals.max()))
    enough = next(iter(found.by_metric.values())).enough
    means = sweep.means[0]
    false_enough = (
        enough is not None
        and enough.point is not None
        and means.max() - means[enough.point] > MARGIN
    )
    return {
        "familywise_primary": any(wrong[True]),
        "familywise_secondary": any(wrong[False]),
        "any_claim": any(wrong[True]) or any(wrong[False]) or any(won) or false_enough,
        "false_enough": false_enough,
        "false_trend": any(trends),
    }


def _covered(sweep: Sweep, found: Analysis) -> Iterator[bool]:
    for number, each in enumerate(found.by_metric.values()):
        for (point, base), judged in each.comparisons.items():
            interval = judged.test.interval
            if interval is not None:
                truth = sweep.means[number][point] - sweep.means[number][base]
                yield 100 * interval[0] <= truth <= 100 * interval[1]


def _power(sweep: Sweep, levels: tuple[float, ...]) -> Iterator[tuple[str, bool]]:
    """The same sweep with one point moved: is that found, in one family and as the primary?"""
    primary = plan_of("m0", levels)
    for points in POWER_AT:
        moved = [_moved(each, points / 100) for each in sweep.measured]
        together = analyse(moved, plan_of(None, levels))
        yield f"power_at {points}", _is_found(together, "m0")
        for each in moved:
            yield f"mean_power_at {points}", _is_found(together, each.name)
        yield f"primary_power_at {points}", _is_found(analyse(moved[:1], primary), "m0")
    for points in np.geomspace(1.5, 60, 16):
        alone = analyse([_moved(sweep.measured[0], points / 100)], primary)
        yield f"found {points:.3f}", _is_found(alone, "m0")


def _moved(each: Measured, by: float) -> Measured:
    values = {**each.values, 1: {seed: v + by for seed, v in each.values[1].items()}}
    return replace(each, values=values)


def _is_found(found: Analysis, name: str) -> bool:
    of_one = (each for (point, _), each in found.by_metric[name].comparisons.items() if point == 1)
    judged = next(of_one, None)
    return judged is not None and judged.significant and judged.test.estimate > 0


# --------------------------------------------------------------------------- the table


def summarise(design: Design, seen: Mapping[str, list[float]]) -> dict[str, Any]:
    """One row: shares with their Monte Carlo standard errors."""
    row: dict[str, Any] = {
        "design": design.name,
        "seeds": design.seeds,
        "items": design.items,
        "run_sd": design.run_sd,
        "interaction": design.interaction,
        "sweeps": len(seen["any_claim"]),
        "equal_noise": design.aims,
    }
    shares = ("familywise_primary", "familywise_secondary", "any_claim", "coverage")
    for name in (*shares, "false_enough", "false_trend", "false_guard", "names_noisy"):
        row[name], row[f"{name}_se"] = _share(seen.get(name, []))
    for name in ("power_at", "mean_power_at", "primary_power_at"):
        found = {at: _share(seen[f"{name} {at}"]) for at in POWER_AT if f"{name} {at}" in seen}
        row[name] = {str(at): share for at, (share, _) in found.items()}
        row[f"{name}_se"] = {str(at): error for at, (_, error) in found.items()}
    printed = seen.get("detectable_printed", [])
    row["detectable_printed"] = float(np.median(printed)) if printed else None
    row["detectable_true"] = _crossing(seen)
    return row


def _share(values: list[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    share = float(np.mean(values))
    return share, math.sqrt(share * (1 - share) / len(values))


def _crossing(seen: Mapping[str, list[float]]) -> float | None:
    """The difference that is found with a probability of 0.8, between those simulated."""
    at = [float(name.split()[1]) for name in seen if name.startswith("found ")]
    shares = [float(np.mean(seen[f"found {points:.3f}"])) for points in at]
    if not at or max(shares) < POWER:
        return None
    return float(np.exp(np.interp(POWER, np.maximum.accumulate(shares), np.log(at))))


def run(design: Design, sweeps: int, seed: int = 0) -> dict[str, Any]:
    """Simulate one design."""
    return summarise(design, count(design, seed, sweeps))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def main(argv: list[str] | None = None) -> int:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=4_000, metavar="N")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="WORD", help="designs whose name holds it")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    chosen = [design for design in designs() if args.only in design.name]
    if not chosen:
        names = sorted({design.name for design in designs()})
        parser.error(f"--only: no design's name holds {args.only!r}: {', '.join(names)}")
    print(f"| {' | '.join(_HEADS)} |\n|{'---|' * len(_HEADS)}")
    rows = []
    with ProcessPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(run, design, args.sweeps, args.seed) for design in chosen]
        for future in futures:
            row = future.result()
            rows.append(row)
            print(_line(row), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def _line(row: Mapping[str, Any]) -> str:
    numbers = [
        *[_percent(row[name]) for name in ("familywise_primary", "familywise_secondary")],
        *[_percent(row[name]) for name in ("any_claim", "coverage")],
        *[
            "/".join(_percent(row[name].get(str(at))) for at in POWER_AT)
            for name in ("power_at", "mean_power_at", "primary_power_at")
        ],
        "/".join(
            "-" if row[name] is None else f"{row[name]:.1f}"
            for name in ("detectable_printed", "detectable_true")
        ),
        *[_percent(row[n]) for n in ("false_enough", "false_trend", "false_guard", "names_noisy")],
    ]
    sd = "mix" if row["run_sd"] is None else f"{row['run_sd']:g}"
    cells = [row["design"], f"{row['seeds']}", f"{row['items']:,}", sd, *numbers]
    return f"| {' | '.join(cells)} |"


_HEADS = (
    *("design", "seeds", "items", "run sd", "primary", "secondary", "any", "coverage"),
    *("power 4/8/12", "mean power", "primary power", "detectable printed/true"),
    *("false enough", "false trend", "guard", "names noisy"),
)


if __name__ == "__main__":
    sys.exit(main())
