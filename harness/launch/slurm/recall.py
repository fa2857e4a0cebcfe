"""Runs that were handed to the scheduler called off, or handed to it once more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.config import Runtime
from harness.config.pipes import allow_pipes
from harness.config.sweep import Run
from harness.config.sweep_files import load_sweep, own_file
from harness.errors import ConfigError, RecordError, unknown, user_name
from harness.launch.backlog import Say
from harness.launch.profiles import load_profile
from harness.launch.slurm.orders import JobOrder, Submitted, with_processes
from harness.launch.slurm.places import Queue, QueuePlace, jobs_to_cancel, report_job_of, withdraw
from harness.launch.slurm.submissions import Intent, Submission, submissions
from harness.launch.slurm.submit import submit
from harness.planning.plan import Rerun, make_plan
from harness.store.manifest import Manifest
from harness.store.record import Store
from harness.store.state import State
from harness.store.trials import Ledger


def choose(manifest: Manifest, names: Sequence[str]) -> list[Run]:
    """The runs of the sweep whose keys begin so, each name with one."""
    keys = {run.key: run for run in manifest.runs}
    chosen: list[Run] = []
    for name in names:
        found = [key for key in keys if key.startswith(name)]
        if not found:
            raise RecordError(unknown("run", name, keys))
        if len(found) > 1:
            raise RecordError(f"{name!r} begins the keys of {len(found)} runs: {', '.join(found)}")
        chosen.append(keys[found[0]])
    return chosen


@dataclass
class CalledOff:
    """What came of a wish that runs stop, in numbers.

    Attributes:
        left: jobs that the scheduler may have still.
        others: user -> runs that are jobs of that user.
    """

    runs: int = 0
    jobs: int = 0
    left: int = 0
    others: Counter[int] = field(default_factory=Counter)

    @property
    def lines(self) -> list[str]:
        """All of it for a reader."""
        lines = [f"{self.runs} runs are called off, {self.jobs} jobs taken out of the queue"]
        if self.left:
            lines.append(
                f"{self.left} jobs may be in the queue still: a run of theirs ends as soon as it "
                "looks into its directory; the same command takes them out when the scheduler "
                "answers"
            )
        for user, count in self.others.items():
            name = user_name(user)
            lines.append(f"{count} runs are jobs of {name}, whom alone the scheduler obeys: ask")
        return lines

    @property
    def exit_code(self) -> int:
        """0 if all that was asked for was done, else 3."""
        return 3 if self.left or self.others else 0


def cancel(
    manifest: Manifest,
    names: Sequence[str],
    store: Store,
    find: Callable[[], Queue],
    say: Say,
    *,
    everything: bool,
) -> CalledOff:
    """Ask runs to stop, and take their jobs out of the queue: those whose numbers we have alone.

    Jobs of another user, and their runs, are left to that one.

    Args:
        find: asks what is in the queue.
        names: how the keys of the runs begin, unless `everything` of the sweep is meant.
    """
    if bool(names) == everything:
        raise ConfigError("--cancel wants the keys of runs, or --all")
    runs = list(manifest.runs) if everything else choose(manifest, names)
    queue = find()
    places = queue.places
    done = CalledOff()
    done.others.update(places[r.key].owner for r in runs if r.key in places)
    del done.others[-1]
    own = [run for run in runs if run.key not in places or places[run.key].owner == -1]
    asked = [run for run in own if _ask_to_stop(store, run, places)]
    done.runs = len(asked)
    jobs = jobs_to_cancel({run.key for run in asked}, places)
    if everything:
        for submission in queue.submissions:
            intent = submission.read()
            if intent.is_mine and intent.sweep == manifest.sweep.name:
                jobs.update(report_job_of(submission))
    done.jobs, done.left = withdraw(jobs, say)
    return done


def _ask_to_stop(store: Store, run: Run, places: Mapping[str, QueuePlace]) -> bool:
    directory = store.run_dir(run.key)
    state = directory.status(run.config.evaluation_key).state
    if state is not State.RUNNING and run.key not in places:
        return False
    directory.request_stop("cancelled")
    return True


def retry(
    manifest: Manifest, names: Sequence[str], store: Store, say: Say, given: Path | None = None
) -> tuple[Submitted, JobOrder]:
    """Submit failed runs again as they were, with the code as it is now.

    Args:
        given: the sweep file, where the caller names one.
    """
    if len(Ledger.of(store, manifest.sweep.name)):
        raise ConfigError(
            f"{manifest.sweep.name} is a search, to which a failed trial is a fact; its own "
            "command goes on with others"
        )
    runs = choose(manifest, names)
    for run in runs:
        status = store.run_dir(run.key).status(run.config.evaluation_key)
        if status.state in {State.DONE, State.RUNNING}:
            raise RecordError(f"run {run.key} {status.how}; --retry is for runs that failed")
    steps = [s for s in make_plan(runs, store, Rerun.FAILED) if s.run.key in {r.key for r in runs}]
    last = _last_submission(store, manifest, runs)
    source = manifest.sweep.source
    file = given or (None if source is None else own_file(source))
    if file is not None:
        load_sweep(str(file))  # so that the modules it imports are frozen with it
    order = _order_of(last.read(), file) if last.is_own() else _own_order(manifest, store, say)
    by_records = ("-m", "harness.report", manifest.sweep.name, "--root", str(store.root))
    order = replace(order, store=store, sweep_file=file, report=order.report or by_records)
    return submit(steps, order, say), order


def _order_of(intent: Intent, file: Path | None) -> JobOrder:
    """To submit as before, with the sweep file and the code as they are now."""
    allow_pipes(intent.pipes)
    order = replace(JobOrder.again(intent), frozen=None, round=0)
    if file is None:
        return replace(order, report=None)
    words = (str(file) if word == intent.sweep_file else word for word in intent.report_command)
    return replace(order, report=tuple(words))


def _own_order(manifest: Manifest, store: Store, say: Say) -> JobOrder:
    """To submit what somebody else did: nothing of theirs is run, neither setup nor command."""
    profile = load_profile(None)
    say(
        f"{manifest.sweep.name} was not submitted by you: its runs are submitted with your default "
        "profile and your code; the sweep's own command takes --profile NAME"
    )
    runtime = with_processes(profile, Runtime(), given=False)
    return JobOrder(store, runtime, manifest.sweep.name, profile=profile)


def _last_submission(store: Store, manifest: Manifest, runs: Sequence[Run]) -> Submission:
    for submission in reversed(list(submissions(store, manifest.sweep.name))):
        if any(run.key in submission.read().keys for run in runs):
            return submission
    raise ConfigError(
        f"{', '.join(run.key for run in runs)} was never submitted to SLURM; the sweep's own "
        "command with --rerun failed tries it again"
    )
