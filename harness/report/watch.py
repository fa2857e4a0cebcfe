"""Reports built again as their runs finish."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from harness.lease import lease_is_live
from harness.ledger import Ledger, is_search
from harness.manifest import read_manifest
from harness.record import State, Store
from harness.report import ReportResult

Fingerprint = tuple[object, ...]


def watch(
    store: Store,
    names: Sequence[str],
    build: Callable[[str], ReportResult],
    seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> list[ReportResult]:
    """Build each of `names` now and whenever one of its runs ends; the last results, once no run
    of theirs is left to do.

    Args:
        seconds: between two looks at the run directories.
    """
    seen: dict[str, Fingerprint] = {}
    results: dict[str, ReportResult] = {}
    while True:
        for name in names:
            now = _fingerprint(store, name)
            if now != seen.get(name):
                seen[name] = now
                results[name] = build(name)
        left = sum(_is_open(state) for name in names for state in seen[name])
        if not left:
            return [results[name] for name in names]
        print(f"{left} runs to wait for; interrupt to stop watching", file=sys.stderr)
        while all(_fingerprint(store, name) == seen[name] for name in names):
            sleep(seconds)


def _fingerprint(store: Store, name: str) -> Fingerprint:
    """The state of every run, and when its result was written: what a report depends on."""
    if is_search(store, name):
        return _fingerprint_of_search(store, name)
    states: list[object] = []
    for run in read_manifest(store, name).runs:
        directory = store.run_dir(run.key)
        status = directory.status(run.config.evaluation_key)
        changed = directory.result_file.stat().st_mtime_ns if status.state is State.DONE else 0
        states.append((run.key, status.state, changed))
    return tuple(states)


def _fingerprint_of_search(store: Store, name: str) -> Fingerprint:
    """The same of its trials: of a pruned one, too, there is nothing to wait for.

    While a controller is at work there may be more of them, and then the confirmation.
    """
    ledger = Ledger.of(store, name)
    trials = [(t.key, State.DONE if t.over else State.RUNNING, t.outcome) for t in ledger]
    at_work = lease_is_live(ledger.lease_file)
    return (*trials, (name, State.RUNNING if at_work else State.DONE))


def _is_open(state: object) -> bool:
    return isinstance(state, tuple) and state[1] not in {State.DONE, State.FAILED}
