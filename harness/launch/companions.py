"""The other processes of a run that several train: started beside the first, and watched by it.

They are children of the process that has the run, serve it from run to run so that imports are paid
once, and end with it, since their standard input does.  Torch-free until a run begins.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config import RunConfig, Runtime
from harness.errors import RankLost

if TYPE_CHECKING:
    import torch

    from harness.train.ranks import Company, Ranks

WATCH_SECONDS = 1.0
"""How often dead processes are looked for."""
GRACE_SECONDS = 30.0
"""How long after the death of one a run has to notice it: NCCL may wait for ever."""


class Companions:
    """The processes of rank 1 and up, of one run at a time, on this machine."""

    def __init__(self, sweep: str | Path | None) -> None:
        self._sweep = sweep
        self._children: list[subprocess.Popen[bytes]] = []

    def of(self, config: RunConfig, runtime: Runtime, log: Path) -> Company:
        """Who trains this run with the calling process, by `runtime.processes`.

        They begin to import at once.  What they print goes to `log`.
        """
        from harness.train.ranks import alone

        if runtime.processes == 1:
            return alone
        self._start(runtime.processes - 1)

        @contextmanager
        def company(device: torch.device) -> Iterator[Ranks]:
            try:
                with self._together(config, runtime, log, device) as ranks:
                    yield ranks
            except BaseException:
                self.dismiss()  # wherever they are in a run that is over, they are no use
                raise

        return company

    def dismiss(self) -> None:
        """End them, whatever they do: they have nothing to save."""
        for child in self._children:
            child.kill()
            child.wait()
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        self._children = []

    @contextmanager
    def _together(
        self, config: RunConfig, runtime: Runtime, log: Path, device: torch.device
    ) -> Iterator[Ranks]:
        from harness.train.ranks import Place, open_store, together

        self._start(runtime.processes - 1)
        log.parent.mkdir(parents=True, exist_ok=True)
        place = Place(0, runtime.processes, 0)
        store = open_store(place, runtime.process_timeout)
        task = {
            "config": config.model_dump(mode="json"),
            "runtime": runtime.model_dump(mode="json"),
            "log": str(log),
            "size": runtime.processes,
            "port": store.port,
        }
        for rank, child in enumerate(self._children, 1):
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # a dead one is noticed by _check
                child.stdin.write(json.dumps({**task, "rank": rank}).encode() + b"\n")
                child.stdin.flush()
        with (
            self._watched(),
            together(place, store, device, runtime.process_timeout, self._check) as ranks,
        ):
            yield ranks

    def _start(self, count: int) -> None:
        """Have `count` of them alive."""
        if len(self._children) != count or self._dead() is not None:
            self.dismiss()
        command = [sys.executable, "-m", "harness.launch.rank"]
        command += [] if self._sweep is None else ["--sweep", str(self._sweep)]
        while len(self._children) < count:
            self._children.append(subprocess.Popen(command, stdin=subprocess.PIPE))

    def _dead(self) -> str | None:
        for rank, child in enumerate(self._children, 1):
            code = child.poll()
            if code is not None:
                how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                return f"the process of rank {rank} ended: {how}"
        return None

    def _check(self) -> None:
        dead = self._dead()
        if dead is not None:
            raise RankLost(dead)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End this process, and so put the run on record as killed, if it hangs on a dead one."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(WATCH_SECONDS):
                dead = self._dead()
                if dead is not None and not over.wait(GRACE_SECONDS):
                    print(f"{dead}, and training hangs on it", file=sys.stderr, flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)

        thread = threading.Thread(target=watch, name="companions", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
