"""One evaluation: which numbers are computed, under which protocol, and what is kept of them.

Puts the parts together for a run: its own splits and class folders here, public benchmarks in
`benchmarks`, its deployed forms in `deploy`.  Writes the per-example outcomes; the entry it returns
is the caller's to record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config import FORMS, DeployedForm, RunConfig, Runtime, content_key
from harness.data.catalog import check_evaluated
from harness.data.dataset import DataSet
from harness.errors import ConfigError, DataError, InvariantError, RecordError, one_line
from harness.evaluate import invariants
from harness.evaluate.benchmarks import combine, located, place_of
from harness.evaluate.deploy.forms import build
from harness.evaluate.embed import Share, alone
from harness.evaluate.model import Identity, identity_of_run, preprocessing
from harness.evaluate.own_suites import measure_own_suites
from harness.evaluate.parts import FoundTestSet, Part, class_set, evaluate_part, protocol_head
from harness.evaluate.scoring.job import Findings, Job, npz
from harness.evaluate.scoring.score import (
    Scored,
    TaskClassifier,
    TestSet,
    applies,
    score,
    task_protocol,
    with_weights,
)
from harness.evaluate.suites import benchmarks_of
from harness.evaluate.suites.find import Hole
from harness.evaluate.terms import measure_terms
from harness.files import read_npz, write_atomic
from harness.metrics import lacking
from harness.store.checksums import OUTCOMES
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
    share: Share = alone,
) -> dict[str, Any]:
    """Evaluate `model` as `config.evaluate` asks and check that the numbers can be true.

    Retrieval on every split that has captions and every task that has labels in a split; then every
    class folder and every benchmark of the suites, each kept by itself once it is done.  The
    per-example outcomes go to `<out>/<evaluation_key>.npz`; `out` is the folder `outcomes` of the
    run's directory, or None to keep the metrics alone.

    Args:
        before: the same evaluation as an earlier version made it, by today's names: what it has
            stays as it is, and what it lacks is added.
        training: `model` with what trained beside it; None: metrics of loss terms are holes.
        share: who embeds which batch of pictures and texts; what no `share` can be had of, the
            terms' own passes and deployed forms, this process does.

    Returns:
        {"content_key", "protocol", "metrics", "outcomes", "outcomes_sha256"}: plain values for the
        run's record; and "deployed", form -> the same of each of `config.evaluate.deploy`, or
        {"hole": reason}.

    Raises:
        ConfigError: a split with nothing to evaluate, or bf16 without a GPU.
        DataError: an unknown split, or too many pictures that cannot be read.
        InvariantError: NaN, collapsed towers, or numbers that contradict one another.
    """
    check_evaluated(data, config.evaluate)
    found = Findings()
    job = Job(model, config.evaluate, runtime, found, share=share)
    identity = partial(identity_of_run, model, checkpoint_sha256)
    terms = config.objective.active
    protocol = {
        **protocol_head(config.evaluate, job.precision, terms),
        **_sections(job, data, config, out, identity),
        **measure_terms(job, data, config, training),
    }
    file = None if out is None else out / f"{config.evaluation_key}.npz"
    if before is not None and file is not None:
        _keep(before, lacking(before, terms), file, protocol, found)
    entry = _entry(checkpoint_sha256, protocol, found, file)
    if out is not None and config.evaluate.deploy:
        made = partial(_evaluate_form, model, data, config, runtime, checkpoint_sha256, out)
        entry["deployed"] = {form: made(form) for form in config.evaluate.deploy}
    return entry


def _sections(
    job: Job, data: DataSet, config: RunConfig, out: Path | None, identity: Callable[[], Identity]
) -> dict[str, Any]:
    """Evaluate all that a model gives by its towers alone; the sections of the protocol."""
    return {
        "preprocessing": preprocessing(config.model),
        "data": {"name": data.name, "fingerprint": data.evaluation_fingerprint},
        **_evaluate_data(job, data),
        **({} if out is None else _evaluate_parts(job, identity, out)),
    }


def _entry(
    checkpoint: str, protocol: dict[str, Any], found: Findings, file: Path | None
) -> dict[str, Any]:
    """What a result says of one evaluation, whose outcomes go to `file`."""
    entry = {
        "content_key": content_key({"checkpoint": checkpoint, "protocol": protocol}),
        "protocol": protocol,
        "metrics": found.metrics,
        "outcomes": None if file is None else f"{file.parent.name}/{file.name}",
    }
    invariants.check(entry)
    if file is not None:
        arrays = npz(found.outcomes)
        write_atomic(file, arrays)
        entry[OUTCOMES] = hashlib.sha256(arrays).hexdigest()
    return entry


def _evaluate_form(
    model: TwoTower,
    data: DataSet,
    config: RunConfig,
    runtime: Runtime,
    checkpoint_sha256: str,
    out: Path,
    form: DeployedForm,
) -> dict[str, Any]:
    """The entry of a deployed form, or the reason why there is none.

    It has the numbers that towers give, with outcomes of its own, the files that were scored, and
    how their 8 bits were chosen.  The forms are kept beside `out`.
    """
    settings = config.evaluate
    try:
        built = build(form, model, checkpoint_sha256, data, settings, runtime, out.parent / FORMS)
        deployed = built.load(model, runtime.threads)
        identity = built.identity(deployed, model)
        job = Job(deployed, settings, runtime, Findings())
        protocol = {
            **protocol_head(settings, job.precision),
            **_sections(job, data, config, out, lambda: identity),
        }
        file = out / f"{config.form_key(form)}.npz"
        entry = _entry(identity.checkpoint, protocol, job.found, file)
    except (ConfigError, DataError, InvariantError, RecordError) as error:
        return {"hole": one_line(error)}
    files = {tower: dict(told) for tower, told in built.files.items()}
    return {**entry, "files": files, "recipe": dict(built.recipe)}


def _keep(
    before: Mapping[str, Any],
    stale: Mapping[str, Any],
    file: Path,
    protocol: dict[str, Any],
    found: Findings,
) -> None:
    """Put the numbers and outcomes of an earlier evaluation in the place of those found now.

    `stale` are those that it lacks.

    Raises DataError when they are of other pictures, so that nothing can be added to them, and
    RecordError when they are damaged.
    """
    found.metrics |= {
        name: metric
        for name, metric in before["metrics"].items()
        if name not in stale and (metric["value"] is not None or name not in found.metrics)
    }
    protocol["metrics"] = {**before["protocol"]["metrics"], **protocol["metrics"]}
    kept = _kept_arrays(file, before.get(OUTCOMES))
    for name, items in kept.items():
        if "/items" in name and not np.array_equal(items, found.outcomes.get(name, np.empty(0))):
            raise DataError(
                f"{name} of the earlier evaluation is of other pictures, so that nothing can be "
                "added to it; --rerun all makes the run anew"
            )
    found.outcomes |= {name: kept[name] for name in kept if name not in stale}


def _kept_arrays(file: Path, sha256: str | None) -> dict[str, np.ndarray]:
    """The outcomes of an earlier evaluation by today's names; RecordError for damaged ones."""
    try:
        kept = read_npz(file, sha256)
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{file} cannot be added to ({error}); restore it, or --rerun all makes the run anew"
        ) from None
    return {name: kept[was] for name, was in array_names(kept).items()}


