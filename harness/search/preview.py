"""A search as it is printed before anything starts: its space, its end, and what there is of it."""

from __future__ import annotations

from collections import Counter

from rich.table import Table
from rich.text import Text

from harness.config import RunConfig
from harness.config.searchspace import Search
from harness.config.sweep import value_at
from harness.document.terminal import PlainConsole
from harness.launch.preview import PIPE_WIDTH
from harness.launch.slots import Capacity
from harness.planning.costs import NOMINAL_GMACS_PER_SECOND, duration, training_gmacs
from harness.store.trials import Ledger, Origin


def print_search(search: Search, base: RunConfig, ledger: Ledger, capacity: Capacity) -> None:
    """Print the space beside the base's own values, and in a few lines what will be done."""
    console = PlainConsole(pipe_width=PIPE_WIDTH)
    table = Table(box=None, pad_edge=False)
    for head in ("field", "searched", "base"):
        table.add_column(head)
    for path, dimension in search.space.items():
        table.add_row(path, Text(str(dimension)), Text(str(value_at(base, path))))
    console.print(table)
    for line in [
        *_asked(search, base),
        *_so_far(ledger),
        _cost(search, base, ledger, capacity),
        capacity.cores,
    ]:
        console.print(line)


def _asked(search: Search, base: RunConfig) -> list[str]:
    how = "best of" if len(search.goals) == 1 else "trade-off between"
    lines = [f"{how} {', '.join(search.goals)}, by {search.sampler}, trials with seed {base.seed}"]
    if search.pruner is not None:
        rungs = ", ".join(f"{rung:,}" for rung in search.rungs(base))
        lines.append(
            f"{type(search.pruner).__name__}: a trial may be stopped at {rungs} of "
            f"{base.train.samples:,} samples"
        )
    if search.confirm:
        seeds = ", ".join(map(str, search.confirm))
        lines.append(f"the best and the base are then made anew with seeds {seeds}")
    return lines


def _so_far(ledger: Ledger) -> list[str]:
    if not len(ledger):
        return []
    outcomes = Counter(trial.outcome.value for trial in ledger)
    free = sum(trial.origin is Origin.FREE for trial in ledger)
    words = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    return [f"so far: {len(ledger)} trials, {free} of them free: {words}"]


def _cost(search: Search, base: RunConfig, ledger: Ledger, capacity: Capacity) -> str:
    slots = capacity.slots
    where = f"in {slots} slot{'s' if slots > 1 else ''}"
    if search.trials is None:
        return f"no trial is begun after {search.gpu_hours:g} hours of training, {where}"
    left = max(0, search.trials - sum(trial.counts for trial in ledger))
    line = f"{left} of {search.trials} trials to begin {where}"
    if search.gpu_hours is not None:
        line += f", none after {search.gpu_hours:g} hours of training"
    if capacity.on_gpu or not left:
        return line
    seconds = training_gmacs(base, base.train.samples) / NOMINAL_GMACS_PER_SECOND
    return f"{line}; at most about {duration(left * seconds / slots)} if none is pruned"
