"""What was handed to the scheduler, written down before it was.

    <root>/results/sweeps/<sweep>.submissions/
        <id>/
            submission.json   intent: which runs in which task of which array, under which name
            job-<n>.json      the number that the scheduler gave array n
            job-report.json   the same of the job that writes the report
            begun/ launch/    how each task of an array began, or did not; see launching
            ended/            what each task says of its runs when it ends
            held.json         why the tasks that have not begun shall not
            over.json         nothing of it is in the queue any more
            logs/             scripts, and what the jobs print
    <root>/results/sweeps/submitting.lease
                              held by the one command that may submit under this root

A driver that dies between the submission and the note of its number leaves an intent, whose jobs
are found again by name.  One writer a file.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.config import Runtime
from harness.config.pipes import allow_pipes
from harness.config.sweep_files import name_sweep_file
from harness.errors import HarnessError, RecordError, one_line
from harness.files import beside, dump_json, is_sealed, read_json, seal, write_json
from harness.launch.profiles import Profile
from harness.store.lease import Lease, LeaseHeld
from harness.store.record import RunDir, Store

SCHEMA = 1
REPORT = "report"
AFTER = "--after"
"""Option of a command that submits what follows from a submission."""
_SUFFIX = ".submissions"
_LEASE_POLL_SECONDS = 0.5
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)


@dataclass(frozen=True)
class Array:
    """One array of a submission.

    Attributes:
        name: unique among all jobs of the cluster.
        tasks: the keys of the runs of each task, by its index.
        after: names of the jobs that must be over first, whatever came of them.
        only_after: names of those that must have gone well.
    """

    name: str
    tasks: tuple[tuple[str, ...], ...]
    after: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Intent:
    """What a submission is to be; see Array.

    Attributes:
        report: name of the job that writes the report; None if there is none.
        report_command: what writes it, after `python`.
        code: the frozen code; `sweep_file` is in it.
        code_sha256: of the frozen code; see harness.launch.slurm.frozen_check.
        cwd: directory of the command, which paths of the configuration may be relative to.
        pipes: the commands that may be run as `data.path`, whatever the runs' records say.
        round: how many submissions before this one followed each other by themselves.
        rehearsal: whether the runs are short ones, of a store of their own.
        waves: whether other runs follow from what these come to.
        awaits: keys of runs that are in the queue for other submissions, and that the report
            waits for.
    """

    id: str
    sweep: str
    arrays: tuple[Array, ...]
    profile: Profile
    runtime: Runtime
    root: str
    code: str
    sweep_file: str | None
    cwd: str
    command: str
    created: float
    report: str | None = None
    report_command: tuple[str, ...] = ()
    rehearsal: bool = False
    round: int = 0
    by: Mapping[str, Any] = field(default_factory=dict)
    code_sha256: str = ""
    waves: bool = False
    pipes: tuple[str, ...] = ()
    awaits: tuple[str, ...] = ()
    profile_name: str = ""

    @property
    def owner(self) -> int:
        """The user, by number, whose jobs they are; -1 where that is not on record."""
        user = self.by.get("uid")
        return user if isinstance(user, int) else -1

    @property
    def is_mine(self) -> bool:
        """Whether they are jobs of the user of this process."""
        return self.owner in {os.getuid(), -1}

    @property
    def store(self) -> Store:
        """Where the runs are."""
        return Store(Path(self.root))

    def begin(self) -> None:
        """Have this process, a job, know what it is to run: the sweep file, commands for data."""
        allow_pipes(self.pipes)
        if self.sweep_file is not None:
            name_sweep_file(Path(self.sweep_file))

    @property
    def keys(self) -> set[str]:
        """Keys of all runs."""
        return {key for array in self.arrays for task in array.tasks for key in task}

    @property
    def tasks(self) -> int:
        """How many tasks its arrays have."""
        return sum(len(array.tasks) for array in self.arrays)

    def task_of(self, key: str) -> tuple[int, int]:
        """Array and index of the task that a run is in."""
        return next(
            (number, index)
            for number, array in enumerate(self.arrays)
            for index, keys in enumerate(array.tasks)
            if key in keys
        )

    @property
    def sha256(self) -> str:
        """Of all of it: a job is told it, and so knows what it was submitted for."""
        return _sha256_of(_intents().dump_python(self, mode="json"))


def _sha256_of(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(dump_json(tree)).hexdigest()


def _told(tree: Mapping[str, Any]) -> str:
    """What is sealed of a submission."""
    return f"submission {_sha256_of(tree)}"


@cache
def _intents() -> TypeAdapter[Intent]:
    return TypeAdapter(Intent)


class Submission:
    """A submission on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._intent: Intent | None = None

    @property
    def logs(self) -> Path:
        """Scripts, and what the jobs print."""
        return self.folder / "logs"

    # ---- intent

    def write(self, intent: Intent) -> None:
        """Put the intent on disk, before anything is submitted."""
        self.logs.mkdir(parents=True, exist_ok=True)
        tree = _intents().dump_python(intent, mode="json")
        own = {"schema": SCHEMA, "seal": seal(_told(tree))}
        write_json(self.folder / "submission.json", {**own, **tree})
        self._intent = intent

    def is_own(self) -> bool:
        """Whether the user of this process made the submission, as it was read.

        By what is on file, which another version of this code may have written.
        """
        tree = read_json(self.folder / "submission.json") or {}
        given = {name: tree.pop(name, None) for name in ("schema", "seal")}
        return is_sealed(_told(tree), given["seal"]) and self._whole(tree) == self.read()

    def read_as(self, sha256: str) -> Intent:
        """The intent; RecordError unless it is the one of that SHA-256."""
        intent = self.read()
        if intent.sha256 != sha256:
            raise RecordError(
                f"{self.folder / 'submission.json'} was changed since it was submitted (SHA-256 "
                f"{intent.sha256[:12]}, was {sha256[:12]}): nothing of it is run"
            )
        return intent

    def read(self) -> Intent:
        """The intent, which never changes; RecordError where there is none of this schema."""
        if self._intent is None:
            file = self.folder / "submission.json"
            tree = read_json(file)
            if tree is None or tree.get("schema") != SCHEMA:
                raise RecordError(f"{file} is missing, or of another version")
            self._intent = self._whole(tree)
        return self._intent

    def _whole(self, tree: Mapping[str, Any]) -> Intent:
        try:
            return _intents().validate_python(tree)
        except ValidationError as error:
            file = self.folder / "submission.json"
            raise RecordError(f"{file} is not whole: {one_line(error)}") from None

    # ---- what became of it

    def note_job(self, part: int | str, job: str, after: Sequence[str] = ()) -> None:
        """Write down the number of array `part`, or of the report and the jobs it waits for."""
        self._note(f"job-{part}", {"job": job, "after": [*after]})

    def job(self, part: int | str) -> str | None:
        """The number of array `part`, or of the report; None if it was never written down.

        RecordError where it is no number, for commands of SLURM are given it.
        """
        file = self.folder / f"job-{part}.json"
        written = read_json(file)
        if written is None:
            return None
        job = written.get("job")
        if not isinstance(job, str) or not _NUMBER.fullmatch(job):
            raise RecordError(f"{file} names no job of SLURM, but {job!r}")
        return job

    def report_waits_for(self) -> frozenset[str]:
        """The numbers of the jobs that the one that writes the report waits for."""
        written = read_json(self.folder / f"job-{REPORT}.json") or {}
        return frozenset(map(str, written.get("after", ())))

    def close(self) -> None:
        """Nothing of it is in the queue any more, nor will be."""
        self._note("over", {})

    def _note(self, name: str, what: Mapping[str, Any]) -> None:
        write_json(self.folder / f"{name}.json", {"time": round(time.time(), 3), **what})

    @property
    def open(self) -> bool:
        """Whether something of it may be in the queue."""
        return not (self.folder / "over.json").exists()

    def log(self, array: int, index: int) -> Path:
        """What a task of an array prints, wherever it starts."""
        return self.logs / f"{self.job(array)}_{index}_0_log.out"

    # ---- the tasks' own words

    def note_end(
        self, array: int, index: int, ends: Mapping[str, Mapping[str, Any]], *, restarts: int
    ) -> None:
        """What task `index` of an array says of its runs: key -> state, failure, error."""
        self._note(f"ended/{array}-{index}", {"restarts": restarts, "runs": ends})

    def has_ended(self, array: int, index: int, restarts: int) -> bool:
        """Whether task `index` of an array has said so since it was last started."""
        written = read_json(self.folder / "ended" / f"{array}-{index}.json")
        return written is not None and written["restarts"] == restarts

    def ends(self) -> list[dict[str, Any]]:
        """What the tasks that ended said, in the order of their ends."""
        found = [read_json(file) for file in (self.folder / "ended").glob("*.json")]
        return sorted((end for end in found if end is not None), key=lambda end: end["time"])

    def hold(self, reason: str) -> None:
        """Have the tasks that have not begun leave their runs alone."""
        if self.held() is None:
            write_json(self.folder / "held.json", {"reason": reason})

    def held(self) -> str | None:
        """Why its tasks shall not begin; None if they shall."""
        written = read_json(self.folder / "held.json")
        return None if written is None else str(written["reason"])


