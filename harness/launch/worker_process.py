"""Worker processes as their launcher sees them: the process, its pipes, and the run it has."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from harness.data.shared import VARIABLE
from harness.launch.attempt import Answer, Attempt
from harness.launch.processes import ANSWER, holding_signals
from harness.launch.slots import Slot


class WorkerProcess:
    """One worker, which serves a slot from run to run.

    Args:
        rendezvous: folder and address where the other processes of its runs, which something else
            started, look for it; None: it starts them itself.
        shared: folder for the pictures that its runs share with those of other workers.
    """

    def __init__(
        self,
        slot: Slot,
        sweep: Path | None,
        rendezvous: tuple[Path, str] | None = None,
        shared: Path | None = None,
    ) -> None:
        command = [sys.executable, "-m", "harness.launch.worker"]
        command += ["--sweep", str(sweep)] if sweep is not None else []
        command += ["--rendezvous", *map(str, rendezvous)] if rendezvous is not None else []
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by bury)
        with holding_signals():
            self.process = subprocess.Popen(
                slot.command(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.output,
                env=slot.environment() | ({} if shared is None else {VARIABLE: str(shared)}),
                start_new_session=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._tasks, self.answers = self.process.stdin, self.process.stdout
        os.set_blocking(self.answers.fileno(), False)
        self.attempt: Attempt | None = None
        self.leaving = False
        self._oom_kills = oom_kills()
        self._received = b""

    @property
    def free(self) -> bool:
        """Whether it waits for a run; one that has said it is leaving does not."""
        return self.attempt is None and not self.leaving

    def give(self, attempt: Attempt, runtime: Mapping[str, Any]) -> None:
        """Hand over a run."""
        self.attempt = attempt
        self.tell(attempt.task(runtime))

    def tell(self, task: Mapping[str, Any]) -> None:
        """Hand over a task; a worker that is dead already is noticed by `dead`."""
        with contextlib.suppress(BrokenPipeError):
            self._tasks.write(json.dumps(task).encode() + b"\n")
            self._tasks.flush()

    def hear(self) -> list[Answer]:
        """The answers that have come in; what else was printed there is kept with its output."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.answers.fileno(), 65536):
                self._received += part
        *lines, self._received = self._received.split(b"\n")
        answers = [line.removeprefix(ANSWER) for line in lines if line.startswith(ANSWER)]
        for line in lines:
            if not line.startswith(ANSWER):
                self.output.write(line + b"\n")
        return [json.loads(answer) for answer in answers]

    def dead(self) -> bool:
        """Whether the process has ended; it is not reaped, so its number still is its own."""
        if self.process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, flags) is not None

    def dismiss(self) -> None:
        """No more tasks: an idle worker ends, a busy one saves its state first."""
        with contextlib.suppress(BrokenPipeError):
            self._tasks.close()

    def bury(self) -> tuple[str, str]:
        """End what is left of the process and of its children; what it died of, in two words.

        Returns:
            Failure class and one line.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        self.dismiss()
        self.answers.close()
        last = self._last_line()
        self.output.close()
        if code >= 0:
            # Without an error it was told to stop, maybe just before it was given this run.
            failure = "bug" if code else "interrupted"
            # What a shell or ssh says of a process that was killed on the other side.
            failure = "killed" if code > 128 else failure
            words = f"the run's process ended with exit code {code}"
            return failure, f"{words}: {last}" if last else words
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
