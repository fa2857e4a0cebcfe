"""How long a report of many finished runs takes, and whether its time grows in step with them.

    python tests/benchmarks/report.py [--runs 1000 10000] [--root DIR] [--profile]

The records are made with the real writer: 22 metrics a run, a training log of 40 lines, provenance
of two attempts.  Each report is built in a process of its own from cold Python; prints wall and
CPU seconds, peak memory, and the ratio of the largest to the smallest.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from report_records import I2T, PROTOCOL, T2I, Records, metric, sweep_of
from turns import Sheet, parser_of

from harness.config import Runtime
from harness.config.sweep import Run, Sweep, expand
from harness.store.manifest import write_manifest
from harness.store.record import Store

DEPTHS = range(1, 11)
SEEDS = 3
#: Beside the 16 metrics of the report tests' records: a second task and a class folder.
MORE_TASKS = {"tone": ["light", "dark"]}
MORE_FOLDERS = {"cifar10": {"images": 10_000, "classnames": ["a"] * 10, "templates": ["a {c}"]}}


def many(count: int) -> Sweep:
    """A sweep of two axes and three seeds with about `count` runs."""
    rates = [1e-4 * (1 + step) for step in range(max(1, round(count / SEEDS / len(DEPTHS))))]
    return replace(
        sweep_of(
            {"model.text.layers": list(DEPTHS), "train.lr": rates},
            metrics=[T2I, I2T, "test/mean_recall", "test/role/acc1", "cifar10/acc1"],
            baseline={"model.text.layers": 10},
            hue=None,
        ),
        name=f"many_{count}",
    )


def write_records(root: Path, sweep: Sweep) -> list[Run]:
    """Every run of `sweep`, finished; kept when they are there already."""
    runs = expand(sweep)
    if (root / "complete").exists():
        return runs
    shutil.rmtree(root, ignore_errors=True)
    with mock.patch("os.fsync", return_value=None), ExitStack() as held:
        records = Records(root, held)
        for index, run in enumerate(runs):
            depth, rate = run.config.model.text.layers, run.config.train.lr
            value = 0.3 + 0.01 * depth - abs(rate - 1e-3) + 0.004 * ((index * 7919) % 101) / 101
            records.done(
                run,
                t2i=value,
                i2t=value + 0.01,
                parameters=300_000 + 200_000 * depth,
                metrics=more_metrics(value),
                protocol=protocol(),
                points=40,
            )
    (root / "complete").touch()
    return runs


def protocol() -> dict[str, Any]:
    """That of the report tests with what `more_metrics` was measured on."""
    split = {**PROTOCOL["splits"]["test"], "labelled": {"role": 150, "tone": 120}}
    tone = {"classnames": MORE_TASKS["tone"], "templates": ["{c}"]}
    return {
        **PROTOCOL,
        "splits": {"test": split},
        "tasks": {**PROTOCOL["tasks"], "tone": tone},
        "class_folders": MORE_FOLDERS,
    }


def more_metrics(value: float) -> dict[str, Mapping[str, Any]]:
    """Accuracies of one more task and a class folder."""
    found = {}
    for place, n, chance in (("test/tone", 120, 0.5), ("cifar10", 10_000, 0.1)):
        found[f"{place}/acc1"] = metric(value, n, chance)
        found[f"{place}/mean_per_class_recall"] = metric(value, n, chance)
        found[f"{place}/acc5"] = metric(min(1.0, 2 * value), n, min(1.0, 5 * chance))
    return found


def build_in_child(
    root: Path, count: int, out: Path, *, profile: bool
) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MB of a fresh process that builds the report."""
    child = os.fork()
    began = time.perf_counter()
    if child == 0:
        words = ["--child", str(count), "--root", str(root), "--out", str(out)]
        os.execv(sys.executable, [sys.executable, __file__, *words, *["--profile"] * profile])
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"the report of {count} runs failed")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def child(root: Path, count: int, out: Path, *, profile: bool) -> None:
    """Build the report, as the command does."""
    from harness.commands.report import main

    words = [many(count).name, "--root", str(root), "--out", str(out)]
    if not profile:
        raise SystemExit(main(words))
    import cProfile
    import pstats

    profile_of = cProfile.Profile()
    profile_of.runcall(main, words)
    pstats.Stats(profile_of).sort_stats("cumulative").print_stats(60)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--root", type=Path, help="keeps the records; default: a temporary folder")
    parser.add_argument("--profile", action="store_true", help="where the time goes")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.root, args.child, args.out, profile=args.profile)
        return
    with tempfile.TemporaryDirectory() as temporary, Sheet(args.json) as sheet:
        root = args.root or Path(temporary)
        spent = [
            measure(root / str(count), count, sheet, profile=args.profile) for count in args.runs
        ]
        times = spent[-1] / spent[0]
        sheet.say(
            f"{args.runs[-1] / args.runs[0]:.1f} times the runs take {times:.1f} times the CPU s",
            times=times,
        )


def measure(root: Path, count: int, sheet: Sheet, *, profile: bool) -> float:
    """Make the records where they are not there, build, print a line; CPU seconds."""
    sweep = many(count)
    runs = write_records(root, sweep)
    write_manifest(Store(root), sweep, runs, Runtime(), ["benchmark"])
    wall, cpu, peak = build_in_child(root, count, root / "reports" / sweep.name, profile=profile)
    sheet.say(
        f"{len(runs):>6,} runs: {cpu:6.1f} CPU s, {wall:6.1f} s wall, {peak:6,.0f} MB",
        runs=len(runs),
        cpu=cpu,
        wall=wall,
        megabytes=peak,
    )
    return cpu


if __name__ == "__main__":
    main()
