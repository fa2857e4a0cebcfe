"""Several runs side by side on this machine, each in a worker process of its own.

A slot is a GPU for each process of a run, or a core for each of its threads.  A worker serves its
slot from run to run, so that imports are paid once; when it dies its run is put on record as
killed, and another worker takes the slot.  Knows processes and pipes; what runs next is the
source's to say.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from harness.config import RunConfig, Runtime
from harness.errors import ConfigError, HarnessError, RecordError, one_line, unknown
from harness.launch.base import Say, Source, Stop, name_of, record_failure
from harness.launch.child import holding_signals
from harness.lease import LeaseHeld
from harness.plan import Step
from harness.record import Store

TICK_SECONDS = 0.25
"""How often dead workers are looked for."""
GRACE_SECONDS = 60.0
"""How long a run may take to save its state after a stop was asked for."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SPIN_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SPINS = "2000"
"""How often a thread of GNU's OpenMP looks for work before it sleeps.  Of itself it looks for
milliseconds, and two threads that do so while others want their core wait mostly for each other."""


# --------------------------------------------------------------------------- slots


@dataclass(frozen=True)
class Slot:
    """Room for one run at a time: threads of each of its processes, and their GPUs if any.

    GPUs are indexes or UUIDs with commas between, as CUDA_VISIBLE_DEVICES lists them.
    """

    threads: int
    gpu: str | None = None

    def environment(self) -> dict[str, str]:
        """What a worker in this slot finds in its environment."""
        own = {"PYTHONUNBUFFERED": "1"}
        own |= dict.fromkeys(_THREAD_VARIABLES, str(self.threads))
        if not any(name in os.environ for name in _SPIN_VARIABLES):
            own["GOMP_SPINCOUNT"] = SPINS
        if self.gpu is not None:
            own["CUDA_VISIBLE_DEVICES"] = self.gpu
        return {**os.environ, **own}


def make_slots(
    *,
    wanted: int | None,
    threads: int,
    gpus: Sequence[str],
    cores: int,
    processes: int = 1,
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
        gpus = [name.strip() for name in listed.split(",") if name.strip() not in {"", "-1"}]
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
    return re.findall(r"^GPU (\d+):", done.stdout, re.MULTILINE)


def _gpus_of_the_kernel() -> list[str]:
    numbers = [re.fullmatch(r"nvidia(\d+)", file.name) for file in Path("/dev").glob("nvidia*")]
    return sorted((match[1] for match in numbers if match), key=int)


# --------------------------------------------------------------------------- a worker


class WorkerProcess:
    """One worker as its launcher sees it: the process, its two pipes, and the run it has."""

    def __init__(
        self, slot: Slot, sweep: Path | None, rendezvous: tuple[Path, str] | None = None
    ) -> None:
        answers, theirs = os.pipe()
        os.set_blocking(answers, False)
        command = [sys.executable, "-m", "harness.launch.worker", "--answers", str(theirs)]
        command += ["--sweep", str(sweep)] if sweep is not None else []
        command += ["--rendezvous", *map(str, rendezvous)] if rendezvous is not None else []
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by bury)
        with holding_signals():
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=self.output,
                stderr=self.output,
                env=slot.environment(),
                pass_fds=(theirs,),
                start_new_session=True,
            )
        os.close(theirs)
        self.answers = answers
        self.step: Step | None = None
        self.attempt = 0
        self.since = 0.0
        self.leaving = False
        self._oom_kills = oom_kills()
        self._received = b""

    @property
    def free(self) -> bool:
        """Whether it waits for a run; one that has said it is leaving does not."""
        return self.step is None and not self.leaving

    def give(self, step: Step, attempt: int, task: Mapping[str, Any]) -> None:
        """Hand over a run; `since` and `attempt` tell its records from those of earlier ones."""
        self.step, self.attempt, self.since = step, attempt, time.time()
        self.tell(task)

    def tell(self, task: Mapping[str, Any]) -> None:
        """Hand over a task; a worker that is dead already is noticed by `dead`."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return

    def hear(self) -> list[dict[str, Any]]:
        """The answers that have come in."""
        while True:
            try:
                part = os.read(self.answers, 65536)
            except BlockingIOError:
                break
            if not part:
                break
            self._received += part
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines]

    def dead(self) -> bool:
        """Whether the process has ended; it is not reaped, so its number still is its own."""
        if self.process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, flags) is not None

    def dismiss(self) -> None:
        """No more tasks: an idle worker ends, a busy one saves its state first."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            return

    def ask_to_stop(self) -> None:
        """Have the run save its state at the next step boundary, and the process end."""
        if not self.dead():
            self.process.send_signal(signal.SIGTERM)

    def bury(self) -> tuple[str, str]:
        """End what is left of the process and of its children; what it died of, in two words.

        Returns:
            Failure class and one line.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        self.dismiss()
        os.close(self.answers)
        last = self._last_line()
        self.output.close()
        if code >= 0:
            # Without an error it was told to stop, maybe just before it was given this run.
            failure = "bug" if code else "interrupted"
            return failure, f"the run's process ended with exit code {code}" + (
                last and f": {last}"
            )
        name = signal.Signals(-code).name
        if name == "SIGKILL" and oom_kills() > self._oom_kills:
            return "out_of_memory", "killed by SIGKILL while the machine ran out of memory"
        return "killed", f"killed by {name}"

    def _last_line(self) -> str:
        self.output.seek(0)
        lines = self.output.read().decode(errors="backslashreplace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def oom_kills() -> int:
    """How many processes the kernel has killed for memory since it started (0 if unknown)."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


