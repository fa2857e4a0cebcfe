"""One evaluation: which numbers are computed, under which protocol, and what is kept of them.

Puts the parts together for a run: its own splits and class folders here, public benchmarks in
`benchmarks`.  Writes one file, the per-example outcomes; the entry it returns is the caller's to
record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config import ClassFolder, Evaluate, RunConfig, Runtime, content_key
from harness.data.catalog import check_evaluated, notes_on, open_class_folder
from harness.data.dataset import DataSet, Task
from harness.errors import ConfigError, DataError, one_line
from harness.evaluate import invariants
from harness.evaluate.benchmarks import Part, combine, evaluate_part
from harness.evaluate.model import Identity, identity_of_run, preprocessing
from harness.evaluate.scoring import (
    Findings,
    Job,
    TaskClassifier,
    TestSet,
    applies,
    npz,
    score,
    task_protocol,
    with_weights,
)
from harness.evaluate.suites import benchmarks_of
from harness.evaluate.suites.find import Found, Hole, find
from harness.evaluate.terms import measure_terms
from harness.files import write_atomic
from harness.metrics import CLASSIFICATION, RETRIEVAL, lacking, rules, versions
from harness.store.first_stage import array_names

if TYPE_CHECKING:
    from harness.models.training import TrainingModel
    from harness.models.two_tower import TwoTower


def evaluate(
    model: TwoTower,
    data: DataSet,
    config: RunConfig,
    runtime: Runtime,
    *,
    checkpoint_sha256: str,
    out: Path | None,
    before: Mapping[str, Any] | None = None,
    training: TrainingModel | None = None,
) -> dict[str, Any]:
    """Evaluate `model` as `config.evaluate` asks and check that the numbers can be true.

    Retrieval on every split that has captions, every task that has labels in a split, and every
    class folder, and every benchmark of the suites, which is kept by itself once it is done.  The
    per-example outcomes go to `<out>/<evaluation_key>.npz`; `out` is the folder `outcomes` of the
    run's directory, or None to keep the metrics alone.

    Args:
        before: the same evaluation as an earlier version made it, by today's names: what it has
            stays as it is, and what it lacks is added.
        training: `model` with what trained beside it; None: metrics of loss terms are holes.

    Returns:
        {"content_key", "protocol", "metrics", "outcomes"}: plain values for the run's record.

    Raises:
        ConfigError: a split with nothing to evaluate, or bf16 without a GPU.
        DataError: an unknown split, or too many pictures that cannot be read.
        InvariantError: NaN, collapsed towers, or numbers that contradict one another.
    """
    check_evaluated(data, config.evaluate)
    found = Findings()
    job = Job(model, config.evaluate, runtime, found)
    protocol = {
        **_of_metrics(config),
        "precision": job.precision,
        "batch_size": config.evaluate.batch_size,
        "preprocessing": preprocessing(config.model),
        "data": {"name": data.name, "fingerprint": data.evaluation_fingerprint},
        **_evaluate_data(job, data),
        "class_folders": {
            folder.name: _evaluate_folder(job, folder) for folder in config.evaluate.class_folders
        },
        **measure_terms(job, data, config, training),
        **({} if out is None else _evaluate_suites(job, model, checkpoint_sha256, out)),
    }
    file = None if out is None else out / f"{config.evaluation_key}.npz"
    if before is not None and file is not None:
        _keep(before, lacking(before, config.objective.active), file, protocol, found)
    entry = {
        "content_key": content_key({"checkpoint": checkpoint_sha256, "protocol": protocol}),
        "protocol": protocol,
        "metrics": found.metrics,
        "outcomes": None if file is None else f"{file.parent.name}/{file.name}",
    }
    invariants.check(entry)
    if file is not None:
        write_atomic(file, npz(found.outcomes))
    return entry


def _of_metrics(config: RunConfig) -> dict[str, Any]:
    """Versions of the metrics that the run has, and what their numbers mean."""
    found = versions([RETRIEVAL, CLASSIFICATION, *config.objective.active])
    return {"metrics": found, "rules": rules(found)}


def _keep(
    before: Mapping[str, Any],
    stale: Mapping[str, Any],
    file: Path,
    protocol: dict[str, Any],
    found: Findings,
) -> None:
    """Put the numbers and outcomes of an earlier evaluation in the place of those found now.

    `stale` are those that it lacks.

    Raises DataError when they are of other pictures, so that nothing can be added to them.
    """
    found.metrics |= {
        name: metric
        for name, metric in before["metrics"].items()
        if name not in stale and (metric["value"] is not None or name not in found.metrics)
    }
    protocol["metrics"] = {**before["protocol"]["metrics"], **protocol["metrics"]}
    with np.load(file, allow_pickle=False) as archive:
        kept = {name: archive[was] for name, was in array_names(archive.files).items()}
    for name, items in kept.items():
        if "/items" in name and not np.array_equal(items, found.outcomes.get(name, np.empty(0))):
            raise DataError(
                f"{name} of the earlier evaluation is of other pictures, so that nothing can be "
                "added to it; --rerun all makes the run anew"
            )
    found.outcomes |= {name: kept[name] for name in kept if name not in stale}


# --------------------------------------------------------------------------- suites


def _evaluate_suites(
    job: Job, model: TwoTower, checkpoint_sha256: str, out: Path
) -> dict[str, Any]:
    """Every benchmark of the suites; returns their sections of the protocol, if there are any."""
    suites = job.settings.suites
    if not suites:
        return {}
    identity = identity_of_run(model, checkpoint_sha256)
    parts: dict[str, Part | Hole] = {}
    for place in located(job.settings, job.runtime.data_root):
        name = place.benchmark.name
        parts[name] = part = place if isinstance(place, Hole) else _part(job, identity, place, out)
        if isinstance(part, Part):
            job.found.outcomes |= part.arrays()
    metrics, sections = combine(suites, parts)
    job.found.metrics |= metrics
    return sections


def _part(job: Job, identity: Identity, found: Found, out: Path) -> Part | Hole:
    try:
        return evaluate_part(job.model, identity, found, job.settings, job.runtime, out)
    except DataError as error:
        return Hole(found.benchmark, one_line(error))


def located(settings: Evaluate, data_root: str | None) -> list[Found | Hole]:
    """Where every benchmark of the suites is, as it was when the configuration was made.

    Raises DataError when the content of one has changed since.
    """
    places = [find(benchmark, data_root) for benchmark in benchmarks_of(settings.suites)]
    known = {data.name: data.fingerprint for data in settings.benchmarks}
    return [_as_planned(place, known) for place in places]


def _as_planned(place: Found | Hole, known: Mapping[str, str | None]) -> Found | Hole:
    name = place.benchmark.name
    if name not in known:
        return place
    wanted = known[name]
    if isinstance(place, Found) and wanted is None:
        return Hole(place.benchmark, "was not there when this evaluation was planned")
    if isinstance(place, Hole) and wanted is not None:
        raise DataError(f"data set {place}; it was there when this evaluation was planned")
    if isinstance(place, Found) and place.fingerprint != wanted:
        raise DataError(
            f"data set {name} has fingerprint {place.fingerprint[:12]}, but the configuration "
            f"was made for {str(wanted)[:12]}: its content has changed since"
        )
    return place


# --------------------------------------------------------------------------- the run's own data


def _evaluate_data(job: Job, data: DataSet) -> dict[str, Any]:
    """All splits asked for; returns the `splits` and `tasks` sections of the protocol."""
    splits = {name: data.split(name) for name in job.settings.splits}
    for name, split in splits.items():
        if not any(split.captions) and not any(applies(task, name) for task in data.tasks):
            raise ConfigError(
                f"split {name!r} of {data.name} has neither captions nor labels: "
                "nothing to evaluate"
            )
    tasks = [task for task in data.tasks if any(applies(task, name) for name in splits)]
    classifiers = _classifiers(job, tasks)
    data.prepare()
    return {
        "splits": {name: _evaluate_split(job, data, name, classifiers) for name in splits},
        "tasks": {each.task.name: task_protocol(each) for each in classifiers},
    }


def _evaluate_split(
    job: Job, data: DataSet, name: str, classifiers: Sequence[TaskClassifier]
) -> dict[str, Any]:
    tasks = {f"{name}/{each.task.name}": each for each in classifiers if applies(each.task, name)}
    facts, answers = score(job, TestSet(name, data, name, tasks))
    labelled = {tasks[place].task.name: len(found.labels) for place, found in answers.items()}
    return {**facts, "labelled": labelled}


def _classifiers(job: Job, tasks: Sequence[Task]) -> list[TaskClassifier]:
    """One for each task; the prompts of all of them are embedded together."""
    override = job.settings.templates
    templates = [task.templates if override is None else override for task in tasks]
    return with_weights(job, list(zip(tasks, templates, strict=True)))


def _evaluate_folder(job: Job, folder: ClassFolder) -> dict[str, Any]:
    """Zero-shot classification of a class folder; returns its section of the protocol."""
    data = open_class_folder(folder)
    (of,) = with_weights(job, [(data.tasks[0], data.tasks[0].templates)])
    facts, _ = score(job, TestSet(folder.name, data, "test", {folder.name: of}))
    return {
        "fingerprint": data.fingerprint,
        **{what: facts[what] for what in ("images", "excluded")},
        **task_protocol(of),
        "notes": notes_on(data, job.runtime),
    }
