"""What the search itself costs, and what successive halving saves.

    export PYTHONPATH=tests/search
    python tests/benchmarks/search.py overhead [--trials 1000]
    python tests/benchmarks/search.py halving [--studies 5] [--random 12] [--samples 12000]
                                              [--share 4] [--reduction 2] [--seed 1]

`overhead`: the controller's own time for a trial (ask, records, looks, tell), with runs that end at
once, over the last hundred trials and over all; files go to disk as ever.
`halving`: on the built-in data in two slots, the CPU seconds (of this process and its workers, from
the first to that moment) after which TPE with ASHA has reached the best score of a random search
without pruning, over the CPU seconds of that whole random search.  A study each seed, in turns.
The first rung is at 1/share of the samples of a run, each further one `reduction` times as high.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from search_cases import Desk, halving, run_to_the_end
from turns import Sheet, parser_of

from harness.config import Runtime, override
from harness.config.bases import SMALL
from harness.config.searchspace import Asha, Integers, Search, Uniform
from harness.config.sweep import Show, Sweep
from harness.launch.executor import Assignment
from harness.launch.executors.local import LocalExecutor
from harness.launch.slots import Slot
from harness.search import command, source
from harness.store.record import Store
from harness.store.trials import Ledger

GOAL = "validation/mean_recall"

SWEEP = Sweep(
    base=override(
        SMALL,
        {
            "model.image.size": 32,
            "model.text.layers": 1,
            "model.text.width": 48,
            "model.embed_dim": 64,
            "train.samples": 12_000,
            "train.warmup_samples": 600,
        },
    ),
    search=Search(
        space={
            "train.lr": Uniform(1e-4, 1e-1, log=True),
            "train.weight_decay": Uniform(1e-3, 1.0, log=True),
            "model.embed_dim": Integers(16, 128, log=True),
        },
        objectives=GOAL,
        trials=10,
        sampler="random",
        confirm=(),
    ),
    show=Show(x="train.lr", metrics=["*/mean_recall"]),
    name="benchmark",
)


def overhead(trials: int, root: Path, sheet: Sheet) -> None:
    """Print the time of the controller for a trial, in ms of wall and of CPU."""
    source.LOOK_SECONDS = 0.0
    desk = Desk(root, halving(sampler="tpe", trials=trials))
    walls, cpus = [], []
    source_of_trials = desk.open()
    for _ in range(trials):
        wall, cpu = time.perf_counter(), time.process_time()
        step = source_of_trials.take()
        assert step is not None
        directory = desk.store.run_dir(step.run.key)
        source_of_trials.ended(step, run_to_the_end(step, directory, source_of_trials))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    for name, chosen in (
        ("all", slice(None)),
        (f"last {trials // 10}", slice(-trials // 10, None)),
    ):
        wall_ms, cpu_ms = (1e3 * statistics.fmean(v[chosen]) for v in (walls, cpus))
        medians = [1e3 * statistics.median(v[chosen]) for v in (cpus, walls)]
        sheet.say(
            f"{name}: {cpu_ms:.1f} ms CPU (median {medians[0]:.1f}), {wall_ms:.1f} ms wall "
            f"(median {medians[1]:.1f}) a trial, what its run writes included",
            trials=name,
            cpu=medians[0] / 1e3,
            wall=medians[1] / 1e3,
        )


def cpu_seconds() -> float:
    """Of this process and of its children, those that ended included."""
    own = psutil.Process()
    times = own.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in own.children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += spent.user + spent.system
    return total


def study(
    search: Search, root: Path, target: float | None, samples: int
) -> tuple[float, float, int]:
    """Run a search; CPU seconds, best score, trials begun.  Ends early at `target`."""
    store = Store(root)
    best = [0.0]
    began = cpu_seconds()

    runtime = Runtime(log_seconds=0.25)
    executor = LocalExecutor(Assignment(store, runtime), slots=[Slot(1), Slot(1)])
    job = command.SearchJob(
        replace(SWEEP, search=search),
        override(SWEEP.base, {"train.samples": samples}),
        {},
        runtime,
        executor,
        words=["benchmark"],
    )
    plan = command.Plan.of(job)
    executor.work = replace(executor.work, runtime=plan.runtime)
    ledger = Ledger.of(store, SWEEP.name)
    write = ledger.write

    def noted(trial: Any) -> None:
        write(trial)
        if trial.values is not None:
            best[0] = max(best[0], trial.values[0])
        if target is not None and best[0] >= target:
            executor.stop.ask()

    ledger.write = noted  # type: ignore[method-assign]
    with command.Lease(ledger.lease_file) as lease, executor as running:
        ledger.define(plan.definition(), plan.about())
        command._search(job, plan, ledger, running, lease)
        spent = cpu_seconds() - began
    return spent, best[0], len(ledger)


def compare(args: argparse.Namespace, folder: Path, sheet: Sheet) -> None:
    """Print for each study, and in the median, the share of the random search's CPU seconds."""
    shares, trials, samples = [], args.random, args.samples
    first, reduction = samples // args.share, args.reduction
    for seed in range(args.seed, args.seed + args.studies):
        plain = replace(SWEEP.search, trials=trials, seed=seed)
        asha = replace(
            plain,
            sampler="tpe",
            seed=seed + 100,
            trials=3 * trials,
            pruner=Asha(first=first, reduction=reduction),
        )
        whole, best, _ = study(plain, folder / f"random-{seed}", None, samples)
        spent, reached, begun = study(asha, folder / f"asha-{seed}", best, samples)
        shares.append(spent / whole if reached >= best else float("inf"))
        sheet.say(
            f"study {seed}: random search {trials} trials, best {best:.4f}, {whole:.0f} CPU s; "
            f"ASHA {reached:.4f} after {begun} trials, {spent:.0f} CPU s: {shares[-1]:.2f}",
            share=shares[-1],
        )
    sheet.say(f"median share of the CPU seconds: {statistics.median(shares):.2f}")


def main() -> None:
    """Run one of the two."""
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=("overhead", "halving"))
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--studies", type=int, default=5)
    parser.add_argument("--random", type=int, default=12)
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--share", type=int, default=4)
    parser.add_argument("--reduction", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the first study")
    parser.add_argument("--root", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, Sheet(args.json) as sheet:
        root = args.root or Path(scratch)
        if args.what == "overhead":
            overhead(args.trials, root, sheet)
        else:
            compare(args, root, sheet)


if __name__ == "__main__":
    main()
