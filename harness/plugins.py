"""The parts that a run was made with and the harness lacks: those that its sweep file registers.

A run records where its sweep file was and what was in it.  A command that looks into the run
imports that file again, if it needs to, and only as it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.config import RunConfig
from harness.config.sweep_files import load_recorded, load_sweep
from harness.data.catalog import SOURCES
from harness.errors import ConfigError
from harness.models.names import backbone_names
from harness.store.record import RunDir


def read_run(run: RunDir, given: Path | None, *, data: bool = False) -> RunConfig:
    """The configuration of `run`, with all it names at hand.

    The sweep file `given` is imported, or else the recorded one if a name is not known without it.

    Args:
        data: whether the run's data set is wanted too, and not its model alone.

    Raises:
        ConfigError: the file is not on record, gone or changed, or does not register the name.
        SweepError: the file cannot be imported.
    """
    if given is not None:
        load_sweep(str(given))
        print(f"parts of {given} are in use", file=sys.stderr)
    config = run.read_config()
    missing = _missing(config, data=data)
    if missing and given is None:
        wants = f"run {run.key} wants {missing[0]}, which a sweep file registered"
        load_recorded(run.sweep_file(), wants)
        missing = _missing(config, data=data)
    if missing:
        file = given or getattr(run.sweep_file(), "path", None)
        raise ConfigError(f"run {run.key} wants {missing[0]}, which {file} does not register")
    return config


def _missing(config: RunConfig, *, data: bool) -> list[str]:
    backbone, source = config.model.image.backbone, config.data.source
    missing = [] if backbone in backbone_names() else [f"backbone {backbone!r}"]
    return [*missing, *([f"data source {source!r}"] if data and source not in SOURCES else [])]
