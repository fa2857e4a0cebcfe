"""The command: `python -m harness.evaluate WHAT... [--suite NAME] [options]`.

Evaluates finished runs, exports, any model of open_clip, or a folder of checkpoints on suites of
public benchmarks; repeated, it goes on with the next data set.  Owns which model is meant, which
process does what, and the table.  Exit codes: 0 all done, 2 the command is wrong, 3 a table with
holes or numbers that do not agree, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import metrics
from harness.commands.shared import Parser, exit_code_of, print_table
from harness.config import (
    Evaluate,
    Runtime,
    content_key,
    override_runtime,
    parse_assignment,
)
from harness.errors import ConfigError, HarnessError, InvariantError, one_line
from harness.evaluate.suites import SUITES, benchmarks_of
from harness.evaluate.suites.find import Found, Hole, find
from harness.evaluate.suites.records import Benchmark
from harness.evaluations import EvaluationDir, evaluations_root
from harness.record import RunDir, Store, write_atomic

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from harness.document.table import Table
    from harness.evaluate.benchmarks import Part
    from harness.evaluate.model import Encoders, Identity

_CONFIG = "open_clip_config.json"
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")
_RUNTIME = "runtime."
_DASH = "\N{EM DASH}"
_HOLES = 3


# --------------------------------------------------------------------------- the command line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, and tells a known error in one line."""
    return exit_code_of(lambda: run_command(_parser().parse_intermixed_args(argv)), stopped=_go_on)


def _go_on() -> str:
    words = sys.orig_argv[1:] if len(sys.orig_argv) > 1 else sys.argv
    return f"stopped; the same command goes on: {shlex.join(['python', *words])}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m harness.evaluate",
        description="Evaluate models on suites of public benchmarks; repeated, it goes on.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
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
    add("--model", metavar="NAME", help="open_clip's architecture of the checkpoints")
    add("--pretrained", metavar="FILE", type=Path, help="a checkpoint of --model")
    add("--data-root", metavar="DIR", help="holds each data set in a folder of its name")
    add("--root", type=Path, default=Path(), metavar="DIR", help="holds results/ (default: here)")
    add("--sweep", type=Path, metavar="PATH", help="sweep file that registers a run's backbone")
    add("--slots", type=int, metavar="N", help="data sets side by side (default: GPUs, or 1)")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    add("--batch-size", type=int, default=256, metavar="N")
    add("--out", type=Path, metavar="FILE", help="the table as .csv or .md too")
    add("--list", action="store_true", help="the benchmarks and where they are, and stop")
    add("--dry-run", action="store_true", help="what would be evaluated, and stop")
    add("--fetch", action="store_true", help="download what is missing, and stop")
    add("--verify", action="store_true", help="against CLIP_benchmark's own functions, and stop")
    return parser


def _epilog() -> str:
    lines = ["suites (and each of their data sets by its name):"]
    for name, members in SUITES.items():
        lines.append(f"  {name:12} {', '.join(b.name for b in members)}")
    return "\n".join(lines)


def run_command(args: argparse.Namespace) -> int:
    """Do what the arguments say; returns the exit code."""
    suites = tuple(dict.fromkeys(args.suite or ["smoke"]))
    places = [find(benchmark, args.data_root) for benchmark in benchmarks_of(suites)]
    if args.fetch:
        return fetch(places)
    if args.list:
        return print_places(places)
    runtime = _runtime(args)
    settings = Evaluate(
        splits=(), suites=suites, batch_size=args.batch_size, precision=args.precision
    )
    store = Store(args.root.resolve())
    models = models_of(args, store)
    if args.verify:
        return verify(models, places, settings, runtime)
    if not models:
        raise ConfigError("name what to evaluate: a run, an export, or --model with --pretrained")
    if args.dry_run:
        return print_plan(models, places)
    for place in places:
        if isinstance(place, Hole):
            print(f"hole: {place}", file=sys.stderr)
    slots = _slots(args.slots, runtime)
    found = [place for place in places if isinstance(place, Found)]
    done = _evaluate_all(models, found, Work(store.root, settings, runtime), slots)
    return _report(models, places, done, settings, store, args.out)


