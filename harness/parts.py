"""The parts that a run was made with and the harness lacks: those that its sweep file registers.

A run records where its sweep file was and what was in it.  A command that looks into the run
imports that file again, if it needs to, and only as it was.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from harness.config import RunConfig
from harness.data.catalog import SOURCES
from harness.errors import ConfigError
from harness.models.names import backbone_names
from harness.record import RunDir, read_json
from harness.sweep_files import load_sweep

_OPTION = "--sweep PATH names it"


def import_parts(run: RunDir, config: RunConfig, given: Path | None, *, data: bool = False) -> None:
    """Import the sweep file `given`, or else the recorded one if a name is not known without it.

    Args:
        data: whether the run's data set is wanted too, and not its model alone.

    Raises:
        ConfigError: the file is not on record, gone or changed, or does not register the name.
        SweepError: the file cannot be imported.
    """
    missing = _missing(config, data=data)
    if given is None and not missing:
        return
    file = given or _recorded(run, missing[0])
    load_sweep(str(file))
    print(f"parts of {file} are in use", file=sys.stderr)
    if missing := _missing(config, data=data):
        raise ConfigError(f"run {run.key} wants {missing[0]}, which {file} does not register")


def _missing(config: RunConfig, *, data: bool) -> list[str]:
    backbone, source = config.model.image.backbone, config.data.source
    missing = [] if backbone in backbone_names() else [f"backbone {backbone!r}"]
    return [*missing, *([f"data source {source!r}"] if data and source not in SOURCES else [])]


def _recorded(run: RunDir, missing: str) -> Path:
    """The sweep file that made the run; ConfigError unless it is there as it was."""
    wants = f"run {run.key} wants {missing}, which a sweep file registered"
    sweep = (read_json(run.path / "job.json") or {}).get("sweep")
    if sweep is None:
        raise ConfigError(f"{wants} that is not on record; {_OPTION}")
    file = Path(sweep["path"])
    try:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{wants}: {file} cannot be read ({error.strerror or error}); {_OPTION}"
        ) from None
    if found != sweep["sha256"]:
        raise ConfigError(
            f"{wants}: {file} has changed since (SHA-256 {found[:12]}, was {sweep['sha256'][:12]});"
            f" {_OPTION}, or it as it is now"
        )
    return file