# --------------------------------------------------------------------------- kept by themselves


def _evaluate_parts(job: Job, identity_of: Callable[[], Identity], out: Path) -> dict[str, Any]:
    """Every class folder, and every benchmark of the suites; their sections of the protocol."""
    settings, runtime = job.settings, job.runtime
    if not settings.class_folders and not benchmarks_of(settings.suites):
        return {"class_folders": {}}
    identity = identity_of()

    def part_of(place: FoundTestSet) -> Part:
        made = evaluate_part(job.model, identity, place, settings, runtime, out, job.share)
        job.found.metrics |= {name: dict(metric) for name, metric in made.metrics.items()}
        job.found.outcomes |= made.arrays()
        return made

    folders = {
        folder.name: dict(part_of(class_set(folder, runtime)).protocol)
        for folder in settings.class_folders
    }
    part: Part | Hole
    parts: dict[str, Part | Hole] = {}
    for found in located(settings, runtime.data_root):
        try:
            part = found if isinstance(found, Hole) else part_of(place_of(found, runtime))
        except DataError as error:
            part = Hole(found.benchmark, one_line(error))
        parts[found.benchmark.name] = part
    metrics, sections = combine(settings.suites, parts)
    job.found.metrics |= metrics
    return {"class_folders": folders, **sections}


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
    override = job.settings.templates
    classifiers = with_weights(job, [(task, override or task.templates) for task in tasks])
    data.prepare()
    scored = {name: _score_split(job, data, name, classifiers) for name in splits}
    own_suites = measure_own_suites(job, data, scored, classifiers)
    return {
        "splits": {name: _facts(name, each) for name, each in scored.items()},
        "tasks": {each.task.name: task_protocol(each) for each in classifiers},
        **({"own_suites": own_suites} if own_suites else {}),
    }


def _score_split(
    job: Job, data: DataSet, name: str, classifiers: Sequence[TaskClassifier]
) -> Scored:
    tasks = {f"{name}/{each.task.name}": each for each in classifiers if applies(each.task, name)}
    return score(job, TestSet(name, data, name, tasks))


def _facts(name: str, scored: Scored) -> dict[str, Any]:
    answers = scored.answers.items()
    labelled = {place.removeprefix(f"{name}/"): len(found.labels) for place, found in answers}
    return {**scored.facts, "labelled": labelled}
