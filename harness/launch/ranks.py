"""The processes of a run but the first: how they come about, find the first one, and help it.

On one machine the process that has the run starts them (`Spawned`): they serve it from run to run,
so that imports are paid once, and end with it, since their standard input does.  On several, a
scheduler has started them: the first leaves word of each run, and of the port it listens at, which
is free because it was not agreed on beforehand, in a folder that all can see (`Rendezvous`).
Torch-free until a run begins.

    python -m harness.launch.ranks RANK [--sweep FILE]     one of those that are started
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config import RunConfig, Runtime, validate
from harness.config.sweep_files import load_sweep
from harness.errors import HarnessError, InterruptedRun, RankLost, one_line
from harness.files import read_json, write_json
from harness.launch.own_process import begin_process
from harness.launch.processes import Inbox, Stop, Task, print_to

if TYPE_CHECKING:
    import torch

    from harness.train.distributed import JoinGroup, ProcessGroup

WATCH_SECONDS = 1.0
"""How often dead processes are looked for."""
GRACE_SECONDS = 30.0
"""How long after the death of one a run has to notice it: NCCL may wait for ever."""
LOOK_SECONDS = 0.5
"""Between two looks for the next run of a rendezvous."""
_OVER = "over.json"


@contextmanager
def _first_of(
    config: RunConfig,
    runtime: Runtime,
    device: torch.device,
    tell: Callable[[Task], None],
    *,
    address: str = "127.0.0.1",
    check: Callable[[], None] = lambda: None,
) -> Iterator[ProcessGroup]:
    """This process as rank 0 of a run, once it has told the others where it listens."""
    from harness.train.distributed import RankAddress, open_store, process_group

    place = RankAddress(0, runtime.processes, 0, address)
    store = open_store(place, runtime.process_timeout)
    tell(
        {
            "config": config.model_dump(mode="json"),
            "runtime": runtime.model_dump(mode="json"),
            "address": address,
            "port": store.port,
        }
    )
    with process_group(place, store, device, runtime.process_timeout, check) as ranks:
        yield ranks


def _alone(device: torch.device) -> AbstractContextManager[ProcessGroup]:
    from harness.train.distributed import single_process

    return single_process(device)


# --------------------------------------------------------------------------- started from here


class Spawned:
    """Processes on this machine, started when they are wanted, and watched."""

    def __init__(self, sweep: str | Path | None) -> None:
        self._sweep = sweep
        self._children: list[subprocess.Popen[bytes]] = []

    def of(self, config: RunConfig, runtime: Runtime, log: Path) -> JoinGroup:
        """Who trains this run with the calling process, by `runtime.processes`.

        They begin to import at once.  What they print goes to `log`.
        """
        if runtime.processes == 1:
            return _alone
        self._start(runtime.processes - 1)
        return partial(self._together, config, runtime, log)

    @contextmanager
    def _together(
        self, config: RunConfig, runtime: Runtime, log: Path, device: torch.device
    ) -> Iterator[ProcessGroup]:
        self._start(runtime.processes - 1)

        def tell(task: Task) -> None:
            self._tell({**task, "log": str(log)})

        first = _first_of(config, runtime, device, tell, check=self._check)
        try:
            with self._watched(), first as ranks:
                yield ranks
        except BaseException:
            self.dismiss()  # wherever they are in a run that is over, they are no use
            raise

    def dismiss(self) -> None:
        """End them, whatever they do: they have nothing to save."""
        for child in self._children:
            child.kill()
            child.wait()
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        self._children = []

    def _start(self, count: int) -> None:
        """Have `count` of them alive."""
        if len(self._children) != count or self._dead() is not None:
            self.dismiss()
        sweep = [] if self._sweep is None else ["--sweep", str(self._sweep)]
        while len(self._children) < count:
            rank = str(len(self._children) + 1)
            command = [sys.executable, "-m", "harness.launch.ranks", rank, *sweep]
            self._children.append(subprocess.Popen(command, stdin=subprocess.PIPE))

    def _tell(self, task: Task) -> None:
        for child in self._children:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # a dead one is noticed by _check
                child.stdin.write(json.dumps(task).encode() + b"\n")
                child.stdin.flush()

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

        thread = threading.Thread(target=watch, name="ranks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


# --------------------------------------------------------------------------- started elsewhere


class Rendezvous:
    """Processes that a scheduler started, and that look into `folder`.

    Args:
        address: where they find this process, on their network.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._address = address
        self._number = 0
        # Whoever was here before is dead, and those who helped have left with it.
        self._lost = _run_file(folder, 1).exists()

    def of(self, config: RunConfig, runtime: Runtime, log: Path) -> JoinGroup:
        """Who trains this run with the calling process; see Spawned."""
        return partial(self._together, config, runtime)

    @contextmanager
    def _together(
        self, config: RunConfig, runtime: Runtime, device: torch.device
    ) -> Iterator[ProcessGroup]:
        if self._lost:
            raise RankLost("the other processes of the job have left")
        self._lost = True
        with _first_of(config, runtime, device, self._tell, address=self._address) as ranks:
            yield ranks
        self._lost = False  # nobody leaves a run that went well

    def _tell(self, task: Task) -> None:
        self._number += 1
        write_json(_run_file(self._folder, self._number), task)

    def dismiss(self) -> None:
        """Let them be: they are told by `end_rendezvous`, or end with the job."""


