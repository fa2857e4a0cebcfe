"""What the sweep command does with a cluster: show, submit, say what to type next, or stay.

Words for the user alone; what is submitted is for `submit`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from harness.config import Runtime
from harness.launch.preview import cores_used, print_plan
from harness.launch.profiles import Profile
from harness.launch.slurm import scheduler
from harness.launch.slurm.ledger import Place, queued
from harness.launch.slurm.scheduler import Silent
from harness.launch.slurm.submit import Order, Submitted, check_not_held, preview, submit
from harness.monitor.terminal import watching
from harness.plan import Rerun, Step
from harness.record import State


def submit_sweep(
    steps: Sequence[Step],
    order: Order,
    rerun: Rerun,
    put_on_file: Callable[[], None],
    *,
    dry_run: bool,
    watch: bool,
) -> int | None:
    """Print the plan and submit it; the exit code, or None when it is time for the report.

    Args:
        put_on_file: writes the sweep's manifest; called before anything is submitted.
    """
    profile = order.profile
    if not dry_run:
        scheduler.require()
    pending = sum(step.pending for step in steps)
    slots = max(1, min(pending, profile.pack * profile.parallel))
    pace = profile.pace(order.runtime.processes)
    cores = cores_of_a_process(profile, order.runtime)
    print_plan(steps, slots, cores=cores, on_gpu=profile.gpus > 0, pace=pace)
    if dry_run:
        print("\nthe sbatch script of the first array would be:\n")
        print(preview(steps, order))
        return 0
    put_on_file()
    if not pending:
        return None
    check_not_held(order.store, order.sweep, rerun)
    submitted = submit(steps, order, lambda line: print(line, file=sys.stderr))
    for line in words(submitted, order):
        print(line)
    if not watch:
        return 3 if submitted.left else 0
    follow(steps, order)
    return None


def cores_of_a_process(profile: Profile, runtime: Runtime) -> str:
    """How many of the CPUs that a job asks for are used."""
    return cores_used(
        runtime.threads + runtime.workers,
        profile.cpus,
        more="runtime.workers=N, or runtime.threads=N, which changes a run's last bits",
        what="cores of each process",
    )


def words(submitted: Submitted, order: Order) -> list[str]:
    """What was submitted, what was there already, and what to type next."""
    lines = []
    there = Counter(
        "running" if place.task is not None and place.task.state == "RUNNING" else "queued"
        for place in submitted.places.values()
    )
    if there:
        lines.append(f"there already: {', '.join(f'{n} {what}' for what, n in there.items())}")
    if submitted.submission is None:
        lines.append("nothing to submit")
    else:
        arrays = ", ".join(f"{job} ({count} jobs)" for job, count in submitted.arrays.items())
        lines.append(f"submitted {len(submitted.keys)} runs of {order.sweep}: array {arrays}")
        if submitted.rehearsal is not None:
            lines.append(f"they wait for job {submitted.rehearsal}, the rehearsal, to go well")
        if submitted.report is not None:
            folder = order.store.root / "reports" / order.sweep
            lines.append(f"report job {submitted.report} follows them: {folder / 'report.md'}")
    here = "" if order.store.root.samefile(".") else f" --root {order.store.root}"
    status = f"python -m harness.status {order.sweep}{here}"
    return [
        *lines,
        f"how they are:        {status}",
        f"what a run printed:  {status} --logs KEY",
        f"call them off:       {status} --cancel --all",
        "what was left over:  the same command again",
    ]


def follow(steps: Sequence[Step], order: Order) -> None:
    """Stay until no run of the plan is in the queue or running; the files say how far they are."""
    store, keys = order.store, {step.run.key for step in steps if step.pending}
    places: dict[str, Place] = {}
    with watching(steps, store, lambda: places) as say:
        while True:
            if all(_is_over(step, order) for step in steps if step.pending):
                return
            time.sleep(scheduler.POLL_SECONDS)
            try:
                places = queued(store, scheduler.queue(), close=False)
            except Silent as error:
                say(str(error))
                continue
            if not keys & set(places) and not any(
                _runs(step, order) for step in steps if step.pending
            ):
                return


def _state(step: Step, order: Order) -> State:
    directory = order.store.run_dir(step.run.key)
    return directory.status(step.run.config.evaluation_key).state


def _is_over(step: Step, order: Order) -> bool:
    return _state(step, order) in {State.DONE, State.FAILED}


def _runs(step: Step, order: Order) -> bool:
    return _state(step, order) is State.RUNNING
