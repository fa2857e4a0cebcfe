"""What is done after each kind of end of a run: go on, go on with less memory, or stop.

An end is what cut an attempt short.  Ends are kept in the run's directory with a class each, so
that a run that is pre-empted all night has not used up the patience meant for crashes.  Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.config import RunConfig, Runtime, divisors_near
from harness.launch.profiles import Profile

End = Mapping[str, Any]
"""An entry of ends.json: class, error, attempt, samples_seen, micro_batch, submission, node,
whether it was judged to be the last one, and whether its batch can be in no smaller parts."""

#: Said by the cluster and not by the run: it goes on in the same directory, however often.
TAKEN_AWAY = frozenset({"preempted", "interrupted"})
#: May be the run's doing or not: it goes on a bounded number of times.
SUSPECT = frozenset({"killed", "node_failure"})
_OF_THE_NODE = frozenset({"node_failure", "launch"})
NODE_STRIKES = 2
"""Failures of a node after which the sweep keeps away from it."""


def why_stop(ends: Sequence[End], profile: Profile) -> str | None:
    """Why a run with these ends, of one submission, is not to go on by itself; None if it is."""
    if not ends:
        return None
    last = ends[-1]
    failure = str(last["class"])
    if last.get("final"):
        return str(last["error"])
    if failure in TAKEN_AWAY or failure == "out_of_memory":
        return None
    if failure in SUSPECT:
        count = sum(end["class"] in SUSPECT for end in ends)
        if count <= profile.max_retries:
            return None
        return f"{last['error']}; {count} times, and max_retries = {profile.max_retries}"
    if failure == "time_limit":
        return _no_progress(ends, profile)
    return str(last["error"])


def _no_progress(ends: Sequence[End], profile: Profile) -> str | None:
    reached = [end["samples_seen"] for end in ends if end["class"] == "time_limit"]
    if len(reached) < 2 or reached[-1] > reached[-2]:
        return None
    return (
        f"no progress past {reached[-1]:,} samples within the time limit of "
        f"{profile.time_text(profile.time)}; give the profile more time, or lower "
        "runtime.checkpoint_seconds"
    )


def micro_batch_of(ends: Iterable[End], config: RunConfig, runtime: Runtime) -> int | None:
    """Pairs at once on a process after these ends: halved at each lack of memory; None: all.

    Not where that would be another run (`whole`), which then goes on by computing activations
    again.
    """
    size = runtime.micro_batch
    share = config.train.batch_size // runtime.processes
    for end in ends:
        if end.get("whole"):
            size = end["micro_batch"]
        elif end["class"] == "out_of_memory":
            size = smaller(end["micro_batch"] or share, share)
    return size


def smaller(size: int, share: int) -> int:
    """The largest divisor of `share` that is at most half of `size`; 1 at the least."""
    return divisors_near(share, max(1, size // 2))[0]


def bad_nodes(ends: Iterable[End]) -> list[str]:
    """Nodes that failed under runs `NODE_STRIKES` times or more."""
    strikes = Counter(end["node"] for end in ends if end["class"] in _OF_THE_NODE and end["node"])
    return sorted(node for node, count in strikes.items() if count >= NODE_STRIKES)
