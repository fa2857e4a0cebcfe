"""What is built from the runs of sweeps, built again as they end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from harness.monitor.snapshot import SnapshotReader
from harness.store.lease import lease_is_live
from harness.store.manifest import read_manifest
from harness.store.record import Store
from harness.store.state import State
from harness.store.trials import Ledger, is_search

Built = TypeVar("Built")
Fingerprint = tuple[tuple[str, State, object], ...]
"""Of every run its key, what its files say, and what changes with its result."""


def rebuild_as_runs_end(
    store: Store,
    names: Sequence[str],
    build: Callable[[str], Built],
    seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Built]:
    """Build each of `names` now and whenever one of its runs ends; the last results, once no run
    of theirs is left to do.

    Args:
        seconds: between two looks at the run directories.
    """
    reader = SnapshotReader(store)
    seen: dict[str, Fingerprint] = {}
    results: dict[str, Built] = {}
    while True:
        for name in names:
            now = _fingerprint(store, reader, name)
            if now != seen.get(name):
                seen[name] = now
                results[name] = build(name)
        over = {State.DONE, State.FAILED}
        left = sum(state not in over for name in names for _, state, _ in seen[name])
        if not left:
            return [results[name] for name in names]
        print(f"{left} runs to wait for; interrupt to stop watching", file=sys.stderr)
        while all(_fingerprint(store, reader, name) == seen[name] for name in names):
            sleep(seconds)


def _fingerprint(store: Store, reader: SnapshotReader, name: str) -> Fingerprint:
    """What a report depends on."""
    if is_search(store, name):
        return _fingerprint_of_search(store, name)
    snapshots = reader.read(read_manifest(store, name).runs)
    return tuple(
        (one.run.key, one.status.state, None if one.finished is None else one.finished.time)
        for one in snapshots
    )


def _fingerprint_of_search(store: Store, name: str) -> Fingerprint:
    """The same of its trials: of a pruned one, too, there is nothing to wait for.

    While a controller is at work there may be more of them, and then the confirmation.
    """
    ledger = Ledger.of(store, name)
    trials = [(t.key, State.DONE if t.over else State.RUNNING, t.outcome) for t in ledger]
    at_work = lease_is_live(ledger.lease_file)
    return (*trials, (name, State.RUNNING if at_work else State.DONE, None))
