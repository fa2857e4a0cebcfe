"""Train, evaluate and report an ablation; repeated, it goes on where it was.

`python -m harness.sweep NAME|PATH [options] [path=value ...]`.

Import the sweep, expand it, check every name, print the plan, launch what is missing, report.  The
same command finishes what an earlier one left.  Exit codes: 0 all done, 2 the command or its
configuration is wrong, 3 a report with holes, 130 interrupted.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.shared import (
    command_parser,
    exit_code_of,
    go_on,
    options_of,
    say,
    seeds_of,
    store_of,
    typed_words,
    under_a_root,
)
from harness.config import RunConfig, Runtime, field_paths, override_runtime, parse_assignments
from harness.config.bases import BASES, base
from harness.config.overrides import RUNTIME
from harness.config.pipes import allow_pipes
from harness.config.sweep import Run, Sweep, compared_with_nothing
from harness.config.sweep_files import find_sweep, load_sweep, question_of, shipped_sweeps
from harness.config.waves import MAX_SEEDS
from harness.errors import ConfigError, InterruptedRun, SweepError, unknown
from harness.files import real_path
from harness.launch.executor import (
    EXECUTORS,
    REPORT_ONLY,
    Assignment,
    Executor,
    add_options,
    make_executor,
)
from harness.planning.plan import Rerun, make_plan, request_fills
from harness.store.manifest import refuse_other_file, write_manifest
from harness.store.provenance import shared_note
from harness.store.record import Store
from harness.store.state import State

if TYPE_CHECKING:
    from harness.launch.waves import Wave

_CUT = "\N{HORIZONTAL ELLIPSIS}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: run_command(parse(argv)), stopped=go_on)


# --------------------------------------------------------------------------- the command line


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ConfigError for one that is not understood, SystemExit after --help."""
    args, rest = _parser().parse_known_intermixed_args(argv)
    if rest or args.executor not in EXECUTORS:
        load_sweep(args.sweep)  # which may bring an executor, with options of its own
    parser = _parser()
    args, rest = parser.parse_known_intermixed_args(argv)
    if rest:
        raise ConfigError(_unknown_option(parser, rest[0], [*rest[1:], *args.overrides]))
    args.words = None  # those that were typed
    return args


def _unknown_option(parser: argparse.ArgumentParser, given: str, after: Sequence[str]) -> str:
    """What is wrong with an option; a field is set without dashes."""
    name, _, value = given.partition("=")
    path = name.lstrip("-")
    if path in field_paths(RunConfig) or path.removeprefix(RUNTIME) in field_paths(Runtime):
        value = value or next(iter(after), "VALUE")
        return f"{name} is a field and no option; write {path}={value}"
    return unknown("option", name, options_of(parser))


def keywords() -> list[str]:
    """The options as keywords of Python; those that an imported sweep file registers, too."""
    names = options_of(_parser())
    return [name[2:].replace("-", "_") for name in names if name not in {"-h", "--help"}]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "sweep",
        __doc__,
        under_a_root(),
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    add_options(parser)
    add("--base", metavar="NAME", help="another base configuration, listed below")
    add("--only", metavar="PATTERN", help="launch runs whose label matches, or by start of a key")
    add("--name", help="of the report and of what is on file (default: that of the sweep file)")
    add("--seeds", type=seeds_of, metavar="0,1,2", help="in place of the sweep's own")
    add("--until-decided", action="store_true", help="further seeds for what is still open")
    add("--max-seeds", type=int, metavar="N", help=f"of a point, then (default: {MAX_SEEDS})")
    add("--rerun", choices=[r.value for r in Rerun], default="missing", help="default: missing")
    add(REPORT_ONLY, action="store_true", help="start nothing, report what there is")
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


# --------------------------------------------------------------------------- the command