# --------------------------------------------------------------------------- the executor


class LocalExecutor:
    """Keeps every slot busy until its source is empty.

    Args:
        rendezvous: folder and address where the other processes of the one worker's runs, which
            something else started, look for it; None: it starts them itself.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        slots: Sequence[Slot],
        stop: Stop,
        sweep: Path | None = None,
        *,
        rendezvous: tuple[Path, str] | None = None,
    ) -> None:
        self._rendezvous = rendezvous
        self._store = store
        self._runtime = runtime
        self._slots = slots
        self._stop = stop
        self._sweep = sweep
        self._workers: dict[int, WorkerProcess] = {}

    def __enter__(self) -> LocalExecutor:
        self._selector = selectors.DefaultSelector()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers.values():
            worker.dismiss()
        try:
            if kind is None:
                self._await_all(GRACE_SECONDS)
        finally:
            for number in list(self._workers):
                self._drop(number)
            self._selector.close()

    # ---- preflight

    def preflight(self, configs: Sequence[RunConfig]) -> list[str]:
        """See Executor; HarnessError when the worker that checks dies of it."""
        if not configs:
            return []
        for number in range(min(len(self._slots), len(configs))):
            self._worker(number)  # they import side by side while the first one checks
        worker = self._worker(0)
        trees = [config.model_dump(mode="json") for config in configs]
        worker.tell({"preflight": trees, "runtime": self._runtime_tree()})
        while not self._stop():
            self._selector.select(TICK_SECONDS)
            dead = worker.dead()
            for answer in worker.hear():
                return [answer["error"]] if "error" in answer else list(answer["problems"])
            if dead:
                _, error = self._drop(0)
                raise HarnessError(f"the first worker died while it checked the runs: {error}")
        return []

    # ---- launch

    def launch(self, source: Source, say: Say) -> None:
        """See Executor; a run whose process dies is recorded by how it died."""
        while not self._stop():
            self._fill(source)
            if not self._busy() and not len(source):
                return
            self._listen(source, say)
            source.look_elsewhere()
        say("stopping: running runs save their state (interrupt again to kill them)")
        for worker in self._workers.values():
            worker.ask_to_stop()
        if not self._await_all(GRACE_SECONDS):
            say(f"some runs did not stop within {GRACE_SECONDS:.0f} s and are killed")

    def _busy(self) -> bool:
        return any(worker.step is not None for worker in self._workers.values())

    def _fill(self, source: Source) -> None:
        for number in range(len(self._slots)):
            if number in self._workers and not self._workers[number].free:
                continue
            step = source.take()
            if step is None:
                return
            self._start(step, number)

    def _start(self, step: Step, number: int) -> None:
        directory = self._store.run_dir(step.run.key)
        attempt = directory.attempts() + 1
        task = {
            "config": step.run.config.model_dump(mode="json"),
            "root": str(self._store.root),
            "label": step.run.label,
            "log": str(directory.log_file(attempt)),
            "runtime": self._runtime_tree(),
        }
        self._worker(number).give(step, attempt, task)

    def _runtime_tree(self) -> dict[str, Any]:
        # A worker sees its slot's GPU alone, so the ordinal of the launcher is not its own.
        device = self._runtime.device.partition(":")[0]
        return {**self._runtime.model_dump(mode="json"), "device": device}

    def _worker(self, number: int) -> WorkerProcess:
        if number not in self._workers:
            worker = WorkerProcess(self._slots[number], self._sweep, self._rendezvous)
            self._workers[number] = worker
            self._selector.register(worker.answers, selectors.EVENT_READ)
        return self._workers[number]

    def _drop(self, number: int) -> tuple[str, str]:
        worker = self._workers.pop(number)
        self._selector.unregister(worker.answers)
        return worker.bury()

    def _listen(self, source: Source, say: Say) -> None:
        self._selector.select(TICK_SECONDS)
        for number, worker in list(self._workers.items()):
            dead = worker.dead()
            for answer in worker.hear():
                self._ended(worker, answer, source, say)
            if dead:
                failure, error = self._drop(number)
                if worker.step is not None:
                    self._failed(worker, failure, error, source, say)

    def _ended(
        self, worker: WorkerProcess, answer: Mapping[str, Any], source: Source, say: Say
    ) -> None:
        worker.leaving = bool(answer["leaving"])
        step = worker.step
        if step is None:
            return
        if answer["outcome"] == "held":
            source.held(step)
        elif answer["outcome"] == "interrupted":
            source.ended(step, answer["failure"])
        elif answer["outcome"] == "failed":
            self._failed(worker, answer["failure"], answer["error"], source, say)
        else:
            source.ended(step, None)
        worker.step = None

    def _failed(
        self, worker: WorkerProcess, failure: str, error: str, source: Source, say: Say
    ) -> None:
        step = worker.step
        assert step is not None
        try:
            record_failure(
                self._store.run_dir(step.run.key),
                step.run.config.evaluation_key,
                attempt=worker.attempt,
                since=worker.since,
                failure=failure,
                error=error,
            )
            source.ended(step, failure)
        except LeaseHeld:
            source.held(step)
        except (OSError, HarnessError) as problem:
            say(f"{name_of(step)}: {error}; not on record: {one_line(problem)}")
            source.ended(step, RecordError.failure)

    def _await_all(self, seconds: float) -> bool:
        """Wait for every worker to end; False if some still live after `seconds`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for number in [n for n, worker in self._workers.items() if worker.dead()]:
                self._drop(number)
            if not self._workers:
                return True
            time.sleep(TICK_SECONDS / 5)
        return False
