"""Seeds until decided, simulated: false claims over all looks, and what it takes to find something.

    python tests/benchmarks/statistics.py --sequential [--sweeps 2000] [--json FILE]

Five points, the last one the baseline, whose runs vary by 2 points; a report is made at every look
and each of its claims on the primary metric is counted against the truth.  Beside it the same
sweeps with 3, 5 and 16 seeds for every point, and what becomes of the error where a verdict by a
fixed number of seeds was printed before the looks were declared.  Last, what it does to the error
that each point chooses nuisance parameters: on the validation split, or on what is reported.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.planning.selection import Combination, PointChoice
from harness.stats.analysis import Measured, MetricAnalysis, Plan, analyse, contrasts_of
from harness.stats.layout import ItemSpread
from harness.stats.sequential import Course, Seeds, follow
from harness.stats.spending import Looks

LOOKS = Looks((3, 5, 8, 12, 16))
LEVELS = (1.0, 2.0, 4.0, 8.0, 12.0)
BASELINE = len(LEVELS) - 1
MARGIN = 2.0
SD = 2.0
FIXED = (3, 5, 16)
PLAN = Plan(
    comparisons=[(point, BASELINE) for point in range(BASELINE)],
    lines=[{point: math.log2(level) for point, level in enumerate(LEVELS)}],
    primary="m",
    margin=MARGIN / 100,
    cost=dict(enumerate(LEVELS)),
)


@dataclass(frozen=True)
class Truth:
    """One kind of sweep; effects in points."""

    name: str
    means: tuple[float, ...] = (0.0,) * len(LEVELS)
    noise: tuple[float, ...] = (1.0,) * len(LEVELS)
    items: int = 0
    """Test items, in which points differ beyond the noise of runs; 0: the runs alone."""


TRUTHS = (
    Truth("nothing differs"),
    Truth("nothing differs, with items", items=200),
    Truth("one point 3 x as noisy", noise=(1, 3, 1, 1, 1)),
    Truth("small: one point -3", (0, -3, 0, 0, 0)),
    Truth("small: rising by 3", (-3, -2.1, -1.3, -0.5, 0)),
    Truth("just beyond the margin", (-2.05, -2.05, -2.05, -2.05, 0)),
    Truth("large: one point -12", (0, -12, 0, 0, 0)),
    Truth("large: all -12", (-12, -12, -12, -12, 0)),
)


class Drawn:
    """Every run that a sweep may come to, of which a look sees some."""

    def __init__(self, truth: Truth, rng: np.random.Generator) -> None:
        shape = (len(LEVELS), LOOKS.counts[-1])
        runs = SD * np.array(truth.noise)[:, None] * rng.normal(size=shape)
        self.runs = (50 + np.array(truth.means)[:, None] + runs + rng.normal(size=shape[1])) / 100
        self.scores = None
        if truth.items:
            own = 0.25 * rng.normal(size=(shape[0], 1, truth.items))
            noise = 0.1 * rng.normal(size=(*shape, truth.items))
            self.scores = self.runs[..., None] + own + noise
            self.runs = self.scores.mean(axis=2)

    def measured(self, seeds: Seeds) -> Measured:
        """The metric as a report reads it of these seeds."""
        values = {p: {s: float(self.runs[p, s]) for s in own} for p, own in seeds.items()}
        items = None
        if self.scores is not None:
            items = ItemSpread({(p, s): self.scores[p, s] for p, own in seeds.items() for s in own})
        return Measured("m", values, items=items)

    def course(self, looks: int) -> Course:
        """As far as the first `looks` looks go."""
        most = LOOKS.counts[looks - 1]
        return follow(
            lambda seeds: contrasts_of(self.measured(seeds), PLAN),
            PLAN.comparisons,
            range(LOOKS.counts[-1]),
            LOOKS,
            points=range(len(LEVELS)),
            complete=lambda seeds: max(map(len, seeds.values())) <= most,
            margin=PLAN.margin,
        )

    def fixed(self, seeds: int) -> MetricAnalysis:
        """What the report of a sweep of so many seeds for every point says."""
        measured = self.measured({point: range(seeds) for point in range(len(LEVELS))})
        return analyse([measured], PLAN).by_metric["m"]

    def at_look(self, number: int) -> tuple[MetricAnalysis, Course]:
        """What a report says that is made when `number` looks may have been taken."""
        course = self.course(number)
        return analyse([self.measured(course.seen)], PLAN, course).by_metric["m"], course


# --------------------------------------------------------------------------- what is counted


def false_claims(found: MetricAnalysis, truth: Truth) -> bool:
    """Whether some sentence on the metric is wrong."""
    means = np.array(truth.means)
    places = np.log2(LEVELS) - np.log2(LEVELS).mean()
    wrong = [
        judged.significant and (means[point] - means[base]) * judged.test.estimate <= 0
        for (point, base), judged in found.comparisons.items()
    ]
    wrong += [
        judged.significant and float(means @ places) * judged.test.estimate <= 0
        for judged in found.trends.values()
    ]
    return any(wrong)


def false_enough(found: MetricAnalysis, truth: Truth) -> bool:
    """Whether a point is called enough that is not."""
    if found.enough is None or found.enough.point is None:
        return False
    return max(truth.means) - truth.means[found.enough.point] > MARGIN


def share_found(found: MetricAnalysis, truth: Truth) -> float:
    """Of the points that differ from the baseline, how many are found to."""
    differ = [point for point in range(BASELINE) if truth.means[point]]
    told = [point for (point, _), judged in found.comparisons.items() if judged.significant]
    return sum(point in told for point in differ) / len(differ) if differ else math.nan


def count(truth: Truth, sweeps: int, seed: int = 0) -> dict[str, Any]:
    """Shares and means over so many sweeps."""
    rng = np.random.default_rng([seed, *truth.name.encode()])
    seen: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seen.setdefault(name, []).append(float(value))

    for _ in range(sweeps):
        drawn = Drawn(truth, rng)
        reports = [drawn.at_look(number + 1) for number in range(len(LOOKS.counts))]
        last, course = reports[-1]
        wrong = [false_claims(found, truth) for found, _ in reports]
        note("false", any(wrong))
        note("false_enough", any(false_enough(found, truth) for found, _ in reports))
        note("found", share_found(last, truth))
        note("runs", sum(map(len, course.seen.values())))
        note("looks", len(course.looks))
        for seeds in FIXED:
            found = drawn.fixed(seeds)
            note(f"false {seeds}", false_claims(found, truth))
            note(f"found {seeds}", share_found(found, truth))
            if seeds == FIXED[0]:  # printed at 5 %, and the looks declared afterwards
                note("false_joint", false_claims(found, truth) or any(wrong))
    means = {name: float(np.mean(values)) for name, values in seen.items()}
    return {"truth": truth.name, "sweeps": sweeps, **means}


# --------------------------------------------------------------------------- choices

COMBINATIONS = 8
SELECTIONS = (
    "on validation, fresh seeds",
    "on the reported runs",
    "on the reported runs, the baseline not tuned",
)


def count_selected(selection: str, sweeps: int, seed: int = 0) -> dict[str, Any]:
    """Sweeps in which no combination is worth more than another, each point choosing one of them.

    Every point has `FIXED[0]` runs of the combination that it chose; each combination has one run
    on the validation split.
    """
    rng = np.random.default_rng([seed, *selection.encode()])
    wrong, shown = [], []
    for _ in range(sweeps):
        shape = (len(LEVELS), COMBINATIONS, FIXED[0])
        runs = (50 + SD * rng.normal(size=shape) + rng.normal(size=FIXED[0])) / 100
        validated = runs.mean(axis=2)
        if selection == SELECTIONS[0]:
            validated = (50 + SD * rng.normal(size=shape[:2])) / 100
        values = {}
        for point, scores in enumerate(validated):
            untuned = point == BASELINE and selection == SELECTIONS[2]
            chosen = 0 if untuned else _chosen(scores)
            values[point] = dict(enumerate(runs[point, chosen].tolist()))
        found = analyse([Measured("m", values)], PLAN).by_metric["m"]
        wrong.append(false_claims(found, TRUTHS[0]))
        shown.append(100 * np.mean([[*own.values()] for own in values.values()]) - 50)
    return {
        "selection": selection,
        "sweeps": sweeps,
        "false": float(np.mean(wrong)),
        "optimism": float(np.mean(shown)),
    }


def _chosen(scores: Sequence[float]) -> int:
    """By the function that a sweep chooses with."""
    tried = [
        Combination({"n": number}, {0: float(score)}, {}, is_base=False)
        for number, score in enumerate(scores)
    ]
    best = PointChoice({}, tuple(tried), 1).best
    assert best is not None
    return int(best.values["n"])


def _line(row: dict[str, Any]) -> str:
    def percent(name: str) -> str:
        return "-" if math.isnan(row[name]) else f"{100 * row[name]:.1f}"

    cells = [
        row["truth"],
        *(percent(name) for name in ("false", "false_enough", "false 3", "false_joint")),
        f"{row['runs']:.1f}",
        f"{row['looks']:.1f}",
        *(percent(name) for name in ("found", "found 3", "found 5", "found 16")),
    ]
    return f"| {' | '.join(cells)} |"


_HEADS = (
    "truth",
    "false claims",
    "false enough",
    "false, 3 seeds",
    "false, 3 seeds and then looks",
    "runs (3/5/16 seeds: 15/25/80)",
    "looks",
    "found",
    "found, 3 seeds",
    "found, 5 seeds",
    "found, 16 seeds",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sequential", action="store_true", help="this simulation")
    parser.add_argument("--sweeps", type=int, default=2_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="WORD", help="truths whose name holds it")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    print(f"| {' | '.join(_HEADS)} |\n|{'---|' * len(_HEADS)}")
    rows = []
    for truth in (each for each in TRUTHS if args.only in each.name):
        rows.append(count(truth, args.sweeps, args.seed))
        print(_line(rows[-1]), flush=True)
    print("\n| each point chooses one of 8 | false claims | too high by, points |\n|---|---|---|")
    for selection in SELECTIONS:
        rows.append(count_selected(selection, args.sweeps, args.seed))
        told = rows[-1]
        print(f"| {selection} | {100 * told['false']:.1f} | {told['optimism']:.1f} |", flush=True)
    bound = LOOKS.joint(FIXED[0], 0.05 / 5) * 5
    print(f"\nBound on the error of a family of 5 printed at 3 seeds before: {100 * bound:.1f} %.")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
