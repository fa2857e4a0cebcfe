"""Evaluate models on suites of public benchmarks; repeated, it goes on.

`python -m harness.evaluate WHAT... [--suite NAME] [options]`.

Evaluates finished runs, exports, any model of open_clip, or a folder of checkpoints on suites of
public benchmarks; repeated, it goes on with the next data set.  Owns which model is meant, which
process does what, and the table.  Exit codes: 0 all done, 2 the command is wrong, 3 a table with
holes or numbers that do not agree, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import metrics
from harness.commands.shared import (
    HOLES,
    command_parser,
    exit_code_of,
    go_on,
    of_a_sweep_file,
    print_table,
    store_of,
    under_a_root,
)
from harness.commands.verify import check_golden, compare_golden, verify
from harness.config import (
    ClassFolder,
    Evaluate,
    RunConfig,
    Runtime,
    override,
    override_runtime,
    parse_assignments,
)
from harness.config.overrides import RUNTIME
from harness.data.catalog import open_class_folder
from harness.document.text import DASH
from harness.errors import ConfigError
from harness.evaluate.golden import FIGURES, golden, read_golden
from harness.evaluate.suites import SUITES, benchmarks_of
from harness.evaluate.suites.find import Found, Hole, find
from harness.files import write_atomic
from harness.launch.evaluations import (
    Done,
    ModelSpec,
    Work,
    cost,
    evaluate_all,
    models_of,
    record_evaluation,
)
from harness.store.record import Store

if TYPE_CHECKING:
    from harness.document.table import Table
# --------------------------------------------------------------------------- the command line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: run_command(_parser().parse_intermixed_args(argv)), stopped=go_on)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "evaluate",
        __doc__,
        under_a_root(),
        of_a_sweep_file(),
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "what",
        metavar="WHAT",
        nargs="*",
        help="a run (key or how it begins), an export's folder, a checkpoint, a folder of them; "
        "or runtime.FIELD=VALUE",
    )
    add("--suite", metavar="NAME", action="append", help="listed below (default: smoke)")
    add(
        "--class-folder",
        metavar="NAME=PATH",
        action="append",
        default=[],
        help="pictures with a class each, as evaluate.class_folders has them; may be repeated",
    )
    add("--model", metavar="NAME", help="open_clip's architecture of the checkpoints")
    add("--pretrained", metavar="FILE", type=Path, help="a checkpoint of --model")
    add("--data-root", metavar="DIR", help="holds each data set in a folder of its name")
    add("--trust-code", action="store_true", help="a folder's model may fetch or run other code")
    add("--slots", type=int, metavar="N", help="data sets side by side (default: GPUs, or 1)")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    add("--batch-size", type=int, default=256, metavar="N")
    add("--out", type=Path, metavar="FILE", help="the table as .csv or .md too")
    add("--list", action="store_true", help="the benchmarks and where they are, and stop")
    add("--dry-run", action="store_true", help="what would be evaluated, and stop")
    add("--fetch", action="store_true", help="download what is missing, and stop")
    add("--verify", action="store_true", help="against CLIP_benchmark's own functions, and stop")
    add("--golden", metavar="NAME", help="with --verify: against what is published of a model")
    return parser


def _epilog() -> str:
    lines = ["suites (and each of their data sets by its name):"]
    for name, members in SUITES.items():
        lines.append(f"  {name:12} {', '.join(b.name for b in members)}")
    lines += ["models with published figures (--verify --golden):"]
    lines += [f"  {name}" for name in read_golden(FIGURES)]
    return "\n".join(lines)


def run_command(args: argparse.Namespace) -> int:
    """Do what the arguments say; returns the exit code."""
    model = None if args.golden is None else golden(args.golden)
    check_golden(args, model)
    usual = ["smoke"] if model is None else list(model.benchmarks)
    suites = tuple(dict.fromkeys(args.suite or ([] if args.class_folder else usual)))
    places = [find(benchmark, args.data_root) for benchmark in benchmarks_of(suites)]
    own = [name for name in suites if name in metrics.OWN_SUITES]
    if own:
        raise ConfigError(
            f"--suite {own[0]}: it is measured on a run's own splits, so that a sweep has it "
            f'(evaluate.suites=["{own[0]}"]); here are: {", ".join(SUITES)}'
        )
    if args.fetch:
        return fetch(places)
    if args.list:
        return print_places(places)
    runtime = _runtime(args)
    settings = _settings(args, suites)
    for folder in settings.class_folders:
        open_class_folder(folder, runtime)
    store = store_of(args)
    models = models_of(args, store)
    if args.verify and model is None:
        return verify(models, places, settings, runtime)
    if model is not None and len(models) != 1:
        raise ConfigError(f"--golden {model.name} is one model, and {len(models)} are named")
    if not models:
        raise ConfigError("name what to evaluate: a run, an export, or --model with --pretrained")
    if args.dry_run:
        return print_plan(models, places, settings.class_folders)
    for place in places:
        if isinstance(place, Hole):
            print(f"hole: {place}", file=sys.stderr)
    slots = _slots(args.slots, runtime)
    found = [place for place in places if isinstance(place, Found)]
    done = evaluate_all(models, found, Work(store.root, settings, runtime), slots)
    if model is not None:
        (spec,) = models
        numbers = {
            n: m for each in done if each.part is not None for n, m in each.part.metrics.items()
        }
        return compare_golden(model, spec.name, numbers, [p.benchmark.name for p in places])
    return _report(models, places, done, settings, store, args.out)


def _settings(args: argparse.Namespace, suites: Sequence[str]) -> Evaluate:
    """The protocol that the arguments ask for; ConfigError for a class folder that is none."""
    folders = [
        dict(zip(("name", "path"), t.split("=", 1), strict=False)) for t in args.class_folder
    ]
    values = {
        "splits": (),
        "suites": suites,
        "class_folders": folders,
        "batch_size": args.batch_size,
        "precision": args.precision,
    }
    return override(RunConfig(), {f"evaluate.{name}": v for name, v in values.items()}).evaluate


def _runtime(args: argparse.Namespace) -> Runtime:
    """The `runtime.FIELD=VALUE` among the arguments, which leave the list of what to evaluate."""
    given = [text for text in args.what if text.startswith(RUNTIME) and "=" in text]
    args.what = [text for text in args.what if text not in given]
    _, values = parse_assignments(given)
    return override_runtime(Runtime(data_root=args.data_root), values)


def _slots(asked: int | None, runtime: Runtime) -> list[str | None]:
    """The GPU of each process; None of one without."""
    from harness.launch.slots import visible_gpus

    if asked is not None and asked < 1:
        raise ConfigError(f"--slots {asked}: at least 1 is wanted")
    gpus = list(visible_gpus(runtime.device))
    if gpus:
        return [str(gpu) for gpu in gpus[: asked or len(gpus)]]
    return [None] * (asked or 1)


# --------------------------------------------------------------------------- records and table


def _report(
    models: Sequence[ModelSpec],
    places: Sequence[Found | Hole],
    done: Sequence[Done],
    settings: Evaluate,
    store: Store,
    out: Path | None,
) -> int:
    """Write a record for each model and print the table; 3 if there is a hole in it."""
    entries = [
        record_evaluation(spec, places, [d for d in done if d.model == i], settings, store)
        for i, spec in enumerate(models)
    ]
    columns = _columns(settings)
    lacking = {name: {"value": None} for name in columns}
    rows = [(s.name, {**lacking, **e["metrics"]}) for s, e in zip(models, entries, strict=True)]
    print_table(_table(columns, rows))
    if out is not None:
        write_atomic(out, _table_file(out, columns, rows))
        print(f"written: {out}")
    for spec, entry in zip(models, entries, strict=True):
        for name, facts in _sections(entry).items():
            for line in facts.get("warnings", []):
                print(f"warning: {spec.name} on {name}: {line}", file=sys.stderr)
    every = len(models) * (len(places) + len(settings.class_folders))
    holes = every - sum("hole" not in f for e in entries for f in _sections(e).values())
    if holes:
        print(f"{holes} of {every} numbers are missing", file=sys.stderr)
    return HOLES if holes else 0


def _sections(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the protocol says of each benchmark and class folder."""
    return {**entry["protocol"].get("benchmarks", {}), **entry["protocol"]["class_folders"]}


