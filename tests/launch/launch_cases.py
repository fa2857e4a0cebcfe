"""Hand-made runs to launch, and what the fakes in shadow/ leave behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.config import RunConfig, Train
from harness.config.sweep import Run, Show, Sweep, expand, product
from harness.planning.plan import Step
from harness.store.record import Store
from harness.store.state import Status

SHADOW = Path(__file__).parent / "shadow"


def runs_of(labels: Sequence[str], **train: object) -> list[Run]:
    """One run a label; the first has the most samples and so is the longest."""
    counts = range(1000 + len(labels), 1000, -1)
    return [
        Run(label, {}, 0, RunConfig(train=Train(samples=samples, **train)))
        for label, samples in zip(labels, counts, strict=True)
    ]


def family() -> list[Run]:
    """Two runs, `even` and `first`, whose text towers start from that of a third."""
    layers, init = "model.text.layers", "model.text.init"
    return expand(
        Sweep(
            base=RunConfig(),
            points=product({layers: [2], init: ["even of 4", "first of 4"]}),
            seeds=[0],
            show=Show(x=init, metrics=[]),
        )
    )


def trained(store: Store) -> list[str]:
    """Every training that came to its end, in order."""
    file = store.root / "trained.txt"
    return file.read_text().splitlines() if file.exists() else []


def status(store: Store, step: Step) -> Status:
    return store.run_dir(step.run.key).status(step.run.config.evaluation_key)


def finish(store: Store, step: Step) -> None:
    """Give the run of a step a result."""
    store.run_dir(step.run.key).write_result(
        {
            "code": "",
            "training": {"samples_seen": 1, "seconds": 1.0},
            "cost": {},
            "evaluations": {step.run.config.evaluation_key: {}},
        }
    )


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; how long that may take is the test's own limit."""
    while not condition():
        time.sleep(0.02)


def stand_in_for_ssh(folder: Path) -> str:
    """A command `PATH HOST WORDS...` that does as ssh would, on this machine.

    A shell reads the words, in another directory and with an environment of its own.
    """
    file = folder / "ssh"
    file.write_text(
        f"#!/bin/sh\necho $1 >> {folder}/hosts.txt\nshift\ncd /\n"
        'exec env -i PATH="$PATH" REAL_HARNESS="$REAL_HARNESS" sh -c "$*"\n'
    )
    file.chmod(0o755)
    return str(file)


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """A started thread that acts as soon as the condition holds."""

    def watch() -> None:
        wait_until(condition)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread
