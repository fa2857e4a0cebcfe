"""What SLURM says: a hint, never the truth, which is in the runs' own files.

Every call has a time-out, and a call that fails, hangs or answers nonsense is `Silent`: nobody is
taken for dead because of it.  Jobs are known by their names, which are unique, since a cluster that
was set up anew gives old numbers to other jobs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from harness.errors import ConfigError, HarnessError, known_name, one_line

CALL_SECONDS = 30.0
"""How long the scheduler may take to answer."""
_SECONDS = 10.0
"""The same, where little hangs on the answer."""
POLL_SECONDS = 60.0
"""Between two questions of somebody who waits."""

#: Every state of squeue and sacct up to SLURM 25.05 in which a job is over, and what that means
#: for a run that it left without a word; those not listed, known or not, are alive.
ENDED: Mapping[str, str] = {
    "BOOT_FAIL": "node_failure",
    "CANCELLED": "cancelled",
    "COMPLETED": "killed",
    "DEADLINE": "time_limit",
    "FAILED": "killed",
    "LAUNCH_FAILED": "node_failure",
    "NODE_FAIL": "node_failure",
    "OUT_OF_MEMORY": "out_of_memory",
    "PREEMPTED": "preempted",
    "RECONFIG_FAIL": "node_failure",
    "REVOKED": "cancelled",
    "TIMEOUT": "time_limit",
}
_SHORT = {
    "BF": "BOOT_FAIL", "CA": "CANCELLED", "CD": "COMPLETED", "CF": "CONFIGURING",
    "CG": "COMPLETING", "DL": "DEADLINE", "F": "FAILED", "NF": "NODE_FAIL", "OOM": "OUT_OF_MEMORY",
    "PD": "PENDING", "PR": "PREEMPTED", "R": "RUNNING", "RD": "RESV_DEL_HOLD",
    "RF": "REQUEUE_FED", "RH": "REQUEUE_HOLD", "RQ": "REQUEUED", "RS": "RESIZING", "RV": "REVOKED",
    "S": "SUSPENDED", "SE": "SPECIAL_EXIT", "SI": "SIGNALING", "SO": "STAGE_OUT", "ST": "STOPPED",
    "TO": "TIMEOUT",
}  # fmt: skip
_FOREIGN = re.compile(
    r"^(?:SLURM|SBATCH|SRUN|SALLOC|SQUEUE|SINFO|SACCT|SACCTMGR|SCONTROL|SCANCEL|PMI|PMIX)_"
)
_JOB = re.compile(r"[0-9]{1,20}(?:_(?:[0-9]{1,20}|\[[0-9,:%-]+\]))?", re.ASCII)
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER"})


class NoScheduler(ConfigError):
    """There is no SLURM here."""


class Silent(HarnessError):
    """The scheduler could not be asked, so nothing is known.

    Attributes:
        said: what the command printed as it failed; empty where it said nothing.
    """

    exit_code = 3

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


# --------------------------------------------------------------------------- words


def state_of(text: str) -> str:
    """The name of a state as the table has it: `CANCELLED by 1234`, `PD`, `completing*`.

    What the table does not know is given back in capitals, and counts as alive.
    """
    word = re.match(r"[A-Za-z_]*", text.strip())
    name = word[0].upper() if word else ""
    return _SHORT.get(name, name) or "UNKNOWN"


def is_over(state: str) -> bool:
    """Whether a job in this state will never run again; an unknown state is alive."""
    return state in ENDED


def indexes_of(job_id: str) -> tuple[str, list[int] | None]:
    """The id of an array and the indexes in it: `12_[0-3,7%2]` is ("12", [0, 1, 2, 3, 7]).

    None for a job that is no array, or whose indexes cannot be read.
    """
    job, _, indexes = job_id.strip().partition("_")
    text = indexes.strip("[]").partition("%")[0]
    found: list[int] = []
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if match is None:
            return job, None
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        found += range(first, last + 1, step)
    return job, found or None


@dataclass(frozen=True)
class QueuedTask:
    """A task of an array as the scheduler has it."""

    job: str
    """Its id: `12_3`."""
    state: str
    reason: str = ""
    node: str = ""

    @property
    def over(self) -> bool:
        """Whether it will never run again."""
        return is_over(self.state)

    @property
    def launch_failed(self) -> bool:
        """Whether it could not be launched and is held until somebody says that it may be."""
        return "launch failed" in self.reason.lower() and "held" in self.reason.lower()

    @property
    def words(self) -> str:
        """`queued (Priority)`, `HELD (launch failed requeued held)`, `running on n3`."""
        if self.state == "RUNNING":
            return f"running on {self.node}"
        name = "HELD" if "held" in self.reason.lower() else self.state.lower()
        name = "queued" if name == "pending" else name
        return f"{name} ({self.reason})" if self.reason not in {"", "None"} else name


@dataclass
class Listing:
    """Jobs by their name, each with its tasks by index; index 0 of a job that is no array.

    Attributes:
        unread: names with tasks whose indexes could not be read: any of them may be alive.
        hidden: whether jobs of other users may be there and not listed.
    """

    jobs: dict[str, dict[int, QueuedTask]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    hidden: bool = False

    def tasks(self, name: str) -> Mapping[int, QueuedTask]:
        """The tasks of the job of this name; none if it is not listed."""
        return self.jobs.get(name, {})

    def job_id(self, name: str) -> str | None:
        """The number of the job of this name."""
        ids = {task.job.partition("_")[0] for task in self.tasks(name).values()}
        return max(ids, key=lambda text: int(text) if text.isdigit() else -1) if ids else None

    def has(self, name: str) -> bool:
        """Whether anything of the job of this name is listed that is not over."""
        alive = any(not task.over for task in self.tasks(name).values())
        return alive or name in self.unread

    def add(self, job_id: str, name: str, state: str, reason: str = "", node: str = "") -> None:
        """A job, or the tasks of an array that `job_id` names; one that names none is left out."""
        if not re.fullmatch(r"\d+(?:_(?:\d+|\[.*\]?))?", job_id):
            return
        job, indexes = indexes_of(job_id)
        if indexes is None and "_" in job_id:
            self.unread.add(name)
            return
        for index in indexes if indexes is not None else [0]:
            number = job if indexes is None else f"{job}_{index}"
            task = QueuedTask(number, state_of(state), reason.strip("()"), node)
            self.jobs.setdefault(name, {})[index] = task


_COLUMNS = ("JOBID", "NAME", "STATE", "REASON", "NODELIST")


def read_listing(text: str) -> Listing:
    """What squeue prints, by the names of its columns; a line that is none is left out."""
    listing = Listing()
    for row in rows_of(text, _COLUMNS):
        if len(row) >= 3:
            listing.add(*(row.get(name, "") for name in _COLUMNS))
    return listing


def rows_of(text: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Lines of fields with bars between them, by the names in the line that names `columns[0]`.

    Args:
        columns: what they are until a line names them, and where none does.
    """
    rows: list[dict[str, str]] = []
    names = list(columns)
    for line in text.splitlines():
        parts = [part.strip() for part in line.strip().split("|")]
        if columns[0] in parts and not rows:
            names = parts
        elif "|" in line:
            rows.append(dict(zip(names, parts, strict=False)))
    return rows


