"""One run from start to finish: the one place that knows both the files and the tensors.

Only a configuration and a root cross into here; everything else is found on disk.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.config import Model, RunConfig, Runtime, check_processes
from harness.config.parents import check_filled_in
from harness.data.catalog import SOURCES, cache_dir, notes_on, open_class_folder, open_data
from harness.data.dataset import DataSet
from harness.data.images import check_turbo
from harness.data.loader import advice, bound_lost, check_pictures
from harness.data.text import corpus_rows_of
from harness.device import TRAINING, numerics, pick_device, placed, resolve_precision, set_up
from harness.errors import (
    ConfigError,
    HarnessError,
    InterruptedRun,
    RankLost,
    StoppedRun,
    failure_class,
)
from harness.evaluate.cost import count_parameters, measure_cost
from harness.evaluate.deploy.sessions import check_packages
from harness.evaluate.engine import evaluate
from harness.files import make_ready
from harness.finished import inherit, parent_record, take_up_training_only
from harness.loggers import LoggedRun
from harness.models.image import ImageEncoder, check_image_tower
from harness.models.names import BACKBONES
from harness.models.pretrained import load_pretrained
from harness.models.training import TrainingModel, needs_patches, needs_stages
from harness.models.two_tower import take_up
from harness.store.checksums import LOGS, of_logs
from harness.store.lease import Lease
from harness.store.provenance import attempt_entry, code_hash, sources_of
from harness.store.record import RunDir, Store
from harness.store.state import State
from harness.train.activations import told_with_help, with_less_memory
from harness.train.checkpoint import (
    can_go_on,
    drop_steps,
    load_weights,
    save_final,
    save_training_only,
)
from harness.train.distributed import (
    SINGLE_PROCESS,
    JoinGroup,
    ProcessGroup,
    RankAddress,
    open_store,
    process_group,
    single_process,
)
from harness.train.loop import Trainer
from harness.train.meter import Trained
from harness.train.norms import refuse_micro_batch
from harness.train.sharing import help_to_evaluate, shared_evaluation
from harness.train.teacher import preflight_teachers

_OF_ATTEMPTS = {"threads", "processes", "micro_batch", "checkpoint_activations"}


def execute(
    config: RunConfig,
    root: Path,
    runtime: Runtime,
    *,
    label: str,
    stop: Callable[[], bool] = lambda: False,
    company: JoinGroup = single_process,
) -> None:
    """Bring one run to its result: train or go on training, evaluate, write result.json last.

    Args:
        company: joins the other processes, each of which calls `assist`, when it comes to training.

    Raises:
        LeaseHeld: another process is at it.
        RankLost: one of the processes is gone; the state on disk is whole.
        InterruptedRun: `stop()` turned true; the state is on disk and a second call goes on.
        StoppedRun: the same, since its directory says that it shall stop.
        ConfigError: a parent or a teacher was never filled in.
        Exception: any other failure, after it was written into status.json with its class.
    """
    check_filled_in(config)
    directory = Store(root).run_dir(config.run_key)
    with Lease(directory.lease_file):
        make_ready(directory.path)
        if not (directory.path / "job.json").exists():
            directory.write_intent(config, {"label": label})
        if directory.status(config.evaluation_key).state is State.DONE:
            return
        if (reason := directory.stop_requested()) is not None:
            raise StoppedRun(reason)
        device, runtime = pick_device(runtime), with_less_memory(runtime, directory)
        attempt = _begin_attempt(directory, config, runtime, device, label)
        try:
            asked = _either(stop, directory, runtime.log_seconds)
            with LoggedRun(directory.path, config, runtime, label) as logged:
                _run(config, runtime, logged, device, attempt, asked, company)
        except InterruptedRun as error:
            reason = directory.stop_requested()
            _write_end(directory, State.INTERRUPTED, attempt, note=str(error), stopped=reason)
            if reason is not None:
                raise StoppedRun(reason) from error
            raise
        except Exception as error:  # the boundary of a run: recorded with its class, then raised
            _write_end(
                directory,
                State.FAILED,
                attempt,
                failure=failure_class(error),
                error=told_with_help(error, runtime),
                log=str(directory.log_file(attempt)),
                trace="" if isinstance(error, HarnessError) else traceback.format_exc(),
            )
            raise


def _begin_attempt(
    directory: RunDir, config: RunConfig, runtime: Runtime, device: torch.device, label: str
) -> int:
    """Write down that an attempt begins, and on what; its number."""
    attempt = directory.add_provenance(
        attempt_entry(
            label=label,
            device=_device_name(device),
            **runtime.model_dump(include=_OF_ATTEMPTS),
            **_registered_elsewhere(config),
        )
    )
    directory.write_status(State.RUNNING, attempt=attempt, phase="prepare")
    return attempt


def _registered_elsewhere(config: RunConfig) -> dict[str, Any]:
    """Entry of the provenance for the parts of a run that its sweep file brings; none if none."""
    parts: dict[str, Callable[..., Any]] = {
        f"loss term {name}": type(term) for name, term in config.objective.active.items()
    }
    backbone, source = config.model.image.backbone, config.data.source
    if backbone in BACKBONES:
        parts[f"backbone {backbone}"] = BACKBONES.get(backbone)
    if source in SOURCES:
        parts[f"data source {source}"] = SOURCES.get(source)
    found = sources_of(parts)
    return {"registered": found} if found else {}


def _either(stop: Callable[[], bool], directory: RunDir, seconds: float) -> Callable[[], bool]:
    """`stop`, or a request in the run's directory, which is looked for every `seconds`."""
    next_look = time.monotonic()

    def asked() -> bool:
        nonlocal next_look
        if stop():
            return True
        if time.monotonic() < next_look:
            return False
        next_look = time.monotonic() + seconds
        return directory.stop_file.exists()

    return asked


