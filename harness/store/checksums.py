"""SHA-256 of what a run left, as its result tells them: against accidents, not against attackers.

    checkpoint, training_modules   file and sha256
    evaluations/<key>              outcomes and outcomes_sha256; of deployed forms likewise
    logs                           name -> SHA-256, as training left them
    digest                         of the result itself

A result of earlier versions has those of its weights alone.  Reads and never writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import RecordError
from harness.files import inside, sha256_of

LOGS = "logs"
OUTCOMES = "outcomes_sha256"
UNCHECKED = "an earlier version recorded checksums of the weights alone: other damage is not seen"
_WEIGHTS = ("checkpoint", "training_modules")


def digest_of(tree: Mapping[str, Any]) -> str:
    """SHA-256 of a record without its digest: JSON with sorted keys, no spaces, ASCII alone."""
    rest = {name: value for name, value in tree.items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def of_logs(*files: Path) -> dict[str, str]:
    """Name -> SHA-256 of those that are there."""
    return {file.name: sha256_of(file) for file in files if file.is_file()}


def is_told(result: Mapping[str, Any]) -> bool:
    """Whether a result tells more than the checksums of its weights."""
    return LOGS in result and all(OUTCOMES in e for e in result["evaluations"].values())


def changed_files(folder: Path, result: Mapping[str, Any]) -> Iterator[str]:
    """A line for each file of the run's folder that is not as its result tells.

    One that is gone is left out: a copy of the records alone has no weights.
    """
    for name, sha256 in _told(result):
        try:
            if sha256_of(inside(folder, name)) != sha256:
                yield f"{folder / name} is not as it was written: its result tells another checksum"
        except FileNotFoundError:
            continue
        except (OSError, RecordError) as error:
            yield f"{folder / str(name)} cannot be checked: {error}"


def _told(result: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    for entry in (result.get(name) for name in _WEIGHTS):
        if entry is not None:
            yield entry.get("file"), entry.get("sha256")
    for evaluation in result["evaluations"].values():
        for entry in (evaluation, *evaluation.get("deployed", {}).values()):
            if OUTCOMES in entry:
                yield entry["outcomes"], entry[OUTCOMES]
    yield from result.get(LOGS, {}).items()
