"""A process that helps another to train its runs, as it is told on its standard input.

Each line read is a run that it is to be one of the processes of (`harness.run.assist`).  It writes
to no run's directory but what it prints, to the log of the attempt.  When the input ends, so does
the process: the one that has the run is gone.  Started by `harness.launch.companions`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from harness.config import RunConfig, Runtime, validate
from harness.errors import HarnessError, InterruptedRun, one_line
from harness.launch.base import Stop
from harness.launch.worker import print_to
from harness.sweep_files import load_sweep


def main(argv: Sequence[str] | None = None) -> int:
    """Help until standard input ends, a run fails, or a stop was asked for."""
    parser = argparse.ArgumentParser(prog="python -m harness.launch.rank", description=__doc__)
    parser.add_argument("--sweep", help="sweep file, for the parts that it registers")
    args = parser.parse_args(argv)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stop = Stop()
    tasks: SimpleQueue[dict[str, Any] | None] = SimpleQueue()

    def ask_to_stop(*_: object) -> None:
        stop.ask()
        tasks.put(None)

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    threading.Thread(target=_read, args=(tasks,), name="tasks", daemon=True).start()
    if args.sweep is not None:
        load_sweep(args.sweep)
    import harness.run  # noqa: F401 - heavy, so ahead of the first run

    while (task := tasks.get()) is not None:
        if not _assist(task, stop):
            return 1
    return 0


def _read(tasks: SimpleQueue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(1)  # in the midst of an exchange nothing less ends the process


def _assist(task: dict[str, Any], stop: Stop) -> bool:
    """Whether the run went well, so that this process may help with another."""
    from harness import run
    from harness.train.ranks import Place

    descriptor = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    print_to(descriptor)
    os.close(descriptor)
    rank = task["rank"]
    place = Place(rank, task["size"], rank, port=task["port"])
    config, runtime = validate(RunConfig, task["config"]), validate(Runtime, task["runtime"])
    try:
        run.assist(config, runtime, place, stop=stop)
    except InterruptedRun:
        return False
    except HarnessError as error:
        print(f"rank {rank}: {one_line(error)}", file=sys.stderr)
        return False
    except Exception:  # noqa: BLE001 - the boundary of a process, whose first one has the record
        print(f"rank {rank}:\n{traceback.format_exc()}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
