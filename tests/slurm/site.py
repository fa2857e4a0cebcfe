"""A user's folder on a login node: commands given there, jobs they led to, what became of runs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.store.lease import lease_holder
from harness.store.record import RunDir, Store
from harness.store.state import Status
from tests.slurm.cluster import Cluster

GONE = {None, "Z"}
"""States of a process that reads no more."""
SWEEP_FILE = Path(__file__).with_name("paced.py")
FIRST_RESOLUTION = 8
PROFILES = """
[tool.harness.profiles.low]
partition = "low"
time = 30
memory = "2G"
signal_seconds = 10
exclude = ["{quiet}"]

[tool.harness.profiles.quiet]
partition = "low"
time = 30
memory = "2G"
signal_seconds = 10
extra = {{ nodelist = "{quiet}" }}

[tool.harness.profiles.bare]
partition = "low"
time = 30
memory = "2G"

[tool.harness.profiles.broken]
partition = "low"
time = 30
memory = "2G"
setup = ["echo 'no such module: cuda/99' >&2; exit 7"]

[tool.harness.profiles.typed]
partition = "low"
time = 30
memory = "2G"
gpus = 1
gpu = "fake"

[tool.harness.profiles.two-nodes]
partition = "low"
time = 30
memory = "2G"
nodes = 2
exclude = ["{quiet}"]

[tool.harness.profiles.limited]
partition = "low"
time = 30
memory = "2G"
signal_seconds = 240
extra = {{ nodelist = "{quiet}" }}
"""
"""On the last node of a cluster, to which no test does anything, or on all others."""
QUICK = ("runtime.decode_cache_mb=0", "runtime.checkpoint_seconds=0.5", "runtime.log_seconds=0.2")
"""Every picture is read each time, and what a killed run loses is little."""


@dataclass(frozen=True)
class Bits:
    """What a finished run came to; `key` names the run and is no part of a comparison."""

    key: str = field(compare=False)
    sha256: str
    evaluations: Mapping[str, Any]
    """Key of the protocol -> key of all that decides the numbers, and the numbers."""


@dataclass(frozen=True)
class Reader:
    """A process that read pictures in a job, and when, in seconds of the epoch."""

    run: int
    job: str
    restarts: int
    pid: int
    first: float
    last: float


@dataclass(frozen=True)
class Job:
    """A line of squeue: a job, or a task of an array."""

    id: str
    name: str
    state: str
    node: str
    folder: str


def number_of(directory: RunDir) -> int:
    """Which run of the paced sweep has this directory."""
    return directory.read_config().data.resolution - FIRST_RESOLUTION


def bits_of(root: Path) -> dict[int, Bits]:
    """Number -> bits, of every finished run below `root`."""
    found = {}
    for file in Store(root).runs.glob("*/result.json"):
        directory = RunDir(file.parent)
        result = directory.finished()
        evaluations = {
            key: (entry["content_key"], entry["metrics"])
            for key, entry in result["evaluations"].items()
        }
        bits = Bits(directory.key, result["checkpoint"]["sha256"], evaluations)
        found[number_of(directory)] = bits
    return found


def table_of(root: Path) -> list[str]:
    """The rows of the report's table, without what a clock measured."""
    text = (root / "reports" / "paced" / "table.csv").read_text()
    return [line for line in text.splitlines() if "cost/latency_ms/" not in line]


