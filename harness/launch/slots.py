"""How the cores and GPUs of a machine are shared among runs; torch-free."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from harness.config import Runtime
from harness.errors import ConfigError, unknown
from harness.planning.costs import Pace
from harness.store.provenance import usable_cores

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SPIN_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_MOST_DECODERS = 12
"""Processes that decode for one GPU when nobody says how many: each holds batches in memory."""
SPINS = "2000"
"""How often a thread of GNU's OpenMP looks for work before it sleeps.  Of itself it looks for
milliseconds, and two threads that do so while others want their core wait mostly for each other."""


@dataclass(frozen=True)
class Slot:
    """Room for one run at a time: threads of each of its processes, and their GPUs if any.

    GPUs are indexes or UUIDs with commas between, as CUDA_VISIBLE_DEVICES lists them.
    """

    threads: int
    gpu: str | None = None

    def variables(self) -> dict[str, str]:
        """What a worker in this slot has in its environment that is the slot's own."""
        own = {"PYTHONUNBUFFERED": "1"}
        own |= dict.fromkeys(_THREAD_VARIABLES, str(self.threads))
        if not any(name in os.environ for name in _SPIN_VARIABLES):
            own["GOMP_SPINCOUNT"] = SPINS
        if self.gpu is not None:
            own["CUDA_VISIBLE_DEVICES"] = self.gpu
        return own

    def environment(self) -> dict[str, str]:
        """What a worker in this slot finds in its environment."""
        return {**os.environ, **self.variables()}

    def command(self, words: Sequence[str]) -> list[str]:
        """What is to be called so that the worker `words` runs in this slot."""
        return list(words)


def make_slots(
    *, wanted: int | None, threads: int, gpus: Sequence[str], cores: int, processes: int = 1
) -> list[Slot]:
    """`wanted` slots, else one for each `processes` GPUs, else as many as the cores have room for.

    Args:
        threads: of each process; no slot has more for being alone, or fewer for want of cores,
            since a run's bits depend on their number.
        processes: of each run.

    Raises:
        ConfigError: no slot is wanted, or a run wants more GPUs than there are.
    """
    if wanted is not None and wanted < 1:
        raise ConfigError(f"--slots {wanted}: at least one slot is wanted")
    if gpus and processes > len(gpus):
        raise ConfigError(
            f"runtime.processes = {processes} wants a GPU each, and runs may use {len(gpus)}; "
            "runtime.device=cpu needs none"
        )
    groups = [
        ",".join(gpus[first : first + processes])
        for first in range(0, len(gpus) - processes + 1, processes)
    ]
    count = wanted or len(groups) or max(1, cores // (processes * threads))
    return [Slot(threads, groups[i % len(groups)] if groups else None) for i in range(count)]


def visible_gpus(device: str) -> list[str]:
    """The GPUs runs may use, found without torch; none when `device` says `cpu`."""
    if device == "cpu":
        return []
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        named = [name.strip() for name in listed.split(",")]
        gpus = list(takewhile(lambda name: name not in {"", "-1"}, named))  # as CUDA reads it
    else:
        gpus = gpus_of_machine()
    if not device.startswith("cuda:"):
        return gpus
    ordinals = {f"cuda:{i}": gpu for i, gpu in enumerate(gpus)}
    if device not in ordinals:
        raise ConfigError(unknown("runtime.device", device, ["auto", "cpu", *ordinals]))
    return [ordinals[device]]


def gpus_of_machine() -> list[str]:
    """The GPUs that this machine has, found without torch."""
    return _gpus_of_the_driver() or _gpus_of_the_kernel()


def _gpus_of_the_driver() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return gpus_listed(done.stdout)


def gpus_listed(text: str) -> list[str]:
    """What runs may be given of what `nvidia-smi -L` prints.

    That is the numbers of GPUs, and of one that is cut into MIG instances their UUIDs: they have no
    numbers, and the whole cannot be had.
    """
    found: list[str] = []
    for line in text.splitlines():
        if gpu := re.match(r"GPU (\d+):", line):
            whole = gpu[1]
            found.append(whole)
        elif instance := re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line):
            found = [name for name in found if name != whole] + [instance[1]]
    return found


def _gpus_of_the_kernel() -> list[str]:
    """By device files, or where a container has none by what the driver says of each GPU."""
    numbers = [re.fullmatch(r"nvidia(\d+)", file.name) for file in Path("/dev").glob("nvidia*")]
    found = sorted((match[1] for match in numbers if match), key=int)
    known = list(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return found or [str(number) for number in range(len(known))]


def slots_here(runtime: Runtime, wanted: int | None) -> list[Slot]:
    """The slots of this machine for runs with `runtime`; raises as `make_slots`."""
    return make_slots(
        wanted=wanted,
        threads=runtime.threads,
        gpus=visible_gpus(runtime.device),
        cores=usable_cores(),
        processes=runtime.processes,
    )


def decoders(runtime: Runtime, slots: Sequence[Slot]) -> int:
    """`runtime.workers`; where it is null, what the cores have left beside each GPU of `slots`."""
    gpus = sum(len(slot.gpu.split(",")) for slot in slots if slot.gpu is not None)
    return _decoders_of(runtime, usable_cores() // gpus if gpus else 0)


def _decoders_of(runtime: Runtime, cores: int) -> int:
    """The same, of a process that has a GPU and `cores`; 0: of one without a GPU."""
    if runtime.workers is not None:
        return runtime.workers
    return max(0, min(_MOST_DECODERS, cores - runtime.threads))


# --------------------------------------------------------------------------- for the plan

_MORE = "runtime.workers=N, or runtime.threads=N, which changes a run's last bits"


@dataclass(frozen=True)
class Capacity:
    """What runs at a time, which tells how long a plan will take.

    Attributes:
        slots: runs.
        cores: how many of them are used, in words.
        on_gpu: whether the nominal speed of a core says nothing.
        pace: assumed in its place while no run has finished here.
    """

    slots: int
    cores: str
    on_gpu: bool = False
    pace: Pace | None = None


def capacity_of(
    slots: Sequence[Slot], runtime: Runtime, runs: int, more: str | None = None
) -> Capacity:
    """What of `runs` runs is under way at a time in slots of this machine.

    Args:
        more: the option that makes more slots.
    """
    count = min(len(slots), runs)
    used = count * runtime.processes * (runtime.threads + decoders(runtime, slots))
    options = [more, _MORE] if more is not None and count < runs else [_MORE]
    cores = cores_used(used, usable_cores(), more=", ".join(options))
    return Capacity(len(slots), cores, any(slot.gpu is not None for slot in slots))


def cores_of_a_job(runtime: Runtime, cpus: int, *, on_gpu: bool) -> str:
    """How many of the CPUs that a scheduler gives each process are used."""
    used = runtime.threads + _decoders_of(runtime, cpus if on_gpu else 0)
    return cores_used(used, cpus, more=_MORE, what="cores of each process")


def cores_used(used: int, there: int, *, more: str, what: str = "cores") -> str:
    """`2 of 8 cores used; more with ...`: no run has more threads than were asked for.

    Args:
        used: threads and processes that compute or decode at the same time.
        more: options that would have more of them.
    """
    if used > there:
        return f"{used} threads and processes for {there} {what}: they will wait for one another"
    return f"{used} of {there} {what} used" + (f"; more with {more}" if used < there else "")