def _columns(settings: Evaluate) -> list[str]:
    suites = settings.suites
    shown = [name for b in benchmarks_of(suites) for name in metrics.headline_metrics(b)]
    shown += [f"{folder.name}/{metrics.ACC1}" for folder in settings.class_folders]
    return [*shown, *(metrics.suite_mean_name(name) for name in suites if name in SUITES)]


def _cell(found: Mapping[str, Mapping[str, Any]], name: str) -> str:
    value = found[name]["value"]
    return DASH if value is None else f"{value * metrics.scale(name):.2f}"


def _table(
    columns: Sequence[str], rows: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]
) -> Table:
    """A line a metric, a column a model: suites are longer than lists of models are."""
    from harness.document.table import plain_table

    lines = []
    for column in columns:
        first = next((f[column] for _, f in rows if f[column]["value"] is not None), None)
        facts = (DASH, DASH) if first is None else (str(first["n"]), f"{first['chance']:.2%}"[:-1])
        cells = [_cell(found, column) for _, found in rows]
        lines.append([metrics.display(column), *facts, *cells])
    heads = ["metric (%)", "n", "chance", *(name for name, _ in rows)]
    return plain_table(heads, lines, numeric=heads[1:])


def _table_file(
    out: Path, columns: Sequence[str], rows: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]
) -> bytes:
    """The table as CSV (fractions in full, holes empty) or as Markdown (per cent)."""
    from harness.document import markdown
    from harness.document.escaping import csv_text
    from harness.document.table import plain_table

    if out.suffix == ".csv":
        values = ([name, *(found[c]["value"] for c in columns)] for name, found in rows)
        return csv_text(["model", *columns], values).encode()
    if out.suffix == ".md":
        heads = ["model", *(metrics.display(column) for column in columns)]
        cells = ([name, *(_cell(found, column) for column in columns)] for name, found in rows)
        return f"{markdown.table(plain_table(heads, cells, numeric=heads[1:]))}\n".encode()
    raise ConfigError(f"--out {out}: .csv or .md is wanted")


