"""Which runs of a sweep are due now: its grid, its points times its seeds, or the seeds of a look.

A wave is a function of the sweep and of what is on record, so a command that was killed, another
one beside it and a job on another machine all find the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.config import RunConfig, Runtime, canonical_json
from harness.config.sweep import Point, Run, Sweep, expand, refuse_clash
from harness.errors import HarnessError, SweepError
from harness.launch.check import check_runs
from harness.planning.selection import Selection, only_validated, select_by, tuning_sweep
from harness.store.manifest import manifest_names, read_manifest
from harness.store.record import Store
from harness.store.state import State
from harness.store.trials import TELLING

_REPORTED = ("evaluate.splits", "evaluate.suites", "evaluate.class_folders")


class NothingChosen(HarnessError):
    """Every combination of the nuisance parameters failed at some point."""

    exit_code = 3


@dataclass(frozen=True)
class Wave:
    """Runs that may be under way together.

    Attributes:
        sweep: that they are of, its metrics resolved.
        title: what this wave is for; empty for a sweep that has but one.
        later: the runs that may come after them, at most; what is yet to be chosen is the base's.
    """

    sweep: Sweep
    runs: Sequence[Run]
    title: str = ""
    later: Sequence[Run] = ()


@dataclass(frozen=True)
class Waves:
    """How the runs of a sweep follow from each other.

    Attributes:
        base, overrides, finish: of `expand`.
    """

    sweep: Sweep
    store: Store
    runtime: Runtime
    base: RunConfig
    overrides: Mapping[str, object]
    finish: Callable[[RunConfig], RunConfig]

    def now(self) -> Wave:
        """The wave that is under way, to be begun, or was the last one.

        Raises:
            ConfigError, SweepError, DataError: a run of it cannot be made.
            NothingChosen: a point has no combination left.
        """
        sweep = self.sweep
        if not sweep.nuisance:
            return self._report_wave(None)
        refuse_clash(sweep, self.overrides)
        grid = replace(tuning_sweep(sweep), base=only_validated(self.base))
        kept = {path: v for path, v in self.overrides.items() if path not in _REPORTED}
        runs = self._expand(grid, grid.base, kept)
        grid = replace(grid, show=check_runs(runs, grid.show, self.runtime))
        sweep = replace(sweep, tune_on=grid.show.metrics[0])
        selection = select_by(sweep, runs, self.store)
        if selection.waiting:
            title = f"grid of {' x '.join(sweep.nuisance)}, chosen on {sweep.tune_on}"
            later = self._expand(sweep, self.base, self.overrides, sweep.seed_order)
            return Wave(grid, runs, title, later)
        self._check_chosen(selection)
        return self._report_wave(selection)

    @property
    def is_one(self) -> bool:
        """Whether nothing ever follows the first wave."""
        return not self.sweep.nuisance and not self.sweep.look_counts

    def check_seeds(self) -> None:
        """SweepError where more seeds have run than the looks come to."""
        looks, name = self.sweep.look_counts, self.sweep.name
        if not looks or name not in manifest_names(self.store):
            return
        ran: dict[str, int] = {}
        for run in read_manifest(self.store, name).runs:
            done = self.store.run_dir(run.key).result_file.exists()
            ran[run.label] = ran.get(run.label, 0) + done
        label = max(ran, key=lambda each: ran[each])
        if ran[label] > looks[-1]:
            raise SweepError(
                f"until = {looks[-1]}: {ran[label]} seeds of {label} have run already, and what "
                f"was seen cannot be unseen; --max-seeds {ran[label]} or more is wanted"
            )

    def _report_wave(self, selection: Selection | None) -> Wave:
        sweep, counts = self.sweep, self.sweep.look_counts
        chosen = (lambda point: {}) if selection is None else selection.chosen
        every = self._expand(sweep, self.base, self.overrides, sweep.seed_order, chosen)
        sweep = replace(sweep, base=self.base, show=check_runs(every, sweep.show, self.runtime))
        if not counts:
            return Wave(sweep, every, "" if selection is None else "fresh seeds")
        seeds = {canonical_json(point): sweep.seed_order[: counts[0]] for point in sweep.points}
        while True:
            runs = [run for run in every if run.seed in seeds[canonical_json(run.point)]]
            look = max(map(len, seeds.values()))
            title = f"look {counts.index(look) + 1} of {len(counts)}, {look} seeds"
            keys = {run.key for run in runs}
            wave = Wave(sweep, runs, title, [run for run in every if run.key not in keys])
            grown = None if not all(map(self._is_over, runs)) else self._grown(wave, seeds)
            if grown is None:
                return wave
            seeds = grown

    def _grown(self, wave: Wave, seeds: Mapping[str, list[int]]) -> dict[str, list[int]] | None:
        """The seeds that each point is to have after a look; None where all is decided."""
        from harness.results.collect import collect
        from harness.results.findings import course_of

        found = collect(wave.sweep, wave.runs, self.store)
        course = course_of(found)
        if course is None or course.over:
            return None
        wanted = {
            canonical_json(found.of_point(point)[0].run.point): list(own)
            for point, own in course.wanted.items()
        }
        return None if wanted == seeds else wanted

    def _is_over(self, run: Run) -> bool:
        status = self.store.run_dir(run.key).status(run.config.evaluation_key)
        failed = status.state is State.FAILED and status.failure in TELLING
        return failed or status.state is State.DONE

    def _expand(
        self,
        sweep: Sweep,
        base: RunConfig,
        overrides: Mapping[str, object],
        seeds: Sequence[int] | None = None,
        chosen: Callable[[Point], Point] = lambda point: {},
    ) -> list[Run]:
        return expand(
            sweep,
            base=base,
            overrides=overrides,
            seeds=seeds,
            finish=self.finish,
            finished=self.store.finished_config,
            chosen=chosen,
        )

    def _check_chosen(self, selection: Selection) -> None:
        for choice in selection.choices.values():
            if choice.best is None:
                failed = sorted({why for each in choice.tried for why in each.failed.values()})
                raise NothingChosen(
                    f"{dict(choice.point)}: every combination of {', '.join(self.sweep.nuisance)} "
                    f"failed ({', '.join(failed)}), so there is none to choose; widen the grid"
                )