def run_command(args: argparse.Namespace) -> int:
    """Plan, launch and report one sweep; returns the exit code."""
    from harness.launch.check import finisher
    from harness.launch.waves import Waves

    store = store_of(args)
    sweep = _asked(_named(load_sweep(args.sweep), args.name, store), args)
    values, here = parse_assignments(args.overrides)
    allow_pipes([values.get("data.path")])
    file = real_path(find_sweep(args.sweep))
    work = Assignment(
        store,
        override_runtime(Runtime(), here),
        sweep.name,
        file,
        frozenset(here),
        report=None if sweep.search is not None else _report_words(args, file),
        search=sweep.search is not None,
        waves=bool(sweep.nuisance or sweep.look_counts),
    )
    if sweep.search is not None:
        return search(args, sweep, values, work)
    executor = make_executor(args, work)
    runtime = executor.work.runtime
    start = base(args.base) if args.base is not None else sweep.base
    waves = Waves(sweep, store, runtime, start, values, finisher(runtime))
    waves.check_seeds()
    code: int | None = None
    seen: Wave | None = None
    while code is None:
        wave = waves.now()
        if seen is not None and _keys(wave) == _keys(seen):
            break
        seen = wave
        code = _run_wave(args, wave, executor, sweep)
        if args.report_only or waves.is_one:
            break
    assert seen is not None
    if code is not None:
        return code
    if not args.report_only and any(run.config.evaluate.deploy for run in seen.runs):
        from harness.launch.latency import time_what_is_untimed

        time_what_is_untimed(seen.runs, store, runtime.threads, say)
    return report(seen.sweep, seen.runs, store)


def _run_wave(args: argparse.Namespace, wave: Wave, executor: Executor, sweep: Sweep) -> int | None:
    """Plan and launch one wave; the exit code of a command that is over, None when it goes on."""
    from harness.launch.check import holes, notes_on_runs
    from harness.launch.foresight import can_find, sharing, upper_cost
    from harness.launch.preview import print_lines, print_plan

    store, runtime = executor.work.store, executor.work.runtime
    for line in holes(wave.runs, runtime):
        print(f"hole: {line}", file=sys.stderr)
    if args.report_only:
        return None
    rerun = Rerun(args.rerun)
    steps = make_plan(select(wave.runs, args.only), store, rerun)
    if wave.title:
        print(f"{wave.sweep.name}: {wave.title}")
    capacity = executor.capacity(sum(step.pending for step in steps))
    print_plan(steps, capacity)
    print_lines("plan", [*upper_cost(wave, store, capacity), *sharing(steps, executor, capacity)])
    alone = compared_with_nothing(wave.runs, sweep.show.baseline)
    notes = [*shared_note(store.root), *notes_on_runs(wave.runs, runtime)]
    print_lines("note", notes if alone is None else [*notes, alone])
    if args.dry_run:
        print_lines("plan", can_find(sweep, wave.runs, store))
        script = executor.script(steps)
        print("" if script is None else f"\n{script}\n", end="")
        return 0
    from harness.monitor.terminal import watching

    def put_on_file() -> None:
        write_manifest(store, wave.sweep, wave.runs, runtime, args.words or typed_words())
        request_fills(steps, store)

    code = executor.carry_out(steps, put_on_file, watching, rerun)
    if code == InterruptedRun.exit_code:
        print(go_on(), file=sys.stderr)
    return code


def _keys(wave: Wave) -> list[str]:
    return [run.key for run in wave.runs]


def _asked(sweep: Sweep, args: argparse.Namespace) -> Sweep:
    """`sweep` with the seeds and the looks that the command line asks for."""
    if sweep.search is not None:
        return sweep
    if args.seeds is not None:
        if not args.seeds or len(set(args.seeds)) < len(args.seeds):
            raise SweepError(f"seeds must be given, each once; these were: {args.seeds}")
        sweep = replace(sweep, seeds=args.seeds)
    most = args.max_seeds
    if most is not None and not args.until_decided and not sweep.look_counts:
        raise ConfigError("--max-seeds is for --until-decided, or a sweep with until = ...")
    if most is not None:
        return replace(sweep, until=most, looks=None)
    if args.until_decided and not sweep.look_counts:
        return replace(sweep, until=max(MAX_SEEDS, len([*sweep.seeds]) + 1))
    return sweep


