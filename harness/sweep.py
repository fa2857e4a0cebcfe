"""The command: `python -m harness.sweep NAME|PATH [options] [path=value ...]`.

Import the sweep, expand it, check every name, print the plan, launch what is missing, report.  The
same command finishes what an earlier one left.  Exit codes: 0 all done, 2 the command or its
configuration is wrong, 3 a report with holes, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.bases import BASES, base
from harness.commands.shared import Parser, exit_code_of
from harness.config import Runtime, override_runtime, parse_assignment
from harness.errors import (
    ConfigError,
    InterruptedRun,
    SweepError,
    unknown,
)
from harness.manifest import write_manifest
from harness.plan import Rerun, Step, make_plan, request_fills
from harness.record import State, Store
from harness.space import Run, Sweep, expand
from harness.sweep_files import find_sweep, load_sweep, question_of, shipped_sweeps

if TYPE_CHECKING:
    from harness.launch.base import Executor, Stop
    from harness.launch.local import Slot
    from harness.launch.profiles import Profile
    from harness.launch.slurm.submit import Order
    from harness.search.command import Where

TRIALS_IN_QUEUE = 8
"""At a time, of a search on a cluster: the more there are, the less each knows of the others."""
_RUNTIME = "runtime."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: run_command(parse(argv)), stopped=_go_on)


# --------------------------------------------------------------------------- the command line


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ConfigError for one that is not understood, SystemExit after --help."""
    parser = _parser()
    args, rest = parser.parse_known_intermixed_args(argv)
    if rest:
        options = [name for action in parser._actions for name in action.option_strings]
        raise ConfigError(unknown("option", rest[0].partition("=")[0], options))
    return args


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.sweep",
        description="Train, evaluate and report an ablation; repeated, it goes on where it was.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("sweep", metavar="NAME|PATH", help="a sweep listed below, or the path of a sweep file")
    add(
        "overrides",
        metavar="path=value",
        nargs="*",
        help="a field of the base configuration, or runtime.FIELD",
    )
    add("--dry-run", action="store_true", help="print the plan and stop")
    add("--executor", choices=("local", "inline", "slurm"), default="local", help="default: local")
    add("--slots", type=int, metavar="N", help="runs side by side (default: a GPU or a core each)")
    add("--profile", metavar="NAME", help="slurm: what a job asks for (profiles.toml)")
    add("--pack", type=int, metavar="K", help="slurm: runs side by side in one job")
    add("--nodes", type=int, metavar="N", help="slurm: nodes of a job, which train one run")
    add("--gpus", type=int, metavar="G", help="slurm: GPUs of a job on each node")
    add("--rehearse", action="store_true", help="slurm: each distinct run for 20 steps first")
    add("--watch", action="store_true", help="slurm: stay, and report in the end")
    add("--base", metavar="NAME", help="another base configuration, listed below")
    add("--only", metavar="PATTERN", help="launch runs whose label matches, or by start of a key")
    add("--seeds", type=_seeds, metavar="0,1,2", help="in place of the sweep's own")
    add("--rerun", choices=[r.value for r in Rerun], default="missing", help="default: missing")
    add("--report-only", action="store_true", help="start nothing, report what there is")
    add("--root", type=Path, default=Path(), metavar="DIR", help="holds results/ and reports/")
    return parser


def _epilog() -> str:
    sweeps = {name: question_of(file) for name, file in shipped_sweeps().items()}
    width = max(map(len, [*sweeps, *BASES]), default=0)
    lines = [f"  {name:{width}}  {question}" for name, question in sweeps.items()]
    bases = [
        f"  {name:{width}}  {c.data.source}, {c.model.image.backbone} at {c.model.image.size} px, "
        f"{c.train.samples:,} samples"
        for name, c in BASES.items()
    ]
    return "\n".join(["sweeps:", *lines, "", "bases:", *bases])


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of integers such as 0,1,2"
        ) from None


# --------------------------------------------------------------------------- the command


