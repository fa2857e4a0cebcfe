"""The half of `python -m harness.sweep` that searches: check, go on, confirm, report.

The same command finishes what an earlier one left, however that one ended.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from harness import metrics
from harness.config import VALIDATION, RunConfig, Runtime, field_paths, override, override_runtime
from harness.config.searchspace import Search, check_pruner, check_search
from harness.config.sweep import (
    Point,
    Points,
    Run,
    Show,
    Sweep,
    expand,
    matches,
    refuse_clash,
    value_at,
)
from harness.errors import ConfigError, InterruptedRun, RecordError, SweepError, unknown
from harness.launch.backlog import Backlog
from harness.launch.check import check_runs, finisher, notes_on_runs
from harness.launch.executor import Executor
from harness.launch.preview import print_lines
from harness.launch.processes import stop_on_signals
from harness.launch.slots import Capacity
from harness.metrics import known_metrics
from harness.monitor.terminal import watching
from harness.planning.plan import Step, make_plan
from harness.search.preview import print_search
from harness.store.lease import Lease
from harness.store.manifest import write_manifest
from harness.store.record import Store
from harness.store.trials import Ledger, best_trials

if TYPE_CHECKING:
    from harness.search.source import Trials

MANIFEST_SECONDS = 5.0
"""Least time between two manifests of a search that is going on."""
CONFIRMED = "_confirmed"
"""What the name of a search ends in where its confirmation is meant, an ordinary sweep."""

#: Fields that do not decide what an objective comes to, or say it twice.
_NO_DEFINITION = (
    "data.path",
    "model.image.pretrained",
    "model.text.init",
    "evaluate.splits",
    "evaluate.class_folders",
)


@dataclass(frozen=True)
class SearchJob:
    """What the command line and the sweep file ask for."""

    sweep: Sweep
    base: RunConfig
    overrides: Mapping[str, object]
    runtime: Runtime
    executor: Executor
    words: Sequence[str]
    dry_run: bool = False
    report_only: bool = False

    @property
    def store(self) -> Store:
        """Where the runs are."""
        return self.executor.work.store

    @property
    def capacity(self) -> Capacity:
        """What of any number of trials is under way at a time."""
        return self.executor.capacity(sys.maxsize)


def run_search(job: SearchJob) -> int:
    """Search, confirm and report; the exit code."""
    plan = SearchPlan.of(job)
    ledger = Ledger.of(job.store, job.sweep.name)
    plan.check_definition(ledger)
    if not job.report_only:
        executor = job.executor
        executor.work = replace(executor.work, runtime=plan.runtime)
        print_search(plan.search, plan.base, ledger, job.capacity)
        print_lines("note", notes_on_runs(plan.probes()[:1], plan.runtime))
        if job.dry_run:
            _print_script(job, plan)
            return 0
        stop = executor.stop
        with Lease(ledger.lease_file) as lease, stop_on_signals(stop):
            ledger = Ledger.of(job.store, job.sweep.name)
            left = _launch(job, plan, ledger, lease)
        if stop.asked:
            return InterruptedRun.exit_code
        if left:
            print(f"{left}; the same command goes on", file=sys.stderr)
    return _report(job, plan, ledger)


def _print_script(job: SearchJob, plan: SearchPlan) -> None:
    script = job.executor.script(make_plan(plan.probes()[:1], job.store))
    if script is not None:
        print(f"\n{script}")


# --------------------------------------------------------------------------- what is searched


@dataclass(frozen=True)
class SearchPlan:
    """A search whose every name was looked up."""

    sweep: Sweep
    search: Search
    base: RunConfig
    """Of every trial, with the seed of the trials and the fingerprints of the data."""
    runtime: Runtime
    """With the rungs of the pruner."""
    finish: Callable[[RunConfig], RunConfig]
    finished: Callable[[str], RunConfig]

    @classmethod
    def of(cls, job: SearchJob) -> SearchPlan:
        """Check the search as far as can be without starting anything.

        Raises:
            ConfigError, SweepError, DataError: it cannot be begun; one line says why.
        """
        sweep, search = job.sweep, job.sweep.search
        assert search is not None
        seeds = list(sweep.seeds)
        if len(seeds) != 1:
            raise SweepError(f"seeds = {seeds}: the trials of a search have one seed in common")
        refuse_clash(sweep, job.overrides)
        base = override(job.base, {**job.overrides, "seed": seeds[0]})
        splits = base.evaluate.splits
        if VALIDATION not in splits:
            base = override(base, {"evaluate.splits": (VALIDATION, *splits)})
        check_search(search, base, sweep.points)
        check_pruner(search, base)
        runtime = override_runtime(job.runtime, {"validate_at": search.rungs(base)})
        finish = finisher(runtime)
        plan = cls(sweep, search, finish(base), runtime, finish, job.store.finished_config)
        return replace(plan, sweep=replace(sweep, show=plan.check_metrics(sweep.show)))

    def check_metrics(self, show: Show) -> Show:
        """`show` with the names of its metrics, the split that is selected on left out."""
        from harness.data.catalog import open_data

        data, base = open_data(self.base.data, self.runtime), self.base
        known = known_metrics(data, base.evaluate, base.objective.active)
        for goal in self.search.goals:
            if goal not in known:
                possible = [m for m in known if m.startswith(VALIDATION) or metrics.is_cost(m)]
                raise ConfigError(f"no run reports it: {unknown('objective', goal, possible)}")
        show = check_runs(self.probes(), show, self.runtime)
        reported = [name for name in show.metrics if not name.startswith(f"{VALIDATION}/")]
        return replace(show, metrics=reported or show.metrics)

    def probes(self) -> list[Run]:
        """The base, and the base with each end or option of each field of the space."""
        points: list[Point] = [{}]
        for path, dimension in self.search.space.items():
            points += [{path: value} for value in dimension.ends()]
        configs = [self.finish(override(self.base, point)) for point in points]
        return [Run("probe", p, self.base.seed, c) for p, c in zip(points, configs, strict=True)]

    def run_of(self, point: Point) -> Run:
        """The run at a point; ConfigError if there can be none."""
        (run,) = self._expand([point], (self.base.seed,), Show(x=next(iter(point)), metrics=()))
        return run

    def confirmation(self, ledger: Ledger) -> tuple[Sweep, list[Run]] | None:
        """The best trials and the base with fresh seeds, as a sweep; None if there is no best."""
        best = best_trials(ledger, self.search.goals)
        if not best or not self.search.confirm:
            return None
        start = {path: value_at(self.base, path) for path in self.search.space}
        given = self.sweep.show.baseline
        if given is not None:
            start = next(dict(p) for p in self.sweep.points if matches(p, given))
        points = Points([start, *(trial.point for trial in best)])
        names = {f"trial {trial.number}": trial.point for trial in best}
        show = replace(self.sweep.show, baseline=start, names=names)
        if len(points) > len(best):
            show = replace(show, names={"base": start, **names})
        sweep = replace(
            self.sweep,
            search=None,
            points=points,
            seeds=tuple(self.search.confirm),
            show=show,
            name=self.sweep.name + CONFIRMED,
            question=f"With seeds that nothing was selected by: {self.sweep.question}",
        )
        return sweep, self._expand(points, self.search.confirm, show)

    def _expand(self, points: Sequence[Point], seeds: Sequence[int], show: Show) -> list[Run]:
        sweep = replace(self.sweep, search=None, points=Points(points), show=show)
        finished = self.finished
        runs = expand(sweep, base=self.base, seeds=seeds, finish=self.finish, finished=finished)
        if any(run.parents for run in runs):
            model, teacher = runs[0].config.model, runs[0].config.teacher
            raise ConfigError(
                f"model.text.init = {model.text.init!r}, teacher.models = {list(teacher.models)}: "
                "a search makes no parents; name a finished run: 'even of run KEY', 'run KEY'"
            )
        return runs

    # ---------------------------------------------------------------- on file

    def definition(self) -> dict[str, Any]:
        """What makes the results of two commands those of one study, flat, to be compared."""
        fixed = {
            f"base.{path}": value_at(self.base, path)
            for path in field_paths(RunConfig)
            if path not in self.search.space and path not in _NO_DEFINITION
        }
        given = self.search.definition()
        space = {f"space.{path}": text for path, text in given.pop("space").items()}
        # As they come back from a file, where a tuple is a list.
        return {**given, **space, **{p: _plain(value) for p, value in fixed.items()}}

    def about(self) -> dict[str, Any]:
        """The rest, so that a report can be made from the records alone."""
        search = self.search
        return {
            "name": self.sweep.name,
            "question": self.sweep.question,
            "fields": list(search.space),
            "space": {
                path: {"kind": type(d).__name__, **_plain(asdict(d))}
                for path, d in search.space.items()
            },
            "start": {path: _plain(value_at(self.base, path)) for path in search.space},
            "objectives": list(search.goals),
            "labels": dict(self.sweep.show.labels),
            "rungs": list(search.rungs(self.base)),
            "samples": self.base.train.samples,
            "seed": self.base.seed,
            "sampler": search.sampler,
            "trials": search.trials,
            "gpu_hours": search.gpu_hours,
            "confirm": list(search.confirm),
        }

    def check_definition(self, ledger: Ledger) -> None:
        """SweepError, with a diff, if the folder is of another search."""
        ledger.check(self.definition())

    def put_on_file(self, ledger: Ledger, words: Sequence[str], store: Store) -> None:
        """The manifest of the runs of all trials there are."""
        runs = [self.run_of(t.point) for t in ledger if ledger.of_key(t.key) is t]
        if runs:
            write_manifest(store, self.sweep, runs, self.runtime, words)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return value


def finished_points(plan: SearchPlan, store: Store) -> Iterator[Point]:
    """The points of the space whose runs are finished, whichever sweep made them."""
    for file in sorted(store.runs.glob("*/result.json")):
        directory = store.run_dir(file.parent.name)
        try:
            config = directory.read_config()
        except (RecordError, ConfigError):
            continue  # of another version, or edited: nothing is known of it
        if config.seed != plan.base.seed or config.data.fingerprint != plan.base.data.fingerprint:
            continue
        point = {path: _plain(value_at(config, path)) for path in plan.search.space}
        try:
            if plan.search.holds(point) and plan.run_of(point).key == directory.key:
                yield point
        except ConfigError:
            continue


# --------------------------------------------------------------------------- the launch


def _launch(job: SearchJob, plan: SearchPlan, ledger: Ledger, lease: Lease) -> str:
    """Make the trials and then the confirmation; what is left to do, in words, or nothing."""
    with job.executor as executor:
        probes = plan.probes()
        print(f"checking models and data at {len(probes)} points of the space")
        problems = executor.preflight([probe.config for probe in probes])
        if problems:
            raise ConfigError("; ".join(problems))
        ledger.define(plan.definition(), plan.about())
        left = _search(job, plan, ledger, executor, lease)
        if executor.stop.asked or left:
            return left
        return _confirm(job, plan, ledger, executor)


def _search(
    job: SearchJob, plan: SearchPlan, ledger: Ledger, executor: Executor, lease: Lease
) -> str:
    from harness.search.source import Trials
    from harness.search.study import Study

    study = Study(
        job.sweep.name,
        plan.search,
        ledger,
        job.store,
        plan.definition(),
        plan.base.train.samples,
    )
    points = list(finished_points(plan, job.store))
    running: list[Step] = []
    with watching(running, job.store) as say:
        trials = Trials(
            plan.search,
            ledger,
            study,
            job.store,
            plan.run_of,
            say,
            running=running,
            points=tuple(plan.sweep.points),
            finished=points,
            width=job.capacity.slots,
            processes=plan.runtime.processes,
            changed=_every_now_and_then(plan, ledger, job),
            mine=lease.is_mine,
        )
        trials.take_up()
        executor.launch(trials, say)
    plan.put_on_file(ledger, job.words, job.store)
    return _left_open(ledger, trials)


def _every_now_and_then(plan: SearchPlan, ledger: Ledger, job: SearchJob) -> Callable[[], None]:
    """Writes the manifest when called, but not so often that it would be felt."""
    next_time = 0.0

    def write() -> None:
        nonlocal next_time
        began = time.monotonic()
        if began >= next_time:
            plan.put_on_file(ledger, job.words, job.store)
            took = time.monotonic() - began
            next_time = began + max(MANIFEST_SECONDS, 50 * took)

    return write


def _left_open(ledger: Ledger, trials: Trials) -> str:
    left = [str(trial.number) for trial in ledger if not trial.over]
    parts = [trials.problem] if trials.problem is not None else []
    if left:
        parts.append(f"trials not settled: {', '.join(left)}")
    return "; ".join(parts)


def _confirm(job: SearchJob, plan: SearchPlan, ledger: Ledger, executor: Executor) -> str:
    made = plan.confirmation(ledger)
    if made is None:
        return ""
    sweep, runs = made
    pending = [step for step in make_plan(runs, job.store) if step.pending]
    write_manifest(job.store, sweep, runs, job.runtime, job.words)
    if pending:
        print(f"confirming {len(sweep.points)} points with seeds {list(plan.search.confirm)}")
        with watching(pending, job.store) as say:
            executor.launch(Backlog(pending, job.store, say), say)
    return ""


# --------------------------------------------------------------------------- the report


def _report(job: SearchJob, plan: SearchPlan, ledger: Ledger) -> int:
    from harness.report.folder import build
    from harness.report.search import build_search

    made = plan.confirmation(ledger)
    results = []
    if made is not None:
        sweep, runs = made
        results.append(build(sweep, runs, job.store, job.store.root / "reports" / sweep.name))
    folder = job.store.root / "reports" / job.sweep.name
    results.append(build_search(job.sweep.name, job.store, folder))
    print(f"report: {folder / 'report.html'}")
    return 0 if all(result.complete for result in results) else 3
