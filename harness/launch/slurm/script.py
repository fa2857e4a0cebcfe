"""The sbatch script of a job, whose text is submitit's, and its submission.

submitit's own payload is a pickled function that it moves, after the submission, to a name with the
job's number in it: a driver that dies in between leaves tasks that never find theirs.  So the
payload here is a command with the path of the submission and nothing else, and all that a task
needs is on disk before sbatch is called.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, one_line
from harness.files import write_atomic
from harness.launch.profiles import Profile
from harness.launch.slurm import frozen_check
from harness.launch.slurm.freeze import Frozen
from harness.launch.slurm.launching import Launch
from harness.launch.slurm.scheduler import CALL_SECONDS, Silent, ask, clean_environment, installed

SBATCH_SECONDS = 60
"""How long sbatch may take."""
_CLOSING = "closing"
"""The function of the shell that is the command of a job which runs in spite of its setup."""
_RANKS_WAIT_SECONDS = 60
"""How long the other tasks of a job have after one ended."""

_NO_CONTROLLER = re.compile(r"timed out|unable to contact", re.IGNORECASE)
_TOO_MANY = re.compile(r"limit|violates accounting", re.IGNORECASE)
_NO_SUCH_GPU = re.compile(r"node configuration|generic resource|gres", re.IGNORECASE)


class Refused(ConfigError):
    """What sbatch would not take, in its own words."""

    @property
    def too_many(self) -> bool:
        """Whether fewer jobs may be taken."""
        return _TOO_MANY.search(str(self)) is not None


@dataclass(frozen=True)
class BatchJob:
    """A job or an array of them, as it is handed to sbatch.

    Attributes:
        command: what runs in it, after `python`.
        count: tasks of the array; None for a job that is no array.
        afterwards: what runs when the command has failed, after `python`; its code follows.
        processes: of the command, on each node.
        launch: where the tasks of an array note how they begin; None for a job whose command runs
            whatever becomes of its setup, in the script itself.
    """

    name: str
    command: tuple[str, ...]
    profile: Profile
    frozen: Frozen
    cwd: str
    logs: Path
    count: int | None = None
    processes: int = 1
    after: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    afterwards: tuple[str, ...] = ()
    launch: Launch | None = None


def submit(job: BatchJob) -> str:
    """Hand a job to sbatch; returns its number.

    Raises:
        Refused: sbatch would not take it.
        Silent: sbatch did not answer, so that the job may be in the queue or not.
    """
    file = job.logs / f"{job.name}.sh"
    write_atomic(file, script(job).encode())
    try:
        answer = ask("sbatch", str(file), seconds=SBATCH_SECONDS)
    except Silent as error:
        said = error.said.removeprefix("sbatch: error: ")
        if not said or _NO_CONTROLLER.search(said):
            raise
        if job.profile.gpu is not None and job.profile.gpus and _NO_SUCH_GPU.search(said):
            said += f"; gpu = {job.profile.gpu!r} is to be a type that sinfo --format=%G names"
        raise Refused(f"sbatch refuses the job: {said}") from None
    number = re.search(r"job (\d+)", answer)
    if number is None:
        raise Silent(f"sbatch: {' '.join(answer.split())}")
    return number[1]


def verdict(text: str) -> str | None:
    """What the scheduler says of a script without taking it; None where there is none to ask."""
    if not installed():
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(text)
        file.flush()
        try:
            words = ["sbatch", "--test-only", file.name]
            done = subprocess.run(
                words, env=clean_environment(), capture_output=True, text=True, timeout=CALL_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return one_line(error)
    said = " ".join(f"{done.stdout} {done.stderr}".split())
    return said.removeprefix("sbatch: ") or f"exit code {done.returncode}"


def script(job: BatchJob) -> str:
    """The text of the sbatch script."""
    from submitit.slurm.slurm import _make_sbatch_string

    profile = job.profile
    chosen: dict[str, Any] = {
        "job_name": job.name,
        "map_count": job.count,
        "partition": profile.partition,
        "qos": profile.qos,
        "account": profile.account,
        "constraint": profile.constraint,
        "exclude": ",".join(dict.fromkeys([*profile.exclude, *job.exclude])) or None,
        "time": profile.time_text(profile.time),
        "nodes": profile.nodes,
        "ntasks_per_node": job.processes,
        "cpus_per_task": profile.cpus,
        "gpus_per_node": profile.gpus_text,
        "mem": profile.memory,
        "array_parallelism": profile.parallel,
        "dependency": _dependency(job),
        "wckey": None,
        "stderr_to_stdout": True,
        "setup": _setup(job),
        "teardown": _teardown(job),
        "srun_args": _srun(job),
        "use_srun": job.launch is not None,
        "additional_parameters": _more(job),
    }
    command = _CLOSING if job.launch is None else _python(job.command)
    text: str = _make_sbatch_string(command, job.logs, **chosen)
    return text


def _python(words: Sequence[str]) -> str:
    return shlex.join([sys.executable, "-u", *words])


def _dependency(job: BatchJob) -> str | None:
    parts = [f"afterany:{':'.join(job.after)}"] if job.after else []
    parts += [f"afterok:{':'.join(job.only_after)}"] if job.only_after else []
    return ",".join(parts) or None


def _more(job: BatchJob) -> dict[str, Any]:
    profile = job.profile
    more: dict[str, Any] = {
        "chdir": job.cwd,
        "signal": f"{profile.signal}@{profile.warning_seconds}",
        "requeue": True,
        "export": "ALL",
        "output": _output(job, "0"),
    }
    if profile.reservation is not None:
        more["reservation"] = profile.reservation
    if job.only_after:
        more["kill-on-invalid-dep"] = "yes"
    return {**more, **{k: v for k, v in profile.extra.items() if v is not False}}


def _setup(job: BatchJob) -> list[str]:
    return [
        "trap : TERM USR1 USR2 HUP",  # what they ask for is done when the command has ended
        *(_setup_in_spite(job) if job.launch is None else _setup_of_task(job, job.launch)),
        "ulimit -c 0",
    ]


def _setup_of_task(job: BatchJob, launch: Launch) -> list[str]:
    """A task that ends before its command runs leaves a note that needs no more than this shell."""
    cpus = job.profile.cpus
    return [
        *launch.definitions,
        "trap unlaunched EXIT",
        *job.profile.setup,
        f"export OMP_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-{cpus}}}",
        "export SRUN_CPUS_PER_TASK=$OMP_NUM_THREADS",
        # Of 23.11 and newer: srun refuses to start where two variables say it, differently.
        'case "$SLURM_TRES_PER_TASK" in cpu*) unset SLURM_TRES_PER_TASK;; esac',
        *_code(job.frozen),
        "trap - EXIT",
    ]


def _setup_in_spite(job: BatchJob) -> list[str]:
    """The command runs when the lines of the profile leave the shell, too."""
    return [
        f"{_CLOSING}() {{",
        "trap - EXIT",
        *_code(job.frozen),
        _python(job.command),
        "exit $?",
        "}",
        f"trap {_CLOSING} EXIT",
        *job.profile.setup,
    ]


def _code(frozen: Frozen) -> list[str]:
    """The frozen code, if it is sound, comes first on the path."""
    environment = frozen.environment()
    path = shlex.quote(environment.pop("PYTHONPATH"))
    return [
        f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}",
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        f"{_check(frozen)} || exit 1",
    ]


def _check(frozen: Frozen) -> str:
    """The words that look whether the code is what was frozen, by a text of their own."""
    text = Path(frozen_check.__file__).read_text(encoding="utf-8")
    words = [f"exec({text!r})", str(frozen.path), frozen.sha256]
    return shlex.join([sys.executable, "-I", "-c", *words])


def _output(job: BatchJob, rank: str) -> str:
    """Where a process of the job prints; `%` of the folder is no pattern of SLURM."""
    number = "%j" if job.count is None else "%A_%a"
    return f"{str(job.logs.absolute()).replace('%', '%%')}/{number}_{rank}_log.out"


def _srun(job: BatchJob) -> list[str]:
    words = ["--open-mode=append", f"--cpus-per-task={job.profile.cpus}"]
    words += ["--output", _output(job, "%t")]  # the last one counts
    if job.processes * job.profile.nodes == 1:
        return words
    return [*words, "--kill-on-bad-exit=0", f"--wait={_RANKS_WAIT_SECONDS}"]


def _teardown(job: BatchJob) -> list[str]:
    if job.launch is None:
        return ["exit $?"]
    afterwards = f"{_python(job.afterwards)} $code"
    return ["code=$?", f"[ $code -eq 0 ] || {{ begun $code; {afterwards}; }}", "exit $code"]
