"""What is to be submitted, from an order to the jobs of its submission, and what came of it.

What speaks against an order is found here too, before anything is submitted.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from harness.config import Runtime
from harness.config.pipes import check_pipes
from harness.errors import ConfigError, HarnessError, refuse_controls
from harness.launch.backlog import Say, estimate, those_alike_together
from harness.launch.executor import Assignment
from harness.launch.profiles import DEFAULT, Profile
from harness.launch.slurm.freeze import Frozen
from harness.launch.slurm.launching import Launch
from harness.launch.slurm.limits import Limits
from harness.launch.slurm.places import QueuePlace
from harness.launch.slurm.script import BatchJob
from harness.launch.slurm.submissions import REPORT, Array, Intent, Submission, newest
from harness.planning.plan import Rerun, Step
from harness.store.record import Store

REPORT_SECONDS = 3600
REPORT_MEMORY = "4G"
#: Of a profile's own options of sbatch, those that ask for nothing a report does not need.
_LIGHT_EXTRA = frozenset(
    {"comment", "get-user-env", "licenses", "mail-type", "mail-user", "nice", "priority", "wckey"}
)


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
        frozen = frozen_code_of(intent)
        return cls(
            store=intent.store,
            runtime=intent.runtime,
            sweep=intent.sweep,
            sweep_file=frozen.sweep,
            report=intent.report_command or None,
            profile=intent.profile,
            profile_name=intent.profile_name,
            frozen=frozen,
            round=intent.round,
            waves=intent.waves,
            share_data=intent.profile.share_data,
        )


def frozen_code_of(intent: Intent) -> Frozen:
    """The code that a submission runs."""
    file = None if intent.sweep_file is None else Path(intent.sweep_file)
    return Frozen(Path(intent.code), file, intent.code_sha256)


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


# --------------------------------------------------------------------------- what is submitted


def intent_of(
    steps: Sequence[Step],
    order: JobOrder,
    frozen: Frozen,
    per_task: int | None = None,
    array_size: int = Limits.array,
) -> Intent:
    """What is to be submitted, in tasks of `per_task` runs (None: the profile's)."""
    now = datetime.now()  # to the microsecond: submissions are ordered by it
    refuse_controls("the working directory", os.getcwd())
    own_id = f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    name = safe_name(f"{order.sweep}-{own_id}")
    profile = order.profile
    return Intent(
        id=own_id,
        sweep=order.sweep,
        arrays=_arrays(steps, per_task or profile.pack, array_size, name, alike=profile.share_data),
        profile=profile,
        profile_name=order.profile_name,
        runtime=order.runtime,
        root=str(order.store.root),
        code=str(frozen.path),
        sweep_file=None if frozen.sweep is None else str(frozen.sweep),
        cwd=os.getcwd(),
        command=shlex.join(sys.argv),
        created=round(now.timestamp(), 3),
        report=None if order.report is None else f"{name}-{REPORT}",
        report_command=tuple(
            str(frozen.sweep) if word == str(order.sweep_file) else word
            for word in order.report or ()
        ),
        round=order.round,
        by={"host": socket.gethostname(), "pid": os.getpid(), "uid": os.getuid()},
        code_sha256=frozen.sha256,
        waves=order.waves,
        pipes=tuple(dict.fromkeys(p for s in steps for p in check_pipes(s.run.config.data.path))),
    )


def safe_name(name: str) -> str:
    """`name` as a job may be called."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _arrays(
    steps: Sequence[Step], per_task: int, array_size: int, name: str, *, alike: bool
) -> tuple[Array, ...]:
    """Runs of similar length share a task; those that need another's weights come after it.

    Args:
        alike: runs that see the same pictures are put together first.
    """
    here = {step.run.key for step in steps}
    waves = [[s for s in steps if here.isdisjoint(s.waits_for) is first] for first in (True, False)]
    arrays: list[Array] = []
    for wave in waves:
        after = tuple(array.name for array in arrays)
        ordered = sorted(wave, key=estimate, reverse=True)
        ordered = those_alike_together(ordered) if alike else ordered
        keys = [step.run.key for step in ordered]
        tasks = [tuple(keys[i : i + per_task]) for i in range(0, len(keys), per_task)]
        for first in range(0, len(tasks), array_size):
            chunk = tuple(tasks[first : first + array_size])
            arrays.append(Array(f"{name}-{len(arrays)}", chunk, after))
    return tuple(arrays)


def array_job(intent: Intent, submission: Submission, number: int) -> BatchJob:
    """Array `number` of a submission."""
    array, profile = intent.arrays[number], intent.profile
    module = "harness.launch.slurm.supervisor"
    command = ("-m", module, str(submission.folder), str(number), "--sha256", intent.sha256)
    several_nodes = profile.nodes > 1
    processes = intent.runtime.processes // profile.nodes if several_nodes else 1
    cpus = profile.cpus if several_nodes else profile.cpus * intent.runtime.processes * profile.pack
    size = {"cpus": cpus, "memory": profile.memory_text(profile.pack)}
    return BatchJob(
        name=array.name,
        command=command,
        afterwards=(*command, "--after"),
        profile=profile.model_copy(update=size),
        frozen=frozen_code_of(intent),
        cwd=intent.cwd,
        logs=submission.logs,
        count=len(array.tasks),
        processes=processes,
        launch=Launch(submission.folder, number),
    )


def report_job(submission: Submission, after: Sequence[str], limits: Limits) -> BatchJob:
    """The job that writes the report when the jobs `after` are over."""
    intent = submission.read()
    module = "harness.launch.slurm.report_job"
    return BatchJob(
        name=str(intent.report),
        command=("-m", module, str(submission.folder), "--sha256", intent.sha256),
        profile=_light(intent.profile, limits),
        frozen=frozen_code_of(intent),
        cwd=intent.cwd,
        logs=submission.logs,
        after=tuple(after),
    )


def _light(profile: Profile, limits: Limits) -> Profile:
    """What a report asks for: as the runs, but no GPU and little of everything."""
    changes: dict[str, object] = {
        "gpus": 0,
        "nodes": 1,
        "cpus": 1,
        "pack": 1,
        "time": min(REPORT_SECONDS, limits.report_seconds or REPORT_SECONDS),
        "memory": profile.memory and REPORT_MEMORY,
        "extra": {k: v for k, v in profile.extra.items() if k in _LIGHT_EXTRA},
    }
    if profile.report_partition is not None:
        changes |= {"partition": profile.report_partition, "qos": None, "constraint": None}
    return profile.model_copy(update=changes)