# --------------------------------------------------------------------------- what there is


def print_places(places: Sequence[Found | Hole]) -> int:
    """The benchmarks, how they are scored and where they are; 3 if one is not there."""
    for place in places:
        b = place.benchmark
        judged = " and ".join(b.metrics)
        print(
            f"{', '.join(filter(None, (f'{b.name}: {b.title}', b.size)))}, by {judged}; {b.source}"
        )
        print(f"    {place.layout}: {place.path}" if isinstance(place, Found) else f"    {place}")
    return HOLES if any(isinstance(place, Hole) for place in places) else 0


def print_plan(
    models: Sequence[ModelSpec],
    places: Sequence[Found | Hole],
    folders: Sequence[ClassFolder] = (),
) -> int:
    """Which data sets each model would be evaluated on, in their order."""
    found = [place for place in places if isinstance(place, Found)]
    ordered = sorted(found, key=lambda place: cost(place.benchmark), reverse=True)
    for spec in models:
        names = [place.benchmark.name for place in ordered] + [folder.name for folder in folders]
        print(f"{spec.kind} {spec.name}: {', '.join(names) or 'nothing'}")
    for place in places:
        if isinstance(place, Hole):
            print(f"hole: {place}")
    return 0


def fetch(places: Sequence[Found | Hole]) -> int:
    """Run the command that brings each missing data set; 3 if one of them fails."""
    from harness.evaluate.suites.fetched import bring

    failed = 0
    for place in places:
        if isinstance(place, Found):
            continue
        if place.fetch is not None and place.benchmark.hub is None:
            print(f"{place.benchmark.name}: to be had by hand: {place.fetch}", file=sys.stderr)
            failed += 1
            continue
        if place.fetch is None or "DATA" in shlex.split(place.fetch)[-1].split("/"):
            raise ConfigError(f"--fetch needs --data-root DIR to put {place.benchmark.name} in")
        words = shlex.split(place.fetch)
        program = Path(sys.executable).with_name(words[0])
        print(place.fetch, flush=True)
        command = [str(program) if program.exists() else words[0], *words[1:]]
        if why := bring(command, Path(words[-1])):
            print(f"{place.benchmark.name}: {why}", file=sys.stderr)
            failed += 1
    return HOLES if failed else 0