def run_command(args: argparse.Namespace) -> int:
    """Plan, launch and report one sweep; returns the exit code."""
    from harness.launch.check import check_runs, finisher, holes
    from harness.launch.preview import print_plan

    sweep = load_sweep(args.sweep)
    values, here = _assignments(args.overrides)
    runtime = override_runtime(Runtime(), here)
    profile = _profile(args)
    if profile is not None:
        from harness.launch.slurm.submit import with_processes

        runtime = with_processes(profile, runtime, given="processes" in here)
    store = Store(args.root.resolve())
    if sweep.search is not None:
        return search(args, sweep, store, values, runtime, profile)
    if profile is not None and args.slots is not None:
        raise ConfigError("--slots is for --executor local; --pack is SLURM's")
    runs = expand(
        sweep,
        base=base(args.base) if args.base is not None else None,
        overrides=values,
        seeds=args.seeds,
        finish=finisher(runtime),
        finished=store.finished_config,
    )
    sweep = replace(sweep, show=check_runs(runs, sweep.show, runtime))
    for line in holes(runs, runtime):
        print(f"hole: {line}", file=sys.stderr)
    if args.report_only:
        return report(sweep, runs, store)
    steps = make_plan(select(runs, args.only), store, Rerun(args.rerun))

    def put_on_file() -> None:
        write_manifest(store, sweep, runs, runtime, _words())
        request_fills(steps, store)

    if profile is not None:
        from harness.launch.slurm.command import submit_sweep

        order = _order(args, store, sweep, runtime, profile)
        code = submit_sweep(
            steps,
            order,
            Rerun(args.rerun),
            put_on_file,
            dry_run=args.dry_run,
            watch=args.watch,
        )
        return report(sweep, runs, store) if code is None else code
    slots = _slots(args, runtime)
    on_gpu = any(slot.gpu is not None for slot in slots)
    cores = _cores(args, runtime, slots, sum(step.pending for step in steps))
    print_plan(steps, len(slots), cores=cores, on_gpu=on_gpu)
    if args.dry_run:
        return 0
    if any(step.pending for step in steps):
        code = launch(args, steps, store, runtime, slots, put_on_file)
        if code:
            return code
    else:
        put_on_file()
    return report(sweep, runs, store)


def search(
    args: argparse.Namespace,
    sweep: Sweep,
    store: Store,
    values: Mapping[str, object],
    runtime: Runtime,
    profile: Profile | None,
) -> int:
    """The same for a sweep that is a search."""
    from harness.search.command import Job, Where, run_search

    for option, given in (
        ("--only", args.only is not None),
        ("--seeds", args.seeds is not None),
        ("--rerun", Rerun(args.rerun) is not Rerun.MISSING),
        ("--rehearse", args.rehearse),
        ("--pack", profile is not None and profile.pack > 1),
    ):
        if given:
            raise ConfigError(f"{option} is for a list of runs; {sweep.name} is a search")
    if profile is not None:
        where = _on_cluster(args, store, sweep, runtime, profile)
    else:
        slots = _slots(args, runtime)
        on_gpu = any(slot.gpu is not None for slot in slots)
        cores = _cores(args, runtime, slots, len(slots))
        where = Where(len(slots), cores, on_gpu, partial(_executor, args, store, slots=slots))
    job = Job(
        sweep,
        base(args.base) if args.base is not None else sweep.base,
        values,
        runtime,
        store,
        where,
        _words(),
        dry_run=args.dry_run,
        report_only=args.report_only,
    )
    code = run_search(job)
    if code == InterruptedRun.exit_code:
        print(_go_on(), file=sys.stderr)
    return code


def _on_cluster(
    args: argparse.Namespace, store: Store, sweep: Sweep, runtime: Runtime, profile: Profile
) -> Where:
    """Jobs of a cluster, one a trial."""
    from harness.launch.slurm.command import cores_of_a_process
    from harness.launch.slurm.executor import SlurmExecutor
    from harness.launch.slurm.submit import Order, preview
    from harness.search.command import Where

    def order(runtime: Runtime) -> Order:
        file = find_sweep(args.sweep).resolve()
        return Order(store, sweep.name, file, runtime, profile)

    width = min(profile.parallel, TRIALS_IN_QUEUE) if args.slots is None else args.slots
    if width < 1:
        raise ConfigError(f"--slots {width}: at least one slot is wanted")
    return Where(
        width,
        cores_of_a_process(profile, runtime),
        profile.gpus > 0,
        lambda runtime, stop: SlurmExecutor(order(runtime), stop),
        lambda step, runtime: preview([step], order(runtime)),
    )


def _assignments(texts: Sequence[str]) -> tuple[dict[str, object], dict[str, object]]:
    """The `path=value` arguments: those of the configuration, and those of the Runtime."""
    values = dict(parse_assignment(text) for text in texts)
    runtime = {
        path.removeprefix(_RUNTIME): values.pop(path)
        for path in list(values)
        if path.startswith(_RUNTIME)
    }
    return values, runtime


def select(runs: Sequence[Run], pattern: str | None) -> list[Run]:
    """The runs whose label matches `pattern` (as a file name would) or whose key begins with it."""
    if pattern is None:
        return list(runs)
    chosen = [r for r in runs if fnmatchcase(r.label, pattern) or r.key.startswith(pattern)]
    if not chosen:
        raise SweepError(unknown("run", pattern, {run.label for run in runs}))
    return chosen


_SLURM_ONLY = ("profile", "pack", "nodes", "gpus", "rehearse", "watch")