def assist(
    config: RunConfig,
    runtime: Runtime,
    place: RankAddress,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train and evaluate a run as one of its processes but the first; writes nothing.

    Raises:
        InterruptedRun: any process was asked to stop.
        RankLost: another process is gone.
        Exception: any other failure, of which the others are told.
    """
    device = pick_device(runtime, place.local_rank)
    set_up(runtime, device)
    data = open_data(config.data, runtime)
    data.prepare()
    training = placed(TrainingModel(config, _rows(config.model, data, runtime)), device)
    store = open_store(place, runtime.process_timeout)
    with process_group(place, store, device, runtime.process_timeout) as group:
        Trainer(training, data, config, runtime, None, device, 0, group).train(stop)
        help_to_evaluate(group, training.model, data, config.evaluate, runtime)


def _run(
    config: RunConfig,
    runtime: Runtime,
    directory: RunDir,
    device: torch.device,
    attempt: int,
    stop: Callable[[], bool],
    company: JoinGroup,
) -> None:
    set_up(runtime, device)
    data = open_data(config.data, runtime)
    data.prepare()
    training = placed(TrainingModel(config, _rows(config.model, data, runtime)), device)
    result, whole = directory.result(), True
    with ExitStack() as met:
        group = SINGLE_PROCESS
        if result is None:
            if not can_go_on(directory.checkpoints):
                load_pretrained(training.model.image.backbone, config.model.image)
                inherit(training.model, config, directory)
            group = met.enter_context(company(device))
            _check_group_size(group, runtime)
            trainer = Trainer(training, data, config, runtime, directory, device, attempt, group)
            result = _train(config, runtime, directory, trainer, stop)
        else:
            take_up(training.model, load_weights(directory.path, result["checkpoint"]))
            whole = take_up_training_only(training, directory, result)
        directory.write_status(
            State.RUNNING,
            attempt=attempt,
            phase="evaluate",
            samples_seen=result["training"]["samples_seen"],
            samples=config.train.samples,
        )
        began = time.monotonic()
        try:
            with shared_evaluation(group) as share:
                entry = evaluate(
                    training.model,
                    data,
                    config,
                    runtime,
                    checkpoint_sha256=result["checkpoint"]["sha256"],
                    out=directory.outcomes,
                    before=result["evaluations"].get(config.evaluation_key),
                    training=training if whole else None,
                    share=share,
                )
        except HarnessError as error:
            if not isinstance(error, RankLost):
                met.close()  # the others did nothing wrong, and are there for the next run
            raise
    result["training"].setdefault("evaluation_seconds", time.monotonic() - began)
    result["evaluations"] = {**result["evaluations"], config.evaluation_key: entry}
    directory.write_result(result)
    directory.fill_file.unlink(missing_ok=True)
    _write_end(directory, State.DONE, attempt, samples_seen=result["training"]["samples_seen"])
    drop_steps(directory.checkpoints)


def _train(
    config: RunConfig,
    runtime: Runtime,
    directory: RunDir,
    trainer: Trainer,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """The result of a training that begins or goes on, without evaluations."""
    training, data, device = trainer.model, trainer.data, trainer.device
    computed_with = numerics(config.train, runtime, device, trainer.precision)
    directory.complete_provenance(numerics=computed_with)
    trained = trainer.train(stop)
    file, sha256 = save_final(directory.checkpoints, training.model)
    return {
        "code": code_hash(),
        "numerics": computed_with,
        "training": {
            **_training_record(trained, runtime, device, trainer.attempt),
            "samples_asked": config.train.samples,
            "precision": trainer.precision,
            "data": data.account.record() | {"notes": notes_on(data, runtime)},
        },
        "checkpoint": {"file": f"checkpoints/{file.name}", "sha256": sha256},
        LOGS: of_logs(directory.metrics_file, directory.progress_file),
        **parent_record(directory, config),
        **_keep_training_only(directory, training),
        "cost": _cost_record(training, config),
        "evaluations": {},
    }


def _check_group_size(group: ProcessGroup, runtime: Runtime) -> None:
    if group.size != runtime.processes:
        raise ConfigError(
            f"runtime.processes = {runtime.processes}, and the run was started on {group.size}; "
            "python -m harness.sweep starts as many as it says"
        )


def _keep_training_only(directory: RunDir, training: TrainingModel) -> dict[str, Any]:
    """Entry of the result for what trained beside the towers; none if nothing did."""
    weights = training.training_only()
    if not weights:
        return {}
    file, sha256 = save_training_only(directory.checkpoints, weights)
    return {"training_modules": {"file": f"checkpoints/{file.name}", "sha256": sha256}}


def _write_end(directory: RunDir, state: State, attempt: int, **details: Any) -> None:
    """The last status of an attempt; how far it came is carried over, so that none loses it."""
    try:
        before = directory.status().details or {}
        for name in ("samples_seen", "seconds"):
            details.setdefault(name, before.get(name, 0))
        directory.write_status(state, attempt=attempt, **details)
    except OSError as error:
        print(f"{directory.status_file} could not be written: {error}", file=sys.stderr)


def _cost_record(training: TrainingModel, config: RunConfig) -> dict[str, Any]:
    """Cost of the towers, which is all that inference needs, and all parameters that trained."""
    size, context_length = config.model.image.size, config.model.text.context_length
    cost = measure_cost(training.model, size, context_length)
    total = count_parameters(training.parameters())
    return {**cost, "parameters": {**cost["parameters"], "total": total}}


def _training_record(
    trained: Trained, runtime: Runtime, device: torch.device, attempt: int
) -> dict[str, Any]:
    wait_share = trained.wait_seconds / trained.seconds
    told = advice(wait_share, runtime)
    if told is not None:
        print(told, file=sys.stderr)
    return {
        "samples_seen": trained.samples_seen,
        "steps": trained.steps,
        "epochs": trained.epochs,
        "seconds": trained.seconds,
        "final_loss": trained.final_loss,
        "samples_per_second": trained.samples_seen / trained.seconds,
        "data_wait": wait_share,
        **({} if told is None else {"advice": told}),
        "parts": None if trained.parts is None else dict(trained.parts),
        "device": _device_name(device),
        "threads": runtime.threads,
        "processes": runtime.processes,
        "micro_batch": runtime.micro_batch,
        "attempts": attempt,
        "bad_samples": [asdict(problem) for problem in trained.problems],
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _rows(model: Model, data: DataSet, runtime: Runtime) -> np.ndarray | None:
    return _corpus_rows(data, runtime) if model.text.vocabulary == "corpus" else None


@lru_cache(maxsize=4)
def _corpus_rows(data: DataSet, runtime: Runtime) -> np.ndarray:
    return corpus_rows_of(data, cache_dir(runtime))


# --------------------------------------------------------------------------- before anything starts


def preflight(configs: Sequence[RunConfig], runtime: Runtime) -> list[str]:
    """One line for each thing that would make one of `configs` fail at its start.

    Builds every distinct image tower and sends two pictures through it, and decodes a few pictures
    of each split of every distinct data set.
    """
    towers = {
        (c.model.image, c.model.embed_dim, needs_patches(c), needs_stages(c)) for c in configs
    }
    checks: list[Callable[[], None]] = [lambda: _check_device(configs, runtime)]
    checks += [lambda c=c: check_processes(c, runtime) for c in {c.train for c in configs}]  # type: ignore[misc]
    checks += [lambda t=t: check_image_tower(t[0], t[1], patches=t[2], stages=t[3]) for t in towers]  # type: ignore[misc]
    if any(c.evaluate.deploy for c in configs):
        checks.append(lambda: check_packages("evaluate.deploy"))
    if runtime.micro_batch is not None:
        images = {c.model.image for c in configs if c.train.norm_batch is None}
        checks += [lambda i=i: refuse_micro_batch(ImageEncoder(i, 2)) for i in images]  # type: ignore[misc]
    checks += [lambda c=c: _check_data(c, runtime) for c in _distinct_data(configs)]  # type: ignore[misc]
    taught = {(c.teacher, c.data, c.teacher.views and c.seed): c for c in configs}.values()
    checks += [lambda c=c: preflight_teachers(c, runtime) for c in taught]  # type: ignore[misc]
    problems = []
    for check in checks:
        try:
            check()
        except HarnessError as error:
            problems.append(str(error))
    return problems


def _check_device(configs: Sequence[RunConfig], runtime: Runtime) -> None:
    device = pick_device(runtime)
    for config in configs:
        resolve_precision(config.train.precision, device, TRAINING)
        resolve_precision(config.evaluate.precision, device, "evaluate.precision")


def _distinct_data(configs: Sequence[RunConfig]) -> list[RunConfig]:
    return list({(c.data, c.evaluate.class_folders): c for c in configs}.values())


def _check_data(config: RunConfig, runtime: Runtime) -> None:
    if config.data.decoder == "turbo":
        check_turbo("data.decoder = 'turbo'")
    cache_dir(runtime).mkdir(parents=True, exist_ok=True)
    data = open_data(config.data, runtime)
    data.prepare()
    labelled = [open_class_folder(folder, runtime) for folder in config.evaluate.class_folders]
    for one in (data, *labelled):
        check_pictures(one, runtime)
        bound_lost(one, runtime)
