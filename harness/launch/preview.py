"""The plan as it is printed before anything starts: a row a run, and what it will cost.

Only words and numbers about steps; decides nothing.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from harness.document.terminal import PlainConsole
from harness.launch.backlog import estimate
from harness.launch.slots import Capacity
from harness.planning.costs import (
    FALLBACK_IMAGE_GMACS_224,
    NOMINAL_GMACS_PER_SECOND,
    duration,
    is_known_backbone,
    training_gmacs,
)
from harness.planning.plan import Action, Step

PIPE_WIDTH = 150
"""Columns when the output is no terminal: a line is better than a fold."""
_STYLES = {Action.SKIP: "green", Action.LEAVE: "red", Action.ATTACH: "cyan"}


def print_plan(steps: Sequence[Step], capacity: Capacity) -> None:
    """Print the plan, the sum of it, and every assumption behind its times."""
    console = PlainConsole(pipe_width=PIPE_WIDTH)
    console.print(plan_table(steps, capacity))
    lines = [summary(steps, capacity)]
    lines += [capacity.cores] if any(step.pending for step in steps) else []
    for line in [*lines, *assumptions(steps, capacity)]:
        console.print(line)


def print_lines(what: str, lines: Iterable[str]) -> None:
    """`note: ...` for each of `lines`, whatever characters are in it."""
    for line in lines:
        print(f"{what}: {line.encode('utf-8', 'backslashreplace').decode()}")


def plan_table(steps: Sequence[Step], capacity: Capacity) -> Table:
    """A row a run: label, seed, key, state, what is done with it and why, estimated time."""
    table = Table(box=None, pad_edge=False)
    for head in ("run", "seed", "key", "state", "action"):
        table.add_column(head, justify="right" if head == "seed" else "left")
    table.add_column("time", justify="right", no_wrap=True)
    for step in steps:
        action = step.action.value + (f": {step.note}" if step.note else "")
        table.add_row(
            Text(step.run.label),
            str(step.run.seed),
            step.run.key,
            step.status.state.value,
            Text(action),
            time_text(step, capacity) if step.pending else "-",
            style=_STYLES.get(step.action, ""),
        )
    return table


def time_text(step: Step, capacity: Capacity) -> str:
    """`40 s` from the pace of finished runs, `~40 s` at an assumed one, `?` on a GPU without."""
    seconds = seconds_of(step, capacity)
    if step.seconds is None:
        return "?" if seconds is None else f"~{duration(seconds)}"
    return duration(step.seconds)


def seconds_of(step: Step, capacity: Capacity) -> float | None:
    """Estimated seconds of a step, at the pace of finished runs or an assumed one; None: unknown.

    No run of a GPU of which nothing is known tells its pace.
    """
    if step.seconds is None and capacity.pace is not None:
        left = max(0, step.run.config.train.samples - step.status.samples_seen)
        return capacity.pace.seconds(step.run.config, left)
    return None if step.seconds is None and capacity.on_gpu else estimate(step)


def summary(steps: Sequence[Step], capacity: Capacity) -> str:
    """`15 runs: 12 run, 3 skip; about 6 min in 2 slots`, and GPU-hours at an assumed pace."""
    actions = Counter(step.action.value for step in steps)
    line = f"{len(steps)} runs: " + ", ".join(f"{n} {name}" for name, n in actions.items())
    pending = [step for step in steps if step.pending]
    if not pending:
        return line + "; nothing to do"
    slots, pace = capacity.slots, capacity.pace
    where = f"in {slots} slot{'s' if slots > 1 else ''}"
    times = [seconds_of(step, capacity) for step in pending]
    known = [seconds for seconds in times if seconds is not None]
    if len(known) < len(times):
        return f"{line}; time {where} not known yet"
    line += f"; about {duration(makespan(known, slots))} {where}"
    return line if pace is None else f"{line}, {sum(known) * pace.gpus / 3600:,.0f} GPU-hours"


def makespan(times: Sequence[float], slots: int) -> float:
    """Seconds until the last of steps that take so long ends, the longest started first."""
    ends = [0.0] * slots
    for seconds in sorted(times, reverse=True):
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def assumptions(steps: Sequence[Step], capacity: Capacity) -> list[str]:
    """What the estimates rest on, one line each."""
    pending = [step for step in steps if step.pending]
    if all(step.seconds is not None for step in pending):
        return []
    pace = capacity.pace
    if capacity.on_gpu and pace is None:
        return ["?: no run of this sweep has finished here, so the speed of the GPU is not known"]
    cpu = f"{NOMINAL_GMACS_PER_SECOND:g} GMACs/s a slot assumed"
    lines = [
        f"~: no run of this sweep has finished here; {cpu if pace is None else pace.words}, "
        "without start-up and evaluation"
    ]
    if pace is not None:
        rates = [pace.gmacs / training_gmacs(step.run.config, 1) for step in pending]
        span = " to ".join(dict.fromkeys(f"{rate:,.0f}" for rate in (min(rates), max(rates))))
        lines.append(
            f"of a run {span} samples/s pass through the towers and {pace.pictures:,.0f} are "
            "decoded; the slower counts"
        )
    unlisted = {
        step.run.config.model.image.backbone
        for step in pending
        if not is_known_backbone(step.run.config)
    }
    if unlisted:
        lines.append(
            f"{FALLBACK_IMAGE_GMACS_224:g} GMACs at 224 pixels assumed of "
            + ", ".join(sorted(unlisted))
        )
    return lines