def _named(sweep: Sweep, name: str | None, store: Store) -> Sweep:
    """`sweep` by the name that was given, if any; SweepError where another file has its name."""
    if name is not None and not re.fullmatch(r"\w[\w.+-]*", name):
        raise ConfigError(f"--name {name!r}: letters, digits and any of _.+- are wanted")
    sweep = sweep if name is None else replace(sweep, name=name)
    refuse_other_file(store, sweep)
    return sweep


def search(
    args: argparse.Namespace, sweep: Sweep, values: Mapping[str, object], work: Assignment
) -> int:
    """The same for a sweep that is a search."""
    from harness.search.command import SearchJob, run_search

    for option, given in (
        ("--only", args.only is not None),
        ("--seeds", args.seeds is not None),
        ("--rerun", Rerun(args.rerun) is not Rerun.MISSING),
        ("--until-decided", args.until_decided),
        ("--max-seeds", args.max_seeds is not None),
    ):
        if given:
            raise ConfigError(f"{option} is for a list of runs; {sweep.name} is a search")
    executor = make_executor(args, work)
    job = SearchJob(
        sweep,
        base(args.base) if args.base is not None else sweep.base,
        values,
        executor.work.runtime,
        executor,
        args.words or typed_words(),
        dry_run=args.dry_run,
        report_only=args.report_only,
    )
    code = run_search(job)
    if code == InterruptedRun.exit_code:
        print(go_on(), file=sys.stderr)
    return code


def _report_words(args: argparse.Namespace, file: Path) -> tuple[str, ...]:
    """The command that reports the sweep and starts nothing, after `python`."""
    words = ["-m", "harness.sweep", str(file), *args.overrides, "--root", str(real_path(args.root))]
    words += ["--name", args.name] if args.name is not None else []
    words += ["--base", args.base] if args.base is not None else []
    words += ["--seeds", ",".join(map(str, args.seeds))] if args.seeds is not None else []
    words += ["--until-decided"] if args.until_decided else []
    words += ["--max-seeds", str(args.max_seeds)] if args.max_seeds is not None else []
    return (*words, REPORT_ONLY)


def select(runs: Sequence[Run], pattern: str | None) -> list[Run]:
    """The runs, parents among them, that `pattern` means: a label as it is printed, else labels
    that match as file names do, else how a key begins, else what of a label is between commas."""
    if pattern is None:
        return list(runs)
    parents = [parent for run in runs for parent in run.parents]
    every = {run.key: run for run in [*runs, *parents]}.values()
    wanted = " ".join(pattern.split())
    printed = [(run, (run.label, f"{run.label} seed {run.seed}")) for run in every]
    for means in (str.__eq__, fnmatchcase, _begins_so):
        chosen = [r for r, told in printed if any(means(" ".join(t.split()), wanted) for t in told)]
        if chosen:
            return chosen
    chosen = [run for run in every if run.key.startswith(pattern)]
    chosen = chosen or [
        r for r in every if any(fnmatchcase(v, wanted) for v in r.label.split(", "))
    ]
    if not chosen:
        raise SweepError(unknown("run", pattern, {run.label for run in every}))
    return chosen


def _begins_so(label: str, pattern: str) -> bool:
    """Whether `pattern` is a label as a narrow terminal shows it, cut at an ellipsis."""
    return pattern.endswith(_CUT) and label.startswith(pattern.removesuffix(_CUT))


def report(sweep: Sweep, runs: Sequence[Run], store: Store) -> int:
    """Write the report, name the runs that failed; 0 when the sweep is complete, else 3."""
    from harness.report.folder import build

    parents = [parent for run in runs for parent in run.parents]
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
