"""How the processes of a run over several nodes find one another: by a word left in a file.

SLURM started one process for each task of the job and told each its rank.  The first holds the
run; before it trains, it leaves word of the run and of the port it listens at, which is free
because it was not agreed on beforehand.  The others look for the word, and help.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import RunConfig, Runtime, validate
from harness.errors import HarnessError, InterruptedRun, RankLost, one_line
from harness.record import read_json, write_json
from harness.sweep_files import load_sweep

if TYPE_CHECKING:
    import torch

    from harness.train.ranks import Company, Ranks

LOOK_SECONDS = 0.5
_OVER = "over.json"


def rank() -> int:
    """Number of this process among those of the job."""
    return int(os.environ.get("SLURM_PROCID", "0"))


def _word(folder: Path, number: int) -> Path:
    return folder / f"run-{number}.json"


class Meeting:
    """The other processes of the job, for the first, which has the runs one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        # Whoever was here before is dead, and those who helped have left with it.
        self._lost = _word(folder, 1).exists()

    def of(self, config: RunConfig, runtime: Runtime, log: Path) -> Company:
        """Who trains this run with the calling process; see `harness.train.ranks.Company`."""

        @contextmanager
        def company(device: torch.device) -> Iterator[Ranks]:
            from harness.train.ranks import Place, open_store, together

            if self._lost:
                raise RankLost("the other processes of the job have left")
            self._lost = True
            place = Place(0, runtime.processes, 0, address=_address())
            store = open_store(place, runtime.process_timeout)
            self._number += 1
            word = {
                "config": config.model_dump(mode="json"),
                "runtime": runtime.model_dump(mode="json"),
                "address": place.address,
                "port": store.port,
            }
            write_json(_word(self._folder, self._number), word)
            with together(place, store, device, runtime.process_timeout) as ranks:
                yield ranks
            self._lost = False  # nobody leaves a run that went well

        return company

    def dismiss(self) -> None:
        """Let the others be: they end with the job."""


def _address() -> str:
    return os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or socket.gethostname()


def part(folder: Path) -> None:
    """Tell the others that there are no more runs."""
    write_json(folder / _OVER, {})


def help_with_runs(folder: Path, sweep: str | None, stop: Callable[[], bool]) -> int:
    """Help the first process until it has no more runs, one fails, or a stop is asked for."""
    if sweep is not None:
        load_sweep(sweep)
    import harness.run  # noqa: F401 - heavy, so ahead of the first run

    number = 1
    while not stop() and not (folder / _OVER).exists():
        word = read_json(_word(folder, number))
        if word is None:
            time.sleep(LOOK_SECONDS)
            continue
        if not _help(word, stop):
            return 1
        number += 1
    return 0


def _help(word: dict[str, Any], stop: Callable[[], bool]) -> bool:
    from harness import run
    from harness.train.ranks import Place

    config, runtime = validate(RunConfig, word["config"]), validate(Runtime, word["runtime"])
    local_rank = int(os.environ.get("SLURM_LOCALID", "0"))
    place = Place(rank(), runtime.processes, local_rank, word["address"], word["port"])
    try:
        run.assist(config, runtime, place, stop=stop)
    except InterruptedRun:
        return False
    except HarnessError as error:
        print(f"rank {place.rank}: {one_line(error)}", file=sys.stderr, flush=True)
        return False
    return True