def _runtime(args: argparse.Namespace) -> Runtime:
    """The `runtime.FIELD=VALUE` among the arguments, which leave the list of what to evaluate."""
    given = [text for text in args.what if text.startswith(_RUNTIME) and "=" in text]
    args.what = [text for text in args.what if text not in given]
    values = dict(parse_assignment(text.removeprefix(_RUNTIME)) for text in given)
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


# --------------------------------------------------------------------------- which models


@dataclass(frozen=True)
class ModelSpec:
    """A model as the command line means it; nothing of it has been read.

    Attributes:
        kind: `run`, `export` or `checkpoint`.
        name: what a table calls it.
        path: the run's directory, the export's folder, or the file of weights.
        architecture: open_clip's name, of a checkpoint.
    """

    kind: str
    name: str
    path: Path
    architecture: str | None = None
    sweep: Path | None = None


def models_of(args: argparse.Namespace, store: Store) -> list[ModelSpec]:
    """The models that the command line names, each once; ConfigError or RecordError for none."""
    specs: list[ModelSpec] = []
    if args.pretrained is not None:
        if args.model is None:
            raise ConfigError("--pretrained is a checkpoint of --model NAME, which is missing")
        specs.append(_checkpoint(args.pretrained, args.model))
    for text in args.what:
        specs += _resolve(text, args.model, store, args.sweep)
    return list(dict.fromkeys(specs))


def _resolve(
    text: str, architecture: str | None, store: Store, sweep: Path | None
) -> Iterator[ModelSpec]:
    path = Path(text).expanduser()
    if path.is_file():
        if architecture is None:
            raise ConfigError(f"{text} is a checkpoint of --model NAME, which is missing")
        yield _checkpoint(path, architecture)
    elif (path / _CONFIG).is_file():
        yield ModelSpec("export", path.resolve().name, path.resolve())
    elif path.is_dir() and not (path / "config.json").is_file():
        yield from _folder(path, architecture)
    else:
        run = store.find(text)
        run.finished()
        yield ModelSpec("run", run.key, run.path, sweep=sweep)


def _folder(path: Path, architecture: str | None) -> Iterator[ModelSpec]:
    """Every export and every checkpoint right inside a folder."""
    exports = sorted(p.parent for p in path.glob(f"*/{_CONFIG}"))
    files = sorted(p for p in path.iterdir() if p.suffix in _WEIGHTS and p.is_file())
    if not exports and not files:
        raise ConfigError(f"{path} holds neither a run, an export nor a checkpoint")
    if files and architecture is None:
        raise ConfigError(
            f"{path} holds {len(files)} checkpoints such as {files[0].name}; --model NAME says of "
            "which architecture"
        )
    for folder in exports:
        yield ModelSpec("export", folder.name, folder.resolve())
    for file in files:
        yield _checkpoint(file, str(architecture))


def _checkpoint(file: Path, architecture: str) -> ModelSpec:
    if not file.is_file():
        raise ConfigError(f"there is no checkpoint {file}")
    return ModelSpec("checkpoint", f"{architecture} {file.name}", file.resolve(), architecture)


def load(spec: ModelSpec, root: Path) -> tuple[Encoders, Identity, EvaluationDir]:
    """The model of `spec` in evaluation mode on the CPU, and where its numbers are kept.

    Raises ConfigError or RecordError when it cannot be read.
    """
    from harness.evaluate import open_clip_model

    folder = evaluations_root(Store(root))
    if spec.kind == "run":
        return _load_run(spec, folder)
    if spec.kind == "export":
        model, identity = open_clip_model.load_export(spec.path)
    else:
        model, identity = open_clip_model.load_checkpoint(str(spec.architecture), spec.path)
    return model, identity, EvaluationDir(folder / content_key(identity.plain()))


def _load_run(spec: ModelSpec, folder: Path) -> tuple[Encoders, Identity, EvaluationDir]:
    from harness.evaluate.model import identity_of_run
    from harness.models.export import load_model
    from harness.parts import read_run
    from harness.train.checkpoint import load_weights

    run = RunDir(spec.path)
    config, checkpoint = read_run(run, spec.sweep), run.finished()["checkpoint"]
    weights = load_weights(run.path / checkpoint["file"], checkpoint["sha256"])
    model = load_model(config.model, weights)
    identity = identity_of_run(model, checkpoint["sha256"])
    return model, identity, EvaluationDir(folder / run.key, run)


