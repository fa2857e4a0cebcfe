"""Every name of a sweep, looked up before anything is queued; and the fingerprints of files.

Torch-free: what needs a model or a decoded picture is checked by `harness.run.preflight`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from harness.config import (
    BenchmarkData,
    ClassFolder,
    ImageTower,
    RunConfig,
    Runtime,
    check_processes,
    override,
)
from harness.config.sweep import Run, Show
from harness.data.catalog import notes_on, open_class_folder, open_data
from harness.data.dataset import DataSet
from harness.errors import ConfigError, unknown
from harness.evaluate.suites import SUITES, benchmarks_of
from harness.evaluate.suites.find import Found, Hole, find
from harness.loggers import check_loggers
from harness.metrics import (
    OF_TOWERS,
    benchmark_metrics,
    headline_metrics,
    known_metrics,
    match_metrics,
    match_primary,
    metrics_of_suites,
    metrics_of_terms,
    suite_mean_name,
)
from harness.models.names import backbone_names
from harness.models.pretrained import weights_sha256
from harness.models.teachers import with_teacher_files


def finisher(runtime: Runtime) -> Callable[[RunConfig], RunConfig]:
    """A function that puts the fingerprints of the data and weights into a configuration.

    The function raises ConfigError or DataError when a file cannot be opened, or is not the one
    that the configuration was made for.
    """

    def finish(config: RunConfig) -> RunConfig:
        data = open_data(config.data, runtime)
        folders = tuple(_with_fingerprint(f, runtime) for f in config.evaluate.class_folders)
        return override(
            config,
            {
                "model.image.pretrained_sha256": _weights(config.model.image),
                "data.fingerprint": data.fingerprint,
                "evaluate.fingerprint": data.evaluation_fingerprint,
                "evaluate.class_folders": folders,
                "evaluate.benchmarks": _benchmarks(config.evaluate.suites, runtime),
                **with_teacher_files(config),
            },
        )

    return finish


def _weights(image: ImageTower) -> str | None:
    if image.pretrained is None:
        return image.pretrained_sha256
    return weights_sha256(image.pretrained, image.pretrained_sha256)


def _with_fingerprint(folder: ClassFolder, runtime: Runtime) -> ClassFolder:
    return folder.model_copy(update={"fingerprint": open_class_folder(folder, runtime).fingerprint})


def _benchmarks(suites: Sequence[str], runtime: Runtime) -> tuple[BenchmarkData, ...]:
    """The data sets of `suites` as they are on disk now."""
    places = [_find(benchmark, runtime.data_root) for benchmark in benchmarks_of(suites)]
    return tuple(
        BenchmarkData(
            name=place.benchmark.name,
            fingerprint=place.fingerprint if isinstance(place, Found) else None,
        )
        for place in places
    )


_find = lru_cache(maxsize=256)(find)


def holes(runs: Sequence[Run], runtime: Runtime) -> list[str]:
    """One line for each benchmark of the suites of `runs` that is not on disk."""
    suites = dict.fromkeys(suite for run in runs for suite in run.config.evaluate.suites)
    places = [_find(benchmark, runtime.data_root) for benchmark in benchmarks_of(suites)]
    return [str(place) for place in places if isinstance(place, Hole)]


def notes_on_runs(runs: Sequence[Run], runtime: Runtime) -> list[str]:
    """What a user must know of the data of `runs` and of their warm-up, a line each."""
    datas = dict.fromkeys(run.config.data for run in runs)
    folders = dict.fromkeys(f for run in runs for f in run.config.evaluate.class_folders)
    opened = [open_data(data, runtime) for data in datas]
    opened += [open_class_folder(folder, runtime) for folder in folders]
    notes = [f"{data.name}: {note}" for data in opened for note in notes_on(data, runtime)]
    taught = {(c.teacher, c.train, c.data): c for c in (run.config for run in runs)}
    notes += [note for config in taught.values() for note in _views_note(config, runtime)]
    lengths = dict.fromkeys((c.warmup_samples, c.samples) for c in (r.config.train for r in runs))
    return notes + [_warm_up_note(*each) for each in lengths if each[0] > each[1]]


def _warm_up_note(warm_up: int, samples: int) -> str:
    return (
        f"train.warmup_samples = {warm_up:,} is more than train.samples = {samples:,}: the "
        "learning rate is still rising when a run ends, and never reaches its peak"
    )


def _views_note(config: RunConfig, runtime: Runtime) -> list[str]:
    """That crops are seen again, where fewer views are stored than there are epochs."""
    views = config.teacher.views
    if views is None or "teacher" in config.idle():
        return []
    epochs = config.train.samples / len(open_data(config.data, runtime).split("train"))
    if epochs <= views:
        return []
    return [f"teacher.views = {views}: the crops of {views} epochs are seen again in {epochs:.1f}"]


def check_runs(runs: Sequence[Run], show: Show, runtime: Runtime) -> Show:
    """`show` with the names of the metrics that it means on the data of `runs`.

    Its primary metric is among those shown, and so are those of the loss's terms and the own suites
    that are on.

    Raises ConfigError or DataError unless every run can be trained and has a metric to show, and
    the primary metric is one and the same for all.
    """
    patterns = list(show.metrics)
    shown: dict[str, None] = {}
    primary: dict[str, None] = {}
    every: dict[str, None] = {}
    always: dict[str, None] = {}
    configs = {(c.data, c.evaluate, tuple(c.objective.active)): c for c in (r.config for r in runs)}
    known_backbones = backbone_names()
    for backbone in dict.fromkeys(run.config.model.image.backbone for run in runs):
        if backbone not in known_backbones:
            raise ConfigError(unknown("backbone", backbone, known_backbones))
    for config in configs.values():
        opened, terms = open_data(config.data, runtime), config.objective.active
        known = known_metrics(opened, config.evaluate, terms)
        asked_for = [
            *metrics_of_terms(opened, config.evaluate, terms),
            *metrics_of_suites(opened, config.evaluate),
        ]
        always |= {
            f"{name.rpartition('/')[0]}/{kind}": None
            for name, metric in asked_for
            if metric.shown
            for kind in (*metric.beside, metric.kind)
        }
        of_suites, judged_by = _suite_metrics(config.evaluate.suites)
        named = [p for p in patterns if "*" not in p and p in of_suites]
        others = [p for p in patterns if p not in named]
        every |= dict.fromkeys([*known, *of_suites])
        matched = match_metrics(others, [*known, *judged_by])
        shown |= dict.fromkeys([*matched, *judged_by, *named])
        if show.primary is not None:
            of_suite = [show.primary] if show.primary in of_suites else []
            found = match_primary(show.primary, [*known, *judged_by, *of_suite])
            primary[found] = None
    check_loggers(runtime)
    for train in dict.fromkeys(run.config.train for run in runs):
        check_processes(train, runtime)
    for data, batch_size in dict.fromkeys((r.config.data, r.config.train.batch_size) for r in runs):
        _check_batch(open_data(data, runtime), batch_size)
    if len(primary) > 1:
        raise ConfigError(
            f"primary = {show.primary!r} is {len(primary)} metrics: {', '.join(primary)}"
        )
    metrics = tuple(shown | primary | always)
    resolved = replace(show, metrics=metrics, primary=next(iter(primary), None))
    if show.columns is None:
        return resolved
    return replace(resolved, columns=_columns(show.columns, every))


def _columns(columns: Sequence[str], every: Iterable[str]) -> tuple[str, ...]:
    """The columns that `columns` name, patterns resolved; ConfigError for one that is not there."""
    try:
        return tuple(match_metrics(columns, [*every, *OF_TOWERS]))
    except ConfigError as error:
        raise ConfigError(f"columns: {error}") from None


def _suite_metrics(suites: Sequence[str]) -> tuple[set[str], list[str]]:
    """Every metric of the suites, and those that a table shows: one a benchmark, and the means.

    A pattern stands for the latter alone: no set is shown by what it is not judged by.
    """
    members = benchmarks_of(suites)
    means = [suite_mean_name(name) for name in suites if name in SUITES]
    every = {name for benchmark in members for name in benchmark_metrics(benchmark)}
    shown = [name for benchmark in members for name in headline_metrics(benchmark)]
    return every | set(means), [*shown, *means]


def _check_batch(data: DataSet, batch_size: int) -> None:
    pairs = len(data.split("train"))
    if batch_size > pairs:
        raise ConfigError(
            f"train.batch_size = {batch_size} is more than the {pairs} training pictures "
            f"of data set {data.name}"
        )