# --------------------------------------------------------------------------- all of them


def folder_of(store: Store, sweep: str) -> Path:
    """Where the submissions of a sweep are."""
    return store.root / "results" / "sweeps" / f"{sweep}{_SUFFIX}"


def submissions(store: Store, sweep: str | None = None) -> Iterator[Submission]:
    """The submissions of a sweep, or of all under the root, oldest first."""
    pattern = "*" if sweep is None else sweep
    files = (store.root / "results" / "sweeps").glob(f"{pattern}{_SUFFIX}/*/submission.json")
    for file in sorted(files, key=lambda file: file.parent.name):
        yield Submission(file.parent)


@contextmanager
def submitting(store: Store, *, seconds: float = 120.0) -> Iterator[None]:
    """The right to submit under this root, waited for while another command has it.

    Raises:
        HarnessError: it still has it after `seconds`.
    """
    file = store.root / "results" / "sweeps" / "submitting.lease"
    deadline = time.monotonic() + seconds
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(Lease(file))
                break
            except LeaseHeld as error:
                if time.monotonic() > deadline:
                    raise HarnessError(
                        f"another command has been submitting under {store.root} for "
                        f"{seconds:.0f} s; see {file}"
                    ) from error
                time.sleep(_LEASE_POLL_SECONDS)
        look_anew(*file.parent.glob(f"*{_SUFFIX}"))
        yield


def look_anew(*folders: Path) -> None:
    """Have a file system that several machines share show what is in folders now.

    NFS may go on with what it knew some seconds ago, of files that are there and of those that are
    not, until this machine changes a folder.
    """
    for folder in folders:
        note = beside(folder / "look")
        with suppress(OSError):  # not there, another user's, no room: it is seen as it was
            note.touch()
            note.unlink()


def look_anew_at(run: RunDir) -> None:
    """The same of all that another machine may have put into the directory of a run."""
    look_anew(run.path, run.outcomes)


def newest(store: Store, sweep: str) -> Submission | None:
    """The last submission of a sweep."""
    return next(reversed(list(submissions(store, sweep))), None)
