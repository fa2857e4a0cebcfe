"""A rehearsal: every distinct run for a few steps, in one job, before the whole is let go.

It goes through everything a run goes through, on the machine and with the set-up that the whole
will have, in a store of its own that no report looks into.  The arrays wait for it to go well; if
it does not, the scheduler cancels them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.config import RunConfig, override
from harness.config.parents import unlike_parents
from harness.config.sweep import Run
from harness.launch.slurm.submissions import submissions
from harness.store.record import Store
from harness.store.state import State

STEPS = 20
SUFFIX = "rehearsal"


def store_of(store: Store, submission_id: str) -> Store:
    """Where the runs of a rehearsal are."""
    return Store(store.root / "results" / "rehearsals" / submission_id)


def short_runs(runs: Iterable[Run]) -> list[Run]:
    """The runs cut down to `STEPS` steps, one for all seeds, and without their parents."""
    found: dict[str, Run] = {}
    for run in runs:
        short = replace(run, config=_short(run.config), seed=0, parents=())
        found.setdefault(short.key, short)
    return list(found.values())


def _short(config: RunConfig) -> RunConfig:
    samples = min(config.train.samples, STEPS * config.train.batch_size)
    values = {"train.samples": samples, "seed": 0, **unlike_parents(config)}
    return override(config, values)


def what_went_wrong(store: Store, sweep: str) -> Sequence[str]:
    """A line for each run of the sweep's last rehearsal that failed; none if it went well.

    One line alone when its job is over and has left no word at all.
    """
    rehearsals = [s for s in submissions(store, sweep) if s.read().rehearsal]
    if not rehearsals or rehearsals[-1].open:
        return []
    last = rehearsals[-1]
    if not last.ends():
        return [
            f"the rehearsal, job {last.job(0)}, is over and has left no word in {last.folder}: "
            "do the nodes see this folder?"
        ]
    intent = last.read()
    lines = []
    for key in sorted(intent.keys):
        directory = intent.store.run_dir(key)
        status = directory.status()
        if status.state is State.FAILED:
            log = (status.details or {}).get("log", last.logs)
            lines.append(f"rehearsal of {key} {status.how}; log: {log}")
    return lines