def end_rendezvous(folder: Path) -> None:
    """Tell the processes that look into `folder` that there are no more runs."""
    write_json(folder / _OVER, {})


def runs_of_rendezvous(folder: Path, stop: Callable[[], bool]) -> Iterator[Task]:
    """The runs of which word is left in `folder`, until there are no more, or a stop is asked."""
    number = 1
    while not stop() and not (folder / _OVER).exists():
        task = read_json(_run_file(folder, number))
        if task is None:
            time.sleep(LOOK_SECONDS)
        else:
            yield task
            number += 1


def _run_file(folder: Path, number: int) -> Path:
    return folder / f"run-{number}.json"


OtherRanks = Spawned | Rendezvous
"""The processes of rank 1 and up, of one run at a time."""


# --------------------------------------------------------------------------- one of them


def main(argv: Sequence[str] | None = None) -> int:
    """Help until standard input ends, a run fails, or a stop is asked for."""
    begin_process()
    parser = argparse.ArgumentParser(prog="python -m harness.launch.ranks", description=__doc__)
    parser.add_argument("rank", type=int, help="number of this process, from 1")
    parser.add_argument("--sweep", help="sweep file, for the parts that it registers")
    args = parser.parse_args(argv)
    stop = Stop()
    # In the midst of an exchange nothing less ends the process.
    inbox = Inbox(stop, at_end=lambda: os._exit(1))
    return help_with(inbox, args.sweep, stop, rank=args.rank, local_rank=args.rank)


def help_with(
    tasks: Iterable[Task],
    sweep: str | None,
    stop: Callable[[], bool],
    *,
    rank: int,
    local_rank: int,
) -> int:
    """Be one of the processes of one run after the other; 1 as soon as one did not go well."""
    if sweep is not None:
        load_sweep(sweep)
    import harness.run  # noqa: F401 - heavy, so ahead of the first run

    return 0 if all(_assist(task, stop, rank, local_rank) for task in tasks) else 1


def _assist(task: Task, stop: Callable[[], bool], rank: int, local_rank: int) -> bool:
    """Whether the run went well, so that this process may help with another."""
    from harness import run
    from harness.train.distributed import RankAddress

    if "log" in task:
        print_to(Path(task["log"]))
    config, runtime = validate(RunConfig, task["config"]), validate(Runtime, task["runtime"])
    place = RankAddress(rank, runtime.processes, local_rank, task["address"], task["port"])
    try:
        run.assist(config, runtime, place, stop=stop)
    except InterruptedRun:
        return False
    except HarnessError as error:
        print(f"rank {rank}: {one_line(error)}", file=sys.stderr, flush=True)
        return False
    except Exception:  # noqa: BLE001 - the boundary of a process, whose first one has the record
        print(f"rank {rank}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
