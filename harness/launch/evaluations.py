"""Models named, loaded and evaluated on data sets, one after another or side by side."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.config import ClassFolder, Evaluate, Runtime, content_key
from harness.errors import ConfigError, HarnessError, one_line
from harness.evaluate.suites.find import Found, Hole
from harness.evaluate.suites.records import Benchmark
from harness.files import home_path, write_atomic
from harness.launch.own_process import begin_process
from harness.store.checksums import OUTCOMES
from harness.store.evaluations import EvaluationDir, evaluations_root
from harness.store.record import RunDir, Store

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from harness.evaluate.model import Encoders, Identity
    from harness.evaluate.parts import Part

_CONFIG = "open_clip_config.json"
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")


# --------------------------------------------------------------------------- which models


@dataclass(frozen=True)
class ModelSpec:
    """A model as the command line means it; nothing of it has been read.

    Attributes:
        kind: `run`, `export` or `checkpoint`.
        name: what a table calls it.
        path: the run's directory, the export's folder, or the file of weights.
        architecture: open_clip's name, of a checkpoint.
        trusted: whether an export may name what fetches models or runs code.
    """

    kind: str
    name: str
    path: Path
    architecture: str | None = None
    sweep: Path | None = None
    trusted: bool = False


def models_of(args: argparse.Namespace, store: Store) -> list[ModelSpec]:
    """The models that the command line names, each once; ConfigError or RecordError for none."""
    specs: list[ModelSpec] = []
    if args.pretrained is not None:
        if args.model is None:
            raise ConfigError("--pretrained is a checkpoint of --model NAME, which is missing")
        specs.append(_checkpoint(args.pretrained, args.model))
    for text in args.what:
        specs += _resolve(text, args.model, store, args.sweep)
    return list(dict.fromkeys(replace(spec, trusted=args.trust_code) for spec in specs))


def _resolve(
    text: str, architecture: str | None, store: Store, sweep: Path | None
) -> Iterator[ModelSpec]:
    path = home_path(text)
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
        model, identity = open_clip_model.load_export(spec.path, trusted=spec.trusted)
    else:
        model, identity = open_clip_model.load_checkpoint(str(spec.architecture), spec.path)
    return model, identity, EvaluationDir(folder / content_key(identity.plain()))


def _load_run(spec: ModelSpec, folder: Path) -> tuple[Encoders, Identity, EvaluationDir]:
    from harness.evaluate.model import identity_of_run
    from harness.models.export import load_model
    from harness.plugins import read_run
    from harness.train.checkpoint import load_weights

    run = RunDir(spec.path)
    config, checkpoint = read_run(run, spec.sweep), run.finished()["checkpoint"]
    model = load_model(config.model, load_weights(run.path, checkpoint))
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
class EvaluationTask:
    """One data set on one model; `model` counts the models of the command line."""

    model: int
    spec: ModelSpec
    found: Found | ClassFolder

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.found.benchmark.name if isinstance(self.found, Found) else self.found.name


@dataclass(frozen=True)
class Done:
    """What came of a task: the key of its model and its part, or why there is none."""

    model: int
    benchmark: str
    part: Part | None = None
    key: str | None = None
    identity: Mapping[str, Any] | None = None
    reason: str | None = None

    @classmethod
    def without(cls, task: EvaluationTask, reason: str) -> Done:
        """Nothing came of a task, and why."""
        return cls(task.model, task.name, reason=reason)


def cost(benchmark: Benchmark) -> int:
    """About how long a benchmark takes, in pictures; a text counts as half of one."""
    templates = 0 if benchmark.prompts is None else len(benchmark.prompts.templates)
    texts = (benchmark.captions or 0) + (benchmark.classes or 0) * templates
    return benchmark.samples + texts // 2


def evaluate_all(
    models: Sequence[ModelSpec], found: Sequence[Found], work: Work, slots: Sequence[str | None]
) -> list[Done]:
    """Every data set on every model, model by model, the longest benchmark first."""
    longest = sorted(found, key=lambda place: cost(place.benchmark), reverse=True)
    places: list[Found | ClassFolder] = [*longest, *work.settings.class_folders]
    tasks = [EvaluationTask(i, spec, place) for i, spec in enumerate(models) for place in places]
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


def _work_off(tasks: Iterator[EvaluationTask], work: Work) -> Iterator[Done]:
    """The tasks one after the other; a model is loaded once for those that follow one another."""
    from harness.device import pick_device, set_up
    from harness.evaluate.benchmarks import place_of
    from harness.evaluate.parts import class_set, evaluate_part

    device = pick_device(work.runtime)
    set_up(work.runtime, device)
    loaded: tuple[ModelSpec, Encoders, Identity, EvaluationDir] | None = None
    for task in tasks:
        try:
            if loaded is None or loaded[0] != task.spec:
                model, identity, folder = load(task.spec, work.root)
                model.to(device)  # type: ignore[attr-defined]
                loaded = (task.spec, model, identity, folder)
            _, model, identity, folder = loaded
            located = place_of if isinstance(task.found, Found) else class_set
            place = located(task.found, work.runtime)  # type: ignore[arg-type]
            part = evaluate_part(model, identity, place, work.settings, work.runtime, folder.parts)
            yield Done(task.model, task.name, part, folder.key, identity.plain())
        except HarnessError as error:
            yield Done.without(task, one_line(error))


# --------------------------------------------------------------------------- processes


def _side_by_side(
    tasks: Sequence[EvaluationTask], work: Work, slots: Sequence[str | None]
) -> Iterator[Done]:
    """A process a slot, each taking the next task."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    processes = {}
    for gpu in slots:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work, gpu), daemon=True)
        process.start()
        theirs.close()
        processes[ours] = process
    try:
        yield from _handed_out(tasks, processes)
    finally:
        for process in processes.values():
            process.terminate()
            process.join()