def _profile(args: argparse.Namespace) -> Profile | None:
    """What jobs ask for, with --executor slurm; ConfigError for its options without it."""
    if args.executor != "slurm":
        given = [name for name in _SLURM_ONLY if getattr(args, name)]
        if given:
            raise ConfigError(f"--{given[0]} is for --executor slurm")
        return None
    from harness.launch.profiles import load_profile

    return load_profile(args.profile, pack=args.pack, nodes=args.nodes, gpus=args.gpus)


def _order(
    args: argparse.Namespace, store: Store, sweep: Sweep, runtime: Runtime, profile: Profile
) -> Order:
    from harness.launch.slurm.submit import Order

    file = find_sweep(args.sweep).resolve()
    words = ["-m", "harness.sweep", str(file), *args.overrides, "--root", str(store.root)]
    words += ["--base", args.base] if args.base is not None else []
    words += ["--seeds", ",".join(map(str, args.seeds))] if args.seeds is not None else []
    report = (*words, "--report-only")
    return Order(store, sweep.name, file, runtime, profile, report, rehearse=args.rehearse)


def _slots(args: argparse.Namespace, runtime: Runtime) -> list[Slot]:
    from harness.launch.local import make_slots, visible_gpus
    from harness.provenance import usable_cores

    gpus = visible_gpus(runtime.device)
    if args.executor == "inline" and args.slots is not None:
        raise ConfigError("--slots is for --executor local; inline runs one after the other")
    return make_slots(
        wanted=1 if args.executor == "inline" else args.slots,
        threads=runtime.threads,
        gpus=gpus,
        cores=usable_cores(),
        processes=runtime.processes,
    )


def _cores(args: argparse.Namespace, runtime: Runtime, slots: Sequence[Slot], runs: int) -> str:
    """How many cores of this machine are used while `runs` runs are shared among slots."""
    from harness.launch.preview import cores_used
    from harness.provenance import usable_cores

    a_run = runtime.processes * (runtime.threads + runtime.workers)
    more = "runtime.workers=N, or runtime.threads=N, which changes a run's last bits"
    if len(slots) < runs and args.executor == "local":
        more = f"--slots N, {more}"
    return cores_used(min(len(slots), runs) * a_run, usable_cores(), more=more)


def launch(
    args: argparse.Namespace,
    steps: Sequence[Step],
    store: Store,
    runtime: Runtime,
    slots: Sequence[Slot],
    put_on_file: Callable[[], None],
) -> int:
    """Run what is pending; 0 when nothing more can be done now, however the runs ended.

    Args:
        put_on_file: called once nothing speaks against the runs, before any of them starts.
    """
    from harness.launch.base import Backlog, Stop, stop_on_signals
    from harness.monitor.terminal import watching

    stop = Stop()
    pending = [step for step in steps if step.pending]
    with stop_on_signals(stop), _executor(args, store, runtime, stop, slots) as executor:
        print(f"checking models and data of {len(pending)} runs before any of them starts")
        problems = executor.preflight([step.run.config for step in pending])
        for line in problems:
            print(f"error: {line}", file=sys.stderr)
        if problems:
            return ConfigError.exit_code
        put_on_file()
        with watching(pending, store) as say:
            executor.launch(Backlog(pending, store, say), say)
    if stop.asked:
        print(_go_on(), file=sys.stderr)
        return InterruptedRun.exit_code
    return 0


def _executor(
    args: argparse.Namespace,
    store: Store,
    runtime: Runtime,
    stop: Stop,
    slots: Sequence[Slot],
) -> Executor:
    file = find_sweep(args.sweep).resolve()
    if args.executor == "inline":
        from harness.launch.inline import InlineExecutor

        return InlineExecutor(store, runtime, stop, file)
    from harness.launch.local import LocalExecutor

    return LocalExecutor(store, runtime, slots, stop, file)


def _go_on() -> str:
    return f"stopped; the same command goes on: {shlex.join(['python', *_words()])}"


def _words() -> list[str]:
    """What was typed after the name of the interpreter."""
    return sys.orig_argv[1:] if len(sys.orig_argv) > 1 else sys.argv


def report(sweep: Sweep, runs: Sequence[Run], store: Store) -> int:
    """Write the report, name the runs that failed; 0 when the sweep is complete, else 3."""
    from harness.report import build

    parents = [run.parent for run in runs if run.parent is not None]
    for run in {run.key: run for run in [*parents, *runs]}.values():
        status = store.run_dir(run.key).status(run.config.evaluation_key)
        if status.state is State.FAILED:
            log = (status.details or {}).get("log", "none")
            print(
                f"{run.label} seed {run.seed} ({run.key}) failed ({status.failure}): "
                f"{status.error}; log: {log}",
                file=sys.stderr,
            )
    folder = store.root / "reports" / sweep.name
    result = build(sweep, runs, store, folder)
    print(f"report: {folder / 'report.md'}")
    if result.complete:
        return 0
    print(f"{result.holes} of {len(runs)} runs are missing from it", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