# --------------------------------------------------------------------------- the work


@dataclass(frozen=True)
class Work:
    """What every process needs to know."""

    root: Path
    settings: Evaluate
    runtime: Runtime


@dataclass(frozen=True)
class Task:
    """One data set on one model; `model` counts the models of the command line."""

    model: int
    spec: ModelSpec
    found: Found


@dataclass(frozen=True)
class Done:
    """What came of a task: the key of its model and its part, or why there is none."""

    model: int
    benchmark: str
    part: Part | None = None
    key: str | None = None
    identity: Mapping[str, Any] | None = None
    reason: str | None = None


def cost(benchmark: Benchmark) -> int:
    """About how long a benchmark takes, in pictures; a text counts as half of one."""
    templates = 0 if benchmark.prompts is None else len(benchmark.prompts.templates)
    texts = (benchmark.captions or 0) + (benchmark.classes or 0) * templates
    return benchmark.samples + texts // 2


def _evaluate_all(
    models: Sequence[ModelSpec], found: Sequence[Found], work: Work, slots: Sequence[str | None]
) -> list[Done]:
    """Every data set on every model, model by model, the longest data set first."""
    ordered = sorted(found, key=lambda place: cost(place.benchmark), reverse=True)
    tasks = [Task(i, spec, place) for i, spec in enumerate(models) for place in ordered]
    if not tasks:
        return []
    if min(len(slots), len(tasks)) == 1 and slots[0] is None:
        return list(_said(_work_off(iter(tasks), work), models))
    return list(_said(_side_by_side(tasks, work, slots[: len(tasks)]), models))


def _said(done: Iterator[Done], models: Sequence[ModelSpec]) -> Iterator[Done]:
    """Pass on what is done, each with a line on standard error."""
    for each in done:
        how = "done" if each.part is not None else each.reason
        print(f"{models[each.model].name} on {each.benchmark}: {how}", file=sys.stderr, flush=True)
        yield each


def _work_off(tasks: Iterator[Task], work: Work) -> Iterator[Done]:
    """The tasks one after the other; a model is loaded once for those that follow one another."""
    from harness.device import pick_device, set_up
    from harness.evaluate.benchmarks import evaluate_part

    device = pick_device(work.runtime)
    set_up(work.runtime, device)
    loaded: tuple[ModelSpec, Encoders, Identity, EvaluationDir] | None = None
    for task in tasks:
        failed = _nothing_of(task)
        try:
            if loaded is None or loaded[0] != task.spec:
                model, identity, folder = load(task.spec, work.root)
                model.to(device)  # type: ignore[attr-defined]
                loaded = (task.spec, model, identity, folder)
            _, model, identity, folder = loaded
            part = evaluate_part(
                model, identity, task.found, work.settings, work.runtime, folder.parts
            )
            yield replace(failed, part=part, key=folder.key, identity=identity.plain())
        except HarnessError as error:
            yield replace(failed, reason=one_line(error))


def _nothing_of(task: Task) -> Done:
    """Nothing yet of a task."""
    return Done(task.model, task.found.benchmark.name)


# --------------------------------------------------------------------------- processes