def _serve(pipe: Connection, work: Work, gpu: str | None) -> None:
    """What a process does: ask for a task, with None, and say what came of it."""
    begin_process()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # nothing has looked for GPUs yet

    def given() -> Iterator[EvaluationTask]:
        while True:
            pipe.send(None)
            yield pipe.recv()

    for done in _work_off(given(), work):
        pipe.send(done)


def _handed_out(
    tasks: Sequence[EvaluationTask], processes: Mapping[Connection, Any]
) -> Iterator[Done]:
    """Each task given to a process that asks for one; that of a process that dies is a hole."""
    from multiprocessing.connection import wait

    waiting = deque(tasks)
    given: dict[Connection, EvaluationTask | None] = dict.fromkeys(processes)
    while waiting or any(given.values()):
        if not given:
            yield from (Done.without(task, "no process was left to do it") for task in waiting)
            return
        for pipe in cast("list[Connection]", wait(given)):
            try:
                done = pipe.recv()
            except (EOFError, OSError):
                task = given.pop(pipe)
                processes[pipe].join()
                if task is not None:
                    code = processes[pipe].exitcode
                    yield Done.without(task, f"its process died (exit code {code})")
                continue
            if done is not None:
                given[pipe] = None
                yield done
            elif waiting:
                given[pipe] = waiting.popleft()
                with suppress(BrokenPipeError):  # that it is gone is read next
                    pipe.send(given[pipe])


# --------------------------------------------------------------------------- on record


def record_evaluation(
    spec: ModelSpec,
    places: Sequence[Found | Hole],
    done: Sequence[Done],
    settings: Evaluate,
    store: Store,
) -> dict[str, Any]:
    """The entry of one model; kept on disk if any of its numbers was had."""
    from harness.evaluate import invariants
    from harness.evaluate.benchmarks import combine
    from harness.evaluate.parts import protocol_head
    from harness.evaluate.scoring.job import npz

    mine = {each.benchmark: each for each in done}
    parts: dict[str, Part | Hole] = {
        place.benchmark.name: place
        if isinstance(place, Hole)
        else (each := mine[place.benchmark.name]).part or Hole(place.benchmark, str(each.reason))
        for place in places
    }
    found, sections = combine(settings.suites, parts)
    folders = {f.name: part for f in settings.class_folders if (part := mine[f.name].part)}
    found |= {n: dict(m) for part in folders.values() for n, m in part.metrics.items()}
    known = next((each for each in done if each.part is not None), None)
    made = [*folders.values(), *(part for part in parts.values() if not isinstance(part, Hole))]
    precision = made[0].protocol["precision"] if made else settings.precision
    of_folders = {name: dict(part.protocol) for name, part in folders.items()}
    protocol = {**protocol_head(settings, precision), "class_folders": of_folders, **sections}
    entry: dict[str, Any] = {"protocol": protocol, "metrics": found, "outcomes": None}
    invariants.check(entry)
    if known is None or known.key is None or known.identity is None:
        return entry
    key = content_key(
        {
            "suites": list(settings.suites),
            "benchmarks": {p.benchmark.name: getattr(p, "fingerprint", None) for p in places},
            **({"class_folders": [part.key for part in folders.values()]} if folders else {}),
            "precision": precision,
            "metrics": protocol["metrics"],
        }
    )
    folder = EvaluationDir(evaluations_root(store) / known.key)
    file = folder.outcomes / f"{key}.npz"
    arrays = {name: array for part in made for name, array in part.arrays().items()}
    data = npz(arrays)
    write_atomic(file, data)
    entry[OUTCOMES] = hashlib.sha256(data).hexdigest()
    entry["outcomes"] = f"{folder.outcomes.name}/{file.name}"
    entry["content_key"] = content_key({"model": known.identity, "protocol": protocol})
    model = {"kind": spec.kind, "name": spec.name, "source": str(spec.path), **known.identity}
    folder.add(model, key, entry)
    return entry
