"""Runs on other machines, or in other set-ups, by a command before the worker's own: `ssh HOST`.

    --executor prefix --prefix "ssh a" --prefix "ssh b env CUDA_VISIBLE_DEVICES=1"

Each prefix is a slot.  What comes after it is quoted for the shell that ssh starts on the other
side, where the same folders have to be at the same places.  When the connection breaks, the run
saves its state over there and is taken up like any other.
"""

from __future__ import annotations

import os
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import harness
from harness.config import RunConfig
from harness.errors import ConfigError
from harness.launch.executor import EXECUTORS, Assignment, Option
from harness.launch.executors.local import LocalExecutor
from harness.launch.slots import Capacity, Slot

PREFIX = Option(
    "--prefix",
    'a command that starts a worker elsewhere, such as "ssh HOST"; may be repeated',
    {"action": "append", "metavar": "COMMAND"},
)


@dataclass(frozen=True)
class PrefixSlot(Slot):
    """A slot on the other side of a command."""

    prefix: tuple[str, ...] = ()

    def command(self, words: Sequence[str]) -> list[str]:
        """See Slot; neither the environment of this process nor its directory come along."""
        places = [os.environ.get("PYTHONPATH", ""), str(Path(harness.__file__).parent.parent)]
        own = {**self.variables(), "PYTHONPATH": os.pathsep.join(filter(None, places))}
        there = ["env", *(f"{name}={value}" for name, value in own.items()), *words]
        return [*self.prefix, *map(shlex.quote, [*there, "--directory", os.getcwd()])]


@EXECUTORS.register("prefix")
class PrefixExecutor(LocalExecutor):
    """A worker for each prefix."""

    options = (PREFIX,)

    @classmethod
    def of(cls, work: Assignment, args: Namespace) -> Self:
        """See Executor; ConfigError without a prefix."""
        try:
            prefixes = [shlex.split(text) for text in PREFIX.value(args) or []]
        except ValueError as error:
            raise ConfigError(f"--prefix cannot be read: {error}") from None
        if not all(prefixes) or not prefixes:
            raise ConfigError('--executor prefix wants --prefix COMMAND, such as "ssh HOST"')
        threads = work.runtime.threads
        return cls(work, slots=[PrefixSlot(threads, None, tuple(words)) for words in prefixes])

    def capacity(self, runs: int) -> Capacity:
        """See Executor; what the other machines have is not known here."""
        runtime = self.work.runtime
        a_run = runtime.processes * (runtime.threads + (runtime.workers or 0))
        cores = f"{a_run} cores used behind each prefix"
        return Capacity(len(self.slots), cores, on_gpu=runtime.device != "cpu")

    def preflight(self, configs: Sequence[RunConfig]) -> list[str]:
        """See LocalExecutor; every worker is heard from, since each is on a machine of its own."""
        problems = super().preflight(configs)
        for number in range(1, min(len(self.slots), len(configs))):
            problems = problems or self._checked_by(number, configs[:1])
        return problems