def fields_of(text: str) -> dict[str, str]:
    """`JobName=a JobState=RUNNING ...`, as scontrol shows a thing, by name."""
    return dict(re.findall(r"(?:^|\s)([A-Za-z][A-Za-z:/]*)=(\S*)", text))


# --------------------------------------------------------------------------- questions


def installed() -> bool:
    """Whether the commands of SLURM are here."""
    return shutil.which("sbatch") is not None


def require() -> None:
    """NoScheduler unless the commands of SLURM are here."""
    if not installed():
        raise NoScheduler(
            "--executor slurm: there is no sbatch on the PATH of this machine; "
            "type the command on a login node, or use --executor local"
        )


def clean_environment() -> dict[str, str]:
    """This process's environment without what an allocation it may run in has left there.

    Nor with what a user has set that changes the answers, such as SQUEUE_STATES.
    """
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or not _FOREIGN.match(k)}
    return {**kept, "LC_ALL": "C"}


#: The command after it ignores SIGTERM.
_DEAF = ("sh", "-c", 'trap "" TERM; exec "$0" "$@"')


def ask(*command: str, seconds: float = CALL_SECONDS, deaf: bool = False, **variables: str) -> str:
    """What a command of SLURM prints; Silent when it fails or does not answer in time.

    Args:
        deaf: let it live on when this process and all that it runs are told to end.
        variables: of its environment alone.
    """
    try:
        done = subprocess.run(
            [*_DEAF, *command] if deaf else command,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=seconds,
            env={**clean_environment(), **variables},
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise Silent(f"{command[0]} did not answer in {seconds:g} s") from None
    except OSError as error:
        raise Silent(f"{command[0]} cannot be run: {one_line(error)}") from None
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise Silent(f"{command[0]}: {said or f'exit code {done.returncode}'}", said)
    return done.stdout


def queue(users: Iterable[int] = (), *, seconds: float = CALL_SECONDS) -> Listing:
    """All jobs of this user, and of `users` by their numbers, that are not over, in one call.

    Those of hidden partitions too.
    """
    others = {user for user in users if user != os.getuid()}
    known = {user for user in others if known_name(user)}
    asked = ",".join(map(str, sorted({os.getuid(), *known})))
    command = ("squeue", "--all", f"--user={asked}", "--format=%i|%j|%T|%r|%N")
    listing = read_listing(ask(*command, seconds=seconds, SLURM_BITSTR_LEN="0"))
    listing.hidden = others != known or (bool(others) and _jobs_are_private(seconds))
    return listing


def _jobs_are_private(seconds: float) -> bool:
    text = ask("scontrol", "show", "config", seconds=seconds)
    found = re.search(r"^PrivateData\s*=\s*(\S+)", text, re.MULTILINE)
    return found is not None and "jobs" in found[1].lower().split(",")


def add_by_number(listing: Listing, job: str, name: str) -> None:
    """Add to `listing` what the scheduler says of a job that it did not list, asked by number.

    A number that it does not know, or that is another job's by now, adds nothing; when it does not
    answer, any task may be alive.
    """
    try:
        text = ask("scontrol", "--oneliner", "show", "job", checked(job))
    except Silent as error:
        if "invalid job id" not in str(error).lower():
            listing.unread.add(name)
        return
    for fields in map(fields_of, text.splitlines()):
        if fields.get("JobName") == name:
            array, task = fields.get("ArrayJobId"), fields.get("ArrayTaskId", "")
            task = task if task.isdigit() else f"[{task}]"
            number = fields.get("JobId", "") if array is None else f"{array}_{task}"
            state, reason = fields.get("JobState", ""), fields.get("Reason", "")
            listing.add(number, name, state, reason, fields.get("NodeList", ""))


def add_from_accounting(listing: Listing, job: str, name: str) -> None:
    """Add to `listing` what accounting, if there is any, says of a job of that name."""
    with suppress(Silent):
        for row in _accounted(job):
            if row.get("JobName") == name:
                listing.add(row.get("JobID", ""), name, row.get("State", ""))


def _accounted(job: str) -> list[dict[str, str]]:
    """Every start of a job, in order, as accounting has it; Silent as `ask`."""
    columns = ("JobID", "State", "JobName")
    command = ("sacct", "--parsable2", "--allocations", "--duplicates")
    words = (f"--format={','.join(columns)}", "--jobs", checked(job))
    return rows_of(ask(*command, *words, seconds=_SECONDS), columns)


def checked(job: str) -> str:
    """`job`, if it is a number of SLURM such as 12 or 12_3; ConfigError for any other word."""
    if not _JOB.fullmatch(job):
        raise ConfigError(f"{job!r} is no job of SLURM")
    return job


def own_state(job: str) -> str:
    """The state of one job, with flags such as COMPLETING left out; Silent as `ask`."""
    text = ask("scontrol", "show", "job", checked(job), seconds=_SECONDS)
    return state_of(fields_of(text).get("JobState", ""))


def last_end(job: str) -> str | None:
    """The class of the end of the last attempt of a job that accounting calls over, if it does.

    A job that was put back in the queue was taken away from its node, for whatever reason.
    """
    classes = {"REQUEUED": "preempted", **ENDED}
    over = [classes.get(state_of(row.get("State", ""))) for row in _accounted(job)]
    return next((failure for failure in reversed(over) if failure is not None), None)


def requeue(job: str, *, exclude: Sequence[str] = ()) -> None:
    """Put a job back in the queue, away from some nodes; Silent when that was not taken.

    The job may be the one that asks, which SLURM then ends with all that it runs.
    """
    ask("scontrol", "requeue", checked(job), deaf=True)
    if exclude:
        away = (f"JobId={job}", f"ExcNodeList={','.join(exclude)}")
        ask("scontrol", "update", *away, deaf=True)


def avoidable(nodes: Iterable[str], partition: str | None = None) -> tuple[str, ...]:
    """`nodes` without repetition, or none where a job kept away from them could never begin.

    Args:
        nodes: names of nodes that a job should not start on.
        partition: of the job, several with commas between; None: the cluster's default.
    """
    avoided = tuple(dict.fromkeys(node for node in nodes if _NODE.fullmatch(node)))
    if not avoided:
        return ()
    columns = ("NODELIST", "PARTITION")
    rows = rows_of(or_nothing("sinfo", "--all", "--Node", "--format=%N|%P"), columns)
    wanted = None if partition is None else partition.split(",")
    there = {
        node
        for node, name in ([row.get(column, "") for column in columns] for row in rows)
        if (name.endswith("*") if wanted is None else name.rstrip("*") in wanted)
    }
    return () if there and there <= set(avoided) else avoided


def release(jobs: Sequence[str]) -> None:
    """Let jobs that are held begin; Silent when that was not taken."""
    ask("scontrol", "release", *map(checked, jobs))


def cancel(jobs: Sequence[str], name: str) -> None:
    """Cancel jobs that have this name still: a number may be another's by now."""
    ask("scancel", f"--name={name}", *map(checked, jobs))


def or_nothing(*command: str, seconds: float = CALL_SECONDS) -> str:
    """The same; nothing when it fails."""
    try:
        return ask(*command, seconds=seconds)
    except Silent:
        return ""