def _side_by_side(tasks: Sequence[Task], work: Work, slots: Sequence[str | None]) -> Iterator[Done]:
    """A process a slot, each taking the next task; the tasks of one that dies are holes."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    waiting: Queue[Task | None] = context.Queue()
    answers: Queue[tuple[int, Task | None, Done | None]] = context.Queue()
    for item in [*tasks, *[None] * len(slots)]:
        waiting.put(item)
    processes = []
    for number, gpu in enumerate(slots):
        process = context.Process(target=_serve, args=(number, waiting, answers, work), daemon=True)
        with _visible(gpu):
            process.start()
        processes.append(process)
    try:
        yield from _collect(tasks, processes, answers)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _serve(
    number: int,
    waiting: Queue[Task | None],
    answers: Queue[tuple[int, Task | None, Done | None]],
    work: Work,
) -> None:
    """What a process does: say which task it takes, then what came of it, until there is none."""

    def taken() -> Iterator[Task]:
        while (task := waiting.get()) is not None:
            answers.put((number, task, None))
            yield task

    for done in _work_off(taken(), work):
        answers.put((number, None, done))


def _collect(
    tasks: Sequence[Task],
    processes: Sequence[Any],
    answers: Queue[tuple[int, Task | None, Done | None]],
) -> Iterator[Done]:
    import queue

    left = {(task.model, task.found.benchmark.name): task for task in tasks}
    taken: dict[int, Task] = {}
    while left:
        try:
            number, task, done = answers.get(timeout=0.5)
        except queue.Empty:
            for number, process in enumerate(processes):
                if process.exitcode not in (None, 0) and number in taken:
                    task = taken.pop(number)
                    if left.pop((task.model, task.found.benchmark.name), None) is not None:
                        reason = f"its process died (exit code {process.exitcode})"
                        yield replace(_nothing_of(task), reason=reason)
            if all(process.exitcode is not None for process in processes) and answers.empty():
                for task in left.values():
                    yield replace(_nothing_of(task), reason="no process was left to do it")
                return
            continue
        if task is not None:
            taken[number] = task
        elif done is not None:
            taken.pop(number, None)
            left.pop((done.model, done.benchmark), None)
            yield done


@contextmanager
def _visible(gpu: str | None) -> Iterator[None]:
    """The environment that a process is started in sees one GPU alone."""
    if gpu is None:
        yield
        return
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


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
        _record(spec, places, [d for d in done if d.model == i], settings, store)
        for i, spec in enumerate(models)
    ]
    rows = [(spec.name, entry["metrics"]) for spec, entry in zip(models, entries, strict=True)]
    columns = _columns(settings.suites)
    print_table(_table(columns, rows))
    if out is not None:
        write_atomic(out, _table_file(out, columns, rows))
        print(f"written: {out}")
    for spec, entry in zip(models, entries, strict=True):
        for name, facts in entry["protocol"]["benchmarks"].items():
            for line in facts.get("warnings", []):
                print(f"warning: {spec.name} on {name}: {line}", file=sys.stderr)
    holes = sum("hole" in f for e in entries for f in e["protocol"]["benchmarks"].values())
    if holes:
        print(f"{holes} of {len(models) * len(places)} numbers are missing", file=sys.stderr)
    return _HOLES if holes else 0


def _record(
    spec: ModelSpec,
    places: Sequence[Found | Hole],
    done: Sequence[Done],
    settings: Evaluate,
    store: Store,
) -> dict[str, Any]:
    """The entry of one model; kept on disk if any of its numbers was had."""
    from harness.evaluate import invariants
    from harness.evaluate.benchmarks import combine
    from harness.evaluate.scoring import npz

    by_name = {d.benchmark: d for d in done}
    parts: dict[str, Part | Hole] = {}
    for place in places:
        mine = by_name.get(place.benchmark.name)
        if isinstance(place, Found):
            assert mine is not None  # every data set that was found was a task
            parts[place.benchmark.name] = mine.part or Hole(place.benchmark, str(mine.reason))
        else:
            parts[place.benchmark.name] = place
    found, sections = combine(settings.suites, parts)
    known = next((d for d in done if d.part is not None), None)
    fingerprints = {p.benchmark.name: getattr(p, "fingerprint", None) for p in places}
    protocol = {
        "metrics": metrics.versions(),
        "rules": metrics.rules(),
        "precision": settings.precision if known is None else _first(parts)["precision"],
        "batch_size": settings.batch_size,
        "splits": {},
        "tasks": {},
        "class_folders": {},
        **sections,
    }
    entry: dict[str, Any] = {"protocol": protocol, "metrics": found, "outcomes": None}
    invariants.check(entry)
    if known is None or known.key is None or known.identity is None:
        return entry
    key = content_key(
        {
            "suites": list(settings.suites),
            "benchmarks": fingerprints,
            "precision": protocol["precision"],
            "metrics": metrics.versions(),
        }
    )
    folder = EvaluationDir(evaluations_root(store) / known.key)
    file = folder.outcomes / f"{key}.npz"
    arrays = {
        n: a for p in parts.values() if not isinstance(p, Hole) for n, a in p.arrays().items()
    }
    write_atomic(file, npz(arrays))
    entry["outcomes"] = f"{folder.outcomes.name}/{file.name}"
    entry["content_key"] = content_key({"model": known.identity, "protocol": protocol})
    model = {"kind": spec.kind, "name": spec.name, "source": str(spec.path), **known.identity}
    folder.add(model, key, entry)
    return entry


def _first(parts: Mapping[str, Part | Hole]) -> Mapping[str, Any]:
    return next(part.protocol for part in parts.values() if not isinstance(part, Hole))


def _columns(suites: Sequence[str]) -> list[str]:
    shown = [name for b in benchmarks_of(suites) for name in metrics.headline_metrics(b)]
    return [*shown, *(metrics.suite_mean_name(name) for name in suites if name in SUITES)]


def _cell(found: Mapping[str, Mapping[str, Any]], name: str) -> str:
    value = found[name]["value"]
    return _DASH if value is None else f"{value * metrics.scale(name):.2f}"


def _table(
    columns: Sequence[str], rows: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]
) -> Table:
    """A line a metric, a column a model: suites are longer than lists of models are."""
    from harness.document.table import plain_table

    lines = []
    for column in columns:
        first = next((f[column] for _, f in rows if f[column]["value"] is not None), None)
        facts = (
            (_DASH, _DASH) if first is None else (str(first["n"]), f"{first['chance']:.2%}"[:-1])
        )
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
        size = f"{b.samples:,} pictures, " + (
            f"{b.captions:,} captions" if b.captions is not None else f"{b.classes:,} classes"
        )
        print(f"{b.name}: {b.title}, {size}, by {judged}; {b.source}")
        print(f"    {place.layout}: {place.path}" if isinstance(place, Found) else f"    {place}")
    return _HOLES if any(isinstance(place, Hole) for place in places) else 0


def print_plan(models: Sequence[ModelSpec], places: Sequence[Found | Hole]) -> int:
    """Which data sets each model would be evaluated on, in their order."""
    found = [place for place in places if isinstance(place, Found)]
    ordered = sorted(found, key=lambda place: cost(place.benchmark), reverse=True)
    for spec in models:
        names = ", ".join(place.benchmark.name for place in ordered) or "nothing"
        print(f"{spec.kind} {spec.name}: {names}")
    for place in places:
        if isinstance(place, Hole):
            print(f"hole: {place}")
    return 0


def fetch(places: Sequence[Found | Hole]) -> int:
    """Run the command that brings each missing data set; 3 if one of them fails."""
    failed = 0
    for place in places:
        if isinstance(place, Found):
            continue
        if place.fetch is None or "DATA" in shlex.split(place.fetch)[-1].split("/"):
            raise ConfigError(f"--fetch needs --data-root DIR to put {place.benchmark.name} in")
        words = shlex.split(place.fetch)
        program = Path(sys.executable).with_name(words[0])
        print(place.fetch, flush=True)
        command = [str(program) if program.exists() else words[0], *words[1:]]
        failed += subprocess.run(command, check=False).returncode != 0
    return _HOLES if failed else 0


# --------------------------------------------------------------------------- verification


def verify(
    models: Sequence[ModelSpec],
    places: Sequence[Found | Hole],
    settings: Evaluate,
    runtime: Runtime,
) -> int:
    """Ours and CLIP_benchmark's numbers side by side; InvariantError where they differ."""
    from harness.device import pick_device, set_up
    from harness.evaluate import verify as verification

    device = pick_device(runtime)
    set_up(runtime, device)
    named = [(spec.name, load(spec, Path())[:2]) for spec in models]
    differing = 0
    for name, (model, identity) in named or [verification.small_model()]:
        model.to(device)  # type: ignore[attr-defined]
        for place in places:
            if isinstance(place, Hole):
                print(f"hole: {place}", file=sys.stderr)
                continue
            comparison = verification.compare(model, identity, place, settings, runtime)
            print(f"{name} on {place.benchmark.name}, {comparison.precision}:")
            for row in comparison.rows:
                print(f"    {row}")
            if comparison.difference is not None:
                differing += 1
                print(f"    differs: {comparison.difference}")
    if differing:
        raise InvariantError(f"{differing} comparisons with CLIP_benchmark differ, see above")
    return _HOLES if any(isinstance(place, Hole) for place in places) else 0
