"""What an executor is, and where a command finds the one that was asked for by name.

An executor is one file, in `executors/` or a sweep file: a subclass of Executor, registered under
its name, that says which options of the command line are its own and how runs are run.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from harness.config import RunConfig, Runtime
from harness.errors import ConfigError, InterruptedRun
from harness.launch.backlog import Backlog, Say, StepSource
from harness.launch.processes import Stop, stop_on_signals
from harness.launch.slots import Capacity
from harness.planning.plan import Rerun, Step
from harness.registry import Registry
from harness.store.record import Store

REPORT_ONLY = "--report-only"
"""Option of the command that reports and starts nothing."""


@dataclass(frozen=True)
class Option:
    """An option of the command line for some executors alone; without it, its value is None.

    Attributes:
        keywords: of `add_argument`, beside the help.
    """

    flag: str
    help: str
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What its value is called in the parsed arguments."""
        return self.flag.lstrip("-").replace("-", "_")

    def value(self, args: Namespace) -> Any:
        """What was given; None if it was not."""
        return getattr(args, self.name, None)


SLOTS = Option(
    "--slots", "runs side by side (default: a GPU or a core each)", {"type": int, "metavar": "N"}
)
SHARE = Option(
    "--share-data",
    "decode once for runs side by side that see the same pictures",
    {"action": "store_true"},
)


@dataclass(frozen=True)
class Assignment:
    """What an executor is for.

    Attributes:
        sweep: name of the sweep, or of a search.
        sweep_file: for the parts that it registers.
        given: the fields of the runtime that are the user's word.
        report: what writes the report in the end, after `python`; None: nothing does.
        search: whether steps are handed out as the launch goes on.
        waves: whether other runs follow from what these come to.
        share_data: whether runs side by side have their pictures from one another.
    """

    store: Store
    runtime: Runtime
    sweep: str = ""
    sweep_file: Path | None = None
    given: frozenset[str] = frozenset()
    report: tuple[str, ...] | None = None
    search: bool = False
    waves: bool = False
    share_data: bool = False


Watching = Callable[
    [Sequence[Step], Store, Callable[[], Mapping[str, Any]]], AbstractContextManager[Say]
]
"""Shows how the runs of steps stand until left, with their places in a scheduler's queue as far as
those are known; yields what prints a line beside."""


class Executor(AbstractContextManager[Any], ABC):
    """Runs what a plan left pending; leaving the context ends every process it started.

    Attributes:
        options: of the command line, that this one takes.
        work: may be replaced before the context is entered.
        stop: raised by whoever wants the launch to stop.
    """

    options: ClassVar[tuple[Option, ...]] = ()

    def __init__(self, work: Assignment, stop: Stop | None = None) -> None:
        self.work = work
        self.stop = stop or Stop()

    @classmethod
    def of(cls, work: Assignment, args: Namespace) -> Self:
        """The one that a command line asks for; ConfigError if it asks for the impossible."""
        return cls(work)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing of it is left on this machine."""

    @property
    def side_by_side(self) -> int:
        """Runs at a time on one machine, where they may share their pictures."""
        return 1

    @abstractmethod
    def capacity(self, runs: int) -> Capacity:
        """What runs at a time of so many runs."""

    def script(self, steps: Sequence[Step]) -> str | None:
        """What a scheduler would be handed first for `steps`, with a heading; None without one."""
        return None

    @abstractmethod
    def preflight(self, configs: Sequence[RunConfig]) -> list[str]:
        """One line for each thing that would make a run fail at its start; starts no run."""

    @abstractmethod
    def launch(self, source: StepSource, say: Say) -> None:
        """Run every step there is; return when there are no more or a stop was asked for.

        `say` prints a line for what no run's file can tell.  A run that fails, or whose process
        dies, leaves its record in its directory and never ends the launch.
        """

    def carry_out(
        self,
        steps: Sequence[Step],
        put_on_file: Callable[[], None],
        watching: Watching,
        rerun: Rerun,
    ) -> int | None:
        """Bring the pending steps of a sweep on their way; None when its report is due.

        Args:
            put_on_file: called once nothing speaks against the runs, before any of them starts.
            rerun: what was asked for.

        Returns:
            The exit code of a command that has nothing more to do.
        """
        pending = [step for step in steps if step.pending]
        if not pending:
            put_on_file()
            return None
        with stop_on_signals(self.stop), self:
            print(f"checking models and data of {len(pending)} runs before any of them starts")
            problems = self.preflight([step.run.config for step in pending])
            for line in problems:
                print(f"error: {line}", file=sys.stderr)
            if problems:
                return ConfigError.exit_code
            put_on_file()
            with watching(pending, self.work.store, dict) as say:
                backlog = Backlog(pending, self.work.store, say, alike=self.work.share_data)
                self.launch(backlog, say)
        return InterruptedRun.exit_code if self.stop.asked else None


EXECUTORS: Registry[type[Executor]] = Registry("executor", "harness.launch.executors")


def add_options(parser: ArgumentParser) -> None:
    """`--executor`, and the options of every executor there is, each once."""
    names = f"{{{','.join(EXECUTORS)}}}"
    parser.add_argument("--executor", metavar=names, default="local", help="default: local")
    for option, owners in _owners():
        text = option.help if len(owners) > 1 else f"{owners[0]}: {option.help}"
        parser.add_argument(option.flag, help=text, default=None, **option.keywords)


def make_executor(args: Namespace, work: Assignment) -> Executor:
    """The executor that a command line asks for.

    Raises:
        ConfigError: there is none of this name, or an option is for others or of no use.
    """
    kind = EXECUTORS.get(args.executor)
    for option, owners in _owners():
        if option.value(args) is not None and args.executor not in owners:
            raise ConfigError(f"{option.flag} is for --executor {' or '.join(owners)}")
    return kind.of(work, args)


def _owners() -> list[tuple[Option, list[str]]]:
    """Every option, with the names of the executors that take it."""
    options = {option.flag: option for name in EXECUTORS for option in EXECUTORS.get(name).options}
    return [
        (option, [name for name in EXECUTORS if option in EXECUTORS.get(name).options])
        for option in options.values()
    ]
