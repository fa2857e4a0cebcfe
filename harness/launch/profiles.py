"""What a job asks a cluster for: named profiles, which are never part of a run's identity.

A profile is a table `[tool.harness.profiles.NAME]` in the pyproject.toml of the working directory,
or `[NAME]` in `profiles.toml` of `~/.config/harness`; the first that has the name is taken.  Knows
no scheduler but by the words its users know.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from harness.config import validate
from harness.errors import ConfigError, one_line, refuse_controls, unknown
from harness.files import own_folder
from harness.planning.costs import GPU_PEAK_GMACS, GPU_UTILISATION, Pace, gpu_pace

DEFAULT = "default"
_SIGNAL_SECONDS = 120
_DAY, _HOUR, _MINUTE = 86_400, 3_600, 60


def seconds_of(value: object) -> object:
    """Seconds of a time limit in SLURM's own forms: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value * _MINUTE
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(value).strip())
    if match is None:
        raise ValueError("a time such as 90 (minutes), 4:00:00 or 2-12:00:00 is wanted")
    days, *rest = match.groups()
    parts = [int(part) for part in rest if part is not None]
    sizes = (_HOUR, _MINUTE, 1)
    if days is None and len(parts) < 3:
        sizes = (_MINUTE, 1, 0)
    return int(days or 0) * _DAY + sum(n * s for n, s in zip(parts, sizes, strict=False))


class Profile(BaseModel):
    """The resources of one job and how it is treated; a job is one task of an array."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    exclude: tuple[str, ...] = ()
    """Nodes never to be used."""
    time: Annotated[int, BeforeValidator(seconds_of), Field(ge=60)] = 4 * _HOUR
    """Seconds; written as SLURM does: 90 (minutes), 4:00:00, 2-12:00:00."""
    nodes: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    """On each node."""
    gpu: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    """The type of the GPUs by the cluster's name for it (a100, nvidia_h100_80gb, ...); the time is
    estimated for the one that the name holds. null: any, and no estimate before a run has
    finished."""
    gpu_utilisation: Annotated[float, Field(gt=0, le=1)] = GPU_UTILISATION
    """Share of their peak that is assumed for it."""
    cpus: Annotated[int, Field(ge=1)] = 1
    """Of each process of a run (each task of a job)."""
    memory: Annotated[str, Field(pattern=r"^\d+[KMGT]?$")] | None = None
    """Of a run on each node, as sbatch has it: 32G; null: the partition's own."""
    pack: Annotated[int, Field(ge=1)] = 1
    """Runs side by side in one job."""
    share_data: bool = False
    """Whether those that see the same pictures have them from one another, decoded once."""
    parallel: Annotated[int, Field(ge=1)] = 256
    """Jobs of an array that run at the same time."""
    max_jobs: Annotated[int, Field(ge=2)] | None = None
    """Jobs of this user in the queue at a time, a task of an array counted as one; null: what the
    cluster takes."""
    signal: Literal["USR2", "USR1", "HUP", "INT"] = "USR2"
    """Sent before the time limit; NCCL keeps USR1 for itself."""
    signal_seconds: Annotated[int, Field(ge=1)] | None = None
    """How long before it; null: two minutes, or a third of the time if that is less."""
    max_retries: Annotated[int, Field(ge=0)] = 5
    """Of one run that was killed, or whose node failed; being pre-empted does not count."""
    report_partition: str | None = None
    """Of the job that writes the report, which needs no GPU; null: as the runs."""
    setup: tuple[str, ...] = ()
    """Lines of shell before the command: modules, variables."""
    on_finish: tuple[str, ...] = ()
    """Lines of shell when a sweep is over and its report is written, with HARNESS_SWEEP,
    HARNESS_REPORT (the folder) and HARNESS_EXIT_CODE (3: with holes) in the environment."""
    extra: Mapping[str, str | int | bool] = {}
    """More options of sbatch, by their long names."""

    @field_validator("*")
    @classmethod
    def _is_one_line(cls, value: object, info: ValidationInfo) -> object:
        """What goes into a line of a script; some are shell, and the caller's."""
        words = value if isinstance(value, tuple) else (value,)
        if isinstance(value, Mapping):
            words = (*value, *value.values())
        for word in words:
            if isinstance(word, str) and info.field_name not in {"setup", "on_finish"}:
                refuse_controls(str(info.field_name), word)
        return value

    @field_serializer("time")
    def time_text(self, seconds: int) -> str:
        """A time limit as SLURM writes it: `4:00:00`."""
        return f"{seconds // _HOUR}:{seconds // _MINUTE % 60:02}:{seconds % _MINUTE:02}"

    def pace(self, processes: int) -> Pace | None:
        """The assumed pace of a run of so many processes; None if nothing is known of the GPUs."""
        words = re.split(r"[_.-]", (self.gpu or "").lower())
        known = next((word for word in words if word in GPU_PEAK_GMACS), None)
        if known is None or not self.gpus:
            return None
        count = self.gpus * self.nodes // self.pack or 1
        return gpu_pace(known, count, self.cpus * processes, self.gpu_utilisation)

    def memory_text(self, runs: int) -> str | None:
        """The memory on each node of so many runs side by side; None: the partition's own."""
        if self.memory is None:
            return None
        digits = self.memory.rstrip("KMGT")
        return f"{int(digits) * runs}{self.memory[len(digits) :]}"

    @property
    def gpus_text(self) -> str | None:
        """The GPUs of a job on each node as sbatch has them: `4`, `a100:4`; None without any."""
        if not self.gpus:
            return None
        return str(self.gpus) if self.gpu is None else f"{self.gpu}:{self.gpus}"

    @property
    def warning_seconds(self) -> int:
        """How long before the time limit the signal is sent."""
        return self.signal_seconds or min(_SIGNAL_SECONDS, self.time // 3)


def load_profile(name: str | None, **changes: object) -> Profile:
    """The profile `name` with `changes` in place of its own values where they are not None.

    Without a name it is the one called `default`, or what a Profile is if there is none.

    Raises:
        ConfigError: there is no such profile, or it cannot be read; the line names the file.
    """
    found: Mapping[str, Any] = {}
    where = "the profile"
    tables = {file: _tables(file) for file in _files()}
    for file, profiles in tables.items():
        if (name or DEFAULT) in profiles:
            found, where = profiles[name or DEFAULT], f"profile {name or DEFAULT!r} in {file}"
            break
    else:
        if name is not None:
            known = {known for profiles in tables.values() for known in profiles}
            places = " or ".join(str(file) for file in _files())
            raise ConfigError(
                f"{unknown('profile', name, known)}; profiles are [tool.harness.profiles.NAME] "
                f"or [NAME] in {places}"
            )
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return validate(Profile, {**found, **given})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _files() -> list[Path]:
    return [Path("pyproject.toml").absolute(), own_folder() / "profiles.toml"]


def _tables(file: Path) -> Mapping[str, Any]:
    try:
        tree: Mapping[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {one_line(error)}") from None
    if file.name == "pyproject.toml":
        for name in ("tool", "harness", "profiles"):
            tree = tree.get(name, {})
    return {name: table for name, table in tree.items() if isinstance(table, dict)}
