"""The trials of a search as a source of steps: who comes next, who shall stop, how each one ended.

A slot that frees gets a new trial at once.  What a run did is read from its own files, so neither
the runs nor the executor know of the search.  Whatever is decided is written down before it is
acted upon (ledger, then run, then study), so the controller may die between any two lines here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.config import canonical_json
from harness.config.searchspace import Dimension, Integers, Search, Uniform
from harness.config.sweep import Point, Run
from harness.errors import ConfigError, HarnessError, RecordError, one_line
from harness.launch.backlog import Backlog, Say, name_of
from harness.monitor.snapshot import sign
from harness.planning.plan import TRANSIENT, Action, Step, make_plan
from harness.search.study import Study
from harness.seeding import generator
from harness.store.record import RunDir, Store
from harness.store.state import State, Status
from harness.store.trials import (
    PRUNED,
    Ledger,
    Origin,
    Outcome,
    Trial,
    is_stopped,
    looks,
    objective_values,
)

LOOK_SECONDS = 0.25
"""Least time between two looks at the files of the running trials."""
_REPEATS = 3
"""Points in a row that were tried before, after which one is drawn at random instead."""
_DRAWS = 1_000
"""Random points, all of which were tried before, that show the space to be used up."""
_INVALID = 20
"""Points in a row that no run can have, after which the space is taken to be wrong."""
_CANCELLED = "cancelled"


class Trials:
    """A `Source`: the trials that are still to be made, one at a time.

    Args:
        run_of: the run at a point of the space; ConfigError if there can be none.
        points: to be tried before the sampler's own.
        finished: points whose runs are finished.
        running: is kept to hold the steps of the trials that this launch is to bring to their end.
        width: trials at a time at most, None for as many as are taken.
        processes: of each run, whose hours are counted one by one.
        changed: called when trials were begun or settled.
        mine: whether this controller still holds the search's lease.
    """

    def __init__(
        self,
        search: Search,
        ledger: Ledger,
        study: Study,
        store: Store,
        run_of: Callable[[Point], Run],
        say: Say,
        *,
        points: Sequence[Point] = (),
        finished: Sequence[Point] = (),
        running: list[Step] | None = None,
        width: int | None = None,
        processes: int = 1,
        changed: Callable[[], None] = lambda: None,
        mine: Callable[[], bool] = lambda: True,
    ) -> None:
        self._search, self._ledger, self._study = search, ledger, study
        self._store, self._run_of, self._say = store, run_of, say
        self._width, self._processes = width, processes
        self._changed, self._mine = changed, mine
        self._backlog = Backlog([], store, say)
        self._points: deque[Point] = deque([*finished, *points])
        self._own_points = {canonical_json(point) for point in points}
        self._steps: dict[int, Step] = {}
        self._running = [] if running is None else running
        self._handed: set[str] = set()
        self._seen: dict[int, object] = {}
        self._repeats = self._invalid = 0
        self._exhausted = self._lost = self._unnoticed = False
        self._next_look = self._spent = 0.0
        self.problem: str | None = None
        """Why no more trials are begun, though there are some left."""

    def take_up(self) -> None:
        """Go on with what earlier controllers left: trials not over, asked for, or finished."""
        for number, point in self._study.untold.items():
            self._begin(number, point)
        for trial in [trial for trial in self._ledger if not trial.over]:
            if trial.number not in self._steps:
                self._go_on(trial)
        while self._points:
            first = self._points[0]
            key = self._key(first)
            if key is None or not self._store.run_dir(key).result_file.exists():
                break
            self._points.popleft()
            if self._ledger.of_key(key) is None:
                self._begin(self._study.insert(first, key), first)

    # ---------------------------------------------------------------- as a source

    def __len__(self) -> int:
        return 0 if self._lost else len(self._backlog) + self._left()

    def take(self) -> Step | None:
        """The next trial, on record before it is handed out; None if there is none now."""
        if self._lost:
            return None
        step = self._backlog.take()
        try:
            while step is None and self._may_begin():
                self._begin_next()
                step = self._backlog.take()
        except OSError as error:
            self._give_up(error)
        if step is not None:
            self._handed.add(step.run.key)
        return step

    def held(self, step: Step) -> None:
        """Another launcher runs it: its files are looked at until it has ended."""
        self._handed.discard(step.run.key)
        self._backlog.held(step)

    def ended(self, step: Step, failure: str | None) -> None:
        """The run ended; one that was killed comes up once more before the trial is settled."""
        self._handed.discard(step.run.key)
        stopped = self._store.run_dir(step.run.key).stop_requested() is not None
        if failure is not None and not stopped:
            self._backlog.ended(step, failure)
        if step.run.key not in self._backlog:
            self._settle_step(step)

    def look_elsewhere(self) -> None:
        """Read the progress of the running trials and stop those that fall behind."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        if not self._lost and not self._mine():
            self._lost = True
            self.problem = "another controller has taken the search over"
            self._say(f"{self.problem}: this one was silent for too long, and leaves it alone")
        self._backlog.look_elsewhere()
        for number, step in list(self._steps.items()):
            if self._follow(number, step):
                self._prune(step)
            key = step.run.key
            if key not in self._handed and key not in self._backlog:
                self._settle_step(step)
        self._spent = self.hours()
        if self._unnoticed and not self._lost:
            self._unnoticed = False
            self._changed()

    # ---------------------------------------------------------------- budget

    @property
    def counted(self) -> int:
        """Trials begun that the search was to make: no free ones and no repeats."""
        return sum(trial.counts for trial in self._ledger)

    def hours(self) -> float:
        """Hours of training spent on the trials, the running ones included; 0 without a limit."""
        if self._search.gpu_hours is None:
            return 0.0
        over = sum(trial.seconds for trial in self._ledger)
        running = [self._store.run_dir(step.run.key) for step in self._steps.values()]
        return (over + sum(self._seconds(run, run.status()) for run in running)) / 3600

    def _left(self) -> int:
        """Trials that may still be begun; 1 stands for as many as the hours allow."""
        if self.problem is not None or self._exhausted:
            return 0
        if self._search.gpu_hours is not None and self._spent >= self._search.gpu_hours:
            return 0
        if self._search.trials is None:
            return 1
        return max(0, self._search.trials - self.counted)

    def _may_begin(self) -> bool:
        full = self._width is not None and len(self._steps) >= self._width
        return not full and self._left() > 0

    # ---------------------------------------------------------------- beginning a trial

    def _begin_next(self) -> None:
        while self._points:
            point = self._points.popleft()
            key = self._key(point)
            if key is None or self._ledger.of_key(key) is None:
                self._begin(self._study.insert(point, key), point)
                return
        if self._repeats < _REPEATS:
            self._begin(*self._study.ask())
            return
        drawn = self._untried()
        if drawn is None:
            self._exhausted = True
            self._say("every point of the space that was drawn has been tried: no more are begun")
        else:
            self._begin(self._study.insert(drawn, self._key(drawn)), drawn)

    def _begin(self, number: int, point: Point) -> None:
        """Put a trial on record, and its run in line unless it is settled already."""
        try:
            run = self._run_of(point)
        except ConfigError as error:
            trial = Trial(number, "", dict(point), self._origin(point))
            self._settle(trial, Outcome.FAILED, failure=error.failure, why=str(error))
            self._invalid += 1
            if self._invalid >= _INVALID and self.problem is None:
                self.problem = f"{_INVALID} points in a row cannot be run; the last: {error}"
            return
        self._invalid = 0
        trial = Trial(number, run.key, dict(point), self._origin(point))
        first = self._ledger.of_key(run.key)
        if first is not None:
            self._repeats += 1
            self._settle(trial, Outcome.REPEAT, why=f"the run of trial {first.number}")
            return
        self._repeats = 0
        step = make_plan([run], self._store)[0]
        if step.action in {Action.SKIP, Action.EVALUATE}:
            trial = replace(trial, origin=Origin.FREE)
        self._ledger.write(trial)
        self._study.note(number, run.key)
        self._line_up(trial, step)

    def _go_on(self, trial: Trial) -> None:
        """Take up a trial that an earlier controller began."""
        step = make_plan([self._run_of(trial.point)], self._store)[0]
        self._line_up(trial, step, stopped=is_stopped(self._store.run_dir(trial.key), step.status))

    def _line_up(self, trial: Trial, step: Step, *, stopped: bool = False) -> None:
        self._unnoticed = True
        self._steps[trial.number] = step
        self._running.append(step)
        if stopped or not step.pending:
            self._settle_step(step)
        else:
            self._backlog.add(step)

    def _origin(self, point: Point) -> Origin:
        return Origin.POINT if canonical_json(point) in self._own_points else Origin.SAMPLER

    def _key(self, point: Point) -> str | None:
        """The run at a point; None if there can be none."""
        try:
            return self._run_of(point).key
        except ConfigError:
            return None

    def _untried(self) -> Point | None:
        """A point that no trial had, drawn at random; None if there seems to be none."""
        draws = generator("untried", self._search.seed, len(self._ledger))
        for _ in range(_DRAWS):
            point = {path: _draw(d, draws) for path, d in self._search.space.items()}
            key = self._key(point)
            if key is not None and self._ledger.of_key(key) is None:
                return point
        return None

    # ---------------------------------------------------------------- while it runs

    def _follow(self, number: int, step: Step) -> bool:
        """Report what the run has evaluated since the last time; whether it fell behind."""
        directory = self._store.run_dir(step.run.key)
        stamp = sign(directory.progress_file)
        if self._search.pruner is None or self._lost or stamp in {None, self._seen.get(number)}:
            return False
        goal = self._search.goals[0]
        try:
            verdicts = [
                self._study.report(number, look.value_of(goal), look.samples_seen)
                for look in looks(directory)
            ]
        except OSError as error:
            self._give_up(error)
            return False
        except HarnessError as error:
            self._say(f"{name_of(step)} cannot be followed: {one_line(error)}")
            return False
        self._seen[number] = stamp
        return any(verdicts)

    def _prune(self, step: Step) -> None:
        try:
            self._store.run_dir(step.run.key).request_stop(PRUNED)
        except OSError as error:
            self._give_up(error)

    # ---------------------------------------------------------------- how it ended

    def _settle_step(self, step: Step) -> None:
        """Write down and tell how a trial ended, if it has; else it is left for another command."""
        number = next(n for n, other in self._steps.items() if other is step)
        trial = self._ledger.trials[number]
        directory = self._store.run_dir(trial.key)
        del self._steps[number]
        self._running.remove(step)
        self._follow(number, step)
        ended: Mapping[str, Any] | None
        try:
            status = directory.status(step.run.config.evaluation_key)
            ended = self._how(directory, status, step)
        except RecordError as error:
            ended = {"outcome": Outcome.FAILED, "failure": error.failure, "why": one_line(error)}
            status = Status(State.FAILED)
        if ended is None:
            self._say(f"trial {number}, {name_of(step)}, {status.how}: left to another command")
            return
        seconds = 0.0 if trial.origin is Origin.FREE else self._seconds(directory, status)
        self._settle(replace(trial, samples_seen=status.samples_seen, seconds=seconds), **ended)
        self._spent = self.hours()

    def _seconds(self, directory: RunDir, status: Status) -> float:
        """Seconds of training, over all attempts and processes."""
        result = directory.result()
        told = (status.details or {}) if result is None else result["training"]
        return float(told.get("seconds", 0.0)) * self._processes

    def _how(self, directory: RunDir, status: Status, step: Step) -> Mapping[str, Any] | None:
        """Outcome and what belongs to it; None for a run that is not over."""
        if status.state is State.DONE:
            key, goals = step.run.config.evaluation_key, self._search.goals
            values = objective_values(directory.finished(), key, goals)
            return {"outcome": Outcome.COMPLETE, "values": values}
        if is_stopped(directory, status):
            if directory.stop_requested() == PRUNED:
                return {"outcome": Outcome.PRUNED}
            why = "stopped by request"
            return {"outcome": Outcome.FAILED, "failure": _CANCELLED, "why": why}
        if status.state is State.FAILED and status.failure not in TRANSIENT:
            failure = status.failure or "bug"
            return {"outcome": Outcome.FAILED, "failure": failure, "why": status.error}
        return None

    def _settle(self, trial: Trial, outcome: Outcome, **more: Any) -> None:
        trial = replace(trial, outcome=outcome, **more)
        if self._lost:
            return
        try:
            self._ledger.write(trial)
            self._study.tell(trial)
        except OSError as error:
            self._give_up(error)
        if outcome is not Outcome.REPEAT:
            self._say(self._line(trial))

    def _line(self, trial: Trial) -> str:
        how = trial.outcome.value
        if trial.values is not None:
            goals = zip(self._search.goals, trial.values, strict=True)
            how = ", ".join(f"{goal} {value:.4g}" for goal, value in goals)
        elif trial.outcome is Outcome.PRUNED:
            how = f"pruned at {trial.samples_seen:,} samples"
        elif trial.why is not None:
            how = f"failed ({trial.failure}): {trial.why}"
        free = " (free)" if trial.origin is Origin.FREE else ""
        wanted = "" if self._search.trials is None else f" of {self._search.trials}"
        return f"trial {trial.number}{free}: {how}; {self.counted}{wanted} begun"

    def _give_up(self, error: OSError) -> None:
        """The records cannot be written: begin nothing more; what runs is read by a later command.

        The ledger may lag behind the runs from here on and never contradicts them.
        """
        if self.problem is None:
            self.problem = one_line(error)
            self._say(f"the search cannot be written down ({self.problem}): no more are begun")


def _draw(dimension: Dimension, draws: Any) -> Any:
    """A random value of a dimension, without regard to its logarithm."""
    if isinstance(dimension, Uniform):
        return float(draws.uniform(dimension.low, dimension.high))
    if isinstance(dimension, Integers):
        steps = (dimension.high - dimension.low) // dimension.step
        return dimension.low + dimension.step * int(draws.integers(steps + 1))
    return dimension.options[int(draws.integers(len(dimension.options)))]
