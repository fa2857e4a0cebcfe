"""What is to be submitted, and what came of it; what speaks against it before anything is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.config import Runtime
from harness.errors import ConfigError, HarnessError
from harness.launch.backlog import Say
from harness.launch.executor import Assignment
from harness.launch.profiles import DEFAULT, Profile
from harness.launch.slurm.freeze import Frozen
from harness.launch.slurm.places import QueuePlace
from harness.launch.slurm.submissions import Intent, Submission, newest
from harness.planning.plan import Rerun
from harness.store.record import Store


class HeldBack(HarnessError):
    """The sweep holds itself back: its first tasks died of the same error."""

    exit_code = 3


@dataclass(frozen=True)
class JobOrder(Assignment):
    """An assignment that is to be submitted, and how.

    Attributes:
        rehearse: whether a rehearsal must go well first.
        frozen: the code that is to run; None: that of the calling process, as it is now.
        round: how many submissions before this one followed each other by themselves.
        move: whether runs that wait in the queue are taken out of it and submitted anew.
    """

    profile: Profile = field(default_factory=Profile)
    profile_name: str = DEFAULT
    move: bool = False
    rehearse: bool = False
    frozen: Frozen | None = None
    round: int = 0

    @classmethod
    def again(cls, intent: Intent) -> JobOrder:
        """That of an earlier submission, with the code that it had."""
        file = None if intent.sweep_file is None else Path(intent.sweep_file)
        return cls(
            store=Store(Path(intent.root)),
            runtime=intent.runtime,
            sweep=intent.sweep,
            sweep_file=file,
            report=intent.report_command or None,
            profile=intent.profile,
            profile_name=intent.profile_name,
            frozen=Frozen(Path(intent.code), file, intent.code_sha256),
            round=intent.round,
            waves=intent.waves,
            share_data=intent.profile.share_data,
        )


@dataclass(frozen=True)
class Submitted:
    """What came of an order.

    Attributes:
        submission: None if nothing had to be submitted.
        arrays: number of each array -> how many jobs it has.
        places: where in the queue the runs are that were there before.
        left: runs that sbatch did not take, and its words.
    """

    submission: Submission | None
    arrays: Mapping[str, int]
    keys: frozenset[str]
    places: Mapping[str, QueuePlace]
    report: str | None = None
    left: tuple[str, ...] = ()
    rehearsal: str | None = None

    @property
    def unsure(self) -> int:
        """How many of `places` nobody knows to be in the queue."""
        return sum(place.unsure for place in self.places.values())

    @property
    def exit_code(self) -> int:
        """0 if every run is in the queue, else 3."""
        return 3 if self.left or self.unsure else 0


# --------------------------------------------------------------------------- checks


def with_processes(profile: Profile, runtime: Runtime, *, given: bool) -> Runtime:
    """`runtime` with a process for each GPU of a job, unless the number is the user's word.

    Raises:
        ConfigError: the processes of a run cannot be spread over the nodes.
    """
    if profile.pack > 1 and profile.nodes > 1:
        raise ConfigError(
            f"pack = {profile.pack} with nodes = {profile.nodes}: several runs side by side are "
            "for one node"
        )
    processes = runtime.processes
    if not given and profile.pack == 1:
        processes = profile.nodes * max(1, profile.gpus)
    if processes % profile.nodes:
        raise ConfigError(
            f"runtime.processes = {processes} cannot be spread over nodes = {profile.nodes}"
        )
    return runtime.model_copy(update={"processes": processes})


#: Field of a profile -> variable of sbatch's own that says it where the profile does not.
_SAID_BY = {
    "account": "SBATCH_ACCOUNT",
    "partition": "SBATCH_PARTITION",
    "qos": "SBATCH_QOS",
    "reservation": "SBATCH_RESERVATION",
    "constraint": "SBATCH_CONSTRAINT",
}
_CLUSTERS = ("SLURM_CLUSTERS", "SBATCH_CLUSTERS")


def with_environment(profile: Profile, say: Say) -> Profile:
    """`profile` with what variables of sbatch say that it leaves open; others are told, not taken.

    Raises:
        ConfigError: they name other clusters, whose jobs would be looked for in vain.
    """
    for name in filter(os.environ.get, _CLUSTERS):
        raise ConfigError(
            f"{name}={os.environ[name]}: jobs go to the cluster of this machine's slurm.conf and "
            f"are looked for there alone; unset it, or let SLURM_CONF name the other's"
        )
    taken: dict[str, str] = {}
    for field_name, name in _SAID_BY.items():
        value, own = os.environ.get(name), getattr(profile, field_name)
        if value and own is None:
            taken[field_name] = value
            say(f"{name}: {field_name} = {value}")
        elif value and value != own:
            say(f"{name}={value} is not taken: the profile says {field_name} = {own}")
    left = sorted(n for n in os.environ if n.startswith("SBATCH_") and n not in _SAID_BY.values())
    if left:
        say(f"not taken: {', '.join(left)}; a profile says such things in extra")
    return profile.model_copy(update=taken)


def check_time(profile: Profile, runtime: Runtime) -> None:
    """ConfigError when the time limit leaves no room for a single checkpoint."""
    room = profile.time - profile.warning_seconds
    if room < runtime.checkpoint_seconds:
        raise ConfigError(
            f"time = {profile.time_text(profile.time)} with {profile.warning_seconds} s to save "
            f"in leaves {room} s, less than one checkpoint interval (runtime.checkpoint_seconds "
            f"= {runtime.checkpoint_seconds:g}): such a run never ends"
        )


def check_not_held(store: Store, sweep: str, rerun: Rerun) -> None:
    """HeldBack, saying why, until failed runs are asked for again."""
    last = newest(store, sweep)
    reason = None if last is None else last.held()
    if reason is not None and rerun not in {Rerun.FAILED, Rerun.ALL}:
        raise HeldBack(
            f"{sweep} holds itself back: {reason}; when that is mended, the same command with "
            "--rerun failed goes on"
        )