class Site:
    """The folder `root`, with data, profiles and a sweep of its own, on a cluster."""

    def __init__(self, root: Path, cluster: Cluster, pictures: Path) -> None:
        self.root, self.cluster = root, cluster
        self.store = Store(root)
        self.sweep_file = root / "paced.py"
        self.data = root / "data" / "shapes"
        self.bin = root / "bin"
        self.user: pwd.struct_passwd | None = None
        """Who gives the commands; None: whoever runs the tests."""
        self.umask = 0o002
        for name in ("bin", "data/control", "data/trace"):
            (root / name).mkdir(parents=True)
        shutil.copytree(pictures, self.data)
        shutil.copy(SWEEP_FILE, self.sweep_file)
        (root / "pyproject.toml").write_text(PROFILES.format(quiet=cluster.nodes[-1]))

    # ---- commands

    @property
    def environment(self) -> dict[str, str]:
        """Of a shell here; programs in `bin` come first."""
        there = {**self.cluster.environment, "OMP_NUM_THREADS": "1"}
        there["PATH"] = f"{self.bin}:{there['PATH']}"
        if self.user is None:
            return there
        kept = {name: there[name] for name in ("PATH", "SLURM_CONF", "OMP_NUM_THREADS")}
        packages = os.pathsep.join(self._packages())
        return {**kept, "HOME": self.user.pw_dir, "PYTHONPATH": packages}

    @staticmethod
    def _packages() -> list[str]:
        """Folders that a Python of the system finds in the place of this one's."""
        return [str(Path(__file__).parents[2]), sysconfig.get_path("purelib")]

    @property
    def python(self) -> str:
        """An interpreter that whoever gives the commands may run."""
        return sys.executable if self.user is None else python_of_all()

    @property
    def identity(self) -> dict[str, Any]:
        """Arguments of subprocess for whoever gives the commands."""
        if self.user is None:
            return {}
        name, group = self.user.pw_name, self.user.pw_gid
        return {"user": name, "group": group, "extra_groups": [], "umask": self.umask}

    def words(self, *more: str, profile: str = "low", command: str = "sweep") -> list[str]:
        """The words of a command."""
        python = [self.python, "-m", f"harness.{command}"]
        if command != "sweep":
            return [*python, *more, "--root", str(self.root)]
        given = ["--executor", "slurm", "--profile", profile, "--root", str(self.root)]
        return [*python, str(self.sweep_file), *given, f"data.path={self.data}", *QUICK, *more]

    def run(
        self,
        *more: str,
        profile: str = "low",
        command: str = "sweep",
        seconds: float = 1800,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Give a command, with further variables of its environment, and wait for its end."""
        return subprocess.run(
            self.words(*more, profile=profile, command=command),
            cwd=self.root,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            **self.identity,
        )

    def submit(self, *more: str, profile: str = "low", **variables: str) -> str:
        """Give the sweep's command, which must go well; what it prints."""
        done = self.run(*more, profile=profile, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *more: str, profile: str = "low") -> subprocess.Popen[str]:
        """Give the sweep's command and do not wait."""
        return subprocess.Popen(
            self.words(*more, profile=profile),
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def replace(self, program: str, script: str) -> None:
        """Put a shell script in the place of a program; `$REAL` in it is the program's path."""
        file = self.bin / program
        real = shutil.which(program)
        file.write_text(f"#!/bin/bash\nREAL={real}\n{script}\n")
        file.chmod(0o755)

    def restore(self, program: str) -> None:
        """Take that script away again."""
        (self.bin / program).unlink()

    # ---- control over runs

    def pace(self, run: int, seconds: float) -> None:
        """Have every picture of a run take so long."""
        self._control(f"pace.{run}", str(seconds))

    def hold(self, run: int, pictures: int) -> None:
        """Have each process at a run wait when it has read so many, until the run is let go."""
        self._control(f"hold.{run}", str(pictures))

    def let_go(self, run: int) -> None:
        """End the wait."""
        (self.data.parent / "control" / f"hold.{run}").unlink()

    def finish(self, run: int) -> None:
        """Let a run come to its end as fast as it can."""
        self.pace(run, 0)
        self.let_go(run)

    def eat(self, run: int, megabytes: int) -> None:
        """Have a run take so much memory."""
        self._control(f"eat.{run}", str(megabytes))

    def _control(self, name: str, text: str) -> None:
        file = self.data.parent / "control" / name
        draft = file.with_name(f".{name}")
        draft.write_text(text)
        os.replace(draft, file)

    # ---- what became of them

    def readers(self, run: int | None = None) -> list[Reader]:
        """Every process that has read pictures in a job, in order of its start."""
        found = []
        for file in (self.data.parent / "trace").iterdir():
            number, job, restarts, pid = file.name.split(".")
            if run in {None, int(number)}:
                with contextlib.suppress(ValueError):  # just made, and still empty
                    first, last = float(file.read_text()), file.stat().st_mtime
                    found.append(Reader(int(number), job, int(restarts), int(pid), first, last))
        return sorted(found, key=lambda reader: reader.first)

    def at_work(self, run: int) -> Reader | None:
        """The process that is reading pictures of this run now."""
        for reader in reversed(self.readers(run)):
            if state_of(reader.pid) not in GONE:
                return reader
        return None

    def wait_for(self, run: int, *, samples: int = 1, seconds: float = 900) -> Reader:
        """The process at work on a run, as soon as it has saved a state of so many samples."""
        found: list[Reader] = []

        def there() -> bool:
            reader = self.at_work(run)
            found[:] = [] if reader is None else [reader]
            return bool(found) and self.status(run).samples_seen >= samples

        self.cluster.wait(f"run {run} to be at work", there, seconds)
        return found[0]

    def together(self) -> list[tuple[Reader, Reader]]:
        """Pairs of processes of different jobs, or of different starts of a job, at one run."""
        return [
            (a, b)
            for a, b in itertools.combinations(self.readers(), 2)
            if a.run == b.run
            and (a.job, a.restarts) != (b.job, b.restarts)
            and b.first < a.last
            and a.first < b.last
        ]

    def directory(self, run: int) -> RunDir:
        """The run directory of run `run`, which exists."""
        for file in self.store.runs.glob("*/config.json"):
            if number_of(RunDir(file.parent)) == run:
                return RunDir(file.parent)
        raise AssertionError(f"run {run} has no directory below {self.store.runs}")

    def holder(self, run: int) -> int:
        """The process that holds the lease of a run."""
        return int((lease_holder(self.directory(run).lease_file) or {})["pid"])

    def status(self, run: int) -> Status:
        """What the files say of a run."""
        directory = self.directory(run)
        return directory.status(directory.read_config().evaluation_key)

    def bits(self) -> dict[int, Bits]:
        """Number -> bits, of every finished run."""
        return bits_of(self.root)

    # ---- jobs

    def jobs(self) -> list[Job]:
        """The jobs in the queue that were submitted from here, each task of an array apart."""
        lines = self.cluster.command(
            "squeue", "--noheader", "--array", "--format=%i|%j|%T|%N|%Z"
        ).splitlines()
        jobs = [Job(*line.split("|")) for line in lines]
        return [job for job in jobs if Path(job.folder) == self.root]

    def node_of(self, run: int) -> str:
        """Where a run is at work."""
        reader = self.at_work(run)
        assert reader is not None, f"run {run} is not at work"
        words = ("squeue", "--noheader", f"--jobs={reader.job}", "--format=%N")
        return self.cluster.command(*words).strip()

    def displace(self, run: int) -> None:
        """Have a job of a higher partition take the node that a run is at work on."""
        reader = self.at_work(run)
        assert reader is not None, f"run {run} is not at work"
        words = ["--partition=main", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
        self.cluster.command("sbatch", f"--nodelist={self.node_of(run)}", *words)
        wait_until(lambda: state_of(reader.pid) in GONE, 600, f"run {run} to be displaced")

    def let_time_run_out(self, run: int) -> None:
        """Have the job at work on a held run reach its time limit; its next start has a whole one.

        The limit is 245 s away and notice of 240 s is due (profile `limited`), so the controller
        gives it within a minute, which leaves three to save in.
        """
        reader = self.at_work(run)
        assert reader is not None, f"run {run} is not at work"
        job = f"jobid={reader.job}"
        self.cluster.command("scontrol", "update", job, "endtime=now+245")
        self.let_go(run)
        wait_until(lambda: state_of(reader.pid) in GONE, 600, f"run {run} to be out of time")
        self.cluster.command("scontrol", "update", job, "timelimit=30")
        self.hold(run, 32)

    def wait_until_over(self, seconds: float = 1800) -> None:
        """Return when none of the jobs from here is in the queue."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(Exception):
                if not self.jobs():
                    return
            if time.monotonic() > deadline:
                states = self.cluster.try_command("squeue", "--array")
                raise AssertionError(f"still in the queue after {seconds:g} s:\n{states}")
            time.sleep(0.5)

    def leave(self) -> None:
        """Cancel what is left of the jobs from here."""
        ids = [job.id for job in self.jobs()]
        if ids:
            self.cluster.try_command("scancel", "--full", "--signal=KILL", *ids)
            self.cluster.try_command("scancel", *ids)

    def evidence(self) -> str:
        """What a failed test shows: the queue, what runs say, and the ends of logs."""
        parts = [self.cluster.try_command("squeue", "--array")]
        for file in sorted(self.store.runs.glob("*/status.json")):
            parts.append(f"{file.parent.name}: {file.read_text()}")
        for log in sorted(self.root.glob("results/**/logs/*")):
            if log.is_file() and log.stat().st_size:
                parts.append(f"--- {log}\n{log.read_text(errors='backslashreplace')[-1500:]}")
        return "\n".join(parts)


def python_of_all() -> str:
    """An interpreter of this version that every user may run."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for file in (Path(sys.executable).resolve(), Path("/usr/bin") / name):
        parents = [folder.stat().st_mode & 0o001 for folder in file.parents]
        if all(parents) and file.exists():
            return str(file)
    pytest.skip(f"no {name} here that another user may run")


def state_of(pid: int) -> str | None:
    """Letter of a process's state; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Return when `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


def read_lines(files: Iterable[Path]) -> list[dict[str, Any]]:
    """The JSON objects in files of one each."""
    return [json.loads(file.read_text()) for file in files]
