"""Runs without training whose worth is a function of the learning rate, in steps of 50 ms.

They keep the contract of the real ones: lease, progress, a stop at the next look, result last; and
note in <root>/trained.txt each time one comes to its end.  A state is the samples seen.
"""

import math
import time

from harness.errors import InterruptedRun, StoppedRun
from harness.files import read_json
from harness.store.lease import Lease
from harness.store.record import Store
from harness.store.state import State

GOAL = "validation/mean_recall"
STEP = 100


def preflight(configs, runtime):
    return []


def execute(config, root, runtime, *, label, stop=lambda: False, company=None):
    directory = Store(root).run_dir(config.run_key)
    with Lease(directory.lease_file):
        if directory.status(config.evaluation_key).state is State.DONE:
            return
        if (reason := directory.stop_requested()) is not None:
            raise StoppedRun(reason)
        attempt = directory.add_provenance({})
        state = directory.path / "checkpoints" / "state.json"
        seen = (read_json(state) or {"samples_seen": 0})["samples_seen"]
        directory.rewind_logs(seen)
        worth = 0.5 - 0.1 * abs(math.log10(config.train.lr) + 2)
        while seen < config.train.samples:
            directory.write_status(State.RUNNING, attempt=attempt, samples_seen=seen, seconds=1.0)
            if stop() or directory.stop_requested():
                state.parent.mkdir(exist_ok=True)
                state.write_text(f'{{"samples_seen": {seen}}}')
                reason = directory.stop_requested()
                more = {"attempt": attempt, "samples_seen": seen, "stopped": reason}
                directory.write_status(State.INTERRUPTED, **more)
                raise InterruptedRun("stopped") if reason is None else StoppedRun(reason)
            time.sleep(0.05)
            seen += STEP
            if any(seen - STEP < at <= seen for at in runtime.validate_at):
                line = {"samples_seen": seen, "metrics": {GOAL: worth * seen / 1000}}
                directory.append_progress(line)
        with (root / "trained.txt").open("a") as file:
            file.write(f"{directory.key}\n")
        metrics = {GOAL: {"value": worth}, "test/mean_recall": {"value": worth}}
        directory.write_status(State.DONE, attempt=attempt, samples_seen=seen)
        directory.write_result(
            {
                "code": "",
                "training": {"samples_seen": seen, "seconds": 1.0},
                "cost": {},
                "evaluations": {config.evaluation_key: {"metrics": metrics}},
            }
        )
