"""Runs that do as <root>/fake.json says: label -> what happens to a run of that label.

They keep the contract of the real ones (lease, records, result last) without training anything, and
note in <root>/trained.txt each time one is trained to its end.
"""

import errno
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

from harness.errors import DivergedError, InterruptedRun, failure_class, one_line
from harness.store.lease import Lease
from harness.store.record import Store
from harness.store.state import State


def preflight(configs, runtime):
    problems = [f"no picture at {c.data.path}" for c in configs if c.data.path == "nowhere"]
    if runtime.micro_batch is not None:
        whole = [c for c in configs if c.model.image.backbone == "resnet18"]
        problems += ["its BatchNorm sees the whole batch" for _ in whole]
    return problems


def execute(config, root, runtime, *, label, stop=lambda: False, company=None):
    directory = Store(root).run_dir(config.run_key)
    with Lease(directory.lease_file):
        if directory.status(config.evaluation_key).state is State.DONE:
            return
        attempt = directory.add_provenance(
            {
                "threads": runtime.threads,
                "pid": os.getpid(),
                "micro_batch": runtime.micro_batch,
                "shared": os.environ.get("HARNESS_SHARED_DATA"),
            }
        )
        directory.write_status(State.RUNNING, attempt=attempt, samples_seen=0, phase="train")
        print(f"attempt {attempt} of {label}", flush=True)
        try:
            _do(_behaviour(root, label), attempt, stop)
        except InterruptedRun:
            directory.write_status(State.INTERRUPTED, attempt=attempt, samples_seen=5)
            raise
        except Exception as error:
            directory.write_status(
                State.FAILED,
                attempt=attempt,
                failure=failure_class(error),
                error=one_line(error),
                log=str(directory.log_file(attempt)),
            )
            raise
        with (root / "trained.txt").open("a") as file:
            file.write(f"{label} seed {config.seed}\n")
        directory.write_result(
            {
                "code": "",
                "training": {"samples_seen": config.train.samples, "seconds": 1.0},
                "cost": {},
                "evaluations": {config.evaluation_key: {}},
            }
        )


def _behaviour(root, label):
    file = Path(root) / "fake.json"
    return json.loads(file.read_text()).get(label, "done") if file.exists() else "done"


def _do(behaviour, attempt, stop):
    name, _, value = behaviour.partition(" ")
    if name == "sleep":
        _sleep(float(value), stop)
    elif name == "wait" and attempt <= int(value):
        _sleep(math.inf, stop)
    elif name == "killed" and attempt <= int(value):
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif name == "exit":
        sys.exit(int(value))
    elif name == "bug":
        raise KeyError("no such thing")
    elif name == "memory" and attempt <= int(value):
        raise MemoryError("no memory left")
    elif name == "diverged":
        raise DivergedError("loss is NaN at step 7")
    elif name == "disk_full":
        raise OSError(errno.ENOSPC, "No space left on device")


def _sleep(seconds, stop):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if stop():
            raise InterruptedRun("stopped at 5 samples")
        time.sleep(0.02)
